//! What any producer may write, and no client library can read.

use postrider::outcome::Disposition;

use super::{open, receive, settle, until_standing, worker};
use crate::support::broker::{self, Version};
use crate::support::raw::{RawProducer, nested};

/// As deep as a frame of 128 KiB has room for.
const DEEPEST: usize = 26_000;

/// A client that reads such a header by recursion runs out of stack, which ends the process; the
/// message would come back and end the next one, for ever.
#[tokio::test]
async fn headers_nested_as_deep_as_a_frame_allows_harm_nobody() {
    let (queue, prefix) = worker(Version::V3_10, "nested").await;
    let mut producer = RawProducer::over(broker::shared().await.port()).await;
    for depth in [DEEPEST, 1] {
        let body = depth.to_string();
        let header = nested(depth);
        producer
            .publish_with_header(&prefix, "send", body.as_bytes(), &header)
            .await;
    }
    let mut intake = open(&queue).await;
    let deep = receive(&mut intake).await;
    assert_eq!(&*deep.body, b"26000");
    let flat = receive(&mut intake).await;
    assert_eq!(&*flat.body, b"1");
    let story = deep.story.clone();
    settle(&queue, deep, Disposition::DeadLetter { story }).await;
    settle(&queue, flat, Disposition::Complete).await;
    until_standing(&queue, &[("dead", 1)]).await;
}
