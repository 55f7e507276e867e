//! AVX2 with FMA: the vectors and the kernels that the templates make of them.

use super::flash::{Vectors, attention};
use super::kept::I8;
use super::lanes::{Lanes, Whole};
use super::mac::{Bf16, Bf16ByF32, F32};
use super::{dot, peak};
use std::arch::x86_64::*;

/// Two ymm registers.
pub(super) struct Avx2;

impl Lanes for Avx2 {
    type F = [__m256; 2];
    const AHEAD_WIDENING: usize = 1024;
    #[inline(always)]
    unsafe fn splat(x: f32) -> [__m256; 2] {
        // SAFETY: the caller's promise, here and below.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, x: [__m256; 2]) {
        // SAFETY: see `splat`.
        unsafe {
            _mm256_storeu_ps(at, x[0]);
            _mm256_storeu_ps(at.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul_add(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn sub(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn max(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn load_pairs(at: *const u8) -> ([__m256; 2], [__m256; 2]) {
        // SAFETY: see `splat`.
        unsafe {
            let (a, b) = (widen(_mm256_loadu_si256(at.cast())), widen(_mm256_loadu_si256(at.add(32).cast())));
            ([a.0, b.0], [a.1, b.1])
        }
    }
    #[inline(always)]
    unsafe fn splat_pair(at: *const u8) -> ([__m256; 2], [__m256; 2]) {
        // SAFETY: see `splat`.
        unsafe {
            let (first, second) = widen(_mm256_set1_epi32(at.cast::<i32>().read_unaligned()));
            ([first; 2], [second; 2])
        }
    }
    #[inline(always)]
    unsafe fn add_exponent(x: [__m256; 2], n: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe {
            let half = |x, n| _mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32::<23>(_mm256_castps_si256(n)));
            [_mm256_castsi256_ps(half(x[0], n[0])), _mm256_castsi256_ps(half(x[1], n[1]))]
        }
    }
    #[inline(always)]
    unsafe fn zero_where_less(x: [__m256; 2], y: [__m256; 2], limit: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe {
            let half = |x, y, limit| _mm256_and_ps(x, _mm256_cmp_ps::<_CMP_NLT_UQ>(y, limit));
            [half(x[0], y[0], limit[0]), half(x[1], y[1], limit[1])]
        }
    }
    #[inline(always)]
    unsafe fn max_lane(x: [__m256; 2]) -> f32 {
        // SAFETY: see `splat`.
        unsafe {
            let x = _mm256_max_ps(x[0], x[1]);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: see `splat`.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

impl Whole for Avx2 {
    type Pairs = [__m256i; 2];
    #[inline(always)]
    unsafe fn load_i8_pairs(at: *const u8) -> [__m256i; 2] {
        // SAFETY: see `splat`.
        unsafe { [0, 16].map(|part| _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(part).cast()))) }
    }
    #[inline(always)]
    unsafe fn splat_i16_pair(at: *const u8) -> [__m256i; 2] {
        // SAFETY: see `splat`.
        unsafe { [_mm256_set1_epi32(at.cast::<i32>().read_unaligned()); 2] }
    }
    #[inline(always)]
    unsafe fn add_products(sum: [__m256; 2], a: [__m256i; 2], b: [__m256i; 2]) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe {
            let half = |sum, a, b| _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), _mm256_madd_epi16(a, b)));
            [half(sum[0], a[0], b[0]), half(sum[1], a[1], b[1])]
        }
    }
    #[inline(always)]
    unsafe fn from_whole(x: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: see `splat`.
        unsafe { x.map(|x| _mm256_cvtepi32_ps(_mm256_castps_si256(x))) }
    }
    #[inline(always)]
    unsafe fn store_i16(at: *mut u8, x: [__m256; 2]) {
        // SAFETY: see `splat`. Packing takes halves of registers in turn.
        unsafe {
            let halves = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1]));
            _mm256_storeu_si256(at.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(halves));
        }
    }
}

/// Pairs of bf16 as f32.
#[inline(always)]
unsafe fn widen(pairs: __m256i) -> (__m256, __m256) {
    // SAFETY: as for [`Lanes`].
    unsafe {
        let second = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
        (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(second))
    }
}

kernels! { "avx2,fma":
    /// One row.
    dot_f32_one = dot::streams::<F32<Avx2>, 4>;
    /// Up to 6 rows.
    dot_f32_many = dot::rows::<F32<Avx2>, 1, 6>;
    /// One row.
    dot_bf16_one = dot::streams::<Bf16<Avx2>, 4>;
    /// Up to 5 rows.
    dot_bf16_many = dot::converted_rows::<Bf16<Avx2>, Bf16ByF32<Avx2>, 3, 5>;
    /// f32 pages.
    attention_f32 = attention::<Vectors<F32<Avx2>, 6, 6, 1>>;
    /// bf16 pages, all arithmetic in f32.
    attention_bf16 = attention::<Vectors<Bf16ByF32<Avx2>, 5, 5, 1>>;
    /// int8 pages, products in whole numbers.
    attention_i8 = attention::<Vectors<I8<Avx2>, 4, 4, 1>>;
    /// The roof.
    peak_f32 = peak::peak::<F32<Avx2>, 6>;
    /// The roof of reading.
    read = peak::read::<Avx2>;
}
