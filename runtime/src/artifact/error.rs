//! What can be wrong with an artifact when it is opened. Facts only; the command line adds where and what to do.

use std::fmt;
use std::path::PathBuf;

/// Why an artifact cannot be used.
#[derive(Debug)]
pub enum ArtifactError {
    /// The operating system refused: opening, reading or mapping.
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as a verb: `open`, `map` ...
        action: &'static str,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The file starts with other bytes.
    NotAnArtifact {
        /// Its first bytes, at most 8.
        found: Vec<u8>,
    },
    /// Written on a machine of the other endianness.
    ForeignEndian,
    /// The file is shorter than its header says.
    Truncated {
        /// Bytes of the file.
        found: u64,
        /// Bytes that there should be.
        expected: u64,
    },
    /// Written by a newer llamac.
    NewerVersion {
        /// What is newer: `format`, `abi`, `section kind`.
        what: &'static str,
        /// The file's version.
        found: u32,
        /// The newest one that this program reads.
        supported: u32,
    },
    /// Contents that no compiler writes.
    Corrupt {
        /// Name of the section, or `header`.
        section: String,
        /// What is wrong.
        detail: String,
    },
    /// A section is not there.
    Missing {
        /// Name of the section.
        section: &'static str,
    },
    /// The code is for another CPU.
    WrongTarget {
        /// What this machine is: architecture.
        machine: String,
        /// What the artifact was compiled for: architecture.
        artifact: String,
        /// Features that the artifact needs and this CPU lacks; empty if the architecture differs already.
        missing: Vec<String>,
    },
    /// A kernel that this runtime does not have.
    Kernel {
        /// Its name.
        name: String,
        /// Why it cannot be used.
        detail: String,
    },
}

impl ArtifactError {
    /// Short code for diagnostics, stable.
    pub fn code(&self) -> &'static str {
        match self {
            ArtifactError::Io { .. } => "artifact-io",
            ArtifactError::NotAnArtifact { .. } => "not-an-artifact",
            ArtifactError::ForeignEndian => "artifact-endian",
            ArtifactError::Truncated { .. } => "artifact-truncated",
            ArtifactError::NewerVersion { .. } => "artifact-newer",
            ArtifactError::Corrupt { .. } => "artifact-corrupt",
            ArtifactError::Missing { .. } => "artifact-incomplete",
            ArtifactError::WrongTarget { .. } => "wrong-target",
            ArtifactError::Kernel { .. } => "missing-kernel",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            ArtifactError::Io { .. } => "check the path and its permissions".to_owned(),
            ArtifactError::NotAnArtifact { .. } => "write one with `llamac compile MODEL -o OUT.llx`".to_owned(),
            ArtifactError::ForeignEndian | ArtifactError::WrongTarget { .. } => {
                "compile the model for this machine: `llamac compile MODEL --target native`".to_owned()
            }
            ArtifactError::NewerVersion { .. } | ArtifactError::Kernel { .. } => {
                "use the llamac that wrote it, or a newer one, or compile the model again".to_owned()
            }
            ArtifactError::Missing { section: "code" } => {
                "if it was made of a graph that is no decoder, `llamac infer` runs it on tensors; else compile the model again".to_owned()
            }
            ArtifactError::Missing { section: "tokenizer" } => {
                "feed it token ids (`llamac logits`), or put tokenizer.json beside the model and compile it again".to_owned()
            }
            ArtifactError::Truncated { .. } | ArtifactError::Corrupt { .. } | ArtifactError::Missing { .. } => {
                "copy the file again, or compile the model again; `llamac verify` checks all of it".to_owned()
            }
        }
    }
}

impl fmt::Display for ArtifactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArtifactError::Io { path, action, error } => write!(f, "cannot {action} `{}`: {error}", path.display()),
            ArtifactError::NotAnArtifact { found } if found.is_empty() => write!(f, "not a llamac artifact: the file is empty"),
            ArtifactError::NotAnArtifact { found } => write!(f, "not a llamac artifact: it starts with \"{}\"", found.escape_ascii()),
            ArtifactError::ForeignEndian => write!(f, "the artifact was written for a machine of the other endianness"),
            ArtifactError::Truncated { found, expected } => {
                write!(f, "the artifact is cut off: {found} bytes found, {expected} expected")
            }
            ArtifactError::NewerVersion { what, found, supported } => {
                write!(f, "the artifact is newer than this program: {what} {found}, known up to {supported}")
            }
            ArtifactError::Corrupt { section, detail } => write!(f, "the artifact is damaged: {section}: {detail}"),
            ArtifactError::Missing { section: "tokenizer" } => f.write_str("the artifact has no tokenizer: its model had none"),
            ArtifactError::Missing { section } => write!(f, "the artifact has no section `{section}`"),
            ArtifactError::WrongTarget { machine, artifact, missing } if missing.is_empty() => {
                write!(f, "the artifact was compiled for {artifact}, this machine is {machine}")
            }
            ArtifactError::WrongTarget { missing, .. } => {
                write!(f, "the artifact needs CPU features that this machine lacks: {}", missing.join(", "))
            }
            ArtifactError::Kernel { name, detail } => write!(f, "kernel `{name}` cannot be used: {detail}"),
        }
    }
}

impl std::error::Error for ArtifactError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ArtifactError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
