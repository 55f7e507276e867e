//! Models against references, from the checkpoint through an artifact. One test program, so that the compiler is linked once; each
//! module says what it tests.

mod accuracy;
mod cache;
mod check_vectors;
mod expert_names;
mod llama4;
mod old_artifacts;
mod same_bits;
mod shapes;
mod summaries;
mod targets;
mod text;
#[cfg(target_os = "linux")]
mod touched;

use llamac_tests::fixture::Fixture;
use llamac_tests::model::{self, Runner};
use std::path::{Path, PathBuf};

/// The artifact of a fixture for a target.
fn artifact_for(fixture: &Fixture, quant: &str, target: &str) -> PathBuf {
    model::artifact(Path::new(env!("CARGO_TARGET_TMPDIR")), fixture, quant, target)
}

/// Two threads over the fixture, compiled for this machine.
fn run(fixture: &Fixture, quant: &str) -> Runner {
    Runner::open(&artifact_for(fixture, quant, "native"), 2)
}
