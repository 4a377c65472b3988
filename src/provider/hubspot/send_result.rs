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
    /// Not sent; may heal by itself.
    Later,
    /// Not sent, and will not be: the recipient, the request or the template is at fault.
    Refused,
    /// The account's sending quota is spent.
    OverLimit,
    /// HubSpot has stopped the account: nothing that it sends gets out.
    Stopped,
}

use Meaning::{Later, OverLimit, Queued, Refused, Sent, Stopped, Unclear};

/// Every value of the specs of 2026-09, with what an operator can do about it.
const RESULTS: [(&str, Meaning, &str); 51] = [
    // --- it was sent, or will be
    ("SENT", Sent, ""),
    ("QUEUED", Queued, ""),
    ("IDEMPOTENT_IGNORE", Sent, ""),
    // --- nobody knows
    ("IDEMPOTENT_FAIL", Unclear, ""),
    // --- may heal
    ("THROTTLED", Later, "HubSpot was too busy; it is sent again"),
    (
        "ATTACHMENT_DOWNLOAD_QUEUE_FULL",
        Later,
        "HubSpot was too busy with attachments; it is sent again",
    ),
    (
        "PORTAL_OVER_LIMIT",
        OverLimit,
        "the account has used up its email quota: wait for the next period or raise the limit in HubSpot",
    ),
    // --- the recipient
    (
        "INVALID_TO_ADDRESS",
        Refused,
        "correct message.to; HubSpot also refuses role addresses such as noreply@",
    ),
    (
        "BLOCKED_DOMAIN",
        Refused,
        "the recipient's domain takes no mail from HubSpot at this time",
    ),
    (
        "BLOCKED_ADDRESS",
        Refused,
        "HubSpot has blocked the recipient's address",
    ),
    (
        "PREVIOUSLY_BOUNCED",
        Refused,
        "mail to this recipient bounced before: correct the address, or clear the bounce in HubSpot",
    ),
    (
        "PREVIOUS_SPAM",
        Refused,
        "the recipient reported earlier mail as spam: do not send again",
    ),
    (
        "QUARANTINED_ADDRESS",
        Refused,
        "HubSpot has put the recipient's address in quarantine: ask for its release in HubSpot",
    ),
    (
        "UNDELIVERABLE",
        Refused,
        "the recipient's mail server does not take it: correct the address",
    ),
    (
        "ADDRESS_LIST_BOMBED",
        Refused,
        "the address was entered in too many forms at once: wait until HubSpot trusts it again",
    ),
    (
        "ADDRESS_OPTED_OUT",
        Refused,
        "the recipient wants no mail: do not send again",
    ),
    (
        "PREVIOUSLY_UNSUBSCRIBED_MESSAGE",
        Refused,
        "the recipient has unsubscribed from this kind of mail",
    ),
    (
        "PREVIOUSLY_UNSUBSCRIBED_PORTAL",
        Refused,
        "the recipient has unsubscribed from all mail of this account",
    ),
    (
        "PREVIOUSLY_UNSUBSCRIBED_BRAND",
        Refused,
        "the recipient has unsubscribed from this brand",
    ),
    (
        "PREVIOUSLY_UNSUBSCRIBED_BUSINESS_UNIT",
        Refused,
        "the recipient has unsubscribed from this business unit",
    ),
    (
        "EMAIL_UNCONFIRMED",
        Refused,
        "the recipient has not confirmed the address yet",
    ),
    (
        "GDPR_DOI_ENABLED",
        Refused,
        "the account asks for double opt-in, and the recipient has not confirmed",
    ),
    (
        "NON_MARKETABLE_CONTACT",
        Refused,
        "the recipient is no marketing contact: use `api = \"transactional\"`, or make it one in HubSpot",
    ),
    (
        "MARKETING_ACTIVATION_DISALLOWED",
        Refused,
        "the recipient may not be made a marketing contact: use `api = \"transactional\"`, or change the contact in HubSpot",
    ),
    (
        "GRAYMAIL_SUPPRESSED",
        Refused,
        "HubSpot suppresses mail to recipients who never open it: change that setting of the email",
    ),
    (
        "RECIPIENT_FATIGUE_SUPPRESSED",
        Refused,
        "the recipient got too many mails lately, by the account's own limit",
    ),
    (
        "BRAND_RECIPIENT_FATIGUE_SUPPRESSED",
        Refused,
        "the recipient got too many mails of this brand lately, by the account's own limit",
    ),
    (
        "LOW_CONTACT_QUALITY_SCORE",
        Refused,
        "HubSpot does not trust the recipient's address: check that it is real",
    ),
    (
        "CONTACT_VIEW_PERMISSION",
        Refused,
        "the token may not see this contact: change the permissions in HubSpot",
    ),
    (
        "ADDRESS_ONLY_ACCEPTED_ON_PROD",
        Refused,
        "this address is taken only by HubSpot's production system",
    ),
    (
        "TOO_MANY_RECIPIENTS",
        Refused,
        "take recipients out of message.cc and message.bcc",
    ),
    (
        "MTA_IGNORE",
        Refused,
        "HubSpot's mail servers were told to ignore this recipient",
    ),
    // --- the request or the template
    (
        "INVALID_FROM_ADDRESS",
        Refused,
        "correct message.from, or the sender in the template",
    ),
    (
        "MISSING_CONTENT",
        Refused,
        "correct emailId: there is no such email, or it is not saved for single send",
    ),
    (
        "MISSING_TEMPLATE_PROPERTIES",
        Refused,
        "the template asks for properties that contactProperties or customProperties do not hold",
    ),
    (
        "MISSING_REQUIRED_PARAMETER",
        Refused,
        "the request or the template lacks something that HubSpot requires",
    ),
    (
        "CORRUPT_INPUT",
        Refused,
        "HubSpot cannot read the request: check its properties",
    ),
    (
        "VALIDATION_FAILED",
        Refused,
        "HubSpot finds the request or the email invalid: check the email in HubSpot",
    ),
    (
        "TEMPLATE_RENDER_EXCEPTION",
        Refused,
        "the template fails with these properties: try it in HubSpot's email tool",
    ),
    (
        "HUBL_LIMIT_EXCEEDED",
        Refused,
        "the template does too much work: simplify its HubL",
    ),
    (
        "EMAIL_DISABLED",
        Refused,
        "the email is switched off: publish it in HubSpot",
    ),
    (
        "CAMPAIGN_CANCELLED",
        Refused,
        "the email was cancelled in HubSpot: publish it again",
    ),
    // --- the account
    (
        "PORTAL_SUSPENDED",
        Stopped,
        "HubSpot has suspended the account under its acceptable-use policy: talk to HubSpot",
    ),
    (
        "PORTAL_EXPIRED",
        Stopped,
        "the HubSpot account has expired: renew it",
    ),
    (
        "PORTAL_AUTHENTICATION_FAILURE",
        Stopped,
        "HubSpot does not accept the account's authentication: check the token and the account",
    ),
    (
        "PORTAL_MISSING_MARKETING_SCOPE",
        Stopped,
        "the account lacks the marketing email scope or subscription",
    ),
    (
        "PORTAL_NOT_AUTHORIZED_FOR_APPLICATION",
        Stopped,
        "the account may not use single send: check the Transactional Email add-on",
    ),
    (
        "UNCONFIGURED_SENDING_DOMAIN",
        Stopped,
        "connect the sender's domain as an email sending domain in HubSpot",
    ),
    (
        "INVALID_APP_ID_ATTRIBUTION",
        Stopped,
        "HubSpot does not know the app that the token belongs to: make a new token",
    ),
    (
        "UBB_GOVERNANCE_MISSING",
        Stopped,
        "HubSpot asks for a usage-based billing setting: complete it in the account",
    ),
    (
        "CANCELLED_ABUSE",
        Stopped,
        "HubSpot has stopped the account's mail for abuse: talk to HubSpot",
    ),
];

const UNHEARD_OF: &str = "this version of Postrider does not know this result: look the email up \
                          in HubSpot before a replay";
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
        Later => not_sent(FailureClass::Transient, Scope::Message, None, words, hint),
        Refused => refused(words, hint),
        OverLimit => halted(PauseReason::Daily, words, hint),
        Stopped => halted(PauseReason::Portal, words, hint),
    }
}

/// A result that nobody has seen before is final and never sent again by itself.
fn look_up(result: &str) -> (Meaning, &'static str) {
    RESULTS
        .iter()
        .find(|(name, ..)| *name == result)
        .map_or((Refused, UNHEARD_OF), |(_, meaning, hint)| {
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
    LookUp::NotSent(Failure {
        class,
        scope,
        pause,
        retry_after: None::<Duration>,
        words,
        hint: hint.to_owned(),
    })
}
