//! Calls that have to connect, while the account goes to another owner.

use std::sync::Arc;
use std::time::Duration;

use postrider::dispatch::{Left, Settings};
use postrider::message::AccountName;
use postrider::queue::{Queue, Validity};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::HOUR;
use super::world::{Scripted, World, accepted, settings, start};

const SOON: Duration = Duration::from_millis(100);

/// Eight calls begin at once, and each takes so long to connect; its answer then takes three seconds.
async fn cold(connects: Duration, requests: usize) -> World {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.connects = connects;
    hubspot.latency = Duration::from_secs(3);
    let settings = Settings {
        results: 0.0,
        ..settings()
    };
    start(hubspot, settings, requests).await
}

/// When the next worker owns the account.
fn next_owner(world: &World) -> JoinHandle<Instant> {
    let (queue, account) = (world.queue.connect(world.clock), AccountName::default());
    tokio::spawn(async move {
        let lease = queue.lease(&account).await.unwrap();
        let since = Instant::now();
        drop(lease);
        since
    })
}

#[tokio::test(start_paused = true)]
async fn the_next_owner_waits_until_every_call_has_left_and_for_no_answer() {
    for is_recall in [false, true] {
        let world = cold(Duration::from_millis(400), 100).await;
        sleep(SOON).await;
        let (next, hubspot) = (next_owner(&world), Arc::clone(&world.hubspot));
        if is_recall {
            world.queue.recall_lease(&AccountName::default());
        } else {
            world.stop();
        }
        let owned = next.await.unwrap() - hubspot.origin;
        let calls = hubspot.calls();
        assert_eq!(calls.len(), 8, "those that were begun");
        let last = calls.last().unwrap().at;
        assert!(last <= owned && owned < last + SOON, "{last:?} {owned:?}");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_to_connect_does_not_leave_and_goes_back() {
    let world = cold(Duration::from_secs(5), 100).await;
    sleep(SOON).await;
    let stopped = Instant::now();
    let (next, hubspot) = (next_owner(&world), Arc::clone(&world.hubspot));
    let (queue, account) = (world.queue.clone(), Arc::clone(&world.account));
    world.end().await;
    let owned = next.await.unwrap() - stopped;
    let limit = Duration::from_secs(1);
    assert!(limit <= owned && owned < limit + SOON, "{owned:?}");
    assert!(hubspot.calls().is_empty(), "{:?}", hubspot.calls());
    let standing = queue.standing();
    assert!(standing.in_hand.is_empty());
    let untouched = standing.ready.iter().filter(|it| it.story.spent == 0);
    assert_eq!(untouched.count(), 100);
    let left = account.left();
    assert!(left.handed_back >= 8, "{left:?}");
    let handed_back = left.handed_back;
    assert_eq!(
        left,
        Left {
            handed_back,
            ..Left::default()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_leave_when_the_lease_has_run_out_while_it_connected() {
    let world = cold(Duration::from_secs(5), 20).await;
    sleep(SOON).await;
    let soon = Instant::now() + Duration::from_secs(2);
    world.queue.renew_lease(Validity::Until(soon));
    sleep(Duration::from_secs(30)).await;
    assert!(world.hubspot.calls().is_empty(), "fenced");
    world.queue.renew_lease(Validity::Held);
    world.drained(HOUR).await;
    assert_eq!(world.hubspot.calls().len(), 20);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn nor_does_a_look_up() {
    let mut hubspot = Scripted::new(|id, _, _| accepted(id));
    hubspot.connects = Duration::from_secs(5);
    let world = start(hubspot, settings(), 1).await;
    let in_flight = async |is: bool| {
        while (world.account.in_flight() > 0) != is {
            sleep(SOON).await;
        }
    };
    in_flight(true).await;
    in_flight(false).await;
    assert_eq!(world.hubspot.calls().len(), 1);
    in_flight(true).await;
    world.queue.renew_lease(Validity::Until(Instant::now()));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.hubspot.look_ups().len(), 0, "fenced");
    world.queue.renew_lease(Validity::Held);
    world.drained(HOUR).await;
    assert_eq!(world.hubspot.look_ups().len(), 1);
    world.end().await;
}
