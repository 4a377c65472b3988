//! One login: what ties HubSpot's answer to the very request that was made (RFC 6749, RFC 7636).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};

/// Bytes of chance in a state and in a verifier: 43 characters each, the fewest a verifier may have.
const BYTES: usize = 32;

/// The state that comes back with the code, and the verifier that proves that we asked for it.
#[derive(Debug)]
pub struct Attempt {
    state: SecretString,
    verifier: SecretString,
}

impl Attempt {
    /// A new one. `None` where the system gives no chance.
    #[must_use]
    pub fn new() -> Option<Self> {
        Some(Self {
            state: random()?.into(),
            verifier: random()?.into(),
        })
    }

    /// Whether an answer belongs to this login. The digests are compared, so that the time it takes
    /// tells nothing of the state.
    #[must_use]
    pub fn is_answered_by(&self, state: &str) -> bool {
        let ours = digest(&SHA256, self.state.expose_secret().as_bytes());
        digest(&SHA256, state.as_bytes()).as_ref() == ours.as_ref()
    }

    pub(super) fn state(&self) -> &str {
        self.state.expose_secret()
    }

    pub(super) fn verifier(&self) -> &SecretString {
        &self.verifier
    }

    /// `S256` of the verifier.
    pub(super) fn challenge(&self) -> String {
        challenge(self.verifier.expose_secret())
    }
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

fn random() -> Option<String> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_one_of_rfc_7636() {
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn only_its_own_state_answers_a_login() {
        let (one, other) = (Attempt::new().unwrap(), Attempt::new().unwrap());
        assert!(one.is_answered_by(one.state()));
        assert!(!one.is_answered_by(other.state()));
        assert!(!one.is_answered_by(""));
        assert_eq!(one.verifier().expose_secret().len(), 43);
        assert!(!format!("{one:?}").contains(one.state()));
    }
}
