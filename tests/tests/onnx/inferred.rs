//! `llamac infer` of artifacts of decoders: every case of every fixture through compiled code, tensors by the names of the graph.

use super::imported::DECODERS;
use llamac::driver::{self, CompileOptions};
use llamac::graph;
use llamac_tests::fixture::{self, Tensor};
use llamac_tests::onnx::{self, OnnxFixture};
use llamac_tests::repo;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Compiled as `llamac compile model.onnx -o A.llx` does, or in a format.
fn artifact(fixture: &OnnxFixture, folder: &Path, quant: Option<&str>) -> PathBuf {
    compiled(&fixture.model, &folder.join(format!("{}.llx", fixture.name)), quant)
}

fn compiled(model: &Path, out: &Path, quant: Option<&str>) -> PathBuf {
    let options = CompileOptions { quant: quant.map(str::to_owned), max_context: Some(256), ..CompileOptions::default() };
    driver::compile(model, out, &options, &driver::Silent).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
    out.to_path_buf()
}

type Tensors = BTreeMap<String, Tensor>;

fn inputs(fixture: &OnnxFixture, case: &str) -> Tensors {
    let prefix = format!("{case}.in.");
    let mine = fixture.io.iter().filter_map(|(key, t)| Some((key.strip_prefix(&prefix)?.to_owned(), t.clone())));
    mine.collect()
}

/// Runs an artifact on tensors.
fn infer(artifact: &Path, given: &Tensors) -> Result<Tensors, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let bytes: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = given
        .iter()
        .map(|(name, t)| match name.contains("past") {
            true => (name.clone(), Dtype::F32, t.shape.clone(), t.f32.iter().flat_map(|x| x.to_le_bytes()).collect()),
            false => (name.clone(), Dtype::I64, t.shape.clone(), t.i64.iter().flat_map(|x| x.to_le_bytes()).collect()),
        })
        .collect();
    let views = bytes.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).expect("a tensor")));
    safetensors::serialize_to_file(views, None, &input).expect("a file");
    graph::infer(artifact, &input, &output).map_err(|e| e.to_string())?;
    Ok(fixture::tensors(&std::fs::read(output).expect("outputs")))
}

/// Rows `[batch, .., columns, width]` of columns that the mask says are tokens.
fn real(t: &Tensor, mask: Option<&Tensor>, from_end: bool) -> Vec<f32> {
    let Some(mask) = mask else { return t.f32.clone() };
    let (batch, total) = (t.shape[0], mask.shape[1]);
    let (columns, width) = (t.shape[t.shape.len() - 2], t.shape[t.shape.len() - 1]);
    let skipped = if from_end { total - columns } else { 0 };
    let each = t.f32.len() / batch;
    let kept = |i: &usize| mask.i64[(i / each) * total + skipped + i / width % columns] == 1;
    (0..t.f32.len()).filter(kept).map(|i| t.f32[i]).collect()
}

fn check(fixture: &OnnxFixture, quant: Option<&str>) {
    let folder = tempfile::tempdir().expect("a folder");
    check_artifact(fixture, &artifact(fixture, folder.path(), quant));
}

fn check_artifact(fixture: &OnnxFixture, path: &Path) {
    let mut checked = 0;
    for case in fixture.cases() {
        let given = inputs(fixture, &case);
        let found = infer(path, &given).unwrap_or_else(|e| panic!("{} {case}: {e}", fixture.name));
        let prefix = format!("{case}.out.");
        let names: Vec<&str> = fixture.io.keys().filter_map(|k| k.strip_prefix(&prefix)).collect();
        assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), names, "{} {case}", fixture.name);
        for name in names {
            let (expected, limit) = fixture.reference(&case, name).expect("an output");
            assert_eq!(found[name].shape, expected.shape, "{} {case} {name}", fixture.name);
            let mask = given.get("attention_mask").filter(|_| case.contains("padded"));
            let [a, b] = [&found[name], expected].map(|t| real(t, mask, name == "logits"));
            limit.check(&format!("{} {case} {name}", fixture.name), &a, &b);
            if mask.is_some() {
                let nothing = found[name].f32.iter().filter(|x| **x == 0.0).count();
                assert!(nothing >= found[name].f32.len() - a.len(), "{case} {name}: padding is not zero");
            }
            checked += 1;
        }
    }
    assert!(checked > 0, "{}: nothing to compare", fixture.name);
}

#[test]
fn every_case_of_every_export_is_what_onnx_runtime_computes() {
    let folder = tempfile::tempdir().expect("a folder");
    DECODERS.iter().for_each(|name| check(&onnx::one(folder.path(), name), None));
}

#[test]
fn exports_outside_the_repository_are_what_onnx_runtime_computes() {
    onnx::more().iter().filter(|f| DECODERS.contains(&f.name.as_str())).for_each(|f| check(f, None));
}

#[test]
fn the_artifact_of_a_checkpoint_answers_to_the_names_of_its_exports() {
    let folder = tempfile::tempdir().expect("a folder");
    for (checkpoint, export) in [("llama3-onnx", "llama3-onnx_torch_opset18_extdata"), ("llama4-onnx", "llama4-onnx_torch_opset18")] {
        let fixture = onnx::one(folder.path(), export);
        let model = repo::root().join("tests/fixtures").join(checkpoint).join("model");
        let path = compiled(&model, &folder.path().join(format!("{checkpoint}.llx")), Some("f32"));
        check_artifact(&fixture, &path);
        // All but the ids may be left out: nothing is past, nothing is padding.
        let mut given = inputs(&fixture, "prefill_batch");
        let whole = infer(&path, &given).expect("runs");
        given.retain(|name, _| name == "input_ids");
        let alone = infer(&path, &given).expect("runs");
        assert!(alone.iter().zip(&whole).all(|(a, b)| a.0 == b.0 && a.1.f32 == b.1.f32), "{checkpoint}");
        given.insert("tokens".into(), given["input_ids"].clone());
        let said = infer(&path, &given).expect_err("another name");
        let names = ["`tokens`", "`input_ids`: i64[batch, sequence]", "`past_key_values.1.value`: f32[batch, "];
        assert!(names.iter().all(|n| said.contains(n)), "{said}");
        given.clear();
        assert!(infer(&path, &given).expect_err("no ids").contains("an input is missing"));
    }
}

/// The next token of each sequence behind what a call gave.
fn next(before: &Tensors, ids: &[i64], total: usize) -> Tensors {
    let batch = ids.len();
    let ints = |shape: Vec<usize>, i64: Vec<i64>| Tensor { shape, f32: Vec::new(), i64 };
    let mut given = Tensors::new();
    given.insert("input_ids".into(), ints(vec![batch, 1], ids.to_vec()));
    given.insert("attention_mask".into(), ints(vec![batch, total], vec![1; batch * total]));
    given.insert("position_ids".into(), ints(vec![batch, 1], vec![total as i64 - 1; batch]));
    for (name, tensor) in before {
        if let Some(rest) = name.strip_prefix("present.") {
            given.insert(format!("past_key_values.{rest}"), tensor.clone());
        }
    }
    given
}

#[test]
fn the_present_of_one_call_is_the_past_of_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["llama3-onnx_torch_opset18_extdata", "llama4-onnx_torch_opset18", "llama3-onnx_genai_int4_b32"] {
        let fixture = onnx::one(folder.path(), name);
        let path = artifact(&fixture, folder.path(), Some("f32"));
        let whole = inputs(&fixture, "prefill_batch");
        let expected = infer(&path, &whole).expect("a prefill");
        let ids = &whole["input_ids"];
        let [batch, seq] = ids.shape[..] else { panic!("{name}") };
        let vocab = expected["logits"].shape[2];
        let mut given = next(&Tensors::new(), &(0..batch).map(|b| ids.i64[b * seq]).collect::<Vec<_>>(), 1);
        for (key, past) in whole.iter().filter(|(key, _)| key.contains("past")) {
            given.insert(key.clone(), past.clone());
        }
        for at in 0..seq {
            given.retain(|key, _| whole.contains_key(key));
            let found = infer(&path, &given).unwrap_or_else(|e| panic!("{name} {at}: {e}"));
            for b in 0..batch {
                let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                let one = &found["logits"].f32[b * vocab..][..vocab];
                assert!(bits(one) == bits(&expected["logits"].f32[(b * seq + at) * vocab..][..vocab]), "{name}: token {at}");
            }
            if at + 1 == seq {
                let key = "present.0.key";
                assert!(found[key].f32 == expected[key].f32 && found[key].shape == expected[key].shape, "{name}");
            } else {
                given = next(&found, &(0..batch).map(|b| ids.i64[b * seq + at + 1]).collect::<Vec<_>>(), at + 2);
            }
        }
    }
}

#[test]
fn more_sequences_than_the_artifact_has_run_in_turns() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = onnx::one(folder.path(), "llama3-onnx_torch_opset18_extdata");
    let out = folder.path().join("one.llx");
    let options = CompileOptions { quant: Some("f32".into()), max_context: Some(64), max_batch: 1, ..CompileOptions::default() };
    driver::compile(&fixture.model, &out, &options, &driver::Silent).expect("compiles");
    for case in ["decode_batch", "prefill_left_padded"] {
        let given = inputs(&fixture, case);
        let wide = infer(&artifact(&fixture, folder.path(), Some("f32")), &given).expect("runs");
        let narrow = infer(&out, &given).expect("runs");
        assert!(wide.iter().zip(&narrow).all(|(a, b)| a.0 == b.0 && a.1.f32 == b.1.f32), "{case}");
    }
}

#[test]
fn what_compiled_code_would_not_compute_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = onnx::one(folder.path(), "llama3-onnx_torch_opset18_extdata");
    let path = artifact(&fixture, folder.path(), Some("f32"));
    let said = |change: &dyn Fn(&mut Tensors)| {
        let mut given = inputs(&fixture, "prefill_left_padded");
        change(&mut given);
        infer(&path, &given).expect_err("an error")
    };
    let set = |name: &'static str, at: usize, value: i64| move |t: &mut Tensors| t.get_mut(name).expect("there").i64[at] = value;
    assert!(said(&set("attention_mask", 12, 0)).contains("no padding at one end"));
    assert!(said(&set("position_ids", 15, 99)).contains("positions are not those"));
    assert!(said(&set("input_ids", 15, -1)).contains("not in the vocabulary"));
    assert!(said(&set("input_ids", 15, 1 << 20)).contains("vocabulary"));
    let missing = said(&|t| drop(t.remove("past_key_values.1.value")));
    assert!(missing.contains("an input is missing") && missing.contains("past_key_values.1.value"), "{missing}");
    let other = said(&|t| drop(t.insert("pixels".into(), Tensor { shape: vec![1], f32: vec![], i64: vec![1] })));
    assert!(other.contains("no input of that name"), "{other}");
    let long = said(&|t| {
        let long = |tokens: usize| Tensor { shape: vec![1, tokens], f32: vec![], i64: (0..tokens as i64).collect() };
        t.insert("input_ids".into(), Tensor { i64: vec![1; 300], ..long(300) });
        t.insert("attention_mask".into(), Tensor { i64: vec![1; 300], ..long(300) });
        t.insert("position_ids".into(), long(300));
        t.iter_mut().filter(|(k, _)| k.contains("past")).for_each(|(_, p)| p.shape[0] = 1);
    });
    assert!(long.contains("longer than the artifact's context") && long.contains("--max-context 300"), "{long}");
}
