//! What a vector of an instruction set can do with codes, always 16 rows at a time: the words in which `dot` is written. The
//! implementations are in `avx2`, `avxvnni`, `avx512` and `neon`.

use crate::kernels::lanes::Lanes;

/// Products of unsigned weight codes and signed activation codes.
///
/// # Safety
/// As for [`Lanes`]. Lines are 64 readable bytes, activations 4.
pub(super) trait Ints {
    /// Its vectors of f32.
    type L: Lanes;
    /// 16 rows of 4 codes in 0..=63.
    type Four: Copy;
    /// 16 rows of 4 codes of 8 bits.
    type Eight: Copy;
    /// 16 sums over at most 32 columns of int4, on the way.
    type Narrow: Copy;
    /// 16 sums.
    type Wide: Copy;

    /// Bytes ahead of one of several streams that lines are fetched; 0: they are not.
    const AHEAD: usize = 0;
    /// Bytes ahead that lines for a tile of rows are fetched: so much is computed with each that the core sees too few loads ahead. 0: they
    /// are not.
    const AHEAD_OF_TILE: usize = 0;
    /// Asks for what a stream will come to.
    #[inline(always)]
    unsafe fn ahead(at: *const u8) {
        if Self::AHEAD > 0 {
            // SAFETY: the caller's promise; any address will do.
            unsafe { Self::L::prefetch(at.wrapping_add(Self::AHEAD)) }
        }
    }
    /// Asks for what a tile of `M` rows will come to.
    #[inline(always)]
    unsafe fn ahead_of_tile<const M: usize>(at: *const u8) {
        if M > 1 && Self::AHEAD_OF_TILE > 0 {
            // SAFETY: the caller's promise; any address will do.
            unsafe { Self::L::prefetch(at.wrapping_add(Self::AHEAD_OF_TILE)) }
        }
    }

    /// No sums.
    unsafe fn zero() -> Self::Wide;
    /// `a + b`.
    unsafe fn add(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// As f32; they are small enough to be exact.
    unsafe fn float(sums: Self::Wide) -> <Self::L as Lanes>::F;
    /// 16 scales in f16.
    unsafe fn scales(at: *const u8) -> <Self::L as Lanes>::F;

    /// The low and the high halves of a line's bytes.
    unsafe fn halves(at: *const u8) -> (Self::Four, Self::Four);
    /// No sums.
    unsafe fn narrow_zero() -> Self::Narrow;
    /// Begins the next 32 columns of a group; `offset` points to what the offset of their codes makes up for.
    unsafe fn open(total: Self::Wide, offset: *const i32) -> Self::Narrow;
    /// Adds 4 columns; for one of `M` rows.
    unsafe fn add_four<const M: usize>(sums: Self::Narrow, w: Self::Four, x: *const u8) -> Self::Narrow;
    /// `a + b`.
    unsafe fn narrow_add(a: Self::Narrow, b: Self::Narrow) -> Self::Narrow;
    /// Ends the 32 columns that `open` began with the same `total` and `offset`.
    unsafe fn close(total: Self::Wide, offset: *const i32, sums: Self::Narrow) -> Self::Wide;

    /// `x` in every sum.
    unsafe fn start(x: i32) -> Self::Wide;
    /// 8 columns of int6: the halves of the line at `low`, each with two high bits from the line at `high`; `odd`: the upper four of its bits.
    unsafe fn sixes(low: *const u8, high: *const u8, odd: bool) -> (Self::Four, Self::Four);
    /// Adds 8 columns; for one of `M` rows.
    unsafe fn add_sixes<const M: usize>(sums: Self::Wide, w: (Self::Four, Self::Four), x: *const u8) -> Self::Wide;

    /// A line.
    unsafe fn eight(at: *const u8) -> Self::Eight;
    /// Sums of int8 to add to; `offset` is what the offset of the codes makes up for.
    unsafe fn eight_start(offset: i32) -> Self::Wide;
    /// Adds 4 columns; for one of `M` rows.
    unsafe fn add_eight<const M: usize>(sums: Self::Wide, w: Self::Eight, x: *const u8) -> Self::Wide;
}
