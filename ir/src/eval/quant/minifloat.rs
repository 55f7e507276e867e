//! Floats of 8 and 4 bits: rounding to them. Their codes are made where files are read and written.

use crate::dtype::DType;

/// What is added to the exponent of a power of two for its code.
const BIAS: i32 = 127;

/// The power of two that is not less than a number, its sign left out, in exponents of f32; ones behind the largest are NaN, or the largest if
/// `saturate`. Source: `to_float8e8m0` of the ONNX package, mode `up`.
fn power(x: f64, saturate: bool) -> f64 {
    let least = decode(DType::F8E8m0, 0);
    if x == least {
        // It has a code, though f32 has it as a fraction of the next one.
        return least;
    }
    let bits = (x as f32).to_bits();
    let (exponent, part) = ((bits >> 23 & 0xff) as i32, bits & 0x7f_ffff);
    let up = part > 0 && exponent < 0xff && !(saturate && exponent == 0xfe);
    decode(DType::F8E8m0, (exponent + i32::from(up)) as u8)
}

/// Mantissa bits, exponent of the smallest normal number, largest number, whether there is an infinity, whether there is a zero with a sign.
fn facts(dtype: DType) -> Option<(i32, i32, f64, bool, bool)> {
    Some(match dtype {
        DType::F8E4m3 => (3, -6, 448.0, false, true),
        DType::F8E5m2 => (2, -14, 57344.0, true, true),
        DType::F8E4m3fnuz => (3, -7, 240.0, false, false),
        DType::F8E5m2fnuz => (2, -15, 57344.0, false, false),
        DType::F4E2m1 => (1, 0, 6.0, false, true),
        _ => return None,
    })
}

/// The nearest number of a small float type, ties to even; any other type: the number itself. What is larger than the largest number becomes it if
/// `saturate`, else infinity where the type has one, else NaN. Source: the table of `Cast` in the ONNX specification.
pub fn round(dtype: DType, x: f64, saturate: bool) -> f64 {
    if dtype == DType::F8E8m0 {
        return power(x, saturate);
    }
    let Some((mantissa, least, most, infinite, signed_zero)) = facts(dtype) else { return x };
    if x.is_nan() {
        return x;
    }
    let size = x.abs();
    let exponent = if size == 0.0 || size.is_infinite() { least } else { (size.log2().floor() as i32).max(least) };
    let step = f64::powi(2.0, exponent - mantissa);
    let rounded = (size / step).round_ties_even() * step;
    let kept = match rounded <= most {
        true => rounded,
        // Four bits have neither infinity nor NaN.
        false if saturate || dtype == DType::F4E2m1 => most,
        false if infinite => f64::INFINITY,
        false => f64::NAN,
    };
    if kept == 0.0 && !signed_zero { 0.0 } else { kept.copysign(x) }
}

/// The code of a number that [`round`] gives, in the lowest bits.
pub fn encode(dtype: DType, x: f64) -> u8 {
    if dtype == DType::F8E8m0 {
        return if x.is_nan() { 0xff } else { (x.log2().round() as i32 + BIAS).clamp(0, 0xfe) as u8 };
    }
    let Some((mantissa, least, _, infinite, signed_zero)) = facts(dtype) else { return 0 };
    let bits = dtype.info().bits as i32;
    let sign = if x.is_sign_negative() { 1u8 << (bits - 1) } else { 0 };
    if x.is_nan() {
        return match (signed_zero, dtype) {
            (false, _) => 0x80,
            (true, DType::F4E2m1) => 0,
            (true, _) => sign | 0x7f,
        };
    }
    let size = x.abs();
    if size.is_infinite() {
        return sign | if infinite { 0x7c } else { 0x7f };
    }
    if size == 0.0 {
        return if signed_zero { sign } else { 0 };
    }
    let exponent = (size.log2().floor() as i32).max(least);
    let steps = (size / f64::powi(2.0, exponent - mantissa)) as i32;
    // A subnormal number has no leading one, and exponent code 0.
    let code = if steps < 1 << mantissa { steps } else { ((exponent - least + 1) << mantissa) + steps - (1 << mantissa) };
    sign | code as u8
}

/// The number of a code.
pub fn decode(dtype: DType, code: u8) -> f64 {
    if dtype == DType::F8E8m0 {
        return if code == 0xff { f64::NAN } else { f64::powi(2.0, i32::from(code) - BIAS) };
    }
    let Some((mantissa, least, most, infinite, signed_zero)) = facts(dtype) else { return 0.0 };
    let top = 1u8 << (dtype.info().bits - 1);
    if !signed_zero && code == top {
        return f64::NAN;
    }
    let (sign, rest) = (if code & top == 0 { 1.0 } else { -1.0 }, i32::from(code & (top - 1)));
    let (exponent, part) = (rest >> mantissa, rest & ((1 << mantissa) - 1));
    let size = match exponent {
        0 => f64::from(part) * f64::powi(2.0, least - mantissa),
        _ => f64::from(part + (1 << mantissa)) * f64::powi(2.0, least + exponent - 1 - mantissa),
    };
    match size > most {
        false => sign * size,
        true if infinite && part == 0 => sign * f64::INFINITY,
        true => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: [DType; 6] = [DType::F8E4m3, DType::F8E5m2, DType::F8E4m3fnuz, DType::F8E5m2fnuz, DType::F4E2m1, DType::F8E8m0];

    #[test]
    fn every_code_is_a_number_that_stays_what_it_is() {
        for dtype in TYPES {
            for code in 0..=((1u32 << dtype.info().bits) - 1) as u8 {
                let x = decode(dtype, code);
                let again = round(dtype, x, false);
                assert!(again == x || x.is_nan() && again.is_nan(), "{dtype} {code:#x}: {x} became {again}");
                if !x.is_nan() {
                    assert_eq!(encode(dtype, x), code, "{dtype}: {x}");
                }
            }
        }
    }

    #[test]
    fn numbers_between_go_to_the_nearest_and_large_ones_as_asked() {
        assert_eq!(round(DType::F8E4m3, 17.0, true), 16.0);
        assert_eq!(round(DType::F8E4m3, 19.0, true), 20.0);
        assert_eq!(round(DType::F8E4m3, 1e6, true), 448.0);
        assert!(round(DType::F8E4m3, -1e6, false).is_nan());
        assert_eq!(round(DType::F8E5m2, -1e6, false), f64::NEG_INFINITY);
        assert_eq!(round(DType::F8E5m2fnuz, 1e6, true), 57344.0);
        assert_eq!(round(DType::F4E2m1, 2.5, true), 2.0);
        assert!(round(DType::F8E4m3fnuz, -1e-9, true).is_sign_positive());
        let power = |x: f64| round(DType::F8E8m0, x, true);
        assert_eq!([1.0, 1.25, -3.0, 0.0].map(power), [1.0, 2.0, 4.0, f64::powi(2.0, -127)]);
        let largest = f64::from(f32::MAX);
        assert_eq!(power(largest), f64::powi(2.0, 127));
        assert!(round(DType::F8E8m0, largest, false).is_nan() && power(f64::INFINITY).is_nan());
        assert_eq!((decode(DType::F8E4m3, 0x38), decode(DType::F8E5m2, 0x3c), decode(DType::F8E4m3fnuz, 0x40)), (1.0, 1.0, 1.0));
    }
}
