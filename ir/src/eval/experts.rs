//! The meaning of the ops on mixtures of experts: every expert of every row, or the chosen ones.

use super::linear;
use super::tensor::{Arg, Tensor};
use crate::dtype::DType;

/// The `top_k` largest of a row, in ascending order of their index; of equal ones the first.
fn chosen_of(scores: &[f32], top_k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(top_k);
    order.sort_unstable();
    order
}

fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(x)).exp())) as f32
}

pub(super) fn top_gates(scores: &Tensor, top_k: usize) -> Result<Tensor, String> {
    let mut out = vec![0.0; scores.floats()?.len()];
    let width = scores.width();
    for (row, out) in scores.floats()?.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        chosen_of(row, top_k).into_iter().for_each(|e| out[e] = sigmoid(row[e]));
    }
    Ok(scores.with_rows(width, out))
}

pub(super) fn route(scores: &Tensor, top_k: usize) -> Result<Vec<Tensor>, String> {
    let (mut ids, mut gates) = (Vec::new(), Vec::new());
    for row in scores.floats()?.chunks_exact(scores.width()) {
        let chosen = chosen_of(row, top_k);
        gates.extend(chosen.iter().map(|e| sigmoid(row[*e])));
        ids.extend(chosen.iter().map(|e| *e as i32));
    }
    let shape = [ids.len() / top_k, top_k];
    Ok(vec![Tensor::i32(&shape, ids), Tensor::f32(&shape, gates)])
}

/// `gates[t][e] * x[t]`.
pub(super) fn scale(x: &Tensor, gates: &Tensor) -> Result<Tensor, String> {
    let (experts, width) = (gates.width(), x.width());
    let rows = x.floats()?.chunks_exact(width).zip(gates.floats()?.chunks_exact(experts));
    let out: Vec<f32> = rows.flat_map(|(x, gates)| gates.iter().flat_map(move |g| x.iter().map(move |x| g * x))).collect();
    Ok(Tensor::f32(&[out.len() / (experts * width), experts, width], out))
}

/// The product of each expert with its row of `x`.
pub(super) fn expert_linear(x: &Tensor, w: &Arg<'_>, act: DType) -> Result<Tensor, String> {
    let [rows, experts, _] = x.shape() else { return Err(format!("found {:?}, expected [rows, experts, columns]", x.shape())) };
    let ids = (0..rows * experts).map(|i| i % experts).collect::<Vec<_>>();
    products(x, &ids, *experts, w, act)
}

/// The product of the expert `ids[t][j]` with `x[t][j]`.
pub(super) fn chosen_linear(x: &Tensor, ids: &Tensor, w: &Arg<'_>, act: DType) -> Result<Tensor, String> {
    let ids = ids.ints()?.iter().map(|e| usize::try_from(*e).map_err(|e| e.to_string())).collect::<Result<Vec<_>, _>>()?;
    let experts = ids.iter().max().map_or(0, |e| e + 1);
    products(x, &ids, experts, w, act)
}

/// Row `i` of all `x` times the weight of expert `ids[i]`. An input of zeros gives zeros without its weight being read.
fn products(x: &Tensor, ids: &[usize], experts: usize, w: &Arg<'_>, act: DType) -> Result<Tensor, String> {
    let (k, n, all) = (x.width(), w.features()?, w.rows());
    let wide = linear::rounded(x, act)?;
    let mut out = vec![0.0; ids.len() * n];
    for e in 0..experts {
        let rows: Vec<usize> = (0..ids.len()).filter(|i| ids[*i] == e && wide[i * k..][..k].iter().any(|x| *x != 0.0)).collect();
        if rows.is_empty() {
            continue;
        }
        if (e + 1) * n > all {
            return Err(format!("found expert {e}, expected 0..{}", all / n));
        }
        linear::products(&wide, k, w, e * n..(e + 1) * n, &rows, &mut |o, sums| {
            rows.iter().zip(sums).for_each(|(i, sum)| out[i * n + o] = *sum as f32);
        })?;
    }
    Ok(x.with_rows(n, out))
}

/// Sum over the middle axis, in order.
pub(super) fn sum(x: &Tensor) -> Result<Tensor, String> {
    let [rows, experts, width] = *x.shape() else { return Err(format!("found {:?}, expected [rows, experts, columns]", x.shape())) };
    let mut out = vec![0.0f32; rows * width];
    for (out, row) in out.chunks_exact_mut(width).zip(x.floats()?.chunks_exact(experts * width)) {
        for y in row.chunks_exact(width) {
            out.iter_mut().zip(y).for_each(|(o, y)| *o += y);
        }
    }
    Ok(Tensor::f32(&[rows, width], out))
}
