//! Quantizing with regard to what a weight is multiplied with: the error of a column is passed on to the columns behind it, so that the error of
//! the *product* is small, not that of the weight. After "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
//! (Frantar et al., 2022), in blocks of columns: `H` below is block-diagonal.
//!
//! With `H` the second moments of the input and `U` upper triangular with `transpose(U) U = inverse(H)`: column `c` gets the nearest code of
//! what it is by now, and its error times `U[c][j] / U[c][c]` is taken from every column `j` behind it in the block. Scales are searched when
//! their group is reached, with column `c` counting `1 / U[c][c]^2`: what an error costs once later columns have made up for it.

use super::scales::{Codes, Grid, encode, inverse};
use crate::wide::wide;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Columns of a block: moments are known within it.
pub const BLOCK: usize = 256;

/// What is added to the diagonal of `H`, times its mean. Enough for a few hundred tokens, and no loss for thousands.
const DAMPING: f64 = 0.1;

/// Second moments of what a weight is multiplied with.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Elements of an input row.
    pub columns: usize,
    /// `[experts, columns, BLOCK]`, one expert for a weight without experts: the mean of `x[c] * x[c / BLOCK * BLOCK + j]`. Only the upper triangle of each block is read.
    pub data: Vec<f32>,
}

impl Moments {
    /// How many experts it is about.
    pub fn experts(&self) -> usize {
        self.data.len() / (self.columns * BLOCK).max(1)
    }

    /// How much an error in each column of a row of expert `expert` counts: the mean square of the input there.
    pub fn squares(&self, expert: usize) -> impl Iterator<Item = f32> + '_ {
        let all = &self.data[expert * self.columns * BLOCK..][..self.columns * BLOCK];
        all.chunks_exact(BLOCK).enumerate().map(|(c, row)| row[c % BLOCK])
    }
}

impl Moments {
    /// `transpose(d) H d` for a row `d` of differences of weights of an expert: the mean square of what it changes in the product.
    pub fn square(&self, d: &[f32], expert: usize) -> f64 {
        square(d, &self.data[expert * self.columns * BLOCK..])
    }
}

wide! {
    fn square(d: &[f32], h: &[f32]) -> f64 {
        let mut sum = 0.0f64;
        for (c, (x, h)) in d.iter().zip(h.chunks_exact(BLOCK)).enumerate() {
            let first = c / BLOCK * BLOCK;
            let behind = &d[c + 1..(first + BLOCK).min(d.len())];
            let mut lanes = [0.0f32; 8];
            let (whole, rest) = behind.as_chunks::<8>();
            let (h_whole, h_rest) = h[c - first + 1..].split_at(whole.len() * 8);
            for (d, h) in whole.iter().zip(h_whole.as_chunks::<8>().0) {
                (0..8).for_each(|i| lanes[i] += d[i] * h[i]);
            }
            let others = lanes.iter().sum::<f32>() + rest.iter().zip(h_rest).map(|(d, h)| d * h).sum::<f32>();
            sum += f64::from(*x) * (f64::from(*x) * f64::from(h[c - first]) + 2.0 * f64::from(others));
        }
        sum
    }
}

/// How errors are passed on, worked out from [`Moments`].
pub struct Feedback {
    experts: Vec<Passing>,
}

/// That of one expert.
struct Passing {
    /// `U[c][j] / U[c][c]`, `[columns, BLOCK]`.
    factors: Vec<f32>,
    /// `1 / U[c][c]^2`.
    weights: Vec<f32>,
}

impl Feedback {
    /// Factors every block, on all cores.
    pub fn new(moments: &Moments) -> Feedback {
        let (blocks, columns) = (moments.columns.div_ceil(BLOCK), moments.columns);
        let jobs: Vec<Mutex<Passing>> =
            (0..moments.experts() * blocks).map(|_| Mutex::new(Passing { factors: vec![], weights: vec![] })).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(i) else { return };
                let (expert, first) = (i / blocks, i % blocks * BLOCK);
                let width = BLOCK.min(columns - first);
                let block = &moments.data[(expert * columns + first) * BLOCK..][..width * BLOCK];
                *job.lock().unwrap_or_else(PoisonError::into_inner) = passing(block, width);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(jobs.len());
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let mut done = jobs.into_iter().map(|job| job.into_inner().unwrap_or_else(PoisonError::into_inner));
        let expert = |_| {
            let mut all = Passing { factors: vec![], weights: vec![] };
            for part in done.by_ref().take(blocks) {
                all.factors.extend(part.factors);
                all.weights.extend(part.weights);
            }
            all
        };
        Feedback { experts: (0..moments.experts()).map(expert).collect() }
    }

    /// How many experts it is about.
    pub fn experts(&self) -> usize {
        self.experts.len()
    }

    /// Quantizes a row of an expert; what is left in `row` is what its columns were when they were rounded.
    pub(super) fn quantize(&self, row: &mut [f32], expert: usize, group: usize, grid: Grid, out: &mut Codes) {
        out.begin(row.len(), group);
        let Passing { factors, weights } = &self.experts[expert];
        pass_on(row, factors, weights, grid, out);
    }
}

wide! {
    fn pass_on(row: &mut [f32], factors: &[f32], weights: &[f32], grid: Grid, out: &mut Codes) {
        let (low, high) = grid.range();
        let (columns, group) = (row.len(), out.group);
        for first in (0..columns).step_by(group) {
            let end = (first + group).min(columns);
            let scale = grid.scale(&row[first..end], &weights[first..end]);
            let inverse = inverse(scale);
            out.scales.push(scale);
            for c in first..end {
                let code = encode(row[c] * inverse, low, high);
                out.codes[c] = code;
                let error = row[c] - f32::from(code) * scale;
                let behind = (c / BLOCK * BLOCK + BLOCK).min(columns);
                let by = &factors[c * BLOCK..][c % BLOCK + 1..];
                for (x, by) in row[c + 1..behind].iter_mut().zip(by) {
                    *x -= error * by;
                }
            }
        }
    }
}

/// Factors of one block `[width, BLOCK]`, of which the upper triangle is read.
fn passing(block: &[f32], width: usize) -> Passing {
    let mean = (0..width).map(|c| f64::from(block[c * BLOCK + c])).sum::<f64>() / width as f64;
    let mut h = vec![0.0f64; width * width];
    for c in 0..width {
        if mean.is_finite() && mean > 0.0 {
            h[c * width + c..(c + 1) * width].iter_mut().zip(&block[c * BLOCK + c..]).for_each(|(h, x)| *h = f64::from(*x));
            h[c * width + c] += DAMPING * mean;
        } else {
            // Nothing is known of the input.
            h[c * width + c] = 1.0;
        }
    }
    let floor = if mean > 0.0 { DAMPING * mean * 1e-3 } else { 1.0 };
    let u = inverse_root(h, width, floor);
    let mut out = Passing { factors: vec![0.0; width * BLOCK], weights: Vec::with_capacity(width) };
    for c in 0..width {
        let diagonal = u[c * width + c];
        out.weights.push((1.0 / (diagonal * diagonal)) as f32);
        let behind = out.factors[c * BLOCK + c + 1..][..width - c - 1].iter_mut();
        behind.zip(&u[c * width + c + 1..]).for_each(|(f, u)| *f = (u / diagonal) as f32);
    }
    out
}

wide! {
    /// Upper triangular `U` with `transpose(U) U = inverse(H)`, of the upper triangle of `H`; pivots below `floor` are raised to it.
    fn inverse_root(h: Vec<f64>, n: usize, floor: f64) -> Vec<f64> {
        let mut h = h;
        // H = R transpose(R) with R upper triangular, from the last column to the first; then U = inverse(R).
        let mut column = vec![0.0f64; n];
        for j in (0..n).rev() {
            let pivot = h[j * n + j];
            let root = (if pivot > floor { pivot } else { floor }).sqrt();
            for i in 0..j {
                column[i] = h[i * n + j] / root;
                h[i * n + j] = column[i];
            }
            h[j * n + j] = root;
            for i in 0..j {
                let by = column[i];
                for (x, c) in h[i * n + i..i * n + j].iter_mut().zip(&column[i..j]) {
                    *x -= by * c;
                }
            }
        }
        let mut u = vec![0.0f64; n * n];
        for i in (0..n).rev() {
            let (upper, lower) = u.split_at_mut((i + 1) * n);
            let row = &mut upper[i * n..];
            for k in i + 1..n {
                let by = h[i * n + k];
                for (x, u) in row[k..].iter_mut().zip(&lower[(k - i - 1) * n + k..(k - i) * n]) {
                    *x += by * u;
                }
            }
            let root = h[i * n + i];
            for x in &mut row[i + 1..] {
                *x = -*x / root;
            }
            row[i] = 1.0 / root;
        }
        u
    }
}

#[cfg(test)]
#[path = "feedback_tests.rs"]
mod tests;
