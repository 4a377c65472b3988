//! The client against our own model of HubSpot: do the two understand each other?

use std::time::Duration;

use postrider::config::AccountConfig;
use postrider::outcome::{LookUp, Outcome};
use postrider::provider::hubspot::HubSpot;
use postrider::provider::{Probe, Provider};
use postrider::sandbox::Options;
use postrider::sandbox::status::SEND_RESULTS;

use super::{config, hubspot, request};
use crate::sandbox::{Sandbox, start};

async fn sandbox() -> Sandbox {
    start(Options {
        results_after: "1ms".parse().unwrap(),
        ..Options::default()
    })
    .await
}

fn patient(sandbox: &Sandbox) -> AccountConfig {
    config(&sandbox.base)
}

async fn send_to(hubspot: &HubSpot, tag: &str, id: &str) -> Outcome {
    let body = format!(r#"{{"emailId":1,"message":{{"to":"ada+{tag}@example.com"}}}}"#);
    hubspot.send(&request(&body), id).await
}

/// The final result, asked for until it is there.
async fn result_of(hubspot: &HubSpot, status_id: &str) -> LookUp {
    let settled = async {
        loop {
            match hubspot.look_up(status_id).await {
                LookUp::Pending => tokio::time::sleep(Duration::from_millis(2)).await,
                settled @ (LookUp::Sent(_)
                | LookUp::NotSent(_)
                | LookUp::Unclear(_)
                | LookUp::UnheardOf(_)
                | LookUp::Failed(_)) => return settled,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled)
        .await
        .expect("no result came")
}

async fn accepted(hubspot: &HubSpot, tag: &str, id: &str) -> String {
    match send_to(hubspot, tag, id).await {
        Outcome::Accepted(accepted) => accepted.status_id.unwrap(),
        other @ (Outcome::NotSent(_) | Outcome::Unknown(_)) => panic!("{tag}: {other:?}"),
    }
}

#[tokio::test]
async fn every_result_comes_through_in_hubspots_words() {
    let sandbox = sandbox().await;
    let hubspot = hubspot(&patient(&sandbox));
    for result in SEND_RESULTS.into_iter().chain(["X_OF_2027"]) {
        // Of what is queued, HubSpot may still say more.
        if result == "QUEUED" {
            continue;
        }
        let status_id = accepted(&hubspot, result, result).await;
        let words = match result_of(&hubspot, &status_id).await {
            LookUp::Sent(words) | LookUp::Unclear(words) => words,
            LookUp::NotSent(failure) | LookUp::UnheardOf(failure) => failure.words,
            other @ (LookUp::Pending | LookUp::Failed(_)) => panic!("{result}: {other:?}"),
        };
        assert_eq!(words.send_result.as_deref(), Some(result));
    }
}

#[tokio::test]
async fn an_id_that_was_used_is_sent_already() {
    let sandbox = sandbox().await;
    let hubspot = hubspot(&patient(&sandbox));
    let first = accepted(&hubspot, "a", "order-1").await;
    let again = accepted(&hubspot, "a", "order-1").await;
    assert_ne!(first, again);
    for (status_id, result) in [(first, "SENT"), (again, "IDEMPOTENT_IGNORE")] {
        let LookUp::Sent(words) = result_of(&hubspot, &status_id).await else {
            panic!("{result}");
        };
        assert_eq!(words.send_result.as_deref(), Some(result));
    }
}

#[tokio::test]
async fn every_fault_has_its_outcome() {
    let sandbox = sandbox().await;
    let mut config = patient(&sandbox);
    config.timeout = Duration::from_secs(2);
    let hubspot = hubspot(&config);
    for (tag, outcome) in [
        ("http400", "permanent"),
        ("400-text", "permanent"),
        ("http401", "halted"),
        ("http403", "halted"),
        ("http404", "permanent"),
        ("http429", "throttled"),
        ("daily", "halted"),
        ("http477", "halted"),
        ("http503", "transient"),
        ("http502", "unknown"),
        ("http524", "unknown"),
        ("cut", "unknown"),
        ("cut-before", "unknown"),
        ("never", "unknown"),
    ] {
        let told = send_to(&hubspot, tag, tag).await;
        assert_eq!(told.label(), outcome, "{tag}: {told:?}");
    }
}

#[tokio::test]
async fn a_probe_opens_the_sandbox_and_a_wrong_token_does_not() {
    let sandbox = sandbox().await;
    let hubspot = hubspot(&patient(&sandbox));
    let Probe::Open(portal) = hubspot.probe().await else {
        panic!("it is open");
    };
    assert!(portal.portal_id.is_some() && portal.time_zone.is_some());
    let scopes = portal.scopes.unwrap();
    assert!(
        scopes.contains(&"transactional-email".to_owned()),
        "{scopes:?}"
    );

    sandbox.post("/_sandbox/token", "another").await;
    assert!(matches!(hubspot.probe().await, Probe::Shut(_)));
}
