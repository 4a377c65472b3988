//! How a grant is sealed for the disk: ChaCha20-Poly1305 of ring, under a key that is not beside it.

use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretBox};

use crate::config::OAUTH_KEY_BYTES;
use crate::message::AccountName;

/// The first line of a file, in plain text: its kind and the version of its form.
const HEAD: &[u8] = b"postrider-grant 1\n";

/// What is wrong with a sealed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It does not begin as one of ours does.
    NotOurs,
    /// Another key, another account's file, or damage: they cannot be told apart.
    NotOpened,
}

/// Head, nonce, and the text with its tag. The account's name is bound to it, so that one account's
/// file opens in no other's place.
pub(super) fn seal(
    key: &SecretBox<[u8; OAUTH_KEY_BYTES]>,
    account: &AccountName,
    text: Vec<u8>,
) -> Option<Vec<u8>> {
    // A new nonce for each of a few writes an hour: far from where chance would repeat one.
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).ok()?;
    let mut sealed = text;
    aead(key)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            bound_to(account),
            &mut sealed,
        )
        .ok()?;
    Some([HEAD, &nonce, &sealed].concat())
}

pub(super) fn open(
    key: &SecretBox<[u8; OAUTH_KEY_BYTES]>,
    account: &AccountName,
    file: &[u8],
) -> Result<impl Deref<Target = [u8]>, Broken> {
    let rest = file.strip_prefix(HEAD).ok_or(Broken::NotOurs)?;
    let (nonce, sealed) = rest
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(Broken::NotOpened)?;
    let mut text = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = aead(key)
        .ok_or(Broken::NotOpened)?
        .open_in_place(nonce, bound_to(account), &mut text)
        .map_err(|_| Broken::NotOpened)?
        .len();
    text.truncate(length);
    Ok(text)
}

/// A new random key, as the configuration takes it: base64. `None` where the system gives no chance.
#[must_use]
pub fn new_key() -> Option<String> {
    let mut key = [0; OAUTH_KEY_BYTES];
    SystemRandom::new().fill(&mut key).ok()?;
    Some(STANDARD.encode(key))
}

fn aead(key: &SecretBox<[u8; OAUTH_KEY_BYTES]>) -> Option<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key.expose_secret()).ok()?;
    Some(LessSafeKey::new(key))
}

fn bound_to(account: &AccountName) -> Aad<Vec<u8>> {
    Aad::from([HEAD, account.as_str().as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretBox<[u8; OAUTH_KEY_BYTES]> {
        SecretBox::new(Box::new([byte; OAUTH_KEY_BYTES]))
    }

    #[test]
    fn a_sealed_text_opens_with_its_key_for_its_account_and_unharmed() {
        let shop = AccountName::parse("shop").unwrap();
        let sealed = seal(&key(1), &shop, b"the text".to_vec()).unwrap();
        assert_eq!(&*open(&key(1), &shop, &sealed).unwrap(), b"the text");
        assert!(!sealed.windows(8).any(|part| part == b"the text"));
        let again = seal(&key(1), &shop, b"the text".to_vec()).unwrap();
        assert_ne!(sealed, again, "a nonce of its own");
        let broken = |key, account: &str, file: &[u8]| {
            let account = AccountName::parse(account).unwrap();
            open(&key, &account, file).err().unwrap()
        };
        assert_eq!(broken(key(2), "shop", &sealed), Broken::NotOpened);
        assert_eq!(broken(key(1), "other", &sealed), Broken::NotOpened);
        for at in HEAD.len()..sealed.len() {
            let mut harmed = sealed.clone();
            harmed[at] ^= 1;
            assert_eq!(broken(key(1), "shop", &harmed), Broken::NotOpened, "{at}");
            assert_eq!(broken(key(1), "shop", &sealed[..at]), Broken::NotOpened);
        }
        assert_eq!(broken(key(1), "shop", b"{}"), Broken::NotOurs);
        assert_eq!(broken(key(1), "shop", b""), Broken::NotOurs);
    }
}
