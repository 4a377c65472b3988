//! A sandbox, a folder with an app's configuration, and a person with a browser.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use postrider::config::{AccountConfig, Config, OAuthConfig, Sources, TokenSource};
use postrider::message::AccountName;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout};

use crate::support::secret::keep;
use crate::whole::world::{World, within};

pub const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub const OTHER_KEY: &str = "HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const TIME_MAX: Duration = Duration::from_secs(30);

/// Account `default` uses the app; its browser opens portal 42.
pub async fn desk(sandbox: &[&str]) -> World {
    let world = World::on_sqlite(sandbox).await;
    let base = world.sandbox.base().to_owned();
    let key = world.path("key");
    keep(&key, KEY);
    world
        .unset("accounts.default.token")
        .set("accounts.default.oauth", "true")
        .set("oauth.client_id", "app")
        .set("oauth.client_secret", "app-secret")
        .set("oauth.key_file", "key")
        .set("oauth.authorize_url", &format!("{base}/oauth/42/authorize"))
        .set(
            "oauth.redirect_url",
            &format!("http://127.0.0.1:{}/cb", free_port()),
        )
}

/// Account `default`, as the configuration has it, and its app.
pub fn account_and_app(settings: &[(&str, &str)]) -> (AccountConfig, Arc<OAuthConfig>) {
    let always = [("ACCOUNTS__DEFAULT__OAUTH", "true"), ("OAUTH__KEY", KEY)];
    let env = always.iter().chain(settings);
    let env = env.map(|(name, value)| (format!("POSTRIDER_{name}"), (*value).to_owned()));
    let config = Config::load(&Sources {
        env: env.collect(),
        ..Sources::default()
    });
    let account = config.unwrap().accounts[&AccountName::default()].clone();
    let TokenSource::OAuth(app) = &account.token else {
        panic!("OAuth");
    };
    let app = Arc::clone(app);
    (account, app)
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A login that waits for its answer.
pub struct Login {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub authorize_url: String,
}

/// How a login ended: its exit code, its last line of JSON, and its talk.
#[derive(Debug)]
pub struct Ended {
    pub exit: i32,
    pub told: Value,
    pub talk: String,
}

impl Login {
    pub async fn start(world: &World, args: &[&str]) -> Self {
        let mut all = vec!["auth", "login", "--json", "--no-browser"];
        all.extend(args);
        let mut command = world.command(&all);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        within(
            TIME_MAX,
            "it tells the address",
            stdout.read_line(&mut line),
        )
        .await
        .unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_default();
        Self {
            child,
            stdout,
            authorize_url: told["authorize_url"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// The person consents, and the browser follows wherever it leads.
    pub async fn consent(&self) -> reqwest::Response {
        reqwest::get(&self.authorize_url).await.unwrap()
    }

    pub async fn paste(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    pub async fn interrupt(&self) {
        let pid = self.child.id().unwrap().to_string();
        let sent = tokio::process::Command::new("kill")
            .args(["-INT", &pid])
            .status();
        assert!(sent.await.unwrap().success());
    }

    pub async fn end(mut self) -> Ended {
        let mut text = String::new();
        let read = self.stdout.read_to_string(&mut text);
        within(TIME_MAX, "it ends", read).await.unwrap();
        let Output { status, stderr, .. } =
            within(TIME_MAX, "it ends", self.child.wait_with_output())
                .await
                .unwrap();
        Ended {
            exit: status.code().unwrap(),
            told: serde_json::from_str(text.trim()).unwrap_or_default(),
            talk: String::from_utf8(stderr).unwrap(),
        }
    }
}

/// Where the consent leads to, without going there.
pub async fn answer_of(authorize_url: &str) -> String {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let answer = client
        .build()
        .unwrap()
        .get(authorize_url)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 302, "{}", answer.text().await.unwrap());
    let location = answer.headers().get("location").unwrap();
    location.to_str().unwrap().to_owned()
}

/// Logs the account in, as a person does.
pub async fn logged_in(world: &World) {
    let login = Login::start(world, &[]).await;
    assert_eq!(login.consent().await.status(), 200);
    let ended = login.end().await;
    assert_eq!(ended.exit, 0, "{ended:?}");
}

/// What the sandbox counts of the token endpoint's calls.
pub async fn counts(world: &World) -> BTreeMap<String, u64> {
    let url = format!("{}/_sandbox/oauth", world.sandbox.base());
    serde_json::from_str(&world.sandbox.ask(&url).await).unwrap()
}

/// How a command ended, whole.
pub async fn run(world: &World, args: &[&str]) -> String {
    let output = world.run(args).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let exit = output.status.code().unwrap();
    let told = format!(
        "exit {exit}\n{}--\n{}",
        text(output.stdout),
        text(output.stderr)
    );
    told.replace(world.sandbox.base(), "BASE")
}
