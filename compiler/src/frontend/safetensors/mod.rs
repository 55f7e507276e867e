//! safetensors files: checking their headers and mapping their tensors. Nothing here knows a model.

mod checkpoint;
pub(in crate::frontend) mod convert;
mod dtype;
mod header;
mod index;
mod json;

pub use checkpoint::{Checkpoint, TensorRef};
pub use convert::widen;
pub use dtype::{FileDType, by_name as dtype_by_name};
pub use header::{Entry, Header, MAX_HEADER, parse_header};
pub use index::{INDEX_FILE, SINGLE_FILE, parse_index};
