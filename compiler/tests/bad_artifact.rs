//! Damaged artifacts and interrupted compiles: a diagnostic, exit code 1, never a panic, never a half-written file.

mod common;

use common::{copy_model, diagnostic, fixtures, ok, text};
use std::fs;
use std::process::{Command, Stdio};

/// A compiled tiny-llama3 in its own folder.
fn artifact(target: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tiny.llx");
    let model = fixtures().join("tiny-llama3/model");
    ok(&["compile", text(&model), "-o", text(&out), "--target", target, "--quiet"]);
    (folder, out)
}

#[test]
fn every_command_refuses_a_file_that_is_no_artifact() {
    let folder = copy_model("tiny-llama3");
    let file = folder.path().join("config.json");
    for command in ["run", "inspect", "verify", "bench"] {
        let said = diagnostic(&[command, text(&file)]);
        assert!(said.contains("config.json"), "{command}: {said}");
    }
}

#[test]
fn a_truncated_artifact_says_how_much_is_missing() {
    let (_folder, path) = artifact("native");
    let bytes = fs::read(&path).unwrap();
    for keep in [0, 7, 100, 4096, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..keep]).unwrap();
        diagnostic(&["run", text(&path), "-p", "x", "-n", "1"]);
    }
}

#[test]
fn a_flipped_bit_in_code_or_metadata_is_found_at_open_and_one_in_the_weights_by_verify() {
    let (_folder, path) = artifact("native");
    let good = fs::read(&path).unwrap();
    let sections: serde_json::Value = serde_json::from_str(&ok(&["inspect", text(&path), "--json"])).unwrap();
    let mut seen = Vec::new();
    for section in sections["sections"].as_array().unwrap() {
        let kind = section["kind"].as_str().unwrap().to_owned();
        let at = section["offset"].as_u64().unwrap() + section["bytes"].as_u64().unwrap() / 2;
        let mut bytes = good.clone();
        bytes[at as usize] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let said = diagnostic(&["verify", text(&path)]);
        assert!(said.contains(kind.as_str()), "{kind}: {said}");
        if kind == "code" || kind == "meta" {
            diagnostic(&["run", text(&path), "-p", "x", "-n", "1"]);
        }
        seen.push(kind);
    }
    assert!(seen.iter().any(|k| k == "weights") && seen.iter().any(|k| k == "code"), "{seen:?}");
}

#[test]
fn an_artifact_for_another_cpu_says_which() {
    let (_folder, path) = artifact("aarch64");
    let said = diagnostic(&["run", text(&path), "-p", "x", "-n", "1"]);
    assert!(said.contains("aarch64"), "{said}");
}

#[test]
fn a_newer_format_version_says_so() {
    let (_folder, path) = artifact("native");
    let mut bytes = fs::read(&path).unwrap();
    let at = llamac_runtime::artifact::layout::VERSION_OFFSET;
    bytes[at..at + 4].copy_from_slice(&9999u32.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let said = diagnostic(&["inspect", text(&path)]);
    assert!(said.contains("9999"), "{said}");
}

#[test]
fn a_compile_that_is_killed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("killed.llx");
    let model = fixtures().join("tiny-llama3/model");
    for milliseconds in [1, 5, 10, 20, 40, 80] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_llamac"))
            .args(["compile", text(&model), "-o", text(&out), "--quiet"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        child.kill().unwrap();
        let finished = child.wait().unwrap().success();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        if finished || out.exists() {
            ok(&["verify", text(&out)]);
            fs::remove_file(&out).unwrap();
        } else {
            assert!(left.is_empty(), "killed after {milliseconds} ms: {left:?}");
        }
    }
}

#[test]
fn a_full_disk_is_a_diagnostic_and_leaves_nothing() {
    // A file-size limit stands in for a full disk: the same write fails, without needing a file system of its own.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("full.llx");
    let model = fixtures().join("tiny-llama3/model");
    let script =
        format!("trap '' XFSZ; ulimit -f 1000; exec {} compile {} -o {} --quiet", env!("CARGO_BIN_EXE_llamac"), text(&model), text(&out));
    let done = Command::new("bash").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("error[") && !said.contains("panicked"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
