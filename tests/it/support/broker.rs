//! A private RabbitMQ node: its own name, ports, folder and port mapper, on loopback only.
//!
//! RabbitMQ 3.10 is Debian 12's own. 4.0 comes from Debian 13 with everything that it needs
//! (`tests/brokers/rabbitmq-4`): its node is started in a mount namespace of its own in which Debian
//! 13's `/usr` lies over the machine's. The mount ends with the node. A user who is not root is root
//! there, and nowhere else, so nobody needs a password for it.
//!
//! A small shell keeps it: it reads its standard input until this process ends, however that
//! happens, and then kills the node and the port mapper by their ids. So a node in a `static`,
//! which is never dropped, leaves nothing behind either.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

/// Where Debian's package has the scripts. Not those in `/usr/sbin`: they change the user.
const BIN: &str = "/usr/lib/rabbitmq/bin";
/// Debian 13's `/usr`, as `./test` unpacks it.
const USR_4_0: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/test-env/rabbitmq-4/usr"
);
/// A loaded machine takes 20 s.
const START_TIMEOUT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// What Postrider is tried on: the oldest RabbitMQ that it runs on, and the first of the 4.x line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V3_10,
    V4_0,
}

/// A running (or stopped) node; dropping it ends it.
#[derive(Debug)]
pub struct Broker {
    version: Version,
    folder: TempDir,
    name: String,
    ports: Ports,
    keeper: Child,
    /// RabbitMQ's start script, which ends when the node does.
    script: Mutex<Option<Child>>,
    /// The keeper reads it; closing it ends the node.
    keeper_stdin: Option<ChildStdin>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    dist: u16,
    epmd: u16,
    tls: u16,
}

/// What a node with TLS shows, and whom it trusts, in PEM.
#[derive(Clone, Copy, Debug)]
pub struct ServerPem<'a> {
    pub authority: &'a str,
    pub cert: &'a str,
    pub key: &'a str,
}

impl Version {
    /// What the tests run on that name none: 3.10, unless `POSTRIDER_TEST_RABBITMQ=4.0` asks for the
    /// other one.
    fn usual() -> Self {
        match std::env::var_os("POSTRIDER_TEST_RABBITMQ") {
            None => Self::V3_10,
            Some(version) if version == "3.10" => Self::V3_10,
            Some(version) if version == "4.0" => Self::V4_0,
            Some(version) => panic!(
                "POSTRIDER_TEST_RABBITMQ is {}: 3.10 or 4.0",
                version.display()
            ),
        }
    }
}

/// The node that tests share; each uses a prefix of its own, see [`prefix`].
pub async fn shared() -> &'static Broker {
    shared_of(Version::usual()).await
}

/// The same, of this version.
pub async fn shared_of(version: Version) -> &'static Broker {
    static V3_10: OnceCell<Broker> = OnceCell::const_new();
    static V4_0: OnceCell<Broker> = OnceCell::const_new();
    let shared = match version {
        Version::V3_10 => &V3_10,
        Version::V4_0 => &V4_0,
    };
    shared.get_or_init(|| Broker::start_of(version)).await
}

/// A `queue.prefix` that no other test has.
pub fn prefix(subject: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{subject}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The address of a node behind this port.
pub fn url(port: u16) -> SecretString {
    url_of("guest", port)
}

/// The same, for a user whose password is the name.
pub fn url_of(user: &str, port: u16) -> SecretString {
    format!("amqp://{user}:{user}@127.0.0.1:{port}/%2f").into()
}

impl Broker {
    /// Starts a node of its own and waits until it takes connections.
    pub async fn start() -> Self {
        Self::start_of(Version::usual()).await
    }

    /// The same, of this version.
    pub async fn start_of(version: Version) -> Self {
        Self::new(version, None, None).await
    }

    /// Starts a node that also listens with TLS, at [`Self::tls_port`], and only for clients that have
    /// a certificate of that authority; its name may be that of a user.
    pub async fn start_with_tls(version: Version, pem: &ServerPem<'_>) -> Self {
        Self::new(version, None, Some(pem)).await
    }

    /// Starts a node that joins another one's cluster.
    pub async fn start_beside(first: &Self) -> Self {
        Self::new(first.version, Some(first), None).await
    }

    async fn new(version: Version, first: Option<&Self>, tls: Option<&ServerPem<'_>>) -> Self {
        let server = version.file("rabbitmq-server");
        assert!(
            server.exists(),
            "{} is missing: run `./test`, which installs what the tests need",
            server.display()
        );
        let folder = new_folder();
        let mut ports = Ports::free();
        let name = format!("postrider-{}@localhost", ports.amqp);
        let mut settings = String::from("log.file.level = info\n");
        if let Some(first) = first {
            // Nodes find each other by their port mapper. It is the first one's, which ends last.
            ports.epmd = first.ports.epmd;
            settings.push_str("cluster_formation.peer_discovery_backend = classic_config\n");
            for (number, name) in [&first.name, &name].iter().enumerate() {
                let key = format!("cluster_formation.classic_config.nodes.{number}");
                writeln!(settings, "{key} = {name}").unwrap();
            }
        }
        if let Some(pem) = tls {
            settings.push_str(&tls_settings(folder.path(), ports.tls, pem));
        }
        write_settings(folder.path(), &settings);
        if tls.is_some() {
            let plugins = "[rabbitmq_auth_mechanism_ssl].\n";
            fs::write(folder.path().join("plugins"), plugins).unwrap();
        }
        let (keeper, stdin) = start_keeper(folder.path(), ports, first.is_none());
        let broker = Self {
            version,
            folder,
            name,
            ports,
            keeper,
            script: Mutex::new(None),
            keeper_stdin: Some(stdin),
        };
        broker.boot().await;
        broker
    }

    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Where a node of [`Self::start_with_tls`] takes TLS.
    pub fn tls_port(&self) -> u16 {
        self.ports.tls
    }

    pub fn url(&self) -> SecretString {
        url(self.port())
    }

    /// Starts the node again, on the same folder and ports.
    pub async fn boot(&self) {
        let log = fs::File::create(self.path("boot.log")).unwrap();
        let script = self
            .command("rabbitmq-server")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.script.lock().unwrap() = Some(script);
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "no start: {}", self.boot_log());
            sleep(POLL).await;
        }
    }

    /// Ends the node as a power cut would, but for the page cache.
    pub async fn kill(&self) {
        self.end("-KILL").await;
    }

    /// Ends the node in order: connections are closed with `CONNECTION_FORCED`.
    pub async fn stop(&self) {
        self.end("-TERM").await;
    }

    /// Stops it where it is: its connections stay, and nothing answers.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Copies what it has logged to a folder.
    pub fn save_logs(&self, folder: &Path) {
        let name = format!("rabbitmq-{}", self.ports.amqp);
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(self.path("log")).arg(folder.join(name));
        let _ = copy.status();
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of all its queues.
    pub async fn queues(&self) -> Vec<String> {
        let told = self.ctl(&["list_queues", "name"]).await;
        told.lines().map(str::to_owned).collect()
    }

    /// What `rabbitmqctl` tells of this node, without headings.
    pub async fn ctl(&self, args: &[&str]) -> String {
        let mut command = tokio::process::Command::from(self.command("rabbitmqctl"));
        command.args(["--node", &self.name, "--quiet"]).args(args);
        if args.iter().any(|arg| arg.starts_with("list_")) {
            command.arg("--no-table-headers");
        }
        let output = command.output().await.unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "rabbitmqctl {args:?}: {told}");
        told
    }

    async fn end(&self, signal: &str) {
        self.signal(signal);
        let mut script = self.script.lock().unwrap().take().unwrap();
        let deadline = Instant::now() + START_TIMEOUT;
        while script.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the node does not end");
            sleep(POLL).await;
        }
        // The keeper must not kill whoever has this number next.
        let _ = fs::remove_file(self.path("pid"));
    }

    fn signal(&self, signal: &str) {
        let pid = fs::read_to_string(self.path("pid")).unwrap();
        let pid = pid.trim();
        let sent = Command::new("kill").args([signal, pid]).status().unwrap();
        assert!(sent.success(), "kill {signal} {pid}");
    }

    fn is_ready(&self) -> bool {
        self.boot_log().contains("completed with")
            && TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.amqp)).is_ok()
    }

    fn boot_log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(self.path("boot.log")) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One of RabbitMQ's programs, with this node's environment and no other.
    fn command(&self, program: &str) -> Command {
        let Ports {
            amqp, dist, epmd, ..
        } = self.ports;
        let folder = self.folder.path().display();
        let mut command = self.version.command(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", amqp.to_string())
            .env("RABBITMQ_DIST_PORT", dist.to_string())
            .env("RABBITMQ_MNESIA_BASE", format!("{folder}/data"))
            .env("RABBITMQ_LOG_BASE", format!("{folder}/log"))
            .env("RABBITMQ_SCHEMA_DIR", format!("{folder}/schema"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", format!("{folder}/config"))
            .env("RABBITMQ_PID_FILE", format!("{folder}/pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", format!("{folder}/plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", format!("{folder}/none"))
            .env("RABBITMQ_CONFIG_FILE", format!("{folder}/rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", format!("{folder}/none"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                // The time-out as docs/operating.md advises.
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 \
                 -rabbit dead_letter_worker_publisher_confirm_timeout 30000",
            );
        command
    }
}

impl Version {
    /// Where a program of RabbitMQ lies on this machine.
    fn file(self, program: &str) -> PathBuf {
        let bin = Path::new(BIN);
        match self {
            Self::V3_10 => bin.join(program),
            Self::V4_0 => Path::new(USR_4_0)
                .join(bin.strip_prefix("/usr").unwrap())
                .join(program),
        }
    }

    /// One of RabbitMQ's programs, without its environment. It replaces whatever leads to it, so
    /// that the child is the program itself.
    fn command(self, program: &str) -> Command {
        let file = Path::new(BIN).join(program);
        let Self::V4_0 = self else {
            return Command::new(file);
        };
        let mut command = Command::new("unshare");
        // Root needs no other user, and a machine may allow no others.
        if !is_root() {
            command.arg("--map-root-user");
        }
        let lead = r#"mount --bind "$0" /usr && exec "$@""#;
        command
            .args(["--mount", "sh", "-c", lead, USR_4_0])
            .arg(file);
        command
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V3_10 => "3.10",
            Self::V4_0 => "4.0",
        })
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.keeper_stdin.take());
        let _ = self.keeper.wait();
        if let Some(mut script) = self.script.lock().unwrap().take() {
            let _ = script.wait();
        }
    }
}

impl Ports {
    /// Ports that are free, below the range from which the system gives out its own: a node
    /// that is restarted must find them free again.
    fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let process = u16::try_from(std::process::id() % 1_000).unwrap() * 10;
        let free = || loop {
            let port = 20_000 + (process + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return port;
            }
        };
        Self {
            amqp: free(),
            dist: free(),
            epmd: free(),
            tls: free(),
        }
    }
}

/// In memory where there is such a place: a node syncs with every queue it declares, and what dies
/// in these tests is the process, never the machine.
fn new_folder() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("postrider-broker-");
    let folder = builder.tempdir_in("/dev/shm");
    folder.or_else(|_| builder.tempdir()).unwrap()
}

fn tls_settings(folder: &Path, port: u16, pem: &ServerPem<'_>) -> String {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let ca = file("ca.pem", pem.authority);
    let cert = file("server.pem", pem.cert);
    let key = file("server.key", pem.key);
    format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\n\
         ssl_options.cacertfile = {}\n\
         ssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\n\
         ssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = true\n\
         auth_mechanisms.1 = PLAIN\n\
         auth_mechanisms.2 = EXTERNAL\n\
         ssl_cert_login_from = common_name\n",
        ca.display(),
        cert.display(),
        key.display()
    )
}

fn write_settings(folder: &Path, settings: &str) {
    for name in ["data", "log", "schema", "config"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let cookie = folder.join(".erlang.cookie");
    fs::write(&cookie, "POSTRIDERTESTS").unwrap();
    fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).unwrap();
    fs::write(folder.join("plugins"), "[].\n").unwrap();
    fs::write(folder.join("rabbitmq.conf"), settings).unwrap();
}

/// The shell that ends everything when this process does.
fn start_keeper(folder: &Path, ports: Ports, with_port_mapper: bool) -> (Child, ChildStdin) {
    let script = r#"
        if [ -n "$3" ]; then
            epmd -port "$1" -address 127.0.0.1 >/dev/null 2>&1 &
            epmd=$!
        fi
        while read -r _; do :; done
        [ -f pid ] && kill -9 "$(cat pid)"
        [ -z "$epmd" ] || kill -9 "$epmd"
        wait
        rm -rf "$2"
    "#;
    let mut keeper = Command::new("setsid")
        .args(["sh", "-c", script, "keeper"])
        .arg(ports.epmd.to_string())
        .arg(folder)
        .arg(if with_port_mapper { "with" } else { "" })
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdin = keeper.stdin.take().unwrap();
    (keeper, stdin)
}
