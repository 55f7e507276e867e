//! What a vector of an instruction set can do, always 16 numbers at a time: the words in which the templates are written. The
//! implementations are in `avx2`, `avx512` and `neon`.

use super::exp;

/// Whole numbers in the same registers: `F` may hold the bits of 16 i32, of which 0.0 is 0.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Whole: Lanes {
    /// 16 pairs of i16.
    type Pairs: Copy;
    /// 16 pairs of i8 from memory.
    unsafe fn load_i8_pairs(at: *const u8) -> Self::Pairs;
    /// One pair of i16 in all lanes.
    unsafe fn splat_i16_pair(at: *const u8) -> Self::Pairs;
    /// `sum + a0 * b0 + a1 * b1` of i32; nothing may leave their range.
    unsafe fn add_products(sum: Self::F, a: Self::Pairs, b: Self::Pairs) -> Self::F;
    /// i32 to f32.
    unsafe fn from_whole(x: Self::F) -> Self::F;
    /// f32 to the nearest i16, ties to even, to memory; they are within its range.
    unsafe fn store_i16(at: *mut u8, x: Self::F);
}

/// 16 f32 in however many registers it takes.
///
/// # Safety
/// Every function may only be called where the CPU has the instruction set, from a function that enables its features: then it is inlined
/// there and costs what its instruction costs. Pointers need no alignment.
pub(super) trait Lanes {
    /// The 16 numbers.
    type F: Copy;
    /// [`super::mac::Mac::AHEAD`] of widened bf16.
    const AHEAD_WIDENING: usize = 0;

    /// All `x`.
    unsafe fn splat(x: f32) -> Self::F;
    /// 16 numbers from memory.
    unsafe fn load(at: *const f32) -> Self::F;
    /// 16 numbers to memory.
    unsafe fn store(at: *mut f32, x: Self::F);
    /// `a + b`.
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a - b`.
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// The greater.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// 16 pairs of bf16: first of each pair, second of each pair.
    unsafe fn load_pairs(at: *const u8) -> (Self::F, Self::F);
    /// One pair of bf16 in all lanes: first, second.
    unsafe fn splat_pair(at: *const u8) -> (Self::F, Self::F);
    /// Adds the low bits of `n`, taken as an integer, to the exponents of `x`.
    unsafe fn add_exponent(x: Self::F, n: Self::F) -> Self::F;
    /// `x` where `!(y < limit)`, else 0.
    unsafe fn zero_where_less(x: Self::F, y: Self::F, limit: Self::F) -> Self::F;

    /// Asks for a line of memory; any address will do.
    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}
    /// Asks for a line of memory in the L2 cache only.
    #[inline(always)]
    unsafe fn prefetch_to_l2(_at: *const u8) {}
    /// The greatest of the 16.
    unsafe fn max_lane(x: Self::F) -> f32;

    /// As [`exp::exp2`] in every lane, with products and sums rounded once.
    #[inline(always)]
    unsafe fn exp2(x: Self::F) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe {
            let shifted = Self::add(x, Self::splat(exp::ROUND));
            let r = Self::sub(x, Self::sub(shifted, Self::splat(exp::ROUND)));
            let mut q = Self::splat(exp::POLY[4]);
            for c in [exp::POLY[3], exp::POLY[2], exp::POLY[1], exp::POLY[0], 1.0] {
                q = Self::mul_add(q, r, Self::splat(c));
            }
            Self::zero_where_less(Self::add_exponent(q, shifted), x, Self::splat(exp::LOWEST))
        }
    }
}
