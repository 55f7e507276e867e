//! The repository as files: used by the tidy tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Root of the workspace.
pub fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Files that git tracks or would add, relative to the root, with one of these endings (empty: all).
///
/// # Panics
/// If git cannot be run: tidy tests need a checkout.
pub fn files(endings: &[&str]) -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output().expect("git runs");
    assert!(listed.status.success(), "git ls-files failed");
    let names = String::from_utf8(listed.stdout).expect("UTF-8 names");
    let fits = |name: &&str| endings.is_empty() || endings.iter().any(|e| name.ends_with(e));
    names.lines().filter(fits).map(PathBuf::from).filter(|p| root().join(p).is_file()).collect()
}

/// Text of a file of the repository.
///
/// # Panics
/// If it cannot be read.
pub fn text(path: &Path) -> String {
    let bytes = std::fs::read(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Standard output of a cargo command in the workspace.
///
/// # Panics
/// If it fails.
pub fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let done = Command::new(cargo).args(args).current_dir(root()).output().expect("cargo runs");
    assert!(done.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}
