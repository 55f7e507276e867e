//! Causal attention over a cache: scores, softmax and sums in f64. The cache itself is in `cache`.

use super::cache::{Cache, Entry};
use super::tensor::Tensor;

/// Attributes of the op.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f64,
    pub(super) chunk: usize,
}

pub(super) fn attention(q: &Tensor, pos: &Tensor, seq: &Tensor, cache: &Cache, h: Heads) -> Result<Tensor, String> {
    let width = h.heads * h.head_dim;
    let mut out = Vec::with_capacity(q.floats()?.len());
    for (q, (&p, &s)) in q.floats()?.chunks_exact(width).zip(pos.ints()?.iter().zip(seq.ints()?)) {
        let seen = seen(cache, p, s, h)?;
        for head in 0..h.heads {
            let kv = head / (h.heads / h.kv_heads) * h.head_dim;
            one_head(&q[head * h.head_dim..][..h.head_dim], &seen, kv, h.scale, &mut out);
        }
    }
    Ok(q.with_rows(width, out))
}

/// Entries that the query at position `p` of sequence `s` sees, oldest first.
fn seen(cache: &Cache, p: i32, s: i32, h: Heads) -> Result<Vec<&Entry>, String> {
    let chunk = i32::try_from(h.chunk).unwrap_or(i32::MAX);
    let first = if chunk > 0 { p / chunk * chunk } else { 0 };
    let mut seen = Vec::new();
    for j in first..=p {
        let entry = cache.get(s, j).ok_or_else(|| format!("position {j} of sequence {s} is read but was never written"))?;
        if entry.k.len() != h.kv_heads * h.head_dim {
            return Err(format!("found {} elements per position in the cache, expected {}", entry.k.len(), h.kv_heads * h.head_dim));
        }
        seen.push(entry);
    }
    if seen.is_empty() { Err(format!("found position {p}, expected no negative number")) } else { Ok(seen) }
}

/// `sum_j softmax_j(scale * q . k_j) * v_j`, of the KV head that begins at element `kv`.
fn one_head(q: &[f32], seen: &[&Entry], kv: usize, scale: f64, out: &mut Vec<f32>) {
    let dot = |k: &[f32]| q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let scores: Vec<f64> = seen.iter().map(|e| scale * dot(&e.k[kv..][..q.len()])).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut sums = vec![0.0f64; q.len()];
    for (weight, entry) in weights.iter().zip(seen) {
        sums.iter_mut().zip(&entry.v[kv..]).for_each(|(sum, v)| *sum += weight * f64::from(*v));
    }
    out.extend(sums.iter().map(|sum| (sum / total) as f32));
}
