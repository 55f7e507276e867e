//! Norms, rotary embedding and elementwise ops: everything that works on rows without a matrix. Computed in f64, rounded once.

use super::tensor::Tensor;

/// `gamma * x / sqrt(mean(x^2) + eps)` over groups of `group` features (0: all); without `gamma` its factor is 1.
pub(super) fn rms(x: &Tensor, gamma: Option<&Tensor>, eps: f64, group: usize) -> Result<Tensor, String> {
    let width = x.width();
    let group = if group == 0 { width } else { group };
    let gamma = gamma.map(|g| g.floats()).transpose()?;
    let mut out = Vec::with_capacity(x.floats()?.len());
    for (g, part) in x.floats()?.chunks_exact(group.max(1)).enumerate() {
        let mean = part.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / group as f64;
        let factor = 1.0 / (mean + eps).sqrt();
        let first = g * group % width;
        out.extend(part.iter().enumerate().map(|(i, x)| (gamma.map_or(1.0, |g| f64::from(g[first + i])) * f64::from(*x) * factor) as f32));
    }
    Ok(x.with_rows(width, out))
}

/// Cosine and sine of `f32(pos) * inv_freq[i]`, the product in f32.
pub(super) fn rope_angles(pos: &Tensor, inv_freq: &Tensor) -> Result<Tensor, String> {
    let freqs = inv_freq.floats()?;
    let angles = pos.ints()?.iter().flat_map(|p| freqs.iter().map(move |f| f64::from(*p as f32 * f)));
    let out = angles.flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect();
    Ok(Tensor::f32(&[pos.ints()?.len(), 2 * freqs.len()], out))
}

/// Rotates every pair of each head of `x` by the angles of its row.
pub(super) fn rope(x: &Tensor, angles: &Tensor, head_dim: usize, interleaved: bool) -> Result<Tensor, String> {
    let width = x.width();
    let mut out = x.floats()?.to_vec();
    for (row, angles) in out.chunks_exact_mut(width).zip(angles.floats()?.chunks_exact(head_dim)) {
        for head in row.chunks_exact_mut(head_dim) {
            for i in 0..head_dim / 2 {
                let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + head_dim / 2) };
                let (cos, sin) = (f64::from(angles[2 * i]), f64::from(angles[2 * i + 1]));
                let (xa, xb) = (f64::from(head[a]), f64::from(head[b]));
                head[a] = (xa * cos - xb * sin) as f32;
                head[b] = (xa * sin + xb * cos) as f32;
            }
        }
    }
    Ok(x.with_rows(width, out))
}

/// `x * sigmoid(x)`.
pub(super) fn silu(x: &Tensor) -> Result<Tensor, String> {
    let one = |x: &f32| (f64::from(*x) / (1.0 + (-f64::from(*x)).exp())) as f32;
    Ok(x.with_rows(x.width(), x.floats()?.iter().map(one).collect()))
}

/// `f(a, b)` of every element; `b` has the shape of `a` or is a vector over its last axis.
pub(super) fn zip(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Result<Tensor, String> {
    let b = b.floats()?;
    let out = a.floats()?.chunks(b.len().max(1)).flat_map(|a| a.iter().zip(b)).map(|(a, b)| f(*a, *b)).collect();
    Ok(a.with_rows(a.width(), out))
}

/// Columns `start .. start + len` of the last axis.
pub(super) fn slice_cols(x: &Tensor, start: usize, len: usize) -> Result<Tensor, String> {
    let out = x.floats()?.chunks_exact(x.width().max(1)).flat_map(|row| &row[start..start + len]).copied().collect();
    Ok(x.with_rows(len, out))
}

/// Each row of `x` times its factor.
pub(super) fn row_scale(x: &Tensor, factor: &Tensor) -> Result<Tensor, String> {
    let rows = x.floats()?.chunks_exact(x.width().max(1)).zip(factor.floats()?);
    Ok(x.with_rows(x.width(), rows.flat_map(|(row, f)| row.iter().map(move |x| x * f)).collect()))
}

/// `1 + attn_scale * ln(1 + floor((pos + 1) / floor_scale))`.
pub(super) fn attn_temperature(pos: &Tensor, floor_scale: f64, attn_scale: f64) -> Result<Tensor, String> {
    let one = |p: &i32| (1.0 + attn_scale * ((f64::from(*p) + 1.0) / floor_scale).floor().ln_1p()) as f32;
    Ok(Tensor::f32(&[pos.ints()?.len(), 1], pos.ints()?.iter().map(one).collect()))
}
