//! What is refused and how, and where data is found: models made in memory.

mod contrib;
mod experts;

use super::{import, load};
use llamac_ir::recipe::Source;
use prost::Message;
use std::path::Path;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

pub(super) fn value(name: &str, dtype: DataType, dims: &[&str]) -> ValueInfoProto {
    let dim =
        |d: &&str| Dimension { value: Some(d.parse().map_or(Value::DimParam((*d).to_owned()), Value::DimValue)), ..Dimension::default() };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: dtype as i32, shape };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(ty), ..ValueInfoProto::default() }
}

pub(super) fn node(domain: &str, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec!["y".to_owned()],
        name: "the_node".to_owned(),
        op_type: op.to_owned(),
        domain: domain.to_owned(),
        attribute: attributes,
        ..NodeProto::default()
    }
}

pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i, r#type: AttributeType::Int as i32, ..AttributeProto::default() }
}

fn model(node: NodeProto, initializers: Vec<TensorProto>) -> ModelProto {
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version };
    let graph = GraphProto {
        node: vec![node],
        initializer: initializers,
        input: vec![value("x", DataType::Float, &["b", "4"])],
        output: vec![value("y", DataType::Float, &["b", "4"])],
        ..GraphProto::default()
    };
    ModelProto { graph: Some(graph), opset_import: vec![opset("", 18), opset("com.microsoft", 1)], ..ModelProto::default() }
}

fn floats(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    let raw = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type: DataType::Float as i32, raw_data: raw, ..TensorProto::default() }
}

fn external(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    let entry = |(k, v): &(&str, &str)| StringStringEntryProto { key: (*k).to_owned(), value: (*v).to_owned() };
    TensorProto {
        data_location: Some(DataLocation::External as i32),
        external_data: entries.iter().map(entry).collect(),
        ..floats(name, dims, &[])
    }
}

pub(super) fn write(folder: &Path, model: &ModelProto) -> std::path::PathBuf {
    let path = folder.join("model.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

fn refused(model: &ModelProto, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("short.bin"), [0; 8]).unwrap();
    let said = import(&write(folder.path(), model)).unwrap_err().to_string();
    assert!(words.iter().all(|w| said.contains(w)) && said.contains("model.onnx"), "{words:?} not all in: {said}");
}

#[test]
fn an_op_that_is_not_compiled_is_named_with_its_node_domain_and_version() {
    let unknown = model(node("", "Einsum", &["x"], vec![]), vec![]);
    refused(&unknown, &["`Einsum`", "`ai.onnx`", "version 18", "the_node"]);
    let contrib = model(node("com.microsoft", "Add", &["x", "x"], vec![]), vec![]);
    refused(&contrib, &["`Add`", "`com.microsoft`", "version 1"]);
    let newer = model(node("", "RMSNormalization", &["x", "x"], vec![]), vec![]);
    refused(&newer, &["RMSNormalization", "version 23 or later"]);
    let other = model(node("my.domain", "Add", &["x", "x"], vec![]), vec![]);
    refused(&other, &["my.domain", "opset_import"]);
}

#[test]
fn attributes_and_types_that_an_op_does_not_have_are_refused() {
    refused(&model(node("", "Add", &["x", "x"], vec![int("axis", 1)]), vec![]), &["an attribute is not compiled", "`axis`"]);
    refused(&model(node("", "CumSum", &["x", "one"], vec![int("wrong", 1)]), vec![constant("one", 1)]), &["`wrong`", "exclusive, reverse"]);
    refused(&model(node("", "And", &["x", "x"], vec![]), vec![]), &["do not fit", "expected bool"]);
    refused(&model(node("", "Relu", &["x", "x"], vec![]), vec![]), &["an input is not compiled", "input 1"]);
    refused(&model(node("", "Relu", &["z"], vec![]), vec![]), &["`z`", "not there"]);
    let double = TensorProto { data_type: DataType::Double as i32, ..floats("d", &[1], &[0.0, 0.0]) };
    refused(&model(node("", "Add", &["x", "d"], vec![]), vec![double]), &["do not fit", "f64[1]"]);
}

fn constant(name: &str, n: i64) -> TensorProto {
    TensorProto { name: name.to_owned(), data_type: DataType::Int64 as i32, int64_data: vec![n], ..TensorProto::default() }
}

#[test]
fn versions_that_are_not_known_and_damaged_files_are_refused() {
    let mut old = model(node("", "Relu", &["x"], vec![]), vec![]);
    old.opset_import[0].version = 99;
    refused(&old, &["found:    99", "opset 1 to"]);
    old.opset_import[0].version = 5;
    refused(&old, &["`Relu`", "version 6 or later"]);
    old.opset_import.clear();
    refused(&old, &["found:    none"]);
    refused(&ModelProto::default(), &["no graph"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let whole = model(node("", "Relu", &["x"], vec![]), vec![floats("w", &[100], &[1.0; 100])]).encode_to_vec();
    for end in [1, 10, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert!(import(&path).is_err(), "{end} bytes");
    }
    assert!(import(&folder.path().join("none.onnx")).unwrap_err().to_string().contains("none.onnx"));
}

#[test]
fn data_outside_the_folder_is_refused_and_so_is_data_that_is_not_there() {
    let add = || node("", "Add", &["x", "w"], vec![]);
    for path in ["../short.bin", "/etc/passwd", "a/../../b", "..\\b", ""] {
        refused(&model(add(), vec![external("w", &[4], &[("location", path)])]), &["outside the folder", "tensor `w`"]);
    }
    let place = |entries: &[(&str, &str)]| model(add(), vec![external("w", &[4], entries)]);
    refused(&place(&[("location", "none.bin")]), &["none.bin"]);
    refused(&place(&[("location", "short.bin")]), &["ends behind the file", "16 bytes from 0 on", "at most 8"]);
    refused(&place(&[("location", "short.bin"), ("offset", "4"), ("length", "4")]), &["not as long as the shape", "4 bytes", "16 for"]);
    refused(&place(&[("location", "short.bin"), ("offset", "-4")]), &["`offset`", "-4"]);
    refused(&place(&[("location", "short.bin"), ("offset", "18446744073709551615"), ("length", "16")]), &["ends behind the file"]);
    refused(&place(&[]), &["does not say where"]);
    refused(&model(add(), vec![floats("w", &[5], &[0.0; 4])]), &["not as long as the shape"]);
    refused(&model(add(), vec![floats("w", &[-1], &[])]), &["negative"]);
    refused(&model(add(), vec![floats("w", &[i64::MAX, i64::MAX], &[])]), &["larger than any memory"]);
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_outside_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(other.path().join("w.bin"), [0; 16]).unwrap();
    std::os::unix::fs::symlink(other.path().join("w.bin"), folder.path().join("w.bin")).unwrap();
    let path = write(folder.path(), &model(node("", "Add", &["x", "w"], vec![]), vec![external("w", &[4], &[("location", "w.bin")])]));
    assert!(import(&path).unwrap_err().to_string().contains("a link"));
}

#[test]
fn weights_are_read_where_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<f32> = (0..400).map(|i| i as f32).collect();
    let bytes: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::write(folder.path().join("w.bin"), bytes).unwrap();
    let half = TensorProto { data_type: DataType::Float16 as i32, raw_data: vec![0, 0x3c, 0, 0x40], ..floats("half", &[2], &[]) };
    let brain = TensorProto { data_type: DataType::Bfloat16 as i32, int32_data: vec![0x3f80, 0x4000], ..floats("brain", &[2], &[]) };
    let typed = TensorProto { float_data: vec![0.5, 0.25], ..floats("typed", &[2], &[]) };
    let outside = external("outside", &[2], &[("location", "w.bin"), ("offset", "8"), ("length", "8")]);
    let tensors = vec![floats("large", &[100, 4], &large), floats("w", &[4], &[1.0; 4]), half, brain, typed, outside];
    let graph = import(&write(folder.path(), &model(node("", "Add", &["x", "w"], vec![]), tensors))).unwrap();
    let row = |name: &str, row: usize, n: usize| {
        let mut out = vec![0.0; n];
        graph.weights.row(name, row, &mut out).map(|()| out)
    };
    assert_eq!(row("large", 99, 4).unwrap(), [396.0, 397.0, 398.0, 399.0]);
    // Another shape of the same elements.
    assert_eq!(row("large", 49, 8).unwrap()[7], 399.0);
    assert_eq!((row("half", 0, 2).unwrap(), row("brain", 0, 2).unwrap()), (vec![1.0, 2.0], vec![1.0, 2.0]));
    assert_eq!((row("typed", 0, 2).unwrap(), row("outside", 0, 2).unwrap()), (vec![0.5, 0.25], vec![2.0, 3.0]));
    assert!(row("large", 100, 4).is_err() && row("none", 0, 1).is_err());
    assert!(graph.module.to_string().contains("%y = tensor.add %x, @w"), "{}", graph.module);
}

#[test]
fn a_graph_that_is_no_decoder_is_refused_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let said = load(&write(folder.path(), &model(node("", "Relu", &["x"], vec![]), vec![]))).unwrap_err().to_string();
    for words in ["not recognised as a Llama", "no input of token ids", "--print-after raise"] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
}

#[test]
fn weights_in_blocks_of_codes_are_read_as_floats() {
    let folder = tempfile::tempdir().unwrap();
    let codes =
        TensorProto { data_type: DataType::Uint8 as i32, raw_data: vec![0x98, 0xba, 0x70, 0xff], ..floats("codes", &[2, 1, 2], &[]) };
    let sizes = || vec![int("K", 4), int("N", 2), int("block_size", 4), int("bits", 4), int("accuracy_level", 4)];
    let tensors = || vec![codes.clone(), floats("scales", &[2, 1], &[0.5, 2.0])];
    let nbits = |attributes| model(node("com.microsoft", "MatMulNBits", &["x", "codes", "scales"], attributes), tensors());
    let mut whole = nbits(sizes());
    whole.graph.as_mut().unwrap().output[0] = value("y", DataType::Float, &["b", "2"]);
    let graph = import(&write(folder.path(), &whole)).unwrap();
    let mut row = [0.0; 4];
    graph.weights.row("codes.2x4", 0, &mut row).unwrap();
    assert_eq!(row, [0.0, 0.5, 1.0, 1.5]);
    graph.weights.row("codes.2x4", 1, &mut row).unwrap();
    assert_eq!(row, [-16.0, -2.0, 14.0, 14.0]);
    let mut wrong = sizes();
    wrong[1] = int("N", 3);
    refused(&nbits(wrong), &["does not fit the weight", "MatMulNBits"]);
    let mut wrong = sizes();
    wrong[3] = int("bits", 3);
    refused(&nbits(wrong), &["number of bits", "found:    3"]);
}
