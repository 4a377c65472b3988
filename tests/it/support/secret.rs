//! Files that hold a secret, and the search for one where none may stand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Puts a text there, for its owner's eyes alone, so that a reader finds the old one or the new one.
pub fn keep(path: &Path, text: &str) {
    keep_with_mode(path, text, 0o600);
}

pub fn keep_with_mode(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(&new, path).unwrap();
}

/// Nothing of these stands there: not as text, not in base64 as HTTP and AMQP write it, and not as a
/// list of bytes, as it may be shown.
pub fn assert_told_none(what: &str, bytes: &[u8], secrets: &[&str]) {
    assert!(!bytes.is_empty(), "{what}: there is something to look at");
    for secret in secrets {
        for (form, hidden) in forms(secret) {
            let found = bytes.windows(hidden.len()).position(|it| it == hidden);
            if let Some(at) = found {
                let around = &bytes[at.saturating_sub(300)..(at + 100).min(bytes.len())];
                let around = String::from_utf8_lossy(around);
                panic!("{what} holds {secret} {form}: {around}");
            }
        }
    }
}

fn forms(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let listed: Vec<_> = secret.bytes().map(|byte| byte.to_string()).collect();
    let mut forms = vec![
        ("as it is", secret.as_bytes().to_vec()),
        ("as bytes", listed.join(", ").into_bytes()),
    ];
    // Three ways in which it may fall into base64's groups.
    for shift in 0..3 {
        let coded = STANDARD.encode(format!("{}{secret}", &"   "[..shift]));
        let inner = &coded[4..coded.len() - 4];
        // Of a short beginning nothing is left that is its own.
        if inner.len() >= 8 {
            forms.push(("in base64", inner.as_bytes().to_vec()));
        }
    }
    forms
}

#[test]
fn the_search_finds_what_it_is_to_find() {
    let secret = "5ec2e7-pass-word-of-the-broker";
    let hides = [
        format!("authorization: Bearer {secret}"),
        format!("{:?}", secret.as_bytes()),
        STANDARD.encode(format!("ada:{secret}")),
        STANDARD.encode(format!("\0ada-l\0{secret}")),
        STANDARD.encode(format!("x\0ada-l\0{secret}--")),
    ];
    for text in hides {
        let look = || assert_told_none("it", text.as_bytes(), &["another-secret-of-ours", secret]);
        assert!(std::panic::catch_unwind(look).is_err(), "{text}");
    }
    assert_told_none("it", b"authorization: Sensitive", &[secret]);
}
