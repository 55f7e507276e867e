//! Ops that move elements: shapes, slices, gathers.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::elements::dtype_of;
use super::super::import::{Importer, input};
use super::super::known::at_most;
use crate::diag::Result;
use llamac_ir::module::Operand;
use llamac_ir::op::Attr;
use llamac_ir::op::TensorOp as T;
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize> {
    let from_end = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_end)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| bad("there is no such axis").found(axis).expected(format_args!("an axis of {rank}")))
}

/// `x` in another shape, or `x` itself if it has it.
pub(super) fn reshaped(i: &mut Importer, name: &str, x: Operand, shape: Vec<Dim>) -> Result<Operand> {
    if i.ty(x).shape == shape {
        return Ok(x);
    }
    Ok(i.tensor(T::Reshape, name, &[x], &[("shape", Attr::Dims(shape))])?.into())
}

pub(super) fn concat(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let axis = a.int("axis")?.ok_or_else(|| bad("`axis` is missing"))?;
    let parts = (0..node.input.len()).map(|at| i.read(node, at)).collect::<Result<Vec<_>>>()?;
    if let [one] = parts[..] {
        return Ok(vec![one]);
    }
    Ok(vec![i.tensor(T::Concat, &node.output[0], &parts, &[("axis", Attr::Int(axis))])?.into()])
}

pub(super) fn constant_of_shape(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let shape = i.dims(node, 0, "the shape")?;
    let (mut value, mut dtype) = (0.0, "f32");
    if let Some(tensor) = a.tensor("value")? {
        let name = format!("{}.value", node.output[0]);
        i.weights.add(&name, tensor)?;
        value = i.weights.small(&name, 1).and_then(|v| v.first().copied()).ok_or_else(|| bad("`value` is not one number"))?;
        dtype = dtype_of(tensor.data_type)?.name();
    }
    let attrs = [("shape", Attr::Dims(shape)), ("value", Attr::float(value)), ("dtype", Attr::Word(dtype.to_owned()))];
    Ok(vec![i.tensor(T::Fill, &node.output[0], &[], &attrs)?.into()])
}

pub(super) fn expand(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let shape = i.dims(node, 1, "the shape")?;
    let x = i.read(node, 0)?;
    Ok(vec![i.tensor(T::Expand, &node.output[0], &[x], &[("shape", Attr::Dims(shape))])?.into()])
}

pub(super) fn flatten(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let x = i.read(node, 0)?;
    let shape = i.ty(x).shape;
    let axis = a.int_or("axis", 1)?;
    let axis = if axis == shape.len() as i64 { shape.len() } else { axis_of(axis, shape.len())? };
    let count = |dims: &[Dim]| dims.iter().fold(Dim::int(1), |n, d| n.mul(d));
    Ok(vec![reshaped(i, &node.output[0], x, vec![count(&shape[..axis]), count(&shape[axis..])])?])
}

pub(super) fn range(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let single = |at: usize, what: &str| -> Result<Dim> { Ok(i.dims(node, at, what)?.first().cloned().unwrap_or_default()) };
    let (start, limit, step) =
        (single(0, "the start of the range")?, single(1, "the end of the range")?, single(2, "the step of the range")?);
    let Some(1) = step.number() else {
        return Err(bad("the step of a range of unknown length is not 1").found(step));
    };
    let attrs = [("start", Attr::Dims(vec![start.clone()])), ("len", Attr::Dims(vec![limit.sub(&start)]))];
    Ok(vec![i.tensor(T::Range, &node.output[0], &[], &attrs)?.into()])
}

pub(super) fn reshape(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let allow_zero = a.int_or("allowzero", 0)? != 0;
    let mut shape = i.dims(node, 1, "the shape")?;
    let x = i.read(node, 0)?;
    let own = i.ty(x).shape;
    if !allow_zero {
        for (at, dim) in shape.iter_mut().enumerate().filter(|(_, d)| d.number() == Some(0)) {
            *dim = own.get(at).cloned().ok_or_else(|| bad("the shape copies an axis that is not there").found(at))?;
        }
    }
    if let Some(free) = shape.iter().position(|d| d.number() == Some(-1)) {
        // What both sides have is no part of what is missing.
        let mut from = own.clone();
        let mut to: Vec<Dim> = shape.iter().enumerate().filter(|(at, _)| *at != free).map(|(_, d)| d.clone()).collect();
        to.retain(|d| match from.iter().position(|o| o == d) {
            Some(at) => {
                from.remove(at);
                false
            }
            None => true,
        });
        let count = |dims: &[Dim]| dims.iter().fold(Dim::int(1), |n, d| n.mul(d));
        shape[free] = count(&from).exact_div(&count(&to)).ok_or_else(|| {
            bad("the length of an axis cannot be worked out").found(Attr::Dims(own.clone())).expected(Attr::Dims(shape.clone()))
        })?;
    }
    // Codes are read through their scales: they stay what they are, a stored tensor.
    if let Some(name) = input(node, 0)
        && let Some(sizes) = shape.iter().map(Dim::value).collect::<Option<Vec<_>>>()
        && i.weights.reshape_codes(name, &node.output[0], &sizes)
    {
        return Ok(vec![i.operand(&node.output[0])?]);
    }
    Ok(vec![reshaped(i, &node.output[0], x, shape)?])
}

pub(super) fn squeeze(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let x = i.read(node, 0)?;
    let own = i.ty(x).shape;
    let gone = match input(node, 1) {
        Some(_) => i.numbers(node, 1, "the axes")?.iter().map(|a| axis_of(*a, own.len())).collect::<Result<Vec<_>>>()?,
        None => (0..own.len()).filter(|a| own[*a] == Dim::int(1)).collect(),
    };
    let shape = own.into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, d)| d).collect();
    Ok(vec![reshaped(i, &node.output[0], x, shape)?])
}

pub(super) fn unsqueeze(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let x = i.read(node, 0)?;
    let own = i.ty(x).shape;
    let axes = i.numbers(node, 1, "the axes")?;
    let rank = own.len() + axes.len();
    let new = axes.iter().map(|a| axis_of(*a, rank)).collect::<Result<Vec<_>>>()?;
    let mut rest = own.into_iter();
    let shape = (0..rank).map(|at| if new.contains(&at) { Some(Dim::int(1)) } else { rest.next() }).collect::<Option<Vec<_>>>();
    let shape = shape.ok_or_else(|| bad("an axis is named twice").found(Attr::ints(&axes)))?;
    Ok(vec![reshaped(i, &node.output[0], x, shape)?])
}

/// A bound of a slice, counted from the front.
fn bound(bound: &Dim, len: &Dim) -> Dim {
    let from_end = bound.constant < 0 && bound.terms.is_empty() || (!bound.terms.is_empty() && bound.terms.iter().all(|(_, n)| *n < 0));
    if from_end { bound.add(len) } else { bound.clone() }
}

pub(super) fn slice(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let mut x = i.read(node, 0)?;
    let (starts, ends) = (i.dims(node, 1, "the start of the slice")?, i.dims(node, 2, "the end of the slice")?);
    let rank = i.ty(x).shape.len();
    let axes = if input(node, 3).is_some() { i.numbers(node, 3, "the axes")? } else { (0..starts.len() as i64).collect() };
    let steps = if input(node, 4).is_some() { i.numbers(node, 4, "the steps")? } else { vec![1; starts.len()] };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(bad("starts, ends, axes and steps are not equally many"));
    }
    for (at, axis) in axes.iter().enumerate() {
        let axis = axis_of(*axis, rank)?;
        let len = i.ty(x).shape[axis].clone();
        let start = match starts[at].number() {
            Some(n) if n < 0 && len.number().is_some_and(|l| n + l < 0) => Dim::int(0),
            _ => bound(&starts[at], &len),
        };
        let end = bound(&ends[at], &len);
        let end = match (end.number(), at_most(&len, &end), at_most(&end, &len)) {
            (Some(n), ..) if n >= i64::from(i32::MAX) => len.clone(),
            (_, Some(true), _) => len.clone(),
            (_, _, Some(true)) => end,
            // As long as any sequence that has that many tokens; a shorter one is found when it runs.
            _ => {
                return Err(bad("the end of the slice depends on sizes").found(&end).expected(format_args!("what is surely within {len}")));
            }
        };
        let count = match (end.sub(&start), steps[at]) {
            (count, 1) => count,
            (count, step) if step > 1 && count.number().is_some() => Dim::int((count.constant + step - 1).div_euclid(step)),
            (count, step) => {
                return Err(bad("the step of the slice is not compiled").found(step).expected(format_args!("1, for {count} elements")));
            }
        };
        if count.number().is_some_and(|n| n < 0) {
            return Err(bad("the slice ends before it starts").found(count));
        }
        if start == Dim::int(0) && count == len {
            continue;
        }
        if start == Dim::int(0)
            && steps[at] == 1
            && axis + 1 == rank
            && let Some(narrow) = count.value().map(|len| super::quantized::narrowed(i, &node.output[0], x, len)).transpose()?.flatten()
        {
            x = narrow;
            continue;
        }
        let attrs = [
            ("axis", Attr::Int(axis as i64)),
            ("start", Attr::Dims(vec![start])),
            ("len", Attr::Dims(vec![count])),
            ("step", Attr::Int(steps[at])),
        ];
        x = i.tensor(T::Slice, &node.output[0], &[x], &attrs)?.into();
    }
    Ok(vec![x])
}

pub(super) fn split(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let x = i.read(node, 0)?;
    let shape = i.ty(x).shape;
    let axis = axis_of(a.int_or("axis", 0)?, shape.len())?;
    let count = node.output.len() as i64;
    a.int("num_outputs")?;
    let lens = if input(node, 1).is_some() {
        i.numbers(node, 1, "the lengths of the parts")?
    } else {
        let len = shape[axis].number().ok_or_else(|| bad("an axis of unknown length is split in equal parts").found(&shape[axis]))?;
        let part = (len + count - 1) / count;
        (0..count).map(|n| part.min(len - n * part)).collect()
    };
    if lens.len() != node.output.len() || lens.iter().any(|n| *n < 0) {
        return Err(bad("the parts do not fit the outputs").found(Attr::ints(&lens)).expected(count));
    }
    let mut start = 0;
    let mut parts = Vec::new();
    for (len, name) in lens.iter().zip(&node.output) {
        let attrs = [("axis", Attr::Int(axis as i64)), ("start", Attr::ints(&[start])), ("len", Attr::ints(&[*len]))];
        parts.push(i.tensor(T::Slice, name, &[x], &attrs)?.into());
        start += len;
    }
    Ok(parts)
}

pub(super) fn tile(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let repeats = i.dims(node, 1, "the repeats")?;
    let x = i.read(node, 0)?;
    Ok(vec![i.tensor(T::Tile, &node.output[0], &[x], &[("repeats", Attr::Dims(repeats))])?.into()])
}

pub(super) fn transpose(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let x = i.read(node, 0)?;
    let rank = i.ty(x).shape.len() as i64;
    let perm = a.ints("perm")?.map_or_else(|| (0..rank).rev().collect(), <[i64]>::to_vec);
    Ok(vec![i.tensor(T::Transpose, &node.output[0], &[x], &[("perm", Attr::ints(&perm))])?.into()])
}

pub(super) fn trilu(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let k = if input(node, 1).is_some() { i.numbers(node, 1, "the diagonal")?.first().copied().unwrap_or(0) } else { 0 };
    let attrs = [("upper", Attr::Int(a.int_or("upper", 1)?)), ("k", Attr::Int(k))];
    let x = i.read(node, 0)?;
    Ok(vec![i.tensor(T::Trilu, &node.output[0], &[x], &attrs)?.into()])
}
