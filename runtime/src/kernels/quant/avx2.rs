//! AVX2: `vpmaddubsw` into sums of 16 bits, which 32 columns of int4 cannot overflow (8 * 2 * 15 * 127 < 2^15).

use super::dot::{ByRow, by_4, one};
use super::groups::{Eight, Four, Six};
use super::ints::Ints;
use super::{panel, peak};
use crate::kernels::avx2::Avx2;
use std::arch::asm;
use std::arch::x86_64::*;

/// Two ymm registers.
pub(super) struct Ints2;

/// 16 rows of 4 unsigned codes, and what their signs do to activations.
#[derive(Clone, Copy)]
pub(super) struct Signed {
    size: [__m256i; 2],
    sign: [__m256i; 2],
}

/// 4 activations in all lanes.
#[inline(always)]
pub(super) unsafe fn splat(x: *const u8) -> __m256i {
    // SAFETY: as for [`Ints`].
    unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) }
}

/// The same sums, where they belong to a tile at this place of the program: the compiler would add them in another order, in which its
/// activations do not fit the registers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn in_order<const M: usize>(mut sums: __m256i) -> __m256i {
    if M > 1 {
        // SAFETY: no instruction at all.
        unsafe { asm!("/* {0} */", inout(ymm_reg) sums, options(nomem, nostack, preserves_flags)) }
    }
    sums
}

/// A line.
#[inline(always)]
pub(super) unsafe fn line(at: *const u8) -> [__m256i; 2] {
    // SAFETY: as for [`Ints`].
    unsafe { [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())] }
}

/// The low and the high halves of a line's bytes.
#[inline(always)]
pub(super) unsafe fn halves(at: *const u8) -> ([__m256i; 2], [__m256i; 2]) {
    // SAFETY: as for [`Ints`].
    unsafe {
        let (mask, v) = (_mm256_set1_epi8(15), line(at));
        let high = |v| _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask);
        ([_mm256_and_si256(v[0], mask), _mm256_and_si256(v[1], mask)], [high(v[0]), high(v[1])])
    }
}

/// 8 columns of int6: see [`Ints::sixes`].
#[inline(always)]
pub(super) unsafe fn sixes(low: *const u8, high: *const u8, odd: bool) -> ([__m256i; 2], [__m256i; 2]) {
    // SAFETY: as for [`Ints`].
    unsafe {
        let ((a, b), high) = (halves(low), line(high));
        // Bits 4 and 5 of a code; what the shifts move into another byte is cut off.
        let bits = _mm256_set1_epi8(0x30);
        let first = |h| _mm256_and_si256(if odd { h } else { _mm256_slli_epi16::<4>(h) }, bits);
        let second = |h| _mm256_and_si256(if odd { _mm256_srli_epi16::<2>(h) } else { _mm256_slli_epi16::<2>(h) }, bits);
        let with = |code: [__m256i; 2], high: [__m256i; 2]| [_mm256_or_si256(code[0], high[0]), _mm256_or_si256(code[1], high[1])];
        (with(a, [first(high[0]), first(high[1])]), with(b, [second(high[0]), second(high[1])]))
    }
}

/// 16 scales in f16.
#[inline(always)]
pub(super) unsafe fn scales(at: *const u8) -> [__m256; 2] {
    // SAFETY: as for [`Ints`].
    unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(at.cast())), _mm256_cvtph_ps(_mm_loadu_si128(at.add(16).cast()))] }
}

/// What both sets of two ymm registers have in common, with VNNI and without.
macro_rules! common {
    () => {
        type L = Avx2;
        type Four = [__m256i; 2];
        type Narrow = [__m256i; 2];
        type Wide = [__m256i; 2];
        #[inline(always)]
        unsafe fn zero() -> [__m256i; 2] {
            // SAFETY: the caller's promise, here and below.
            unsafe { [_mm256_setzero_si256(); 2] }
        }
        #[inline(always)]
        unsafe fn add(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            // SAFETY: see `zero`.
            unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        unsafe fn float(sums: [__m256i; 2]) -> [__m256; 2] {
            // SAFETY: see `zero`.
            unsafe { [_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])] }
        }
        #[inline(always)]
        unsafe fn scales(at: *const u8) -> [__m256; 2] {
            // SAFETY: see `zero`.
            unsafe { scales(at) }
        }
        #[inline(always)]
        unsafe fn halves(at: *const u8) -> ([__m256i; 2], [__m256i; 2]) {
            // SAFETY: see `zero`.
            unsafe { halves(at) }
        }
        #[inline(always)]
        unsafe fn narrow_zero() -> [__m256i; 2] {
            // SAFETY: see `zero`.
            unsafe { Self::zero() }
        }
        #[inline(always)]
        unsafe fn start(x: i32) -> [__m256i; 2] {
            // SAFETY: see `zero`.
            unsafe { [_mm256_set1_epi32(x); 2] }
        }
        #[inline(always)]
        unsafe fn sixes(low: *const u8, high: *const u8, odd: bool) -> ([__m256i; 2], [__m256i; 2]) {
            // SAFETY: see `zero`.
            unsafe { sixes(low, high, odd) }
        }
    };
}
pub(super) use common;

impl Ints for Ints2 {
    common!();
    type Eight = Signed;
    const AHEAD: usize = 512;
    const AHEAD_OF_TILE: usize = 4096;
    #[inline(always)]
    unsafe fn open(_total: [__m256i; 2], _offset: *const i32) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { Self::zero() }
    }
    #[inline(always)]
    unsafe fn add_four<const M: usize>(sums: [__m256i; 2], w: [__m256i; 2], x: *const u8) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe {
            let x = splat(x);
            let sums = Self::narrow_add(sums, [_mm256_maddubs_epi16(w[0], x), _mm256_maddubs_epi16(w[1], x)]);
            [in_order::<M>(sums[0]), in_order::<M>(sums[1])]
        }
    }
    #[inline(always)]
    unsafe fn narrow_add(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { [_mm256_add_epi16(a[0], b[0]), _mm256_add_epi16(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn close(total: [__m256i; 2], offset: *const i32, sums: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe {
            let (ones, offset) = (_mm256_set1_epi16(1), splat(offset.cast()));
            let wide = |sums, total| _mm256_add_epi32(_mm256_add_epi32(_mm256_madd_epi16(sums, ones), offset), total);
            [wide(sums[0], total[0]), wide(sums[1], total[1])]
        }
    }
    /// Two products of 6 bits fit 16 bits: 4 * 63 * 127 < 2^15.
    #[inline(always)]
    unsafe fn add_sixes<const M: usize>(sums: [__m256i; 2], w: ([__m256i; 2], [__m256i; 2]), x: *const u8) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe {
            let (ones, x) = (_mm256_set1_epi16(1), [splat(x), splat(x.add(4))]);
            let narrow = |a, b| _mm256_add_epi16(_mm256_maddubs_epi16(a, x[0]), _mm256_maddubs_epi16(b, x[1]));
            let wide = |a, b| _mm256_madd_epi16(narrow(a, b), ones);
            Self::add(sums, [wide(w.0[0], w.1[0]), wide(w.0[1], w.1[1])])
        }
    }
    #[inline(always)]
    unsafe fn eight(at: *const u8) -> Signed {
        // SAFETY: see `zero`.
        unsafe {
            let (v, offset) = (line(at), _mm256_set1_epi8(-128));
            let sign = [_mm256_xor_si256(v[0], offset), _mm256_xor_si256(v[1], offset)];
            Signed { size: [_mm256_abs_epi8(sign[0]), _mm256_abs_epi8(sign[1])], sign }
        }
    }
    #[inline(always)]
    unsafe fn eight_start(_offset: i32) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe { Self::zero() }
    }
    /// Bytes of 8 bits would overflow `vpmaddubsw`; their sizes, at most 128, times activations that took their signs do not.
    #[inline(always)]
    unsafe fn add_eight<const M: usize>(sums: [__m256i; 2], w: Signed, x: *const u8) -> [__m256i; 2] {
        // SAFETY: see `zero`.
        unsafe {
            let (ones, x) = (_mm256_set1_epi16(1), splat(x));
            let wide = |size, sign| _mm256_madd_epi16(_mm256_maddubs_epi16(size, _mm256_sign_epi8(x, sign)), ones);
            Self::add(sums, [wide(w.size[0], w.sign[0]), wide(w.size[1], w.sign[1])])
        }
    }
}

/// Blocks that a single row goes through side by side: Zen 3 reads four streams a tenth faster than one.
const STREAMS: usize = 4;

kernels! { "avx2,fma,f16c":
    /// int4 in groups of 32.
    q4g32 = by_4::<Ints2, Four<32>>;
    /// int4 in groups of 64.
    q4g64 = by_4::<Ints2, Four<64>>;
    /// int4 in groups of 128.
    q4g128 = by_4::<Ints2, Four<128>>;
    /// int6 in groups of 32.
    q6g32 = by_4::<Ints2, Six>;
    /// int8 by rows.
    q8 = by_4::<Ints2, ByRow>;
    /// int8 in groups of 32.
    q8g32 = by_4::<Ints2, Eight>;
    /// Up to `PANEL` rows.
    q4g32_many = |a| panel::many::<panel::Four<32>>(a, |a| by_4::<Ints2, Four<32>>(a));
    /// Up to `PANEL` rows.
    q4g64_many = |a| panel::many::<panel::Four<64>>(a, |a| by_4::<Ints2, Four<64>>(a));
    /// Up to `PANEL` rows.
    q4g128_many = |a| panel::many::<panel::Four<128>>(a, |a| by_4::<Ints2, Four<128>>(a));
    /// Up to `PANEL` rows.
    q8_many = |a| panel::many::<panel::Eight>(a, |a| by_4::<Ints2, ByRow>(a));
    /// The roof of int4.
    peak_four = peak::four::<Ints2, 4>;
    /// The roof of int8.
    peak_eight = peak::eight;
    /// One row.
    q4g32_one = one::<Ints2, Four<32>, STREAMS>;
    /// One row.
    q4g64_one = one::<Ints2, Four<64>, STREAMS>;
    /// One row.
    q4g128_one = one::<Ints2, Four<128>, STREAMS>;
    /// One row.
    q6g32_one = one::<Ints2, Six, STREAMS>;
    /// One row.
    q8_one = one::<Ints2, ByRow, STREAMS>;
    /// One row.
    q8g32_one = one::<Ints2, Eight, STREAMS>;
}
