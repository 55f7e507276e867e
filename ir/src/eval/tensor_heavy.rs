//! Tensor ops that reduce: sums, products, softmax, norms, attention; and rotation. All sums in f64, in the order of the elements.

use super::tensor_move as moves;
use super::tensor_ops::{Nd, larger, smaller};
use crate::dtype::DType;
use crate::op::TensorOp;

/// Over nothing the largest is the smallest number of the type, and the other way round.
pub(super) fn reduce(op: TensorOp, mut x: Nd, axes: &[i64], dtype: DType) -> Nd {
    let (least, most) = dtype.range().map_or((f64::NEG_INFINITY, f64::INFINITY), |(least, most)| (least as f64, most as f64));
    for &axis in axes {
        let axis = (if axis < 0 { axis + x.shape.len() as i64 } else { axis }) as usize;
        let (outer, len, inner) = x.around(axis);
        let mut data = Vec::with_capacity(outer * inner);
        for o in 0..outer {
            for i in 0..inner {
                let line = (0..len).map(|l| x.data[(o * len + l) * inner + i]);
                data.push(match op {
                    TensorOp::ReduceMax => line.fold(least, larger),
                    TensorOp::ReduceMin => line.fold(most, smaller),
                    TensorOp::ReduceProd => line.product(),
                    TensorOp::ReduceMean => line.sum::<f64>() / len as f64,
                    _ => line.sum(),
                });
            }
        }
        x.shape[axis] = 1;
        x.data = data;
    }
    x
}

/// Sums, or products, up to each element.
pub(super) fn cumulated(x: &Nd, axis: usize, product: bool, exclusive: bool, reverse: bool) -> Nd {
    let (outer, len, inner) = x.around(axis);
    let mut out = x.clone();
    for o in 0..outer {
        for i in 0..inner {
            let mut all = if product { 1.0 } else { 0.0 };
            for step in 0..len {
                let at = (o * len + if reverse { len - 1 - step } else { step }) * inner + i;
                let before = all;
                all = if product { all * x.data[at] } else { all + x.data[at] };
                out.data[at] = if exclusive { before } else { all };
            }
        }
    }
    out
}

/// Index of the largest or smallest along an axis.
pub(super) fn arg(x: &Nd, axis: usize, largest: bool, last: bool) -> Result<Nd, String> {
    let (outer, len, inner) = x.around(axis);
    if len == 0 {
        return Err("found an axis of length 0, expected one with a largest element".to_owned());
    }
    let mut shape = x.shape.clone();
    shape[axis] = 1;
    let mut data = Vec::with_capacity(outer * inner);
    for o in 0..outer {
        for i in 0..inner {
            let at = |l: usize| if largest { x.data[(o * len + l) * inner + i] } else { -x.data[(o * len + l) * inner + i] };
            let best = (1..len).fold(0, |best, l| if at(l) > at(best) || last && at(l) == at(best) { l } else { best });
            data.push(best as f64);
        }
    }
    Ok(Nd { shape, data })
}

/// In floats of 16 bits each step is rounded, as the ONNX project's own evaluator does: its tests of bf16 take no other result. Sums of f16 are in f32.
pub(super) fn softmax(x: &Nd, axis: usize, dtype: DType) -> Nd {
    let (outer, len, inner) = x.around(axis);
    let mut out = x.clone();
    let rounded = |x: f64| match dtype {
        DType::F16 => half::f16::from_f64(x).to_f64(),
        DType::Bf16 => half::bf16::from_f64(x).to_f64(),
        _ => x,
    };
    for o in 0..outer {
        for i in 0..inner {
            let at = |l: usize| (o * len + l) * inner + i;
            let top = (0..len).map(|l| x.data[at(l)]).fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = (0..len).map(|l| rounded(rounded(x.data[at(l)] - top).exp())).collect();
            let total = match dtype {
                DType::Bf16 => powers.iter().fold(0.0, |sum, x| rounded(sum + x)),
                _ => rounded(powers.iter().sum()),
            };
            powers.iter().enumerate().for_each(|(l, power)| out.data[at(l)] = power / total);
        }
    }
    out
}

pub(super) fn matmul(a: &Nd, b: &Nd) -> Result<Nd, String> {
    let (ra, rb) = (a.shape.len(), b.shape.len());
    let (m, k, n) = (a.shape[ra - 2], a.shape[ra - 1], b.shape[rb - 1]);
    let outer = moves::broadcast(&a.shape[..ra - 2], &b.shape[..rb - 2])?;
    let a = moves::expand(a, &[&outer[..], &[m, k]].concat())?;
    let b = moves::expand(b, &[&outer[..], &[k, n]].concat())?;
    let mut data = Vec::with_capacity(outer.iter().product::<usize>() * m * n);
    for o in 0..outer.iter().product() {
        for row in a.data[o * m * k..][..m * k].chunks(k.max(1)) {
            let mut sums = vec![0.0; n];
            for (i, x) in row.iter().enumerate() {
                sums.iter_mut().zip(&b.data[(o * k + i) * n..][..n]).for_each(|(sum, y)| *sum += x * y);
            }
            data.extend(sums);
        }
    }
    Ok(Nd { shape: [&outer[..], &[m, n]].concat(), data })
}

/// Values and indices, one after the other.
pub(super) fn top_k(x: &Nd, axis: usize, k: usize, largest: bool) -> Vec<Nd> {
    let (outer, len, inner) = x.around(axis);
    let mut shape = x.shape.clone();
    shape[axis] = k;
    let mut values = Nd { data: vec![0.0; outer * k * inner], shape };
    let mut indices = values.clone();
    for o in 0..outer {
        for i in 0..inner {
            let at = |l: usize| x.data[(o * len + l) * inner + i];
            let mut order: Vec<usize> = (0..len).collect();
            order.sort_by(|a, b| if largest { at(*b).total_cmp(&at(*a)) } else { at(*a).total_cmp(&at(*b)) }.then(a.cmp(b)));
            for (n, &l) in order.iter().take(k).enumerate() {
                values.data[(o * k + n) * inner + i] = at(l);
                indices.data[(o * k + n) * inner + i] = l as f64;
            }
        }
    }
    vec![values, indices]
}

pub(super) fn rms(x: &Nd, gamma: Option<&Nd>, eps: f64) -> Nd {
    let width = x.shape.last().copied().unwrap_or(1).max(1);
    let mut out = x.clone();
    for row in out.data.chunks_mut(width) {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
        let factor = 1.0 / (mean + eps).sqrt();
        row.iter_mut().enumerate().for_each(|(i, x)| *x *= factor * gamma.map_or(1.0, |g| g.data[i]));
    }
    out
}

pub(super) fn rotary(mut x: Nd, cos: &Nd, sin: &Nd, interleaved: bool) -> Result<Nd, String> {
    let [batch, heads, seq, width] = x.shape[..] else { return Err(format!("found {:?}, expected four axes", x.shape)) };
    let half = width / 2;
    let (cos, sin) = (moves::expand(cos, &[batch, seq, half])?, moves::expand(sin, &[batch, seq, half])?);
    for (n, head) in x.data.chunks_mut(width).enumerate() {
        let row = (n / (heads * seq) * seq + n % seq) * half;
        for i in 0..half {
            let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
            let (c, s) = (cos.data[row + i], sin.data[row + i]);
            (head[a], head[b]) = (head[a] * c - head[b] * s, head[a] * s + head[b] * c);
        }
    }
    Ok(x)
}

/// `mask`: its numbers, and whether they are truth values instead of what is added. A query that sees nothing gives zeros.
pub(super) fn attention(q: &Nd, k: &Nd, v: &Nd, mask: Option<&(Nd, bool)>, scale: f64, causal: bool) -> Result<Nd, String> {
    let ([batch, heads, seq, width], [_, kv_heads, keys, out]) = (&q.shape[..], &v.shape[..]) else {
        return Err(format!("found {:?}, expected four axes", q.shape));
    };
    let (batch, heads, seq, width, kv_heads, keys, out) = (*batch, *heads, *seq, *width, *kv_heads, *keys, *out);
    let mask = mask.map(|(m, bools)| moves::expand(m, &[batch, heads, seq, keys]).map(|m| (m, *bools))).transpose()?;
    let mut result = Nd { shape: vec![batch, heads, seq, out], data: Vec::with_capacity(batch * heads * seq * out) };
    for row in 0..batch * heads * seq {
        let (b, h, i) = (row / (heads * seq), row / seq % heads, row % seq);
        let kv = (b * kv_heads + h / (heads / kv_heads)) * keys;
        let query = &q.data[row * width..][..width];
        let score = |j: usize| {
            let dot: f64 = query.iter().zip(&k.data[(kv + j) * width..][..width]).map(|(a, b)| a * b).sum();
            let bias = match &mask {
                Some((m, true)) if m.data[row * keys + j] == 0.0 => f64::NEG_INFINITY,
                Some((m, false)) => m.data[row * keys + j],
                _ => 0.0,
            };
            if causal && j + seq > i + keys { f64::NEG_INFINITY } else { scale * dot + bias }
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| if top == f64::NEG_INFINITY { 0.0 } else { (s - top).exp() }).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..out {
            let sum: f64 = weights.iter().enumerate().map(|(j, w)| w * v.data[(kv + j) * out + d]).sum();
            result.data.push(if total == 0.0 { 0.0 } else { sum / total });
        }
    }
    Ok(result)
}

/// Scale and zero point of u8 codes over all elements, in f32 as ONNX's `DynamicQuantizeLinear`.
pub(super) fn dynamic(x: &Nd) -> (Nd, Nd) {
    let (low, high) = x.data.iter().fold((0.0f32, 0.0f32), |(low, high), x| (low.min(*x as f32), high.max(*x as f32)));
    let scale = if low == high { 1.0 } else { (high - low) / 255.0 };
    let zero = (-low / scale).clamp(0.0, 255.0).round_ties_even();
    let one = |n: f32| Nd { shape: vec![], data: vec![f64::from(n)] };
    (one(scale), one(zero))
}

/// Codes of a type, in f32.
pub(super) fn quantize(mut x: Nd, scale: &Nd, zero: &Nd, dtype: DType) -> Nd {
    let (low, high) = if dtype == DType::I8 { (-128.0, 127.0) } else { (0.0, 255.0) };
    let (scale, zero) = (scale.data[0] as f32, zero.data[0] as f32);
    x.data.iter_mut().for_each(|x| *x = f64::from(((*x as f32 / scale).round_ties_even() + zero).clamp(low, high)));
    x
}
