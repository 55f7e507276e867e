//! Codes of a row of weights, and the search for the scale of each group that leaves the least squared error.

use half::f16;

/// A row of a quantized type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Codes {
    /// Whole numbers: -8..=7 for 4 bits, -127..=127 for 8.
    pub codes: Vec<i8>,
    /// One for each group; may be negative.
    pub scales: Vec<f32>,
    /// Columns that share a scale.
    pub group: usize,
}

impl Codes {
    /// What the codes stand for.
    pub(super) fn values(&self, out: &mut [f32]) {
        let groups = out.chunks_mut(self.group).zip(self.codes.chunks(self.group)).zip(&self.scales);
        for ((out, codes), scale) in groups {
            out.iter_mut().zip(codes).for_each(|(x, code)| *x = f32::from(*code) * scale);
        }
    }
}

/// Quantizes a row in groups of `group` columns.
pub(super) fn quantize(row: &[f32], group: usize, bits: u32, half: bool, out: &mut Codes) {
    let group = group.min(row.len()).max(1);
    out.group = group;
    out.codes.clear();
    out.scales.clear();
    for part in row.chunks(group) {
        let wanted = if bits == 4 { four_bits(part) } else { largest(part).abs() / 127.0 };
        let scale = if half { f16::from_f32(wanted.clamp(-MOST, MOST)).to_f32() } else { wanted };
        let (low, high) = if bits == 4 { (-8.0, 7.0) } else { (-127.0, 127.0) };
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        out.scales.push(scale);
        out.codes.extend(part.iter().map(|x| nearest(x * inverse, low, high) as i8));
    }
}

/// The largest f16.
const MOST: f32 = 65504.0;

/// Codes that the largest element of a group may get. It gets a negative one, because there is one more of them; above 8 it is cut off.
const LARGEST: [f32; 10] = [6.6, 7.0, 7.3, 7.6, 7.8, 8.0, 8.2, 8.5, 8.9, 9.4];

/// The scale with the least squared error among those that least squares gives for the codes of each candidate.
fn four_bits(part: &[f32]) -> f32 {
    let most = largest(part);
    if most == 0.0 || !most.is_finite() {
        return most;
    }
    let (mut best, mut scale) = (0.0, -most / 8.0);
    for code in LARGEST {
        let (xq, qq) = fit(part, -code / most);
        // The error is |x|^2 - (x.q)^2 / |q|^2.
        if xq * xq > best * qq {
            (best, scale) = (xq * xq / qq, xq / qq);
        }
    }
    scale
}

/// The element that is furthest from zero.
fn largest(part: &[f32]) -> f32 {
    let (mut low, mut high) = ([0.0f32; LANES], [0.0f32; LANES]);
    for x in part.chunks(LANES) {
        for (i, x) in x.iter().enumerate() {
            low[i] = if *x < low[i] { *x } else { low[i] };
            high[i] = if *x > high[i] { *x } else { high[i] };
        }
    }
    let (low, high) = (low.into_iter().fold(0.0, f32::min), high.into_iter().fold(0.0, f32::max));
    if -low > high { low } else { high }
}

/// Sums go in this many chains, so that the processor can add several at a time.
const LANES: usize = 16;

/// `x.q` and `|q|^2` of the codes `q` of `part * inverse`.
fn fit(part: &[f32], inverse: f32) -> (f32, f32) {
    let (mut xq, mut qq) = ([0.0f32; LANES], [0.0f32; LANES]);
    let mut one = |i: usize, x: f32| {
        let q = nearest(x * inverse, -8.0, 7.0);
        xq[i] += x * q;
        qq[i] += q * q;
    };
    let (whole, rest) = part.as_chunks::<LANES>();
    for x in whole {
        (0..LANES).for_each(|i| one(i, x[i]));
    }
    rest.iter().enumerate().for_each(|(i, x)| one(i, *x));
    (xq.iter().sum(), qq.iter().sum())
}

/// The nearest whole number within bounds, ties to even. Adding and taking away 1.5 * 2^23 rounds numbers this small without a call.
fn nearest(x: f32, low: f32, high: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = if x > low { x } else { low };
    let x = if x < high { x } else { high };
    (x + ROUND) - ROUND
}
