//! What a call to OAuth asks for, and the form that it brings.

use url::form_urlencoded;

use crate::sandbox::answer::Call;
use crate::sandbox::model::limits::PORTAL;

/// The versions of the token endpoint. HubSpot ends v1 on 2027-02-16.
const VERSIONS: [&str; 3] = ["v3", "2026-03", "2026-09"];
/// Fields of a form that are read.
const FIELDS_MAX: usize = 30;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The consent of a person, for this portal.
    Authorize(u32),
    /// `old` is v1.
    Token {
        old: bool,
    },
    Introspect,
    Revoke,
    /// v1 has the token in the path.
    Info(String),
    Delete(String),
    WrongMethod,
}

/// Names and values of a body, or of a query.
pub(super) struct Form(Vec<(String, String)>);

impl Ask {
    pub(super) fn of(method: &str, path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let decoded = |token: &str| {
            percent_encoding::percent_decode_str(token)
                .decode_utf8_lossy()
                .into_owned()
        };
        let (needs, ask) = match parts.as_slice() {
            ["oauth", "authorize"] => ("GET", Self::Authorize(PORTAL)),
            ["oauth", portal, "authorize"] => ("GET", Self::Authorize(portal.parse().ok()?)),
            ["oauth", "v1", "token"] => ("POST", Self::Token { old: true }),
            ["oauth", "v1", "refresh-tokens", token] if method == "DELETE" => {
                ("DELETE", Self::Delete(decoded(token)))
            }
            ["oauth", "v1", "access-tokens" | "refresh-tokens", token] => {
                ("GET", Self::Info(decoded(token)))
            }
            ["oauth", version, rest @ ..] if VERSIONS.contains(version) => match rest {
                ["token"] => ("POST", Self::Token { old: false }),
                ["token", "introspect"] => ("POST", Self::Introspect),
                ["token", "revoke"] => ("POST", Self::Revoke),
                _ => return None,
            },
            _ => return None,
        };
        Some(if method == needs {
            ask
        } else {
            Self::WrongMethod
        })
    }
}

impl Form {
    /// A GET has it in its query. HubSpot takes secrets in the body only.
    pub(super) fn of(call: &Call<'_>) -> Self {
        let bytes = match call.method {
            "GET" => call.query.unwrap_or_default().as_bytes(),
            _ => call.body,
        };
        let fields = form_urlencoded::parse(bytes).into_owned();
        Self(fields.take(FIELDS_MAX).collect())
    }

    /// Empty where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        let field = self.0.iter().find(|(known, _)| known == name);
        field.map_or("", |(_, value)| value)
    }
}
