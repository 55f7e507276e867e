//! Hugging Face model folders: `config.json` and `generation_config.json` as checked data, the tensors that a config implies, and the
//! module that both make. Weights are in `frontend::safetensors`, the tokenizer in `frontend::tokenizer`.

pub mod architecture;
pub mod build;
pub mod config;
mod experts;
pub mod generation;
mod keys;
pub mod llama4;
pub mod names;
pub mod rope;
pub mod tensors;
