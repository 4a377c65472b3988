//! `postrider auth migrate`: from an API key, which is dead, to a service key.
//!
//! It reads the configuration without loading it: an API key in there is the very reason to ask.

use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::config::{HAPIKEY_DEAD_SINCE, HapikeyPlaces, Sources, hapikey_places};

/// What HubSpot's own pages call the places was looked up in 2026.
const STEPS: [(&str, &str); 6] = [
    (
        "Make a service key",
        "In the HubSpot account: Development > Keys > Service keys > Create service key. Super admins \
         may, and users with developer tools access. One key for each account of Postrider's.",
    ),
    (
        "Give it these scopes, and no more",
        "transactional-email: to send (with api = \"marketing\", marketing-email will do).\n\
         oauth, where it is offered: to read the portal's number and its time zone, so that no mail \
         leaves for another portal, and the day ends at the right midnight.\n\
         content: only for `postrider check --email-id`, which looks at a template.\n\
         If transactional-email is not offered, the account lacks HubSpot's Transactional Email add-on, \
         or its service keys cannot have the scope: then use OAuth, or a project app's token \
         (docs/accounts.md).",
    ),
    (
        "Hand it over in a file",
        "umask 077; write the key (it begins with pat-) into a file of its own, for example \
         /etc/postrider/hubspot-token, owned by the user that runs Postrider, mode 600. Set \
         accounts.NAME.token_file to that path. Not in an argument, and not in a variable if it can be \
         helped: others see those.",
    ),
    (
        "Take the API key out",
        "Remove it from every place that is named above. Postrider refuses to start while one is left.",
    ),
    (
        "Try it without sending",
        "postrider check: it says which portal the key opens and which scopes it has. Set \
         accounts.NAME.portal_id to that portal.",
    ),
    (
        "Send one",
        "Send one request to yourself with `postrider send`, and look at it with `postrider trace ID`. \
         What was waiting in the queue needs nothing: it goes out under the same sendId.",
    ),
];

pub(super) fn run(sources: &Sources, output: &mut Output) -> Result<(), Failure> {
    let places = hapikey_places(sources);
    if output.json {
        let steps: Vec<_> = STEPS
            .iter()
            .map(|(step, how)| json!({"step": step, "how": how}))
            .collect();
        output.object(&json!({
            "dead_since": HAPIKEY_DEAD_SINCE,
            "found": places.found,
            "unread": places.unread,
            "steps": steps,
        }))?;
    } else {
        tell(&places, output)?;
    }
    if places.unread.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "not all was looked through: {}",
        places.unread.join("; ")
    ))
    .hint(
        "mend what is named, or correct its path, and run this again: an API key may stand there",
    ))
}

fn tell(places: &HapikeyPlaces, output: &mut Output) -> Result<(), Failure> {
    output.line(format_args!(
        "HubSpot's API keys (hapikey) died on {HAPIKEY_DEAD_SINCE}: every call with one is refused."
    ))?;
    output.line("")?;
    if !places.found.is_empty() {
        output.line("One stands in:")?;
        for place in &places.found {
            output.line(format_args!("  {place}"))?;
        }
    } else if places.unread.is_empty() {
        output.line("None was found in the configuration or in the environment.")?;
    } else {
        output.line("None was found so far, and not all could be looked through.")?;
    }
    for (number, (step, how)) in (1..).zip(STEPS) {
        output.line(format_args!("\n{number}. {step}"))?;
        for line in how.lines().flat_map(wrapped) {
            output.line(format_args!("   {line}"))?;
        }
    }
    Ok(())
}

/// Lines of at most 90 characters.
fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 90;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let is_full = lines
            .last()
            .is_some_and(|line| line.len() + word.len() >= WIDTH);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
