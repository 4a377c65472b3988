//! The commands on RabbitMQ: before any worker was there, and after.

use postrider::clock::Clock;
use postrider::message::AccountName;
use postrider::outcome::DeadReason;
use postrider::queue::Queue;
use postrider::queue::amqp::{AmqpOptions, AmqpQueue};
use secrecy::ExposeSecret;

use super::shop::{Shop, bury, request, told};
use crate::support::broker::{self, Broker};

/// Nobody listens on port 1; on the default one there may be a worker of somebody else's.
const QUEUE: [&str; 4] = ["queue", "--json", "--worker", "127.0.0.1:1"];

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_broker_has_no_queues_and_that_is_said() {
    let run = Runner::new().await;
    insta::assert_snapshot!(run.told(&["send"], &request("order-1")), @"
    exit 69
    --- stderr
    line 1: no worker has declared PREFIX.send.default.normal
      hint: start a worker that has this account, or correct the account's name
    error: 1 request found no queue; nothing was published
    hint: start a worker that has this account, or correct the account's name
    ");
    insta::assert_snapshot!(run.told(&["dead", "list", "--json"], ""), @"
    exit 69
    --- stderr
    error: no worker has declared PREFIX.dead
    hint: start a worker that has this account, or correct the account's name
    ");
    insta::assert_snapshot!(run.told(&QUEUE, ""), @r#"
    exit 0
    --- stdout
    {"queue":"amqp://127.0.0.1:PORT/%2f","depths":[{"queue":"PREFIX.send.default.high","messages":0,"oldest":null},{"queue":"PREFIX.send.default.normal","messages":0,"oldest":null},{"queue":"PREFIX.send.default.low","messages":0,"oldest":null},{"queue":"PREFIX.results.default","messages":0,"oldest":null},{"queue":"PREFIX.dead","messages":0,"oldest":null},{"queue":"PREFIX.delay","messages":0,"oldest":null}],"worker":null,"rates":[],"worker_error":"no worker answers at 127.0.0.1:1 (nothing listens there)","worker_hint":"start one with `postrider worker`, or name its address with --worker"}
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_discarded_and_replayed_on_rabbitmq() {
    let run = Runner::new().await;
    let options = AmqpOptions {
        url: run.broker.url().into(),
        prefix: run.prefix.clone(),
        accounts: vec![AccountName::default()],
        clock: Clock::system(),
    };
    let worker = AmqpQueue::start(options).await.unwrap();
    let letters = [
        ("order-1", DeadReason::Rejected),
        ("order-2", DeadReason::Refused),
    ];
    bury(&worker, &letters).await;
    worker.close().await;
    insta::assert_snapshot!(run.told(&["dead", "list"], ""), @"
    exit 0
    --- stdout
    DIED                  REASON     ACCOUNT   TEMPLATE       ID  PROBLEM
    2026-05-01T12:00:00Z  rejected   default   4126643121     order-1  the recipient bounced before
    2026-05-01T12:00:01Z  refused    default   4126643121     order-2  the recipient bounced before
    ");
    insta::assert_snapshot!(run.told(&["dead", "discard", "order-1", "--yes"], ""), @"
    exit 0
    --- stderr
    1 discarded
    ");
    insta::assert_snapshot!(run.told(&["dead", "replay", "--all", "--yes"], ""), @"
    exit 0
    --- stderr
    1 replayed
    1 had a final refusal: HubSpot has used their sendId up, so they take a new one, such as order-2.r2
    ");
    insta::assert_snapshot!(run.told(&["send"], &request("order-3")), @"
    exit 0
    --- stderr
    request order-3 is durable in amqp://127.0.0.1:PORT/%2f
    ");
    insta::assert_snapshot!(run.told(&QUEUE, ""), @r#"
    exit 0
    --- stdout
    {"queue":"amqp://127.0.0.1:PORT/%2f","depths":[{"queue":"PREFIX.send.default.high","messages":0,"oldest":null},{"queue":"PREFIX.send.default.normal","messages":2,"oldest":null},{"queue":"PREFIX.send.default.low","messages":0,"oldest":null},{"queue":"PREFIX.results.default","messages":0,"oldest":null},{"queue":"PREFIX.dead","messages":0,"oldest":null},{"queue":"PREFIX.delay","messages":0,"oldest":null}],"worker":null,"rates":[],"worker_error":"no worker answers at 127.0.0.1:1 (nothing listens there)","worker_hint":"start one with `postrider worker`, or name its address with --worker"}
    "#);
}

/// Runs commands on a prefix of its own.
struct Runner {
    shop: Shop,
    broker: &'static Broker,
    prefix: String,
}

impl Runner {
    async fn new() -> Self {
        Self {
            shop: Shop::new(),
            broker: broker::shared().await,
            prefix: broker::prefix("cli"),
        }
    }

    fn told(&self, args: &[&str], input: &str) -> String {
        let mut command = self.shop.command(args);
        command.env("POSTRIDER_QUEUE__URL", self.broker.url().expose_secret());
        command.env("POSTRIDER_QUEUE__PREFIX", &self.prefix);
        command.write_stdin(input);
        told(command)
            .replace(&self.prefix, "PREFIX")
            .replace(&format!(":{}", self.broker.port()), ":PORT")
    }
}
