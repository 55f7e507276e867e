//! Elements of a file as f32. Bytes need no alignment: headers of any length occur.

use half::f16;
use llamac_ir::dtype::DType;

/// Widens little-endian `bytes` of a floating-point type to f32, exactly. `bytes` may hold more than `out` takes.
/// Returns false if the type is none of f32, f16, bf16, or if there are too few bytes.
pub fn widen(dtype: DType, bytes: &[u8], out: &mut [f32]) -> bool {
    match dtype {
        DType::F32 if bytes.len() / 4 >= out.len() => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *x = f32::from_le_bytes(*b);
            }
        }
        DType::Bf16 if bytes.len() / 2 >= out.len() => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *x = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        DType::F16 if bytes.len() / 2 >= out.len() => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *x = f16::from_le_bytes(*b).to_f32();
            }
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn every_sixteen_bit_pattern_widens_to_its_value() {
        for bits in 0..=u16::MAX {
            let mut out = [0.0];
            assert!(widen(DType::Bf16, &bits.to_le_bytes(), &mut out));
            assert_eq!(out[0].to_bits(), u32::from(bits) << 16);
            assert!(bf16::from_bits(bits).is_nan() || out[0] == bf16::from_bits(bits).to_f32());
            assert!(widen(DType::F16, &bits.to_le_bytes(), &mut out));
            assert!(f16::from_bits(bits).is_nan() || out[0] == f16::from_bits(bits).to_f32());
        }
    }

    #[test]
    fn other_types_and_short_input_are_refused() {
        assert!(!widen(DType::I32, &[0; 8], &mut [0.0]));
        assert!(!widen(DType::F32, &[0; 7], &mut [0.0; 2]));
    }
}
