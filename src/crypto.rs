//! The one TLS stack, chosen once for the whole process; and what it says in words.

use std::error::Error;
use std::io;
use std::sync::Once;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, RootCertStore};

/// How many layers of an error are looked through for what TLS says.
const LAYERS_MAX: usize = 16;

/// Whom a TLS connection trusts, and as whom it comes.
#[derive(Debug, Default)]
pub struct Tls {
    /// Who may have signed the server's certificate; `None`: whom the system trusts.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// What is shown to a server that asks for a certificate.
    pub identity: Option<Identity>,
}

/// A certificate, with those that lead to its authority, and its key.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Why TLS did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTrouble {
    /// Continues "the server": "has a certificate that …".
    pub why: String,
    pub kind: TlsTroubleKind,
}

/// Who can heal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsTroubleKind {
    /// Whoever says which authority is trusted.
    UnknownAuthority,
    /// Whoever wrote the address.
    OtherName,
    /// Whoever made the server's certificate.
    BadCertificate,
    /// Whoever made ours: the server wants another one, or one at all.
    OurCertificate,
    /// The other side does not speak TLS, or not ours.
    Protocol,
}

/// Installs ring as the process's TLS provider; further calls do nothing.
///
/// Both reqwest and lapin are built without a provider of their own and panic when none stands.
pub fn init_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // `Err` says that somebody else installed one before us, which is as good.
        if ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider stood already");
        }
    });
}

/// The authorities of a PEM text: one or more.
///
/// # Errors
/// Why it holds none, continuing "it": "holds no certificate".
pub fn authorities(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = certificates(pem)?;
    let mut store = RootCertStore::empty();
    for authority in &found {
        store
            .add(authority.clone())
            .map_err(|error| format!("holds a certificate that cannot be read: {error}"))?;
    }
    Ok(found)
}

impl Identity {
    /// Of two PEM texts that belong together.
    ///
    /// # Errors
    /// Why they do not, continuing "the certificate and the key". Never holds any of the key.
    pub fn of_pem(chain: &str, key: &str) -> Result<Self, String> {
        let chain =
            certificates(chain).map_err(|why| format!("cannot be used: the first {why}"))?;
        // The parser's error is not passed on: it may hold a piece of what it read.
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| "cannot be used: the second holds no private key".to_owned())?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider())
            .map_err(|error| format!("do not belong together: {error}"))?;
        Ok(Self { chain, key })
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err("holds no certificate in PEM".into()),
    }
}

/// What TLS says, if it is TLS that an error is about.
pub fn tls_trouble(error: &(dyn Error + 'static)) -> Option<TlsTrouble> {
    let mut layer = Some(error);
    for _ in 0..LAYERS_MAX {
        let told = layer?;
        if let Some(tls) = told.downcast_ref::<rustls::Error>() {
            return Some(TlsTrouble::of(tls));
        }
        // An `io::Error` tells the cause of what it holds, and not that itself.
        let held = told
            .downcast_ref::<io::Error>()
            .and_then(|io| Some(io.get_ref()? as &(dyn Error + 'static)));
        layer = held.or_else(|| told.source());
    }
    None
}

impl TlsTrouble {
    fn of(error: &rustls::Error) -> Self {
        use TlsTroubleKind as Kind;
        #[expect(clippy::wildcard_enum_match_arm, reason = "rustls', non-exhaustive")]
        let (kind, why) = match error {
            rustls::Error::InvalidCertificate(certificate) => of_certificate(certificate),
            rustls::Error::NoCertificatesPresented => {
                (Kind::BadCertificate, "shows no certificate".to_owned())
            }
            rustls::Error::AlertReceived(alert) if is_about_ours(*alert) => (
                Kind::OurCertificate,
                format!("does not take our certificate, or asks for one ({alert:?})"),
            ),
            rustls::Error::InvalidMessage(_) => {
                (Kind::Protocol, "does not speak TLS at this port".to_owned())
            }
            other => (Kind::Protocol, format!("does not agree on TLS: {other}")),
        };
        Self { why, kind }
    }
}

fn of_certificate(error: &CertificateError) -> (TlsTroubleKind, String) {
    use TlsTroubleKind as Kind;
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls', non-exhaustive")]
    match error {
        CertificateError::UnknownIssuer => (
            Kind::UnknownAuthority,
            "has a certificate that is not trusted: UnknownIssuer".into(),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            (Kind::OtherName, format!("has another one's: {error}"))
        }
        other => (
            Kind::BadCertificate,
            format!("has a certificate that is not valid: {other}"),
        ),
    }
}

/// `HandshakeFailure` is what TLS 1.2 has for it.
fn is_about_ours(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure
    )
}
