//! The app's own calls: what HubSpot says of them is told without what they carried.

use postrider::clock::Clock;
use postrider::oauth::{App, Attempt, Grant};
use serde_json::json;

use super::desk::account_and_app;
use crate::hubspot::stub::{Reply, Stub};

const CLIENT_SECRET: &str = "5ec2e7-of-the-app";
const REFRESH_TOKEN: &str = "5ec2e7-to-refresh";

fn app(base: &str) -> App {
    let (account, oauth) = account_and_app(&[
        ("ACCOUNTS__DEFAULT__BASE_URL", base),
        ("OAUTH__CLIENT_ID", "app"),
        ("OAUTH__CLIENT_SECRET", CLIENT_SECRET),
    ]);
    App::new(oauth, &account).unwrap()
}

#[tokio::test]
async fn an_endpoint_that_repeats_what_it_was_sent_has_no_secret_of_it_told() {
    let stub = Stub::answering(|asked| {
        let body = json!({"error": "invalid_request", "message": asked.body});
        Reply::Whole(400, "", body.to_string())
    })
    .await;
    let app = app(&stub.url());
    let now = Clock::system().now();
    let grant = Grant {
        access_token: "5ec2e7-for-calls".into(),
        refresh_token: REFRESH_TOKEN.into(),
        issued_at: now,
        expires_at: now,
        hub_id: None,
        scopes: None,
        client_id: "app".into(),
    };
    let attempt = Attempt::new().unwrap();
    let code = "5ec2e7-of-the-login".into();
    let errors = [
        app.refresh(&grant, now).await.err(),
        app.exchange(&attempt, &code, now).await.err(),
        app.introspect(&grant).await.err(),
        app.revoke(&grant).await.err(),
    ];
    let asked = stub.asked();
    for (error, asked) in errors.into_iter().zip(asked) {
        assert!(asked.body.contains(CLIENT_SECRET), "{}", asked.body);
        let error = error.expect("it is refused");
        let told = format!("{error} {error:?}");
        assert!(told.contains("client_secret=…"), "{told}");
        assert!(!told.contains("5ec2e7"), "{told}");
    }
}
