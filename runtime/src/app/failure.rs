//! What a run can fail with, as data that a command line renders. The wording of `llamac` and `llamac-run` is the same.

use crate::artifact::ArtifactError;
use crate::session::SessionError;
use std::fmt;
use std::io;
use std::path::Path;

/// A message for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A word that scripts can match.
    pub code: &'static str,
    /// One sentence without a full stop: what is wrong.
    pub what: String,
    /// The file that is meant, if one is.
    pub place: Option<String>,
    /// What to do next.
    pub help: String,
}

impl Failure {
    /// An artifact that cannot be used.
    pub fn artifact(path: &Path, error: &ArtifactError) -> Failure {
        Failure { code: error.code(), what: error.to_string(), place: Some(path.display().to_string()), help: error.help() }
    }

    /// A session that cannot do what was asked.
    pub fn session(path: &Path, error: &SessionError) -> Failure {
        Failure { code: error.code(), what: error.to_string(), place: Some(path.display().to_string()), help: error.help() }
    }

    /// A file or stream that cannot be read or written.
    pub fn io(what: &str, place: &str, error: &io::Error) -> Failure {
        Failure {
            code: "io",
            what: format!("{what}: {error}"),
            place: Some(place.to_owned()),
            help: "check the path and its permissions".to_owned(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.what)?;
        if let Some(place) = &self.place {
            write!(f, "\n  in:       {place}")?;
        }
        write!(f, "\n  help:     {}", self.help)
    }
}

impl std::error::Error for Failure {}
