//! Front ends: from files of a checkpoint to a module of the IR, and nothing after that.

pub mod hf;
mod model;
pub mod onnx;
pub mod safetensors;
pub mod tokenizer;

pub use model::{Model, Weights, load, load_config};
