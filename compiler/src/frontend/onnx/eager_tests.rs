//! Graphs run on tensors: numbers by hand, shapes that come as inputs, what is refused, and the way through an artifact.

use super::eager::{Value, run};
use super::tests::{int, node, value, write};
use crate::graph;
use llamac_ir::dtype::DType;
use llamac_ir::eval::Tensor;
use llamac_runtime::artifact::{ArtifactWriter, SectionKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};

/// A model of one node at the newest version.
fn model(node: NodeProto, inputs: Vec<ValueInfoProto>, output: DataType) -> ModelProto {
    let opset = OperatorSetIdProto { domain: String::new(), version: 28 };
    let graph = GraphProto { output: vec![value("y", output, &["n"])], node: vec![node], input: inputs, ..GraphProto::default() };
    ModelProto { graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() }
}

/// Inputs are called `a`, `b`, `c` and so on.
fn computed(op: &str, attributes: Vec<AttributeProto>, inputs: &[(DataType, Value)], output: DataType) -> Result<Value, String> {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let ports = inputs.iter().zip(names).map(|((dtype, v), name)| {
        let dims: Vec<String> = v.tensor.shape().iter().map(ToString::to_string).collect();
        value(name, *dtype, &dims.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &model(node("", op, &names[..inputs.len()], attributes), ports.collect(), output));
    let given = inputs.iter().zip(names).map(|((_, v), name)| (name.to_owned(), v.clone())).collect();
    Ok(run(&path, &given).map_err(|e| e.to_string())?.remove(0).1)
}

fn floats(shape: &[usize], data: &[f32]) -> (DataType, Value) {
    (DataType::Float, Value { dtype: DType::F32, tensor: Tensor::f32(shape, data.to_vec()) })
}

fn longs(data: &[i64]) -> (DataType, Value) {
    (DataType::Int64, Value { dtype: DType::I64, tensor: Tensor::i64(&[data.len()], data.to_vec()) })
}

fn whole(dtype: DType, as_onnx: DataType, shape: &[usize], data: &[i64]) -> (DataType, Value) {
    (as_onnx, Value { dtype, tensor: Tensor::i64(shape, data.to_vec()) })
}

fn same(found: Result<Value, String>, shape: &[usize], expected: &[f32]) {
    let found = found.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((found.tensor.shape(), found.tensor.as_f32().unwrap_or(&[])), (shape, expected));
}

#[test]
fn shapes_and_bounds_may_be_inputs() {
    let x = || floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    same(computed("Reshape", vec![], &[x(), longs(&[3, -1])], DataType::Float), &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let backwards = [x(), longs(&[5]), longs(&[i64::MIN]), longs(&[1]), longs(&[-2])];
    same(computed("Slice", vec![], &backwards, DataType::Float), &[2, 2], &[3.0, 1.0, 6.0, 4.0]);
    same(computed("Expand", vec![], &[floats(&[2, 1], &[1.0, 2.0]), longs(&[2, 2])], DataType::Float), &[2, 2], &[1.0, 1.0, 2.0, 2.0]);
    let pads = [floats(&[2], &[1.0, 2.0]), longs(&[1, 2]), floats(&[], &[9.0])];
    same(computed("Pad", vec![], &pads, DataType::Float), &[5], &[9.0, 1.0, 2.0, 9.0, 9.0]);
    let found = computed("NonZero", vec![], &[x()], DataType::Int64).unwrap();
    assert_eq!(found.tensor.as_i64().unwrap(), [0, 0, 0, 1, 1, 1, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn integers_are_exact_and_wrap() {
    let large = |data: &[i64]| whole(DType::U64, DataType::Uint64, &[data.len()], data);
    let found = computed("Add", vec![], &[large(&[-1, -2]), large(&[1, 1])], DataType::Uint64).unwrap();
    assert_eq!(found.tensor.as_i64(), Some(&[0, -1][..]));
    let bytes = |data: &[i64]| whole(DType::U8, DataType::Uint8, &[data.len()], data);
    assert_eq!(computed("Mul", vec![], &[bytes(&[200]), bytes(&[3])], DataType::Uint8).unwrap().tensor.as_i64(), Some(&[88][..]));
    assert!(computed("Div", vec![], &[bytes(&[1]), bytes(&[0])], DataType::Uint8).unwrap_err().contains("divided by 0"));
    // Rows (1, 2) less 1, columns (3, 4) less 2: 0 * 1 + 1 * 2.
    let codes = |shape: &[usize], data: &[i64]| whole(DType::U8, DataType::Uint8, shape, data);
    let all = [codes(&[1, 2], &[1, 2]), codes(&[2, 1], &[3, 4]), codes(&[], &[1]), codes(&[], &[2])];
    assert_eq!(computed("MatMulInteger", vec![], &all, DataType::Int32).unwrap().tensor.as_i32(), Some(&[2][..]));
}

#[test]
fn codes_that_are_computed_have_scales_and_zero_points() {
    let codes = whole(DType::I8, DataType::Int8, &[2, 2], &[1, 2, -3, 4]);
    let zero = whole(DType::I8, DataType::Int8, &[2], &[1, 0]);
    let found = computed("DequantizeLinear", vec![int("axis", 0)], &[codes, floats(&[2], &[0.5, 2.0]), zero], DataType::Float);
    same(found, &[2, 2], &[0.0, 0.5, -6.0, 8.0]);
    let found =
        computed("QuantizeLinear", vec![], &[floats(&[4], &[0.5, 1.5, -9.0, 900.0]), floats(&[], &[1.0])], DataType::Uint8).unwrap();
    assert_eq!(found.tensor.as_i64(), Some(&[0, 2, 0, 255][..]));
}

#[test]
fn a_causal_mask_without_a_past_begins_at_the_first_key() {
    // One query, two keys of equal score: the query is the first token, so that it sees the first key only.
    let q = floats(&[1, 1, 1, 1], &[1.0]);
    let (k, v) = (floats(&[1, 1, 2, 1], &[1.0, 1.0]), floats(&[1, 1, 2, 1], &[3.0, 5.0]));
    same(computed("Attention", vec![int("is_causal", 1)], &[q.clone(), k.clone(), v.clone()], DataType::Float), &[1, 1, 1, 1], &[3.0]);
    same(computed("Attention", vec![], &[q, k, v], DataType::Float), &[1, 1, 1, 1], &[4.0]);
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = vec![value("a", DataType::Float, &["n", "2"]), value("b", DataType::Float, &["n"])];
    let path = write(folder.path(), &model(node("", "Relu", &["a"], vec![]), inputs, DataType::Float));
    let give = |all: Vec<(&str, (DataType, Value))>| {
        let given: BTreeMap<String, Value> = all.into_iter().map(|(n, (_, v))| (n.to_owned(), v)).collect();
        run(&path, &given).unwrap_err().to_string()
    };
    let (a, b) = (floats(&[1, 2], &[1.0, 2.0]), floats(&[1], &[1.0]));
    let said = give(vec![("a", a.clone())]);
    assert!(said.contains("is not given") && said.contains("`b`: f32[n]"), "{said}");
    let said = give(vec![("a", a.clone()), ("b", longs(&[1]))]);
    assert!(said.contains("another element type") && said.contains("i64[1]"), "{said}");
    let said = give(vec![("a", a.clone()), ("b", floats(&[2], &[1.0, 2.0]))]);
    assert!(said.contains("another shape") && said.contains("n = 1"), "{said}");
    let said = give(vec![("a", b.clone()), ("b", b.clone())]);
    assert!(said.contains("number of axes"), "{said}");
    let said = give(vec![("a", a), ("b", b), ("c", longs(&[]))]);
    assert!(said.contains("no such input") && said.contains("`c`") && said.contains("a, b"), "{said}");
    let lost = computed("Cast", vec![int("to", 40)], &[floats(&[1], &[1.0])], DataType::Float).unwrap_err();
    assert!(lost.contains("number 40"), "{lost}");
    // The largest of no truth values is the smallest that there is.
    let nothing = [whole(DType::Bool, DataType::Bool, &[0, 2], &[]), longs(&[0])];
    let found = computed("ReduceMax", vec![], &nothing, DataType::Bool).unwrap();
    assert_eq!((found.tensor.shape(), found.tensor.as_i64()), (&[1, 2][..], Some(&[0, 0][..])));
    // Nothing is dropped where the part to drop is 0.
    let zero = [floats(&[1], &[3.0]), floats(&[], &[0.0]), whole(DType::Bool, DataType::Bool, &[], &[1])];
    same(computed("Dropout", vec![], &zero, DataType::Float), &[1], &[3.0]);
    let learning = computed(
        "Dropout",
        vec![],
        &[floats(&[1], &[1.0]), floats(&[], &[0.5]), whole(DType::Bool, DataType::Bool, &[], &[1])],
        DataType::Float,
    );
    assert!(learning.unwrap_err().contains("for training"));
}

fn tensors(path: &Path, all: &[(&str, safetensors::Dtype, Vec<usize>, Vec<u8>)]) {
    let views = all.iter().map(|(n, dtype, shape, data)| (*n, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// A folder with a graph, inputs for it, and the names of files to come.
fn folder() -> (tempfile::TempDir, [PathBuf; 4]) {
    let folder = tempfile::tempdir().unwrap();
    let inputs = vec![value("a", DataType::Float, &["n"]), value("b", DataType::Int64, &["1"])];
    let path = write(folder.path(), &model(node("", "Tile", &["a", "b"], vec![]), inputs, DataType::Float));
    let input = folder.path().join("in.safetensors");
    let data: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    tensors(&input, &[("a", safetensors::Dtype::F32, vec![2], data), ("b", safetensors::Dtype::I64, vec![1], 2i64.to_le_bytes().to_vec())]);
    let (artifact, output) = (folder.path().join("a.llx"), folder.path().join("out.safetensors"));
    (folder, [path, input, artifact, output])
}

#[test]
fn a_graph_goes_into_an_artifact_and_runs_from_it() {
    let (_folder, [model, input, artifact, output]) = folder();
    let stored = graph::store(&model, &artifact).unwrap();
    assert!(stored.warnings.iter().any(|w| w.to_string().contains("is no decoder")), "{:?}", stored.warnings);
    assert!(stored.warnings.iter().any(|w| w.to_string().contains("follow from values")), "{:?}", stored.warnings);
    std::fs::remove_file(&model).unwrap();
    assert_eq!(graph::infer(&artifact, &input, &output).unwrap(), ["`y`: f32[4]"]);
    let bytes = std::fs::read(&output).unwrap();
    let found = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let expected: Vec<u8> = [1.0f32, 2.0, 1.0, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!((found.tensor("y").unwrap().shape(), found.tensor("y").unwrap().data()), (&[4][..], &expected[..]));
    let shown = graph::described(&artifact).unwrap().unwrap();
    assert!(shown.contains("no machine code") && shown.contains("`a`: f32[n]") && shown.contains("1 nodes"), "{shown}");
    // A damaged graph is found by its hash.
    let mut broken = std::fs::read(&artifact).unwrap();
    *broken.last_mut().unwrap() ^= 1;
    std::fs::write(&artifact, broken).unwrap();
    assert!(graph::infer(&artifact, &input, &output).unwrap_err().to_string().contains("artifact-corrupt"));
}

#[test]
fn tensors_of_another_type_or_name_and_artifacts_of_decoders_are_refused() {
    let (_folder, [model, input, artifact, output]) = folder();
    tensors(&input, &[("a", safetensors::Dtype::F64, vec![1], vec![0; 8])]);
    let said = graph::infer(&model, &input, &output).unwrap_err().to_string();
    assert!(said.contains("another element type") && said.contains("F64") && said.contains("F32 for `a`"), "{said}");
    tensors(&input, &[("z", safetensors::Dtype::F32, vec![1], vec![0; 4])]);
    let said = graph::infer(&model, &input, &output).unwrap_err().to_string();
    assert!(said.contains("no input of that name") && said.contains("`b`: i64[1]"), "{said}");
    let mut writer = ArtifactWriter::create(&artifact).unwrap();
    writer.put(SectionKind::Code, &[0]).unwrap();
    writer.finish().unwrap();
    let said = graph::infer(&artifact, &input, &output).unwrap_err().to_string();
    assert!(said.contains("of a decoder") && said.contains("llamac logits"), "{said}");
    assert!(!output.exists());
}
