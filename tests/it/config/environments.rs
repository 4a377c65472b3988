//! The environment: who gets mail in it, and what a variable may not change.

use postrider::config::{Config, ConfigError, Flag, Sources};

use super::{env, file, load, load_env, load_text, refused, refused_env, told};

/// A file and variables.
fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, text);
    Config::load(&Sources {
        file: Some(path.clone()),
        env: env(variables),
        flags: Vec::new(),
    })
    .map_err(|mut error| {
        error.problem = error.problem.replace(path.to_str().unwrap(), "FILE");
        error
    })
}

fn mode(config: &Config) -> (&str, &'static str) {
    let rules = &config.delivery;
    (rules.environment.as_str(), rules.mode.label())
}

#[test]
fn outside_production_nothing_is_sent_unless_the_file_says_how() {
    let sandbox = "[accounts.default]\nbase_url = 'http://127.0.0.1:8085'";
    for (text, expected) in [
        ("", ("production", "everyone")),
        ("environment = 'production'", ("production", "everyone")),
        (
            "environment = 'production'\n[delivery]",
            ("production", "everyone"),
        ),
        ("environment = 'qa-2'", ("qa-2", "hold")),
        ("environment = 'qa'\ndelivery.mode = 'hold'", ("qa", "hold")),
        (
            "environment = 'qa'\n[delivery]\nmode = 'allow'\nallow = 'example.org'",
            ("qa", "allow"),
        ),
        (
            "environment = 'qa'\n[delivery]\nmode = 'sink'\nsink = 'qa@example.com'",
            ("qa", "sink"),
        ),
        (
            &format!("environment = 'dev'\ndelivery.mode = 'sandbox'\n{sandbox}"),
            ("dev", "sandbox"),
        ),
    ] {
        assert_eq!(mode(&load_text(text)), expected, "{text}");
    }
    let qa = with("", &[("POSTRIDER_ENVIRONMENT", "qa")]).unwrap();
    assert_eq!(mode(&qa), ("qa", "hold"), "as a variable");
}

#[test]
fn what_is_shown_of_an_environment_is_read_back_as_the_same() {
    for text in [
        "environment = 'qa'",
        "environment = 'qa'\n[delivery]\nmode = 'allow'\nallow = ' ada@example.com,example.org'",
        "environment = 'qa'\n[delivery]\nmode = 'sink'\nsink = 'qa@example.com'",
    ] {
        let config = load_text(text);
        let lines = config.shown().into_iter();
        let shown = lines.fold(String::new(), |all, (key, value)| {
            all + &format!("{key} = {value}\n")
        });
        assert_eq!(load_text(&shown).shown(), config.shown(), "{shown}");
        // An address is for the one who asks for it, and not for a log.
        assert!(!format!("{config:?}").contains('@'), "{config:?}");
    }
}

#[test]
fn what_is_wrong_names_the_key_and_repeats_no_address() {
    insta::assert_snapshot!(refused("environment = 'QA'"), @r#"
    environment is "QA" (FILE line 1)
    hint: it takes 1 to 30 lower-case letters, digits and `-`, such as "qa"
    "#);
    insta::assert_snapshot!(refused("[environment]\nname = 'qa'"), @"
    `environment` (FILE line 1) is no section
    hint: it is a key: write it as `key = value`
    ");
    insta::assert_snapshot!(refused("enviroment = 'qa'"), @"
    unknown key `enviroment` (FILE line 1)
    hint: did you mean `environment`?
    ");
    insta::assert_snapshot!(refused_env("POSTRIDER_ENVIROMENT", "qa"), @"
    unknown key `enviroment` (variable POSTRIDER_ENVIROMENT)
    hint: did you mean POSTRIDER_ENVIRONMENT?
    ");
    insta::assert_snapshot!(refused("[delivery]\nmode = 'hold'"), @r#"
    delivery.mode (FILE line 2) is set, and the environment is production, where mail goes to whom the request says
    hint: set environment to another name, such as "qa", or remove it
    "#);
    insta::assert_snapshot!(refused_env("POSTRIDER_DELIVERY__SINK", "eve@evil.example"), @r#"
    delivery.sink (variable POSTRIDER_DELIVERY__SINK) is set, and the environment is production, where mail goes to whom the request says
    hint: unset variable POSTRIDER_DELIVERY__SINK; or, if this is not production, set environment to another name, such as "qa"
    "#);
    let qa = |text: &str| refused(&format!("environment = 'qa'\n[delivery]\n{text}"));
    insta::assert_snapshot!(qa("mode = 'everyone'"), @r#"
    delivery.mode is "everyone" (FILE line 3)
    hint: it takes "hold", "allow", "sink" or "sandbox"
    "#);
    insta::assert_snapshot!(qa("mode = 'allow'"), @r#"
    delivery.mode is "allow", and delivery.allow is not set
    hint: it takes addresses and domains, such as "ada@example.com, example.org"
    "#);
    insta::assert_snapshot!(qa("mode = 'allow'\nallow = ''"), @r#"
    delivery.allow (FILE line 4) allows nobody
    hint: it takes addresses and domains, such as "ada@example.com, example.org"
    "#);
    insta::assert_snapshot!(qa("mode = 'allow'\nallow = 'example.org, @eve.example'"), @r#"
    entry 2 of delivery.allow (FILE line 4) is neither an address nor a domain
    hint: it takes addresses and domains, such as "ada@example.com, example.org"
    "#);
    insta::assert_snapshot!(qa("mode = 'sink'"), @r#"
    delivery.mode is "sink", and delivery.sink is not set
    hint: it takes the address of a person, such as "qa@example.com"
    "#);
    insta::assert_snapshot!(qa("mode = 'sink'\nsink = 'a@example.com, b@example.com'"), @r#"
    delivery.sink (FILE line 4) is not one address that HubSpot takes
    hint: it takes the address of a person, such as "qa@example.com"
    "#);
    insta::assert_snapshot!(qa("mode = 'sink'\nsink = 'noreply@example.com'"), @r#"
    delivery.sink (FILE line 4) is not one address that HubSpot takes
    hint: it takes the address of a person, such as "qa@example.com"
    "#);
    insta::assert_snapshot!(qa("sink = 'qa@example.com'"), @r#"
    delivery.sink (FILE line 3) is set, and delivery.mode is "hold"
    hint: set delivery.mode = "sink", or remove delivery.sink
    "#);
    insta::assert_snapshot!(qa("mode = 'sink'\nsink = 'qa@example.com'\nallow = 'a.org'"), @r#"
    delivery.allow (FILE line 5) is set, and delivery.mode is "sink"
    hint: set delivery.mode = "allow", or remove delivery.allow
    "#);
    insta::assert_snapshot!(qa("mode = 'sandbox'"), @r#"
    delivery.mode is "sandbox", and accounts.default.base_url is at HubSpot: api.hubapi.com
    hint: set accounts.default.base_url to the address that `postrider sandbox` prints
    "#);
}

#[test]
fn a_sandbox_is_not_at_hubspot_under_any_of_its_names() {
    let at = |url: &str| {
        load(&format!(
            "environment = 'dev'\ndelivery.mode = 'sandbox'\n[accounts.a]\nbase_url = 'http://sandbox'\n\
             [accounts.b]\nbase_url = '{url}'"
        ))
    };
    for url in [
        "https://api.hubapi.com",
        "https://API.HubAPI.com/x",
        "https://api.hubapi.com.",
        "http://hubapi.com:8443",
        "https://api-eu1.hubspot.com",
        "https://hubspot.com",
        "https://api%2ehubapi.com",
    ] {
        let told = told(&at(url).expect_err(url));
        assert!(told.contains("accounts.b.base_url is at HubSpot"), "{told}");
    }
    for url in [
        "http://127.0.0.1:8085",
        "http://sandbox:8085",
        "https://nothubapi.com",
        "https://hubapi.com.example.org",
    ] {
        assert!(at(url).is_ok(), "{url}");
    }
}

/// Where the file sets it, another value by a variable is refused; the same one is fine.
#[test]
fn a_variable_does_not_change_what_guards_who_gets_mail() {
    let allow = "environment = 'qa'\n[delivery]\nmode = 'allow'\nallow = 'example.org'";
    let sink = "environment = 'qa'\n[delivery]\nmode = 'sink'\nsink = 'qa@example.com'";
    let pinned = "[accounts.shop]\nportal_id = 1";
    let placed = "environment = 'production'\n[accounts.shop]\nbase_url = 'http://sandbox'";
    for (text, key, line, same, other) in [
        (
            "environment = 'production'",
            "environment",
            1,
            "production",
            "qa",
        ),
        ("environment = 'qa'", "environment", 1, "qa", "production"),
        (allow, "delivery.mode", 3, "allow", "hold"),
        (
            allow,
            "delivery.allow",
            4,
            "example.org",
            "example.org, eve@evil.example",
        ),
        (
            sink,
            "delivery.sink",
            4,
            "qa@example.com",
            "eve@evil.example",
        ),
        (pinned, "accounts.shop.portal_id", 2, "1", "2"),
        (
            placed,
            "accounts.shop.base_url",
            3,
            "http://sandbox",
            "https://u:secret@api.hubapi.com",
        ),
    ] {
        let variable = format!("POSTRIDER_{}", key.replace('.', "__").to_uppercase());
        let again = with(text, &[(&variable, same)]).unwrap();
        assert_eq!(again.shown(), load_text(text).shown(), "{key}");
        let told = told(&with(text, &[(&variable, other)]).expect_err(key));
        for word in [
            key,
            &format!("FILE line {line}"),
            &format!("variable {variable}"),
            "in the file",
        ] {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(
            !told.contains(other) || other == "qa" || other == "production" || other == "2",
            "{told}"
        );
    }
}

#[test]
fn neither_does_a_flag_after_a_variable_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::load(&Sources {
        file: Some(file(&folder, "environment = 'qa'")),
        env: env(&[("POSTRIDER_ENVIRONMENT", "qa")]),
        flags: vec![Flag {
            key: "environment",
            name: "--environment",
            value: "production".into(),
        }],
    });
    let told = told(&error.unwrap_err());
    assert!(told.contains("flag --environment"), "{told}");
}

#[test]
fn production_is_not_loosened_by_variables_and_what_the_file_leaves_open_may_be_set() {
    let production = "environment = 'production'";
    let told = told(&with(production, &[("POSTRIDER_DELIVERY__MODE", "sink")]).unwrap_err());
    assert!(told.contains("POSTRIDER_DELIVERY__MODE"), "{told}");
    // Without an environment in the file its address of HubSpot may be another one: so it is tried
    // out with the shipped file.
    let url = ("POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL", "http://sandbox");
    assert!(load_env(&[url]).is_ok());
    let pin = ("POSTRIDER_ACCOUNTS__DEFAULT__PORTAL_ID", "7");
    assert!(with(production, &[pin]).is_ok());
    let opened = [
        ("POSTRIDER_DELIVERY__MODE", "allow"),
        ("POSTRIDER_DELIVERY__ALLOW", "example.org"),
    ];
    let config = with("environment = 'qa'", &opened).unwrap();
    assert_eq!(mode(&config), ("qa", "allow"));
}

/// What `docs/environments.md` shows is a configuration, of the environment that it names.
#[test]
fn the_files_of_the_documentation_are_configurations() {
    let text = include_str!("../../../docs/environments.md");
    let blocks = text.split("```toml\n").skip(1);
    let read = blocks.map(|rest| load_text(rest.split("```").next().unwrap()));
    let read: Vec<_> = read.collect();
    let modes: Vec<_> = read.iter().map(mode).collect();
    let expected = [
        ("production", "everyone"),
        ("qa", "allow"),
        ("development", "sandbox"),
    ];
    assert_eq!(modes, expected);
}

/// Whoever answers there would get production's mail and its token, and say that it is the pinned portal.
#[test]
fn no_variable_adds_where_production_is() {
    let pinned = "environment = 'production'\n[accounts.default]\nportal_id = 7";
    for (key, value) in [
        ("BASE_URL", "https://hubapi.example"),
        ("CA_FILE", "/nowhere.pem"),
        // A path may look like the address of this machine.
        ("CA_FILE", "http://127.0.0.1/ca.pem"),
    ] {
        let variable = format!("POSTRIDER_ACCOUNTS__DEFAULT__{key}");
        let error = with(pinned, &[(&variable, value)]).unwrap_err();
        assert!(error.problem.contains("which says production"), "{error}");
        assert!(error.problem.contains(&variable), "{error}");
    }
    let default = [(
        "POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL",
        "https://api.hubapi.com",
    )];
    with(pinned, &default).unwrap();
    let here = [(
        "POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL",
        "http://127.0.0.1:8085",
    )];
    with(pinned, &here).unwrap();
    let elsewhere = [(
        "POSTRIDER_ACCOUNTS__DEFAULT__BASE_URL",
        "http://127.0.0.1:8085",
    )];
    with("environment = 'qa'\ndelivery.mode = 'sandbox'", &elsewhere).unwrap();
}
