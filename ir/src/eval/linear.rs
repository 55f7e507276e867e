//! Products with a weight, and the table of embeddings. Weights are read one row at a time and never kept; all cores take part.

use super::quant;
use super::tensor::{Arg, Tensor};
use crate::dtype::DType;
use crate::wide::wide;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    let n = w.rows();
    let x_wide = rounded(x, act)?;
    let tokens: Vec<usize> = (0..x_wide.len() / x.width()).collect();
    let bias = bias.map(|b| b.tensor()).transpose()?;
    let bias = bias.as_ref().map(|b| b.floats()).transpose()?;
    let mut out = vec![0.0; tokens.len() * n];
    products(&x_wide, x.width(), w, 0..n, &tokens, &mut |o, sums| {
        let b = bias.map_or(0.0, |b| f64::from(b[o]));
        sums.iter().enumerate().for_each(|(t, sum)| out[t * n + o] = (sum + b) as f32);
    })?;
    Ok(x.with_rows(n, out))
}

/// Rows of `x` rounded to `act`, as f64.
pub(super) fn rounded(x: &Tensor, act: DType) -> Result<Vec<f64>, String> {
    let mut rounded = x.floats()?.to_vec();
    rounded.chunks_mut(x.width()).try_for_each(|row| quant::round_input(act, row))?;
    Ok(rounded.into_iter().map(f64::from).collect())
}

/// Weight rows that a thread takes at a time.
const CHUNK: usize = 32;

/// The products of rows `which` of `x`, `k` elements each, with every weight row of `rows`: `put` gets each weight row's number, counted from
/// the first, and its products. Each product is summed in one order, whatever the number of threads.
pub(super) fn products(
    x: &[f64],
    k: usize,
    w: &Arg<'_>,
    rows: Range<usize>,
    which: &[usize],
    put: &mut (dyn FnMut(usize, &[f64]) + Send),
) -> Result<(), String> {
    let next = AtomicUsize::new(rows.start);
    let shared = Mutex::new((put, Ok(())));
    let work = || {
        let (mut band, mut wide) = (vec![0.0f32; CHUNK * k], vec![0.0f64; 2 * k]);
        let mut sums = vec![[0.0f64; 2]; which.len()];
        let mut done = Vec::new();
        loop {
            let first = next.fetch_add(CHUNK, Ordering::Relaxed);
            let end = (first + CHUNK).min(rows.end);
            if first >= rows.end {
                return;
            }
            let read = w.band(first, end - first, &mut band);
            done.clear();
            for pair in (first..end).step_by(2) {
                let pair = [pair, (pair + 1).min(end - 1)];
                for (r, wide) in pair.iter().zip(wide.chunks_exact_mut(k)) {
                    wide.iter_mut().zip(&band[(r - first) * k..]).for_each(|(wide, w)| *wide = f64::from(*w));
                }
                dots(x, k, which, &wide, &mut sums);
                done.extend((0..pair[1] + 1 - pair[0]).map(|i| (pair[i], sums.iter().map(|s| s[i]).collect::<Vec<f64>>())));
            }
            let Ok(mut shared) = shared.lock() else { return };
            if let Err(error) = read {
                shared.1 = Err(error);
            }
            if shared.1.is_err() {
                return;
            }
            done.iter().for_each(|(r, sums)| (shared.0)(r - rows.start, sums));
        }
    };
    let macs = rows.len() * k * which.len().max(4);
    let threads = if macs < 1 << 18 { 1 } else { std::thread::available_parallelism().map_or(1, |n| n.get()) };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    shared.into_inner().map_err(|_| "a thread of the evaluator stopped".to_owned())?.1
}

wide! {
    /// Two weight rows with every chosen row of `x`, two at a time.
    fn dots(x: &[f64], k: usize, which: &[usize], w: &[f64], out: &mut [[f64; 2]]) {
        let w = [&w[..k], &w[k..2 * k]];
        for (which, out) in which.chunks(2).zip(out.chunks_mut(2)) {
            let row = |i: usize| &x[which[i.min(which.len() - 1)] * k..][..k];
            let sums = tile(w, [row(0), row(1)]);
            out.iter_mut().zip(sums).for_each(|(out, sums)| *out = sums);
        }
    }
}

/// Dot products of each of `x` with both of `w`, in eight partial sums each, so that the processor can add several at a time.
#[inline(always)]
fn tile(w: [&[f64]; 2], x: [&[f64]; 2]) -> [[f64; 2]; 2] {
    let mut sums = [[[0.0f64; 8]; 2]; 2];
    let (w8, x8) = (w.map(|w| w.as_chunks::<8>()), x.map(|x| x.as_chunks::<8>()));
    let whole = w8[0].0.len();
    let (wa, wb, xa, xb) = (&w8[0].0[..whole], &w8[1].0[..whole], &x8[0].0[..whole], &x8[1].0[..whole]);
    for i in 0..whole {
        for lane in 0..8 {
            sums[0][0][lane] += xa[i][lane] * wa[i][lane];
            sums[0][1][lane] += xa[i][lane] * wb[i][lane];
            sums[1][0][lane] += xb[i][lane] * wa[i][lane];
            sums[1][1][lane] += xb[i][lane] * wb[i][lane];
        }
    }
    let tail = |t: usize, r: usize| x8[t].1.iter().zip(w8[r].1).map(|(a, b)| a * b).sum::<f64>();
    std::array::from_fn(|t| std::array::from_fn(|r| sums[t][r].iter().sum::<f64>() + tail(t, r)))
}
