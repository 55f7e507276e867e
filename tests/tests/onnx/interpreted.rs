//! What `llamac infer` does, on every fixture: decoders, and with `LLAMAC_FIXTURES` also graphs that are none (the vision encoders).

use super::imported::DECODERS;
use llamac::frontend::onnx::eager::{self, Value};
use llamac_ir::dtype::DType;
use llamac_tests::onnx::{self, Limit, OnnxFixture};
use std::collections::BTreeMap;

fn check(fixture: &OnnxFixture) {
    let ports = eager::inputs(&fixture.model).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
    let cases = fixture.cases();
    assert!(!cases.is_empty(), "{}: no cases", fixture.name);
    for case in cases {
        let given: BTreeMap<String, Value> = ports
            .iter()
            .map(|port| {
                let tensor = fixture.input(&case, &port.name).unwrap_or_else(|| panic!("{} {case}: {}", fixture.name, port.name));
                (port.name.clone(), Value { dtype: port.dtype, tensor })
            })
            .collect();
        let found = eager::run(&fixture.model, &given).unwrap_or_else(|e| panic!("{} {case}: {e}", fixture.name));
        assert!(!found.is_empty());
        for (output, value) in found {
            let Some((expected, mut limit)) = fixture.reference(&case, &output) else { continue };
            if fixture.name.contains("dynamic_int8") {
                limit = Limit::EXACT;
            }
            assert_eq!((value.dtype, value.tensor.shape()), (DType::F32, &expected.shape[..]), "{} {case} {output}", fixture.name);
            if !case.contains("left_padded") {
                limit.check(&format!("{} {case} {output}", fixture.name), value.tensor.as_f32().expect("floats"), &expected.f32);
            }
        }
    }
}

#[test]
fn graphs_are_interpreted_to_what_onnx_runtime_computes() {
    let folder = tempfile::tempdir().expect("a folder");
    DECODERS.iter().for_each(|name| check(&onnx::one(folder.path(), name)));
}

#[test]
fn graphs_outside_the_repository_are_interpreted_to_what_onnx_runtime_computes() {
    onnx::more().iter().for_each(check);
}
