//! Tensors by name through `llamac infer`: an artifact, or an ONNX file that is interpreted.

use llamac::frontend::onnx::eager::{Value, decode, encode};
use llamac::graph;
use llamac_ir::dtype::DType;
use llamac_ir::eval::Tensor;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// Tensors by their names.
pub type Named = BTreeMap<String, Value>;

/// Element types and how safetensors calls them.
const TYPES: &[(DType, Dtype)] = &[
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::Bf16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::U8, Dtype::U8),
    (DType::Bool, Dtype::BOOL),
];

/// A tensor of floats, rounded to its type.
///
/// # Panics
/// If there are not as many as the shape says.
pub fn floats(dtype: DType, shape: &[usize], data: &[f32]) -> Value {
    let wide = Value { dtype: DType::F32, tensor: Tensor::f32(shape, data.to_vec()) };
    Value { dtype, tensor: decode(dtype, shape, &encode(dtype, &wide.tensor)).expect("as many numbers as the shape says") }
}

/// A tensor of i64.
pub fn longs(shape: &[usize], data: &[i64]) -> Value {
    Value { dtype: DType::I64, tensor: Tensor::i64(shape, data.to_vec()) }
}

/// A tensor of i32.
pub fn words(shape: &[usize], data: &[i32]) -> Value {
    Value { dtype: DType::I32, tensor: Tensor::i32(shape, data.to_vec()) }
}

/// Runs `llamac infer` on tensors.
///
/// # Errors
/// What it says.
///
/// # Panics
/// If files cannot be written or read.
pub fn infer(file: &Path, given: &Named) -> Result<Named, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let stored = |dtype: DType| TYPES.iter().find(|(d, _)| *d == dtype).map(|(_, s)| *s).expect("a type of the table");
    let bytes: Vec<(&String, &Value, Vec<u8>)> = given.iter().map(|(name, v)| (name, v, encode(v.dtype, &v.tensor))).collect();
    let views =
        bytes.iter().map(|(name, v, data)| (name, TensorView::new(stored(v.dtype), v.tensor.shape().to_vec(), data).expect("a tensor")));
    safetensors::serialize_to_file(views, None, &input).expect("a file");
    graph::infer(file, &input, &output).map_err(|e| e.to_string())?;
    let bytes = std::fs::read(output).expect("outputs");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let read = |(name, view): (String, TensorView<'_>)| {
        let dtype = TYPES.iter().find(|(_, s)| *s == view.dtype()).map(|(d, _)| *d).expect("a type of the table");
        (name, Value { dtype, tensor: decode(dtype, view.shape(), view.data()).expect("data") })
    };
    Ok(file.tensors().into_iter().map(read).collect())
}

/// The floats of a tensor.
///
/// # Panics
/// If it has none.
pub fn numbers(value: &Value) -> &[f32] {
    value.tensor.as_f32().expect("floats")
}
