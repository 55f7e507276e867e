//! The intermediate representation of llamac: types, op table, modules, text form, verifier and reference evaluator.
//! It does no I/O and knows no target.

pub mod build;
pub mod dtype;
pub mod eval;
pub mod infer;
pub mod module;
pub mod op;
pub mod parse;
pub mod print;
pub mod recipe;
pub mod types;
pub mod verify;
mod wide;

#[cfg(test)]
mod testing;
