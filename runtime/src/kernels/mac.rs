//! How a line of memory is multiplied with activations and added to a sum: one [`Mac`] for each pair of formats. Loops over lines are in
//! `tile`.

use super::lanes::Lanes;
use std::marker::PhantomData;

/// A multiply-accumulate of one line: 16 rows (or tokens, or columns) by one or two elements along the sum.
///
/// # Safety
/// As for [`Lanes`]; a line is `LINE` readable bytes, activations are `X_BYTES` readable bytes.
pub(super) trait Mac {
    /// Its vectors.
    type L: Lanes;
    /// A line in registers.
    type Line: Copy;
    /// The activations for one line, in all lanes.
    type X: Copy;
    /// Bytes of a line.
    const LINE: usize = 64;
    /// Elements along the sum in a line.
    const ELEMENTS: usize;
    /// Bytes of activations for a line.
    const X_BYTES: usize;
    /// Bytes of activations for a line as the caller of a dot has them.
    const X_SOURCE_BYTES: usize = Self::X_BYTES;
    /// Copies the activations for `lines` lines from the caller's form to this one's.
    #[inline(always)]
    unsafe fn convert(from: *const u8, to: *mut u8, lines: usize) {
        // SAFETY: the caller's promise.
        unsafe { to.copy_from_nonoverlapping(from, lines * Self::X_BYTES) }
    }
    /// How many bytes ahead of a single row's stream lines are fetched: where so many instructions go by per line that the core sees too
    /// few loads ahead. 0: not at all.
    const AHEAD: usize = 0;
    /// Reads a line.
    unsafe fn line(at: *const u8) -> Self::Line;
    /// Reads the activations for a line.
    unsafe fn x(at: *const u8) -> Self::X;
    /// `sum + line * x`.
    unsafe fn mac(sum: <Self::L as Lanes>::F, line: Self::Line, x: Self::X) -> <Self::L as Lanes>::F;
}

/// f32 lines, f32 activations.
pub(super) struct F32<L>(PhantomData<L>);

impl<L: Lanes> Mac for F32<L> {
    type L = L;
    type Line = L::F;
    type X = L::F;
    const ELEMENTS: usize = 1;
    const X_BYTES: usize = 4;
    #[inline(always)]
    unsafe fn line(at: *const u8) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { L::load(at.cast()) }
    }
    #[inline(always)]
    unsafe fn x(at: *const u8) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { L::splat(at.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn mac(sum: L::F, line: L::F, x: L::F) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { L::mul_add(line, x, sum) }
    }
}

/// bf16 lines, bf16 activations, both widened to f32.
pub(super) struct Bf16<L>(PhantomData<L>);

impl<L: Lanes> Mac for Bf16<L> {
    type L = L;
    type Line = (L::F, L::F);
    type X = (L::F, L::F);
    const ELEMENTS: usize = 2;
    const X_BYTES: usize = 4;
    const AHEAD: usize = L::AHEAD_WIDENING;
    #[inline(always)]
    unsafe fn line(at: *const u8) -> (L::F, L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::load_pairs(at) }
    }
    #[inline(always)]
    unsafe fn x(at: *const u8) -> (L::F, L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::splat_pair(at) }
    }
    #[inline(always)]
    unsafe fn mac(sum: L::F, line: (L::F, L::F), x: (L::F, L::F)) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { L::mul_add(line.1, x.1, L::mul_add(line.0, x.0, sum)) }
    }
}

/// bf16 lines widened to f32, f32 activations; the caller's are bf16.
pub(super) struct Bf16ByF32<L>(PhantomData<L>);

impl<L: Lanes> Mac for Bf16ByF32<L> {
    type L = L;
    type Line = (L::F, L::F);
    type X = (L::F, L::F);
    const ELEMENTS: usize = 2;
    const X_BYTES: usize = 8;
    const X_SOURCE_BYTES: usize = 4;
    #[inline(always)]
    unsafe fn convert(from: *const u8, to: *mut u8, lines: usize) {
        for i in 0..2 * lines {
            // SAFETY: the caller's promise.
            unsafe {
                let bits = u32::from(from.cast::<u16>().add(i).read_unaligned()) << 16;
                to.cast::<u32>().add(i).write_unaligned(bits);
            }
        }
    }
    #[inline(always)]
    unsafe fn line(at: *const u8) -> (L::F, L::F) {
        // SAFETY: the caller's promise.
        unsafe { L::load_pairs(at) }
    }
    #[inline(always)]
    unsafe fn x(at: *const u8) -> (L::F, L::F) {
        // SAFETY: the caller's promise.
        unsafe {
            let at = at.cast::<f32>();
            (L::splat(at.read_unaligned()), L::splat(at.add(1).read_unaligned()))
        }
    }
    #[inline(always)]
    unsafe fn mac(sum: L::F, line: (L::F, L::F), x: (L::F, L::F)) -> L::F {
        // SAFETY: the caller's promise.
        unsafe { L::mul_add(line.1, x.1, L::mul_add(line.0, x.0, sum)) }
    }
}
