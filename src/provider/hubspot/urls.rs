//! The paths of an account's calls.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::config::{AccountConfig, Api, ApiVersion};

/// What a status id may hold unescaped in a path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Where each call of an account goes.
pub(super) struct Urls {
    base: Url,
    pub(super) send: Url,
    pub(super) details: Url,
    pub(super) token_info: Url,
}

impl Urls {
    /// The paths of HubSpot's specs. Configuration refuses `v4` for transactional mail and `v3`
    /// for marketing mail; here they mean the oldest path of that API.
    pub(super) fn new(config: &AccountConfig) -> Self {
        let base = &config.base_url;
        let dated = match config.api_version {
            ApiVersion::V2026_09 => Some("2026-09"),
            ApiVersion::V2026_03 => Some("2026-03"),
            ApiVersion::V3 | ApiVersion::V4 => None,
        };
        let send = match (config.api, dated) {
            (Api::Transactional, Some(v)) => {
                format!("marketing/transactional/{v}/single-email/send")
            }
            (Api::Transactional, None) => "marketing/v3/transactional/single-email/send".into(),
            (Api::Marketing, Some(v)) => format!("marketing/email-campaigns/{v}/single-send"),
            (Api::Marketing, None) => "marketing/v4/email/single-send".into(),
        };
        Self {
            send: under(base, &send),
            details: under(
                base,
                &format!("account-info/{}/details", dated.unwrap_or("v3")),
            ),
            token_info: under(base, "oauth/v2/private-apps/get/access-token-info"),
            base: base.clone(),
        }
    }

    /// The one dated path that HubSpot's specs have for it.
    pub(super) fn letter(&self, email_id: i64) -> Url {
        under(&self.base, &format!("marketing/emails/2026-03/{email_id}"))
    }

    /// The one status path there is, for sends of either API. Status ids are base64 with `=`.
    pub(super) fn status(&self, status_id: &str) -> Url {
        let id = utf8_percent_encode(status_id, UNRESERVED);
        under(
            &self.base,
            &format!("marketing/v3/email/send-statuses/{id}"),
        )
    }
}

/// `path` under `base`, which may have a path of its own and may or may not end in `/`.
fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}
