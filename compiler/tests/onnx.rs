//! The commands on an ONNX model: a graph whose weights are all zero, since only what is said is looked at. Numbers are in `tests/tests/onnx`.

mod common;

use common::{diagnostic, fixtures, ok, text};
use std::fs::File;
use tempfile::TempDir;

/// Bytes of the data that the fixture's graph refers to.
const DATA: u64 = 1_812_960;

fn model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let graph = fixtures().join("onnx/llama3-onnx_torch_opset18_extdata/model.onnx");
    std::fs::write(folder.path().join("model.onnx"), std::fs::read(graph).unwrap()).unwrap();
    File::create(folder.path().join("weights.bin")).unwrap().set_len(DATA).unwrap();
    folder
}

#[test]
fn a_graph_is_planned_explained_and_shown_on_its_way() {
    let folder = model();
    let graph = folder.path().join("model.onnx");
    // The folder means the graph in it, as long as it has no safetensors.
    let by_folder = ok(&["plan", text(folder.path()), "--quant", "f32"]);
    assert_eq!(by_folder, ok(&["plan", text(&graph), "--quant", "f32"]));
    assert!(by_folder.contains("3 layers"), "{by_folder}");
    assert!(ok(&["explain", text(&graph)]).contains("merge-qkv"));
    assert!(ok(&["explain", text(&graph), "--ir=before"]).contains("stage=imported"));
    let shown = ok(&["opt", text(&graph), "--print-after", "import,raise,raise-decoder"]);
    for words in [
        "// after import",
        "tensor.reduce_mean",
        "// after raise\n",
        "tensor.attention",
        "// after raise-decoder",
        "@layer 0..3",
        "stage=placed",
    ] {
        assert!(shown.contains(words), "{words} is not in: {shown}");
    }
    let only = ok(&["opt", text(&graph), "--verify"]);
    assert!(only.contains("stage=graph") && only.contains("tensor.softmax"), "{only}");
}

#[test]
fn a_model_without_a_tokenizer_compiles_and_run_says_what_is_missing() {
    let folder = model();
    let out = folder.path().join("m.llx");
    ok(&["compile", text(folder.path()), "-o", text(&out), "--quant", "f32", "--max-context", "64", "--no-check", "--quiet"]);
    let said = diagnostic(&["run", text(&out), "-p", "hello"]);
    assert!(said.contains("no tokenizer") && said.contains("llamac logits"), "{said}");
    assert!(ok(&["inspect", text(&out), "--json"]).contains("ONNX graph"));
}

#[test]
fn a_graph_whose_data_is_missing_or_cut_off_is_refused() {
    let folder = model();
    let data = folder.path().join("weights.bin");
    File::options().write(true).open(&data).unwrap().set_len(DATA - 1).unwrap();
    let said = diagnostic(&["plan", text(folder.path())]);
    assert!(said.contains("ends behind the file") && said.contains("weights.bin"), "{said}");
    std::fs::remove_file(&data).unwrap();
    assert!(diagnostic(&["compile", text(folder.path())]).contains("weights.bin"));
}
