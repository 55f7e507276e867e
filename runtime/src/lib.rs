//! The llamac runtime: maps an artifact and runs it. It links no compiler.

pub mod abi;
pub mod artifact;
pub mod format;
