//! The faults that an address brings.

use super::word::{CallFault, Fault, MailFault};

/// The faults that a recipient's address asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Magic {
    pub call: Option<CallFault>,
    /// How many times the call fault strikes; for ever when `None`.
    pub times: Option<u32>,
    pub mail: Option<MailFault>,
    /// How many mails to this address the mail fault strikes; all when `None`.
    pub mail_times: Option<u32>,
}

impl Magic {
    /// Reads the tags of `ada+TAG+TAG@example.com`. What is no tag of ours is an ordinary address.
    #[must_use]
    pub fn of(to: &str) -> Self {
        let address = to.rsplit_once('<').map_or(to, |(_, address)| address);
        let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
        let mut magic = Self::default();
        for tag in local.split('+').skip(1) {
            let (name, times) = split_times(tag);
            match Fault::parse(name) {
                Some(Fault::Call(fault)) if name.parse::<u16>().is_err() => {
                    magic.call = Some(fault);
                    magic.times = times;
                }
                Some(Fault::Mail(fault)) => {
                    magic.mail = Some(fault);
                    magic.mail_times = times;
                }
                // A bare number is somebody's own tag.
                Some(Fault::Call(_)) | None => {}
            }
        }
        magic
    }
}

/// `http503x2` is `http503`, twice.
fn split_times(tag: &str) -> (&str, Option<u32>) {
    tag.rsplit_once(['x', 'X'])
        .and_then(|(name, times)| Some((name, Some(times.parse().ok()?))))
        .unwrap_or((tag, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_brings_its_own_faults() {
        let magic = |to| Magic::of(to);
        assert_eq!(magic("ada@example.com"), Magic::default());
        assert_eq!(magic("ada+news+42@example.com"), Magic::default());
        let bounced = Some(MailFault::Result("PREVIOUSLY_BOUNCED".into()));
        assert_eq!(
            magic("Ada <ada+previously_bounced@example.com>").mail,
            bounced
        );
        let once = magic("ada+MISSING_CONTENTx1@example.com");
        let missing = Some(MailFault::Result("MISSING_CONTENT".into()));
        assert_eq!((once.mail, once.mail_times), (missing, Some(1)));
        let twice = magic("ada+http503x2@example.com");
        assert_eq!(
            (twice.call, twice.times),
            (Some(CallFault::Http(503)), Some(2))
        );
        let both = magic("ada+5xx+X_NEW@example.com");
        assert_eq!(
            (both.call, both.times),
            (Some(CallFault::ServerError), None)
        );
        assert_eq!(both.mail, Some(MailFault::Result("X_NEW".into())));
    }
}
