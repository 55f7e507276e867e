//! Arithmetic of element types: what rounding to a type does to a row of f32. The facts about the types are in `dtype`, the choice of
//! scales in `scales`.

mod feedback;
pub mod minifloat;
mod moments;
mod scales;

use crate::dtype::DType;
use half::{bf16, f16};

pub use feedback::{BLOCK, Feedback, Moments};
pub use moments::MomentSums;
pub use scales::Codes;
use scales::Grid;

/// Columns that share a scale when the input of a product is rounded to int8.
pub const ACT_GROUP: usize = 256;

/// Rounds a row to what `dtype` can hold, to nearest, ties to even; a quantized type with the scales that [`quantize`] chooses.
///
/// # Errors
/// `dtype` has no arithmetic. An empty row asks whether it has.
pub fn round(dtype: DType, row: &mut [f32]) -> Result<(), String> {
    match dtype {
        DType::F32 | DType::F64 => {}
        DType::F16 => row.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
        DType::Bf16 => row.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        DType::Q8 | DType::Q8G32 | DType::Q4G32 | DType::Q4G64 | DType::Q4G128 | DType::Q6G32 => {
            let mut codes = Codes::default();
            quantize(dtype, row, &mut codes)?;
            codes.values(row);
        }
        DType::F8E4m3 => return Err(format!("found a cast to {dtype}, expected another type: {dtype} has no arithmetic here")),
        DType::F8E5m2 | DType::F8E4m3fnuz | DType::F8E5m2fnuz | DType::F8E8m0 | DType::F4E2m1 => {
            row.iter_mut().for_each(|x| *x = minifloat::round(dtype, f64::from(*x), true) as f32);
        }
        _ => return Err(format!("found a cast to {dtype}, expected a type of real numbers")),
    }
    Ok(())
}

/// Codes and scales of a row in a quantized type. Every element is `code * scale` of its group, in f32; groups count from column 0 and the
/// last one may be short. Scales are f16 for groups and f32 for a whole row.
///
/// # Errors
/// `dtype` is not quantized.
pub fn quantize(dtype: DType, row: &[f32], out: &mut Codes) -> Result<(), String> {
    let (group, grid) = grid(dtype)?;
    scales::quantize(row, group, grid, out);
    Ok(())
}

/// As [`quantize`], of a row of an expert (0 for a weight without experts), with regard to what it is multiplied with. `row` is used up.
///
/// # Errors
/// As [`quantize`].
///
/// # Panics
/// There is no such expert, or the row has another length than the moments.
pub fn quantize_for(dtype: DType, row: &mut [f32], expert: usize, feedback: &Feedback, out: &mut Codes) -> Result<(), String> {
    let (group, grid) = grid(dtype)?;
    feedback.quantize(row, expert, group, grid, out);
    Ok(())
}

/// As [`round`] to a quantized type, with the codes of [`quantize_for`].
///
/// # Errors
/// As [`quantize`].
pub fn round_for(dtype: DType, row: &mut [f32], expert: usize, feedback: &Feedback) -> Result<(), String> {
    let mut codes = Codes::default();
    quantize_for(dtype, row, expert, feedback, &mut codes)?;
    codes.values(row);
    Ok(())
}

fn grid(dtype: DType) -> Result<(usize, Grid), String> {
    let info = dtype.info();
    match (info.scale, info.bits) {
        (Some(scale), 4 | 6 | 8) => Ok((info.group as usize, Grid { bits: info.bits, half: scale == DType::F16 })),
        _ => Err(format!("found {dtype}, expected a quantized type")),
    }
}

/// Rounds the input of a product, one row, to `act`. For int8: `scale = max |x| / 127` of each group of [`ACT_GROUP`] columns,
/// `code = x / scale` to nearest even.
///
/// # Errors
/// As [`round`].
pub fn round_input(act: DType, row: &mut [f32]) -> Result<(), String> {
    if act != DType::I8 {
        return round(act, row);
    }
    row.chunks_mut(ACT_GROUP).for_each(to_steps);
    Ok(())
}

/// Rounds K or V of one head of one position to `kv`. For int8: as [`round_input`], the whole head is one group.
///
/// # Errors
/// As [`round`].
pub fn round_head(kv: DType, head: &mut [f32]) -> Result<(), String> {
    if kv != DType::I8 {
        return round(kv, head);
    }
    to_steps(head);
    Ok(())
}

/// 127 steps each way, the last one at the greatest magnitude of the group.
fn to_steps(group: &mut [f32]) {
    let scale = group.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
    let code = |x: f32| if scale == 0.0 { 0.0 } else { (x / scale).round_ties_even().clamp(-127.0, 127.0) };
    group.iter_mut().for_each(|x| *x = code(*x) * scale);
}

#[cfg(test)]
#[path = "quant/quant_tests.rs"]
mod tests;
