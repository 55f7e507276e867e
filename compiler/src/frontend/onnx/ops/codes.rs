//! Codes and numbers that are computed, not stored: quantizing, dequantizing, products of integers.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::elements::dtype_of;
use super::super::import::{Importer, input};
use super::make::Make;
use super::quantized;
use crate::diag::Result;
use llamac_ir::dtype::DType;
use llamac_ir::module::Operand;
use llamac_ir::op::{Attr, TensorOp as T};
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

/// A scale or zero point, seen in the shape of `x`: one number, one for each index of an axis, or one for each block along it.
fn spread(m: &mut Make<'_>, scale: Operand, x: Operand, axis: i64, block: i64) -> Result<Operand> {
    let (sizes, own) = (m.sizes(x)?, m.sizes(scale)?);
    let fits =
        || bad("the scale does not fit").found(format_args!("{own:?}")).expected(format_args!("one for {sizes:?} along axis {axis}"));
    match (own.as_slice(), block) {
        ([] | [1], 0) => m.reshape(scale, vec![]),
        ([n], 0) => {
            let axis = m.axis(axis, x)?;
            if *n != sizes[axis] {
                return Err(fits());
            }
            let mut shape = vec![Dim::int(1); sizes.len()];
            shape[axis] = (*n).into();
            m.reshape(scale, shape)
        }
        (own, 1..) if own.len() == sizes.len() => {
            let axis = m.axis(axis, x)?;
            let block = block as usize;
            if own[axis] != sizes[axis].div_ceil(block) {
                return Err(fits());
            }
            let mut shape: Vec<Dim> = own.iter().map(|n| Dim::from(*n)).collect();
            shape.insert(axis + 1, Dim::int(1));
            let apart = m.reshape(scale, shape.clone())?;
            shape[axis + 1] = block.into();
            let all = m.expand(apart, shape.clone())?;
            shape.remove(axis + 1);
            shape[axis] = (own[axis] * block).into();
            let all = m.reshape(all, shape)?;
            m.slice(all, axis, 0, sizes[axis] as i64, 1)
        }
        _ => Err(fits()),
    }
}

/// Stored codes stay where they are; others are `(x - zero point) * scale`.
pub(super) fn dequantize(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let stored = |at: usize, i: &Importer| input(node, at).is_some_and(|n| i.weights.get(n).is_some());
    if i.eager.is_none() && stored(0, i) && stored(1, i) {
        return quantized::dequantize(i, node, a);
    }
    i.at_most(node, 3)?;
    let (axis, block, output) = (a.int_or("axis", 1)?, a.int_or("block_size", 0)?, a.int_or("output_dtype", 0)?);
    let (x, scale) = (i.read(node, 0)?, i.read(node, 1)?);
    let zero = if input(node, 2).is_some() { Some(i.read(node, 2)?) } else { None };
    let to = if output == 0 { i.ty(scale).dtype } else { dtype_of(output as i32)? };
    let mut m = Make::new(i, node);
    let scale = spread(&mut m, scale, x, axis, block)?;
    let scale = m.wide(scale)?;
    let mut value = m.cast(x, m.dtype(scale))?;
    if let Some(zero) = zero {
        let zero = spread(&mut m, zero, x, axis, block)?;
        let zero = m.cast(zero, m.dtype(scale))?;
        value = m.bin(T::Sub, value, zero)?;
    }
    let value = m.bin(T::Mul, value, scale)?;
    Ok(vec![m.cast(value, to)?])
}

/// Nearest codes of a type, kept within it.
fn coded(m: &mut Make<'_>, x: Operand, zero: Option<Operand>, to: DType, saturate: i64) -> Result<Operand> {
    let Some((low, high)) = to.range() else {
        return m.op(T::Cast, &[x], &[("to", Attr::Word(to.name().to_owned())), ("saturate", Attr::Int(saturate))]);
    };
    let mut value = m.un(T::Round, x)?;
    if let Some(zero) = zero {
        let zero = m.cast(zero, m.dtype(value))?;
        value = m.bin(T::Add, value, zero)?;
    }
    value = m.with(T::Max, value, low as f64)?;
    value = m.with(T::Min, value, high as f64)?;
    m.cast(value, to)
}

pub(super) fn quantize(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 3)?;
    let (axis, block, output) = (a.int_or("axis", 1)?, a.int_or("block_size", 0)?, a.int_or("output_dtype", 0)?);
    let saturate = a.int_or("saturate", 1)?;
    // The quotient is computed in f32 or wider.
    let precision = a.int_or("precision", 0)?;
    if !matches!(precision, 0 | 1) {
        return Err(bad("attribute `precision` has a value that is not compiled").found(precision).expected("0 or 1 (float)"));
    }
    let (x, scale) = (i.read(node, 0)?, i.read(node, 1)?);
    let zero = if input(node, 2).is_some() { Some(i.read(node, 2)?) } else { None };
    let to = match (zero, output) {
        (Some(zero), _) => i.ty(zero).dtype,
        (None, 0) => DType::U8,
        (None, number) => dtype_of(number as i32)?,
    };
    let mut m = Make::new(i, node);
    let wide = m.wide(x)?;
    let scale = spread(&mut m, scale, x, axis, block)?;
    let scale = m.cast(scale, m.dtype(wide))?;
    let zero = zero.map(|z| spread(&mut m, z, x, axis, block)).transpose()?;
    let value = m.bin(T::Div, wide, scale)?;
    Ok(vec![coded(&mut m, value, zero, to, saturate)?])
}

/// To u8, with a scale and a zero point from the smallest and the largest number, 0 among them.
pub(super) fn dynamic_quantize(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    if i.eager.is_none() {
        return quantized::dynamic_quantize(i, node, a);
    }
    let x = i.read(node, 0)?;
    let mut m = Make::new(i, node);
    let axes: Vec<i64> = (0..m.shape(x).len() as i64).collect();
    let (low, high) = (m.reduce(T::ReduceMin, x, &axes)?, m.reduce(T::ReduceMax, x, &axes)?);
    let (low, high) = (m.reshape(low, vec![])?, m.reshape(high, vec![])?);
    let (low, high) = (m.with(T::Min, low, 0.0)?, m.with(T::Max, high, 0.0)?);
    let range = m.bin(T::Sub, high, low)?;
    let scale = m.with(T::Div, range, 255.0)?;
    let start = m.bin(T::Div, low, scale)?;
    let start = m.un(T::Neg, start)?;
    let zero = coded(&mut m, start, None, DType::U8, 1)?;
    let value = m.bin(T::Div, x, scale)?;
    let value = coded(&mut m, value, Some(zero), DType::U8, 1)?;
    Ok(vec![value, scale, zero])
}

/// A tensor of codes without its zero point, which is one number or one for each row of `a` or column of `b`.
fn centred(m: &mut Make<'_>, x: Operand, zero: Option<Operand>, rows: bool, to: DType) -> Result<Operand> {
    let value = m.cast(x, to)?;
    let Some(zero) = zero else { return Ok(value) };
    let zero = m.cast(zero, to)?;
    let zero = match m.shape(zero).as_slice() {
        [n] if rows && n.number() != Some(1) => {
            let shape = vec![n.clone(), Dim::int(1)];
            m.reshape(zero, shape)?
        }
        _ => zero,
    };
    m.bin(T::Sub, value, zero)
}

/// Where the weight is stored, raising wants it as such.
pub(super) fn matmul_integer(i: &mut Importer, node: &NodeProto, attributes: &Attributes<'_>) -> Found {
    if i.eager.is_none() {
        return quantized::matmul_integer(i, node, attributes);
    }
    i.at_most(node, 4)?;
    let (a, b) = (i.read(node, 0)?, i.read(node, 1)?);
    let zeros = [2, 3].map(|at| input(node, at).is_some().then(|| i.read(node, at)));
    let [zero_a, zero_b] = zeros.map(Option::transpose);
    let (zero_a, zero_b) = (zero_a?, zero_b?);
    let mut m = Make::new(i, node);
    let (a, b) = (centred(&mut m, a, zero_a, true, DType::I32)?, centred(&mut m, b, zero_b, false, DType::I32)?);
    Ok(vec![m.bin(T::MatMul, a, b)?])
}

pub(super) fn linear_matmul(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    i.at_most(node, 8)?;
    let all = (0..8).map(|at| i.read(node, at)).collect::<Result<Vec<_>>>()?;
    let [a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero] = all[..] else { return Err(bad("an input is missing")) };
    let mut m = Make::new(i, node);
    let (a, b) = (centred(&mut m, a, Some(a_zero), true, DType::I32)?, centred(&mut m, b, Some(b_zero), false, DType::I32)?);
    let product = m.bin(T::MatMul, a, b)?;
    let (a_scale, b_scale, y_scale) = (m.wide(a_scale)?, m.wide(b_scale)?, m.wide(y_scale)?);
    let scale = m.bin(T::Mul, a_scale, b_scale)?;
    let scale = m.bin(T::Div, scale, y_scale)?;
    let product = m.cast(product, m.dtype(scale))?;
    let value = m.bin(T::Mul, product, scale)?;
    let to = m.dtype(y_zero);
    Ok(vec![coded(&mut m, value, Some(y_zero), to, 1)?])
}
