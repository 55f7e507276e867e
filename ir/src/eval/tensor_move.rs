//! Tensor ops that move elements and compute nothing: broadcasting, transposing, gathering, scattering.

use super::tensor_ops::Nd;

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
fn strided(x: &Nd, shape: &[usize], by: &[usize]) -> Nd {
    let mut data = Vec::with_capacity(shape.iter().product());
    walk(shape, |index| data.push(x.data[index.iter().zip(by).map(|(i, s)| i * s).sum::<usize>()]));
    Nd { shape: shape.to_vec(), data }
}

/// `x` broadcast to a shape that it fits.
pub(super) fn expand(x: &Nd, shape: &[usize]) -> Result<Nd, String> {
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

pub(super) fn transpose(x: &Nd, perm: &[usize]) -> Nd {
    let own = strides(&x.shape);
    let shape: Vec<usize> = perm.iter().map(|&p| x.shape[p]).collect();
    strided(x, &shape, &perm.iter().map(|&p| own[p]).collect::<Vec<_>>())
}

pub(super) fn concat(parts: &[Nd], axis: usize) -> Nd {
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

fn position(index: f64, len: usize) -> Result<usize, String> {
    let from_end = if index < 0.0 { index + len as f64 } else { index };
    if from_end >= 0.0 && from_end < len as f64 { Ok(from_end as usize) } else { Err(format!("found index {index}, expected below {len}")) }
}

pub(super) fn gather(x: &Nd, indices: &Nd, axis: usize) -> Result<Nd, String> {
    let (outer, len, inner) = x.around(axis);
    let at = indices.data.iter().map(|i| position(*i, len)).collect::<Result<Vec<_>, _>>()?;
    let mut data = Vec::with_capacity(outer * at.len() * inner);
    for o in 0..outer {
        at.iter().for_each(|i| data.extend_from_slice(&x.data[(o * len + i) * inner..][..inner]));
    }
    Ok(Nd { shape: [&x.shape[..axis], &indices.shape, &x.shape[axis + 1..]].concat(), data })
}

pub(super) fn gather_nd(x: &Nd, indices: &Nd) -> Result<Nd, String> {
    let depth = indices.shape.last().copied().unwrap_or(0);
    let own = strides(&x.shape);
    let inner: usize = x.shape[depth..].iter().product();
    let mut data = Vec::new();
    let count: usize = indices.shape.iter().rev().skip(1).product();
    for address in 0..count {
        let mut at = 0;
        let parts = indices.data[address * depth..][..depth].iter().zip(x.shape.iter().zip(&own));
        for (index, (len, stride)) in parts {
            at += position(*index, *len)? * stride;
        }
        data.extend_from_slice(&x.data[at..][..inner]);
    }
    Ok(Nd { shape: [&indices.shape[..indices.shape.len() - 1], &x.shape[depth..]].concat(), data })
}

/// For each element of `indices`, where along `axis` of `x` it points.
fn pointed(x: &[usize], indices: &Nd, axis: usize) -> Result<Vec<usize>, String> {
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

pub(super) fn gather_elements(x: &Nd, indices: &Nd, axis: usize) -> Result<Nd, String> {
    let at = pointed(&x.shape, indices, axis)?;
    let pick = |i: &usize| x.data.get(*i).copied().ok_or_else(|| "an index is out of range".to_owned());
    Ok(Nd { shape: indices.shape.clone(), data: at.iter().map(pick).collect::<Result<_, _>>()? })
}

pub(super) fn scatter_elements(mut x: Nd, indices: &Nd, updates: &Nd, axis: usize) -> Result<Nd, String> {
    for (at, value) in pointed(&x.shape, indices, axis)?.into_iter().zip(&updates.data) {
        *x.data.get_mut(at).ok_or("an index is out of range")? = *value;
    }
    Ok(x)
}

pub(super) fn tile(x: &Nd, repeats: &[usize]) -> Nd {
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
pub(super) fn trilu(mut x: Nd, upper: bool, k: i64) -> Nd {
    let (rows, columns) = (x.shape[x.shape.len() - 2], x.shape[x.shape.len() - 1]);
    for (n, value) in x.data.iter_mut().enumerate() {
        let (row, column) = ((n / columns.max(1) % rows.max(1)) as i64, (n % columns.max(1)) as i64);
        let kept = if upper { column - row >= k } else { column - row <= k };
        *value = if kept { *value } else { 0.0 };
    }
    x
}
