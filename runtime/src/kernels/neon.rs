//! NEON: the vectors and the kernels that the templates make of them.

use super::flash::{Vectors, attention};
use super::kept::I8;
use super::lanes::{Lanes, Whole};
use super::mac::{Bf16, Bf16ByF32, F32};
use super::{dot, peak};
use std::arch::aarch64::*;
use std::array::from_fn;

/// Four q registers.
pub(super) struct Neon;

impl Lanes for Neon {
    type F = [float32x4_t; 4];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [float32x4_t; 4] {
        // SAFETY: the caller's promise, here and below.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe { from_fn(|i| vld1q_f32(at.add(4 * i))) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, x: [float32x4_t; 4]) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: see `splat`.
            unsafe { vst1q_f32(at.add(4 * i), x) }
        }
    }
    #[inline(always)]
    unsafe fn add(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe { from_fn(|i| vaddq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    unsafe fn mul(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe { from_fn(|i| vmulq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: [float32x4_t; 4], b: [float32x4_t; 4], c: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe { from_fn(|i| vfmaq_f32(c[i], a[i], b[i])) }
    }
    #[inline(always)]
    unsafe fn sub(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe { from_fn(|i| vsubq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    unsafe fn max(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe { from_fn(|i| vmaxq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    unsafe fn load_pairs(at: *const u8) -> ([float32x4_t; 4], [float32x4_t; 4]) {
        // SAFETY: see `splat`.
        unsafe {
            let x: [(float32x4_t, float32x4_t); 4] = from_fn(|i| widen(vreinterpretq_u32_u8(vld1q_u8(at.add(16 * i)))));
            (from_fn(|i| x[i].0), from_fn(|i| x[i].1))
        }
    }
    #[inline(always)]
    unsafe fn splat_pair(at: *const u8) -> ([float32x4_t; 4], [float32x4_t; 4]) {
        // SAFETY: see `splat`.
        unsafe {
            let (first, second) = widen(vdupq_n_u32(at.cast::<u32>().read_unaligned()));
            ([first; 4], [second; 4])
        }
    }
    #[inline(always)]
    unsafe fn add_exponent(x: [float32x4_t; 4], n: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe {
            from_fn(|i| vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(x[i]), vshlq_n_u32::<23>(vreinterpretq_u32_f32(n[i])))))
        }
    }
    #[inline(always)]
    unsafe fn zero_where_less(x: [float32x4_t; 4], y: [float32x4_t; 4], limit: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe { from_fn(|i| vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x[i]), vcltq_f32(y[i], limit[i])))) }
    }
    #[inline(always)]
    unsafe fn max_lane(x: [float32x4_t; 4]) -> f32 {
        // SAFETY: see `splat`.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(x[0], x[1]), vmaxq_f32(x[2], x[3]))) }
    }
}

impl Whole for Neon {
    type Pairs = [int16x8_t; 4];
    #[inline(always)]
    unsafe fn load_i8_pairs(at: *const u8) -> [int16x8_t; 4] {
        // SAFETY: see `splat`.
        unsafe { from_fn(|i| vmovl_s8(vld1_s8(at.add(8 * i).cast()))) }
    }
    #[inline(always)]
    unsafe fn splat_i16_pair(at: *const u8) -> [int16x8_t; 4] {
        // SAFETY: see `splat`.
        unsafe { [vreinterpretq_s16_s32(vdupq_n_s32(at.cast::<i32>().read_unaligned())); 4] }
    }
    #[inline(always)]
    unsafe fn add_products(sum: [float32x4_t; 4], a: [int16x8_t; 4], b: [int16x8_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe {
            from_fn(|i| {
                let low = vmull_s16(vget_low_s16(a[i]), vget_low_s16(b[i]));
                let pairs = vpaddq_s32(low, vmull_high_s16(a[i], b[i]));
                vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(sum[i]), pairs))
            })
        }
    }
    #[inline(always)]
    unsafe fn from_whole(x: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: see `splat`.
        unsafe { x.map(|x| vcvtq_f32_s32(vreinterpretq_s32_f32(x))) }
    }
    #[inline(always)]
    unsafe fn store_i16(at: *mut u8, x: [float32x4_t; 4]) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: see `splat`.
            unsafe { vst1_s16(at.add(8 * i).cast(), vqmovn_s32(vcvtnq_s32_f32(x))) }
        }
    }
}

/// Pairs of bf16 as f32.
#[inline(always)]
unsafe fn widen(pairs: uint32x4_t) -> (float32x4_t, float32x4_t) {
    // SAFETY: as for [`Lanes`].
    unsafe { (vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)), vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff_0000)))) }
}

kernels! { "neon":
    /// One row.
    dot_f32_one = dot::stream::<F32<Neon>, 1, 1>;
    /// Up to 6 rows.
    dot_f32_many = dot::rows::<F32<Neon>, 1, 6>;
    /// One row.
    dot_bf16_one = dot::stream::<Bf16<Neon>, 1, 1>;
    /// Up to 5 rows.
    dot_bf16_many = dot::converted_rows::<Bf16<Neon>, Bf16ByF32<Neon>, 3, 5>;
    /// f32 pages.
    attention_f32 = attention::<Vectors<F32<Neon>, 6, 3, 2>>;
    /// bf16 pages, all arithmetic in f32.
    attention_bf16 = attention::<Vectors<Bf16ByF32<Neon>, 5, 5, 1>>;
    /// int8 pages, products in whole numbers.
    attention_i8 = attention::<Vectors<I8<Neon>, 4, 4, 1>>;
    /// The roof.
    peak_f32 = peak::peak::<F32<Neon>, 6>;
    /// The roof of reading.
    read = peak::read::<Neon>;
}
