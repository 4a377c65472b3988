use super::*;
use crate::sandbox::Options;

const SEND: &str = "/marketing/transactional/2026-09/single-email/send";
/// RFC 7636's own.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const BACK: &str = "http://127.0.0.1:1/back";

struct World {
    model: Model,
    now: Timestamp,
}

fn world() -> World {
    let now = "2026-11-22T10:00:00Z".parse().unwrap();
    World {
        model: Model::new(Options::default(), now),
        now,
    }
}

impl World {
    fn call(&mut self, method: &str, path: &str, bearer: Option<&str>, body: &str) -> Answer {
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(p, q)| (p, Some(q)));
        let authorization = bearer.map(|token| format!("Bearer {token}"));
        let call = Call {
            method,
            path,
            query,
            authorization: authorization.as_deref(),
            body: body.as_bytes(),
        };
        let Ending::Answer(answer) = self.model.call(self.now, &call).ending else {
            panic!("an answer");
        };
        answer
    }

    fn wait(&mut self, seconds: u64) {
        self.now = clock::after(self.now, Duration::from_secs(seconds));
    }

    fn code(&mut self, portal: &str) -> String {
        let answer = self.call(
            "GET",
            &format!(
                "/oauth{portal}/authorize?client_id=app&redirect_uri={BACK}&state=s%26t\
                 &scope=oauth%20transactional-email&code_challenge={CHALLENGE}&code_challenge_method=S256"
            ),
            None,
            "",
        );
        let (_, back) = answer
            .headers
            .iter()
            .find(|(name, _)| *name == "location")
            .unwrap();
        let back = Url::parse(back).unwrap();
        let pairs: BTreeMap<_, _> = back.query_pairs().into_owned().collect();
        assert_eq!((answer.status, pairs["state"].as_str()), (302, "s&t"));
        pairs["code"].clone()
    }

    fn token(&mut self, form: &str) -> (u16, Value) {
        let path = "/oauth/2026-09/token";
        let form = format!("{form}&client_id=app&client_secret=secret");
        let answer = self.call("POST", path, None, &form);
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    fn exchange(&mut self, code: &str, verifier: &str) -> (u16, Value) {
        self.token(&format!(
            "grant_type=authorization_code&code={code}&redirect_uri={BACK}&code_verifier={verifier}"
        ))
    }

    fn refresh(&mut self, token: &Value) -> (u16, Value) {
        let token = token["refresh_token"].as_str().unwrap();
        self.token(&format!("grant_type=refresh_token&refresh_token={token}"))
    }

    fn send(&mut self, token: &Value) -> (u16, Value) {
        let body = r#"{"emailId": 1, "message": {"to": "ada@example.com"}}"#;
        let answer = self.call("POST", SEND, token["access_token"].as_str(), body);
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }
}

#[test]
fn a_code_is_good_once_for_a_while_and_for_who_asked() {
    let mut world = world();
    let code = world.code("");
    let (status, token) = world.exchange(&code, VERIFIER);
    assert_eq!((status, &token["hub_id"]), (200, &json!(PORTAL)));
    assert_eq!(token["expires_in"], 1800);
    assert_eq!(world.exchange(&code, VERIFIER).1["status"], "BAD_AUTH_CODE");
    let code = world.code("");
    let (status, told) = world.exchange(&code, "another");
    assert_eq!((status, &told["error"]), (400, &json!("invalid_grant")));
    assert_eq!(told["status"], "BAD_CODE_VERIFIER");
    let code = world.code("");
    world.wait(60);
    assert_eq!(
        world.exchange(&code, VERIFIER).1["status"],
        "EXPIRED_AUTH_CODE"
    );
}

#[test]
fn an_access_token_opens_its_portal_until_its_end() {
    let mut world = world();
    world
        .model
        .set_tokens(crate::sandbox::model::Tokens::These(Vec::new()));
    let code = world.code("/42");
    let (_, token) = world.exchange(&code, VERIFIER);
    assert_eq!(token["hub_id"], 42);
    assert_eq!(world.send(&token).0, 200);
    world.wait(1_875);
    world.model.set_tokens(crate::sandbox::model::Tokens::Any);
    let (status, told) = world.send(&token);
    assert_eq!(
        (status, &told["category"]),
        (401, &json!("EXPIRED_AUTHENTICATION"))
    );
    assert!(
        told["message"]
            .as_str()
            .unwrap()
            .contains("expired 75 second(s) ago")
    );
    let (_, new) = world.refresh(&token);
    assert_eq!(new["refresh_token"], token["refresh_token"]);
    assert_eq!(world.send(&new).0, 200);
    let tally = serde_json::to_value(world.model.stats(world.now)).unwrap();
    assert_eq!(tally["calls"], 3, "OAuth's own calls count in no bucket");
}

#[test]
fn a_refresh_token_rotates_when_told_and_is_revoked() {
    let mut world = world();
    let code = world.code("");
    let (_, first) = world.exchange(&code, VERIFIER);
    world.model.control_oauth(OAuthControl {
        rotate: Some(true),
        ..OAuthControl::default()
    });
    let (_, second) = world.refresh(&first);
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(world.refresh(&first).1["status"], "BAD_REFRESH_TOKEN");
    let revoke = format!(
        "client_id=app&client_secret=s&token={}",
        second["refresh_token"].as_str().unwrap()
    );
    assert_eq!(
        world
            .call("POST", "/oauth/v3/token/revoke", None, &revoke)
            .status,
        200
    );
    assert_eq!(world.refresh(&second).1["error"], "invalid_grant");
    assert_eq!(world.send(&second).0, 200, "the access token lives on");
}

#[test]
fn only_the_app_that_it_was_told_is_served() {
    let mut world = world();
    let code = world.code("");
    world.model.control_oauth(OAuthControl {
        client_id: Some("app".into()),
        client_secret: Some("other".into()),
        ..OAuthControl::default()
    });
    assert_eq!(
        world.exchange(&code, VERIFIER).1["status"],
        "BAD_CLIENT_SECRET"
    );
    world.model.control_oauth(OAuthControl {
        client_secret: Some("secret".into()),
        answer: Some(503),
        ..OAuthControl::default()
    });
    assert_eq!(world.exchange(&code, VERIFIER).0, 503);
    world.model.control_oauth(OAuthControl {
        answer: Some(0),
        ..OAuthControl::default()
    });
    assert_eq!(
        world.exchange(&code, VERIFIER).0,
        200,
        "the code was not used up"
    );
}

#[test]
fn tokens_are_told_about() {
    let mut world = world();
    let code = world.code("/42");
    let (_, token) = world.exchange(&code, VERIFIER);
    let access = token["access_token"].as_str().unwrap();
    let of = |answer: Answer| -> Value { serde_json::from_slice(&answer.body).unwrap() };
    let form = format!("client_id=app&client_secret=s&token={access}");
    let path = "/oauth/2026-03/token/introspect";
    assert_eq!(of(world.call("POST", path, None, &form))["hub_id"], 42);
    let unknown = world.call("POST", path, None, "client_id=app&client_secret=s&token=x");
    assert_eq!(
        (unknown.status, of(unknown)),
        (200, json!({"active": false}))
    );
    let path = format!("/oauth/v1/access-tokens/{access}");
    let told = of(world.call("GET", &path, None, ""));
    assert_eq!(told["scopes"], json!(["oauth", "transactional-email"]));
    assert_eq!(
        world
            .call("GET", "/oauth/v1/access-tokens/x", None, "")
            .status,
        404
    );
    assert_eq!(world.call("GET", "/oauth/v3/token", None, "").status, 405);
}
