//! Why an engine does not run, with what to do about it.

use crate::artifact::ArtifactError;
use std::fmt;
use std::io;

/// Why a step was not run. The sequences are as before.
#[derive(Debug)]
pub enum EngineError {
    /// The artifact cannot be used.
    Artifact(ArtifactError),
    /// The system has no memory for a part of the plan.
    OutOfMemory {
        /// Which part.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The system's reason.
        error: io::Error,
    },
    /// The system refuses a thread.
    Threads {
        /// Threads that were asked for.
        threads: usize,
        /// The system's reason.
        error: io::Error,
    },
    /// An option beyond what the artifact was compiled for.
    BadOption {
        /// Name of the option.
        what: &'static str,
        /// Its value.
        found: usize,
        /// Values from 1 to this are possible.
        most: usize,
    },
    /// The artifact's code cannot do what is asked; code that is compiled now can.
    TooOld {
        /// `abi::ABI_VERSION` when it was compiled.
        abi: u32,
        /// The first version that can.
        needs: u32,
    },
    /// A sequence would become longer than it may.
    ContextFull {
        /// Its slot.
        slot: usize,
        /// Tokens that it has.
        length: usize,
        /// Tokens that were to be added.
        new: usize,
        /// Tokens that it may have.
        max: usize,
    },
    /// A token that the model does not have.
    BadToken {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A slot that is not there, or twice in one batch.
    BadSlot {
        /// The slot.
        slot: usize,
        /// Number of slots.
        slots: usize,
    },
    /// An input without tokens.
    NoTokens {
        /// Its slot.
        slot: usize,
    },
    /// The artifact does not say where its layers have their keys and values: it was written before artifacts did.
    NoCaches,
    /// A layer that the model does not have.
    BadLayer {
        /// The layer.
        layer: usize,
        /// Number of layers.
        layers: usize,
    },
    /// Keys or values of another number than the positions ask for.
    BadRows {
        /// The layer.
        layer: usize,
        /// Numbers given.
        found: usize,
        /// KV heads x positions x size of a head.
        expected: usize,
    },
    /// Positions whose keys and values are not, or no longer, in the cache.
    NotCached {
        /// The sequence.
        slot: usize,
        /// The layer.
        layer: usize,
        /// Positions that were asked for.
        asked: (usize, usize),
        /// Positions that are there.
        kept: (usize, usize),
    },
    /// Every slot is taken.
    NoFreeSlot {
        /// Number of slots.
        slots: usize,
    },
}

impl EngineError {
    /// Short code for diagnostics, stable.
    pub fn code(&self) -> &'static str {
        match self {
            EngineError::Artifact(e) => e.code(),
            EngineError::OutOfMemory { .. } => "out-of-memory",
            EngineError::Threads { .. } => "threads",
            EngineError::BadOption { .. } => "bad-option",
            EngineError::TooOld { .. } => "too-old",
            EngineError::ContextFull { .. } => "context-full",
            EngineError::BadToken { .. } => "bad-token",
            EngineError::BadSlot { .. } | EngineError::NoTokens { .. } => "bad-batch",
            EngineError::NoCaches => "too-old",
            EngineError::BadLayer { .. } | EngineError::BadRows { .. } | EngineError::NotCached { .. } => "bad-cache",
            EngineError::NoFreeSlot { .. } => "batch-full",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            EngineError::Artifact(e) => e.help(),
            EngineError::OutOfMemory { .. } => "lower the context or the batch, or compile with a smaller --max-step".to_owned(),
            EngineError::Threads { .. } => "ask for fewer threads".to_owned(),
            EngineError::BadOption { found: 0, .. } | EngineError::BadOption { what: "threads", .. } => {
                "choose a number in this range".to_owned()
            }
            EngineError::BadOption { what, .. } => format!("compile again with a larger --{}", what.replace('_', "-")),
            EngineError::TooOld { .. } | EngineError::NoCaches => "compile the model again".to_owned(),
            EngineError::ContextFull { .. } => "shorten the text, or compile with a larger --max-context".to_owned(),
            EngineError::BadToken { .. } => "use the tokenizer of this artifact".to_owned(),
            EngineError::NotCached { .. } => {
                "layers with an attention chunk keep the positions of the last chunk: ask for those that `kv_kept` names".to_owned()
            }
            EngineError::BadSlot { .. } | EngineError::NoTokens { .. } | EngineError::BadLayer { .. } | EngineError::BadRows { .. } => {
                "this is a mistake in the calling program".to_owned()
            }
            EngineError::NoFreeSlot { .. } => "end a sequence first, or compile with a larger --max-batch".to_owned(),
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Artifact(e) => write!(f, "{e}"),
            EngineError::OutOfMemory { what, bytes, error } => write!(f, "no memory for the {what}, {bytes} bytes: {error}"),
            EngineError::Threads { threads, error } => write!(f, "cannot start {threads} threads: {error}"),
            EngineError::BadOption { what, found, most } => write!(f, "{what} is {found}, this artifact allows 1 to {most}"),
            EngineError::TooOld { abi, needs } => {
                write!(
                    f,
                    "the code has ABI {abi} and cannot pass over layers, which checking some of them takes: that came with ABI {needs}"
                )
            }
            EngineError::ContextFull { slot, length, new, max } => {
                write!(f, "sequence {slot} has {length} tokens and cannot take {new} more: the limit is {max}")
            }
            EngineError::BadToken { token, vocab } => write!(f, "token {token} in a vocabulary of {vocab}"),
            EngineError::BadSlot { slot, slots } => write!(f, "slot {slot} is used twice, or not one of {slots}"),
            EngineError::NoTokens { slot } => write!(f, "no tokens for slot {slot}"),
            EngineError::NoCaches => f.write_str("the artifact does not say where its layers have their keys and values"),
            EngineError::BadLayer { layer, layers } => write!(f, "layer {layer} of a model of {layers}"),
            EngineError::BadRows { layer, found, expected } => {
                write!(
                    f,
                    "{found} numbers for the keys or values of layer {layer}, expected {expected}: heads x positions x size of a head"
                )
            }
            EngineError::NotCached { slot, layer, asked, kept } => {
                let ((from, to), (first, end)) = (asked, kept);
                write!(f, "positions {from}..{to} of sequence {slot} in layer {layer}: its cache has {first}..{end}")
            }
            EngineError::NoFreeSlot { slots } => write!(f, "all {slots} sequence slots are taken"),
        }
    }
}

impl std::error::Error for EngineError {}

impl From<ArtifactError> for EngineError {
    fn from(error: ArtifactError) -> EngineError {
        EngineError::Artifact(error)
    }
}
