//! NEON: signed bytes by signed bytes, four products into each sum of 32 bits: by `sdot` where the CPU has it, else in two steps through 16
//! bits.

use super::dot::{ByRow, by_4, one};
use super::groups::{Eight, Four, Six};
use super::ints::Ints;
use super::peak;
use crate::kernels::neon::Neon;
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;
use std::marker::PhantomData;

/// Four q registers, with the products of `P`.
pub(super) struct Ints4<P>(PhantomData<P>);

/// How a CPU multiplies.
pub(super) trait Products {
    /// Adds to sum `i` the products of bytes `4 i .. 4 i + 4`.
    ///
    /// # Safety
    /// As for [`Ints`].
    unsafe fn add(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// Every CPU. Two products fit 16 bits: weights are -128 at least and activations -127, and 2 * 128 * 127 < 2^15.
pub(super) struct Widening;

impl Products for Widening {
    #[inline(always)]
    unsafe fn add(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vpadalq_s16(sums, vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x))) }
    }
}

/// CPUs with `dotprod`.
pub(super) struct Dot;

impl Products for Dot {
    #[inline(always)]
    unsafe fn add(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise. The intrinsic is not in stable Rust yet. Where this is not inlined, the assembler has to be told.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) sums, in(vreg) w, in(vreg) x,
                options(pure, nomem, nostack)
            );
        }
        sums
    }
}

type Bytes = [int8x16_t; 4];
type Sums = [int32x4_t; 4];

/// A line.
#[inline(always)]
unsafe fn line(at: *const u8) -> [uint8x16_t; 4] {
    // SAFETY: as for [`Ints`].
    unsafe { from_fn(|i| vld1q_u8(at.add(16 * i))) }
}

/// Adds 4 columns of signed codes.
#[inline(always)]
unsafe fn add<P: Products>(sums: Sums, w: Bytes, x: *const u8) -> Sums {
    // SAFETY: as for [`Ints`].
    unsafe {
        let x = vreinterpretq_s8_s32(vdupq_n_s32(x.cast::<i32>().read_unaligned()));
        from_fn(|i| P::add(sums[i], w[i], x))
    }
}

impl<P: Products> Ints for Ints4<P> {
    type L = Neon;
    type Four = Bytes;
    type Eight = Bytes;
    type Narrow = Sums;
    type Wide = Sums;
    #[inline(always)]
    unsafe fn zero() -> Sums {
        // SAFETY: the caller's promise, here and below.
        unsafe { [vdupq_n_s32(0); 4] }
    }
    #[inline(always)]
    unsafe fn add(a: Sums, b: Sums) -> Sums {
        // SAFETY: see `zero`.
        unsafe { from_fn(|i| vaddq_s32(a[i], b[i])) }
    }
    #[inline(always)]
    unsafe fn float(sums: Sums) -> [float32x4_t; 4] {
        // SAFETY: see `zero`.
        unsafe { sums.map(|x| vcvtq_f32_s32(x)) }
    }
    #[inline(always)]
    unsafe fn scales(at: *const u8) -> [float32x4_t; 4] {
        // SAFETY: see `zero`. Every CPU converts f16; stable Rust has no name for it.
        unsafe {
            from_fn(|i| {
                let half = vld1_u16(at.add(8 * i).cast());
                let single: float32x4_t;
                asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) single, in(vreg) half, options(pure, nomem, nostack));
                single
            })
        }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> (Bytes, Bytes) {
        // SAFETY: see `zero`.
        unsafe {
            let v = line(at);
            let low = from_fn(|i| vreinterpretq_s8_u8(vandq_u8(v[i], vdupq_n_u8(15))));
            (low, from_fn(|i| vreinterpretq_s8_u8(vshrq_n_u8::<4>(v[i]))))
        }
    }
    #[inline(always)]
    unsafe fn narrow_zero() -> Sums {
        // SAFETY: see `zero`.
        unsafe { Self::zero() }
    }
    #[inline(always)]
    unsafe fn open(total: Sums, offset: *const i32) -> Sums {
        // SAFETY: see `zero`.
        unsafe { Self::add(total, Self::start(offset.read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn add_four<const M: usize>(sums: Sums, w: Bytes, x: *const u8) -> Sums {
        // SAFETY: see `zero`.
        unsafe { add::<P>(sums, w, x) }
    }
    #[inline(always)]
    unsafe fn narrow_add(a: Sums, b: Sums) -> Sums {
        // SAFETY: see `zero`.
        unsafe { Self::add(a, b) }
    }
    #[inline(always)]
    unsafe fn close(_total: Sums, _offset: *const i32, sums: Sums) -> Sums {
        sums
    }
    #[inline(always)]
    unsafe fn start(x: i32) -> Sums {
        // SAFETY: see `zero`.
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    unsafe fn sixes(low: *const u8, high: *const u8, odd: bool) -> (Bytes, Bytes) {
        // SAFETY: see `zero`.
        unsafe {
            let ((a, b), high) = (Self::halves(low), line(high));
            // Bits 4 and 5 of a code.
            let with = |code: int8x16_t, high| vorrq_s8(code, vreinterpretq_s8_u8(vandq_u8(high, vdupq_n_u8(0x30))));
            if odd {
                (from_fn(|i| with(a[i], high[i])), from_fn(|i| with(b[i], vshrq_n_u8::<2>(high[i]))))
            } else {
                (from_fn(|i| with(a[i], vshlq_n_u8::<4>(high[i]))), from_fn(|i| with(b[i], vshlq_n_u8::<2>(high[i]))))
            }
        }
    }
    #[inline(always)]
    unsafe fn add_sixes<const M: usize>(sums: Sums, w: (Bytes, Bytes), x: *const u8) -> Sums {
        // SAFETY: see `zero`.
        unsafe { add::<P>(add::<P>(sums, w.0, x), w.1, x.add(4)) }
    }
    #[inline(always)]
    unsafe fn eight(at: *const u8) -> Bytes {
        // SAFETY: see `zero`.
        unsafe { line(at).map(|v| vreinterpretq_s8_u8(veorq_u8(v, vdupq_n_u8(128)))) }
    }
    /// The codes have lost their offset.
    #[inline(always)]
    unsafe fn eight_start(_offset: i32) -> Sums {
        // SAFETY: see `zero`.
        unsafe { Self::zero() }
    }
    #[inline(always)]
    unsafe fn add_eight<const M: usize>(sums: Sums, w: Bytes, x: *const u8) -> Sums {
        // SAFETY: see `zero`.
        unsafe { add::<P>(sums, w, x) }
    }
}

/// Blocks that a single row goes through side by side: one chain of sums for each, so that more loads are in flight.
const STREAMS: usize = 2;

/// All kernels of an instruction set, in a module of its name.
macro_rules! instruction_set {
    ($(#[$doc:meta])* $set:ident: $features:literal $products:ident) => {
        $(#[$doc])*
        pub(in crate::kernels) mod $set {
            use super::*;
            kernels! { $features:
                /// int4 in groups of 32.
                q4g32 = by_4::<Ints4<$products>, Four<32>>;
                /// int4 in groups of 64.
                q4g64 = by_4::<Ints4<$products>, Four<64>>;
                /// int4 in groups of 128.
                q4g128 = by_4::<Ints4<$products>, Four<128>>;
                /// int6 in groups of 32.
                q6g32 = by_4::<Ints4<$products>, Six>;
                /// int8 by rows.
                q8 = by_4::<Ints4<$products>, ByRow>;
                /// int8 in groups of 32.
                q8g32 = by_4::<Ints4<$products>, Eight>;
                /// One row.
                q4g32_one = one::<Ints4<$products>, Four<32>, STREAMS>;
                /// One row.
                q4g64_one = one::<Ints4<$products>, Four<64>, STREAMS>;
                /// One row.
                q4g128_one = one::<Ints4<$products>, Four<128>, STREAMS>;
                /// One row.
                q6g32_one = one::<Ints4<$products>, Six, STREAMS>;
                /// One row.
                q8_one = one::<Ints4<$products>, ByRow, STREAMS>;
                /// One row.
                q8g32_one = one::<Ints4<$products>, Eight, STREAMS>;
                /// The roof.
                peak = peak::four::<Ints4<$products>, 4>;
            }
        }
    };
}

instruction_set! {
    /// Every CPU.
    base: "neon" Widening
}
instruction_set! {
    /// With dot products.
    dotprod: "neon,dotprod" Dot
}
