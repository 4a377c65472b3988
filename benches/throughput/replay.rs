//! Dead letters, replayed.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicPublishOptions, ConfirmSelectOptions};
use tokio::time::{Instant, sleep};

use crate::backlog::PREFIX;
use crate::bare::consume;
use crate::run::{Contestant, Rig, ours};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the bare loop has under way at once, as the command does.
const AT_ONCE: u16 = 1_000;

/// How many letters a second are moved back to their lane: by the bare loop, where there is one for
/// the queue, and by the command.
pub async fn replay(rig: &Rig<'_>, letters: u64) -> (Option<f64>, f64) {
    let per_second = |took: Duration| crate::run::to_f64(letters) / took.as_secs_f64();
    rig.backlog.fill_unreadable(letters).await;
    bury(rig, letters).await;
    let mut bare = None;
    if rig.backlog.is_amqp() {
        let ours = ours(&["bare-replay", &rig.backlog.url, &letters.to_string()]);
        bare = Some(per_second(timed(ours).await));
        bury(rig, letters).await;
    }
    let command = timed(rig.command(&["dead", "replay", "--all", "--yes"])).await;
    // What is left in the lane would be in the next part's way.
    bury(rig, letters).await;
    (bare, per_second(command))
}

/// A worker makes dead letters of what it cannot read.
async fn bury(rig: &Rig<'_>, letters: u64) {
    let worker = rig.start(Contestant::Worker, 0).await;
    while rig.backlog.dead().await < letters {
        sleep(LOOK_EVERY).await;
    }
    Contestant::Worker.end(worker);
}

async fn timed(mut command: std::process::Command) -> Duration {
    let began = Instant::now();
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let ended = ended.await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    began.elapsed()
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The broker
    url: String,
    /// After how many letters it ends
    letters: u64,
}

/// The least that moves letters without losing one: publish, wait for the confirm, then acknowledge.
pub async fn bare(args: Args) {
    let dead = format!("{PREFIX}.dead");
    let (connection, channel, letters) = consume(&args.url, &dead, AT_ONCE).await;
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await.unwrap();
    let lane = format!("{PREFIX}.send.default.normal");
    let (channel, lane) = (&channel, lane.as_str());
    letters
        .take(usize::try_from(args.letters).unwrap())
        .for_each_concurrent(usize::from(AT_ONCE), async |letter| {
            let letter = letter.unwrap();
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let sent =
                channel.basic_publish("".into(), lane.into(), options, &letter.data, properties);
            sent.await.unwrap().await.unwrap();
            let acked = letter.acker.ack(BasicAckOptions::default()).await;
            assert!(acked.unwrap(), "the channel is gone");
        })
        .await;
    connection.close(200, "".into()).await.unwrap();
}
