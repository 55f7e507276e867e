//! The artifact: one file with code, packed weights, tokenizer, plan and metadata. [`layout`] says where the bytes are, [`reader`]
//! maps and checks them, [`writer`] writes them.

pub mod check;
pub mod checks;
pub mod error;
pub mod layout;
pub mod meta;
mod pace;
pub mod reader;
pub mod signature;
mod sized;
pub mod target;
pub mod temp;
pub mod writer;

pub use error::ArtifactError;
pub use layout::SectionKind;
pub use reader::{Artifact, OpenOptions};
pub use writer::{ArtifactWriter, WriteError};
