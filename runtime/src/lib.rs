//! The llamac runtime: maps an artifact and runs it. It links no compiler.

pub mod abi;
pub mod app;
pub mod artifact;
pub mod batch;
pub mod detok;
pub mod format;
pub mod kernels;
pub mod kv;
pub mod memory;
pub mod pages;
pub mod rng;
pub mod roof;
pub mod sampler;
pub mod session;
pub mod step;
pub mod stop;
pub mod template;
pub mod threads;
pub mod tokenizer;
pub mod verify;

pub use artifact::{Artifact, ArtifactError, OpenOptions};
pub use sampler::Sampling;
pub use session::{End, GenerateOptions, Generation, Piece, Prompt, Session, SessionError, SessionOptions, Stats};
pub use template::Message;
