//! AVX-VNNI: `vpdpbusd` on ymm registers, in its VEX form.

use super::avx2::{common, halves, in_order, line, scales, sixes, splat};
use super::dot::{ByRow, by_4};
use super::groups::{Eight, Four, Six};
use super::ints::Ints;
use super::peak;
use crate::kernels::avx2::Avx2;
use std::arch::x86_64::*;

/// Two ymm registers.
pub(super) struct Vnni256;

/// # Safety
/// As for [`Ints`].
#[inline(always)]
unsafe fn dot<const M: usize>(sums: [__m256i; 2], w: [__m256i; 2], x: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let x = splat(x);
        [in_order::<M>(_mm256_dpbusd_avx_epi32(sums[0], w[0], x)), in_order::<M>(_mm256_dpbusd_avx_epi32(sums[1], w[1], x))]
    }
}

impl Ints for Vnni256 {
    common!();
    type Eight = [__m256i; 2];
    #[inline(always)]
    unsafe fn open(total: [__m256i; 2], offset: *const i32) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { Self::add(total, [splat(offset.cast()); 2]) }
    }
    #[inline(always)]
    unsafe fn add_four<const M: usize>(sums: [__m256i; 2], w: [__m256i; 2], x: *const u8) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { dot::<M>(sums, w, x) }
    }
    #[inline(always)]
    unsafe fn narrow_add(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { Self::add(a, b) }
    }
    #[inline(always)]
    unsafe fn close(_total: [__m256i; 2], _offset: *const i32, sums: [__m256i; 2]) -> [__m256i; 2] {
        sums
    }
    #[inline(always)]
    unsafe fn add_sixes<const M: usize>(sums: [__m256i; 2], w: ([__m256i; 2], [__m256i; 2]), x: *const u8) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { dot::<M>(dot::<M>(sums, w.0, x), w.1, x.add(4)) }
    }
    #[inline(always)]
    unsafe fn eight(at: *const u8) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { line(at) }
    }
    #[inline(always)]
    unsafe fn eight_start(offset: i32) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { [_mm256_set1_epi32(offset); 2] }
    }
    #[inline(always)]
    unsafe fn add_eight<const M: usize>(sums: [__m256i; 2], w: [__m256i; 2], x: *const u8) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { dot::<M>(sums, w, x) }
    }
}

kernels! { "avx2,fma,f16c,avxvnni":
    /// int4 in groups of 32.
    q4g32 = by_4::<Vnni256, Four<32>>;
    /// int4 in groups of 64.
    q4g64 = by_4::<Vnni256, Four<64>>;
    /// int4 in groups of 128.
    q4g128 = by_4::<Vnni256, Four<128>>;
    /// int6 in groups of 32.
    q6g32 = by_4::<Vnni256, Six>;
    /// int8 by rows.
    q8 = by_4::<Vnni256, ByRow>;
    /// int8 in groups of 32.
    q8g32 = by_4::<Vnni256, Eight>;
    /// The roof.
    peak = peak::four::<Vnni256, 4>;
}
