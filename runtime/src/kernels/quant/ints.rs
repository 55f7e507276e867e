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

    /// Bytes ahead that lines of one row are fetched; 0: they are not.
    const AHEAD: usize = 0;
    /// Bytes ahead that lines are fetched into the L2 cache, the next block's first lines among them. 0: they are not.
    const FAR_AHEAD: usize = 0;
    /// Bytes ahead that lines for a tile of rows are fetched: so much is computed with each that the core sees too few loads ahead. 0: they
    /// are not.
    const AHEAD_OF_TILE: usize = 0;
    /// Asks for what `M` rows will come to.
    #[inline(always)]
    unsafe fn ahead<const M: usize>(at: *const u8) {
        let near = if M == 1 { Self::AHEAD } else { Self::AHEAD_OF_TILE };
        // SAFETY: the caller's promise; any address will do.
        unsafe {
            if Self::FAR_AHEAD > 0 {
                Self::L::prefetch_to_l2(at.wrapping_add(Self::FAR_AHEAD));
            }
            if near > 0 {
                Self::L::prefetch(at.wrapping_add(near));
            }
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
