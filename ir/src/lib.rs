//! The intermediate representation of llamac: types, op table, modules, text form, verifier and reference evaluator.
//! It does no I/O and knows no target.

pub mod dtype;
pub mod module;
pub mod op;
pub mod recipe;
pub mod types;
