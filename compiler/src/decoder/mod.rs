//! Compiled decoders on tensors by the names of the graph that they come from: what each tensor is (`signature`), which of its tokens are tokens
//! (`rows`), and running them through the engine (`run`). Reading and writing tensors is in `graph`.

mod rows;
mod run;
mod signature;

pub(crate) use run::infer;
pub(crate) use signature::{of_checkpoint, of_graph};
