//! RabbitMQ over TLS, with an authority of one's own and a certificate for the client; and every way
//! in which that may be wrong.

use std::fs;
use std::process::Output;
use std::time::Duration;

use super::worker::Worker;
use super::world::{World, eventually, ids};
use crate::support::broker::{self, Broker, ServerPem, Version};
use crate::support::on_each_rabbitmq;
use crate::support::tls::Authority;

const REST_TIME_MAX: Duration = Duration::from_mins(1);

on_each_rabbitmq!(tokio::test: only_who_is_trusted_is_talked_to_over_tls);

/// The problem and the hint of a command that ends because the broker is not reached.
fn refused(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let told = told + &errors;
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(!told.contains("guest"), "a password: {told}");
    told
}

/// `check`, `send` and `worker` each tell this, and end.
async fn assert_all_refused(world: &World, words: &[&str]) {
    let checked = refused(&world.run(&["check"]).await);
    let sent = refused(
        &world
            .sent(&ids("refused", 1), |_| "ada@example.com".into())
            .await,
    );
    for told in [checked, sent] {
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
    }
    // It ends, unless the broker had hung up before its reason was read: then it tries on.
    let mut worker = world.start_worker();
    let says = |it: &Worker| words.iter().all(|word| it.said().contains(word));
    let told = async || says(&worker);
    eventually(REST_TIME_MAX, &format!("a worker says {words:?}"), told).await;
    if worker.said().contains("trying on") {
        return worker.kill().await;
    }
    assert_eq!(worker.ended().await.code(), Some(69));
}

/// A node with TLS, and who signed for it and for us.
struct Stage {
    broker: Broker,
    ours: Authority,
}

impl Stage {
    /// With a world that has what it should have, and beside that what another authority signed.
    async fn new(version: Version) -> (Self, World) {
        let (ours, others) = (Authority::new("Ours"), Authority::new("Others"));
        let server = ours.server("localhost");
        let pem = ServerPem {
            authority: &ours.pem,
            cert: &server.cert,
            key: &server.key,
        };
        let broker = Broker::start_with_tls(version, &pem).await;
        let world = World::on_broker(&broker, &broker::prefix("tls"), &[]).await;
        fs::write(world.path("ca.pem"), &ours.pem).unwrap();
        fs::write(world.path("other-ca.pem"), &others.pem).unwrap();
        ours.client("postrider").write(world.folder(), "client");
        others.client("postrider").write(world.folder(), "other");
        let stage = Self { broker, ours };
        let world = world
            .set("queue.url", &stage.url("localhost"))
            .set("queue.ca_file", "ca.pem");
        (stage, with_client(world, "client"))
    }

    fn url(&self, host: &str) -> String {
        format!("amqps://guest:guest@{host}:{}/%2f", self.broker.tls_port())
    }

    async fn connections(&self) -> String {
        let columns = ["list_connections", "ssl", "peer_cert_subject"];
        self.broker.ctl(&columns).await
    }
}

fn with_client(world: World, name: &str) -> World {
    world
        .set("queue.cert_file", &format!("{name}.pem"))
        .set("queue.key_file", &format!("{name}.key"))
}

async fn assert_answers(world: &World) {
    let checked = world.told(&["check"]).await;
    assert!(checked.contains("answers, 0 messages"), "{checked}");
}

async fn only_who_is_trusted_is_talked_to_over_tls(version: Version) {
    let (stage, world) = Stage::new(version).await;
    let all = ids("tls", 20);
    let mut halves = all.iter().cloned();
    let worker = world.worker().await;
    world.publish(&halves.by_ref().take(10).collect()).await;
    world.sandbox.until_mailed(10, REST_TIME_MAX).await;
    assert_answers(&world).await;
    let connections = stage.connections().await;
    assert!(connections.contains("true\tCN=postrider"), "{connections}");
    assert!(!connections.contains("false"), "{connections}");

    let world = other_brokers_are_refused(&stage, world).await;
    let world = our_certificate_is_asked_for(world).await;
    let world = a_certificate_is_a_user(&stage, world).await;

    // All the while the first one works on; a renewed certificate reaches it without a restart.
    let renewed = stage.ours.client("renewed");
    renewed.write(world.folder(), "client");
    let close = ["close_all_connections", "renewal"];
    stage.broker.ctl(&close).await;
    worker.until_said("queue connection is back").await;
    let connections = stage.connections().await;
    assert!(connections.contains("CN=renewed"), "{connections}");
    world.publish(&halves.collect()).await;
    world.sandbox.until_mailed(20, REST_TIME_MAX).await;
    worker.finish(REST_TIME_MAX).await;
    world.assert_mailed(&all).await;
}

async fn other_brokers_are_refused(stage: &Stage, world: World) -> World {
    let place = format!("localhost:{}/", stage.broker.tls_port());
    let untrusted = format!("{place} has a certificate that is not trusted: UnknownIssuer");
    let words = [
        &untrusted,
        "set queue.ca_file to the authority that signed it",
    ];
    let world = world.set("queue.ca_file", "other-ca.pem");
    assert_all_refused(&world, &words).await;
    // Nor do the system's authorities count where there are our own; where there are none, they do.
    let system = |world: World, file| {
        let path = world.path(file).display().to_string();
        world.env("SSL_CERT_FILE", &path)
    };
    let world = system(world, "ca.pem");
    assert_all_refused(&world, &words).await;
    let world = world.unset("queue.ca_file");
    assert_answers(&world).await;
    let world = system(world, "other-ca.pem");
    assert_all_refused(&world, &words).await;

    let world = world.set("queue.ca_file", "ca.pem");
    let world = world.set("queue.url", &stage.url("127.0.0.1"));
    let words = ["not valid for name \"127.0.0.1\"", "\"localhost\""];
    assert_all_refused(&world, &words).await;
    // Another port than that of TLS.
    let plain = format!("amqps://guest:guest@localhost:{}", stage.broker.port());
    let world = world.set("queue.url", &plain);
    assert_all_refused(&world, &["does not speak TLS at this port", "5671"]).await;
    world.set("queue.url", &stage.url("localhost"))
}

async fn our_certificate_is_asked_for(world: World) -> World {
    let words = [
        "does not take our certificate, or asks for one",
        // Also where its reason is lost, since it hung up before all of ours was read.
        "set queue.cert_file and queue.key_file",
    ];
    let world = world.unset("queue.cert_file").unset("queue.key_file");
    assert_all_refused(&world, &words).await;
    let world = with_client(world, "other");
    assert_all_refused(&world, &words).await;
    with_client(world, "client")
}

/// Where the broker says so, and then no password is needed.
async fn a_certificate_is_a_user(stage: &Stage, world: World) -> World {
    stage.broker.ctl(&["add_user", "postrider", "unused"]).await;
    let port = stage.broker.tls_port();
    let external = format!("amqps://localhost:{port}/%2f?auth_mechanism=external");
    let world = world.set("queue.url", &external);
    assert_all_refused(&world, &["user 'postrider'"]).await;
    let rights = ["set_permissions", "postrider", ".*", ".*", ".*"];
    stage.broker.ctl(&rights).await;
    assert_answers(&world).await;
    world.set("queue.url", &stage.url("localhost"))
}
