//! `sandbox check`: a log of calls, held against a limit.

use super::shop::Shop;

fn line(at: u32, status: u16) -> String {
    format!("{{\"at\":1764000000{at:03}.5,\"portal\":1,\"bucket\":\"send\",\"status\":{status}}}\n")
}

#[test]
fn a_log_is_held_against_a_limit() {
    let shop = Shop::new();
    let even: String = [0, 100, 200, 300].map(|at| line(at, 200)).concat();
    shop.write("even.jsonl", &even);
    insta::assert_snapshot!(shop.run(&["sandbox", "check", "even.jsonl", "--limit", "2/200ms"]), @"
    exit 0
    --- stdout
    portal 1, send: 4 calls in 0.3 s, 0 answered 429; of 2/200ms at most 2 in a window, at least 2; from a call to number 2 behind it at most 0.200 s
    ");
    shop.write("close.jsonl", &format!("{even}{}", line(320, 429)));
    let over = ["sandbox", "check", "close.jsonl", "--limit", "2/200ms"];
    insta::assert_snapshot!(shop.run(&over), @"
    exit 65
    --- stdout
    portal 1, send: 5 calls in 0.3 s, 1 answered 429; of 2/200ms at most 3 in a window, at least 2; from a call to number 2 behind it at most 0.200 s
    --- stderr
    error: 1 call on top of a full window of 2/200ms
    hint: whoever called is over the limit: HubSpot answers 429 from there on
    ");
    let json = [&over[..], &["--json", "--bucket", "api"]].concat();
    insta::assert_snapshot!(shop.run(&json), @"
    exit 0
    --- stderr
    no such call
    ");
}

#[test]
fn a_log_that_is_none_is_refused() {
    let shop = Shop::new();
    shop.write("bad.jsonl", &format!("{}\nnonsense\n", line(0, 200)));
    let told = shop.run(&["sandbox", "check", "bad.jsonl", "--limit", "2/1s"]);
    assert!(told.starts_with("exit 65"), "{told}");
    assert!(told.contains("line 3 of bad.jsonl is no call"), "{told}");
    let told = shop.run(&["sandbox", "check", "absent.jsonl", "--limit", "2/1s"]);
    assert!(told.contains("absent.jsonl cannot be read"), "{told}");
    let told = shop.run(&["sandbox", "check", "bad.jsonl"]);
    assert!(told.starts_with("exit 64"), "{told}");
}
