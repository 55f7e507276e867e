//! The artifact: one file with code, packed weights, tokenizer, plan and metadata.

pub mod meta;
