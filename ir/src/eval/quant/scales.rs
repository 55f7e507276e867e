//! Codes of a row of weights, and the search for the scale of each group that leaves the least squared error. What the error counts may be
//! weighted by column; passing errors on to later columns is in `feedback`.

use crate::wide::wide;
use half::f16;

/// A row of a quantized type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Codes {
    /// Whole numbers: -8..=7 for 4 bits, -32..=31 for 6, -127..=127 for 8.
    pub codes: Vec<i8>,
    /// One for each group; may be negative.
    pub scales: Vec<f32>,
    /// Columns that share a scale.
    pub group: usize,
}

impl Codes {
    /// What the codes stand for.
    pub(crate) fn values(&self, out: &mut [f32]) {
        let groups = out.chunks_mut(self.group).zip(self.codes.chunks(self.group)).zip(&self.scales);
        for ((out, codes), scale) in groups {
            out.iter_mut().zip(codes).for_each(|(x, code)| *x = f32::from(*code) * scale);
        }
    }

    /// Takes codes and scales that are there, scales rounded to f16: a row of a type whose groups have as many columns.
    pub fn take(&mut self, group: usize, codes: impl ExactSizeIterator<Item = i8>, scales: impl Iterator<Item = f32>) {
        self.begin(codes.len(), group);
        self.codes.iter_mut().zip(codes).for_each(|(to, code)| *to = code);
        self.scales.extend(scales.map(half));
    }

    /// Empties it for a row of `columns` in groups of `group`; a group is no longer than the row.
    pub(super) fn begin(&mut self, columns: usize, group: usize) {
        self.group = group.min(columns).max(1);
        self.codes.clear();
        self.codes.resize(columns, 0);
        self.scales.clear();
    }
}

/// The numbers that a format can hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    /// Bits of a code: 4, 6 or 8.
    pub(super) bits: u32,
    /// Whether scales are rounded to f16.
    pub(super) half: bool,
}

impl Grid {
    /// The smallest and the largest code.
    pub(super) const fn range(self) -> (f32, f32) {
        match self.bits {
            4 => (-8.0, 7.0),
            6 => (-32.0, 31.0),
            _ => (-127.0, 127.0),
        }
    }

    /// The scale for a group; `weights` say how much an error counts in each column.
    #[inline(always)]
    pub(super) fn scale(self, part: &[f32], weights: &[f32]) -> f32 {
        let wanted = match self.bits {
            4 => searched(part, weights, self.range(), &LARGEST_OF_4),
            6 => searched(part, weights, self.range(), &LARGEST_OF_6),
            _ => largest(part).abs() / 127.0,
        };
        if self.half { half(wanted) } else { wanted }
    }
}

/// The nearest f16, the largest one for what is beyond it.
#[inline(always)]
fn half(x: f32) -> f32 {
    const MOST: f32 = 65504.0;
    let x = if x < MOST { x } else { MOST };
    f16::from_f32_const(if x > -MOST { x } else { -MOST }).to_f32_const()
}

wide! {
    /// Quantizes a row in groups of `group` columns.
    pub(super) fn quantize(row: &[f32], group: usize, grid: Grid, out: &mut Codes) {
        out.begin(row.len(), group);
        let Codes { codes, scales, group } = out;
        let (low, high) = grid.range();
        for (part, codes) in row.chunks(*group).zip(codes.chunks_mut(*group)) {
            let scale = grid.scale(part, &ONES[..part.len().min(ONES.len())]);
            scales.push(scale);
            let inverse = inverse(scale);
            for (code, x) in codes.iter_mut().zip(part) {
                *code = encode(x * inverse, low, high);
            }
        }
    }
}

/// Weights of columns that count alike; no group whose scale is searched is longer.
const ONES: [f32; 128] = [1.0; 128];

/// 1 over a scale, 0 for 0.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Candidates that are tried at a time, one in each lane.
const TRIES: usize = 8;

/// Codes of 4 bits that the largest element of a group may get. It gets a negative one, because there is one more of them; above 8 it is cut off.
/// More candidates lower the squared error by less than a thousandth, on normal, on Laplace and on trained weights.
const LARGEST_OF_4: [f32; TRIES] = [6.8, 7.2, 7.5, 7.8, 8.1, 8.4, 8.8, 9.4];

/// The same of 6 bits, cut off above 32.
const LARGEST_OF_6: [f32; TRIES] = [29.5, 30.2, 30.8, 31.3, 31.8, 32.3, 32.8, 33.6];

/// The scale with the least squared error among those that least squares gives for the codes of each candidate.
#[inline(always)]
fn searched(part: &[f32], weights: &[f32], (low, high): (f32, f32), tries: &[f32; TRIES]) -> f32 {
    let most = largest(part);
    if most == 0.0 || !most.is_finite() {
        return most;
    }
    let inverse = tries.map(|code| -code / most);
    let (mut xq, mut qq) = ([0.0f32; TRIES], [0.0f32; TRIES]);
    for (x, w) in part.iter().zip(weights) {
        for i in 0..TRIES {
            let q = nearest(x * inverse[i], low, high);
            let wq = w * q;
            xq[i] += x * wq;
            qq[i] += q * wq;
        }
    }
    // The error is |x|^2 - (x.q)^2 / |q|^2. Weights of zero leave nothing to compare.
    let fits: [f32; TRIES] = std::array::from_fn(|i| xq[i] / qq[i]);
    let gains: [f32; TRIES] = std::array::from_fn(|i| xq[i] * fits[i]);
    let (mut best, mut scale) = (0.0, most / low);
    for (gain, fit) in gains.into_iter().zip(fits) {
        let better = gain > best;
        best = if better { gain } else { best };
        scale = if better { fit } else { scale };
    }
    scale
}

/// Chains in which the largest element is looked for.
const LANES: usize = 16;

/// The element that is furthest from zero.
#[inline(always)]
fn largest(part: &[f32]) -> f32 {
    let (mut low, mut high) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut take = |i: usize, x: f32| {
        low[i] = if x < low[i] { x } else { low[i] };
        high[i] = if x > high[i] { x } else { high[i] };
    };
    let (whole, rest) = part.as_chunks::<LANES>();
    for x in whole {
        (0..LANES).for_each(|i| take(i, x[i]));
    }
    rest.iter().enumerate().for_each(|(i, x)| take(i, *x));
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            low[i] = if low[i + width] < low[i] { low[i + width] } else { low[i] };
            high[i] = if high[i + width] > high[i] { high[i + width] } else { high[i] };
        }
        width /= 2;
    }
    if -low[0] > high[0] { low[0] } else { high[0] }
}

/// 1.5 * 2^23: adding it rounds a small number, ties to even, and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// The nearest whole number within bounds.
#[inline(always)]
pub(super) fn nearest(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    let x = if x < high { x } else { high };
    (x + ROUND) - ROUND
}

/// As [`nearest`], as a code.
#[inline(always)]
pub(super) fn encode(x: f32, low: f32, high: f32) -> i8 {
    let x = if x > low { x } else { low };
    let x = if x < high { x } else { high };
    (x + ROUND).to_bits() as i8
}
