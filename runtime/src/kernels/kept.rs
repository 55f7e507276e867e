//! What attention asks of a format of the cache beyond its [`Mac`]: how queries and probabilities are taken over, and what sums are worth.
//! The loops are in `flash`.

use super::lanes::{Lanes, Whole};
use super::mac::{Bf16, Bf16ByF32, F32, Mac};
use super::tile::F;
use crate::abi::{PAGE_TOKENS, ROWS};
use std::marker::PhantomData;

/// Probabilities of the tokens of a page, 16 at a time.
pub(super) type Page<K> = [F<K>; PAGE_TOKENS / ROWS];

/// A [`Mac`] over a cache. The defaults are for sums that are numbers.
///
/// # Safety
/// As for [`Mac`].
pub(super) trait Kept: Mac {
    /// Bytes of the scale of a token, behind the elements of a page's K or V.
    const SCALE_BYTES: usize = 0;
    /// Writes activations for `16 / ELEMENTS` lines, and gives back what they were rounded to.
    #[inline(always)]
    unsafe fn put_x(to: *mut u8, x: F<Self>) -> F<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::L::store(to.cast(), x) }
        x
    }
    /// Takes a query of `head_dim` elements times `scale` over; returns the factor that is left for its sums.
    #[inline(always)]
    unsafe fn put_query(from: *const f32, to: *mut u8, head_dim: usize, scale: f32) -> f32 {
        for block in 0..head_dim / ROWS {
            // SAFETY: the caller's promise.
            unsafe {
                let x = Self::L::mul(Self::L::load(from.add(block * ROWS)), Self::L::splat(scale));
                Self::put_x(to.add(block * ROWS / Self::ELEMENTS * Self::X_BYTES), x);
            }
        }
        1.0
    }
    /// Scores of 16 tokens, whose scales are at `_scales`; `_factor` is what [`Kept::put_query`] gave.
    #[inline(always)]
    unsafe fn scores(sum: F<Self>, _scales: *const f32, _factor: f32) -> F<Self> {
        sum
    }
    /// Writes the probabilities of the first `blocks * 16` tokens for the products with their values, whose scales are at `_scales`. Returns
    /// the sum of what they were rounded to, as 16 sums, and the factor on the products.
    #[inline(always)]
    unsafe fn put_probabilities(to: *mut u8, p: Page<Self>, blocks: usize, _scales: *const f32) -> (F<Self>, f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = Self::L::splat(0.0);
            for (block, p) in p.into_iter().enumerate().take(blocks) {
                sum = Self::L::add(sum, Self::put_x(to.add(block * ROWS / Self::ELEMENTS * Self::X_BYTES), p));
            }
            (sum, 1.0)
        }
    }
    /// Sums to begin with, of which the products of a page are a part: `out * shrink`.
    #[inline(always)]
    unsafe fn begin(out: *const f32, shrink: f32) -> F<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::L::mul(Self::L::load(out), Self::L::splat(shrink)) }
    }
    /// Sums that began as [`Kept::begin`] to the result.
    #[inline(always)]
    unsafe fn finish(out: *mut f32, sum: F<Self>, _shrink: f32, _factor: f32) {
        // SAFETY: the caller's promise.
        unsafe { Self::L::store(out, sum) }
    }
}

impl<L: Lanes> Kept for F32<L> {}
impl<L: Lanes> Kept for Bf16<L> {}
impl<L: Lanes> Kept for Bf16ByF32<L> {}

/// int8 lines by queries and probabilities in 16 bits: sums of whole numbers, exact. A query has one factor, the probabilities of a page
/// together with the scales of its values too: at 15 bits that error is far below that of the codes.
pub(super) struct I8<L>(PhantomData<L>);

/// Greatest magnitude of a 16-bit number that is used.
const MOST: f32 = 32767.0;

impl<L: Whole> Mac for I8<L> {
    type L = L;
    type Line = L::Pairs;
    type X = L::Pairs;
    const LINE: usize = 32;
    const ELEMENTS: usize = 2;
    const X_BYTES: usize = 4;
    #[inline(always)]
    unsafe fn line(at: *const u8) -> L::Pairs {
        // SAFETY: the caller's promise.
        unsafe { L::load_i8_pairs(at) }
    }
    #[inline(always)]
    unsafe fn x(at: *const u8) -> L::Pairs {
        // SAFETY: the caller's promise.
        unsafe { L::splat_i16_pair(at) }
    }
    #[inline(always)]
    unsafe fn mac(sum: L::F, line: L::Pairs, x: L::Pairs) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { L::add_products(sum, line, x) }
    }
}

impl<L: Whole> Kept for I8<L> {
    const SCALE_BYTES: usize = 4;
    #[inline(always)]
    unsafe fn put_query(from: *const f32, to: *mut u8, head_dim: usize, scale: f32) -> f32 {
        // So that the sum of `head_dim` products with codes of 127 at most stays below 2^31.
        let limit = MOST.min((i32::MAX / 127 / head_dim.max(1) as i32) as f32);
        // SAFETY: the caller's promise.
        unsafe {
            let mut most = L::splat(0.0);
            for block in 0..head_dim / ROWS {
                let x = L::load(from.add(block * ROWS));
                most = L::max(most, L::max(x, L::mul(x, L::splat(-1.0))));
            }
            let most = L::max_lane(most);
            let steps = if most > 0.0 { limit / most } else { 0.0 };
            for block in 0..head_dim / ROWS {
                L::store_i16(to.add(block * ROWS * 2), L::mul(L::load(from.add(block * ROWS)), L::splat(steps)));
            }
            scale * (most / limit)
        }
    }
    #[inline(always)]
    unsafe fn scores(sum: L::F, scales: *const f32, factor: f32) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { L::mul(L::from_whole(sum), L::mul(L::load(scales), L::splat(factor))) }
    }
    #[inline(always)]
    unsafe fn put_probabilities(to: *mut u8, p: Page<Self>, blocks: usize, scales: *const f32) -> (L::F, f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (mut sum, mut most, mut scaled) = (L::splat(0.0), L::splat(0.0), p);
            for (block, p) in scaled.iter_mut().enumerate().take(blocks) {
                sum = L::add(sum, *p);
                *p = L::mul(*p, L::load(scales.add(block * ROWS)));
                most = L::max(most, *p);
            }
            let most = L::max_lane(most);
            let steps = L::splat(if most > 0.0 { MOST / most } else { 0.0 });
            for (block, p) in scaled.into_iter().enumerate().take(blocks) {
                L::store_i16(to.add(block * ROWS * 2), L::mul(p, steps));
            }
            (sum, most / MOST)
        }
    }
    #[inline(always)]
    unsafe fn begin(_out: *const f32, _shrink: f32) -> L::F {
        // SAFETY: the caller's promise. The bits of 0.0 are those of a whole 0.
        unsafe { L::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn finish(out: *mut f32, sum: L::F, shrink: f32, factor: f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let before = L::mul(L::load(out), L::splat(shrink));
            L::store(out, L::mul_add(L::from_whole(sum), L::splat(factor), before));
        }
    }
}
