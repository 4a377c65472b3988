//! `postrider check`: what of an account is as it should be, a line each, with the next step.

use super::shop::{Shop, interrupt, told, without_midnight};
use crate::support::secret::{keep, keep_with_mode};

/// `check` of a shop whose account is at this sandbox.
fn check(shop: &Shop, sandbox: &str, args: &[&str], settings: &[(&str, &str)]) -> String {
    let mut command = shop.command(&[&["check"], args].concat());
    command.env("POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL", sandbox);
    for (key, value) in settings {
        command.env(format!("POSTRIDER_ACCOUNTS__DEFAULT__{key}"), value);
    }
    let shown = told(command).replace(sandbox, "http://SANDBOX");
    let shown = without_midnight(&shown);
    // The first three are of the configuration and the queue.
    let of_account = |line: &&str| {
        let others = ["ok      config", "ok      environment", "queue"];
        !others.iter().any(|other| line.contains(other))
    };
    let lines = shown.lines().filter(of_account);
    lines.map(|line| line.to_owned() + "\n").collect()
}

#[test]
fn an_email_is_looked_at_without_sending_it() {
    let shop = Shop::new();
    let (_sandbox, address) = shop.sandbox(&[]);
    let token = [("TOKEN", "pat-na1-test")];
    insta::assert_snapshot!(check(&shop, &address, &["--email-id", "4126643121"], &token), @"
    exit 0
    --- stdout
    ok      account default: portal 62515 (DEVELOPER_TEST) at http://SANDBOX/
    ok      account default scopes: oauth content marketing-email transactional-email
    ok      account default day: ends at …, midnight in UTC
    ok      account default email 4126643121: SINGLE_SEND_API, published
    --- stderr
    ");
    let of = |id: &str| {
        let shown = check(&shop, &address, &["--email-id", id], &token);
        let lines = shown
            .lines()
            .filter(|line| line.contains(" email ") || line.starts_with("    "));
        lines.map(|line| line.to_owned() + "\n").collect::<String>()
    };
    insta::assert_snapshot!(["404", "1001", "1002", "1003"].map(of).concat(), @r#"
    failed  account default email 404: the portal has no such email
            hint: take the id from the email's address in HubSpot, or from its details there
    failed  account default email 1001: it is BATCH_EMAIL, which single send refuses; it takes SINGLE_SEND_API
            hint: in HubSpot, make it an email for the single-send API
    failed  account default email 1002: it is SINGLE_SEND_API, and not published
            hint: publish it in HubSpot
    unsure  account default email 1003: it is MARKETING_SINGLE_SEND_API, and api = "transactional" is made for SINGLE_SEND_API
            hint: send it to yourself once, or see accounts.NAME.api
    "#);
}

#[test]
fn each_token_of_a_rotation_is_told_by_its_key() {
    let shop = Shop::new();
    let (_sandbox, address) = shop.sandbox(&["--account-type", "SANDBOX"]);
    let next = shop.path("next");
    keep(&next, "pat-na1-next-unscoped\n");
    let settings = [
        ("TOKEN", "pat-na1-test"),
        ("NEXT_TOKEN_FILE", next.to_str().unwrap()),
        ("ACCOUNT_TYPE", "SANDBOX"),
    ];
    insta::assert_snapshot!(check(&shop, &address, &[], &settings), @"
    exit 64
    --- stdout
    failed  account default next_token: the token is accepted, and does not suffice
            hint: the token lacks the scope transactional-email (it has oauth): grant it in HubSpot
    ok      account default: portal 62515 (SANDBOX) at http://SANDBOX/
    ok      account default scopes: oauth content marketing-email transactional-email
    ok      account default day: ends at …, midnight in UTC
    --- stderr
    error: not everything is as it should be
    hint: each line above that fails tells its next step
    ");
    keep_with_mode(&next, "pat-na1-next\n", 0o644);
    insta::assert_snapshot!(check(&shop, &address, &[], &settings).replace(next.to_str().unwrap(), "NEXT"), @"
    exit 64
    --- stdout
    failed  account default: the token of account `default` in NEXT cannot be used: it is not taken: its mode is 644, so that others may read or change it (chmod 600)
            hint: it takes a service key or an app's token, and nothing else; a file with it is to be read by its owner alone
    --- stderr
    error: not everything is as it should be
    hint: each line above that fails tells its next step
    ");
    let other = [("TOKEN", "pat-na1-test"), ("ACCOUNT_TYPE", "STANDARD")];
    insta::assert_snapshot!(check(&shop, &address, &[], &other), @"
    exit 64
    --- stdout
    failed  account default: the token opens an account of the type SANDBOX, and account_type is STANDARD
            hint: set the token to one of the configured account, or correct what the account pins
    --- stderr
    error: not everything is as it should be
    hint: each line above that fails tells its next step
    ");
}

#[test]
fn an_account_that_is_not_there_is_named() {
    let shop = Shop::new();
    insta::assert_snapshot!(shop.run(&["check", "--account", "shop"]), @"
    exit 64
    --- stderr
    error: there is no account `shop`
    hint: the accounts are: default
    ");
}

#[test]
fn what_is_risky_is_warned_of_and_fails_nothing() {
    let shop = Shop::new();
    let (_sandbox, address) = shop.sandbox(&[]);
    let check = |settings: &[(&str, &str)]| {
        let mut command = shop.command(&["check"]);
        command.env("POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL", &address);
        command.env("POSTRIDER_ACCOUNTS__DEFAULT__TOKEN", "pat-na1-test");
        command.envs(settings.iter().copied());
        let shown = told(command);
        assert!(shown.starts_with("exit 0"), "{shown}");
        let is_told = |line: &&str| {
            let words = ["environment", "variable", "server", "hint"];
            words.iter().any(|word| line.contains(word))
        };
        let lines = shown.lines().filter(is_told);
        lines.map(|line| line.to_owned() + "\n").collect::<String>()
    };
    let everywhere = ("POSTRIDER_SERVER__LISTEN", "0.0.0.0:9464");
    let key = "11111111-2222-3333-4444-555555555555";
    insta::assert_snapshot!(check(&[everywhere, ("HUBSPOT_HAPIKEY", key)]), @"
    ok      environment: production: mail goes to whom each request says
    warn    variable HUBSPOT_HAPIKEY: it holds an API key (hapikey): Postrider does not read it, and HubSpot has taken none since 2022-11-30
            hint: run `postrider auth migrate`, and unset it
    warn    server: it listens on 0.0.0.0:9464 without server.token: other machines may read /metrics, and the worker's status is told to nobody
            hint: set server.token_file (or server.token), or set server.listen to an address of this machine alone, such as 127.0.0.1:9464
    ");
    let quiet = [everywhere, ("POSTRIDER_SERVER__TOKEN", "of-the-admin")];
    insta::assert_snapshot!(check(&quiet), @"ok      environment: production: mail goes to whom each request says");
    for (mode, more, mail) in [
        ("hold", "", "no mail is sent"),
        (
            "allow",
            "example.org",
            "mail goes to delivery.allow and to nobody else",
        ),
        ("sink", "qa@example.com", "all mail goes to delivery.sink"),
        ("sandbox", "", "mail goes to a sandbox"),
    ] {
        let list = format!("POSTRIDER_DELIVERY__{}", mode.to_uppercase());
        let mut settings = vec![
            ("POSTRIDER_ENVIRONMENT", "qa"),
            ("POSTRIDER_DELIVERY__MODE", mode),
        ];
        if !more.is_empty() {
            settings.push((&list, more));
        }
        let told = check(&settings);
        assert!(
            told.starts_with(&format!("ok      environment: qa: {mail}")),
            "{told}"
        );
        assert!(!told.contains('@'), "{told}");
    }
}

#[test]
fn where_there_is_no_token_no_call_is_blamed() {
    let shop = Shop::new();
    let told = check(
        &shop,
        "http://127.0.0.1:1/",
        &[],
        &[("TOKEN_COMMAND", "exit 3")],
    );
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(
        told.contains("failed  account default: no call was made: the command ")
            && told.contains("hint: run the command line of accounts.NAME.token_command by hand"),
        "{told}"
    );
    assert!(!told.contains("does not answer"), "{told}");
}

#[test]
fn check_proves_the_token_against_the_sandbox() {
    let shop = Shop::new();
    let (mut sandbox, address) = shop.sandbox(&["--token", "pat-na1-right"]);
    let check = |token: &str, more: &[(&str, &str)]| {
        let mut command = shop.command(&["check"]);
        command.env("POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL", &address);
        command.env("POSTRIDER_ACCOUNTS__DEFAULT__TOKEN", token);
        command.envs(more.iter().copied());
        let shown = told(command).replace(&address, "http://SANDBOX");
        without_midnight(&shown)
    };
    insta::assert_snapshot!(check("pat-na1-right", &[]), @"
    exit 0
    --- stdout
    ok      config: valid; accounts: default
    ok      environment: production: mail goes to whom each request says
    ok      queue: sqlite:SHOP/postrider.db answers, 0 messages stand in it
    ok      account default: portal 62515 (DEVELOPER_TEST) at http://SANDBOX/
    ok      account default scopes: oauth content marketing-email transactional-email
    ok      account default day: ends at …, midnight in UTC
    --- stderr
    sqlite:SHOP/postrider.db is a new queue
    ");
    insta::assert_snapshot!(check("pat-na1-wrong", &[]), @"
    exit 64
    --- stdout
    ok      config: valid; accounts: default
    ok      environment: production: mail goes to whom each request says
    ok      queue: sqlite:SHOP/postrider.db answers, 0 messages stand in it
    failed  account default: http://SANDBOX/ answers 401: Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview
            hint: HubSpot does not accept the token: check accounts.NAME.token or its token_file
    --- stderr
    error: not everything is as it should be
    hint: each line above that fails tells its next step
    ");
    let other = [("POSTRIDER_ACCOUNTS__DEFAULT__PORTAL_ID", "4711")];
    insta::assert_snapshot!(check("pat-na1-right", &other), @"
    exit 64
    --- stdout
    ok      config: valid; accounts: default
    ok      environment: production: mail goes to whom each request says
    ok      queue: sqlite:SHOP/postrider.db answers, 0 messages stand in it
    failed  account default: the token opens portal 62515, and portal_id is 4711
            hint: set the token to one of the configured account, or correct what the account pins
    --- stderr
    error: not everything is as it should be
    hint: each line above that fails tells its next step
    ");
    interrupt(&sandbox);
    assert_eq!(sandbox.wait().unwrap().code(), Some(0));
    insta::assert_snapshot!(check("pat-na1-right", &[]), @"
    exit 69
    --- stdout
    ok      config: valid; accounts: default
    ok      environment: production: mail goes to whom each request says
    ok      queue: sqlite:SHOP/postrider.db answers, 0 messages stand in it
    failed  account default: http://SANDBOX/ does not answer: no answer: Connection refused (os error 111)
            hint: HubSpot cannot be reached (Connection refused (os error 111)): check accounts.NAME.base_url and the network
    --- stderr
    error: not everything is as it should be
    hint: each line above that fails tells its next step
    ");
}

#[test]
fn check_shows_the_configuration_without_its_secrets() {
    let shop = Shop::new();
    let mut command = shop.command(&["check", "--show", "--json"]);
    command.env("POSTRIDER_ACCOUNTS__SHOP__TOKEN", "pat-na1-hidden");
    command.env("POSTRIDER_QUEUE__URL", "amqp://ada:hidden@rabbit:5672/mail");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("hidden") && !text.contains("ada"), "{text}");
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["queue.url"], "amqp://rabbit:5672/mail");
    assert_eq!(shown["accounts.shop.token"], "********");
}

#[test]
fn a_refused_token_does_no_harm_where_the_next_one_is_good() {
    let shop = Shop::new();
    let (_sandbox, address) = shop.sandbox(&["--token", "pat-na1-next"]);
    let settings = [("TOKEN", "pat-na1-gone"), ("NEXT_TOKEN", "pat-na1-next")];
    let args = ["--email-id", "4126643121"];
    insta::assert_snapshot!(check(&shop, &address, &args, &settings), @"
    exit 0
    --- stdout
    ok      account default next_token: portal 62515 (DEVELOPER_TEST) at http://SANDBOX/
    ok      account default next_token scopes: oauth content marketing-email transactional-email
    ok      account default next_token day: ends at …, midnight in UTC
    warn    account default: http://SANDBOX/ answers 401: Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview
            hint: next_token is good and goes before it: put that one in the place of accounts.default.token, and remove next_token
    ok      account default email 4126643121: SINGLE_SEND_API, published
    --- stderr
    ");
    // The other way round nothing is good that a worker would use.
    let settings = [("TOKEN", "pat-na1-next"), ("NEXT_TOKEN", "pat-na1-gone")];
    let told = check(&shop, &address, &[], &settings);
    assert!(told.starts_with("exit 64"), "{told}");
    assert!(
        told.contains("failed  account default next_token: "),
        "{told}"
    );
}

/// A command that tells no token is no reason to leave its line out.
#[test]
fn a_key_that_tells_no_token_is_named() {
    let shop = Shop::new();
    let (_sandbox, address) = shop.sandbox(&[]);
    let settings = [("TOKEN_COMMAND", "exit 3"), ("NEXT_TOKEN", "pat-na1-next")];
    let told = check(&shop, &address, &[], &settings);
    assert!(told.starts_with("exit 0"), "{told}");
    assert!(told.contains("warn    account default: "), "{told}");
    assert!(
        told.contains("accounts.default.token_command, and"),
        "{told}"
    );
}
