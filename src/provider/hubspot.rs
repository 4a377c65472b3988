//! HubSpot over HTTP: one call, one answer, one verdict.
//!
//! No retries, no redirects and no waiting here: `classify` says what an answer means, and
//! `retry` what follows from it. What carries a call there and its answer back is a [`Transport`]:
//! [`Http`], or in a simulation the model of HubSpot itself. All that lies behind it, from the body
//! to the verdict, is the same.

mod classify;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;
mod http;
mod letter;
mod probe;
mod send_result;
mod source;
mod token;
mod tokens;
mod urls;
mod wire;

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

pub use self::classify::{Heard, Silence};
pub use self::http::Http;
pub use self::letter::Letter;
pub use self::probe::missing_scope;
use self::source::{Source, Trouble};
use self::token::Token;
use self::tokens::{Candidate, Tokens};
use self::urls::Urls;
pub use self::wire::{Answer, Call};
use crate::clock::Clock;
use crate::config::{AccountConfig, Api};
use crate::message::{AccountName, SendRequest};
use crate::outcome::{Failure, FailureClass, LookUp, Outcome, Scope, Words};
use crate::provider::{Pinned, Probe, Provider, RateLimits, TokenTroubles};

/// The operation that is no look-up and no check.
const SEND: &str = "send";
/// Those of a probe.
const DETAILS: &str = "details";
const TOKEN_INFO: &str = "token_info";
/// What the two tokens of an account are called: by their keys.
pub const TOKEN: &str = "token";
pub const NEXT_TOKEN: &str = "next_token";
/// HubSpot does not accept the token.
const UNAUTHORIZED: u16 = 401;

/// Carries a call to HubSpot and brings back what was heard: an answer, or none.
pub trait Transport: Send + Sync + 'static {
    fn carry(&self, call: Call) -> impl Future<Output = Heard> + Send;
}

/// One account at HubSpot.
pub struct HubSpot<T = Http> {
    account: AccountName,
    api: Api,
    pinned: Pinned,
    transport: T,
    tokens: Tokens,
    urls: Urls,
    clock: Clock,
    rate_limits: Mutex<RateLimits>,
    /// The statuses that probes heard and nobody has counted: those of one probe or two, since whoever
    /// probes all the time takes them.
    probe_answers: Mutex<Vec<Option<u16>>>,
}

/// Why an account cannot be called at all. Never holds a token.
#[derive(Debug, thiserror::Error)]
pub enum HubSpotError {
    #[error("account `{account}` has no token")]
    NoToken { account: AccountName },
    #[error("the token of account `{account}` in {place} cannot be used: {why}")]
    BadToken {
        account: AccountName,
        /// The file, or the configuration.
        place: String,
        why: String,
    },
    #[error("the base_url of account `{account}` is no plain http or https address")]
    BadBaseUrl { account: AccountName },
    #[error("cannot prepare TLS for account `{account}`: {why}")]
    NoClient { account: AccountName, why: String },
}

impl HubSpotError {
    /// The next step for whoever reads the error.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoToken { account } => format!(
                "set accounts.{account}.token or accounts.{account}.token_file to a service key \
                 or an app's token"
            ),
            Self::BadToken { .. } => {
                "it takes a service key or an app's token, and nothing else; a file with it is to be \
                 read by its owner alone"
                    .into()
            }
            Self::BadBaseUrl { account } => {
                format!("leave accounts.{account}.base_url out, or set it to https://HOST")
            }
            Self::NoClient { .. } => "install the system's CA certificates".into(),
        }
    }
}

impl HubSpot {
    /// Prepares the calls of one account; makes none.
    ///
    /// # Errors
    /// [`HubSpotError`] when the configuration holds no usable token or address.
    pub fn new(
        account: &AccountName,
        config: &AccountConfig,
        clock: Clock,
    ) -> Result<Self, HubSpotError> {
        let base = &config.base_url;
        let web = matches!(base.scheme(), "http" | "https") && base.has_host();
        // A user in the address would add a second `Authorization` to the bearer's.
        if !web || !base.username().is_empty() || base.password().is_some() {
            return Err(HubSpotError::BadBaseUrl {
                account: account.clone(),
            });
        }
        let transport = Http::new(config).map_err(|why| HubSpotError::NoClient {
            account: account.clone(),
            why,
        })?;
        Self::over(transport, account, config, clock)
    }
}

impl<T: Transport> HubSpot<T> {
    /// The same account over another transport.
    ///
    /// # Errors
    /// [`HubSpotError`] when the configuration holds no usable token.
    pub fn over(
        transport: T,
        account: &AccountName,
        config: &AccountConfig,
        clock: Clock,
    ) -> Result<Self, HubSpotError> {
        Ok(Self {
            account: account.clone(),
            api: config.api,
            pinned: Pinned {
                portal_id: config.portal_id,
                account_type: config.account_type.clone(),
            },
            transport,
            tokens: tokens(account, config)?,
            urls: Urls::new(config),
            clock,
            rate_limits: Mutex::default(),
            probe_answers: Mutex::default(),
        })
    }

    /// Makes one call and reads its answer.
    async fn call(&self, operation: &'static str, call: Call) -> Heard {
        let begun = Instant::now();
        let token = call.token.clone();
        let heard = self.transport.carry(call).await;
        if matches!(operation, DETAILS | TOKEN_INFO) {
            let status = heard.as_ref().ok().map(|answer| answer.status);
            self.probe_answers_now().push(status);
        }
        if let Ok(answer) = &heard {
            self.heed(answer, operation == SEND);
            if answer.status == UNAUTHORIZED {
                self.tokens.heard(&token, true);
            }
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            let words = heard.as_ref().ok().map(Answer::words).unwrap_or_default();
            // Never the words themselves: HubSpot's messages may hold an address.
            tracing::debug!(
                account = %self.account,
                operation,
                status = words.status,
                correlation_id = words.correlation_id,
                duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                "called HubSpot"
            );
        }
        heard
    }

    /// Keeps the rate limits that an answer tells: the newest count.
    fn heed(&self, answer: &Answer, is_send: bool) {
        let mut limits = self.rate_limits_now();
        let rolling = if is_send {
            &mut limits.send
        } else {
            &mut limits.api
        };
        *rolling = answer.rolling_limit().or(*rolling);
        limits.day = answer.daily_limit().or(limits.day);
    }

    fn rate_limits_now(&self) -> MutexGuard<'_, RateLimits> {
        let limits = self.rate_limits.lock();
        limits.unwrap_or_else(PoisonError::into_inner)
    }

    fn probe_answers_now(&self) -> MutexGuard<'_, Vec<Option<u16>>> {
        let answers = self.probe_answers.lock();
        answers.unwrap_or_else(PoisonError::into_inner)
    }

    async fn details(&self, token: &Token) -> Heard {
        let call = Call::get(&self.urls.details, token.clone());
        self.call(DETAILS, call).await
    }

    async fn token_info(&self, token: &Token) -> Heard {
        let body = serde_json::json!({"tokenKey": token.expose()}).to_string();
        let call = Call::post(&self.urls.token_info, body.into_bytes(), token.clone());
        self.call(TOKEN_INFO, call).await
    }

    /// What a token is worth.
    async fn probe_with(&self, token: &Token) -> Probe {
        let (details, token_info) = if let Some(granted) = token.granted() {
            // That question is for static tokens. Of this one HubSpot has said it already, which counts
            // only where HubSpot does not refuse it now.
            let details = self.details(token).await;
            let told = probe::token_info(granted.hub_id, granted.scopes.as_deref());
            let told = if probe::lets_in(&details) {
                Ok(told)
            } else {
                details.clone()
            };
            (details, told)
        } else {
            tokio::join!(self.details(token), self.token_info(token))
        };
        let now = self.clock.now();
        probe::probe((self.api, &self.pinned), &details, &token_info, now)
    }

    /// What each token that is configured is worth, with its key, the one that is wanted first. None
    /// takes the place of another.
    pub async fn probe_each(&self) -> Vec<(&'static str, Probe)> {
        self.tokens.look(self.clock.now()).await;
        let mut probes = Vec::new();
        for (key, told) in self.tokens.each() {
            let probe = match told {
                Ok(token) => self.probe_with(&token).await,
                Err(trouble) => Probe::Shut(no_token(trouble)),
            };
            probes.push((key, probe));
        }
        if probes.is_empty() {
            probes.push((TOKEN, Probe::Shut(self.no_token())));
        }
        probes
    }

    /// What HubSpot knows of an email, asked under the token of this key, proven or not.
    pub async fn letter(&self, email_id: i64, key: &str) -> Letter {
        let mut each = self.tokens.each().into_iter();
        let told = each.find_map(|(its, told)| (its == key).then_some(told));
        let token = match told {
            Some(Ok(token)) => token,
            Some(Err(trouble)) => return Letter::Unknown(no_token(trouble)),
            None => return Letter::Unknown(self.no_token()),
        };
        let call = Call::get(&self.urls.letter(email_id), token);
        let heard = self.call("email", call).await;
        letter::letter(self.api, &heard, self.clock.now())
    }

    /// Proves a token that is wanted rather than the one in force.
    async fn prove(&self, candidate: Candidate) -> Probe {
        let found = self.probe_with(&candidate.token).await;
        let (account, now) = (&self.account, self.clock.now());
        let (why, hint) = match &found {
            Probe::Open(portal) => {
                let which = self.tokens.name_of_next();
                tracing::info!(
                    %account, portal = portal.portal_id,
                    "{which} is proven: calls go out under it from now on"
                );
                self.tokens.adopt(candidate, now);
                return found;
            }
            // HubSpot does not offer the question for every kind of token: then a send has to tell.
            Probe::Inconclusive(_) if self.pinned.is_empty() && self.tokens.is_refused() => {
                let which = self.tokens.name_of_next();
                tracing::warn!(%account, "{which} cannot be proven, and is tried: there is no other that HubSpot takes");
                self.tokens.adopt(candidate, now);
                return found;
            }
            Probe::Wrong(_, problem) => (
                problem.clone(),
                "correct the token, or what accounts.NAME pins".to_owned(),
            ),
            Probe::Shut(failure) | Probe::Inconclusive(failure) => {
                (probe::why(failure), failure.hint.clone())
            }
            Probe::Kept => return found,
        };
        if self.tokens.in_force().is_none() {
            // There is none to keep: what was found is what the account is worth.
            return found;
        }
        let (key, place) = self.tokens.origin_of(&candidate);
        if self.tokens.put_off(candidate, (&why, &hint), now) {
            tracing::warn!(
                %account, key, place, why, hint,
                "another token stands ready and is not proven; the last one stays in force"
            );
        }
        Probe::Kept
    }

    /// Without a token there is nothing to ask HubSpot.
    fn no_token(&self) -> Failure {
        no_token(self.tokens.trouble())
    }
}

/// No call can be made for this.
fn no_token(trouble: Trouble) -> Failure {
    Failure {
        class: FailureClass::Halted,
        scope: Scope::Account,
        pause: Some(trouble.pause),
        retry_after: None,
        words: Words {
            message: Some(format!("no call was made: {}", trouble.why)),
            ..Words::default()
        },
        hint: trouble.hint,
    }
}

impl<T: Transport> Provider for HubSpot<T> {
    async fn send(&self, request: &SendRequest, send_id: &str) -> Outcome {
        let Some(token) = self.tokens.in_force() else {
            return Outcome::NotSent(self.no_token());
        };
        #[expect(
            clippy::expect_used,
            reason = "strings, numbers and JSON that was read as JSON can be written as JSON"
        )]
        let body = wire::send_body(request, send_id).expect("a request is JSON");
        let call = Call::post(&self.urls.send, body, token);
        let heard = self.call(SEND, call).await;
        classify::send(&heard, self.clock.now())
    }

    async fn look_up(&self, status_id: &str) -> LookUp {
        let Some(token) = self.tokens.in_force() else {
            return LookUp::Failed(self.no_token());
        };
        let url = self.urls.status(status_id);
        let call = Call::get(&url, token);
        let heard = self.call("look_up", call).await;
        classify::look_up(&heard, self.clock.now())
    }

    async fn probe(&self) -> Probe {
        self.tokens.look(self.clock.now()).await;
        if let Some(candidate) = self.tokens.candidate() {
            return self.prove(candidate).await;
        }
        let Some(token) = self.tokens.in_force() else {
            return Probe::Shut(self.no_token());
        };
        let found = self.probe_with(&token).await;
        if let Probe::Open(_) = found {
            self.tokens.heard(&token, false);
        }
        found
    }

    async fn token_changed(&self) {
        self.tokens.changed(self.clock).await;
    }

    fn token_troubles(&self) -> TokenTroubles {
        self.tokens.troubles()
    }

    fn probe_answers(&self) -> Vec<Option<u16>> {
        std::mem::take(&mut *self.probe_answers_now())
    }

    fn rate_limits(&self) -> RateLimits {
        std::mem::take(&mut *self.rate_limits_now())
    }
}

impl<T> fmt::Debug for HubSpot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSpot")
            .field("account", &self.account)
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

fn tokens(account: &AccountName, config: &AccountConfig) -> Result<Tokens, HubSpotError> {
    let bad = |(place, why): (String, String)| HubSpotError::BadToken {
        account: account.clone(),
        place,
        why,
    };
    let mut sources = Vec::new();
    for (key, source) in [(NEXT_TOKEN, &config.next_token), (TOKEN, &config.token)] {
        let source = Source::new(account, config, source);
        if let Some(source) = source.map_err(|why| bad((key.to_owned(), why)))? {
            sources.push((key, source));
        }
    }
    if sources.is_empty() {
        return Err(HubSpotError::NoToken {
            account: account.clone(),
        });
    }
    Tokens::new(account, sources).map_err(bad)
}
