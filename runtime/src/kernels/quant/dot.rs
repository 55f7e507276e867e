//! The dot templates over any [`Ints`]: block after block, so that a thread reads one sequential stream of weights. The arithmetic is
//! described in the module above.

use super::groups::{Grouped, Rows};
use super::ints::Ints;
use crate::abi::{DotArgs, ROWS};
use crate::format::{ACT_GROUP, I8Row, SUM_GROUP};
use crate::kernels::lanes::Lanes;
use crate::kernels::tile::for_rows;

/// `M` rows of a format with scales in its units.
///
/// # Safety
/// The contract of [`DotArgs`] with `m == M`, and as for [`Ints`].
#[inline(always)]
unsafe fn grouped<D: Ints, G: Grouped, const M: usize>(a: &DotArgs) {
    let unit_bytes = 2 * G::BYTES + 64;
    let units = a.k as usize / (2 * G::COLUMNS);
    let units_of_chunk = ACT_GROUP / (2 * G::COLUMNS);
    let place = I8Row::new(a.k as usize);
    let x = Rows::new(a.x, a.x_stride as usize);
    for block in 0..a.blocks as usize {
        // SAFETY: the caller's promise.
        unsafe {
            let mut w = a.w.add(block * units * unit_bytes);
            let mut y = [D::L::splat(0.0); M];
            for first in (0..units).step_by(units_of_chunk) {
                let mut part = [D::L::splat(0.0); M];
                for unit in first..units.min(first + units_of_chunk) {
                    for half in 0..2 {
                        let column = (2 * unit + half) * G::COLUMNS;
                        let sums = x.add(place.sums + column / SUM_GROUP * 4);
                        let sums = G::sums::<D, M>(w.add(half * G::BYTES), x.add(column), sums);
                        if half == 1 {
                            D::ahead::<M>(w.add(2 * G::BYTES));
                        }
                        let scales = D::scales(w.add(2 * G::BYTES + half * 32));
                        for_rows!(M, t => { part[t] = D::L::mul_add(D::float(sums[t]), scales, part[t]); });
                    }
                    w = w.add(unit_bytes);
                }
                let scales = x.add(place.scales + first / units_of_chunk * 4);
                for_rows!(M, t => { y[t] = D::L::mul_add(part[t], D::L::splat(scales.row(t).cast::<f32>().read_unaligned()), y[t]); });
            }
            let out = a.out.add(block * ROWS);
            for_rows!(M, t => { D::L::store(out.byte_add(t * a.out_stride as usize), y[t]) });
        }
    }
}

/// One row of a format with scales in its units by `S` blocks at a time, unit by unit.
///
/// # Safety
/// As for [`grouped`] with `M` 1.
#[inline(always)]
unsafe fn grouped_streams<D: Ints, G: Grouped, const S: usize>(a: &DotArgs) {
    let unit_bytes = 2 * G::BYTES + 64;
    let units = a.k as usize / (2 * G::COLUMNS);
    let units_of_chunk = ACT_GROUP / (2 * G::COLUMNS);
    let place = I8Row::new(a.k as usize);
    let x = Rows::new(a.x, a.x_stride as usize);
    let whole = a.blocks as usize / S * S;
    for block in (0..whole).step_by(S) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut w = a.w.add(block * units * unit_bytes);
            let mut y = [D::L::splat(0.0); S];
            for first in (0..units).step_by(units_of_chunk) {
                let mut part = [D::L::splat(0.0); S];
                for unit in first..units.min(first + units_of_chunk) {
                    let stride = units * unit_bytes;
                    for half in 0..2 {
                        let column = (2 * unit + half) * G::COLUMNS;
                        let sums = x.add(place.sums + column / SUM_GROUP * 4);
                        let sums = G::across::<D, S>(w.add(half * G::BYTES), stride, x.add(column).row(0), sums.row(0));
                        for_rows!(S, s => {
                            let scales = D::scales(w.add(s * stride + 2 * G::BYTES + half * 32));
                            part[s] = D::L::mul_add(D::float(sums[s]), scales, part[s]);
                        });
                    }
                    w = w.add(unit_bytes);
                }
                let scale = D::L::splat(x.add(place.scales + first / units_of_chunk * 4).row(0).cast::<f32>().read_unaligned());
                for_rows!(S, s => { y[s] = D::L::mul_add(part[s], scale, y[s]); });
            }
            for_rows!(S, s => { D::L::store(a.out.add((block + s) * ROWS), y[s]) });
        }
    }
    // SAFETY: the caller's promise, of which these are the last blocks.
    unsafe { grouped::<D, G, 1>(&last_blocks(a, whole, units * unit_bytes)) }
}

/// The same without the first blocks.
#[inline(always)]
fn last_blocks(a: &DotArgs, without: usize, block_bytes: usize) -> DotArgs {
    DotArgs { w: a.w.wrapping_add(without * block_bytes), blocks: a.blocks - without as u64, out: a.out.wrapping_add(without * ROWS), ..*a }
}

/// Lines of `q8` that are added in as many chains where there is but one row.
const CHAINS: usize = 4;

/// `M` rows of `q8`.
///
/// # Safety
/// As for [`grouped`].
#[inline(always)]
unsafe fn by_row<D: Ints, const M: usize>(a: &DotArgs) {
    let lines = a.k as usize / 4;
    let place = I8Row::new(a.k as usize);
    let x = Rows::new(a.x, a.x_stride as usize);
    for block in 0..a.blocks as usize {
        // SAFETY: the caller's promise.
        unsafe {
            let w = a.w.add(block * (lines * 64 + 64));
            let mut y = [D::L::splat(0.0); M];
            for first in (0..lines).step_by(ACT_GROUP / 4) {
                let chunk = first / (ACT_GROUP / 4);
                let offsets = x.add(place.group_sums + chunk * 4);
                let mut sums = [D::zero(); M];
                for_rows!(M, t => { sums[t] = D::eight_start(offsets.row(t).cast::<i32>().read_unaligned()); });
                let mut others = [D::zero(); CHAINS - 1];
                // A unit is 8 lines.
                for line in (first..lines.min(first + ACT_GROUP / 4)).step_by(8) {
                    let x = x.add(4 * line);
                    for i in 0..8 {
                        D::ahead::<M>(w.add((line + i) * 64));
                        let eight = D::eight(w.add((line + i) * 64));
                        if M == 1 && i % CHAINS > 0 {
                            let other = &mut others[i % CHAINS - 1];
                            *other = D::add_eight::<M>(*other, eight, x.row(0).add(4 * i));
                        } else {
                            for_rows!(M, t => { sums[t] = D::add_eight::<M>(sums[t], eight, x.row(t).add(4 * i)); });
                        }
                    }
                }
                if M == 1 {
                    sums[0] = others.iter().fold(sums[0], |sum, &other| D::add(sum, other));
                }
                let scales = x.add(place.scales + chunk * 4);
                for_rows!(M, t => {
                    y[t] = D::L::mul_add(D::float(sums[t]), D::L::splat(scales.row(t).cast::<f32>().read_unaligned()), y[t]);
                });
            }
            let scales = D::L::load(w.add(lines * 64).cast());
            let out = a.out.add(block * ROWS);
            for_rows!(M, t => { D::L::store(out.byte_add(t * a.out_stride as usize), D::L::mul(y[t], scales)) });
        }
    }
}

/// One row of `q8` by `S` blocks at a time, line by line.
///
/// # Safety
/// As for [`by_row`] with `M` 1.
#[inline(always)]
unsafe fn by_row_streams<D: Ints, const S: usize>(a: &DotArgs) {
    let lines = a.k as usize / 4;
    let place = I8Row::new(a.k as usize);
    let x = Rows::new(a.x, a.x_stride as usize);
    let block_bytes = lines * 64 + 64;
    let whole = a.blocks as usize / S * S;
    for block in (0..whole).step_by(S) {
        // SAFETY: the caller's promise.
        unsafe {
            let w = a.w.add(block * block_bytes);
            let mut y = [D::L::splat(0.0); S];
            for first in (0..lines).step_by(ACT_GROUP / 4) {
                let chunk = first / (ACT_GROUP / 4);
                let offset = x.add(place.group_sums + chunk * 4).row(0).cast::<i32>().read_unaligned();
                let mut sums = [D::eight_start(offset); S];
                for line in first..lines.min(first + ACT_GROUP / 4) {
                    let x = x.add(4 * line).row(0);
                    for_rows!(S, s => {
                        let at = w.add(s * block_bytes + line * 64);
                        D::ahead::<1>(at);
                        sums[s] = D::add_eight::<S>(sums[s], D::eight(at), x);
                    });
                }
                let scale = D::L::splat(x.add(place.scales + chunk * 4).row(0).cast::<f32>().read_unaligned());
                for_rows!(S, s => { y[s] = D::L::mul_add(D::float(sums[s]), scale, y[s]); });
            }
            for_rows!(S, s => {
                let scales = D::L::load(w.add(s * block_bytes + lines * 64).cast());
                D::L::store(a.out.add((block + s) * ROWS), D::L::mul(y[s], scales));
            });
        }
    }
    // SAFETY: the caller's promise, of which these are the last blocks.
    unsafe { by_row::<D, 1>(&last_blocks(a, whole, block_bytes)) }
}

/// A weight format that there is a template for.
pub(super) trait Format {
    /// `M` rows.
    ///
    /// # Safety
    /// The contract of [`DotArgs`] with `m == M`, and as for [`Ints`].
    unsafe fn rows<D: Ints, const M: usize>(a: &DotArgs);
    /// One row by `S` blocks at a time.
    ///
    /// # Safety
    /// As for `rows` with `M` 1.
    unsafe fn streams<D: Ints, const S: usize>(a: &DotArgs);
}

impl<G: Grouped> Format for G {
    #[inline(always)]
    unsafe fn rows<D: Ints, const M: usize>(a: &DotArgs) {
        // SAFETY: the caller's promise.
        unsafe { grouped::<D, G, M>(a) }
    }
    #[inline(always)]
    unsafe fn streams<D: Ints, const S: usize>(a: &DotArgs) {
        // SAFETY: the caller's promise.
        unsafe { grouped_streams::<D, G, S>(a) }
    }
}

/// int8 by rows.
pub(super) struct ByRow;

impl Format for ByRow {
    #[inline(always)]
    unsafe fn rows<D: Ints, const M: usize>(a: &DotArgs) {
        // SAFETY: the caller's promise.
        unsafe { by_row::<D, M>(a) }
    }
    #[inline(always)]
    unsafe fn streams<D: Ints, const S: usize>(a: &DotArgs) {
        // SAFETY: the caller's promise.
        unsafe { by_row_streams::<D, S>(a) }
    }
}

/// One row by `S` blocks at a time, where the CPU reads several streams faster than one.
///
/// # Safety
/// The contract of [`DotArgs`] with `m == 1`, and as for [`Ints`].
#[inline(always)]
pub(super) unsafe fn one<D: Ints, T: Format, const S: usize>(a: &DotArgs) {
    // SAFETY: the caller's promise.
    unsafe { if S == 1 { T::rows::<D, 1>(a) } else { T::streams::<D, S>(a) } }
}

macro_rules! up_to {
    ($($(#[$doc:meta])* $name:ident: $($m:literal)*;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// The contract of [`DotArgs`], and as for [`Ints`].
        #[inline(always)]
        pub(super) unsafe fn $name<D: Ints, T: Format>(a: &DotArgs) {
            let mut rest = *a;
            $(while rest.m >= $m {
                // SAFETY: the caller's promise, of which these are some rows.
                unsafe { T::rows::<D, $m>(&rest) };
                rest.m -= $m;
                rest.x = rest.x.wrapping_add($m * rest.x_stride as usize);
                rest.out = rest.out.wrapping_byte_add($m * rest.out_stride as usize);
            })*
        }
    )* };
}

up_to! {
    /// Any number of rows in tiles of up to 4.
    by_4: 4 3 2 1;
    #[cfg(target_arch = "x86_64")]
    /// Any number of rows in tiles of up to 12. Not every number has its own code: the others read the weights twice, from a cache then.
    by_12: 12 8 6 4 3 2 1;
}
