//! The commands, as an operator meets them: the real binary, its words and its exit codes.

mod check;
mod dead;
mod operate;
mod rabbitmq;
mod sandbox;
mod send;
mod shop;
mod trace;
mod why;

use std::process::Stdio;

use self::shop::{Shop, told};

#[test]
fn help_says_what_there_is() {
    let shop = Shop::new();
    for command in [
        &["--help"][..],
        &["send", "--help"],
        &["dead", "--help"],
        &["dead", "replay", "--help"],
        &["trace", "--help"],
        &["queue", "--help"],
        &["check", "--help"],
        &["auth", "--help"],
        &["auth", "login", "--help"],
        &["sandbox", "--help"],
        &["sandbox", "check", "--help"],
        &["--version"],
    ] {
        let told = shop.run(command);
        assert!(told.starts_with("exit 0\n"), "{told}");
        assert!(!told.contains("--- stderr"), "{told}");
    }
    insta::assert_snapshot!(shop.run(&["dead", "replay", "--help"]), @"
    exit 0
    --- stdout
    Send dead letters again, under the same id: what was mailed is not mailed twice

    Only one whose final result was a refusal takes a new sendId, ID.r2, since HubSpot has used up the
    first one.

    Usage: postrider dead replay [OPTIONS] [ID]...

    Arguments:
      [ID]...
              As `dead list` prints them

    Options:
          --reason <REASON>
              Why they died: malformed, rejected, refused, exhausted, expired or operator

          --account <ACCOUNT>
              The account's name

          --email-id <N>
              The template: HubSpot's content id

          --older-than <TIME>
              Dead for longer than this, such as 90m or 7d

          --newer-than <TIME>
              Dead for less than this

          --all
              All dead letters, or all that the filters take

          --dry-run
              Show what would be done, and do nothing

          --yes
              Do not ask

      -h, --help
              Print help (see a summary with '-h')

    Everywhere:
          --config <FILE>
              Configuration file [default: config/postrider.toml, when it exists]

          --json
              Print data as JSON, a line each
    ");
}

#[test]
fn bad_usage_and_bad_configuration_exit_64() {
    let shop = Shop::new();
    insta::assert_snapshot!(shop.run(&["sned"]), @"
    exit 64
    --- stderr
    error: unrecognized subcommand 'sned'

      tip: some similar subcommands exist: 'sandbox', 'send'

    Usage: postrider [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(shop.run(&["dead", "list", "--reason", "bad"]), @"
    exit 64
    --- stderr
    error: invalid value 'bad' for '--reason <REASON>': it is one of malformed, rejected, refused, exhausted, expired, operator

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(shop.run(&["--config", "nowhere.toml", "queue"]), @"
    exit 64
    --- stderr
    error: the file nowhere.toml cannot be read: No such file or directory (os error 2)
    hint: name a readable TOML file with --config
    ");
    insta::assert_snapshot!(shop.run(&["queue", "--config", "nowhere.toml"]), @"
    exit 64
    --- stderr
    error: the file nowhere.toml cannot be read: No such file or directory (os error 2)
    hint: name a readable TOML file with --config
    ");
    let mut wrong = shop.command(&["queue"]);
    wrong.env("POSTRIDER_QUEUE__ULR", "amqp://ada:secret@rabbit");
    insta::assert_snapshot!(told(wrong), @"
    exit 64
    --- stderr
    error: unknown key `queue.ulr` (variable POSTRIDER_QUEUE__ULR)
    hint: did you mean POSTRIDER_QUEUE__URL?
    ");
    let mut wrong = shop.command(&["queue"]);
    wrong.env("RUST_LOG", "postrider=loud");
    insta::assert_snapshot!(told(wrong), @r#"
    exit 64
    --- stderr
    error: RUST_LOG is "postrider=loud": error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
    hint: write a level, or levels by module: `info`, `warn,postrider=debug`
    "#);
}

#[test]
fn the_schema_needs_no_configuration() {
    let shop = Shop::new();
    let mut command = shop.command(&["schema", "--config", "nowhere.toml"]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema, postrider::message::schema());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let shop = Shop::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = shop.plain(&["schema"]);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn();
    let ended = child.unwrap().wait_with_output().unwrap();
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
    assert_eq!(ended.status.code(), Some(0));
}
