//! Certificates and keys: files in PEM, named by the configuration.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::secret::{secret_file, small_file};
use super::section::Section;
use super::{AccountConfig, ConfigError, QueueConfig, QueueUrl, TlsFiles};
use crate::crypto::{Identity, Tls, authorities};

/// The largest file of certificates, in bytes: all authorities of a system have a fifth of it.
const CERTIFICATES_BYTES_MAX: u64 = 1024 * 1024;

/// `ca_file`, `cert_file` and `key_file` of the queue. Read once now, so that a wrong one is told at
/// once.
pub(super) fn files(keys: &Section<'_>, url: &QueueUrl) -> Result<TlsFiles, ConfigError> {
    let file = |key: &str| keys.get(key).map(|entry| PathBuf::from(&entry.text));
    let names = ["ca_file", "cert_file", "key_file"];
    if let Some(key) = names.into_iter().find(|key| keys.get(key).is_some())
        && !url.is_tls()
    {
        return Err(ConfigError::new(
            format!("queue.{key} is set, and queue.url is no amqps:// address"),
            "write amqps:// (its port is 5671), or remove the key",
        ));
    }
    let identity = match (file("cert_file"), file("key_file")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(ConfigError::new(
                "of queue.cert_file and queue.key_file only one is set",
                "set both: a certificate and its private key, or neither",
            ));
        }
    };
    let files = TlsFiles {
        ca: file("ca_file"),
        identity,
    };
    files.read()?;
    Ok(files)
}

impl QueueConfig {
    /// The certificates as they are now: renewed ones reach the next connection.
    ///
    /// # Errors
    /// When a file cannot be read, or does not hold what it should.
    pub fn tls_now(&self) -> Result<Tls, ConfigError> {
        self.tls.read()
    }
}

impl AccountConfig {
    /// The authorities that are trusted besides the system's; the file is read now.
    ///
    /// # Errors
    /// When it cannot be read, or holds none.
    pub fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        match &self.ca_file {
            Some(path) => trusted(path, "accounts.NAME.ca_file"),
            None => Ok(Vec::new()),
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Tls, ConfigError> {
        let identity = match &self.identity {
            Some((cert, key)) => {
                let chain = small_file(cert, "queue.cert_file", CERTIFICATES_BYTES_MAX)?;
                let secret = secret_file(key, "queue.key_file")?;
                Some(Identity::of_pem(&chain, &secret).map_err(|why| {
                    ConfigError::new(
                        format!(
                            "queue.cert_file, {}, and queue.key_file, {}, {why}",
                            cert.display(),
                            key.display()
                        ),
                        "both are PEM: the client's certificate first, and the key that it was made for",
                    )
                })?)
            }
            None => None,
        };
        let ca = self.ca.as_deref();
        Ok(Tls {
            authorities: ca.map(|ca| trusted(ca, "queue.ca_file")).transpose()?,
            identity,
        })
    }
}

/// The authorities in a file.
pub(super) fn trusted(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = small_file(path, key, CERTIFICATES_BYTES_MAX)?;
    authorities(&pem).map_err(|why| {
        ConfigError::new(
            format!("the file of {key}, {}, {why}", path.display()),
            "name a PEM file with the certificate of the authority that signed the server's",
        )
    })
}
