//! How a command ends when it does not end well: an exit code, what is wrong, and the next step.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::queue::QueueError;

/// Why a command stopped. Printed once, by `main`.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

/// The exit codes, after BSD's `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Nobody reads our output any more: nothing to say, and nothing wrong.
    Closed = 0,
    /// Bad usage or configuration.
    Usage = 64,
    /// Bad input data.
    Data = 65,
    /// The queue or HubSpot cannot be reached, or does not take it.
    Unavailable = 69,
    /// A fault of ours.
    Bug = 70,
    /// Ended by the operator, with work left (128 and the number of SIGINT).
    Interrupted = 130,
}

impl Failure {
    pub(super) fn new(exit: Exit, problem: impl Into<String>) -> Self {
        Self {
            exit,
            problem: problem.into(),
            hint: None,
        }
    }

    pub(super) fn usage(problem: impl Into<String>) -> Self {
        Self::new(Exit::Usage, problem)
    }

    pub(super) fn bug(problem: impl Into<String>) -> Self {
        Self::new(Exit::Bug, problem).hint("please report it, with the command and this text")
    }

    /// Of a file that the command line names.
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let problem = format!("{} cannot be read: {error}", path.display());
        Self::new(Exit::Data, problem).hint("name a readable file, or `-` for standard input")
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it on stderr.
    pub(super) fn tell(&self) -> ExitCode {
        if self.exit != Exit::Closed {
            let mut text = format!("error: {}\n", self.problem);
            if let Some(hint) = &self.hint {
                text = format!("{text}hint: {hint}\n");
            }
            // Where stderr is closed there is nobody left to tell.
            io::stderr().write_all(text.as_bytes()).ok();
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.problem).hint(error.hint)
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        let exit = if matches!(error, QueueError::Mismatch { .. }) {
            Exit::Usage
        } else {
            Exit::Unavailable
        };
        Self::new(exit, error.to_string()).hint(error.hint())
    }
}

/// Of writing to stdout: a reader that went away is no error (`dead list | head`).
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Exit::Closed, "")
        } else {
            Self::new(
                Exit::Unavailable,
                format!("the output cannot be written: {error}"),
            )
        }
    }
}
