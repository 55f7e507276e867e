//! The imported graph, evaluated op by op, against ONNX Runtime.

use llamac::frontend::onnx::import;
use llamac_ir::eval::{Cache, eval_func};
use llamac_ir::parse::parse;
use llamac_ir::verify::{listed, verify};
use llamac_tests::onnx::{self, Limit, OnnxFixture};

fn check(fixture: &OnnxFixture) {
    let graph = import(&fixture.model).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
    verify(&graph.module, graph.module.stage).unwrap_or_else(|e| panic!("{}: {}", fixture.name, listed(&e)));
    let main = graph.module.func("main").expect("main");
    assert_eq!(parse(&graph.module.to_string()).as_ref().map(|m| m.to_string()), Ok(graph.module.to_string()), "{}: text", fixture.name);
    let cases = fixture.cases();
    assert!(!cases.is_empty(), "{}: no cases", fixture.name);
    for case in cases {
        let name = |p: &llamac_ir::module::ValueId| &main.values[p.0 as usize].name;
        let args: Vec<_> = main.params.iter().map(|p| fixture.input(&case, name(p)).unwrap_or_else(|| panic!("{}", name(p)))).collect();
        let results =
            eval_func(main, &graph.weights, None, &args, &mut Cache::default()).unwrap_or_else(|e| panic!("{} {case}: {e}", fixture.name));
        for (output, found) in graph.outputs.iter().zip(&results) {
            let Some((expected, mut limit)) = fixture.reference(&case, output) else { continue };
            if fixture.name.contains("dynamic_int8") {
                // This graph says itself how inputs are rounded.
                limit = Limit::EXACT;
            }
            assert_eq!(found.shape(), expected.shape, "{} {case} {output}", fixture.name);
            // Rows of padding hold nothing that means anything.
            if !case.contains("left_padded") {
                limit.check(&format!("{} {case} {output}", fixture.name), found.as_f32().expect("floats"), &expected.f32);
            }
        }
    }
}

/// Exports of decoders: primitive ops, ops of opset 23, ops of ONNX Runtime; weights of floats, in blocks of int4 in two spellings, of int8.
pub(crate) const DECODERS: &[&str] = &[
    "llama3-onnx_torch_opset18_extdata",
    "llama3-onnx_torch_opset23_sdpa",
    "llama3-onnx_optimum",
    "llama4-onnx_torch_opset18",
    "llama3-onnx_ortq_qdq_int4",
    "llama3-onnx_genai_int4_b32",
    "llama3-onnx_ortq_dynamic_int8",
];

#[test]
fn imported_graphs_compute_what_onnx_runtime_computes() {
    let folder = tempfile::tempdir().expect("a folder");
    DECODERS.iter().for_each(|name| check(&onnx::one(folder.path(), name)));
}

#[test]
fn graphs_outside_the_repository_compute_what_onnx_runtime_computes() {
    onnx::more().iter().filter(|f| DECODERS.contains(&f.name.as_str())).for_each(check);
}
