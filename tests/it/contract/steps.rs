//! The steps that rules are told in.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use postrider::clock;
use postrider::message::{AccountName, Priority};
use postrider::outcome::{DeadReason, Disposition, Words};
use postrider::queue::Parcel;
use postrider::queue::{
    DeadLetter, DeadLetters, Delivery, Fate, Intake, IntakeOptions, Lane, Queue, QueueError, Tally,
};
use postrider::story::{Death, Story};

use super::Backend;

/// How long a rule waits for what must come.
pub const DEADLINE: Duration = Duration::from_mins(1);
/// How long a rule waits to see that nothing comes.
pub const QUIET: Duration = Duration::from_millis(300);
/// How long a message is made to wait.
pub const DELAY: Duration = Duration::from_secs(2);

pub fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

pub fn parcel(body: &str) -> Parcel {
    Parcel {
        body: Bytes::from(body.to_owned()),
        message_id: Some(format!("id-{}", &body[..body.len().min(20)])),
        account: AccountName::default(),
        priority: Priority::Normal,
        story: Story::default(),
    }
}

pub fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).unwrap()
}

pub fn in_a_while(backend: &impl Backend) -> Timestamp {
    clock::after(backend.clock().now(), DELAY)
}

pub type IntakeOf<B> = <<B as Backend>::Queue as Queue>::Intake;

pub async fn sends<B: Backend>(backend: &B) -> IntakeOf<B> {
    backend
        .queue()
        .open(
            &AccountName::default(),
            Lane::Sends,
            IntakeOptions::holding(10),
        )
        .await
        .unwrap()
}

pub async fn results<B: Backend>(backend: &B) -> IntakeOf<B> {
    backend
        .queue()
        .open(
            &AccountName::default(),
            Lane::Results,
            IntakeOptions::holding(10),
        )
        .await
        .unwrap()
}

pub async fn next(intake: &mut impl Intake) -> Delivery {
    let received = tokio::time::timeout(DEADLINE, intake.receive()).await;
    received.expect("nothing came").unwrap()
}

pub async fn nothing(intake: &mut impl Intake) {
    if let Ok(received) = tokio::time::timeout(QUIET, intake.receive()).await {
        panic!(
            "something came: {:?}",
            received.map(|delivery| delivery.body)
        );
    }
}

/// Publishes a request and receives it.
pub async fn published<B: Backend>(backend: &B, intake: &mut IntakeOf<B>, body: &str) -> Delivery {
    backend.queue().publish(parcel(body)).await.unwrap();
    let delivery = next(intake).await;
    assert_eq!(text(&delivery), body);
    delivery
}

pub async fn settle(backend: &impl Backend, delivery: Delivery, disposition: Disposition) {
    backend.queue().settle(delivery, disposition).await.unwrap();
}

pub async fn complete(backend: &impl Backend, delivery: Delivery) {
    settle(backend, delivery, Disposition::Complete).await;
}

pub fn death(backend: &impl Backend, reason: DeadReason) -> Death {
    Death {
        key: "a key".into(),
        reason,
        at: backend.clock().now(),
        problem: "a problem".into(),
        hint: "a hint".into(),
        email_id: Some(9_007_199_254_740_993),
        account: Some("default".into()),
        words: Words {
            message: Some("HubSpot's \"own\" words: ünïcode".into()),
            ..Default::default()
        },
    }
}

pub fn dead_story(backend: &impl Backend, delivery: &Delivery, reason: DeadReason) -> Story {
    Story {
        spent: 2,
        generation: 1,
        death: Some(death(backend, reason)),
        ..(*delivery.story).clone()
    }
}

pub async fn bury<B: Backend>(
    backend: &B,
    intake: &mut IntakeOf<B>,
    body: &str,
    reason: DeadReason,
) {
    let delivery = published(backend, intake, body).await;
    let story = Box::new(dead_story(backend, &delivery, reason));
    settle(backend, delivery, Disposition::DeadLetter { story }).await;
}

pub fn route(backend: &impl Backend, delivery: &Delivery, to: &str) -> Disposition {
    Disposition::Route {
        account: account(to),
        priority: Priority::High,
        story: delivery.story.clone(),
        otherwise: Box::new(death(backend, DeadReason::Malformed)),
    }
}

pub async fn sweep<F>(backend: &impl Backend, choose: F) -> Result<Tally, QueueError>
where
    F: FnMut(&DeadLetter) -> ControlFlow<(), Fate> + Send,
{
    let swept = tokio::time::timeout(DEADLINE, backend.queue().sweep(choose)).await;
    swept.expect("the sweep does not end")
}

pub async fn dead(backend: &impl Backend) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    let look = |letter: &DeadLetter| {
        letters.push(letter.clone());
        ControlFlow::Continue(Fate::Keep)
    };
    sweep(backend, look).await.unwrap();
    letters
}

/// A queue's name without the prefix.
pub fn name(queue: &str) -> &str {
    queue.split_once('.').unwrap().1
}

/// Waits until exactly this stands in the queue: a broker counts with a delay.
pub async fn stands(backend: &impl Backend, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> = expected
        .iter()
        .map(|(queue, messages)| ((*queue).to_owned(), *messages))
        .collect();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let depths = backend.queue().depths().await.unwrap();
        let found: BTreeMap<String, u64> = (depths.iter())
            .filter(|depth| depth.messages > 0)
            .map(|depth| (name(&depth.queue).to_owned(), depth.messages))
            .collect();
        if found == expected {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{found:?} stands, not {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
