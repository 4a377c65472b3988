//! What a command says: data on stdout, talk on stderr.

use std::fmt::Display;
use std::io::{self, BufRead, BufWriter, IsTerminal, Stdout, Write, stderr, stdin, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::failure::Failure;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// The one place that writes to stdout.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) json: bool,
    colored: bool,
    /// A person watches: each line is shown at once.
    watched: bool,
    stdout: BufWriter<Stdout>,
}

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
    Quiet,
}

impl Output {
    pub(super) fn new(json: bool, colors: bool) -> Self {
        let watched = stdout().is_terminal();
        Self {
            json,
            colored: colors && watched,
            watched,
            stdout: BufWriter::new(stdout()),
        }
    }

    /// One line of data.
    pub(super) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.stdout, "{text}")?;
        if self.watched {
            self.stdout.flush()?;
        }
        Ok(())
    }

    /// One line of JSON.
    pub(super) fn object(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.stdout, value)?;
        self.line("")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    pub(super) fn paint(&self, mood: Mood, text: &str) -> String {
        if !self.colored {
            return text.to_owned();
        }
        let color = match mood {
            Mood::Good => "32",
            Mood::Bad => "31",
            Mood::Quiet => "2",
        };
        format!("\x1b[{color}m{text}\x1b[0m")
    }
}

/// One line of talk.
pub(super) fn talk(text: impl Display) {
    // Where stderr is closed there is nobody left to tell.
    writeln!(stderr(), "{text}").ok();
}

/// Asks for a yes. Where nobody can answer, it is a no that names `--yes`.
pub(super) fn confirm(question: &str) -> Result<bool, Failure> {
    if !stdin().is_terminal() {
        return Err(
            Failure::usage(format!("nobody is there to answer: {question}"))
                .hint("add --yes to say yes beforehand, or --dry-run to look first"),
        );
    }
    write!(stderr(), "{question} [y/N] ")?;
    stderr().flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// `1 request`, `2 requests`.
pub(super) fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A bar, or a spinner when nobody knows the length. Hidden where stderr is no terminal.
pub(super) fn progress(length: Option<u64>, what: &'static str) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{msg} {wide_bar} {pos}/{len} {per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {msg} {pos} {per_sec}",
        ),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(TICK);
    bar
}
