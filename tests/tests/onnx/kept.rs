//! Weights that an export has in four bits: an int4 artifact has the same codes, not codes of what they stand for.

use llamac::driver::{self, CompileOptions};
use llamac::frontend;
use llamac_ir::dtype::DType;
use llamac_ir::recipe::{Prepared, Recipe};
use llamac_tests::model::Runner;
use llamac_tests::onnx::{self, Limit};

fn check(export: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = onnx::one(folder.path(), export);
    let model = frontend::load(&fixture.model).unwrap_or_else(|e| panic!("{export}: {e}"));
    let options = CompileOptions { quant: Some("int4".into()), max_context: Some(256), ..CompileOptions::default() };
    let planned = driver::plan(&model, &options).unwrap_or_else(|e| panic!("{e}"));
    let source = model.weights().expect("weights");
    let layer = planned.module.funcs.iter().find(|f| f.name != "main").expect("a layer");
    let mut kept = 0;
    for weight in &layer.weights {
        let recipe = weight.recipe.for_layer(1);
        let Recipe::Cast(DType::Q4G32, of) = &recipe else { continue };
        let read = |recipe: &Recipe| Prepared::new(recipe, source).and_then(|p| p.read_all()).unwrap_or_else(|e| panic!("{export}: {e}"));
        // Scales are rounded to f16, nothing else.
        for (x, exact) in read(&recipe).iter().zip(read(of)) {
            assert!((x - exact).abs() <= exact.abs() * 4.9e-4, "{export}: @{}: {x}, expected {exact}", weight.name);
        }
        kept += 1;
    }
    assert!(kept >= 4, "{export}: {kept} weights of four bits");

    let out = folder.path().join("int4.llx");
    driver::compile(&fixture.model, &out, &options, &driver::Silent).unwrap_or_else(|e| panic!("{export}: {e}"));
    let mut runner = Runner::open(&out, 2);
    let tokens: Vec<u32> = fixture.io["prefill.in.input_ids"].i64.iter().map(|&t| u32::try_from(t).expect("a token")).collect();
    let (expected, _) = fixture.reference("prefill", "logits").expect("logits");
    // Inputs of products are rounded to int8.
    Limit::ROUNDED.check(&format!("{export} in int4"), &runner.logits(&tokens), &expected.f32);
}

#[test]
fn codes_of_blocks_of_32_go_into_an_int4_artifact_as_they_are() {
    check("llama3-onnx_genai_int4_b32");
    check("llama3-onnx_ortq_qdq_int4");
}
