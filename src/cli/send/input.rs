//! The input of `send`: one JSON object, over as many lines as it likes, or JSON Lines.

use std::io::{self, BufRead, Read};

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::message::{
    AccountName, BODY_BYTES_MAX, Environment, Malformed, MessageId, Priority, SendRequest,
};
use crate::queue::Parcel;
use crate::story::Story;

/// How much of one line, or of one object, is read: the largest body and the end of its line.
const LINE_BYTES_MAX: u64 = BODY_BYTES_MAX as u64 + 2;
/// What some editors and spreadsheets put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is taken where a request does not say.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub(super) account: AccountName,
    pub(super) priority: Priority,
    /// A request that is marked for another one is refused.
    pub(super) environment: Environment,
}

/// The requests of an input, one after the other; never more than one in memory.
pub(super) struct Requests<R> {
    reader: R,
    defaults: Defaults,
    /// How many lines were read.
    lines: u64,
    begun: bool,
}

/// One request, or why it is none.
pub(super) struct Entry {
    /// Where it begins, from 1.
    pub(super) line: u64,
    pub(super) request: Result<Ready, Malformed>,
}

/// A valid request, ready to be published.
#[derive(Clone)]
pub(super) struct Ready {
    pub(super) id: MessageId,
    pub(super) parcel: Parcel,
}

impl<R: BufRead> Requests<R> {
    pub(super) fn new(reader: R, defaults: Defaults) -> Self {
        Self {
            reader,
            defaults,
            lines: 0,
            begun: false,
        }
    }

    fn read(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let mut text = Vec::new();
            let Some(mut whole) = self.read_line(&mut text)? else {
                return Ok(None);
            };
            let line = self.lines;
            if text.trim_ascii().is_empty() {
                continue;
            }
            let first = !std::mem::replace(&mut self.begun, true);
            if first && whole && is_unfinished(&text) {
                whole = self.read_rest(&mut text)?;
            }
            let request = if whole {
                self.ready(text.trim_ascii())
            } else {
                Err(too_large())
            };
            return Ok(Some(Entry { line, request }));
        }
    }

    /// Reads the next line, and tells whether it is whole: of one that is too long, the beginning
    /// is read and the rest is passed over. `None` at the end.
    fn read_line(&mut self, text: &mut Vec<u8>) -> io::Result<Option<bool>> {
        let read = (self.reader.by_ref().take(LINE_BYTES_MAX)).read_until(b'\n', text)?;
        if read == 0 {
            return Ok(None);
        }
        self.lines += 1;
        if self.lines == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        let whole = text.ends_with(b"\n") || (read as u64) < LINE_BYTES_MAX;
        if !whole {
            self.reader.skip_until(b'\n')?;
        }
        Ok(Some(whole))
    }

    /// An object that does not end in its line goes on to the end of the input.
    fn read_rest(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        let read = (self.reader.by_ref().take(LINE_BYTES_MAX)).read_to_end(text)?;
        Ok((read as u64) < LINE_BYTES_MAX)
    }

    fn ready(&self, body: &[u8]) -> Result<Ready, Malformed> {
        if body.starts_with(b"[") {
            return Err(Malformed::new(
                "a list is no request",
                "write one request a line: `jq -c '.[]' FILE`",
            ));
        }
        let (request, minted) = SendRequest::parse_or_mint(body)?;
        let request = request.meant_for(&self.defaults.environment)?;
        let priority = request.priority.unwrap_or(self.defaults.priority);
        Ok(Ready {
            parcel: Parcel {
                body: Bytes::copy_from_slice(body),
                message_id: minted.map(String::from),
                account: request
                    .account
                    .unwrap_or_else(|| self.defaults.account.clone()),
                priority,
                story: Story {
                    priority,
                    ..Story::default()
                },
            },
            id: request.id,
        })
    }
}

impl<R: BufRead> Iterator for Requests<R> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Whether this is JSON that stops before its end.
fn is_unfinished(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_err_and(|error| error.is_eof())
}

fn too_large() -> Malformed {
    Malformed::new(
        format!("the body has more than {BODY_BYTES_MAX} bytes"),
        "put large content into the template, not into its properties",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line, and id or problem, of each entry.
    fn read(input: &str) -> Vec<(u64, String)> {
        let defaults = Defaults {
            account: AccountName::default(),
            priority: Priority::Low,
            environment: Environment::default(),
        };
        Requests::new(input.as_bytes(), defaults)
            .map(|entry| {
                let entry = entry.unwrap();
                let told = match entry.request {
                    Ok(ready) => ready.id.to_string(),
                    Err(malformed) => malformed.problem,
                };
                (entry.line, told)
            })
            .collect()
    }

    fn request(id: &str) -> String {
        format!(r#"{{"emailId": 1, "message": {{"to": "ada@example.com", "sendId": "{id}"}}}}"#)
    }

    #[test]
    fn lines_are_requests_and_blank_ones_are_not() {
        let input = format!("\n{}\n\n  \n{}", request("a"), request("b"));
        assert_eq!(read(&input), [(2, "a".into()), (5, "b".into())]);
        assert_eq!(read(""), []);
        assert_eq!(read("\n\n"), []);
    }

    #[test]
    fn one_object_may_go_over_many_lines() {
        let pretty = request("a").replace(", ", ",\n  ");
        assert_eq!(read(&format!("\n{pretty}\n")), [(2, "a".into())]);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let lines = format!("\u{feff}{}\n{}\n", request("a"), request("b"));
        assert_eq!(read(&lines), [(1, "a".into()), (2, "b".into())]);
        let pretty = request("a").replace(", ", ",\n  ");
        assert_eq!(read(&format!("\u{feff}{pretty}\n")), [(1, "a".into())]);
        assert_eq!(read("\u{feff}"), []);
    }

    #[test]
    fn a_bad_line_does_not_spoil_the_next_one() {
        let input = format!("{}\n{{\"emailId\": \n{}\n", request("a"), request("b"));
        let read = read(&input);
        assert_eq!(read[0], (1, "a".into()));
        assert!(read[1].1.contains("not JSON"), "{read:?}");
        assert_eq!(read[2], (3, "b".into()));
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let long = format!(
            "{}\n{}\n{}\n",
            request("a"),
            "x".repeat(3 * BODY_BYTES_MAX),
            request("b")
        );
        let read = read(&long);
        assert_eq!(read[0], (1, "a".into()));
        assert!(read[1].1.contains("more than"), "{read:?}");
        assert_eq!(read[2], (3, "b".into()));
    }

    #[test]
    fn an_id_is_minted_beside_the_body_and_defaults_fill_in() {
        let defaults = Defaults {
            account: AccountName::parse("shop").unwrap(),
            priority: Priority::Low,
            environment: Environment::default(),
        };
        let input = br#"{"emailId": 1, "message": {"to": "ada@example.com"}}"#;
        let ready = Requests::new(input.as_slice(), defaults)
            .next()
            .unwrap()
            .unwrap()
            .request
            .unwrap();
        assert_eq!(ready.parcel.message_id.as_deref(), Some(ready.id.as_str()));
        assert_eq!(ready.parcel.body.as_ref(), input);
        assert_eq!(ready.parcel.account.as_str(), "shop");
        assert_eq!(ready.parcel.priority, Priority::Low);
    }
}
