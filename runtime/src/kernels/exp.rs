//! The exponential function of attention: one polynomial for every instruction set, here for one number and as constants for vectors.

/// 1 / ln 2.
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// Added to and taken from a number, leaves it rounded to an integer; the integer stands in the low bits of the sum.
pub(super) const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts, so that `n * LN2_HIGH` is exact for every exponent `n`.
pub(super) const LN2_HIGH: f32 = 0.692_382_8;
/// See [`LN2_HIGH`].
pub(super) const LN2_LOW: f32 = 0.000_764_368_04;
/// `(e^r - 1 - r) / r^2` for `|r| <= ln(2) / 2`, weighted least squares towards the minimax of the relative error of `e^r` (3e-9).
pub(super) const POLY: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_718, 0.001_381_459_4];
/// Below this the result is 0: there are no subnormal results.
pub(super) const LOWEST: f32 = -87.0;

/// `e^x` for `x <= 0`, within 2e-7 of the true value, exactly 1 at 0 and exactly 0 below -87.
pub(super) fn exp(x: f32) -> f32 {
    // Not `x < LOWEST`: a NaN stays one.
    if x < LOWEST {
        return 0.0;
    }
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let q = POLY.iter().rev().fold(0.0, |q, c| q * r + c);
    let p = q * r * r + r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn the_exponential_is_accurate_to_two_units() {
        for i in 0..=870_000u32 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2e-7, "{x}: {} {exact}", exp(x));
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }
}
