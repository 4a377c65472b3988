//! The one TLS stack, chosen once for the whole process.

use std::sync::Once;

/// Installs ring as the process's TLS provider; further calls do nothing.
///
/// Both reqwest and lapin are built without a provider of their own and panic when none stands.
pub fn init_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // `Err` says that somebody else installed one before us, which is as good.
        if rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
        {
            tracing::debug!("a TLS provider stood already");
        }
    });
}
