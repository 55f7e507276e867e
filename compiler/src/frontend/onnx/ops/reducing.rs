//! Ops that reduce axes, and norms over several of them.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::import::{Importer, input};
use super::make::Make;
use crate::diag::Result;
use llamac_ir::dtype::DType;
use llamac_ir::module::Operand;
use llamac_ir::op::{Attr, TensorOp as T};
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

/// Axes as an input.
pub(super) fn by_input(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let axes = if input(node, 1).is_some() { i.numbers(node, 1, "the axes")? } else { vec![] };
    let nothing = a.int_or("noop_with_empty_axes", 0)? != 0;
    over(i, node, a, axes, nothing)
}

/// Axes as an attribute.
pub(super) fn by_attribute(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let axes = a.ints("axes")?.unwrap_or_default().to_vec();
    over(i, node, a, axes, false)
}

fn over(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>, mut axes: Vec<i64>, nothing: bool) -> Found {
    let keep = a.int_or("keepdims", 1)? != 0;
    let x = i.read(node, 0)?;
    let mut m = Make::new(i, node);
    let rank = m.shape(x).len() as i64;
    let all = axes.is_empty() && !nothing;
    if all {
        axes = (0..rank).collect();
    }
    let dtype = m.dtype(x);
    let name = node.op_type.as_str();
    let mut value = if dtype == DType::Bool { m.cast(x, DType::U8)? } else { m.wide(x)? };
    match name {
        "ReduceL1" => value = m.un(T::Abs, value)?,
        "ReduceL2" | "ReduceSumSquare" => value = m.bin(T::Mul, value, value)?,
        _ => {}
    }
    let op = match name {
        "ReduceMax" => T::ReduceMax,
        "ReduceMin" => T::ReduceMin,
        "ReduceMean" => T::ReduceMean,
        "ReduceProd" => T::ReduceProd,
        _ => T::ReduceSum,
    };
    if !axes.is_empty() {
        value = match name {
            "ReduceLogSumExp" => log_sum_exp(&mut m, value, &axes)?,
            _ => m.reduce(op, value, &axes)?,
        };
    }
    match name {
        "ReduceL2" if m.dtype(value).info().real => value = m.un(T::Sqrt, value)?,
        "ReduceLogSum" if m.dtype(value).info().real => value = m.un(T::Log, value)?,
        "ReduceL2" | "ReduceLogSum" => {
            return Err(bad("roots and logarithms of integers are not compiled").found(dtype).expected("floats"));
        }
        _ => {}
    }
    value = m.cast(value, dtype)?;
    if !keep {
        let gone = axes.iter().map(|axis| m.axis(*axis, x)).collect::<Result<Vec<_>>>()?;
        let shape = m.shape(value).into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, d)| d).collect();
        value = m.reshape(value, shape)?;
    }
    Ok(vec![value])
}

/// Around the largest, so that nothing overflows; where that is no number, around 0.
fn log_sum_exp(m: &mut Make<'_>, x: Operand, axes: &[i64]) -> Result<Operand> {
    let top = m.reduce(T::ReduceMax, x, axes)?;
    let size = m.un(T::Abs, top)?;
    let finite = m.with(T::Less, size, f64::INFINITY)?;
    let zero = m.number(0.0, m.dtype(x))?;
    let top = m.op(T::Where, &[finite, top, zero], &[])?;
    let rest = m.bin(T::Sub, x, top)?;
    let e = m.un(T::Exp, rest)?;
    let sum = m.reduce(T::ReduceSum, e, axes)?;
    let log = m.un(T::Log, sum)?;
    m.bin(T::Add, log, top)
}

pub(super) fn log_softmax(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let axis = a.int_or("axis", -1)?;
    let x = i.read(node, 0)?;
    let mut m = Make::new(i, node);
    let dtype = m.dtype(x);
    let x = m.wide(x)?;
    let log = log_sum_exp(&mut m, x, &[axis])?;
    let value = m.bin(T::Sub, x, log)?;
    Ok(vec![m.cast(value, dtype)?])
}

/// `ArgMax` and `ArgMin`.
pub(super) fn arg(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let op = if node.op_type == "ArgMax" { T::ArgMax } else { T::ArgMin };
    let (axis, keep, last) = (a.int_or("axis", 0)?, a.int_or("keepdims", 1)? != 0, a.int_or("select_last_index", 0)?);
    let x = i.read(node, 0)?;
    let mut m = Make::new(i, node);
    let at = m.axis(axis, x)?;
    let mut value = m.op(op, &[x], &[("axis", Attr::Int(axis)), ("last", Attr::Int(last))])?;
    if !keep {
        let mut shape = m.shape(value);
        shape.remove(at);
        value = m.reshape(value, shape)?;
    }
    Ok(vec![value])
}

/// 1 at the first largest element along an axis, 0 elsewhere.
pub(super) fn hardmax(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let axis = a.int_or("axis", -1)?;
    let x = i.read(node, 0)?;
    let mut m = Make::new(i, node);
    let at = m.axis(axis, x)?;
    let depth = m.sizes(x)?[at];
    let best = m.op(T::ArgMax, &[x], &[("axis", Attr::Int(axis))])?;
    let equal = super::pointwise::mask_of_equal(&mut m, best, depth, at)?;
    Ok(vec![m.cast(equal, m.dtype(x))?])
}

/// `CumSum` and `CumProd`.
pub(super) fn cumulated(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let axis = i.numbers(node, 1, "the axis")?;
    let [axis] = axis[..] else { return Err(bad("the axis is no single number")) };
    let attrs =
        [("axis", Attr::Int(axis)), ("exclusive", Attr::Int(a.int_or("exclusive", 0)?)), ("reverse", Attr::Int(a.int_or("reverse", 0)?))];
    let x = i.read(node, 0)?;
    let op = if node.op_type == "CumProd" { T::CumProd } else { T::CumSum };
    Ok(vec![i.tensor(op, &node.output[0], &[x], &attrs)?.into()])
}

/// Axes from one on, all of them.
fn last_axes(m: &Make<'_>, axis: i64, x: Operand) -> Result<Vec<i64>> {
    let first = m.axis(axis, x)?;
    Ok((first as i64..m.shape(x).len() as i64).collect())
}

/// The type in which a norm is computed.
fn stash(a: &Attributes<'_>) -> Result<()> {
    match a.int_or("stash_type", 1)? {
        // f32, or f64: the evaluator has no less.
        1 | 11 => Ok(()),
        other => Err(bad("attribute `stash_type` has a value that is not compiled").found(other).expected("1 (float)")),
    }
}

/// Over the last axis it is one op; over more, its parts.
pub(super) fn rms_norm(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let axis = a.int_or("axis", -1)?;
    let (x, gamma) = (i.read(node, 0)?, i.read(node, 1)?);
    let rank = i.ty(x).shape.len() as i64;
    let same = i.ty(gamma).shape.len() == 1 && i.ty(gamma).shape.last() == i.ty(x).shape.last() && i.ty(gamma).dtype.info().real;
    if (axis == -1 || axis == rank - 1) && same {
        return super::network::rms_norm(i, node, a);
    }
    stash(a)?;
    let epsilon = a.float("epsilon")?.unwrap_or(1e-5);
    let mut m = Make::new(i, node);
    let dtype = m.dtype(x);
    let axes = last_axes(&m, axis, x)?;
    let wide = m.wide(x)?;
    let square = m.bin(T::Mul, wide, wide)?;
    let mean = m.reduce(T::ReduceMean, square, &axes)?;
    let mean = m.with(T::Add, mean, epsilon)?;
    let root = m.un(T::Sqrt, mean)?;
    let unit = m.bin(T::Div, wide, root)?;
    let unit = m.cast(unit, dtype)?;
    let unit = m.cast(unit, m.dtype(gamma))?;
    Ok(vec![m.bin(T::Mul, unit, gamma)?])
}

pub(super) fn layer_norm(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 3)?;
    stash(a)?;
    let (axis, epsilon) = (a.int_or("axis", -1)?, a.float("epsilon")?.unwrap_or(1e-5));
    let (x, scale) = (i.read(node, 0)?, i.read(node, 1)?);
    let bias = if input(node, 2).is_some() { Some(i.read(node, 2)?) } else { None };
    let mut m = Make::new(i, node);
    let dtype = m.dtype(x);
    let axes = last_axes(&m, axis, x)?;
    let wide = m.wide(x)?;
    let mean = m.reduce(T::ReduceMean, wide, &axes)?;
    let rest = m.bin(T::Sub, wide, mean)?;
    let square = m.bin(T::Mul, rest, rest)?;
    let spread = m.reduce(T::ReduceMean, square, &axes)?;
    let spread = m.with(T::Add, spread, epsilon)?;
    let root = m.un(T::Sqrt, spread)?;
    let factor = m.un(T::Reciprocal, root)?;
    let mut value = m.bin(T::Mul, rest, factor)?;
    let scale = m.wide(scale)?;
    value = m.bin(T::Mul, value, scale)?;
    if let Some(bias) = bias {
        let bias = m.wide(bias)?;
        value = m.bin(T::Add, value, bias)?;
    }
    Ok(vec![m.cast(value, dtype)?, mean, factor])
}

/// Number of elements of some lengths.
pub(super) fn count(dims: &[Dim]) -> Dim {
    dims.iter().fold(Dim::int(1), |n, d| n.mul(d))
}
