//! Kernels that are no inner loop: embedding rows, rotary angles, yielding. Plain Rust is fast enough for them everywhere.

use crate::abi::{GatherArgs, ROWS, RopeAnglesArgs};

/// Rows of an f32 matrix.
pub(super) unsafe extern "C" fn gather_f32(args: *const u8) {
    // SAFETY: the contract of `GatherArgs`.
    unsafe { gather(&*args.cast(), 1, |word, _| f32::from_bits(word)) }
}

/// Rows of a bf16 matrix.
pub(super) unsafe extern "C" fn gather_bf16(args: *const u8) {
    // SAFETY: the contract of `GatherArgs`.
    unsafe { gather(&*args.cast(), 2, |word, j| f32::from_bits(if j == 0 { word << 16 } else { word & 0xffff_0000 })) }
}

/// For formats whose units are lines of 16 words with `per_word` elements of a row each.
///
/// # Safety
/// The contract of [`GatherArgs`].
unsafe fn gather(a: &GatherArgs, per_word: usize, element: impl Fn(u32, usize) -> f32) {
    let words = a.k as usize / per_word;
    for t in 0..a.m as usize {
        // SAFETY: `ids` has `m` rows of the matrix, whose blocks are `words` lines long; `out` has `m` rows of `k` elements.
        unsafe {
            let id = *a.ids.add(t) as usize;
            let row = a.w.cast::<u32>().add(id / ROWS * words * ROWS + id % ROWS);
            let out = a.out.byte_add(t * a.out_stride as usize);
            for i in 0..words {
                let word = row.add(i * ROWS).read_unaligned();
                for j in 0..per_word {
                    out.add(i * per_word + j).write(element(word, j));
                }
            }
        }
    }
}

/// Cosines and sines; the product is rounded to f32 as the reference does, the functions are taken in f64, where any argument is exact enough.
pub(super) unsafe extern "C" fn rope_angles(args: *const u8) {
    // SAFETY: the contract of `RopeAnglesArgs`.
    let a: &RopeAnglesArgs = unsafe { &*args.cast() };
    for t in 0..a.m as usize {
        // SAFETY: `pos` has `m` elements, `inv_freq` `pairs`, and `out` `m` rows of `padded_pairs` pairs.
        unsafe {
            let pos = *a.pos.add(t) as f32;
            let out = a.out.byte_add(t * a.out_stride as usize).cast::<[f32; 2]>();
            for i in 0..a.padded_pairs as usize {
                let (sin, cos) = if i < a.pairs as usize { f64::from(pos * *a.inv_freq.add(i)).sin_cos() } else { (0.0, 1.0) };
                out.add(i).write([cos as f32, sin as f32]);
            }
        }
    }
}

/// Lets another thread run: called by barriers that have waited long.
pub(super) unsafe extern "C" fn yield_now(_args: *const u8) {
    std::thread::yield_now();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{Numbers, put};

    #[test]
    fn rows_are_gathered_from_packed_blocks() {
        for (bf16, kernel) in [(false, gather_f32 as crate::abi::Kernel), (true, gather_bf16)] {
            let (k, bytes, pair) = if bf16 { (48, 2, 2) } else { (48, 4, 1) };
            let rows = Numbers::new(3).many(40 * k, bf16);
            let mut w = vec![0; 48 * k * bytes];
            for (i, &x) in rows.iter().enumerate() {
                let (row, i) = (i / k, i % k);
                put(&mut w[((row / ROWS * k + i - i % pair) * ROWS + row % ROWS * pair + i % pair) * bytes..], bf16, x);
            }
            let ids = [39u32, 0, 17, 16, 17];
            let mut out = vec![0.0; 5 * (k + 1)];
            let (m, out_stride) = (ids.len() as u64, 4 * (k as u64 + 1));
            let args = GatherArgs { w: w.as_ptr(), ids: ids.as_ptr(), m, k: k as u64, out: out.as_mut_ptr(), out_stride };
            // SAFETY: the arguments describe the vectors above.
            unsafe { kernel((&raw const args).cast()) };
            for (out, id) in out.chunks(k + 1).zip(ids) {
                assert_eq!(out[..k], rows[id as usize * k..][..k]);
                assert_eq!(out[k], 0.0);
            }
        }
    }

    #[test]
    fn angles_are_exact_far_out_and_the_padding_is_no_rotation() {
        let pos = [0u32, 1, 4095, 131_071, 9_999_999];
        let inv_freq = [1.0f32, 0.749_894_2, 1e-3, 2.5e-7, 3.0];
        let mut out = vec![[9.0f32; 2]; pos.len() * 8];
        let args = RopeAnglesArgs {
            pos: pos.as_ptr(),
            inv_freq: inv_freq.as_ptr(),
            m: pos.len() as u64,
            pairs: 5,
            padded_pairs: 8,
            out: out.as_mut_ptr().cast(),
            out_stride: 64,
        };
        // SAFETY: the arguments describe the vectors above.
        unsafe { rope_angles((&raw const args).cast()) };
        for (pos, out) in pos.iter().zip(out.chunks(8)) {
            for (inv_freq, [cos, sin]) in inv_freq.iter().zip(out) {
                // 2 pi in three parts, the first two short enough to be multiplied exactly.
                let a = f64::from(*pos as f32 * inv_freq);
                let turns = (a / std::f64::consts::TAU).round();
                let r = ((a - turns * 6.283_185_005_187_988) - turns * 3.019_916_044_039_885e-7) - turns * 5.390_302_858_158_119e-15;
                assert!((f64::from(*cos) - r.cos()).abs() < 6e-8 && (f64::from(*sin) - r.sin()).abs() < 6e-8, "{pos} {inv_freq}");
            }
            assert!(out[5..].iter().all(|pair| *pair == [1.0, 0.0]));
        }
    }
}
