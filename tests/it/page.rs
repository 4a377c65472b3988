//! The sandbox's page, as a real browser shows it.

use std::process::Stdio;
use std::time::Duration;

use postrider::sandbox::Options;
use tokio::process::Command;

const CHROMIUM: &str = "/usr/bin/chromium";
/// A cold browser on a busy machine takes its time.
const BROWSER_TIMEOUT: Duration = Duration::from_mins(1);

/// The page's DOM after its scripts have run.
async fn dom(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let profile_arg = format!("--user-data-dir={}", profile.path().display());
    let browser = Command::new(CHROMIUM)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--virtual-time-budget=4000",
            &profile_arg,
            "--dump-dom",
            url,
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(BROWSER_TIMEOUT, browser)
        .await
        .expect("the browser ends")
        .expect("chromium is installed: run ./test");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_shows_each_mail_with_its_result_and_never_runs_what_is_in_it() {
    let sandbox = crate::sandbox::start(Options {
        results_after: "1ms".parse().unwrap(),
        ..Options::default()
    })
    .await;
    let hostile = "\"<img src=x onerror=alert(1)>\"@example.com";
    for (to, id) in [
        ("ada@example.com", "order-1"),
        ("bob+PREVIOUSLY_BOUNCED@example.com", "order-2"),
        ("ada@example.com", "<script>document.title='run'</script>"),
        (hostile, "order-4"),
    ] {
        sandbox.send(to, id).await.unwrap();
    }
    let dom = dom(&sandbox.base).await;
    let rows = dom.split("<tbody id=\"mail\">").nth(1).unwrap();
    let rows = rows.split("</tbody>").next().unwrap();
    for shown in [
        "order-1",
        "ada@example.com",
        "SENT",
        "order-2",
        "PREVIOUSLY_BOUNCED",
    ] {
        assert!(rows.contains(shown), "{shown} is not in the inbox: {rows}");
    }
    assert!(rows.contains("&lt;script&gt;"), "{rows}");
    assert!(
        !rows.contains("<script") && !rows.contains("<img"),
        "{rows}"
    );
    assert!(!dom.contains("<title>run</title>"));
}
