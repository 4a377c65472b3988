//! Certificates, the proxy and the admin token: what is told before anything is connected.

use std::path::Path;

use postrider::config::{Config, ConfigError, Sources};
use postrider::message::AccountName;
use secrecy::ExposeSecret;

use super::{env, load_env, told};
use crate::support::secret::keep;
use crate::support::tls::Authority;

const AMQPS: (&str, &str) = ("POSTRIDER_QUEUE__URL", "amqps://ada:secret@rabbit/mail");
const BASE: &str = "POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL";

/// What is told of an error, with `DIR` for its folder.
fn refused(folder: &Path, pairs: &[(&str, &str)]) -> String {
    let told = told(&load_env(pairs).unwrap_err());
    assert!(
        !told.contains("secret") && !told.contains("PRIVATE"),
        "{told}"
    );
    told.replace(folder.to_str().unwrap(), "DIR")
}

#[test]
fn wrong_certificates_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let authority = Authority::new("Ours");
    let (cert, key) = authority.client("ada").write(dir, "ada");
    let (_, other) = authority.client("bob").write(dir, "bob");
    let (cert, key, other) = (
        cert.to_str().unwrap(),
        key.to_str().unwrap(),
        other.to_str().unwrap(),
    );
    let ca = "POSTRIDER_QUEUE__CA_FILE";
    let cert_file = ("POSTRIDER_QUEUE__CERT_FILE", cert);
    let key_file = |key| ("POSTRIDER_QUEUE__KEY_FILE", key);
    load_env(&[AMQPS, (ca, cert), cert_file, key_file(key)]).unwrap();

    insta::assert_snapshot!(refused(dir, &[(ca, cert)]), @"
    queue.ca_file is set, and queue.url is no amqps:// address
    hint: write amqps:// (its port is 5671), or remove the key
    ");
    insta::assert_snapshot!(refused(dir, &[AMQPS, cert_file]), @"
    of queue.cert_file and queue.key_file only one is set
    hint: set both: a certificate and its private key, or neither
    ");
    insta::assert_snapshot!(refused(dir, &[AMQPS, (ca, "nowhere.pem")]), @"
    the file of queue.ca_file, nowhere.pem, cannot be read: No such file or directory (os error 2)
    hint: name a small text file that this user may read
    ");
    insta::assert_snapshot!(refused(dir, &[AMQPS, (ca, key)]), @"
    the file of queue.ca_file, DIR/ada.key, holds no certificate in PEM
    hint: name a PEM file with the certificate of the authority that signed the server's
    ");
    insta::assert_snapshot!(refused(dir, &[AMQPS, cert_file, key_file(cert)]), @"
    the file of queue.key_file, DIR/ada.pem, is not taken: its mode is 644, so that others may read or change it (chmod 600)
    hint: name a small text file that this user may read
    ");
    let none = dir.join("none.key");
    keep(&none, &std::fs::read_to_string(cert).unwrap());
    insta::assert_snapshot!(refused(dir, &[AMQPS, cert_file, key_file(none.to_str().unwrap())]), @"
    queue.cert_file, DIR/ada.pem, and queue.key_file, DIR/none.key, cannot be used: the second holds no private key
    hint: both are PEM: the client's certificate first, and the key that it was made for
    ");
    insta::assert_snapshot!(refused(dir, &[AMQPS, cert_file, key_file(other)]), @"
    queue.cert_file, DIR/ada.pem, and queue.key_file, DIR/bob.key, do not belong together: keys may not be consistent: KeyMismatch
    hint: both are PEM: the client's certificate first, and the key that it was made for
    ");
    let account = [("POSTRIDER_ACCOUNTS__SHOP__CA_FILE", key)];
    insta::assert_snapshot!(refused(dir, &account), @"
    the file of accounts.shop.ca_file, DIR/ada.key, holds no certificate in PEM
    hint: name a PEM file with the certificate of the authority that signed the server's
    ");
}

#[test]
fn certificates_are_shown_by_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("Ours");
    let (cert, key) = authority.client("ada").write(folder.path(), "ada");
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let config = load_env(&[
        AMQPS,
        ("POSTRIDER_QUEUE__CA_FILE", cert),
        ("POSTRIDER_QUEUE__CERT_FILE", cert),
        ("POSTRIDER_QUEUE__KEY_FILE", key),
        ("POSTRIDER_ACCOUNTS__DEFAULT__CA_FILE", cert),
        ("POSTRIDER_SERVER__TOKEN", "admin-secret"),
    ]);
    let shown: Vec<_> = config.unwrap().shown();
    for (name, value) in [
        ("queue.ca_file", cert),
        ("queue.cert_file", cert),
        ("queue.key_file", key),
        ("accounts.default.ca_file", cert),
        ("server.token", "********"),
    ] {
        assert!(shown.contains(&(name.to_owned(), value.into())), "{name}");
    }
}

#[test]
fn the_admin_token_is_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let by_file = ("POSTRIDER_SERVER__TOKEN_FILE", file.to_str().unwrap());
    let config = load_env(&[by_file]).unwrap();
    let now = || config.server.token_now();
    assert!(now().unwrap_err().problem.contains("cannot be read"));
    for (text, token) in [
        ("admin-1\n", Some("admin-1")),
        ("", None),
        ("two words", None),
    ] {
        std::fs::write(&file, text).unwrap();
        restrict(&file);
        match (now(), token) {
            (Ok(Some(found)), Some(token)) => assert_eq!(found.expose_secret(), token),
            (Err(error), None) => assert!(error.problem.contains("is empty, or holds a space")),
            (found, _) => panic!("{text:?}: {found:?}"),
        }
    }
    assert!(load_env(&[]).unwrap().server.token_now().unwrap().is_none());
    insta::assert_snapshot!(refused(folder.path(), &[("POSTRIDER_SERVER__TOKEN", "my secret")]), @"
    server.token (variable POSTRIDER_SERVER__TOKEN) is empty, or holds a space or a sign that no token has
    hint: set it to letters, digits and signs, or remove it
    ");
}

fn restrict(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The proxy of the account, `host:port`.
fn proxy(pairs: &[(&str, &str)]) -> Result<Option<String>, ConfigError> {
    let sources = Sources {
        env: env(pairs),
        ..Sources::default()
    };
    let config = Config::load(&sources)?;
    let account = &config.accounts[&AccountName::default()];
    Ok(account.proxy.as_ref().map(|proxy| proxy.place.clone()))
}

#[test]
fn the_proxy_is_read_as_curl_reads_it() {
    let with = |value| proxy(&[("HTTPS_PROXY", value)]).unwrap();
    for (value, place) in [
        ("http://proxy:3128", Some("proxy:3128")),
        ("http://ada:secret@proxy:3128/", Some("proxy:3128")),
        ("https://proxy", Some("proxy:443")),
        ("proxy.example.com:3128", Some("proxy.example.com:3128")),
        ("10.0.0.1:8080", Some("10.0.0.1:8080")),
        ("", None),
        ("  ", None),
    ] {
        assert_eq!(with(value).as_deref(), place, "{value}");
    }
    let around = |no_proxy| {
        let pairs = [("https_proxy", "proxy:3128"), ("NO_PROXY", no_proxy)];
        proxy(&pairs).unwrap().is_none()
    };
    for no_proxy in [
        "*",
        "api.hubapi.com",
        "hubapi.com",
        ".hubapi.com",
        "localhost, hubapi.com",
    ] {
        assert!(around(no_proxy), "{no_proxy}");
    }
    for no_proxy in ["", "api.com", "localhost,10.0.0.0/8", "xhubapi.com"] {
        assert!(!around(no_proxy), "{no_proxy}");
    }
    let plain = [
        ("HTTPS_PROXY", "proxy:3128"),
        (BASE, "http://10.1.2.3:8085"),
    ];
    assert_eq!(proxy(&plain).unwrap(), None, "for https alone");
    let net = [
        ("HTTPS_PROXY", "proxy:3128"),
        ("NO_PROXY", "10.0.0.0/8"),
        (BASE, "https://10.1.2.3"),
    ];
    assert_eq!(proxy(&net).unwrap(), None);
}

#[test]
fn a_proxy_that_is_none_is_told_without_its_password() {
    for value in [
        "socks5://ada:secret@proxy:1080",
        "http://ada:secret@",
        "http://ada:secret@p:x",
    ] {
        let error = proxy(&[("HTTPS_PROXY", value)]).unwrap_err();
        assert_eq!(
            error.problem,
            "the variable HTTPS_PROXY is no address of an HTTP proxy"
        );
        assert!(!error.hint.contains("secret"));
        // Who needs none is not held up by it.
        assert_eq!(
            proxy(&[("HTTPS_PROXY", value), (BASE, "http://127.0.0.1:1")]).unwrap(),
            None
        );
    }
    let sources = Sources {
        env: env(&[("HTTPS_PROXY", "http://ada:secret@proxy")]),
        ..Sources::default()
    };
    let config = format!("{:?}", Config::load(&sources).unwrap());
    assert!(
        config.contains("proxy:80") && !config.contains("secret"),
        "{config}"
    );
}
