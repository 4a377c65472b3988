//! The configuration in force, for people: every key, secrets masked.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{AccountConfig, Config, QueueUrl, TokenSource, WindowConfig};
use crate::delivery::Mode;

/// What stands in the place of a secret.
const MASKED: &str = "********";

impl Config {
    /// Every key that has a value, in the order of the file. Written as `key = value` it is TOML.
    #[must_use]
    pub fn shown(&self) -> Vec<(String, Value)> {
        let mut shown = Vec::new();
        let mut show = |key: &str, value: Value| shown.push((key.to_owned(), value));
        let rules = &self.delivery;
        show("environment", json!(rules.environment.as_str()));
        if !rules.environment.is_production() {
            show("delivery.mode", json!(rules.mode.label()));
        }
        match &rules.mode {
            Mode::Allow(list) => show("delivery.allow", json!(list.to_string())),
            Mode::Sink(sink) => show("delivery.sink", json!(sink.expose())),
            Mode::Everyone | Mode::Hold | Mode::Sandbox => {}
        }
        let url = match &self.queue.url {
            QueueUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
            amqp @ QueueUrl::Amqp(_) => amqp.place(),
        };
        show("queue.url", json!(url));
        if let Some(path) = &self.queue.url_file {
            show("queue.url_file", json!(path));
        }
        let tls = &self.queue.tls;
        if let Some(path) = &tls.ca {
            show("queue.ca_file", json!(path));
        }
        if let Some((cert, key)) = &tls.identity {
            show("queue.cert_file", json!(cert));
            show("queue.key_file", json!(key));
        }
        show("queue.prefix", json!(self.queue.prefix));
        show("server.listen", json!(self.server.listen));
        show("server.stop_timeout", time(self.server.stop_timeout));
        match &self.server.token {
            TokenSource::Given(_) => show("server.token", json!(MASKED)),
            TokenSource::File(path) => show("server.token_file", json!(path)),
            TokenSource::Command(_) | TokenSource::OAuth(_) | TokenSource::Missing => {}
        }
        for (name, account) in &self.accounts {
            for (key, value) in account.shown() {
                show(&format!("accounts.{name}.{key}"), value);
            }
        }
        if let Some(oauth) = &self.oauth {
            for (key, value) in oauth.shown(MASKED) {
                show(&key, value);
            }
        }
        let retry = &self.retry;
        show("retry.max_attempts", json!(retry.max_attempts));
        show("retry.max_age", time(retry.max_age));
        show("retry.initial", time(retry.initial));
        show("retry.max", time(retry.max));
        show("retry.multiplier", json!(retry.multiplier));
        show("retry.jitter", json!(retry.jitter));
        shown
    }
}

impl AccountConfig {
    /// Where HubSpot is called, for people: the address, and the proxy on the way.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!("{} (by the proxy {})", self.base_url, proxy.place),
            None => self.base_url.to_string(),
        }
    }

    fn shown(&self) -> Vec<(&'static str, Value)> {
        let mut shown = Vec::new();
        match &self.token {
            TokenSource::Given(_) => shown.push(("token", json!(MASKED))),
            TokenSource::File(path) => shown.push(("token_file", json!(path))),
            TokenSource::Command(_) => shown.push(("token_command", json!(MASKED))),
            TokenSource::OAuth(_) => shown.push(("oauth", json!(true))),
            TokenSource::Missing => {}
        }
        match &self.next_token {
            TokenSource::Given(_) => shown.push(("next_token", json!(MASKED))),
            TokenSource::File(path) => shown.push(("next_token_file", json!(path))),
            TokenSource::Command(_) | TokenSource::OAuth(_) | TokenSource::Missing => {}
        }
        if let Some(portal) = self.portal_id {
            shown.push(("portal_id", json!(portal)));
        }
        if let Some(kind) = &self.account_type {
            shown.push(("account_type", json!(kind)));
        }
        shown.push(("base_url", json!(self.base_url)));
        if let Some(path) = &self.ca_file {
            shown.push(("ca_file", json!(path)));
        }
        shown.extend([
            ("api", json!(self.api.as_str())),
            ("api_version", json!(self.api_version.as_str())),
            ("results", json!(self.results)),
            ("concurrency", json!(self.concurrency)),
            ("low_share", json!(self.low_share)),
            ("timeout", time(self.timeout)),
        ]);
        shown.extend(window(
            ["quota.send.limit", "quota.send.window"],
            self.quota.send,
        ));
        if let Some(range) = self.quota.adaptive {
            shown.push(("quota.send.adaptive", json!(true)));
            shown.push(("quota.send.floor", json!(range.floor)));
            shown.push(("quota.send.ceiling", json!(range.ceiling)));
        }
        shown.extend(window(
            ["quota.api.limit", "quota.api.window"],
            self.quota.api,
        ));
        shown.push(("quota.daily", json!(self.quota.daily.unwrap_or(0))));
        shown.push(("quota.daily_reserve", json!(self.quota.daily_reserve)));
        shown
    }
}

/// A limit of 0 is no ceiling, and then the window means nothing.
fn window(keys: [&'static str; 2], window: Option<WindowConfig>) -> Vec<(&'static str, Value)> {
    let [limit, length] = keys;
    match window {
        Some(window) => vec![(limit, json!(window.limit)), (length, time(window.window))],
        None => vec![(limit, json!(0))],
    }
}

fn time(time: Duration) -> Value {
    SignedDuration::try_from(time).map_or_else(
        |_| json!(format!("{}s", time.as_secs())),
        |time| json!(format!("{time:#}")),
    )
}
