//! What never will be sent, and how it goes out again.

use std::ops::ControlFlow;

use postrider::message::Priority;
use postrider::outcome::{DeadReason, Disposition};
use postrider::queue::Parcel;
use postrider::queue::{Fate, QueueError};

use super::Backend;
use super::steps::{
    account, bury, complete, dead, dead_story, next, nothing, published, route, sends, settle,
    stands, sweep,
};

pub async fn a_dead_letter_keeps_body_id_and_story<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "dead").await;
    let story = dead_story(&backend, &delivery, DeadReason::Rejected);
    settle(
        &backend,
        delivery,
        Disposition::DeadLetter {
            story: Box::new(story.clone()),
        },
    )
    .await;
    stands(&backend, &[("dead", 1)]).await;
    let letters = dead(&backend).await;
    let [letter] = letters.as_slice() else {
        panic!("one letter, not {}", letters.len());
    };
    assert_eq!(&*letter.body, b"dead");
    assert_eq!(letter.message_id.as_deref(), Some("id-dead"));
    assert_eq!(letter.story, story);
    nothing(&mut intake).await;
}

pub async fn dead_letters_are_visited_oldest_first_until_break<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    for body in ["a", "b", "c"] {
        bury(&backend, &mut intake, body, DeadReason::Rejected).await;
    }
    let seen: Vec<_> = dead(&backend)
        .await
        .iter()
        .map(|letter| letter.body.clone())
        .collect();
    assert_eq!(seen, ["a", "b", "c"]);

    let mut visits = 0;
    let tally = sweep(&backend, |letter| {
        visits += 1;
        match &*letter.body {
            b"a" => ControlFlow::Continue(Fate::Discard),
            b"b" => ControlFlow::Break(()),
            _ => panic!("it was visited after a break"),
        }
    })
    .await
    .unwrap();
    assert_eq!((visits, tally.discarded), (2, 1));
    stands(&backend, &[("dead", 2)]).await;
}

pub async fn a_replay_goes_out_again<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    bury(&backend, &mut intake, "refused", DeadReason::Refused).await;
    bury(&backend, &mut intake, "exhausted", DeadReason::Exhausted).await;
    let letters = dead(&backend).await;
    let tally = sweep(&backend, |letter| {
        ControlFlow::Continue(Fate::Replay(Box::new(letter.replay())))
    })
    .await
    .unwrap();
    assert_eq!((tally.visited, tally.replayed, tally.discarded), (2, 2, 0));
    for letter in letters {
        let delivery = next(&mut intake).await;
        assert_eq!(delivery.body, letter.body);
        assert_eq!(delivery.message_id, letter.message_id);
        assert_eq!(delivery.priority, Priority::Normal);
        assert_eq!(*delivery.story, letter.story.replayed());
        assert_eq!(delivery.story.replays, 1);
        complete(&backend, delivery).await;
    }
    stands(&backend, &[]).await;
}

pub async fn a_replay_that_nobody_takes_stays_dead<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    bury(&backend, &mut intake, "one", DeadReason::Rejected).await;
    let swept = sweep(&backend, |letter| {
        let lost = Parcel {
            account: account("nowhere"),
            ..letter.replay()
        };
        ControlFlow::Continue(Fate::Replay(Box::new(lost)))
    })
    .await;
    assert!(
        matches!(swept, Err(QueueError::Unroutable { .. })),
        "{swept:?}"
    );
    stands(&backend, &[("dead", 1)]).await;
}

pub async fn a_discarded_letter_is_gone<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    for body in ["kept", "discarded"] {
        bury(&backend, &mut intake, body, DeadReason::Rejected).await;
    }
    let tally = sweep(&backend, |letter| {
        ControlFlow::Continue(match &*letter.body {
            b"kept" => Fate::Keep,
            _ => Fate::Discard,
        })
    })
    .await
    .unwrap();
    assert_eq!((tally.visited, tally.replayed, tally.discarded), (2, 0, 1));
    assert_eq!(dead(&backend).await[0].body, "kept");
    stands(&backend, &[("dead", 1)]).await;
}

pub async fn a_route_to_nowhere_is_a_death<B: Backend>(backend: B) {
    let mut intake = sends(&backend).await;
    let delivery = published(&backend, &mut intake, "to nowhere").await;
    let route = route(&backend, &delivery, "nowhere");
    settle(&backend, delivery, route).await;
    stands(&backend, &[("dead", 1)]).await;
    let letters = dead(&backend).await;
    let death = letters[0].story.death.as_ref().unwrap();
    assert_eq!(
        (death.reason, &*death.problem),
        (DeadReason::Malformed, "a problem")
    );
    assert_eq!(letters[0].body, "to nowhere");
}
