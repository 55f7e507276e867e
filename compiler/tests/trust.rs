//! What lets a user trust the passes: checks on their own model, bisection, text that reads back.

mod common;

use common::{fixtures, llamac, llamac_with_input, ok, text};
use std::path::{Path, PathBuf};

fn model(name: &str) -> PathBuf {
    fixtures().join(name).join("model")
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn what_explain_prints_opt_reads_back() {
    for name in ["tiny-llama3", "llama4-maverick-like"] {
        for (when, stage) in [("before", "imported"), ("quantized", "quantized"), ("after", "placed")] {
            let printed = ok(&["explain", text(&model(name)), "--quant", "int4", &format!("--ir={when}")]);
            assert!(printed.starts_with("module ") && printed.contains(&format!("stage={stage}")), "{printed}");
            let read = llamac_with_input(&["opt", "-", "--verify"], &printed);
            assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
            assert_eq!(String::from_utf8(read.stdout).unwrap(), printed, "{name}, {when}");
        }
    }
}

#[test]
fn compile_checks_every_pass_when_asked() {
    let out = scratch("checked.llx");
    let said = ok(&["compile", text(&model("llama4-maverick-like")), "-o", text(&out), "--quant", "bf16", "--no-check", "--check-passes"]);
    for pass in ["choose-precision", "batch-experts", "rewrite", "merge-qkv", "same bits", "checked on 5 of 6 calls of layers"] {
        assert!(said.contains(pass), "`{pass}` is not in: {said}");
    }
    let tiny = model("tiny-llama3");
    let args = ["compile", text(&tiny), "-o", text(&out), "--no-check", "--check-passes", "--json"];
    let report: serde_json::Value = serde_json::from_str(&ok(&args)).unwrap();
    let rows = report["passes"].as_array().unwrap();
    assert!(rows.len() >= 15 && rows.iter().all(|r| r["bound"].is_number()), "{report}");
}

#[test]
fn bisection_of_a_sound_module_says_so_and_a_module_that_cannot_run_is_refused() {
    let printed = ok(&["explain", text(&model("tiny-llama3")), "--ir"]);
    let done = llamac_with_input(&["opt", "-", "--bisect", "--seed", "7"], &printed);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("every rewrite keeps the meaning"), "{said}");
    let unwritten = printed.replace("  kv_write", "  // kv_write");
    let done = llamac_with_input(&["opt", "-", "--bisect"], &unwritten);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(1) && said.contains("never written"), "{said}");
    assert!(llamac(&["opt", "x.lir", "--bisect", "--fuel", "3"]).status.code() == Some(2));
}

#[test]
fn why_gives_the_rules_from_a_value_to_the_result() {
    let tiny = model("tiny-llama3");
    let said = ok(&["explain", text(&tiny), "--quant", "bf16", "--why", "%q", "--func", "layer"]);
    for part in ["%q in @layer", "by choose-precision:", "by merge-qkv/readers:", "-> slice_cols(linear(", "= concat(", "result: %q = "] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    assert!(!said.contains("@layer.last"), "{said}");
    let wrong = common::diagnostic(&["explain", text(&tiny), "--why", "%no-such"]);
    assert!(wrong.contains("no-such") && wrong.contains("%q_rope"), "{wrong}");
}
