//! `model.onnx`: any bytes give a graph or a diagnostic, and a graph a decoder or a diagnostic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llamac::frontend::onnx;
use std::fs;
use std::sync::LazyLock;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for the file"));

fuzz_target!(|data: &[u8]| {
    let path = FOLDER.path().join("model.onnx");
    fs::write(&path, data).expect("the file");
    let _ = onnx::raised(&path, &mut |_, _| ());
});
