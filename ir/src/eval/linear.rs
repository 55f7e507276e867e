//! Products with a weight, and the table of embeddings. Weights are read one row at a time and never kept.

use super::quant;
use super::tensor::{Arg, Tensor};
use crate::dtype::DType;

pub(super) fn embed(ids: &Tensor, table: &Arg<'_>) -> Result<Tensor, String> {
    let (rows, width) = (table.rows(), table.columns());
    let mut out = vec![0.0; ids.ints()?.len() * width];
    for (&id, out) in ids.ints()?.iter().zip(out.chunks_exact_mut(width)) {
        let row = usize::try_from(id).ok().filter(|r| *r < rows).ok_or_else(|| format!("found id {id}, expected 0..{rows}"))?;
        table.row(row, out)?;
    }
    Ok(Tensor::f32(&[ids.ints()?.len(), width], out))
}

/// `x` times the transposed weight, plus a bias; `x` rounded to `act`, sums in f64.
pub(super) fn linear(x: &Tensor, w: &Arg<'_>, bias: Option<&Arg<'_>>, act: DType) -> Result<Tensor, String> {
    let (n, k) = (w.rows(), w.columns());
    let mut rounded = x.floats()?.to_vec();
    rounded.chunks_mut(k).try_for_each(|row| quant::round_input(act, row))?;
    let wide: Vec<f64> = rounded.into_iter().map(f64::from).collect();
    let bias = bias.map(|b| b.tensor()).transpose()?;
    let bias = bias.as_ref().map(|b| b.floats()).transpose()?;

    let mut out = vec![0.0; wide.len() / k * n];
    let (mut row, mut wide_row) = (vec![0.0f32; k], vec![0.0f64; k]);
    for o in 0..n {
        w.row(o, &mut row)?;
        wide_row.iter_mut().zip(&row).for_each(|(wide, w)| *wide = f64::from(*w));
        let b = bias.map_or(0.0, |b| f64::from(b[o]));
        for (t, x) in wide.chunks_exact(k).enumerate() {
            out[t * n + o] = (dot(x, &wide_row) + b) as f32;
        }
    }
    Ok(x.with_rows(n, out))
}

/// A dot product in eight partial sums, so that the processor can add several at a time.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + tail
}
