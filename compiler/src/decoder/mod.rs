//! Compiled decoders on tensors by the names of the graph that they come from: what each tensor is (`signature`), which of its tokens are tokens
//! (`given`, `rows`), running them through the engine (`run`), and what comes out (`made`). Reading and writing tensors is in `graph`.

mod given;
mod made;
mod rows;
mod run;
mod signature;

pub(crate) use run::infer;
pub(crate) use signature::{of_checkpoint, of_graph};
