//! Ops of networks: products, norms, rotation, attention.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::import::{Importer, input};
use super::moving::reshaped;
use crate::diag::Result;
use llamac_ir::dtype::DType;
use llamac_ir::module::Operand;
use llamac_ir::op::Attr;
use llamac_ir::op::TensorOp as T;
use llamac_ir::recipe::Recipe;
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

/// Vectors are rows or columns of a matrix while they are multiplied.
pub(super) fn matmul(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let factors = [i.read(node, 0)?, i.read(node, 1)?];
    product(i, &node.output[0], factors)
}

/// The matrix product of two operands.
pub(super) fn product(i: &mut Importer, name: &str, [mut a, mut b]: [Operand; 2]) -> Found {
    let (left, right) = (i.ty(a).shape, i.ty(b).shape);
    if let [k] = left.as_slice() {
        a = reshaped(i, name, a, vec![Dim::int(1), k.clone()])?;
    }
    if let [k] = right.as_slice() {
        b = reshaped(i, name, b, vec![k.clone(), Dim::int(1)])?;
    }
    let mut value: Operand = i.tensor(T::MatMul, name, &[a, b], &[])?.into();
    let mut shape = i.ty(value).shape;
    if right.len() == 1 {
        shape.pop();
    }
    if left.len() == 1 {
        shape.remove(shape.len() - usize::from(right.len() != 1) - 1);
    }
    value = reshaped(i, name, value, shape)?;
    Ok(vec![value])
}

pub(super) fn gemm(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let name = &node.output[0];
    let (mut x, mut w) = (i.read(node, 0)?, i.read(node, 1)?);
    for (operand, flag) in [(&mut x, "transA"), (&mut w, "transB")] {
        if a.int_or(flag, 0)? != 0 {
            *operand = i.tensor(T::Transpose, name, &[*operand], &[("perm", Attr::ints(&[1, 0]))])?.into();
        }
    }
    let mut value: Operand = i.tensor(T::MatMul, name, &[x, w], &[])?.into();
    value = scaled(i, name, value, a.float("alpha")?)?;
    if input(node, 2).is_some() {
        let bias = i.read(node, 2)?;
        let bias = scaled(i, name, bias, a.float("beta")?)?;
        value = i.tensor(T::Add, name, &[value, bias], &[])?.into();
    } else {
        a.float("beta")?;
    }
    Ok(vec![value])
}

fn scaled(i: &mut Importer, name: &str, x: Operand, by: Option<f64>) -> Result<Operand> {
    match by {
        Some(by) if by != 1.0 => {
            let by = number(i, by, x)?;
            Ok(i.tensor(T::Mul, name, &[x, by], &[])?.into())
        }
        _ => Ok(x),
    }
}

/// One number of the element type of `like`.
fn number(i: &mut Importer, value: f64, like: Operand) -> Result<Operand> {
    let literal = Recipe::Literal { shape: vec![], data: vec![value as f32].into() };
    let dtype = i.ty(like).dtype;
    let recipe = if dtype == DType::F32 { literal } else { Recipe::Cast(dtype, Box::new(literal)) };
    Ok(i.f.weight("number", recipe).map_err(|e| bad("a number has no type").found(e))?.into())
}

pub(super) fn rms_norm(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    a.only("stash_type", 1)?;
    i.at_most(node, 2)?;
    let (x, gamma) = (i.read(node, 0)?, i.read(node, 1)?);
    let axis = a.int_or("axis", -1)?;
    if axis != -1 && axis != i.ty(x).shape.len() as i64 - 1 {
        return Err(bad("the norm is over more than the last axis").found(axis).expected(-1));
    }
    let eps = Attr::float(a.float("epsilon")?.unwrap_or(1e-5));
    Ok(vec![i.tensor(T::RmsNorm, &node.output[0], &[x, gamma], &[("eps", eps)])?.into()])
}

/// `rms_norm(x + skip)`, and the sum as fourth output.
pub(super) fn skip_rms_norm(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 4)?;
    let mut operands = [i.read(node, 0)?, i.read(node, 1)?];
    if input(node, 3).is_some() {
        let bias = i.read(node, 3)?;
        operands[0] = i.tensor(T::Add, &node.output[0], &[operands[0], bias], &[])?.into();
    }
    if (1..3).any(|o| node.output.get(o).is_some_and(|n| !n.is_empty())) {
        return Err(bad("mean and variance are not compiled as outputs"));
    }
    let name = node.output.get(3).filter(|n| !n.is_empty()).unwrap_or(&node.output[0]);
    let sum: Operand = i.tensor(T::Add, name, &operands, &[])?.into();
    let gamma = i.read(node, 2)?;
    let eps = Attr::float(a.float("epsilon")?.unwrap_or(1e-5));
    let normed: Operand = i.tensor(T::RmsNorm, &node.output[0], &[sum, gamma], &[("eps", eps)])?.into();
    Ok(vec![normed, sum, sum, sum])
}

/// `[batch, seq, heads * d]` to `[batch, heads, seq, d]`.
pub(super) fn to_heads(i: &mut Importer, name: &str, x: Operand, heads: i64) -> Result<Operand> {
    let shape = i.ty(x).shape;
    let [batch, seq, width] = shape.as_slice() else { return Ok(x) };
    let each = width.exact_div(&Dim::int(heads)).filter(|_| heads > 0);
    let each = each.ok_or_else(|| bad("the heads do not divide the width").found(format_args!("{heads} heads of {width}")))?;
    let split = reshaped(i, name, x, vec![batch.clone(), seq.clone(), Dim::int(heads), each])?;
    Ok(i.tensor(T::Transpose, name, &[split], &[("perm", Attr::ints(&[0, 2, 1, 3]))])?.into())
}

/// And back.
pub(super) fn from_heads(i: &mut Importer, name: &str, x: Operand) -> Result<Operand> {
    let turned: Operand = i.tensor(T::Transpose, name, &[x], &[("perm", Attr::ints(&[0, 2, 1, 3]))])?.into();
    let shape = i.ty(turned).shape;
    let [batch, seq, heads, each] = shape.as_slice() else { return Ok(turned) };
    reshaped(i, name, turned, vec![batch.clone(), seq.clone(), heads.mul(each)])
}

pub(super) fn rotary(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 4)?;
    a.only("rotary_embedding_dim", 0)?;
    let name = &node.output[0];
    let (mut x, mut cos, mut sin) = (i.read(node, 0)?, i.read(node, 1)?, i.read(node, 2)?);
    let heads = a.int_or("num_heads", 0)?;
    let interleaved = Attr::Int(a.int_or("interleaved", 0)?);
    let flat = i.ty(x).shape.len() == 3;
    if flat {
        x = to_heads(i, name, x, heads)?;
    }
    if input(node, 3).is_some() {
        let pos = i.read(node, 3)?;
        for table in [&mut cos, &mut sin] {
            *table = i.tensor(T::Gather, name, &[*table, pos], &[("axis", Attr::Int(0))])?.into();
        }
    }
    let mut value: Operand = i.tensor(T::Rotary, name, &[x, cos, sin], &[("interleaved", interleaved)])?.into();
    if flat {
        value = from_heads(i, name, value)?;
    }
    Ok(vec![value])
}

pub(super) fn attention(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    // What else the node may say is in `attention`; the mode is of an output that is not there.
    i.at_most(node, 6)?;
    a.only("left_window_size", -1)?;
    a.only("right_window_size", -1)?;
    a.int("qk_matmul_output_mode")?;
    a.float("softcap")?;
    // Softmax is computed in f32 or better whatever this says.
    a.int("softmax_precision")?;
    let name = &node.output[0];
    let (heads, kv_heads) = (a.int_or("q_num_heads", 0)?, a.int_or("kv_num_heads", 0)?);
    let mut operands = [i.read(node, 0)?, i.read(node, 1)?, i.read(node, 2)?];
    let flat = i.ty(operands[0]).shape.len() == 3;
    for (at, heads) in [heads, kv_heads, kv_heads].into_iter().enumerate() {
        operands[at] = to_heads(i, name, operands[at], heads)?;
    }
    for (at, past) in [(1, 4), (2, 5)] {
        if input(node, past).is_some() {
            let past = i.read(node, past)?;
            let all = node.output.get(at).filter(|o| !o.is_empty()).unwrap_or(name);
            operands[at] = i.tensor(T::Concat, all, &[past, operands[at]], &[("axis", Attr::Int(2))])?.into();
        }
    }
    let width = i.ty(operands[0]).shape.last().and_then(Dim::value).ok_or_else(|| bad("the size of a head is not known"))?;
    let scale = a.float("scale")?.unwrap_or(1.0 / (width as f64).sqrt());
    let attrs = [("scale", Attr::float(scale)), ("is_causal", Attr::Int(a.int_or("is_causal", 0)?))];
    let mut all = operands.to_vec();
    if input(node, 3).is_some() {
        all.push(i.read(node, 3)?);
    }
    let mut value: Operand = i.tensor(T::Attention, name, &all, &attrs)?.into();
    if flat {
        value = from_heads(i, name, value)?;
    }
    Ok(vec![value, operands[1], operands[2]])
}
