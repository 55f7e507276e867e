//! The roofs of integer products: what the vectors multiply and add with weights in registers and activations in the L1 cache, without
//! scales. Used by `roof`.

#[cfg(target_arch = "x86_64")]
use super::avx2::{in_order, line, splat};
use super::ints::Ints;
use crate::kernels::tile::for_rows;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Activations that are gone round and round.
const BYTES: usize = 512;

/// `M` rows of int4, summed as wide as the instructions sum it.
///
/// # Safety
/// As for [`Ints`].
#[inline(always)]
pub(super) unsafe fn four<D: Ints, const M: usize>(rounds: &u64) {
    let x = std::hint::black_box([1u8; BYTES + 64]);
    // SAFETY: the caller's promise; all of it lies in the array.
    unsafe {
        let (w, _) = D::halves(x.as_ptr());
        let mut sums = [D::narrow_zero(); M];
        for round in 0..*rounds as usize {
            let x = x.as_ptr().add(round * 16 % BYTES);
            for_rows!(M, t => { sums[t] = D::add_four::<M>(sums[t], w, x.add(4 * t)); });
        }
        std::hint::black_box(sums);
    }
}

/// Rows of [`eight`].
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) const EIGHT_ROWS: u64 = 4;

/// 8 bits by 8 bits summed in 32, in three instructions: `vpmaddubsw`, `vpmaddwd`, `vpaddd`. Overflow is not looked at.
///
/// # Safety
/// AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn eight(rounds: &u64) {
    let x = std::hint::black_box([1u8; BYTES + 64]);
    // SAFETY: the caller's promise; all of it lies in the array.
    unsafe {
        let (w, ones) = (line(x.as_ptr()), _mm256_set1_epi16(1));
        let mut sums = [[_mm256_setzero_si256(); 2]; EIGHT_ROWS as usize];
        for round in 0..*rounds as usize {
            let x = x.as_ptr().add(round * 16 % BYTES);
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = splat(x.add(4 * t));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = in_order::<2>(_mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), ones)));
                }
            }
        }
        std::hint::black_box(sums);
    }
}
