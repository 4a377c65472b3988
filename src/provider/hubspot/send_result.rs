//! HubSpot's list of final results, and what each one means to us.
//!
//! The list is open: it grew from 43 values in 2023 to 51 in June 2026. HubSpot's guide explains
//! ten of them; the meanings of the others are read from their names.

use std::time::Duration;

use crate::outcome::{Failure, FailureClass, LookUp, PauseReason, Scope, Words};

/// What a result means for the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// It was sent, by this call or by an earlier one under the same `sendId`.
    Sent,
    /// HubSpot has it and will send it.
    Queued,
    /// Final, and not telling whether it was sent.
    Unclear,
    /// Not sent: HubSpot was too busy. Whose limit that is, it does not tell.
    Later,
    /// Not sent, and will not be: the recipient, the request or the template is at fault.
    Refused,
    /// The account's sending quota is spent.
    OverLimit,
    /// HubSpot has stopped the account: nothing that it sends gets out.
    Stopped,
    /// Not among those that this version knows.
    UnheardOf,
}

use Meaning::{Later, OverLimit, Queued, Refused, Sent, Stopped, Unclear};

/// Every value of HubSpot's specs, with what an operator can do about it.
#[rustfmt::skip] // one row a line
const RESULTS: [(&str, Meaning, &str); 51] = [
    // --- it was sent, or will be
    ("SENT", Sent, ""),
    ("QUEUED", Queued, ""),
    ("IDEMPOTENT_IGNORE", Sent, ""),
    // --- nobody knows
    ("IDEMPOTENT_FAIL", Unclear, ""),
    // --- may heal
    ("THROTTLED", Later, "HubSpot was too busy: it is sent again"),
    ("ATTACHMENT_DOWNLOAD_QUEUE_FULL", Later, "HubSpot was too busy: it is sent again"),
    ("PORTAL_OVER_LIMIT", OverLimit, "the account has used up its email quota: raise it in HubSpot"),
    // --- the recipient
    ("INVALID_TO_ADDRESS", Refused, "correct message.to; HubSpot also refuses role addresses such as noreply@"),
    ("BLOCKED_DOMAIN", Refused, "the recipient's domain takes no mail from HubSpot at this time"),
    ("BLOCKED_ADDRESS", Refused, "HubSpot has blocked the recipient's address"),
    ("PREVIOUSLY_BOUNCED", Refused, "mail to this recipient bounced: correct the address, or clear the bounce"),
    ("PREVIOUS_SPAM", Refused, "the recipient reported earlier mail as spam: do not send again"),
    ("QUARANTINED_ADDRESS", Refused, "HubSpot holds the address in quarantine: ask there for its release"),
    ("UNDELIVERABLE", Refused, "the recipient's mail server does not take it: correct the address"),
    ("ADDRESS_LIST_BOMBED", Refused, "HubSpot takes the address for one that is signed up by robots"),
    ("ADDRESS_OPTED_OUT", Refused, "the recipient wants no mail: do not send again"),
    ("PREVIOUSLY_UNSUBSCRIBED_MESSAGE", Refused, "the recipient has unsubscribed from this kind of mail"),
    ("PREVIOUSLY_UNSUBSCRIBED_PORTAL", Refused, "the recipient has unsubscribed from all mail of this account"),
    ("PREVIOUSLY_UNSUBSCRIBED_BRAND", Refused, "the recipient has unsubscribed from this brand"),
    ("PREVIOUSLY_UNSUBSCRIBED_BUSINESS_UNIT", Refused, "the recipient has unsubscribed from this business unit"),
    ("EMAIL_UNCONFIRMED", Refused, "the recipient has not confirmed the address yet"),
    ("GDPR_DOI_ENABLED", Refused, "the account asks for double opt-in, and the recipient has not confirmed"),
    ("NON_MARKETABLE_CONTACT", Refused, "the recipient is no marketing contact: make it one, or send it as transactional"),
    ("MARKETING_ACTIVATION_DISALLOWED", Refused, "the recipient may not become a marketing contact: send it as transactional"),
    ("GRAYMAIL_SUPPRESSED", Refused, "the email skips recipients who never open mail: change that in HubSpot"),
    ("RECIPIENT_FATIGUE_SUPPRESSED", Refused, "the recipient got too many mails, by the account's own limit"),
    ("BRAND_RECIPIENT_FATIGUE_SUPPRESSED", Refused, "the recipient got too many mails of this brand, by the account's own limit"),
    ("LOW_CONTACT_QUALITY_SCORE", Refused, "HubSpot does not trust the recipient's address: check that it is real"),
    ("CONTACT_VIEW_PERMISSION", Refused, "the token may not see this contact: change the permissions in HubSpot"),
    ("ADDRESS_ONLY_ACCEPTED_ON_PROD", Refused, "only HubSpot's production system takes this address"),
    ("TOO_MANY_RECIPIENTS", Refused, "take recipients out of message.cc and message.bcc"),
    ("MTA_IGNORE", Refused, "HubSpot's mail servers ignore this recipient: ask HubSpot's support"),
    // --- the request or the template
    ("INVALID_FROM_ADDRESS", Refused, "correct message.from, or the sender in the template"),
    ("MISSING_CONTENT", Refused, "correct emailId: there is no such email, or it is not saved for single send"),
    ("MISSING_TEMPLATE_PROPERTIES", Refused, "the template needs properties that the request does not hold"),
    ("MISSING_REQUIRED_PARAMETER", Refused, "the request or the template lacks something that HubSpot requires"),
    ("CORRUPT_INPUT", Refused, "HubSpot cannot read the request: check its properties"),
    ("VALIDATION_FAILED", Refused, "HubSpot finds the request or the email invalid: check the email in HubSpot"),
    ("TEMPLATE_RENDER_EXCEPTION", Refused, "the template fails with these properties: try it in HubSpot"),
    ("HUBL_LIMIT_EXCEEDED", Refused, "the template does too much work: simplify its HubL"),
    ("EMAIL_DISABLED", Refused, "the email is switched off: publish it in HubSpot"),
    ("CAMPAIGN_CANCELLED", Refused, "the email was cancelled in HubSpot: publish it again"),
    // --- the account
    ("PORTAL_SUSPENDED", Stopped, "HubSpot has suspended the account (acceptable use): talk to HubSpot"),
    ("PORTAL_EXPIRED", Stopped, "the HubSpot account has expired: renew it"),
    ("PORTAL_AUTHENTICATION_FAILURE", Stopped, "HubSpot does not accept the account's authentication: check the token"),
    ("PORTAL_MISSING_MARKETING_SCOPE", Stopped, "the account lacks marketing email: check its subscription and scopes"),
    ("PORTAL_NOT_AUTHORIZED_FOR_APPLICATION", Stopped, "the account may not use single send: check the Transactional Email add-on"),
    ("UNCONFIGURED_SENDING_DOMAIN", Stopped, "connect the sender's domain as an email sending domain in HubSpot"),
    ("INVALID_APP_ID_ATTRIBUTION", Stopped, "HubSpot does not know the token's app: make a new token"),
    ("UBB_GOVERNANCE_MISSING", Stopped, "HubSpot asks for a usage-based billing setting: complete it in the account"),
    ("CANCELLED_ABUSE", Stopped, "HubSpot has stopped the account's mail for abuse: talk to HubSpot"),
];

const UNHEARD_OF: &str = "this version of Postrider does not know this result: look the email up \
                          in HubSpot; if it was not sent, publish it anew under another id";
const CANCELED: &str = "it was cancelled in HubSpot before it went out";

/// What a status view says: `status` is how far HubSpot is with the request, `words.send_result`
/// what became of the mail.
///
/// HubSpot nowhere says how the two go together, and `COMPLETE` with `QUEUED` has been seen. So
/// the view is final when its status is, and when its result is more than *queued*; until then
/// the answer is `Pending`, and the asker decides how long to go on.
pub(super) fn settled(status: Option<&str>, words: Words) -> LookUp {
    let canceled = match status {
        Some("PENDING" | "PROCESSING") => return LookUp::Pending,
        Some("CANCELED") => true,
        // COMPLETE; or a status that is new to us or missing, and then the result alone counts.
        _ => false,
    };
    let Some((meaning, hint)) = words.send_result.as_deref().map(look_up) else {
        return if canceled {
            refused(words, CANCELED)
        } else {
            LookUp::Pending
        };
    };
    match meaning {
        Sent => LookUp::Sent(words),
        Queued if canceled => refused(words, CANCELED),
        Queued => LookUp::Pending,
        Unclear => LookUp::Unclear(words),
        Later => not_sent(FailureClass::Throttled, Scope::Message, None, words, hint),
        Refused => refused(words, hint),
        Meaning::UnheardOf => LookUp::UnheardOf(failure(
            FailureClass::Permanent,
            Scope::Message,
            None,
            words,
            hint,
        )),
        OverLimit => halted(PauseReason::Daily, words, hint),
        Stopped => halted(PauseReason::Portal, words, hint),
    }
}

/// A result that nobody has seen before is final and never sent again by itself.
fn look_up(result: &str) -> (Meaning, &'static str) {
    RESULTS
        .iter()
        .find(|(name, ..)| *name == result)
        .map_or((Meaning::UnheardOf, UNHEARD_OF), |(_, meaning, hint)| {
            (*meaning, *hint)
        })
}

fn refused(words: Words, hint: &str) -> LookUp {
    not_sent(FailureClass::Permanent, Scope::Message, None, words, hint)
}

fn halted(pause: PauseReason, words: Words, hint: &str) -> LookUp {
    not_sent(
        FailureClass::Halted,
        Scope::Account,
        Some(pause),
        words,
        hint,
    )
}

fn not_sent(
    class: FailureClass,
    scope: Scope,
    pause: Option<PauseReason>,
    words: Words,
    hint: &str,
) -> LookUp {
    LookUp::NotSent(failure(class, scope, pause, words, hint))
}

fn failure(
    class: FailureClass,
    scope: Scope,
    pause: Option<PauseReason>,
    words: Words,
    hint: &str,
) -> Failure {
    Failure {
        class,
        scope,
        pause,
        retry_after: None::<Duration>,
        words,
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(status: &str, result: Option<&str>) -> LookUp {
        let words = Words {
            send_result: result.map(str::to_owned),
            ..Words::default()
        };
        settled(Some(status), words)
    }

    /// `sent`, `pending`, `unclear`, or the class of what was not sent and its pause.
    fn told(look_up: &LookUp) -> String {
        match look_up {
            LookUp::Pending => "pending".into(),
            LookUp::Sent(_) => "sent".into(),
            LookUp::Unclear(_) => "unclear".into(),
            LookUp::UnheardOf(_) => "unheard of".into(),
            LookUp::NotSent(failure) => match failure.pause {
                None => failure.class.label().into(),
                Some(pause) => format!("{} {}", failure.class.label(), pause.label()),
            },
            LookUp::Failed(_) => "failed".into(),
        }
    }

    #[test]
    fn every_result_of_the_specs_is_in_the_table_once() {
        // The `sendResult` enum of HubSpot's specs (v3, v4, 2026-03), in their order.
        let spec = "ADDRESS_LIST_BOMBED ADDRESS_ONLY_ACCEPTED_ON_PROD ADDRESS_OPTED_OUT \
            ATTACHMENT_DOWNLOAD_QUEUE_FULL BLOCKED_ADDRESS BLOCKED_DOMAIN \
            BRAND_RECIPIENT_FATIGUE_SUPPRESSED CAMPAIGN_CANCELLED CANCELLED_ABUSE \
            CONTACT_VIEW_PERMISSION CORRUPT_INPUT EMAIL_DISABLED EMAIL_UNCONFIRMED \
            GDPR_DOI_ENABLED GRAYMAIL_SUPPRESSED HUBL_LIMIT_EXCEEDED IDEMPOTENT_FAIL \
            IDEMPOTENT_IGNORE INVALID_APP_ID_ATTRIBUTION INVALID_FROM_ADDRESS INVALID_TO_ADDRESS \
            LOW_CONTACT_QUALITY_SCORE MARKETING_ACTIVATION_DISALLOWED MISSING_CONTENT \
            MISSING_REQUIRED_PARAMETER MISSING_TEMPLATE_PROPERTIES MTA_IGNORE \
            NON_MARKETABLE_CONTACT PORTAL_AUTHENTICATION_FAILURE PORTAL_EXPIRED \
            PORTAL_MISSING_MARKETING_SCOPE PORTAL_NOT_AUTHORIZED_FOR_APPLICATION PORTAL_OVER_LIMIT \
            PORTAL_SUSPENDED PREVIOUSLY_BOUNCED PREVIOUSLY_UNSUBSCRIBED_BRAND \
            PREVIOUSLY_UNSUBSCRIBED_BUSINESS_UNIT PREVIOUSLY_UNSUBSCRIBED_MESSAGE \
            PREVIOUSLY_UNSUBSCRIBED_PORTAL PREVIOUS_SPAM QUARANTINED_ADDRESS QUEUED \
            RECIPIENT_FATIGUE_SUPPRESSED SENT TEMPLATE_RENDER_EXCEPTION THROTTLED \
            TOO_MANY_RECIPIENTS UBB_GOVERNANCE_MISSING UNCONFIGURED_SENDING_DOMAIN UNDELIVERABLE \
            VALIDATION_FAILED";
        let mut known: Vec<&str> = RESULTS.iter().map(|(name, ..)| *name).collect();
        known.sort_unstable();
        assert_eq!(known, spec.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn what_completes_means_what_its_result_says() {
        for (result, expected) in [
            ("SENT", "sent"),
            ("IDEMPOTENT_IGNORE", "sent"),
            ("QUEUED", "pending"),
            ("IDEMPOTENT_FAIL", "unclear"),
            ("THROTTLED", "throttled"),
            ("ATTACHMENT_DOWNLOAD_QUEUE_FULL", "throttled"),
            ("PORTAL_OVER_LIMIT", "halted daily"),
            ("INVALID_TO_ADDRESS", "permanent"),
            ("MISSING_CONTENT", "permanent"),
            ("PORTAL_SUSPENDED", "halted portal"),
            ("UNCONFIGURED_SENDING_DOMAIN", "halted portal"),
            ("CANCELLED_ABUSE", "halted portal"),
            ("A_RESULT_OF_2027", "unheard of"),
            ("sent", "unheard of"),
        ] {
            assert_eq!(
                told(&settle("COMPLETE", Some(result))),
                expected,
                "{result}"
            );
        }
    }

    #[test]
    fn what_was_not_sent_has_a_hint_and_its_words() {
        for (name, meaning, _) in RESULTS {
            let look_up = settle("COMPLETE", Some(name));
            let expected = match meaning {
                Sent => "sent",
                Queued => "pending",
                Unclear => "unclear",
                Later => "throttled",
                Refused => "permanent",
                OverLimit => "halted daily",
                Stopped => "halted portal",
                Meaning::UnheardOf => "unheard of",
            };
            assert_eq!(told(&look_up), expected, "{name}");
            if let LookUp::NotSent(failure) = look_up {
                assert!(!failure.hint.is_empty(), "{name}");
                assert_eq!(failure.words.send_result.as_deref(), Some(name));
            }
        }
    }

    #[test]
    fn the_status_says_whether_the_result_is_final() {
        for (status, result, expected) in [
            ("PENDING", None, "pending"),
            ("PENDING", Some("SENT"), "pending"),
            ("PROCESSING", Some("QUEUED"), "pending"),
            ("COMPLETE", None, "pending"),
            ("CANCELED", None, "permanent"),
            ("CANCELED", Some("QUEUED"), "permanent"),
            ("CANCELED", Some("SENT"), "sent"),
            ("CANCELED", Some("PORTAL_EXPIRED"), "halted portal"),
            ("A_STATUS_OF_2027", None, "pending"),
            ("A_STATUS_OF_2027", Some("SENT"), "sent"),
        ] {
            assert_eq!(
                told(&settle(status, result)),
                expected,
                "{status} {result:?}"
            );
        }
    }

    #[test]
    fn an_unheard_of_result_is_never_sent_again_by_itself() {
        let LookUp::UnheardOf(failure) = settle("COMPLETE", Some("A_RESULT_OF_2027")) else {
            panic!("nobody knows it");
        };
        assert_eq!(failure.class, FailureClass::Permanent);
        assert_eq!(failure.hint, UNHEARD_OF);
    }
}
