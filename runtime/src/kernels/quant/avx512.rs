//! AVX-512: `vpdpbusd` on zmm registers where there is VNNI; elsewhere `vpmaddubsw` into sums of 16 bits, which 32 columns of int4 cannot
//! overflow.

use super::dot::{ByRow, by_4, by_12};
use super::groups::{Eight, Four, Six};
use super::ints::Ints;
use super::peak;
use crate::kernels::avx512::Avx512;
use std::arch::asm;
use std::arch::x86_64::*;

/// One zmm register, VNNI; lines are fetched so many bytes ahead: see [`Ints`].
pub(super) struct Vnni512<const AHEAD: usize = 0, const FAR_AHEAD: usize = 0, const AHEAD_OF_TILE: usize = 0>;
/// One zmm register.
pub(super) struct Ints512;

/// 4 activations in all lanes.
#[inline(always)]
unsafe fn splat(x: *const u8) -> __m512i {
    // SAFETY: as for [`Ints`].
    unsafe { _mm512_set1_epi32(x.cast::<i32>().read_unaligned()) }
}

/// The same sums, where they belong to a tile at this place of the program: the compiler would add them in another order, with fewer
/// independent additions at a time.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_order<const M: usize>(mut sums: __m512i) -> __m512i {
    if M > 1 {
        // SAFETY: no instruction at all.
        unsafe { asm!("/* {0} */", inout(zmm_reg) sums, options(nomem, nostack, preserves_flags)) }
    }
    sums
}

/// What both have in common.
macro_rules! common {
    () => {
        type L = Avx512;
        type Four = __m512i;
        type Narrow = __m512i;
        type Wide = __m512i;
        #[inline(always)]
        unsafe fn zero() -> __m512i {
            // SAFETY: the caller's promise, here and below.
            unsafe { _mm512_setzero_si512() }
        }
        #[inline(always)]
        unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: see `zero`.
            unsafe { _mm512_add_epi32(a, b) }
        }
        #[inline(always)]
        unsafe fn float(sums: __m512i) -> __m512 {
            // SAFETY: see `zero`.
            unsafe { _mm512_cvtepi32_ps(sums) }
        }
        #[inline(always)]
        unsafe fn scales(at: *const u8) -> __m512 {
            // SAFETY: see `zero`.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
        }
        #[inline(always)]
        unsafe fn halves(at: *const u8) -> (__m512i, __m512i) {
            // SAFETY: see `zero`.
            unsafe {
                let (mask, v) = (_mm512_set1_epi8(15), _mm512_loadu_si512(at.cast()));
                (_mm512_and_si512(v, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask))
            }
        }
        #[inline(always)]
        unsafe fn start(x: i32) -> __m512i {
            // SAFETY: see `zero`.
            unsafe { _mm512_set1_epi32(x) }
        }
        #[inline(always)]
        unsafe fn sixes(low: *const u8, high: *const u8, odd: bool) -> (__m512i, __m512i) {
            // SAFETY: see `zero`.
            unsafe {
                let ((a, b), h) = (Self::halves(low), _mm512_loadu_si512(high.cast()));
                // Bits 4 and 5 of a code; what the shifts move into another byte is cut off.
                let bits = _mm512_set1_epi8(0x30);
                let first = if odd { h } else { _mm512_slli_epi16::<4>(h) };
                let second = if odd { _mm512_srli_epi16::<2>(h) } else { _mm512_slli_epi16::<2>(h) };
                (_mm512_or_si512(a, _mm512_and_si512(first, bits)), _mm512_or_si512(b, _mm512_and_si512(second, bits)))
            }
        }
        #[inline(always)]
        unsafe fn narrow_zero() -> __m512i {
            // SAFETY: see `zero`.
            unsafe { Self::zero() }
        }
    };
}

impl<const AHEAD: usize, const FAR_AHEAD: usize, const AHEAD_OF_TILE: usize> Ints for Vnni512<AHEAD, FAR_AHEAD, AHEAD_OF_TILE> {
    const AHEAD: usize = AHEAD;
    const FAR_AHEAD: usize = FAR_AHEAD;
    const AHEAD_OF_TILE: usize = AHEAD_OF_TILE;
    common!();
    type Eight = __m512i;
    #[inline(always)]
    unsafe fn open(total: __m512i, offset: *const i32) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { Self::add(total, splat(offset.cast())) }
    }
    #[inline(always)]
    unsafe fn add_four<const M: usize>(sums: __m512i, w: __m512i, x: *const u8) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { in_order::<M>(_mm512_dpbusd_epi32(sums, w, splat(x))) }
    }
    #[inline(always)]
    unsafe fn narrow_add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { Self::add(a, b) }
    }
    #[inline(always)]
    unsafe fn close(_total: __m512i, _offset: *const i32, sums: __m512i) -> __m512i {
        sums
    }
    #[inline(always)]
    unsafe fn add_sixes<const M: usize>(sums: __m512i, w: (__m512i, __m512i), x: *const u8) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { Self::add_four::<M>(Self::add_four::<M>(sums, w.0, x), w.1, x.add(4)) }
    }
    #[inline(always)]
    unsafe fn eight(at: *const u8) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }
    #[inline(always)]
    unsafe fn eight_start(offset: i32) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { _mm512_set1_epi32(offset) }
    }
    #[inline(always)]
    unsafe fn add_eight<const M: usize>(sums: __m512i, w: __m512i, x: *const u8) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { in_order::<M>(_mm512_dpbusd_epi32(sums, w, splat(x))) }
    }
}

impl Ints for Ints512 {
    common!();
    /// Signed codes of even and of odd columns, widened to 16 bits.
    type Eight = (__m512i, __m512i);
    #[inline(always)]
    unsafe fn open(_total: __m512i, _offset: *const i32) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { Self::zero() }
    }
    #[inline(always)]
    unsafe fn add_four<const M: usize>(sums: __m512i, w: __m512i, x: *const u8) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { in_order::<M>(Self::narrow_add(sums, _mm512_maddubs_epi16(w, splat(x)))) }
    }
    #[inline(always)]
    unsafe fn narrow_add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { _mm512_add_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn close(total: __m512i, offset: *const i32, sums: __m512i) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { Self::add(Self::add(_mm512_madd_epi16(sums, _mm512_set1_epi16(1)), splat(offset.cast())), total) }
    }
    /// Two products of 6 bits fit 16 bits: 4 * 63 * 127 < 2^15.
    #[inline(always)]
    unsafe fn add_sixes<const M: usize>(sums: __m512i, w: (__m512i, __m512i), x: *const u8) -> __m512i {
        // SAFETY: see `zero`.
        unsafe {
            let narrow = Self::add_four::<M>(_mm512_maddubs_epi16(w.0, splat(x)), w.1, x.add(4));
            Self::add(sums, _mm512_madd_epi16(narrow, _mm512_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn eight(at: *const u8) -> (__m512i, __m512i) {
        // SAFETY: see `zero`.
        unsafe { widen(_mm512_xor_si512(_mm512_loadu_si512(at.cast()), _mm512_set1_epi8(-128))) }
    }
    #[inline(always)]
    unsafe fn eight_start(_offset: i32) -> __m512i {
        // SAFETY: see `zero`.
        unsafe { Self::zero() }
    }
    /// Bytes of 8 bits would overflow `vpmaddubsw`.
    #[inline(always)]
    unsafe fn add_eight<const M: usize>(sums: __m512i, w: (__m512i, __m512i), x: *const u8) -> __m512i {
        // SAFETY: see `zero`.
        unsafe {
            let x = widen(splat(x));
            Self::add(Self::add(sums, _mm512_madd_epi16(w.0, x.0)), _mm512_madd_epi16(w.1, x.1))
        }
    }
}

/// The even and the odd bytes of a vector, with their signs, in 16 bits.
#[inline(always)]
unsafe fn widen(v: __m512i) -> (__m512i, __m512i) {
    // SAFETY: as for [`Ints`].
    unsafe { (_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(v)), _mm512_srai_epi16::<8>(v)) }
}

kernels! { "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni":
    /// int4 in groups of 32.
    vnni_q4g32 = by_12::<Vnni512, Four<32>>;
    /// int4 in groups of 64.
    vnni_q4g64 = by_12::<Vnni512, Four<64>>;
    /// int4 in groups of 128.
    vnni_q4g128 = by_12::<Vnni512, Four<128>>;
    /// int6 in groups of 32.
    vnni_q6g32 = by_12::<Vnni512, Six>;
    /// int8 by rows.
    vnni_q8 = by_12::<Vnni512, ByRow>;
    /// int8 in groups of 32.
    vnni_q8g32 = by_12::<Vnni512, Eight>;
    /// The roof.
    vnni_peak = peak::four::<Vnni512, 12>;
}

kernels! { "avx2,fma,avx512f,avx512bw,avx512vl":
    /// int4 in groups of 32.
    q4g32 = by_4::<Ints512, Four<32>>;
    /// int4 in groups of 64.
    q4g64 = by_4::<Ints512, Four<64>>;
    /// int4 in groups of 128.
    q4g128 = by_4::<Ints512, Four<128>>;
    /// int6 in groups of 32.
    q6g32 = by_4::<Ints512, Six>;
    /// int8 by rows.
    q8 = by_4::<Ints512, ByRow>;
    /// int8 in groups of 32.
    q8g32 = by_4::<Ints512, Eight>;
}
