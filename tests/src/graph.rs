//! ONNX models made in memory: messages from few words, for tests whose graphs stand in no file. What the graphs are is in `decoders` and the tests.

use crate::fuzz::Rng;
use half::{bf16, f16};
use prost::Message;
use std::path::{Path, PathBuf};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataLocation;
pub use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

/// A value of an attribute.
#[derive(Debug, Clone)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// Text.
    Text(String),
    /// Integers.
    Ints(Vec<i64>),
}

/// A graph in the making.
#[derive(Debug, Clone)]
pub struct Graph {
    /// What is there so far.
    pub proto: GraphProto,
    /// Domains and their versions.
    pub versions: Vec<(String, i64)>,
}

impl Graph {
    /// An empty graph at a version of the standard ops; contrib ops are at version 1.
    pub fn new(version: i64) -> Graph {
        Graph {
            proto: GraphProto { name: "g".into(), ..GraphProto::default() },
            versions: vec![(String::new(), version), ("com.microsoft".into(), 1)],
        }
    }

    /// An input; lengths are numbers or names.
    pub fn input(&mut self, name: &str, dtype: DataType, dims: &[&str]) -> String {
        self.proto.input.push(value(name, dtype, dims));
        name.to_owned()
    }

    /// An output.
    pub fn output(&mut self, name: &str, dtype: DataType, dims: &[&str]) {
        self.proto.output.push(value(name, dtype, dims));
    }

    /// Gives an axis of an input or output a name in place of its length.
    ///
    /// # Panics
    /// If there is no such axis.
    pub fn open_axis(port: &mut ValueInfoProto, axis: usize, name: &str) {
        let Some(type_proto::Value::TensorType(tensor)) = port.r#type.as_mut().and_then(|t| t.value.as_mut()) else { panic!("no tensor") };
        tensor.shape.as_mut().expect("a shape").dim[axis].value = Some(Value::DimParam(name.to_owned()));
    }

    /// A stored tensor of floats, rounded to its type.
    pub fn floats(&mut self, name: &str, dtype: DataType, shape: &[usize], data: &[f32]) -> String {
        self.tensor(name, dtype, shape, float_bytes(dtype, data))
    }

    /// A stored tensor of i64.
    pub fn ints(&mut self, name: &str, shape: &[usize], data: &[i64]) -> String {
        self.tensor(name, DataType::Int64, shape, data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// A stored tensor of bytes.
    pub fn tensor(&mut self, name: &str, dtype: DataType, shape: &[usize], bytes: Vec<u8>) -> String {
        let dims = shape.iter().map(|n| *n as i64).collect();
        let tensor = TensorProto { name: name.to_owned(), dims, data_type: dtype as i32, raw_data: bytes, ..TensorProto::default() };
        self.proto.initializer.push(tensor);
        name.to_owned()
    }

    /// A node of the standard domain with one output; returns its name.
    pub fn op(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attr)]) -> String {
        let name = format!("{}_{}", op.to_lowercase(), self.proto.node.len());
        self.node("", op, inputs, &[&name], attributes);
        name
    }

    /// Any node.
    pub fn node(&mut self, domain: &str, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attr)]) {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect();
        self.proto.node.push(NodeProto {
            input: names(inputs),
            output: names(outputs),
            name: format!("n{}", self.proto.node.len()),
            op_type: op.to_owned(),
            domain: domain.to_owned(),
            attribute: attributes.iter().map(|(n, v)| attribute(n, v)).collect(),
            ..NodeProto::default()
        });
    }

    /// The whole model.
    pub fn model(&self) -> ModelProto {
        let set = |(domain, version): &(String, i64)| OperatorSetIdProto { domain: domain.clone(), version: *version };
        ModelProto {
            ir_version: 10,
            graph: Some(self.proto.clone()),
            opset_import: self.versions.iter().map(set).collect(),
            producer_name: "llamac-tests".into(),
            ..ModelProto::default()
        }
    }

    /// Writes `model.onnx` into a folder that is made if need be.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> PathBuf {
        std::fs::create_dir_all(folder).expect("a folder");
        let path = folder.join("model.onnx");
        std::fs::write(&path, self.model().encode_to_vec()).expect("a file");
        path
    }

    /// As [`Graph::write`], with the data of stored tensors in `weights.bin` beside it, 64 bytes apart.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_apart(&self, folder: &Path) -> PathBuf {
        let mut apart = self.clone();
        let mut data = Vec::new();
        for tensor in &mut apart.proto.initializer {
            data.resize(usize::next_multiple_of(data.len(), 64), 0xee);
            let bytes = std::mem::take(&mut tensor.raw_data);
            let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
            tensor.external_data = vec![
                entry("location", "weights.bin".into()),
                entry("offset", data.len().to_string()),
                entry("length", bytes.len().to_string()),
            ];
            tensor.data_location = Some(DataLocation::External as i32);
            data.extend(bytes);
        }
        let path = apart.write(folder);
        std::fs::write(folder.join("weights.bin"), data).expect("a file");
        path
    }
}

/// Floats as bytes of a type.
///
/// # Panics
/// If it is not one of float, float16 and bfloat16.
pub fn float_bytes(dtype: DataType, data: &[f32]) -> Vec<u8> {
    match dtype {
        DataType::Float => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DataType::Float16 => data.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        DataType::Bfloat16 => data.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        other => panic!("{other:?}"),
    }
}

/// A float rounded to a type.
pub fn rounded(dtype: DataType, x: f32) -> f32 {
    match dtype {
        DataType::Float16 => f16::from_f32(x).to_f32(),
        DataType::Bfloat16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// Numbers between `-scale` and `scale`.
pub fn spread(rng: &mut Rng, count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|_| (rng.below(20_001) as f32 / 10_000.0 - 1.0) * scale).collect()
}

fn value(name: &str, dtype: DataType, dims: &[&str]) -> ValueInfoProto {
    let dim =
        |d: &&str| Dimension { value: Some(d.parse().map_or(Value::DimParam((*d).to_owned()), Value::DimValue)), ..Dimension::default() };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let ty = TypeProto {
        value: Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: dtype as i32, shape })),
        ..TypeProto::default()
    };
    ValueInfoProto { name: name.to_owned(), r#type: Some(ty), ..ValueInfoProto::default() }
}

fn attribute(name: &str, value: &Attr) -> AttributeProto {
    let mut out = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match value {
        Attr::Int(i) => (out.i, out.r#type) = (*i, AttributeType::Int as i32),
        Attr::Float(f) => (out.f, out.r#type) = (*f, AttributeType::Float as i32),
        Attr::Text(s) => (out.s, out.r#type) = (s.clone().into_bytes(), AttributeType::String as i32),
        Attr::Ints(list) => (out.ints, out.r#type) = (list.clone(), AttributeType::Ints as i32),
    }
    out
}
