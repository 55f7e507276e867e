//! Comparing logits: differences, distributions, the best token. All sums are in f64.

pub use llamac_runtime::verify::difference;

/// Natural logarithm of the softmax.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.iter().map(|&x| f64::from(x - max) - sum.ln()).collect()
}

/// Kullback-Leibler divergence of the distribution of `found` from that of `expected`, in nats.
pub fn divergence(found: &[f32], expected: &[f32]) -> f64 {
    let (q, p) = (log_softmax(found), log_softmax(expected));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// Index of the largest logit, the first of equals.
///
/// # Panics
/// If there is none.
pub fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().reduce(|a, b| if b.1 > a.1 { b } else { a });
    u32::try_from(best.expect("logits").0).expect("a token id")
}

/// The middle value.
///
/// # Panics
/// If there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The bits of floats: equal only if nothing differs, not even the sign of a zero.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_does_not_diverge_from_itself_nor_from_a_shifted_one() {
        let p = [0.3, -1.0, 2.0];
        assert!(divergence(&p, &p).abs() < 1e-12);
        assert!(divergence(&p.map(|x| x + 10.0), &p).abs() < 1e-6);
        assert!(divergence(&[2.0, 0.3, -1.0], &p) > 0.1);
        assert_eq!(argmax(&[1.0, 2.0, 2.0]), 1);
    }
}
