//! Chunks of int8 with a scale for a row. `vpmaddubsw` adds two products in 16 bits and cuts off what does not fit. Activations plus 128 are
//! unsigned, and by signed weights they fit as long as the two weights of a pair have a sum of 128 at most; so do almost all pairs of weights
//! whose scale is that of a whole row. When a chunk is unpacked, lines of 4 columns where all pairs do go to its front, the others to its
//! back. Those are multiplied by their sizes, activations having taken their signs, which takes half as many instructions more.
//! Sums of integers have no order: the bits do not depend on where a line goes.

use super::{LINE, Place, Unpacked, add_chunk, pair, put};
use crate::abi::ROWS;
use crate::format::ACT_GROUP;
use crate::kernels::quant::avx2::{in_order, line, splat};
use crate::kernels::table::PANEL_I8;
use crate::kernels::tile::for_rows;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// int8 by rows.
pub(in crate::kernels::quant) struct Eight;

/// Lines of a chunk.
const LINES: usize = ACT_GROUP / 4;

/// Greatest sum of a pair of weights, of one sign, that 255 of an activation cannot take out of 16 bits.
const FITS: i16 = 128;

/// See [`Unpacked::Chunk`].
#[repr(C, align(64))]
pub(in crate::kernels::quant) struct Chunk {
    /// Signed codes `[16][4]` of lines, in the order that `columns` says.
    w: [MaybeUninit<[u8; LINE]>; LINES],
    /// Activations plus 128 of all rows.
    x: [MaybeUninit<[u8; ACT_GROUP]>; PANEL_I8],
    /// Sums to begin with, for each weight row: what makes up for the offset of the activations.
    start: MaybeUninit<[i32; ROWS]>,
    /// First of the 4 columns of a line.
    columns: [MaybeUninit<u16>; LINES],
    /// Lines at the front, and the first one at the back.
    front: usize,
    back: usize,
}

impl Unpacked for Eight {
    type Chunk = Chunk;
    const TRAILER: usize = LINE;
    const FEW: u64 = 32;
    const TILE: usize = 4;
    #[inline(always)]
    fn bytes(columns: usize) -> usize {
        columns * ROWS
    }
    #[inline(always)]
    unsafe fn take_rows(x: *const u8, stride: usize, m: usize, columns: usize, chunk: *mut Chunk) {
        for t in 0..m {
            // SAFETY: the caller's promise.
            unsafe {
                let (x, to) = (x.add(t * stride), (&raw mut (*chunk).x[t]).cast::<u8>());
                for at in (0..columns).step_by(32) {
                    _mm256_storeu_si256(to.add(at).cast(), flip(_mm256_loadu_si256(x.add(at).cast())));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn unpack(w: *const u8, columns: usize, chunk: *mut Chunk) {
        // SAFETY: the caller's promise; `front <= back` keeps both in the arrays.
        unsafe {
            let (to, places) = ((&raw mut (*chunk).w).cast::<u8>(), (&raw mut (*chunk).columns).cast::<u16>());
            let (ones, fits) = (_mm256_set1_epi8(1), _mm256_set1_epi16(FITS));
            let (mut front, mut back) = (0, LINES);
            for quad in 0..columns / 4 {
                let [a, b] = line(w.add(quad * LINE));
                let w = [flip(a), flip(b)];
                let size = |w| _mm256_abs_epi16(_mm256_maddubs_epi16(ones, w));
                let too_large = _mm256_cmpgt_epi16(_mm256_max_epi16(size(w[0]), size(w[1])), fits);
                // No branch: nobody could guess where it goes.
                let fit = usize::from(_mm256_movemask_epi8(too_large) == 0);
                back -= 1 - fit;
                let at = std::hint::select_unpredictable(fit == 1, front, back);
                front += fit;
                _mm256_store_si256(to.add(at * LINE).cast(), w[0]);
                _mm256_store_si256(to.add(at * LINE + 32).cast(), w[1]);
                *places.add(at) = 4 * quad as u16;
            }
            let mut total = [_mm256_setzero_si256(); 2];
            for at in 0..front {
                // 64 sums of 128 fit 16 bits.
                let [a, b] = line(to.add(at * LINE));
                total =
                    [_mm256_add_epi16(total[0], _mm256_maddubs_epi16(ones, a)), _mm256_add_epi16(total[1], _mm256_maddubs_epi16(ones, b))];
            }
            for (i, total) in total.into_iter().enumerate() {
                let start = _mm256_madd_epi16(total, _mm256_set1_epi16(-128));
                _mm256_store_si256((&raw mut (*chunk).start).cast::<__m256i>().add(i), start);
            }
            ((*chunk).front, (*chunk).back) = (front, back);
        }
    }
    #[inline(always)]
    unsafe fn tile<const M: usize>(chunk: *mut Chunk, place: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            let (w, columns) = ((&raw const (*chunk).w).cast::<u8>(), (&raw const (*chunk).columns).cast::<u16>());
            let x = (&raw const (*chunk).x[place.row]).cast::<u8>();
            let start = line((&raw const (*chunk).start).cast());
            let ones = _mm256_set1_epi16(1);
            let mut sums = [start; M];
            for i in 0..(*chunk).front {
                let (w, x) = (line(w.add(i * LINE)), x.add(usize::from(*columns.add(i))));
                for_rows!(M, t => {
                    let x = splat(x.add(t * ACT_GROUP));
                    let wide = |w| _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), ones);
                    let add = |i: usize| in_order::<2>(_mm256_add_epi32(sums[t][i], wide(w[i])));
                    sums[t] = [add(0), add(1)];
                });
            }
            for i in (*chunk).back..LINES {
                let (w, x) = (line(w.add(i * LINE)), x.add(usize::from(*columns.add(i))));
                let size = [_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])];
                for_rows!(M, t => {
                    let x = flip(in_order::<2>(splat(x.add(t * ACT_GROUP))));
                    let wide = |i: usize| _mm256_madd_epi16(_mm256_maddubs_epi16(size[i], _mm256_sign_epi8(x, w[i])), ones);
                    let add = |i: usize| in_order::<2>(_mm256_add_epi32(sums[t][i], wide(i)));
                    sums[t] = [add(0), add(1)];
                });
            }
            for_rows!(M, t => { add_chunk(&place, t, [_mm256_cvtepi32_ps(sums[t][0]), _mm256_cvtepi32_ps(sums[t][1])]); });
        }
    }
    #[inline(always)]
    unsafe fn scale_rows(scales: *const u8, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (y, scales) = (pair(out), pair(scales.cast()));
            put(out, [_mm256_mul_ps(y[0], scales[0]), _mm256_mul_ps(y[1], scales[1])]);
        }
    }
}

/// Unsigned codes with an offset of 128 to signed ones, or back.
#[inline(always)]
unsafe fn flip(v: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_xor_si256(v, _mm256_set1_epi8(-128)) }
}
