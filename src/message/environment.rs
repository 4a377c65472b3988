//! Development, QA, production: a request may name the only one in which it is taken.

use std::fmt;
use std::sync::Arc;

use super::{Malformed, SendRequest};
use crate::hint;

/// The longest name of an environment, in characters.
const NAME_CHARS_MAX: usize = 30;
/// The environment in which mail goes to whom the request says.
const PRODUCTION: &str = "production";

/// An environment's name. Shared: every account's dispatch has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Environment(Arc<str>);

impl Environment {
    /// # Errors
    /// [`Malformed`] unless it is `[a-z0-9-]`, 1 to 30 long.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        let fits = (1..=NAME_CHARS_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        fits.then(|| Self(name.into())).ok_or_else(|| Malformed {
            told: Some("dispatch.environment is no name of an environment".into()),
            ..Malformed::new(
                format!("`{}` is no name of an environment", hint::shown(name)),
                format!("lower-case letters, digits and `-`, 1 to {NAME_CHARS_MAX}"),
            )
        })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_production(&self) -> bool {
        self.as_str() == PRODUCTION
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self(PRODUCTION.into())
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SendRequest {
    /// The request, if it is marked for no other environment than `ours`.
    ///
    /// # Errors
    /// [`Malformed`] that names both.
    pub fn meant_for(self, ours: &Environment) -> Result<Self, Malformed> {
        match &self.environment {
            Some(marked) if marked != ours => {
                let problem = format!(
                    "dispatch.environment is \"{marked}\", and this is the environment \"{ours}\""
                );
                Err(Malformed {
                    id: Some(self.id.clone()),
                    // Two names that are none but names.
                    told: Some(problem.clone()),
                    ..Malformed::new(
                        problem,
                        "publish it to the queue of its own environment, or leave \
                         dispatch.environment out",
                    )
                })
            }
            _ => Ok(self),
        }
    }
}
