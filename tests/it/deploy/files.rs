//! The compose file, the unit and the container file: what they name exists, and the program
//! takes what they give it.

use std::process::Command;

use postrider::config::{Config, QueueUrl, Sources, TokenSource};
use postrider::message::AccountName;
use serde_json::Value;

use super::{PROGRAM, path, read, yaml};

const COMPOSE: &str = "docker-compose.yml";
const UNIT: &str = "deploy/postrider.service";
const CONTAINER: &str = "deploy/Containerfile";
/// The address that the workers of the compose file listen on.
const ADMIN_PORT: &str = "9464";

/// The command that tells compose whether a worker is ready.
pub(super) fn worker_health_check() -> Vec<String> {
    let compose = yaml(COMPOSE);
    let check = strings(&compose["services"]["worker-1"]["healthcheck"]["test"]);
    assert_eq!(check[0], "CMD");
    check[1..].to_vec()
}

#[test]
fn the_compose_file_is_safe_and_whole() {
    let compose = yaml(COMPOSE);
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.split_once(':').expect(image);
        assert!(tag != "latest" && !tag.is_empty(), "{image}");
        for port in list(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
        assert!(service["healthcheck"]["test"].is_array(), "{name}");
        for volume in list(&service["volumes"]) {
            let from = volume.split(':').next().unwrap();
            if from.starts_with('.') {
                assert!(path(from).is_dir(), "{name} mounts {from}");
                assert!(volume.ends_with(":ro"), "{name}: {volume}");
            } else {
                assert!(compose["volumes"].get(from).is_some(), "{name}: {from}");
            }
        }
        let after = service["depends_on"].as_object().into_iter().flatten();
        for (other, _) in after {
            assert!(services.contains_key(other), "{name} waits for {other}");
        }
        if let Some(build) = service.get("build") {
            assert_eq!(build["dockerfile"], CONTAINER);
            assert_accepted(&strings(&service["command"]));
        }
    }
}

#[test]
fn the_compose_file_configures_its_workers() {
    let compose = yaml(COMPOSE);
    for worker in ["worker-1", "worker-2"] {
        let service = &compose["services"][worker];
        assert_eq!(strings(&service["command"]), ["worker"]);
        let config = load(environment(service));
        assert!(matches!(config.queue.url, QueueUrl::Amqp(_)));
        assert_eq!(config.server.listen.port().to_string(), ADMIN_PORT);
        // Or `postrider queue` in the container would know no pauses.
        let is_local = config.server.listen.ip().is_loopback();
        assert!(!is_local && config.server.token_now().unwrap().is_some());
        let account = &config.accounts[&AccountName::default()];
        assert_eq!(account.base_url.as_str(), "http://sandbox:8085/");
        assert!(matches!(account.token, TokenSource::Given(_)));
        let grace = service["stop_grace_period"].as_str().unwrap();
        assert_eq!(grace, "50s", "the worker needs up to 45 s");
    }
}

#[test]
fn prometheus_and_grafana_find_what_they_ask_for() {
    let compose = yaml(COMPOSE);
    let serves = |host: &str| {
        let (name, _) = host.split_once(':').expect(host);
        compose["services"].get(name).is_some()
    };
    let config = yaml("deploy/prometheus/prometheus.yml");
    for job in config["scrape_configs"].as_array().unwrap() {
        for target in strings(&job["static_configs"][0]["targets"]) {
            assert!(serves(&target), "{target}");
            if job["job_name"] == "postrider" {
                assert!(target.ends_with(ADMIN_PORT), "{target}");
            }
        }
    }
    let provisioning = "deploy/grafana/provisioning";
    let source = yaml(&format!("{provisioning}/datasources/prometheus.yml"));
    let url = source["datasources"][0]["url"].as_str().unwrap();
    assert!(serves(url.strip_prefix("http://").unwrap()), "{url}");
    assert_eq!(
        source["datasources"][0]["jsonData"]["timeInterval"],
        config["global"]["scrape_interval"]
    );
    let provider = yaml(&format!("{provisioning}/dashboards/postrider.yml"));
    let folder = provider["providers"][0]["options"]["path"]
        .as_str()
        .unwrap();
    let grafana = &compose["services"]["grafana"];
    let mount = format!("./deploy/grafana/dashboards:{folder}:ro");
    assert!(list(&grafana["volumes"]).contains(&mount), "{mount}");
    let home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str();
    assert_eq!(home.unwrap(), format!("{folder}/postrider.json"));
}

#[test]
fn the_unit_is_one_that_systemd_and_the_worker_take() {
    let unit = read(UNIT);
    let setting = |key: &str| {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key));
        let mut values = lines.filter_map(|rest| rest.strip_prefix('='));
        values.next().unwrap_or_else(|| panic!("no {key}"))
    };
    let mut start = setting("ExecStart").split(' ').map(str::to_owned);
    assert_eq!(start.next().unwrap(), "/usr/local/bin/postrider");
    assert_accepted(&start.collect::<Vec<_>>());
    assert_eq!(setting("KillSignal"), "SIGTERM");
    assert_eq!(setting("TimeoutStopSec"), "50");

    let (key, file) = setting("Environment").split_once('=').unwrap();
    let name = file.strip_prefix("%d/").unwrap();
    assert!(setting("LoadCredential").starts_with(&format!("{name}:")));
    let credentials = tempfile::tempdir().unwrap();
    let token = credentials.path().join(name);
    crate::support::secret::keep(&token, "pat-na1-test\n");
    let config = load(vec![(key.to_owned(), token.display().to_string())]);
    let account = &config.accounts[&AccountName::default()];
    assert!(matches!(&account.token, TokenSource::File(file) if *file == token));

    let copy = credentials.path().join("postrider.service");
    std::fs::write(&copy, unit.replace("/usr/local/bin/postrider", PROGRAM)).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&copy);
    let output = verify.output();
    let output = output.expect("systemd-analyze is missing: run ./test, which installs it");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn the_container_file_builds_what_is_here_and_runs_it_as_nobody() {
    let file = read(CONTAINER).replace("\\\n", " ");
    let lines: Vec<Vec<&str>> = file
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let of = |word: &str| -> Vec<&[&str]> {
        let found = lines.iter().filter(|line| line.first() == Some(&word));
        found.map(|line| &line[1..]).collect()
    };
    for from in of("FROM") {
        let (_, tag) = from[0].split_once(':').expect(from[0]);
        assert_ne!(tag, "latest");
    }
    let rust = concat!("rust:", env!("CARGO_PKG_RUST_VERSION"), "-");
    assert!(of("FROM")[0][0].starts_with(rust), "not {rust}");
    assert!(file.contains("cargo build --release --locked --bin postrider"));
    for copy in of("COPY").iter().filter(|copy| !copy[0].starts_with("--")) {
        assert!(path(copy[0]).exists(), "{copy:?}");
    }
    assert_eq!(of("USER"), [["10001:10001"]]);
    let json = |word: &str| strings(&serde_json::from_str(&of(word)[0].join(" ")).unwrap());
    assert_eq!(json("ENTRYPOINT"), ["/usr/local/bin/postrider"]);
    assert_accepted(&json("CMD"));
    assert!(of("EXPOSE")[0].contains(&ADMIN_PORT));
}

/// The program knows every word of this command line.
fn assert_accepted(args: &[String]) {
    let output = Command::new(PROGRAM).args(args).arg("--help").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// What a service's variables make of the project's own configuration file.
fn load(env: Vec<(String, String)>) -> Config {
    let sources = Sources {
        file: Some(path("config/postrider.toml")),
        env,
        ..Sources::default()
    };
    Config::load(&sources).unwrap()
}

/// A service's variables, as they are when the user sets none.
fn environment(service: &Value) -> Vec<(String, String)> {
    let variables = service["environment"].as_object().unwrap();
    variables
        .iter()
        .map(|(key, value)| (key.clone(), with_defaults(value.as_str().unwrap())))
        .collect()
}

/// `${NAME:-default}` becomes `default`.
fn with_defaults(value: &str) -> String {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let (variable, after) = after.split_once('}').unwrap();
        let (_, default) = variable
            .split_once(":-")
            .expect("every variable has a default");
        text.push_str(before);
        text.push_str(default);
        rest = after;
    }
    text + rest
}

/// A list of texts; none when there is no list.
fn list(value: &Value) -> Vec<String> {
    if value.is_null() {
        return Vec::new();
    }
    strings(value)
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().unwrap().iter();
    items
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}
