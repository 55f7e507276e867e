//! The generic twins: dots and embedding rows of the integer formats in plain Rust, one element at a time.

use crate::abi::{DotArgs, GatherArgs, ROWS};
use crate::format::{ACT_GROUP, I8Row, Q4G32, Q4G64, Q4G128, Q6G32, Q8, Q8G32, WeightFormat};

/// Where a format keeps its codes and scales inside a block.
trait Packed {
    const FORMAT: WeightFormat;
    /// Columns that share a scale, or that are summed before anything is scaled.
    const GROUP: usize;
    /// The code of row `r` and column `k`.
    ///
    /// # Safety
    /// `block` is a whole block, `k` a column of it.
    unsafe fn code(block: *const u8, r: usize, k: usize) -> i32;
    /// The scale of a group of row `r`.
    ///
    /// # Safety
    /// As for `code`.
    unsafe fn scale(block: *const u8, r: usize, group: usize) -> f32 {
        // SAFETY: the last line of a unit has 16 scales for each of its two groups.
        unsafe {
            let line = block.add((group / 2 + 1) * Self::FORMAT.unit_bytes - 64);
            from_f16(line.cast::<u16>().add(group % 2 * ROWS + r).read_unaligned())
        }
    }
    /// The scale of row `r`; `k` is the length of a row.
    ///
    /// # Safety
    /// As for `code`.
    unsafe fn row_scale(_block: *const u8, _k: usize, _r: usize) -> f32 {
        1.0
    }
}

/// int4 in groups of `G`.
struct Four<const G: usize>;

impl<const G: usize> Packed for Four<G> {
    const FORMAT: WeightFormat = match G {
        32 => Q4G32,
        64 => Q4G64,
        _ => Q4G128,
    };
    const GROUP: usize = G;
    unsafe fn code(block: *const u8, r: usize, k: usize) -> i32 {
        let (group, i) = (k / G, k % G);
        let line = group / 2 * Self::FORMAT.unit_bytes + (group % 2 * (G / 8) + i / 8) * 64;
        // SAFETY: the caller's promise.
        let byte = unsafe { *block.add(line + 4 * r + i % 4) };
        i32::from(if i % 8 < 4 { byte & 15 } else { byte >> 4 }) - 8
    }
}

/// int6 in groups of 32.
struct Six;

impl Packed for Six {
    const FORMAT: WeightFormat = Q6G32;
    const GROUP: usize = 32;
    unsafe fn code(block: *const u8, r: usize, k: usize) -> i32 {
        let (group, i) = (k / 32, k % 32);
        let first = group / 2 * Q6G32.unit_bytes + group % 2 * 6 * 64 + 4 * r + i % 4;
        // SAFETY: the caller's promise.
        let (low, high) = unsafe { (*block.add(first + i / 8 * 64), *block.add(first + (4 + i / 16) * 64)) };
        i32::from(low >> (i / 4 % 2 * 4) & 15 | (high >> (i / 4 % 4 * 2) & 3) << 4) - 32
    }
}

/// int8 in groups of 32.
struct EightGrouped;

impl Packed for EightGrouped {
    const FORMAT: WeightFormat = Q8G32;
    const GROUP: usize = 32;
    unsafe fn code(block: *const u8, r: usize, k: usize) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { i32::from(*block.add(k / 64 * Q8G32.unit_bytes + k % 64 / 4 * 64 + 4 * r + k % 4)) - 128 }
    }
}

/// int8 with a scale for each row.
struct EightByRow;

impl Packed for EightByRow {
    const FORMAT: WeightFormat = Q8;
    const GROUP: usize = ACT_GROUP;
    unsafe fn code(block: *const u8, r: usize, k: usize) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { i32::from(*block.add(k / 4 * 64 + 4 * r + k % 4)) - 128 }
    }
    unsafe fn scale(_block: *const u8, _r: usize, _group: usize) -> f32 {
        1.0
    }
    unsafe fn row_scale(block: *const u8, k: usize, r: usize) -> f32 {
        // SAFETY: the trailer stands behind `k` columns.
        unsafe { block.add(k * ROWS).cast::<f32>().add(r).read_unaligned() }
    }
}

/// A finite f16.
fn from_f16(bits: u16) -> f32 {
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    if bits & 0x8000 == 0 { size } else { -size }
}

unsafe fn dot<P: Packed>(a: &DotArgs) {
    let k = a.k as usize;
    let row = I8Row::new(k);
    for t in 0..a.m as usize {
        for block in 0..a.blocks as usize {
            // SAFETY: `w` has `blocks` blocks of `k` columns, `x` and `out` have `m` rows for `k` and `16 * blocks` elements.
            unsafe {
                let w = a.w.add(block * P::FORMAT.block_bytes(k));
                let x = a.x.add(t * a.x_stride as usize);
                let out = a.out.byte_add(t * a.out_stride as usize).add(block * ROWS);
                for r in 0..ROWS {
                    let mut y = 0.0;
                    for chunk in (0..k).step_by(ACT_GROUP) {
                        let mut part = 0.0;
                        let end = k.min(chunk + ACT_GROUP);
                        for group in (chunk..end).step_by(P::GROUP) {
                            let columns = group..end.min(group + P::GROUP);
                            let sum: i32 = columns.map(|k| P::code(w, r, k) * i32::from(*x.add(k).cast::<i8>())).sum();
                            part = (sum as f32).mul_add(P::scale(w, r, group / P::GROUP), part);
                        }
                        let scale = x.add(row.scales).cast::<f32>().add(chunk / ACT_GROUP).read_unaligned();
                        y = part.mul_add(scale, y);
                    }
                    out.add(r).write(y * P::row_scale(w, k, r));
                }
            }
        }
    }
}

unsafe fn gather<P: Packed>(a: &GatherArgs) {
    let k = (a.k as usize).next_multiple_of(P::FORMAT.k_unit);
    for t in 0..a.m as usize {
        // SAFETY: `ids` has `m` rows of the matrix; `out` has `m` rows of `a.k` elements.
        unsafe {
            let id = *a.ids.add(t) as usize;
            let (block, r) = (a.w.add(id / ROWS * P::FORMAT.block_bytes(k)), id % ROWS);
            let out = a.out.byte_add(t * a.out_stride as usize);
            let row_scale = P::row_scale(block, k, r);
            for i in 0..a.k as usize {
                let scale = P::scale(block, r, i / P::GROUP) * row_scale;
                out.add(i).write(P::code(block, r, i) as f32 * scale);
            }
        }
    }
}

kernels! {
    /// int4 in groups of 32.
    dot_q4g32 = dot::<Four<32>>;
    /// int4 in groups of 64.
    dot_q4g64 = dot::<Four<64>>;
    /// int4 in groups of 128.
    dot_q4g128 = dot::<Four<128>>;
    /// int6 in groups of 32.
    dot_q6g32 = dot::<Six>;
    /// int8 by rows.
    dot_q8 = dot::<EightByRow>;
    /// int8 in groups of 32.
    dot_q8g32 = dot::<EightGrouped>;
    /// int4 in groups of 32.
    gather_q4g32 = gather::<Four<32>>;
    /// int4 in groups of 64.
    gather_q4g64 = gather::<Four<64>>;
    /// int4 in groups of 128.
    gather_q4g128 = gather::<Four<128>>;
    /// int6 in groups of 32.
    gather_q6g32 = gather::<Six>;
    /// int8 by rows.
    gather_q8 = gather::<EightByRow>;
    /// int8 in groups of 32.
    gather_q8g32 = gather::<EightGrouped>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_read_exactly() {
        for (bits, value) in
            [(0u16, 0.0f32), (0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 5.960_464_5e-8), (0x83ff, -6.097_555e-5)]
        {
            assert_eq!(from_f16(bits), value, "{bits:#x}");
        }
    }
}
