//! Groups of columns that share a scale: how each format sums one, for rows of a tile and for one row in several streams. What is done with
//! the sums is in `dot`.

use super::ints::Ints;
use crate::format::SUM_GROUP;
use crate::kernels::tile::for_rows;

/// A place in each of up to 12 rows. Every third row has a pointer, the two behind it are one and two strides away: few registers hold
/// them all.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    thirds: [*const u8; 4],
    stride: usize,
}

impl Rows {
    #[inline(always)]
    pub(super) fn new(at: *const u8, stride: usize) -> Rows {
        Rows { thirds: std::array::from_fn(|i| at.wrapping_add(3 * i * stride)), stride }
    }
    /// The same place of row `t`.
    #[inline(always)]
    pub(super) fn row(&self, t: usize) -> *const u8 {
        self.thirds[t / 3].wrapping_add(t % 3 * self.stride)
    }
    /// Another place.
    #[inline(always)]
    pub(super) fn add(self, bytes: usize) -> Rows {
        Rows { thirds: self.thirds.map(|at| at.wrapping_add(bytes)), stride: self.stride }
    }
}

/// A format whose units are two groups of lines and one line of their scales.
pub(super) trait Grouped {
    /// Columns of a group.
    const COLUMNS: usize;
    /// Bytes of a group without its scales.
    const BYTES: usize;
    /// The sums of a group.
    ///
    /// # Safety
    /// As for [`Ints`]: the group at `w`, its activations at `x` and their sums of 32 at `sums` are readable.
    unsafe fn sums<D: Ints, const M: usize>(w: *const u8, x: Rows, sums: Rows) -> [D::Wide; M];
    /// The sums of a group of one row in each of `S` blocks, which stand `stride` bytes apart.
    ///
    /// # Safety
    /// As for `sums`, in every block.
    unsafe fn across<D: Ints, const S: usize>(w: *const u8, stride: usize, x: *const u8, sums: *const u8) -> [D::Wide; S];
}

/// int4 in groups of `G`.
pub(super) struct Four<const G: usize>;

impl<const G: usize> Grouped for Four<G> {
    const COLUMNS: usize = G;
    const BYTES: usize = G / 8 * 64;
    #[inline(always)]
    unsafe fn sums<D: Ints, const M: usize>(w: *const u8, x: Rows, sums: Rows) -> [D::Wide; M] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut total = [D::zero(); M];
            for part in 0..G / SUM_GROUP {
                let mut low = [D::narrow_zero(); M];
                // One row alone is summed in two chains, which keeps more loads in flight.
                let mut high = D::narrow_zero();
                for_rows!(M, t => { low[t] = D::open(total[t], sums.row(t).add(4 * part).cast()); });
                for line in 4 * part..4 * part + 4 {
                    D::ahead::<M>(w.add(line * 64));
                    let (l, h) = D::halves(w.add(line * 64));
                    for_rows!(M, t => { low[t] = D::add_four::<M>(low[t], l, x.row(t).add(8 * line)); });
                    if M == 1 {
                        high = D::add_four::<M>(high, h, x.row(0).add(8 * line + 4));
                    } else {
                        for_rows!(M, t => { low[t] = D::add_four::<M>(low[t], h, x.row(t).add(8 * line + 4)); });
                    }
                }
                if M == 1 {
                    low[0] = D::narrow_add(low[0], high);
                }
                for_rows!(M, t => { total[t] = D::close(total[t], sums.row(t).add(4 * part).cast(), low[t]); });
            }
            total
        }
    }
    #[inline(always)]
    unsafe fn across<D: Ints, const S: usize>(w: *const u8, stride: usize, x: *const u8, sums: *const u8) -> [D::Wide; S] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut total = [D::zero(); S];
            for part in 0..G / SUM_GROUP {
                let offset = sums.add(4 * part).cast();
                let mut narrow = [D::narrow_zero(); S];
                for_rows!(S, s => { narrow[s] = D::open(total[s], offset); });
                for line in 4 * part..4 * part + 4 {
                    for_rows!(S, s => {
                        let at = w.add(s * stride + line * 64);
                        D::ahead::<1>(at);
                        let (low, high) = D::halves(at);
                        narrow[s] = D::add_four::<S>(narrow[s], low, x.add(8 * line));
                        narrow[s] = D::add_four::<S>(narrow[s], high, x.add(8 * line + 4));
                    });
                }
                for_rows!(S, s => { total[s] = D::close(total[s], offset, narrow[s]); });
            }
            total
        }
    }
}

/// A format whose groups of 32 are summed in 32 bits at once, in a few steps of equal columns.
pub(super) trait Stepped {
    /// Bytes of a group without its scales.
    const BYTES: usize;
    /// Steps of a group.
    const STEPS: usize;
    /// Codes of a step.
    type Codes<D: Ints>: Copy;
    /// Lines of a step; where the second is another one, the next odd step has it too.
    fn lines(step: usize) -> [usize; 2];
    /// Sums to begin with; `offset` makes up for an offset of 8 of the codes.
    ///
    /// # Safety
    /// As for [`Ints`], here and below.
    unsafe fn start<D: Ints>(offset: i32) -> D::Wide;
    /// The codes of a step of the group at `w`.
    unsafe fn codes<D: Ints>(w: *const u8, step: usize) -> Self::Codes<D>;
    /// Adds the columns of a step; for one of `M` rows.
    unsafe fn add<D: Ints, const M: usize>(sums: D::Wide, codes: Self::Codes<D>, x: *const u8) -> D::Wide;
}

impl<T: Stepped> Grouped for T {
    const COLUMNS: usize = SUM_GROUP;
    const BYTES: usize = T::BYTES;
    #[inline(always)]
    unsafe fn sums<D: Ints, const M: usize>(w: *const u8, x: Rows, sums: Rows) -> [D::Wide; M] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut total = [D::zero(); M];
            for_rows!(M, t => { total[t] = T::start::<D>(sums.row(t).cast::<i32>().read_unaligned()); });
            // One row alone is summed in two chains.
            let mut odd = D::zero();
            for step in 0..T::STEPS {
                let [first, second] = T::lines(step);
                D::ahead::<M>(w.add(first * 64));
                if second != first && step % 2 == 1 {
                    D::ahead::<M>(w.add(second * 64));
                }
                let (codes, column) = (T::codes::<D>(w, step), SUM_GROUP / T::STEPS * step);
                if M == 1 && step % 2 == 1 {
                    odd = T::add::<D, M>(odd, codes, x.row(0).add(column));
                } else {
                    for_rows!(M, t => { total[t] = T::add::<D, M>(total[t], codes, x.row(t).add(column)); });
                }
            }
            if M == 1 {
                total[0] = D::add(total[0], odd);
            }
            total
        }
    }
    #[inline(always)]
    unsafe fn across<D: Ints, const S: usize>(w: *const u8, stride: usize, x: *const u8, sums: *const u8) -> [D::Wide; S] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut total = [T::start::<D>(sums.cast::<i32>().read_unaligned()); S];
            for step in 0..T::STEPS {
                let [first, second] = T::lines(step);
                for_rows!(S, s => {
                    let at = w.add(s * stride);
                    D::ahead::<1>(at.add(first * 64));
                    if second != first && step % 2 == 1 {
                        D::ahead::<1>(at.add(second * 64));
                    }
                    total[s] = T::add::<D, S>(total[s], T::codes::<D>(at, step), x.add(SUM_GROUP / T::STEPS * step));
                });
            }
            total
        }
    }
}

/// int8 in groups of 32.
pub(super) struct Eight;

impl Stepped for Eight {
    const BYTES: usize = 512;
    const STEPS: usize = 8;
    type Codes<D: Ints> = D::Eight;
    fn lines(step: usize) -> [usize; 2] {
        [step; 2]
    }
    #[inline(always)]
    unsafe fn start<D: Ints>(offset: i32) -> D::Wide {
        // SAFETY: the caller's promise. The offset of the codes is 128.
        unsafe { D::eight_start(offset.wrapping_mul(16)) }
    }
    #[inline(always)]
    unsafe fn codes<D: Ints>(w: *const u8, step: usize) -> D::Eight {
        // SAFETY: the caller's promise.
        unsafe { D::eight(w.add(step * 64)) }
    }
    #[inline(always)]
    unsafe fn add<D: Ints, const M: usize>(sums: D::Wide, codes: D::Eight, x: *const u8) -> D::Wide {
        // SAFETY: the caller's promise.
        unsafe { D::add_eight::<M>(sums, codes, x) }
    }
}

/// int6 in groups of 32.
pub(super) struct Six;

impl Stepped for Six {
    const BYTES: usize = 6 * 64;
    const STEPS: usize = 4;
    type Codes<D: Ints> = (D::Four, D::Four);
    fn lines(step: usize) -> [usize; 2] {
        [step, 4 + step / 2]
    }
    #[inline(always)]
    unsafe fn start<D: Ints>(offset: i32) -> D::Wide {
        // SAFETY: the caller's promise. The offset of the codes is 32.
        unsafe { D::start(offset.wrapping_mul(4)) }
    }
    #[inline(always)]
    unsafe fn codes<D: Ints>(w: *const u8, step: usize) -> (D::Four, D::Four) {
        let [low, high] = Self::lines(step);
        // SAFETY: the caller's promise.
        unsafe { D::sixes(w.add(low * 64), w.add(high * 64), step % 2 == 1) }
    }
    #[inline(always)]
    unsafe fn add<D: Ints, const M: usize>(sums: D::Wide, codes: (D::Four, D::Four), x: *const u8) -> D::Wide {
        // SAFETY: the caller's promise.
        unsafe { D::add_sixes::<M>(sums, codes, x) }
    }
}
