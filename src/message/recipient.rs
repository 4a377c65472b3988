//! Who gets an email.

use std::fmt;

use email_address::{EmailAddress, Options};

use super::Malformed;

/// Local parts that HubSpot answers with `INVALID_TO_ADDRESS` (its transactional email guide).
pub const ROLE_PREFIXES: [&str; 11] = [
    "abuse",
    "no-reply",
    "noreply",
    "root",
    "spam",
    "security",
    "undisclosed-recipients",
    "unsubscribe",
    "inoc",
    "postmaster",
    "privacy",
];

/// One recipient's address. Masked in `Debug`; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(String);

impl Recipient {
    /// # Errors
    /// [`Malformed`] unless it is one address, of a person.
    pub fn parse(to: &str) -> Result<Self, Malformed> {
        if to.trim().is_empty() {
            return Err(Malformed::new(
                "message.to is empty: there is no recipient",
                "give one address in message.to",
            ));
        }
        let address =
            EmailAddress::parse_with_options(to, Options::default()).map_err(|error| {
                Malformed::new(
                    format!("message.to is no email address: {error}"),
                    "give one address in message.to; more go into cc or into requests of their own",
                )
            })?;
        let local = address.local_part().to_ascii_lowercase();
        if let Some(role) = ROLE_PREFIXES.iter().find(|role| **role == local) {
            return Err(Malformed::new(
                format!("message.to begins with `{role}@`: HubSpot refuses role addresses"),
                "send to a person's address",
            ));
        }
        Ok(Self(to.to_owned()))
    }

    /// The address, for the call to HubSpot, and of a sink to show what was configured.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<recipient>")
    }
}
