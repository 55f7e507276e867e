//! The exponential function of attention: one polynomial for every instruction set, here for one number and as constants for vectors. It is
//! a power of two: factors on scores take the logarithm of 2 in, which spares a product and the reduction of the argument in two parts.

/// 1 / ln 2.
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// Added to and taken from a number, leaves it rounded to an integer; the integer stands in the low bits of the sum.
pub(super) const ROUND: f32 = 12_582_912.0;
/// `(2^r - 1) / r` for `|r| <= 1/2`, least squares weighted towards the minimax of the relative error of `2^r` (9.2e-8).
#[expect(clippy::approx_constant, reason = "a fit, not the logarithm")]
pub(super) const POLY: [f32; 5] = [0.693_147, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];
/// Below this the result is 0: there are no subnormal results.
pub(super) const LOWEST: f32 = -125.0;

/// `2^x` for `x <= 0`, within 2e-7 of the true value, exactly 1 at 0 and exactly 0 below -125.
pub(super) fn exp2(x: f32) -> f32 {
    // Not `x < LOWEST`: a NaN stays one.
    if x < LOWEST {
        return 0.0;
    }
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let p = POLY.iter().rev().fold(0.0, |q, c| q * r + c) * r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::exp2;

    #[test]
    fn the_exponential_is_accurate_to_two_units() {
        for i in 0..=1_250_000u32 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp2();
            assert!((f64::from(exp2(x)) / exact - 1.0).abs() < 2e-7, "{x}: {} {exact}", exp2(x));
        }
        assert_eq!((exp2(0.0), exp2(-126.0), exp2(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp2(f32::NAN).is_nan());
    }
}
