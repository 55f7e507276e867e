//! llamac: front ends, lowering, code generation, packing and the command line. What runs an artifact is `llamac-runtime`.

pub mod auto;
pub mod bare;
mod caches;
pub mod calibrate;
mod check;
mod check_passes;
mod check_raising;
pub mod cli;
pub mod codegen;
mod decoder;
pub mod diag;
pub mod driver;
pub mod frontend;
pub mod graph;
pub mod lower;
mod pack;
pub mod report;
pub mod target;
