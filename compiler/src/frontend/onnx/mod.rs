//! The ONNX front end: `model.onnx` to a module of tensor ops, one to one; nothing is recognised here (see `llamac_passes::raise`). `wire` and
//! `weights` find the data and leave it where it is, `shapes` works out what computes shapes, `ops` has a line for each op of the format.

mod attributes;
mod blocks;
pub mod eager;
mod elements;
mod import;
mod known;
mod model;
mod ops;
mod outside;
mod shapes;
mod weights;
mod wire;

pub use import::{Graph, import};
pub use model::{OnnxModel, graph_file, load, raised};
pub use outside::{Parts, parts};
pub use weights::OnnxWeights;

use crate::diag::Diag;

/// An error about an ONNX model.
fn bad(what: impl Into<String>) -> Diag {
    Diag::new("onnx", what)
}

#[cfg(test)]
mod eager_tests;
#[cfg(test)]
mod tests;
