//! Tidy tests: rules about the files of the repository, so that no reviewer has to say them twice.

use llamac_tests::repo;
use std::path::Path;

#[test]
fn every_source_file_says_what_it_is() {
    let silent: Vec<_> = repo::files(&[".rs"]).into_iter().filter(|p| !repo::text(p).starts_with("//! ")).collect();
    assert!(silent.is_empty(), "no `//!` first line: {silent:?}");
}

#[test]
fn no_source_file_grows_without_bounds() {
    let long: Vec<_> = repo::files(&[".rs"]).into_iter().filter(|p| repo::text(p).lines().count() > 500).collect();
    assert!(long.is_empty(), "over 500 lines, split by idea: {long:?}");
}

#[test]
fn no_path_of_a_build_machine_stands_in_a_file() {
    let homes = [format!("/{}/", "work"), format!("/{}/", "root"), format!("/{}/", "home")];
    let named: Vec<_> = repo::files(&[".rs", ".md", ".toml", ".snap", "run"])
        .into_iter()
        .filter(|p| homes.iter().any(|home| repo::text(p).contains(home.as_str())))
        .collect();
    assert!(named.is_empty(), "a machine's path in {named:?}");
}

#[test]
fn lines_end_clean_and_files_end_with_a_newline() {
    for path in repo::files(&[".rs", ".md", ".toml"]) {
        let text = repo::text(&path);
        assert!(text.ends_with('\n'), "{}: no newline at the end", path.display());
        let dirty = text.lines().position(|line| line.ends_with([' ', '\t']));
        assert!(dirty.is_none(), "{}:{}: blank at the end of a line", path.display(), dirty.unwrap_or(0) + 1);
    }
}

#[test]
fn dependencies_point_one_way() {
    let rules: [(&str, &[&str]); 3] = [
        ("llamac-ir", &["llamac-passes", "llamac-runtime", "llamac", "egg", "cranelift-codegen", "memmap2"]),
        ("llamac-passes", &["llamac-runtime", "llamac", "cranelift-codegen", "memmap2"]),
        ("llamac-runtime", &["llamac-ir", "llamac-passes", "llamac", "egg", "cranelift-codegen", "tract-onnx", "tokenizers", "clap"]),
    ];
    for (crate_name, forbidden) in rules {
        let tree = repo::cargo(&["tree", "-p", crate_name, "-e", "normal", "--prefix", "none", "--locked"]);
        for name in forbidden {
            let linked = tree.lines().skip(1).any(|line| line.split(' ').next() == Some(*name));
            assert!(!linked, "{crate_name} must not depend on {name}");
        }
    }
}

#[test]
fn ir_and_passes_do_no_io_and_read_no_clock_or_environment() {
    let words = ["std::fs", "std::env", "std::time", "std::net", "println!", "eprintln!"];
    for path in repo::files(&[".rs"]) {
        let tests = path.to_string_lossy().ends_with("_tests.rs");
        if tests || !(path.starts_with("ir/src") || path.starts_with("passes/src")) {
            continue;
        }
        let text = repo::text(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or("");
        for word in words {
            assert!(!code.contains(word), "{} uses {word}", path.display());
        }
    }
}

#[test]
fn unsafe_stays_where_it_belongs() {
    let homes = [
        "runtime/src/kernels",
        "runtime/src/memory.rs",
        "runtime/src/threads.rs",
        "runtime/src/step.rs",
        "runtime/src/step",
        "runtime/src/roof.rs",
    ];
    for path in repo::files(&[".rs"]) {
        let inside = path.starts_with("runtime/src")
            || path.starts_with("compiler/src")
            || path.starts_with("ir/src")
            || path.starts_with("passes/src");
        if !inside || homes.iter().any(|home| path.starts_with(Path::new(home))) {
            continue;
        }
        let text = repo::text(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or("");
        let count = code.lines().filter(|l| !l.trim_start().starts_with("//") && l.contains("unsafe {")).count();
        assert!(count <= 2, "{}: {count} unsafe blocks outside kernels, mapping and threads", path.display());
    }
}
