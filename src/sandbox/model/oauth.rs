//! OAuth 2.0 as HubSpot does it: a code for a consent, tokens for a code, new tokens for a refresh
//! token.
//!
//! These calls count in no bucket and meet no faults: they are the app's and not a portal's, and
//! HubSpot documents no limit for them. `answer` in the control makes them fail.
//!
//! Where HubSpot is silent, this is chosen: a code lives for a minute and is good once; who consents is
//! not asked, and the portal is the one in the path (`/oauth/N/authorize`); a refresh token stays as it
//! is unless `rotate` is set, and is then dead at once; an access token lives on when its refresh token
//! is revoked (which HubSpot says too).

mod ask;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use self::ask::{Ask, Form};
use super::limits::PORTAL;
use super::{Ending, Model, Reply};
use crate::clock;
use crate::sandbox::answer::{APP_ID, Answer, Answers, Call};

const CODE_LIFE: Duration = Duration::from_mins(1);
/// HubSpot's, in seconds.
const ACCESS_LIFE: u64 = 1_800;
/// Codes, refresh tokens and access tokens that are remembered, of each; the oldest goes first.
const KEPT_MAX: usize = 10_000;

/// All that was consented to, and the tokens of it.
#[derive(Debug, Default)]
pub(super) struct OAuth {
    settings: Settings,
    codes: BTreeMap<String, Kept>,
    refresh: BTreeMap<String, Kept>,
    access: BTreeMap<String, Kept>,
    counts: Counts,
    serial: u64,
}

/// What a token or a code stands for.
#[derive(Clone, Debug)]
struct Kept {
    portal: u32,
    client_id: String,
    scopes: Vec<String>,
    until: Timestamp,
    serial: u64,
    /// Of a code.
    redirect_uri: String,
    challenge: Option<String>,
}

/// The control's words; what is left out stays as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuthControl {
    /// The only app; any will do without it.
    pub client_id: Option<String>,
    pub client_secret: Option<String>,
    /// A refresh gives a new refresh token, and the old one is dead.
    pub rotate: Option<bool>,
    /// Seconds that a new access token lives.
    pub expires_in: Option<u64>,
    /// The status of every call to the token endpoint; 0 ends it.
    pub answer: Option<u16>,
    /// Who is asked says no.
    pub deny: Option<bool>,
    /// Forgets every refresh token, as if the app had been uninstalled.
    pub revoke: bool,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    client_id: Option<String>,
    client_secret: Option<String>,
    rotate: bool,
    expires_in: Option<u64>,
    answer: u16,
    deny: bool,
}

/// Calls to the token endpoint, by what they asked for, whatever became of them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    exchanges: u64,
    refreshes: u64,
    revocations: u64,
    introspections: u64,
    refused: u64,
}

/// HubSpot's refusal: RFC 6749's word, HubSpot's own, and a sentence.
struct Refusal(&'static str, &'static str, &'static str);

const BAD_CLIENT_ID: Refusal = Refusal(
    "invalid_client",
    "BAD_CLIENT_ID",
    "missing or unknown client id",
);
const BAD_CLIENT_SECRET: Refusal = Refusal(
    "invalid_client",
    "BAD_CLIENT_SECRET",
    "missing or invalid client secret",
);
const BAD_REFRESH_TOKEN: Refusal = Refusal(
    "invalid_grant",
    "BAD_REFRESH_TOKEN",
    "refresh token is invalid, expired or revoked",
);
const BAD_AUTH_CODE: Refusal = Refusal(
    "invalid_grant",
    "BAD_AUTH_CODE",
    "missing or unknown auth code",
);
const EXPIRED_AUTH_CODE: Refusal =
    Refusal("invalid_grant", "EXPIRED_AUTH_CODE", "auth code is expired");
const BAD_REDIRECT_URI: Refusal = Refusal(
    "invalid_request",
    "BAD_REDIRECT_URI",
    "redirect URI mismatch",
);
const BAD_CODE_VERIFIER: Refusal = Refusal(
    "invalid_grant",
    "BAD_CODE_VERIFIER",
    "code verifier does not match",
);
const BAD_GRANT_TYPE: Refusal = Refusal(
    "unsupported_grant_type",
    "BAD_GRANT_TYPE",
    "missing or unknown grant type",
);

impl Model {
    /// The reply to a call that is OAuth's; `None` for any other.
    pub(super) fn oauth_call(&mut self, call: &Call<'_>) -> Option<Reply> {
        let ask = Ask::of(call.method, call.path)?;
        let answers = Answers {
            correlation_id: self.correlation_id(),
        };
        let after = self.options.latency.draw(&mut self.rng);
        let form = Form::of(call);
        let chance = format!("{:032x}", self.rng.u128(..));
        let answer = self.oauth.answer(self.now, ask, &form, &chance, &answers);
        Some(Reply {
            after,
            ending: Ending::Answer(answer),
        })
    }

    /// Changes how the token endpoint behaves.
    pub fn control_oauth(&mut self, told: OAuthControl) {
        let OAuth {
            settings, refresh, ..
        } = &mut self.oauth;
        settings.client_id = told.client_id.or(settings.client_id.take());
        settings.client_secret = told.client_secret.or(settings.client_secret.take());
        settings.rotate = told.rotate.unwrap_or(settings.rotate);
        settings.expires_in = told.expires_in.or(settings.expires_in);
        settings.answer = told.answer.unwrap_or(settings.answer);
        settings.deny = told.deny.unwrap_or(settings.deny);
        if told.revoke {
            refresh.clear();
        }
    }

    #[must_use]
    pub fn oauth_counts(&self) -> Counts {
        self.oauth.counts
    }
}

impl OAuth {
    /// Of a bearer: `None` when it was not issued here; else its scopes, or since when it is expired.
    pub(super) fn access(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Option<Result<&[String], Timestamp>> {
        let kept = self.access.get(token)?;
        Some(if now < kept.until {
            Ok(&kept.scopes)
        } else {
            Err(kept.until)
        })
    }

    fn answer(
        &mut self,
        now: Timestamp,
        ask: Ask,
        form: &Form,
        chance: &str,
        answers: &Answers,
    ) -> Answer {
        match ask {
            Ask::Authorize(portal) => self.authorize(now, portal, form, chance, answers),
            Ask::Token { old } => {
                let told = self.token(now, form, chance, old);
                self.told(told, answers)
            }
            Ask::Introspect => {
                self.counts.introspections += 1;
                let told = self
                    .client(form)
                    .map(|()| self.introspect(now, form.get("token")));
                self.told(told, answers)
            }
            Ask::Info(token) => {
                self.counts.introspections += 1;
                match self.introspect(now, &token) {
                    // What v1 says of an unknown token was not seen.
                    told if told.get("active") == Some(&json!(false)) => answers.not_found(),
                    told => answers.json(200, &told),
                }
            }
            Ask::Revoke => {
                self.counts.revocations += 1;
                let told = self.client(form).map(|()| {
                    self.refresh.remove(form.get("token"));
                    json!({})
                });
                self.told(told, answers)
            }
            Ask::Delete(token) => {
                self.counts.revocations += 1;
                self.refresh.remove(&token);
                answers.json(204, &json!({}))
            }
            Ask::WrongMethod => answers.wrong_method(),
        }
    }

    fn told(&mut self, told: Result<Value, Refusal>, answers: &Answers) -> Answer {
        match (self.settings.answer, told) {
            (0, Ok(told)) => answers.json(200, &told),
            (0, Err(Refusal(error, status, message))) => {
                self.counts.refused += 1;
                answers.json(
                    400,
                    &json!({
                        "error": error,
                        "error_description": message,
                        "status": status,
                        "message": message,
                    }),
                )
            }
            (429, _) => answers.json(
                429,
                &json!({"status": "error", "message": "You have reached your rate limit."}),
            ),
            (status, _) => {
                answers.json(status, &json!({"status": "error", "message": "asked for"}))
            }
        }
    }

    /// Consents at once, and sends the browser back.
    fn authorize(
        &mut self,
        now: Timestamp,
        portal: u32,
        form: &Form,
        chance: &str,
        answers: &Answers,
    ) -> Answer {
        let Ok(mut back) = Url::parse(form.get("redirect_uri")) else {
            return answers.invalid("the redirect_uri is no address");
        };
        let client_id = form.get("client_id");
        let known = &self.settings.client_id;
        if client_id.is_empty() || known.as_ref().is_some_and(|known| known != client_id) {
            return answers.invalid("the client_id is not known");
        }
        let challenge = form.get("code_challenge");
        if !challenge.is_empty() && form.get("code_challenge_method") != "S256" {
            return answers.invalid("the code_challenge_method is not S256");
        }
        let mut answer = back.query_pairs_mut();
        if self.settings.deny {
            answer.append_pair("error", "access_denied");
            answer.append_pair("error_description", "the user denied the access");
        } else {
            let code = format!("code-{chance}");
            let kept = Kept {
                portal,
                client_id: client_id.to_owned(),
                scopes: form
                    .get("scope")
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect(),
                until: clock::after(now, CODE_LIFE),
                serial: self.serial(),
                redirect_uri: form.get("redirect_uri").to_owned(),
                challenge: (!challenge.is_empty()).then(|| challenge.to_owned()),
            };
            keep(&mut self.codes, code.clone(), kept);
            answer.append_pair("code", &code);
        }
        if !form.get("state").is_empty() {
            answer.append_pair("state", form.get("state"));
        }
        drop(answer);
        answers
            .json(302, &json!({}))
            .with("location", back.as_str())
    }

    fn token(
        &mut self,
        now: Timestamp,
        form: &Form,
        chance: &str,
        old: bool,
    ) -> Result<Value, Refusal> {
        match form.get("grant_type") {
            "authorization_code" => {
                self.counts.exchanges += 1;
                self.may_answer()?;
                self.client(form)?;
                let code = self.codes.remove(form.get("code")).ok_or(BAD_AUTH_CODE)?;
                if code.client_id != form.get("client_id") {
                    return Err(BAD_AUTH_CODE);
                }
                if now >= code.until {
                    return Err(EXPIRED_AUTH_CODE);
                }
                if code.redirect_uri != form.get("redirect_uri") {
                    return Err(BAD_REDIRECT_URI);
                }
                let verifier = digest(&SHA256, form.get("code_verifier").as_bytes());
                let verifier = URL_SAFE_NO_PAD.encode(verifier);
                if code
                    .challenge
                    .as_ref()
                    .is_some_and(|challenge| *challenge != verifier)
                {
                    return Err(BAD_CODE_VERIFIER);
                }
                let refresh = token_of("refresh", chance, code.portal);
                Ok(self.issue(now, code, &refresh, chance, old))
            }
            "refresh_token" => {
                self.counts.refreshes += 1;
                self.may_answer()?;
                self.client(form)?;
                let refresh = form.get("refresh_token");
                let kept = self
                    .refresh
                    .get(refresh)
                    .cloned()
                    .ok_or(BAD_REFRESH_TOKEN)?;
                if kept.client_id != form.get("client_id") {
                    return Err(BAD_REFRESH_TOKEN);
                }
                let mut refresh = refresh.to_owned();
                if self.settings.rotate {
                    self.refresh.remove(&refresh);
                    refresh = token_of("refresh", chance, kept.portal);
                }
                Ok(self.issue(now, kept, &refresh, chance, old))
            }
            _ => Err(BAD_GRANT_TYPE),
        }
    }

    /// A call that is to fail changes nothing.
    fn may_answer(&self) -> Result<(), Refusal> {
        if self.settings.answer == 0 {
            Ok(())
        } else {
            Err(BAD_GRANT_TYPE)
        }
    }

    fn client(&self, form: &Form) -> Result<(), Refusal> {
        let fits = |known: &Option<String>, told: &str| {
            !told.is_empty() && known.as_ref().is_none_or(|known| known == told)
        };
        if !fits(&self.settings.client_id, form.get("client_id")) {
            Err(BAD_CLIENT_ID)
        } else if !fits(&self.settings.client_secret, form.get("client_secret")) {
            Err(BAD_CLIENT_SECRET)
        } else {
            Ok(())
        }
    }

    /// HubSpot's `AccessTokenResponse`; v1 does not tell portal and scopes (its guide's example).
    fn issue(&mut self, now: Timestamp, of: Kept, refresh: &str, chance: &str, old: bool) -> Value {
        let life = self.settings.expires_in.unwrap_or(ACCESS_LIFE);
        let access = token_of("access", chance, of.portal);
        let kept = Kept {
            until: clock::after(now, Duration::from_secs(life)),
            serial: self.serial(),
            ..of
        };
        let mut told = json!({
            "token_type": "bearer",
            "token_use": "access_token",
            "access_token": access,
            "refresh_token": refresh,
            "expires_in": life,
        });
        if let (Some(told), false) = (told.as_object_mut(), old) {
            told.insert("hub_id".into(), json!(kept.portal));
            told.insert("user_id".into(), json!(1));
            told.insert("scopes".into(), json!(kept.scopes));
        }
        keep(&mut self.refresh, refresh.to_owned(), kept.clone());
        keep(&mut self.access, access, kept);
        told
    }

    /// An unknown token is no error: `{"active": false}`.
    fn introspect(&self, now: Timestamp, token: &str) -> Value {
        let access = self.access.get(token).filter(|kept| now < kept.until);
        let Some(kept) = access.or_else(|| self.refresh.get(token)) else {
            return json!({"active": false});
        };
        json!({
            "active": true,
            "token": token,
            "token_type": if access.is_some() { "access" } else { "refresh" },
            "token_use": if access.is_some() { "access_token" } else { "refresh_token" },
            "client_id": kept.client_id,
            "hub_id": kept.portal,
            "app_id": APP_ID,
            "user_id": 1,
            "scopes": kept.scopes,
            "expires_in": clock::until(now, kept.until).as_secs(),
            "is_private_distribution": false,
        })
    }

    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

/// The portal's number at the end is how the model tells which portal a bearer opens.
fn token_of(kind: &str, chance: &str, portal: u32) -> String {
    if portal == PORTAL {
        format!("oauth-{kind}-{chance}")
    } else {
        format!("oauth-{kind}-{chance}-portal-{portal}")
    }
}

fn keep(all: &mut BTreeMap<String, Kept>, name: String, kept: Kept) {
    if all.len() >= KEPT_MAX {
        let oldest = all.iter().min_by_key(|(_, kept)| kept.serial);
        if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
            all.remove(&oldest);
        }
    }
    all.insert(name, kept);
}

#[cfg(test)]
mod tests;
