//! ONNX models through the compiler: the artifact gives the logits of ONNX Runtime, for prompts and token by token.

use llamac::driver::{self, CompileOptions};
use llamac_tests::model::Runner;
use llamac_tests::onnx::{self, OnnxFixture};
use std::path::{Path, PathBuf};

pub(crate) fn artifact(fixture: &OnnxFixture, folder: &Path) -> PathBuf {
    let out = folder.join(format!("{}.llx", fixture.name));
    let options = CompileOptions { quant: Some("f32".into()), max_context: Some(256), ..CompileOptions::default() };
    driver::compile(&fixture.model, &out, &options, &driver::Silent).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
    out
}

/// Compares the cases whose past is tokens that another case has: all prompts, whole and token by token.
fn check(fixture: &OnnxFixture, folder: &Path) {
    let mut runner = Runner::open(&artifact(fixture, folder), 2);
    let mut checked = 0;
    for case in fixture.cases().into_iter().filter(|c| c.starts_with("prefill") && !c.contains("padded")) {
        let ids = &fixture.io[&format!("{case}.in.input_ids")];
        let (expected, limit) = fixture.reference(&case, "logits").expect("logits");
        let [batch, seq] = ids.shape[..] else { panic!("{case}: {:?}", ids.shape) };
        let vocab = expected.f32.len() / (batch * seq);
        for b in 0..batch {
            let tokens: Vec<u32> = ids.i64[b * seq..][..seq].iter().map(|&t| u32::try_from(t).expect("a token")).collect();
            for piece in [seq, 1] {
                let found = runner.logits_in_pieces(&tokens, std::iter::repeat(piece));
                let expected = &expected.f32[b * seq * vocab..][..seq * vocab];
                limit.check(&format!("{} {case} {b} in pieces of {piece}", fixture.name), &found, expected);
                checked += 1;
            }
        }
    }
    assert!(checked > 0, "{}: nothing to compare", fixture.name);
}

#[test]
fn artifacts_compute_what_onnx_runtime_computes() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in super::imported::DECODERS {
        check(&onnx::one(folder.path(), name), folder.path());
    }
}

#[test]
fn checking_passes_begins_with_the_graph() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in
        ["llama3-onnx_torch_opset18_extdata", "llama4-onnx_torch_opset18", "llama3-onnx_genai_int4_b32", "llama3-onnx_ortq_dynamic_int8"]
    {
        let fixture = onnx::one(folder.path(), name);
        let out = folder.path().join("checked.llx");
        let options = CompileOptions { quant: Some("f32".into()), max_context: Some(256), check_passes: true, ..CompileOptions::default() };
        let compiled = driver::compile(&fixture.model, &out, &options, &driver::Silent).unwrap_or_else(|e| panic!("{name}: {e}"));
        let checked = compiled.checked.expect("a check");
        let rows: Vec<&str> = checked.rows.iter().map(|r| r.pass.as_str()).collect();
        eprintln!("{name}\n{checked}");
        assert_eq!(rows[..2], ["raise", "raise-decoder"], "{name}");
    }
}
