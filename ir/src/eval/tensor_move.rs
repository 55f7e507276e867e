//! Tensor ops that move elements and compute nothing: broadcasting, transposing, gathering, scattering.

use super::tensor_ops::{Nd, Num, Sizes, axis, larger, lengths, list, smaller};
use crate::module::Inst;
use crate::op::TensorOp as T;

/// An element that is moved; zero is the default.
trait Element: Copy + Default {
    /// What is there and what is written there, combined.
    fn combined(self, other: Self, how: &str) -> Self;
}

impl Element for f64 {
    fn combined(self, other: f64, how: &str) -> f64 {
        match how {
            "add" => self + other,
            "mul" => self * other,
            "max" => larger(self, other),
            "min" => smaller(self, other),
            _ => other,
        }
    }
}

impl Element for i128 {
    fn combined(self, other: i128, how: &str) -> i128 {
        match how {
            "add" => self + other,
            "mul" => self.wrapping_mul(other),
            "max" => self.max(other),
            "min" => self.min(other),
            _ => other,
        }
    }
}

/// An op that moves elements; `None` if it is not one.
pub(super) fn eval(op: T, inst: &Inst, x: &mut Vec<Num>, sizes: Sizes<'_>) -> Result<Option<Num>, String> {
    let indices = match op {
        T::Where => Some(x.remove(0)),
        T::Gather | T::GatherNd | T::GatherElements | T::ScatterElements | T::ScatterNd => Some(x.remove(1)),
        T::Reshape | T::Expand | T::Transpose | T::Concat | T::Slice | T::Tile | T::Trilu => None,
        _ => return Ok(None),
    };
    let indices = match indices {
        Some(Num::Int(nd)) => nd,
        Some(Num::Float(_)) => return Err("found floats, expected integers or truth values".to_owned()),
        None => Nd { shape: vec![], data: vec![] },
    };
    let mixed = || "found operands of different kinds, expected one".to_owned();
    Ok(Some(match x.first() {
        Some(Num::Float(_)) => {
            let all = x.drain(..).map(|n| if let Num::Float(nd) = n { Ok(nd) } else { Err(mixed()) });
            Num::Float(moved(op, inst, all.collect::<Result<_, _>>()?, &indices, sizes)?)
        }
        _ => {
            let all = x.drain(..).map(|n| if let Num::Int(nd) = n { Ok(nd) } else { Err(mixed()) });
            Num::Int(moved(op, inst, all.collect::<Result<_, _>>()?, &indices, sizes)?)
        }
    }))
}

fn moved<E: Element>(op: T, inst: &Inst, mut x: Vec<Nd<E>>, indices: &Nd<i128>, sizes: Sizes<'_>) -> Result<Nd<E>, String> {
    if op == T::Concat {
        let axis = axis(inst, x[0].shape.len());
        return Ok(concat(&x, axis));
    }
    let second = if x.len() > 1 { x.pop() } else { None };
    let first = x.pop().ok_or("found no operand, expected one")?;
    let along = || axis(inst, first.shape.len());
    let needed = || "found one operand, expected two".to_owned();
    match op {
        T::Reshape => {
            let shape = lengths(inst, "shape", sizes)?;
            if shape.iter().product::<usize>() != first.data.len() {
                return Err(format!("found {:?}, expected as many elements as {shape:?}", first.shape));
            }
            Ok(Nd { shape, data: first.data })
        }
        T::Expand => {
            let shape = broadcast(&first.shape, &lengths(inst, "shape", sizes)?)?;
            expand(&first, &shape)
        }
        T::Transpose => Ok(transpose(&first, &lengths(inst, "perm", sizes)?)),
        T::Slice => {
            let (start, len) = (list(inst, "start", sizes)?[0], lengths(inst, "len", sizes)?[0]);
            let data = (0..len as i128).map(|i| i128::from(start) + i * i128::from(inst.signed("step"))).collect();
            gather(&first, &Nd { shape: vec![len], data }, along())
        }
        T::Gather => gather(&first, indices, along()),
        T::GatherNd => gather_nd(&first, indices, inst.int("batch_dims")),
        T::GatherElements => gather_elements(&first, indices, along()),
        T::ScatterElements => {
            let at = pointed(&first.shape, indices, along())?;
            scatter(first, &at, 1, &second.ok_or_else(needed)?, inst.word("reduction"))
        }
        T::ScatterNd => {
            let (at, inner) = addresses(&first.shape, indices, 0)?;
            scatter(first, &at, inner, &second.ok_or_else(needed)?, inst.word("reduction"))
        }
        T::Tile => Ok(tile(&first, &lengths(inst, "repeats", sizes)?)),
        T::Trilu => Ok(trilu(first, inst.signed("upper") != 0, inst.signed("k"))),
        // Where.
        _ => {
            let (a, b) = (first, second.ok_or_else(needed)?);
            let shape = broadcast(&broadcast(&indices.shape, &a.shape)?, &b.shape)?;
            let (c, a, b) = (expand(indices, &shape)?, expand(&a, &shape)?, expand(&b, &shape)?);
            let data = c.data.iter().zip(a.data.iter().zip(&b.data)).map(|(c, (a, b))| if *c != 0 { *a } else { *b });
            Ok(Nd { data: data.collect(), shape })
        }
    }
}

/// The shape that two shapes broadcast to.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    let dim = |i| match (at(a, i), at(b, i)) {
        (x, y) if x == y || y == 1 => Ok(x),
        (1, y) => Ok(y),
        _ => Err(format!("found {a:?} and {b:?}, expected shapes that broadcast")),
    };
    (0..rank).map(dim).collect()
}

/// `strides[i]` elements lie between neighbours along axis `i`.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i] * shape[i];
    }
    out
}

/// Calls `each` with every index of a shape, in order.
fn walk(shape: &[usize], mut each: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    loop {
        each(&index);
        let Some(axis) = (0..shape.len()).rev().find(|&a| index[a] + 1 < shape[a]) else { return };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// Elements of `x` picked by strides of its own for each axis of `shape`.
fn strided<E: Copy>(x: &Nd<E>, shape: &[usize], by: &[usize]) -> Nd<E> {
    let mut data = Vec::with_capacity(shape.iter().product());
    walk(shape, |index| data.push(x.data[index.iter().zip(by).map(|(i, s)| i * s).sum::<usize>()]));
    Nd { shape: shape.to_vec(), data }
}

/// `x` broadcast to a shape that it fits.
pub(super) fn expand<E: Copy>(x: &Nd<E>, shape: &[usize]) -> Result<Nd<E>, String> {
    if x.shape == shape {
        return Ok(x.clone());
    }
    if broadcast(&x.shape, shape)? != shape {
        return Err(format!("found {:?}, expected what broadcasts to {shape:?}", x.shape));
    }
    let own = strides(&x.shape);
    let lead = shape.len() - x.shape.len();
    let by = |a: usize| if a < lead || x.shape[a - lead] == 1 { 0 } else { own[a - lead] };
    Ok(strided(x, shape, &(0..shape.len()).map(by).collect::<Vec<_>>()))
}

fn transpose<E: Copy>(x: &Nd<E>, perm: &[usize]) -> Nd<E> {
    let own = strides(&x.shape);
    let shape: Vec<usize> = perm.iter().map(|&p| x.shape[p]).collect();
    strided(x, &shape, &perm.iter().map(|&p| own[p]).collect::<Vec<_>>())
}

fn concat<E: Copy>(parts: &[Nd<E>], axis: usize) -> Nd<E> {
    let mut shape = parts[0].shape.clone();
    shape[axis] = parts.iter().map(|p| p.shape[axis]).sum();
    let outer: usize = shape[..axis].iter().product();
    let mut data = Vec::with_capacity(shape.iter().product());
    for o in 0..outer {
        for part in parts {
            let (_, len, inner) = part.around(axis);
            data.extend_from_slice(&part.data[o * len * inner..][..len * inner]);
        }
    }
    Nd { shape, data }
}

fn position(index: i128, len: usize) -> Result<usize, String> {
    let from_end = if index < 0 { index + len as i128 } else { index };
    let inside = usize::try_from(from_end).ok().filter(|i| *i < len);
    inside.ok_or_else(|| format!("found index {index}, expected below {len}"))
}

fn gather<E: Copy>(x: &Nd<E>, indices: &Nd<i128>, axis: usize) -> Result<Nd<E>, String> {
    let (outer, len, inner) = x.around(axis);
    let at = indices.data.iter().map(|i| position(*i, len)).collect::<Result<Vec<_>, _>>()?;
    let mut data = Vec::with_capacity(outer * at.len() * inner);
    for o in 0..outer {
        at.iter().for_each(|i| data.extend_from_slice(&x.data[(o * len + i) * inner..][..inner]));
    }
    Ok(Nd { shape: [&x.shape[..axis], &indices.shape, &x.shape[axis + 1..]].concat(), data })
}

fn gather_nd<E: Copy>(x: &Nd<E>, indices: &Nd<i128>, batch: usize) -> Result<Nd<E>, String> {
    let depth = indices.shape.last().copied().unwrap_or(0);
    let (at, inner) = addresses(&x.shape, indices, batch)?;
    let data = at.iter().flat_map(|at| x.data[*at..][..inner].iter().copied()).collect();
    Ok(Nd { shape: [&indices.shape[..indices.shape.len() - 1], &x.shape[batch + depth..]].concat(), data })
}

/// Where in `x` the slices begin that the last axis of the indices addresses, and how long they are. `batch` axes are those of both.
fn addresses(x: &[usize], indices: &Nd<i128>, batch: usize) -> Result<(Vec<usize>, usize), String> {
    let depth = indices.shape.last().copied().unwrap_or(0);
    let own = strides(x);
    let count: usize = indices.shape.iter().rev().skip(1).product();
    let batches: usize = x[..batch].iter().product();
    let (each, size) = (count / batches.max(1), x[batch..].iter().product::<usize>());
    let mut out = Vec::with_capacity(count);
    for address in 0..count {
        let mut at = address / each.max(1) * size;
        for (index, axis) in indices.data[address * depth..][..depth].iter().zip(batch..) {
            at += position(*index, x[axis])? * own[axis];
        }
        out.push(at);
    }
    Ok((out, x[batch + depth..].iter().product()))
}

/// For each element of `indices`, where along `axis` of `x` it points.
fn pointed(x: &[usize], indices: &Nd<i128>, axis: usize) -> Result<Vec<usize>, String> {
    let own = strides(x);
    let mut out = Ok(Vec::with_capacity(indices.data.len()));
    let mut n = 0;
    walk(&indices.shape, |index| {
        let at = position(indices.data[n], x[axis]);
        n += 1;
        if let Ok(list) = &mut out {
            match at {
                Ok(at) => list.push(index.iter().enumerate().map(|(a, i)| if a == axis { at } else { *i } * own[a]).sum()),
                Err(e) => out = Err(e),
            }
        }
    });
    out
}

fn gather_elements<E: Copy>(x: &Nd<E>, indices: &Nd<i128>, axis: usize) -> Result<Nd<E>, String> {
    let at = pointed(&x.shape, indices, axis)?;
    let pick = |i: &usize| x.data.get(*i).copied().ok_or_else(|| "an index is out of range".to_owned());
    Ok(Nd { shape: indices.shape.clone(), data: at.iter().map(pick).collect::<Result<_, _>>()? })
}

/// Writes runs of `inner` elements.
fn scatter<E: Element>(mut x: Nd<E>, at: &[usize], inner: usize, updates: &Nd<E>, how: &str) -> Result<Nd<E>, String> {
    for (at, values) in at.iter().zip(updates.data.chunks(inner.max(1))) {
        let places = x.data.get_mut(*at..*at + inner).ok_or("an index is out of range")?;
        places.iter_mut().zip(values).for_each(|(place, value)| *place = place.combined(*value, how));
    }
    Ok(x)
}

fn tile<E: Copy>(x: &Nd<E>, repeats: &[usize]) -> Nd<E> {
    let mut out = x.clone();
    for (axis, &n) in repeats.iter().enumerate() {
        if n == 0 {
            out.shape[axis] = 0;
            out.data.clear();
        } else {
            out = concat(&vec![out; n], axis);
        }
    }
    out
}

/// Zeros below (else above) diagonal `k` of every matrix.
fn trilu<E: Element>(mut x: Nd<E>, upper: bool, k: i64) -> Nd<E> {
    let (rows, columns) = (x.shape[x.shape.len() - 2], x.shape[x.shape.len() - 1]);
    for (n, value) in x.data.iter_mut().enumerate() {
        let (row, column) = ((n / columns.max(1) % rows.max(1)) as i64, (n % columns.max(1)) as i64);
        let kept = if upper { column - row >= k } else { column - row <= k };
        *value = if kept { *value } else { E::default() };
    }
    x
}
