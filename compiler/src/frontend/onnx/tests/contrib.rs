//! ONNX Runtime's own ops: what attention is taken apart into, against numbers worked out by hand, and what of it is refused.

use super::*;
use llamac_ir::eval::{Cache, Tensor, eval_func};

/// One head of size 2 for queries, keys and values, packed: `x: [b, s, 6]`, a past of any length, the size of a head open in the cache.
fn attention(attributes: Vec<AttributeProto>, extra: &[&str]) -> ModelProto {
    let cache = |name: &str| value(name, DataType::Float, &["b", "1", "past", "cache_dim"]);
    let inputs = ["x", "", "", "k", "v", "lengths", "total", "cos", "sin"];
    let mut node = node("com.microsoft", "GroupQueryAttention", &[&inputs[..], extra].concat(), attributes);
    node.output.extend(["keys", "values"].map(str::to_owned));
    // A turn by 0 at position 0, by a right angle at position 1, by two at position 2.
    let tables = vec![floats("cos", &[3, 1], &[1.0, 0.0, -1.0]), floats("sin", &[3, 1], &[0.0, 1.0, 0.0])];
    let mut whole = model(node, tables);
    let graph = whole.graph.as_mut().unwrap();
    let ints = |name: &str, dims: &[&str]| value(name, DataType::Int32, dims);
    graph.input = vec![value("x", DataType::Float, &["b", "s", "6"]), cache("k"), cache("v"), ints("lengths", &["b"]), ints("total", &[])];
    graph.output = vec![value("y", DataType::Float, &["b", "s", "2"]), cache("keys"), cache("values")];
    whole
}

fn heads() -> Vec<AttributeProto> {
    vec![int("num_heads", 1), int("kv_num_heads", 1), int("do_rotary", 1), int("local_window_size", -1)]
}

#[test]
fn attention_turns_what_it_unpacks_and_sees_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let graph = import(&write(folder.path(), &attention(heads(), &[]))).unwrap();
    let args = [
        // Query (0, 0), which sees both keys alike; key (1, 0), value (3, 5).
        Tensor::f32(&[1, 1, 6], vec![0.0, 0.0, 1.0, 0.0, 3.0, 5.0]),
        Tensor::f32(&[1, 1, 1, 2], vec![7.0, 8.0]),
        Tensor::f32(&[1, 1, 1, 2], vec![1.0, 1.0]),
        Tensor::i32(&[1], vec![1]),
        Tensor::i32(&[], vec![2]),
    ];
    let found = eval_func(&graph.module.funcs[0], &graph.weights, None, &args, &mut Cache::default()).unwrap();
    assert_eq!(found[0].as_f32().unwrap(), [2.0, 3.0]);
    // The new key stands at position 1: turned by a right angle.
    assert_eq!(found[1].as_f32().unwrap(), [7.0, 8.0, 0.0, 1.0]);
    assert_eq!((found[2].shape(), found[2].as_f32().unwrap()), (&[1, 1, 2, 2][..], &[1.0, 1.0, 3.0, 5.0][..]));
    let text = graph.module.to_string();
    assert!(!text.contains("cache_dim") && text.contains("scale=0.707"), "{text}");
}

#[test]
fn attention_that_is_something_else_is_refused_by_name() {
    let with = |name: &str, n: i64| {
        let mut all = heads();
        all.retain(|a| a.name != name);
        all.push(int(name, n));
        attention(all, &[])
    };
    refused(&with("local_window_size", 128), &["`local_window_size`", "found:    128", "GroupQueryAttention"]);
    refused(&with("smooth_softmax", 1), &["`smooth_softmax`"]);
    refused(&with("qk_output", 1), &["`qk_output`"]);
    refused(&with("kv_num_heads", 0), &["`kv_num_heads` is missing"]);
    refused(&with("num_heads", 3), &["do not divide the width", "3 + 2 * 1"]);
    refused(&with("unknown", 1), &["an attribute is not compiled", "`unknown`"]);
    refused(&attention(heads(), &["", "x"]), &["an input is not compiled", "input 10"]);
}

#[test]
fn rows_of_a_table_in_blocks_are_looked_up_and_narrowed() {
    let folder = tempfile::tempdir().unwrap();
    // Two rows of four codes, of which three are elements.
    let codes = TensorProto { data_type: DataType::Uint8 as i32, raw_data: vec![0x98, 0x0a, 0x70, 0x0f], ..floats("codes", &[4], &[]) };
    let two = |name: &str, data: &[i64]| TensorProto { int64_data: data.to_vec(), dims: vec![data.len() as i64], ..constant(name, 0) };
    let tensors = vec![
        codes,
        floats("scales", &[2, 1], &[0.5, 2.0]),
        two("shape", &[2, 2]),
        two("zero", &[0]),
        two("three", &[3]),
        two("last", &[-1]),
    ];
    let named = |mut n: NodeProto, output: &str| {
        n.output = vec![output.to_owned()];
        n
    };
    let sizes = || vec![int("bits", 4), int("block_size", 4), int("gather_axis", 0), int("quantize_axis", 1)];
    let nodes = |attributes| {
        let mut whole = model(node("", "Slice", &["rows", "zero", "three", "last"], vec![]), tensors.clone());
        let graph = whole.graph.as_mut().unwrap();
        graph.input = vec![value("ids", DataType::Int64, &["b", "s"])];
        graph.node.insert(0, named(node("", "Reshape", &["codes", "shape"], vec![]), "table"));
        graph.node.insert(1, named(node("com.microsoft", "GatherBlockQuantized", &["table", "ids", "scales"], attributes), "rows"));
        whole
    };
    let graph = import(&write(folder.path(), &nodes(sizes()))).unwrap();
    let args = [Tensor::i64(&[1, 2], vec![1, 0])];
    let found = eval_func(&graph.module.funcs[0], &graph.weights, None, &args, &mut Cache::default()).unwrap();
    assert_eq!((found[0].shape(), found[0].as_f32().unwrap()), (&[1, 2, 3][..], &[-16.0, -2.0, 14.0, 0.0, 0.5, 1.0][..]));
    // The weight is as narrow as that of a product with the same codes would be.
    assert!(graph.module.to_string().contains("tensor.gather @codes.2x3"), "{}", graph.module);
    let mut other = sizes();
    other[3] = int("quantize_axis", 0);
    refused(&nodes(other), &["`quantize_axis`", "GatherBlockQuantized"]);
    let mut other = sizes();
    other[1] = int("block_size", 3);
    refused(&nodes(other), &["the scale does not fit"]);
}

#[test]
fn rotation_by_position_gathers_its_tables() {
    let folder = tempfile::tempdir().unwrap();
    let tables = vec![floats("cos", &[2, 1], &[1.0, 0.0]), floats("sin", &[2, 1], &[0.0, 1.0])];
    let turn = |attributes, dims: &[&str]| {
        let mut whole = model(node("com.microsoft", "RotaryEmbedding", &["x", "pos", "cos", "sin"], attributes), tables.clone());
        whole.graph.as_mut().unwrap().input = vec![value("x", DataType::Float, &["b", "s", "4"]), value("pos", DataType::Int64, dims)];
        whole
    };
    let graph = import(&write(folder.path(), &turn(vec![int("num_heads", 2)], &["b", "s"]))).unwrap();
    let args = [Tensor::f32(&[1, 2, 4], vec![1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]), Tensor::i64(&[1, 2], vec![0, 1])];
    let found = eval_func(&graph.module.funcs[0], &graph.weights, None, &args, &mut Cache::default()).unwrap();
    assert_eq!(found[0].as_f32().unwrap(), [1.0, 2.0, 3.0, 4.0, -2.0, 1.0, -4.0, 3.0]);
    refused(&turn(vec![], &["1"]), &["one offset", "[batch, sequence]"]);
    refused(&turn(vec![int("rotary_embedding_dim", 2)], &["b", "s"]), &["`rotary_embedding_dim`"]);
}

#[test]
fn patches_of_an_image_are_rows_of_a_product() {
    let folder = tempfile::tempdir().unwrap();
    let list = |name: &str, ints: &[i64]| AttributeProto {
        name: name.to_owned(),
        ints: ints.to_vec(),
        r#type: AttributeType::Ints as i32,
        ..AttributeProto::default()
    };
    // Windows of 1 x 2: their sum, and twice their last number.
    let tensors = vec![floats("w", &[2, 1, 1, 2], &[1.0, 1.0, 0.0, 2.0]), floats("bias", &[2], &[0.0, 100.0])];
    let conv = |attributes| {
        let mut whole = model(node("", "Conv", &["x", "w", "bias"], attributes), tensors.clone());
        whole.graph.as_mut().unwrap().input = vec![value("x", DataType::Float, &["b", "1", "2", "5"])];
        whole
    };
    let graph = import(&write(folder.path(), &conv(vec![list("strides", &[1, 2]), list("kernel_shape", &[1, 2])]))).unwrap();
    let args = [Tensor::f32(&[1, 1, 2, 5], (0..10).map(|i| i as f32).collect())];
    let found = eval_func(&graph.module.funcs[0], &graph.weights, None, &args, &mut Cache::default()).unwrap();
    assert_eq!(found[0].shape(), [1, 2, 2, 2]);
    assert_eq!(found[0].as_f32().unwrap(), [1.0, 5.0, 11.0, 15.0, 102.0, 106.0, 112.0, 116.0]);
    refused(&conv(vec![]), &["`strides`", "side by side", "[1, 2]"]);
    refused(&conv(vec![list("strides", &[1, 2]), list("pads", &[0, 1, 0, 0])]), &["`pads`", "over the edge"]);
    refused(&conv(vec![list("strides", &[1, 2]), int("group", 2)]), &["`group`"]);
}
