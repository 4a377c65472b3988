//! Logs: text on a terminal, JSON lines elsewhere, always on stderr.
//!
//! What must not be in them is kept out where it is made: a recipient, a token and an address with
//! a password have no `Display`, and their `Debug` is masked.

use std::io::{IsTerminal, stderr};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How much is told when `RUST_LOG` does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// A service: what it does.
    Service,
    /// A command: only what is wrong; its own words are its output.
    Command,
    /// The demo provokes warnings and tells of them itself.
    Demo,
    /// The simulation provokes everything and tells of it itself.
    Simulation,
}

impl Talk {
    /// lapin and hyper tell every broken connection themselves, beside our own line about it.
    fn directives(self) -> &'static str {
        match self {
            Self::Service => "info,lapin=error,hyper=warn,reqwest=warn",
            Self::Command => "warn,lapin=off",
            Self::Demo => "error",
            Self::Simulation => "off",
        }
    }
}

/// Whether it may be told, whatever level was asked for. At its finest lapin shows whole frames: the
/// broker's password and the mail.
fn may_be_told(metadata: &Metadata<'_>) -> bool {
    *metadata.level() < Level::TRACE || !metadata.target().starts_with("lapin")
}

/// Begins to log; `directives` is what `RUST_LOG` holds, `colors` whether a terminal's user takes them. A
/// second call changes nothing.
///
/// # Errors
/// When `directives` cannot be read.
pub fn init(talk: Talk, directives: Option<&str>, colors: bool) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(directives.unwrap_or_else(|| talk.directives()))?;
    let terminal = stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(terminal && colors);
    let begun = if terminal {
        subscriber.finish().with(filter_fn(may_be_told)).try_init()
    } else {
        subscriber
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .finish()
            .with(filter_fn(may_be_told))
            .try_init()
    };
    if begun.is_err() {
        tracing::debug!("logs were begun already");
    }
    Ok(())
}
