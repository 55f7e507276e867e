//! Arithmetic of element types: what rounding to a type does to a row of f32. The facts about the types are in `dtype`.

use crate::dtype::DType;
use half::{bf16, f16};

/// Rounds a row to what `dtype` can hold, to nearest, ties to even.
///
/// # Errors
/// `dtype` has no arithmetic. An empty row asks whether it has.
pub fn round(dtype: DType, row: &mut [f32]) -> Result<(), String> {
    match dtype {
        DType::F32 => {}
        DType::F16 => row.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
        DType::Bf16 => row.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        DType::F8E4m3 | DType::Q8 | DType::Q8G32 | DType::Q4G32 | DType::Q4G64 | DType::Q4G128 => {
            return Err(format!("found a cast to {dtype}, expected one to f32, f16 or bf16: {dtype} has no arithmetic here"));
        }
        DType::I64 | DType::I32 | DType::I8 | DType::Bool => {
            return Err(format!("found a cast to {dtype}, expected a type of real numbers"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_with_ties_to_even() {
        // bf16 has 8 bits of mantissa, f16 has 11: halfway cases above 1.
        let mut row = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0 + 1.1 / 256.0];
        round(DType::Bf16, &mut row).unwrap();
        assert_eq!(row, [1.0, 1.0 + 4.0 / 256.0, 1.0 + 2.0 / 256.0]);
        let mut row = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 70000.0];
        round(DType::F16, &mut row).unwrap();
        assert_eq!(row, [1.0, 1.0 + 4.0 / 2048.0, f32::INFINITY]);
        let mut row = [0.1];
        round(DType::F32, &mut row).unwrap();
        assert_eq!(row, [0.1]);
    }

    #[test]
    fn types_without_arithmetic_are_named() {
        assert!(round(DType::Q4G32, &mut []).unwrap_err().contains("q4g32"));
        assert!(round(DType::I32, &mut []).unwrap_err().contains("i32"));
    }
}
