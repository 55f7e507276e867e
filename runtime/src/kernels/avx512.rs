//! AVX-512 (F, BW, VL), with and without `vdpbf16ps`: the vectors and the kernels that the templates make of them.

use super::flash::{Tiles, Vectors, attention};
use super::kept::{I8, Kept};
use super::lanes::{Lanes, Whole};
use super::mac::{Bf16, Bf16ByF32, F32, Mac};

use super::{amx, dot, peak};
use crate::abi::AttentionArgs;
use std::arch::x86_64::*;

/// One zmm register.
pub(super) struct Avx512;

impl Lanes for Avx512 {
    type F = __m512;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: the caller's promise, here and below.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, x: __m512) {
        // SAFETY: see `splat`.
        unsafe { _mm512_storeu_ps(at, x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn load_pairs(at: *const u8) -> (__m512, __m512) {
        // SAFETY: see `splat`.
        unsafe { widen(_mm512_loadu_si512(at.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_pair(at: *const u8) -> (__m512, __m512) {
        // SAFETY: see `splat`.
        unsafe { widen(_mm512_set1_epi32(at.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn add_exponent(x: __m512, n: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_slli_epi32::<23>(_mm512_castps_si512(n)))) }
    }
    #[inline(always)]
    unsafe fn zero_where_less(x: __m512, y: __m512, limit: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(y, limit), x) }
    }
    #[inline(always)]
    unsafe fn prefetch_to_l2(at: *const u8) {
        // SAFETY: see `splat`.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: see `splat`.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn max_lane(x: __m512) -> f32 {
        // SAFETY: see `splat`.
        unsafe { _mm512_reduce_max_ps(x) }
    }
}

impl Whole for Avx512 {
    type Pairs = __m512i;
    #[inline(always)]
    unsafe fn load_i8_pairs(at: *const u8) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(at.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_i16_pair(at: *const u8) -> __m512i {
        // SAFETY: see `splat`.
        unsafe { _mm512_set1_epi32(at.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_products(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(sum), _mm512_madd_epi16(a, b))) }
    }
    #[inline(always)]
    unsafe fn from_whole(x: __m512) -> __m512 {
        // SAFETY: see `splat`.
        unsafe { _mm512_cvtepi32_ps(_mm512_castps_si512(x)) }
    }
    #[inline(always)]
    unsafe fn store_i16(at: *mut u8, x: __m512) {
        // SAFETY: see `splat`.
        unsafe { _mm256_storeu_si256(at.cast(), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x))) }
    }
}

/// Pairs of bf16 as f32.
#[inline(always)]
unsafe fn widen(pairs: __m512i) -> (__m512, __m512) {
    // SAFETY: as for [`Lanes`].
    unsafe {
        let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second))
    }
}

/// bf16 lines and activations by `vdpbf16ps`: pairs are summed inside the instruction.
pub(super) struct Dpbf16;

impl Mac for Dpbf16 {
    type L = Avx512;
    type Line = __m512bh;
    type X = __m512bh;
    const ELEMENTS: usize = 2;
    const X_BYTES: usize = 4;
    #[inline(always)]
    unsafe fn line(at: *const u8) -> __m512bh {
        // SAFETY: the caller's promise; both types are 64 bytes without invalid values.
        unsafe { std::mem::transmute(_mm512_loadu_si512(at.cast())) }
    }
    #[inline(always)]
    unsafe fn x(at: *const u8) -> __m512bh {
        // SAFETY: see `line`.
        unsafe { std::mem::transmute(_mm512_set1_epi32(at.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn mac(sum: __m512, line: __m512bh, x: __m512bh) -> __m512 {
        // SAFETY: see `line`.
        unsafe { _mm512_dpbf16_ps(sum, line, x) }
    }
}

impl Kept for Dpbf16 {
    #[inline(always)]
    unsafe fn put_x(to: *mut u8, x: __m512) -> __m512 {
        // SAFETY: see `line`.
        unsafe {
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(x));
            _mm256_storeu_si256(to.cast(), rounded);
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(rounded)))
        }
    }
}

kernels! { "avx512f,avx512bw,avx512vl":
    /// One row.
    dot_f32_one = dot::stream::<F32<Avx512>, 2, 1>;
    /// Up to 12 rows.
    dot_f32_many = dot::rows::<F32<Avx512>, 2, 12>;
    /// One row.
    dot_bf16_one = dot::stream::<Bf16<Avx512>, 1, 1>;
    /// Up to 12 rows.
    dot_bf16_many = dot::converted_rows::<Bf16<Avx512>, Bf16ByF32<Avx512>, 3, 12>;
    /// f32 pages.
    attention_f32 = attention::<Vectors<F32<Avx512>, 12, 6, 4>>;
    /// The roof.
    peak_f32 = peak::peak::<F32<Avx512>, 12>;
    /// The roof of reading.
    read = peak::read::<Avx512>;
    /// bf16 pages, all arithmetic in f32.
    attention_bf16 = attention::<Vectors<Bf16ByF32<Avx512>, 12, 4, 4>>;
    /// int8 pages, products in whole numbers.
    attention_i8 = attention::<Vectors<I8<Avx512>, 12, 4, 4>>;
}

kernels! { "avx512f,avx512bw,avx512vl,avx512bf16":
    /// One row, `vdpbf16ps`.
    dot_dpbf16_one = dot::stream::<Dpbf16, 2, 1>;
    /// Up to 12 rows, `vdpbf16ps`.
    dot_dpbf16_many = dot::rows::<Dpbf16, 2, 12>;
    /// bf16 pages, `vdpbf16ps`: queries and probabilities are rounded to bf16 too.
    attention_dpbf16 = attention::<Vectors<Dpbf16, 12, 6, 4>>;
    /// bf16 pages by tiles where heads fill them; AMX has been asked for.
    attention_amx = attention_in_tiles;
    /// The roof of `vdpbf16ps`.
    peak_dpbf16 = peak::peak::<Dpbf16, 12>;
    /// The roof of tiles of bf16.
    peak_amx_bf16 = amx::peak::<true>;
}

/// # Safety
/// As for [`attention`], and AMX as for [`amx::configure`].
#[inline(always)]
unsafe fn attention_in_tiles(a: &AttentionArgs) {
    // SAFETY: the caller's promise.
    unsafe {
        if Tiles::fit(a.head_dim) {
            amx::configure(&const { amx::Config::products(amx::ROW) });
            attention::<Tiles>(a);
            amx::release();
        } else {
            attention::<Vectors<Dpbf16, 12, 6, 4>>(a);
        }
    }
}
