//! Who gets mail in which environment: pure, no I/O, no log.
//!
//! In production mail goes to whom the request says. Anywhere else that is never so: it is held, it
//! goes to listed recipients alone, it goes to one address in the place of all, or HubSpot is a
//! stand-in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use email_address::{EmailAddress, Options};
use serde_json::value::RawValue;

use crate::message::{Environment, Recipient, SendRequest};

/// Properties by which HubSpot knows a contact: under the sink's address they would give its contact
/// the address of the recipient.
const ADDRESS_PROPERTIES: [&str; 2] = ["email", "hs_additional_emails"];

/// An environment and what it does with mail. Cheap to clone. The default is production.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub environment: Environment,
    pub mode: Mode,
}

/// What is done with mail.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    /// It goes to whom the request says. Production, and nowhere else.
    #[default]
    Everyone,
    /// Nothing is sent.
    Hold,
    /// It goes only where every recipient is listed.
    Allow(Arc<AllowList>),
    /// This address gets it, in the place of all recipients.
    Sink(Recipient),
    /// It goes to whom the request says, at a HubSpot that is a stand-in: the configuration sees to that.
    Sandbox,
}

/// Addresses and domains.
pub struct AllowList(Vec<String>);

/// What is done with one request.
#[derive(Debug)]
pub enum Verdict {
    /// It goes out as it is.
    Send,
    /// This goes out, in one call; what is queued stays as it is.
    Instead(Box<SendRequest>),
    /// It is not sent. Repeats no address.
    Hold { problem: String, hint: String },
}

impl Rules {
    #[must_use]
    pub fn decide(&self, request: &SendRequest) -> Verdict {
        let environment = &self.environment;
        match &self.mode {
            Mode::Everyone | Mode::Sandbox => Verdict::Send,
            Mode::Hold => Verdict::Hold {
                problem: format!(
                    "held: environment \"{environment}\" sends nothing (delivery.mode = \"hold\")"
                ),
                hint:
                    "nothing of it is lost: under another delivery.mode `postrider dead replay ID` \
                       sends it"
                        .to_owned(),
            },
            Mode::Allow(list) => match list.first_outside(request) {
                None => without_other_addresses(request),
                Some(field) => Verdict::Hold {
                    problem: format!(
                        "held: environment \"{environment}\" mails only to delivery.allow, and \
                         {field} has a recipient outside it"
                    ),
                    hint: "add the address or its domain to delivery.allow and replay it, or \
                           discard it"
                        .to_owned(),
                },
            },
            Mode::Sink(sink) => Verdict::Instead(Box::new(readdressed(request, sink))),
        }
    }
}

impl Mode {
    /// The word for it in the configuration; production has none there.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::Hold => "hold",
            Self::Allow(_) => "allow",
            Self::Sink(_) => "sink",
            Self::Sandbox => "sandbox",
        }
    }
}

impl AllowList {
    /// Reads addresses and domains, separated by commas.
    ///
    /// # Errors
    /// The number of the entry, from 1, that is neither; or 0 where there is none.
    pub fn parse(text: &str) -> Result<Self, usize> {
        let entries: Vec<_> = text.split(',').map(str::trim).collect();
        if let Some(wrong) = entries.iter().position(|entry| !is_entry(entry)) {
            return Err(if text.trim().is_empty() { 0 } else { wrong + 1 });
        }
        Ok(Self(entries.into_iter().map(str::to_owned).collect()))
    }

    /// The first field that has a recipient who is not listed.
    fn first_outside(&self, request: &SendRequest) -> Option<&'static str> {
        let all = |list: &[String]| list.iter().all(|recipient| self.has(recipient));
        if !self.has(request.to.expose()) {
            Some("message.to")
        } else if !all(&request.cc) {
            Some("message.cc")
        } else if !all(&request.bcc) {
            Some("message.bcc")
        } else {
            None
        }
    }

    fn has(&self, recipient: &str) -> bool {
        // Of several `@`, in a name or a quoted local part, another reader may take another one.
        if recipient.matches('@').count() != 1 {
            return false;
        }
        let parsed = EmailAddress::parse_with_options(recipient, Options::default());
        parsed.is_ok_and(|address| {
            let (bare, domain) = (address.email(), address.domain());
            let mut entries = self.0.iter();
            entries.any(|it| it.eq_ignore_ascii_case(&bare) || it.eq_ignore_ascii_case(domain))
        })
    }
}

/// An address without a name, or a domain of two words or more.
fn is_entry(entry: &str) -> bool {
    let options = Options::default()
        .with_required_tld()
        .without_domain_literal()
        .without_display_text();
    let is_address = |text: &str| {
        let one = text.matches('@').count() == 1;
        one && EmailAddress::parse_with_options(text, options).is_ok()
    };
    is_address(entry) || is_address(&format!("any@{entry}"))
}

/// The request with the sink in the place of all its recipients. `from` and `replyTo` get no mail of
/// it, and stay.
fn readdressed(request: &SendRequest, sink: &Recipient) -> SendRequest {
    let properties = request.contact_properties.as_deref();
    SendRequest {
        to: sink.clone(),
        cc: Vec::new(),
        bcc: Vec::new(),
        contact_properties: properties.and_then(without_addresses),
        ..request.clone()
    }
}

/// As it is, but for a contact's property that would give it an address of somebody else.
fn without_other_addresses(request: &SendRequest) -> Verdict {
    let Some(properties) = request.contact_properties.as_deref() else {
        return Verdict::Send;
    };
    let kept = without_addresses(properties);
    let count = |raw: &RawValue| {
        serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get())
            .map_or(0, |properties| properties.len())
    };
    if kept
        .as_deref()
        .is_some_and(|kept| count(kept) == count(properties))
    {
        return Verdict::Send;
    }
    Verdict::Instead(Box::new(SendRequest {
        contact_properties: kept,
        ..request.clone()
    }))
}

/// The properties but for those of the address, each as it came; none of what cannot be read.
fn without_addresses(properties: &RawValue) -> Option<Box<RawValue>> {
    let mut kept: BTreeMap<String, &RawValue> = serde_json::from_str(properties.get()).ok()?;
    kept.retain(|name, _| {
        let mut those = ADDRESS_PROPERTIES.into_iter();
        !those.any(|it| name.trim().eq_ignore_ascii_case(it))
    });
    serde_json::value::to_raw_value(&kept).ok()
}

// === how they are shown ===

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl fmt::Debug for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} entries>", self.0.len())
    }
}

#[cfg(test)]
mod tests;
