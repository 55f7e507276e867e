//! What the command-line tests share: running the binary, and a copy of a fixture to damage.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The fixture checkpoints.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// Runs `llamac` with these arguments.
pub(crate) fn llamac(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_llamac")).args(args).output().expect("llamac starts")
}

/// Runs `llamac` with this on its standard input.
#[allow(dead_code)]
pub(crate) fn llamac_with_input(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_llamac"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("llamac starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("llamac reads");
    child.wait_with_output().expect("llamac ends")
}

/// Runs `llamac`, demands success, returns its standard output.
#[allow(dead_code)]
pub(crate) fn ok(args: &[&str]) -> String {
    let done = llamac(args);
    assert!(done.status.success(), "llamac {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("UTF-8 output")
}

/// Runs `llamac`, demands a diagnostic (exit code 1, no panic), returns it.
#[allow(dead_code)]
pub(crate) fn diagnostic(args: &[&str]) -> String {
    let done = llamac(args);
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "llamac {args:?} should fail with a diagnostic, stderr: {text}");
    assert!(text.contains("error["), "no diagnostic: {text}");
    assert!(!text.contains("panicked"), "a panic: {text}");
    text
}

/// A writable copy of a fixture's model directory.
#[allow(dead_code)]
pub(crate) fn copy_model(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for entry in std::fs::read_dir(fixtures().join(name).join("model")).expect("the fixture") {
        let from = entry.expect("an entry").path();
        let to = folder.path().join(from.file_name().expect("a name"));
        std::fs::write(&to, std::fs::read(&from).expect("readable")).expect("writable");
    }
    folder
}

/// A path as an argument.
#[allow(dead_code)]
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
