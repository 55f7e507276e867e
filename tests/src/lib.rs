//! What the tests of this crate share: the repository, its fixtures, running models, comparing numbers. No test is here.

pub mod decoders;
pub mod fixture;
pub mod fuzz;
pub mod graph;
pub mod model;
pub mod numbers;
pub mod onnx;
pub mod random_graphs;
pub mod repo;
pub mod tensors;
