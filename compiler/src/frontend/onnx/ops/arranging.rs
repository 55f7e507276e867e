//! More ops that move elements: those whose places are computed, and those that need every length to be a number.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::elements::dtype_of;
use super::super::import::{Importer, input};
use super::make::Make;
use super::moving;
use crate::diag::Result;
use llamac_ir::dtype::DType;
use llamac_ir::module::Operand;
use llamac_ir::op::{Attr, TensorOp as T};
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

/// With any start, end and step where lengths are numbers.
pub(super) fn slice(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let mut x = i.read(node, 0)?;
    let numbers = |at: usize| i.numbers(node, at, "the bounds of the slice");
    let (Ok(starts), Ok(ends)) = (numbers(1), numbers(2)) else { return moving::slice(i, node, a) };
    let sizes = i.ty(x).sizes();
    let Some(sizes) = sizes else { return moving::slice(i, node, a) };
    let axes = if input(node, 3).is_some() { i.numbers(node, 3, "the axes")? } else { (0..starts.len() as i64).collect() };
    let steps = if input(node, 4).is_some() { i.numbers(node, 4, "the steps")? } else { vec![1; starts.len()] };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(bad("starts, ends, axes and steps are not equally many"));
    }
    let mut m = Make::new(i, node);
    for (at, axis) in axes.iter().enumerate() {
        let axis = m.axis(*axis, x)?;
        let (len, step) = (sizes[axis] as i64, steps[at]);
        if step == 0 {
            return Err(bad("the step of a slice is 0"));
        }
        let from_end = |n: i64| if n < 0 { n.saturating_add(len) } else { n };
        let (start, end) = (from_end(starts[at]), from_end(ends[at]));
        let (start, end) =
            if step > 0 { (start.clamp(0, len), end.clamp(0, len)) } else { (start.clamp(-1, len - 1), end.clamp(-1, len - 1)) };
        let span = if step > 0 { end - start } else { start - end };
        let stride = i64::try_from(step.unsigned_abs()).unwrap_or(i64::MAX);
        let count = if span <= 0 { 0 } else { (span - 1) / stride + 1 };
        if (start, count, step) != (0, len, 1) {
            // One element has no next one.
            x = m.slice(x, axis, start.max(0), count, if count < 2 { 1 } else { step })?;
        }
    }
    Ok(vec![x])
}

/// The mode of a pad, and where its elements come from: along each axis by index, but for constants.
pub(super) fn pad(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 4)?;
    let mode = a.text("mode")?.unwrap_or_else(|| "constant".to_owned());
    let pads = i.numbers(node, 1, "the lengths of the pads")?;
    let mut x = i.read(node, 0)?;
    let rank = i.ty(x).shape.len() as i64;
    let axes = if input(node, 3).is_some() { i.numbers(node, 3, "the axes")? } else { (0..rank).collect() };
    let value = if input(node, 2).is_some() { Some(i.read(node, 2)?) } else { None };
    if pads.len() != axes.len() * 2 {
        return Err(bad("pads are not two for each axis").found(pads.len()).expected(axes.len() * 2));
    }
    let mut m = Make::new(i, node);
    for (at, axis) in axes.iter().enumerate() {
        let axis = m.axis(*axis, x)?;
        let len = m.sizes(x)?[axis] as i64;
        let (before, after) = (pads[at], pads[at + axes.len()]);
        if before.min(after) < 0 {
            let (start, end) = ((-before).max(0), len - (-after).max(0));
            x = m.slice(x, axis, start, (end - start).max(0), 1)?;
        }
        let (before, after, len) = (before.max(0), after.max(0), m.sizes(x)?[axis] as i64);
        if before + after == 0 {
            continue;
        }
        let place = |n: i64| -> Result<i64> {
            Ok(match mode.as_str() {
                "edge" => n.clamp(0, len - 1),
                "wrap" => n.rem_euclid(len),
                "reflect" if len == 1 => 0,
                "reflect" => {
                    let turn = n.rem_euclid(2 * (len - 1));
                    turn.min(2 * (len - 1) - turn)
                }
                other => {
                    let what = "attribute `mode` has a value that is not compiled";
                    return Err(bad(what).found(other).expected("constant, edge, reflect or wrap"));
                }
            })
        };
        if mode == "constant" {
            let mut side = |count: i64| -> Result<Operand> {
                let mut shape = m.shape(x);
                shape[axis] = Dim::int(count);
                match value {
                    None => m.fill(shape, 0.0, m.dtype(x)),
                    Some(value) => {
                        let one = m.reshape(value, vec![])?;
                        m.expand(one, shape)
                    }
                }
            };
            let (first, last) = (side(before)?, side(after)?);
            x = m.concat(&[first, x, last], axis as i64)?;
        } else {
            if len == 0 {
                return Err(bad("an axis without elements has none to pad with").found(axis));
            }
            let from = (-before..len + after).map(place).collect::<Result<Vec<_>>>()?;
            let from = m.values(&[from.len()], &from)?;
            x = m.op(T::Gather, &[x, from], &[("axis", Attr::Int(axis as i64))])?;
        }
    }
    Ok(vec![x])
}

pub(super) fn one_hot(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let axis = a.int_or("axis", -1)?;
    let depth_at = i.read(node, 1)?;
    let depth = number(i, depth_at)?;
    let (indices, values) = (i.read(node, 0)?, i.read(node, 2)?);
    let mut m = Make::new(i, node);
    let mut shape = m.shape(indices);
    let at = moving::axis_of(axis, shape.len() + 1)?;
    shape.insert(at, Dim::int(1));
    let indices = m.cast(indices, DType::I64)?;
    // Negative ones count from the end; what is out of range is nowhere.
    let below = m.with(T::Less, indices, 0.0)?;
    let from_end = m.with(T::Add, indices, depth)?;
    let indices = m.op(T::Where, &[below, from_end, indices], &[])?;
    let indices = m.reshape(indices, shape)?;
    let equal = super::pointwise::mask_of_equal(&mut m, indices, depth as usize, at)?;
    let (off, on) = (m.slice(values, 0, 0, 1, 1)?, m.slice(values, 0, 1, 1, 1)?);
    Ok(vec![m.op(T::Where, &[equal, on, off], &[])?])
}

/// One number that is known.
fn number(i: &mut Importer, x: Operand) -> Result<f64> {
    i.catch_up()?;
    let tensor = i.value_of(x)?;
    let all = [
        tensor.as_f32().map(|d| d.iter().map(|x| f64::from(*x)).collect::<Vec<_>>()),
        tensor.as_f64().map(<[f64]>::to_vec),
        tensor.as_i32().map(|d| d.iter().map(|x| f64::from(*x)).collect()),
        tensor.as_i64().map(|d| d.iter().map(|x| *x as f64).collect()),
    ];
    match all.into_iter().flatten().next().as_deref() {
        Some([one]) => Ok(*one),
        _ => Err(bad("an input is no single number").found(format_args!("{:?}", tensor.shape()))),
    }
}

/// Of any type, where the bounds are known; else as `moving::range`.
pub(super) fn range(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    if !matches!(a.int_or("stash_type", 1)?, 1 | 11) {
        return Err(bad("attribute `stash_type` has a value that is not compiled").expected("1 (float)"));
    }
    if i.eager.is_none() {
        return moving::range(i, node, a);
    }
    let (first, limit, step) = (i.read(node, 0)?, i.read(node, 1)?, i.read(node, 2)?);
    let (start, end, by) = (number(i, first)?, number(i, limit)?, number(i, step)?);
    if by == 0.0 || !by.is_finite() {
        return Err(bad("the step of a range leads nowhere").found(by));
    }
    let count = ((end - start) / by).ceil().max(0.0) as usize;
    let mut m = Make::new(i, node);
    let dtype = m.dtype(first);
    let (first, step) = (m.wide(first)?, m.wide(step)?);
    let (first, step) = (m.reshape(first, vec![])?, m.reshape(step, vec![])?);
    let range = m.range(count)?;
    let range = m.cast(range, m.dtype(first))?;
    let range = m.bin(T::Mul, range, step)?;
    let range = m.bin(T::Add, range, first)?;
    Ok(vec![m.cast(range, dtype)?])
}

pub(super) fn eye_like(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let x = i.read(node, 0)?;
    let (k, to) = (a.int_or("k", 0)?, a.int("dtype")?);
    let mut m = Make::new(i, node);
    let dtype = to.map_or(Ok(m.dtype(x)), |d| dtype_of(d as i32))?;
    let [rows, columns] = m.sizes(x)?[..] else { return Err(bad("this is no matrix").found(m.i.ty(x))) };
    let (down, across) = (m.range(rows)?, m.range(columns)?);
    let down = m.with(T::Add, down, k as f64)?;
    let down = m.reshape(down, vec![rows.into(), 1.into()])?;
    let equal = m.bin(T::Equal, down, across)?;
    Ok(vec![m.cast(equal, dtype)?])
}

/// Where elements are not 0: a column of indices for each.
pub(super) fn non_zero(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    let x = i.read(node, 0)?;
    let mut m = Make::new(i, node);
    let truth = m.cast(x, DType::Bool)?;
    let sizes = m.sizes(x)?;
    i.catch_up()?;
    let found: Vec<i64> = places(i, truth)?;
    let mut rows = Vec::with_capacity(found.len() * sizes.len());
    for axis in 0..sizes.len() {
        let inner: usize = sizes[axis + 1..].iter().product();
        rows.extend(found.iter().map(|n| *n / inner as i64 % sizes[axis] as i64));
    }
    let mut m = Make::new(i, node);
    Ok(vec![m.values(&[sizes.len(), found.len()], &rows)?])
}

/// Flat places where a value is true.
fn places(i: &Importer, truth: Operand) -> Result<Vec<i64>> {
    let tensor = i.value_of(truth)?;
    Ok((0..).zip(tensor.as_i64().unwrap_or_default()).filter(|(_, x)| **x != 0).map(|(n, _)| n).collect())
}

/// Slices where the condition holds.
pub(super) fn compress(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let axis = a.int("axis")?;
    let (mut x, condition) = (i.read(node, 0)?, i.read(node, 1)?);
    i.catch_up()?;
    let at = places(i, condition)?;
    let mut m = Make::new(i, node);
    if axis.is_none() {
        let shape = m.shape(x);
        x = m.reshape(x, vec![super::reducing::count(&shape)])?;
    }
    let at = m.values(&[at.len()], &at)?;
    Ok(vec![m.op(T::Gather, &[x, at], &[("axis", Attr::Int(axis.unwrap_or(0)))])?])
}

fn reduction(a: &Attributes<'_>) -> Result<Attr> {
    Ok(Attr::Word(a.text("reduction")?.unwrap_or_else(|| "none".to_owned())))
}

pub(super) fn scatter_elements(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let attrs = [("axis", Attr::Int(a.int_or("axis", 0)?)), ("reduction", reduction(a)?)];
    let operands = [i.read(node, 0)?, i.read(node, 1)?, i.read(node, 2)?];
    Ok(vec![i.tensor(T::ScatterElements, &node.output[0], &operands, &attrs)?.into()])
}

pub(super) fn scatter_nd(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let attrs = [("reduction", reduction(a)?)];
    let operands = [i.read(node, 0)?, i.read(node, 1)?, i.read(node, 2)?];
    Ok(vec![i.tensor(T::ScatterNd, &node.output[0], &operands, &attrs)?.into()])
}

pub(super) fn gather_nd(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let batch = a.int_or("batch_dims", 0)?;
    let operands = [i.read(node, 0)?, i.read(node, 1)?];
    Ok(vec![i.tensor(T::GatherNd, &node.output[0], &operands, &[("batch_dims", Attr::Int(batch))])?.into()])
}

/// A cache with new entries written along an axis, from a place on that each sequence of the batch has of its own.
pub(super) fn tensor_scatter(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let (axis, mode) = (a.int_or("axis", -2)?, a.text("mode")?.unwrap_or_else(|| "linear".to_owned()));
    let (cache, update) = (i.read(node, 0)?, i.read(node, 1)?);
    let starts = if input(node, 2).is_some() { Some(i.read(node, 2)?) } else { None };
    let mut m = Make::new(i, node);
    let (axis, sizes, new) = (m.axis(axis, cache)?, m.sizes(cache)?, m.sizes(update)?);
    if axis == 0 || new.len() != sizes.len() {
        return Err(bad("the axis of a cache is behind that of the batch").found(axis));
    }
    let mut at = m.range(new[axis])?;
    if let Some(starts) = starts {
        let starts = m.reshape(starts, vec![sizes[0].into(), 1.into()])?;
        at = m.bin(T::Add, at, starts)?;
    }
    match mode.as_str() {
        "linear" => {}
        "circular" => at = m.with(T::Mod, at, sizes[axis] as f64)?,
        other => return Err(bad("attribute `mode` has a value that is not compiled").found(other).expected("linear or circular")),
    }
    let mut shape = vec![Dim::int(1); sizes.len()];
    shape[axis] = new[axis].into();
    if starts.is_some() {
        shape[0] = sizes[0].into();
    }
    let at = m.reshape(at, shape)?;
    let at = m.expand(at, new.iter().map(|n| Dim::from(*n)).collect())?;
    Ok(vec![m.op(T::ScatterElements, &[cache, at, update], &[("axis", Attr::Int(axis as i64))])?])
}

/// `DepthToSpace` and `SpaceToDepth`: blocks of channels and blocks of places.
pub(super) fn depth_and_space(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let block =
        a.int("blocksize")?.and_then(|b| usize::try_from(b).ok()).filter(|b| *b > 0).ok_or_else(|| bad("`blocksize` is missing"))?;
    let x = i.read(node, 0)?;
    let to_space = node.op_type == "DepthToSpace";
    let columns_first = to_space && a.text("mode")?.is_some_and(|m| m == "CRD");
    let mut m = Make::new(i, node);
    let [n, c, h, w] = m.sizes(x)?[..] else { return Err(bad("this has not four axes").found(m.i.ty(x))) };
    let (split, perm, shape): ([usize; 6], [i64; 6], [usize; 4]) = if to_space {
        let depth = c / (block * block);
        let shape = [n, depth, h * block, w * block];
        if columns_first {
            ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3], shape)
        } else {
            ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2], shape)
        }
    } else {
        ([n, c, h / block, block, w / block, block], [0, 3, 5, 1, 2, 4], [n, c * block * block, h / block, w / block])
    };
    let apart = m.reshape(x, split.map(Dim::from).to_vec())?;
    let turned = m.transpose(apart, &perm)?;
    Ok(vec![m.reshape(turned, shape.map(Dim::from).to_vec())?])
}

pub(super) fn top_k(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    // In order is one of the orders that `sorted = 0` allows.
    a.int("sorted")?;
    let (axis, largest) = (a.int_or("axis", -1)?, a.int_or("largest", 1)?);
    let [k] = i.numbers(node, 1, "the number of results")?[..] else { return Err(bad("the number of results is no single number")) };
    let x = i.read(node, 0)?;
    let attrs = [("axis", Attr::Int(axis)), ("k", Attr::Int(k)), ("largest", Attr::Int(largest))];
    let both = i.f.ops(llamac_ir::op::OpKind::Tensor(T::TopK), &node.output[0], &[x], &attrs);
    Ok(both.map_err(|e| bad("the operands do not fit the op").found(e))?.into_iter().map(Operand::from).collect())
}
