//! Whoever needs an access token: one refresh, and nothing lost over it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use postrider::clock::Clock;
use postrider::config::{AccountConfig, OAuthConfig};
use postrider::message::AccountName;
use postrider::oauth::{Grant, Keeper, OAuthError, Store};
use postrider::provider::Provider;
use postrider::provider::hubspot::HubSpot;
use secrecy::ExposeSecret as _;

use super::desk::{account_and_app, counts, desk, logged_in};
use crate::whole::world::{World, eventually};

const TIME_MAX: Duration = Duration::from_secs(20);

struct Owner {
    app: Arc<OAuthConfig>,
    way: AccountConfig,
    store: Store,
    now: Timestamp,
}

impl Owner {
    fn of(world: &World) -> Self {
        Self::with_client(world, "app")
    }

    fn with_client(world: &World, client_id: &str) -> Self {
        let folder = world.path("postrider-oauth");
        let (way, app) = account_and_app(&[
            ("ACCOUNTS__DEFAULT__BASE_URL", world.sandbox.base()),
            ("OAUTH__CLIENT_ID", client_id),
            ("OAUTH__CLIENT_SECRET", "app-secret"),
            ("OAUTH__FOLDER", folder.to_str().unwrap()),
        ]);
        Self {
            app,
            way,
            store: Store::new(&AccountName::default(), &folder),
            now: Clock::system().now(),
        }
    }

    fn keeper(&self) -> Keeper {
        Keeper::new(&AccountName::default(), &self.app, &self.way).unwrap()
    }

    fn stored(&self) -> Grant {
        self.store.read(&self.app.key().unwrap()).unwrap()
    }

    fn in_minutes(&self, minutes: i64) -> Timestamp {
        self.now + SignedDuration::from_mins(minutes)
    }
}

fn same(one: &secrecy::SecretString, other: &secrecy::SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

#[tokio::test]
async fn many_at_once_make_one_refresh_and_its_grant_is_stored_first() {
    let world = desk(&["--latency", "100ms"]).await;
    logged_in(&world).await;
    world.sandbox.tell("oauth", r#"{"rotate":true}"#).await;
    let owner = Owner::of(&world);
    let before = owner.stored();
    let early = owner.keeper().access(owner.in_minutes(20)).await.unwrap();
    assert!(same(&early.token, &before.access_token));
    assert_eq!(early.hub_id, Some(42));
    assert_eq!(counts(&world).await["refreshes"], 0);

    // As many owners as there may be processes, each with callers of its own.
    let keepers: Vec<_> = (0..4).map(|_| owner.keeper()).collect();
    let now = owner.in_minutes(26);
    let calls = keepers.iter().flat_map(|keeper| {
        (0..4).map(|_| async {
            let access = keeper.access(now).await.unwrap();
            // Whatever is handed out stands on the disk already.
            assert!(same(&access.token, &owner.stored().access_token));
            access
        })
    });
    let got = join_all(calls).await;
    let after = owner.stored();
    assert!(
        got.iter()
            .all(|access| same(&access.token, &after.access_token))
    );
    assert!(
        !same(&before.refresh_token, &after.refresh_token),
        "it was rotated"
    );
    assert_eq!((after.hub_id, after.scopes.unwrap().len()), (Some(42), 2));
    assert_eq!(counts(&world).await["refreshes"], 1);
}

#[tokio::test]
async fn whose_fault_it_is_is_told_apart_and_hubspot_is_not_asked_again_and_again() {
    let world = desk(&[]).await;
    logged_in(&world).await;
    let owner = Owner::of(&world);
    let account = AccountName::default();
    let keeper = owner.keeper();
    world.sandbox.tell("oauth", r#"{"revoke":true}"#).await;
    // As long as the old token is good, it is used.
    let access = keeper.access(owner.in_minutes(26)).await.unwrap();
    assert!(same(&access.token, &owner.stored().access_token));
    for _ in 0..3 {
        let error = keeper.access(owner.in_minutes(31)).await.unwrap_err();
        assert!(matches!(error, OAuthError::InvalidGrant { .. }), "{error}");
        assert!(!error.may_pass());
        assert!(
            error
                .hint(&account)
                .contains("`postrider auth login --account default`")
        );
    }
    assert_eq!(counts(&world).await["refreshes"], 1);
    // A new login is taken at once.
    logged_in(&world).await;
    let renewed = keeper.access(Clock::system().now()).await.unwrap();
    assert!(same(&renewed.token, &owner.stored().access_token));

    world
        .sandbox
        .tell("oauth", r#"{"client_secret":"another"}"#)
        .await;
    let error = owner
        .keeper()
        .access(owner.in_minutes(40))
        .await
        .unwrap_err();
    assert!(matches!(error, OAuthError::InvalidClient { .. }), "{error}");
    assert!(
        error
            .hint(&account)
            .contains("logging in again does not help")
    );

    world.sandbox.tell("oauth", r#"{"answer":429}"#).await;
    let error = owner
        .keeper()
        .access(owner.in_minutes(40))
        .await
        .unwrap_err();
    assert!(
        matches!(error, OAuthError::Limited { .. }) && error.may_pass(),
        "{error}"
    );

    let other = Owner::with_client(&world, "other-app");
    let error = other.keeper().access(owner.now).await.unwrap_err();
    assert!(error.to_string().contains("is of another app"), "{error}");
}

#[tokio::test]
async fn a_grant_that_the_disk_does_not_take_is_kept_and_stored_at_last() {
    let world = desk(&["--latency", "1s"]).await;
    logged_in(&world).await;
    world.sandbox.tell("oauth", r#"{"rotate":true}"#).await;
    let owner = Owner::of(&world);
    let old = owner.stored();
    let keeper = Arc::new(owner.keeper());
    let now = owner.in_minutes(26);
    let asking = tokio::spawn({
        let keeper = Arc::clone(&keeper);
        async move { keeper.access(now).await }
    });
    let asked = async || counts(&world).await["refreshes"] == 1;
    eventually(TIME_MAX, "HubSpot is asked", asked).await;
    // The answer is on its way; a folder in the file's place takes no rename.
    let (file, aside) = (owner.store.file(), world.path("aside"));
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir_all(file.join("full")).unwrap();
    let meanwhile = asking.await.unwrap().unwrap();
    assert!(
        same(&meanwhile.token, &old.access_token),
        "the new one is not used"
    );
    assert!(
        owner.store.try_lock().unwrap().is_none(),
        "no other process spends the old one"
    );
    let error = keeper.access(owner.in_minutes(31)).await.unwrap_err();
    assert!(matches!(error, OAuthError::Store { .. }), "{error}");

    std::fs::remove_dir_all(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    let stored = async || keeper.access(owner.in_minutes(31)).await.is_ok();
    eventually(TIME_MAX, "it is stored", stored).await;
    assert!(!same(&owner.stored().refresh_token, &old.refresh_token));
    assert_eq!(counts(&world).await["refreshes"], 1);
    assert!(owner.store.try_lock().unwrap().is_some());
}

#[tokio::test]
async fn a_caller_that_gives_up_breaks_no_refresh_off() {
    let world = desk(&["--latency", "500ms"]).await;
    logged_in(&world).await;
    world.sandbox.tell("oauth", r#"{"rotate":true}"#).await;
    let owner = Owner::of(&world);
    let old = owner.stored();
    let keeper = owner.keeper();
    {
        let call = keeper.access(owner.in_minutes(26));
        tokio::pin!(call);
        let asked = async || counts(&world).await["refreshes"] == 1;
        tokio::select! {
            biased;
            _ = &mut call => panic!("it was not given up"),
            () = eventually(TIME_MAX, "HubSpot is asked", asked) => {}
        }
    }
    let stored = async || !same(&owner.stored().refresh_token, &old.refresh_token);
    eventually(TIME_MAX, "it is stored all the same", stored).await;
}

#[tokio::test]
async fn a_slow_endpoint_holds_nobody_up_while_the_old_token_is_good() {
    let world = desk(&["--latency", "4s"]).await;
    logged_in(&world).await;
    let owner = Owner::of(&world);
    let old = owner.stored();
    let keeper = owner.keeper();
    keeper.access(owner.now).await.unwrap();
    let begun = tokio::time::Instant::now();
    for _ in 0..20 {
        let access = keeper.access(owner.in_minutes(26)).await.unwrap();
        assert!(same(&access.token, &old.access_token));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    let renewed = async || {
        let access = keeper.access(owner.in_minutes(26)).await.unwrap();
        !same(&access.token, &old.access_token)
    };
    eventually(TIME_MAX, "it is refreshed all the same", renewed).await;
    assert_eq!(counts(&world).await["refreshes"], 1);
}

#[tokio::test]
async fn an_app_of_v1_is_refreshed_too() {
    let world = desk(&[]).await.set("oauth.version", "v1");
    logged_in(&world).await;
    let owner = Owner::of(&world);
    assert_eq!((owner.stored().hub_id, owner.stored().scopes), (None, None));
    let access = owner.keeper().access(owner.in_minutes(26)).await.unwrap();
    assert_eq!(access.hub_id, Some(42), "the newer endpoint tells it");
}

/// The old token is good for some minutes yet: time to mend it.
#[tokio::test]
async fn a_refresh_that_fails_is_shown_before_the_old_token_ends() {
    let world = desk(&[]).await;
    logged_in(&world).await;
    let owner = Owner::of(&world);
    let clock = Clock::simulated(owner.in_minutes(26));
    let hubspot = HubSpot::new(&AccountName::default(), &owner.way, clock).unwrap();
    hubspot.probe().await;
    assert_eq!(hubspot.token_troubles().list(), [], "it was renewed");

    world.sandbox.tell("oauth", r#"{"revoke":true}"#).await;
    let due = owner.stored().refresh_due();
    for (seconds, is_late) in [(10, false), (40, true)] {
        let clock = Clock::simulated(due + SignedDuration::from_secs(seconds));
        let hubspot = HubSpot::new(&AccountName::default(), &owner.way, clock).unwrap();
        hubspot.probe().await;
        let list = hubspot.token_troubles().list();
        assert_eq!(!list.is_empty(), is_late, "{list:?}");
        if let [trouble] = list.as_slice() {
            assert_eq!((trouble.key, trouble.since), ("token", due));
            assert_eq!(trouble.until, Some(owner.stored().expires_at));
            assert!(
                trouble.hint.contains("`postrider auth status`"),
                "{trouble:?}"
            );
        }
    }
}
