//! One token takes the place of another: proven first, and nothing is sent to prove it.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use postrider::clock::Clock;
use postrider::config::{AccountConfig, TokenSource};
use postrider::message::AccountName;
use postrider::outcome::{Outcome, PauseReason};
use postrider::provider::hubspot::{HubSpot, HubSpotError};
use postrider::provider::{Probe, Provider, TokenTrouble};

use super::stub::{Asked, Reply, Stub};
use super::{config, hubspot, small_request};
use crate::support::secret::{keep, keep_with_mode};
use crate::whole::world::eventually;

const LIMIT: Duration = Duration::from_secs(10);

/// A HubSpot of portal 77 that knows tokens by what stands in them: `bad` is refused, `other` opens
/// portal 99, `poor` lacks the scope, `shy` cannot be asked about.
async fn portals() -> Stub {
    Stub::answering(|asked| {
        let token = bearer(asked);
        let is = |word| token.contains(word);
        let whole = |status, body: String| Reply::Whole(status, "", body);
        if is("bad") {
            return whole(401, r#"{"category":"INVALID_AUTHENTICATION"}"#.into());
        }
        let portal = if is("other") { 99 } else { 77 };
        if asked.line.contains("/details") && !is("shy") {
            let body = format!(r#"{{"portalId":{portal},"accountType":"SANDBOX"}}"#);
            return whole(200, body);
        }
        if asked.line.contains("access-token-info") && !is("shy") {
            let scope = if is("poor") {
                "content"
            } else {
                "transactional-email"
            };
            return whole(200, format!(r#"{{"hubId":{portal},"scopes":["{scope}"]}}"#));
        }
        if asked.line.contains("single-email") {
            return whole(200, super::ACCEPTED.into());
        }
        whole(404, String::new())
    })
    .await
}

fn bearer(asked: &Asked) -> String {
    let header = asked.header("authorization").unwrap_or_default();
    header.trim_start_matches("Bearer ").to_owned()
}

/// The token that the next send goes out under.
async fn used(stub: &Stub, hubspot: &HubSpot) -> String {
    hubspot.send(&small_request(), "order-1").await;
    bearer(&stub.asked().pop().unwrap())
}

/// Another token stands ready within this time, and is asked about.
async fn next_probe(hubspot: &HubSpot) -> Probe {
    let changed = tokio::time::timeout(LIMIT, hubspot.token_changed());
    changed.await.expect("another token stands ready");
    hubspot.probe().await
}

fn with_file(stub: &Stub, file: &std::path::Path) -> AccountConfig {
    AccountConfig {
        token: TokenSource::File(file.to_owned()),
        ..config(&stub.url())
    }
}

#[tokio::test]
async fn a_changed_file_is_proven_before_it_is_used() {
    let stub = portals().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    keep(&file, "first-token\n");
    let hubspot = hubspot(&with_file(&stub, &file));
    assert!(matches!(hubspot.probe().await, Probe::Open(_)));
    assert_eq!(used(&stub, &hubspot).await, "first-token");

    keep(&file, "  second-token ");
    let changed = tokio::time::timeout(LIMIT, hubspot.token_changed());
    changed.await.expect("the file is read again");
    assert_eq!(used(&stub, &hubspot).await, "first-token", "not proven yet");
    assert!(matches!(hubspot.probe().await, Probe::Open(_)));
    assert_eq!(used(&stub, &hubspot).await, "second-token");

    // Refused, without the scope, nothing, gone, for everybody's eyes: the last one stays in force.
    for wrong in ["bad-token", "poor-token"] {
        keep(&file, wrong);
        assert_eq!(next_probe(&hubspot).await, Probe::Kept, "{wrong}");
        assert_eq!(used(&stub, &hubspot).await, "second-token");
    }
    let settled = async |hubspot: &HubSpot| {
        // It reads once a second; what it found shows in that nothing stands ready.
        let none = tokio::time::timeout(Duration::from_millis(2_500), hubspot.token_changed());
        assert!(none.await.is_err(), "nothing stands ready");
        assert_eq!(used(&stub, hubspot).await, "second-token");
    };
    keep(&file, " \n");
    settled(&hubspot).await;
    keep_with_mode(&file, "third-token", 0o644);
    settled(&hubspot).await;
    std::fs::remove_file(&file).unwrap();
    settled(&hubspot).await;

    keep(&file, "third-token");
    assert!(matches!(next_probe(&hubspot).await, Probe::Open(_)));
    assert_eq!(used(&stub, &hubspot).await, "third-token");
    let proven_by_sending = stub.asked().into_iter().any(|asked| {
        asked.line.contains("send") && ["bad", "poor"].iter().any(|it| bearer(&asked).contains(it))
    });
    assert!(!proven_by_sending, "nothing was sent to prove a token");
}

#[tokio::test]
async fn a_next_token_takes_over_once_it_is_proven() {
    for (next, in_force) in [
        ("next-token", "next-token"),
        ("bad-next-token", "old-token"),
        ("other-next-token", "old-token"),
        ("shy-next-token", "old-token"),
    ] {
        let stub = portals().await;
        let mut config = config(&stub.url());
        config.token = TokenSource::Given("old-token".into());
        config.next_token = TokenSource::Given(next.into());
        config.portal_id = Some(77);
        let hubspot = hubspot(&config);
        let first = hubspot.probe().await;
        assert_eq!(first == Probe::Kept, in_force == "old-token", "{next}");
        assert!(matches!(hubspot.probe().await, Probe::Open(_)), "{next}");
        assert_eq!(used(&stub, &hubspot).await, in_force, "{next}");
    }
}

/// The seven days of HubSpot's overlap are over before anybody looked.
#[tokio::test]
async fn a_next_token_needs_no_old_one_that_works() {
    let stub = portals().await;
    let mut config = config(&stub.url());
    config.token = TokenSource::Given("bad-old-token".into());
    config.next_token = TokenSource::Given("next-token".into());
    let hubspot = hubspot(&config);
    assert!(matches!(hubspot.probe().await, Probe::Open(_)));
    assert_eq!(used(&stub, &hubspot).await, "next-token");
}

#[tokio::test]
async fn a_token_that_cannot_be_asked_about_is_tried_once_the_last_one_is_refused() {
    let stub = portals().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    keep(&file, "bad-token");
    let hubspot = hubspot(&with_file(&stub, &file));
    assert!(matches!(hubspot.probe().await, Probe::Shut(_)));
    keep(&file, "shy-token");
    assert!(matches!(next_probe(&hubspot).await, Probe::Inconclusive(_)));
    assert_eq!(used(&stub, &hubspot).await, "shy-token");

    // Not so where an account is pinned: that is what has to be proven.
    let pinned = AccountConfig {
        portal_id: Some(77),
        ..with_file(&stub, &file)
    };
    keep(&file, "bad-token");
    let hubspot = super::hubspot(&pinned);
    assert!(matches!(hubspot.probe().await, Probe::Shut(_)));
    keep(&file, "shy-token");
    assert_eq!(next_probe(&hubspot).await, Probe::Kept);
}

#[tokio::test]
async fn a_token_of_another_account_is_told_by_both_names() {
    let stub = portals().await;
    let other = AccountConfig {
        token: TokenSource::Given("other-token".into()),
        portal_id: Some(77),
        ..config(&stub.url())
    };
    let Probe::Wrong(portal, problem) = hubspot(&other).probe().await else {
        panic!("it is another portal");
    };
    assert_eq!(portal.portal_id, Some(99));
    assert!(
        problem.contains("99") && problem.contains("77"),
        "{problem}"
    );
    let another_kind = AccountConfig {
        account_type: Some("STANDARD".into()),
        ..config(&stub.url())
    };
    let Probe::Wrong(_, problem) = hubspot(&another_kind).probe().await else {
        panic!("it is a sandbox account");
    };
    assert!(
        problem.contains("SANDBOX") && problem.contains("STANDARD"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_command_prints_the_token_and_is_asked_again_when_it_is_refused() {
    let stub = portals().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vault");
    keep(&file, "first-token");
    let command = format!("cat {}", file.display());
    let config = AccountConfig {
        token: TokenSource::Command(command.into()),
        ..config(&stub.url())
    };
    let hubspot = hubspot(&config);
    // Nothing is asked for before the first probe, and nothing is called without a token.
    let Outcome::NotSent(failure) = hubspot.send(&small_request(), "order-1").await else {
        panic!("there is no token yet");
    };
    assert_eq!(failure.pause, Some(PauseReason::Unauthorized));
    assert!(stub.asked().is_empty());
    assert!(matches!(hubspot.probe().await, Probe::Open(_)));
    assert_eq!(used(&stub, &hubspot).await, "first-token");
}

#[tokio::test]
async fn a_command_that_fails_is_told_without_what_it_printed() {
    for command in [
        "echo secret-token; exit 3",
        "printf ''",
        "printf 5ec2e700-aaaa-bbbb-cccc-0000005ec2e7",
        "printf 'secret\\001secret'",
        "no-such-program",
    ] {
        let stub = portals().await;
        let config = AccountConfig {
            token: TokenSource::Command(command.into()),
            ..config(&stub.url())
        };
        let hubspot = hubspot(&config);
        let found = hubspot.probe().await;
        let told = format!("{hubspot:?} {found:?}");
        assert!(matches!(found, Probe::Shut(_)), "{command}: {told}");
        assert!(!told.contains("secret"), "{told}");
        assert!(stub.asked().is_empty(), "{command}");
    }
}

#[test]
fn a_file_that_others_may_read_is_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let open = |mode| {
        keep_with_mode(&file, "pat-na1-hidden", mode);
        let config = AccountConfig {
            token: TokenSource::File(file.clone()),
            ..config("https://api.hubapi.com")
        };
        HubSpot::new(&AccountName::default(), &config, Clock::system())
    };
    for mode in [0o600, 0o400, 0o440, 0o640] {
        assert!(open(mode).is_ok(), "{mode:o}");
    }
    for mode in [0o644, 0o604, 0o660, 0o666, 0o602, 0o601] {
        let error = open(mode).unwrap_err();
        let told = format!("{error} {}", error.hint());
        assert!(
            matches!(error, HubSpotError::BadToken { .. }),
            "{mode:o}: {told}"
        );
        assert!(
            told.contains("chmod 600") && !told.contains("hidden"),
            "{told}"
        );
    }
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o601, "it is left as it was");
}

#[tokio::test]
async fn what_keeps_a_token_from_taking_over_is_shown_until_it_is_over() {
    let stub = portals().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    keep(&file, "first-token");
    let pinned = AccountConfig {
        portal_id: Some(77),
        ..with_file(&stub, &file)
    };
    let hubspot = hubspot(&pinned);
    let troubles = hubspot.token_troubles();
    assert!(matches!(hubspot.probe().await, Probe::Open(_)));
    assert_eq!(troubles.list(), []);

    let begun = Clock::system().now();
    for (wrong, why, hint) in [
        ("bad-token", "not proven: HubSpot answers 401", "token_file"),
        (
            "other-token",
            "not proven: the token opens portal 99",
            "correct",
        ),
        ("poor-token", "does not suffice", "transactional-email"),
        ("shy-token", "not proven: HubSpot answers 404", ""),
    ] {
        keep(&file, wrong);
        assert_eq!(next_probe(&hubspot).await, Probe::Kept, "{wrong}");
        let list = troubles.list();
        let [trouble] = list.as_slice() else {
            panic!("{wrong}: {list:?}");
        };
        assert_eq!((trouble.key, trouble.until), ("token", None));
        assert_eq!(trouble.place, file.display().to_string());
        assert!(trouble.why.contains(why), "{trouble:?}");
        assert!(trouble.hint.contains(hint), "{trouble:?}");
        assert!(trouble.since >= begun);
        assert!(!format!("{trouble:?}").contains(wrong), "{trouble:?}");
    }
    let shown = async |is: fn(&[TokenTrouble]) -> bool| {
        let now = async || {
            hubspot.probe().await;
            is(&troubles.list())
        };
        eventually(LIMIT, "it is shown", now).await;
    };
    std::fs::remove_file(&file).unwrap();
    shown(|list| list.len() == 1 && list[0].why.contains("cannot be read")).await;
    // What is in force already is no news, and no trouble.
    keep(&file, "first-token");
    shown(<[_]>::is_empty).await;
    assert_eq!(used(&stub, &hubspot).await, "first-token");
}

#[tokio::test]
async fn each_answer_that_a_probe_hears_is_told_once() {
    let stub = portals().await;
    let mut config = config(&stub.url());
    config.token = TokenSource::Given("old-token".into());
    config.next_token = TokenSource::Given("bad-token".into());
    let hubspot = hubspot(&config);
    assert_eq!(hubspot.probe().await, Probe::Kept);
    assert_eq!(hubspot.probe_answers(), [Some(401), Some(401)]);
    assert!(matches!(hubspot.probe().await, Probe::Open(_)));
    assert_eq!(hubspot.probe_answers(), [Some(200), Some(200)]);
    hubspot.send(&small_request(), "order-1").await;
    assert!(hubspot.probe_answers().is_empty());
    drop(stub);
}
