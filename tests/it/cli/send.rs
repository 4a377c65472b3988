//! `send`: what is durable, what is refused, and how it says so.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;

use super::shop::{Shop, interrupt, request, told, wait_until};

#[test]
fn send_takes_one_object_and_json_lines() {
    let shop = Shop::new();
    shop.write("one.json", &request("order-1").replace(", ", ",\n  "));
    insta::assert_snapshot!(shop.run(&["send", "one.json"]), @"
    exit 0
    --- stderr
    sqlite:SHOP/postrider.db is a new queue
    request order-1 is durable in sqlite:SHOP/postrider.db
    ");
    let lines = format!("{}\n\n{}\n", request("order-2"), request("order-3"));
    shop.write("lines.jsonl", &lines);
    insta::assert_snapshot!(shop.run(&["send", "lines.jsonl", "--json"]), @r#"
    exit 0
    --- stdout
    {"line":1,"id":"order-2","status":"durable"}
    {"line":3,"id":"order-3","status":"durable"}
    --- stderr
    2 requests are durable in sqlite:SHOP/postrider.db
    "#);
    let mut stream = shop.command(&["send", "--priority", "high"]);
    stream.write_stdin(lines);
    insta::assert_snapshot!(told(stream), @"
    exit 0
    --- stderr
    2 requests are durable in sqlite:SHOP/postrider.db
    ");
    assert_eq!(shop.depth("send.default.normal"), 3);
    assert_eq!(shop.depth("send.default.high"), 2);
}

#[test]
fn send_mints_an_id_beside_the_body() {
    let shop = Shop::new();
    shop.write(
        "one.json",
        r#"{"emailId": 7, "message": {"to": "ada@example.com"}}"#,
    );
    insta::assert_snapshot!(shop.run(&["send", "one.json"]), @"
    exit 0
    --- stderr
    sqlite:SHOP/postrider.db is a new queue
    request UUID is durable in sqlite:SHOP/postrider.db
    ");
}

#[test]
fn a_file_with_a_bad_line_is_not_published_at_all() {
    let shop = Shop::new();
    let bad = format!(
        "{}\n{{\"emailId\": \n{}\n{}\n[]\n",
        request("order-1"),
        request("order-2").replace("emailId", "emialId"),
        request("order-3").replace("ada@", "noreply@"),
    );
    shop.write("bad.jsonl", &bad);
    insta::assert_snapshot!(shop.run(&["send", "bad.jsonl"]), @"
    exit 65
    --- stderr
    line 2: the body is not JSON (line 1 column 11)
      hint: publish one JSON object in each message
    line 3: the body is no request: unknown field `emialId`, expected one of `emailId`, `message`, `contactProperties`, `customProperties`, `dispatch` at line 1 column 10
      hint: did you mean `emailId`?
    line 4: message.to begins with `noreply@`: HubSpot refuses role addresses
      hint: send to a person's address
    line 5: a list is no request
      hint: write one request a line: `jq -c '.[]' FILE`
    error: 4 of 5 requests in bad.jsonl are bad; nothing was published
    hint: correct them and send the file again
    ");
    assert!(!shop.exists("postrider.db"));
    insta::assert_snapshot!(shop.run(&["send", "nowhere.jsonl"]), @"
    exit 65
    --- stderr
    error: nowhere.jsonl cannot be read: No such file or directory (os error 2)
    hint: name a readable file, or `-` for standard input
    ");
    insta::assert_snapshot!(shop.run(&["send", "."]), @"
    exit 65
    --- stderr
    error: . cannot be read: is a directory
    hint: name a readable file, or `-` for standard input
    ");
}

#[test]
fn of_a_stream_the_good_lines_are_published_and_the_bad_ones_told() {
    let shop = Shop::new();
    let mut stream = shop.command(&["send", "-", "--json"]);
    stream.write_stdin(format!(
        "{}\n{}\n{}",
        request("order-1"),
        request("order-2").replace("4126643121", "\"secret-text\""),
        request("order-3"),
    ));
    let told = told(stream);
    assert!(told.starts_with("exit 65\n"), "{told}");
    assert!(!told.contains("secret-text"), "{told}");
    assert_eq!(told.matches(r#""status":"durable""#).count(), 2, "{told}");
    assert_eq!(told.matches(r#""status":"refused""#).count(), 1, "{told}");
    assert_eq!(shop.depth("send.default.normal"), 2);
}

#[test]
fn nothing_to_send_is_said_and_no_error() {
    let shop = Shop::new();
    insta::assert_snapshot!(shop.run(&["send"]), @"
    exit 0
    --- stderr
    sqlite:SHOP/postrider.db is a new queue
    nothing was published
    ");
}

#[test]
fn a_broker_that_is_not_there_exits_69_and_keeps_its_password() {
    let shop = Shop::new();
    let mut command = shop.command(&["queue"]);
    // Nothing listens on a port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    command.env(
        "POSTRIDER_QUEUE__URL",
        format!("amqp://ada:secret@127.0.0.1:{port}/mail"),
    );
    let told = told(command).replace(&port.to_string(), "PORT");
    insta::assert_snapshot!(told, @"
    exit 69
    --- stderr
    error: the queue at 127.0.0.1:PORT/mail cannot be reached: IO error: Connection refused (os error 111)
    hint: check queue.url and that the broker runs; nothing is lost meanwhile
    ");
}

#[test]
fn many_requests_are_all_durable_before_send_ends() {
    let shop = Shop::new();
    shop.write("many.jsonl", &many(2_000));
    insta::assert_snapshot!(shop.run(&["send", "many.jsonl"]), @"
    exit 0
    --- stderr
    sqlite:SHOP/postrider.db is a new queue
    2000 requests are durable in sqlite:SHOP/postrider.db
    ");
    assert_eq!(shop.depth("send.default.normal"), 2_000);
}

#[test]
fn an_interrupted_send_says_what_is_durable() {
    let shop = Shop::new();
    let mut child = shop.spawn(&["send", "-", "--json"]);
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", request("order-1")).unwrap();
    wait_until(|| shop.exists("postrider.db") && shop.depth("send.default.normal") == 1);
    interrupt(&child);
    let ended = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(ended.status.code(), Some(130));
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert!(stderr.contains("request order-1 is durable"), "{stderr}");
}

#[test]
fn an_output_that_nobody_reads_does_not_stop_the_publishing() {
    let shop = Shop::new();
    shop.write("many.jsonl", &many(2_000));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = shop.plain(&["send", "many.jsonl", "--json"]);
    let ended = command.stdout(writer).output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert!(stderr.contains("2000 requests are durable"), "{stderr}");
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(shop.depth("send.default.normal"), 2_000);
}

/// Few lines fit into the buffer and fail at the end; many fail on the way.
#[test]
fn an_output_that_is_full_is_told_after_everything_is_published() {
    for number in [2, 2_000] {
        let shop = Shop::new();
        shop.write("many.jsonl", &many(number));
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = shop.plain(&["send", "many.jsonl", "--json"]);
        let ended = command.stdout(full).output().unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        let durable = format!("{number} requests are durable");
        assert!(stderr.contains("the output cannot be written"), "{stderr}");
        assert!(stderr.contains(&durable), "{stderr}");
        assert_eq!(ended.status.code(), Some(69));
        assert_eq!(shop.depth("send.default.normal"), number);
    }
}

#[test]
fn bad_lines_are_bad_also_when_nobody_reads_them() {
    let shop = Shop::new();
    shop.write("bad.jsonl", &"nonsense\n".repeat(500));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = shop.plain(&["send", "bad.jsonl", "--json"]);
    let ended = command.stdout(writer).output().unwrap();
    assert_eq!(ended.status.code(), Some(65));
}

fn many(number: u64) -> String {
    (0..number)
        .map(|n| request(&format!("order-{n}")) + "\n")
        .collect()
}
