//! `dead`: listed, explained, replayed, discarded.

use postrider::outcome::DeadReason;

use super::shop::Shop;

#[test]
fn dead_letters_are_listed_and_grouped() {
    let shop = Shop::new();
    insta::assert_snapshot!(shop.run(&["dead", "list"]), @"
    exit 69
    --- stderr
    error: there is no queue at sqlite:SHOP/postrider.db
    hint: run this in the worker's folder, or set queue.url to the worker's
    ");
    shop.bury(&[
        ("order-1", DeadReason::Rejected),
        ("order-2", DeadReason::Refused),
        ("order-3", DeadReason::Rejected),
    ]);
    insta::assert_snapshot!(shop.run(&["dead", "list"]), @"
    exit 0
    --- stdout
    DIED                  REASON     ACCOUNT   TEMPLATE       ID  PROBLEM
    2026-05-01T12:00:00Z  rejected   default   4126643121     order-1  the recipient bounced before
    2026-05-01T12:00:01Z  refused    default   4126643121     order-2  the recipient bounced before
    2026-05-01T12:00:02Z  rejected   default   4126643121     order-3  the recipient bounced before
    ");
    insta::assert_snapshot!(shop.run(&["dead", "list", "--json", "--limit", "1"]), @r#"
    exit 0
    --- stdout
    {"id":"order-1","reason":"rejected","at":"2026-05-01T12:00:00Z","account":"default","email_id":4126643121,"problem":"the recipient bounced before","hint":"correct the address, then replay","words":{"status":200,"correlation_id":"aaaaaaaa-1111"},"attempts":1,"replays":0}
    "#);
    insta::assert_snapshot!(shop.run(&["dead", "list", "--reason", "refused"]), @"
    exit 0
    --- stdout
    DIED                  REASON     ACCOUNT   TEMPLATE       ID  PROBLEM
    2026-05-01T12:00:01Z  refused    default   4126643121     order-2  the recipient bounced before
    ");
    insta::assert_snapshot!(shop.run(&["dead", "list", "--group"]), @"
    exit 0
    --- stdout
       COUNT  REASON     TEMPLATE       OLDEST                NEWEST
           2  rejected   4126643121     2026-05-01T12:00:00Z  2026-05-01T12:00:02Z
           1  refused    4126643121     2026-05-01T12:00:01Z  2026-05-01T12:00:01Z
    ");
    insta::assert_snapshot!(shop.run(&["dead", "list", "--newer-than", "7d"]), @"
    exit 0
    --- stdout
    DIED                  REASON     ACCOUNT   TEMPLATE       ID  PROBLEM
    ");
    insta::assert_snapshot!(
        shop.run(&["dead", "list", "--json", "--group", "--email-id", "4126643121"]), @r#"
    exit 0
    --- stdout
    {"reason":"rejected","email_id":4126643121,"count":2,"oldest":"2026-05-01T12:00:00Z","newest":"2026-05-01T12:00:02Z"}
    {"reason":"refused","email_id":4126643121,"count":1,"oldest":"2026-05-01T12:00:01Z","newest":"2026-05-01T12:00:01Z"}
    "#);
}

#[test]
fn a_dead_letter_explains_itself() {
    let shop = Shop::new();
    shop.bury(&[("order-1", DeadReason::Refused)]);
    insta::assert_snapshot!(shop.run(&["dead", "show", "order-1"]), @r#"
    exit 0
    --- stdout
    order-1  refused
      problem        the recipient bounced before
      what to do     correct the address, then replay
      died           2026-05-01T12:00:00Z
      published      2026-05-01T12:00:00Z
      account        default
      template       4126643121
      priority       normal
      status         200
      sendResult     PREVIOUSLY_BOUNCED
      correlation    aaaaaaaa-1111
      on replay      sendId order-1.r2
      attempt 1      2026-05-01T12:00:00Z  accepted   42 ms  200  PREVIOUSLY_BOUNCED  aaaaaaaa-1111
      body           82 bytes
    {
      "emailId": 4126643121,
      "message": {
        "sendId": "order-1",
        "to": "ada@example.com"
      }
    }
    "#);
    insta::assert_snapshot!(shop.run(&["dead", "show", "order-9"]), @"
    exit 65
    --- stderr
    error: there is no dead letter order-9
    hint: `postrider dead list` prints the ids of those that stand
    ");
    let mut command = shop.command(&["dead", "show", "order-1", "--json"]);
    let whole: serde_json::Value =
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(whole["body"]["message"]["sendId"], "order-1");
    assert_eq!(whole["story"]["attempts"][0]["outcome"], "accepted");
}

#[test]
fn replay_asks_and_tells_which_ids_change() {
    let shop = Shop::new();
    shop.bury(&[
        ("order-1", DeadReason::Exhausted),
        ("order-2", DeadReason::Refused),
        ("order-3", DeadReason::Exhausted),
    ]);
    insta::assert_snapshot!(shop.run(&["dead", "replay"]), @"
    exit 64
    --- stderr
    error: dead replay: which ones?
    hint: name ids, or filters such as --reason rejected, or --all
    ");
    insta::assert_snapshot!(shop.run(&["dead", "replay", "--all"]), @"
    exit 64
    --- stderr
    error: nobody is there to answer: Replay 3 dead letters?
    hint: add --yes to say yes beforehand, or --dry-run to look first
    ");
    insta::assert_snapshot!(shop.run(&["dead", "replay", "--all", "--dry-run"]), @"
    exit 0
    --- stdout
    2026-05-01T12:00:00Z  exhausted  default   4126643121     order-1  the recipient bounced before
    2026-05-01T12:00:01Z  refused    default   4126643121     order-2  the recipient bounced before
    2026-05-01T12:00:02Z  exhausted  default   4126643121     order-3  the recipient bounced before
    --- stderr
    3 would be replayed
    ");
    assert_eq!(shop.depth("dead"), 3, "nothing was done so far");
    insta::assert_snapshot!(shop.run(&["dead", "replay", "order-3"]), @"
    exit 0
    --- stderr
    1 replayed
    ");
    insta::assert_snapshot!(shop.run(&["dead", "replay", "order-3"]), @"
    exit 65
    --- stderr
    error: there is no dead letter order-3
    hint: `postrider dead list` prints the ids of those that stand
    ");
    insta::assert_snapshot!(shop.run(&["dead", "replay", "--all", "--yes"]), @"
    exit 0
    --- stderr
    2 replayed
    1 had a final refusal: HubSpot has used their sendId up, so they take a new one, such as order-2.r2
    ");
    assert_eq!(shop.depth("dead"), 0);
    assert_eq!(shop.depth("send.default.normal"), 3);
}

#[test]
fn discard_asks_also_for_one() {
    let shop = Shop::new();
    shop.bury(&[
        ("order-1", DeadReason::Rejected),
        ("order-2", DeadReason::Expired),
    ]);
    insta::assert_snapshot!(shop.run(&["dead", "discard", "order-1"]), @"
    exit 64
    --- stderr
    error: nobody is there to answer: Discard 1 dead letter?
    hint: add --yes to say yes beforehand, or --dry-run to look first
    ");
    insta::assert_snapshot!(
        shop.run(&["dead", "discard", "--reason", "rejected", "--yes", "--json"]), @r#"
    exit 0
    --- stdout
    {"visited":2,"replayed":0,"discarded":1}
    --- stderr
    1 discarded
    "#);
    assert_eq!(shop.depth("dead"), 1);
    insta::assert_snapshot!(
        shop.run(&["dead", "discard", "--reason", "rejected", "--yes"]), @"
    exit 0
    --- stderr
    no dead letter matches; 0 discarded
    ");
}

#[test]
fn an_unknown_id_is_named_whatever_is_asked() {
    let shop = Shop::new();
    shop.bury(&[("order-1", DeadReason::Rejected)]);
    for deed in ["replay", "discard"] {
        let told = shop.run(&["dead", deed, "order-1", "nope", "--dry-run"]);
        assert!(told.starts_with("exit 65\n"), "{told}");
        assert!(told.contains("no dead letter nope\n"), "{told}");
    }
    insta::assert_snapshot!(shop.run(&["dead", "replay", "order-1", "nope"]), @"
    exit 64
    --- stderr
    there is no dead letter nope
    error: nobody is there to answer: Replay 1 dead letter?
    hint: add --yes to say yes beforehand, or --dry-run to look first
    ");
    assert_eq!(shop.depth("dead"), 1);
    insta::assert_snapshot!(shop.run(&["dead", "replay", "order-1", "nope", "--yes"]), @"
    exit 65
    --- stderr
    1 replayed
    error: there is no dead letter nope
    hint: `postrider dead list` prints the ids of those that stand
    ");
    insta::assert_snapshot!(shop.run(&["dead", "discard", "nope", "nor-this"]), @"
    exit 65
    --- stderr
    error: there is no dead letter nope, nor-this
    hint: `postrider dead list` prints the ids of those that stand
    ");
}
