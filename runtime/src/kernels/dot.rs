//! The dot template over any [`Mac`]: block after block, so that a thread reads one sequential stream of weights, and all rows of a tile at
//! once. Hardware prefetchers serve such a stream better than any blocking of the sum that was tried.
//!
//! With `P` 1 an element is the sum of its lines in order. With `P` 2 it is the sum of its even lines plus the sum of its odd lines.

use super::lanes::Lanes;
use super::mac::Mac;
use super::tile::{self, Lines, Rows, for_rows};
use crate::abi::{DotArgs, ROWS};
use std::mem::MaybeUninit;

/// Bytes of a line.
const LINE: usize = 64;

/// `M` rows.
///
/// # Safety
/// The contract of [`DotArgs`] with `m == M`, and as for [`Mac`].
#[inline(always)]
pub(super) unsafe fn stream<K: Mac, const P: usize, const M: usize>(a: &DotArgs) {
    const { assert!(P == 1 || P == 2) };
    let count = a.k as usize / K::ELEMENTS;
    for block in 0..a.blocks as usize {
        // SAFETY: the caller's promise.
        unsafe {
            let lines = Lines { at: a.w.add(block * count * LINE), stride: LINE, column: 0, count, ahead: None };
            let x = Rows { at: a.x, step: K::X_BYTES, stride: a.x_stride as usize };
            let out = a.out.add(block * ROWS);
            let mut sums = [[K::L::splat(0.0); P]; M];
            tile::add_alternately::<K, M, P>(&mut sums, lines, x);
            for_rows!(M, t => {
                let sum = if P == 2 { K::L::add(sums[t][0], sums[t][1]) } else { sums[t][0] };
                K::L::store(out.byte_add(t * a.out_stride as usize), sum);
            });
        }
    }
}

/// One row by `C` blocks at a time, each a stream of weights of its own: what [`stream`] gives, for CPUs that read several streams faster
/// than one.
///
/// # Safety
/// The contract of [`DotArgs`] with `m == 1`, and as for [`Mac`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn streams<K: Mac, const C: usize>(a: &DotArgs) {
    let count = a.k as usize / K::ELEMENTS;
    let whole = a.blocks as usize / C * C;
    for block in (0..whole).step_by(C) {
        // SAFETY: the caller's promise.
        unsafe {
            let w = a.w.add(block * count * LINE);
            let mut sums = [K::L::splat(0.0); C];
            for l in 0..count {
                let x = K::x(a.x.add(l * K::X_BYTES));
                for_rows!(C, c => { sums[c] = K::mac(sums[c], K::line(w.add((c * count + l) * LINE)), x); });
            }
            for_rows!(C, c => { K::L::store(a.out.add((block + c) * ROWS), sums[c]) });
        }
    }
    let rest =
        DotArgs { w: a.w.wrapping_add(whole * count * LINE), blocks: a.blocks - whole as u64, out: a.out.wrapping_add(whole * ROWS), ..*a };
    // SAFETY: the caller's promise, of which these are the last blocks.
    unsafe { stream::<K, 1, 1>(&rest) }
}

/// Up to `M` (at most 12) rows.
///
/// # Safety
/// The contract of [`DotArgs`] with `m <= M`, and as for [`Mac`].
#[inline(always)]
pub(super) unsafe fn rows<K: Mac, const P: usize, const M: usize>(a: &DotArgs) {
    macro_rules! rows {
        ($($n:literal)*) => {
            match a.m {
                $($n if $n <= M => stream::<K, P, $n>(a),)*
                _ => debug_assert!(false, "{} rows, the kernel takes {M}", a.m),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe { rows!(1 2 3 4 5 6 7 8 9 10 11 12) }
}

/// Lines between which activations are converted: a stream of 32 KB from each block.
const CHUNK: usize = 512;
/// Bytes from a row of converted activations to the next: a chunk of at most 8 bytes a line, and a gap.
const X_STRIDE: usize = CHUNK * 8 + 64;

/// Converted activations of up to 12 rows.
type Converted = [MaybeUninit<u8>; 12 * X_STRIDE];

/// As [`rows`] with `P` 1: up to `FEW` rows through `S`; more through `K`, which wants other activations than the caller has: they are
/// converted once for all blocks.
///
/// # Safety
/// As for [`rows`].
#[inline(always)]
pub(super) unsafe fn converted_rows<S: Mac, K: Mac, const FEW: usize, const M: usize>(a: &DotArgs) {
    const { assert!(K::X_BYTES <= 8) };
    if a.m as usize <= FEW {
        // SAFETY: the caller's promise.
        return unsafe { rows::<S, 1, FEW>(a) };
    }
    let mut space: Converted = [const { MaybeUninit::uninit() }; _];
    let x = space.as_mut_ptr().cast::<u8>();
    let count = a.k as usize / K::ELEMENTS;
    for first in (0..count).step_by(CHUNK) {
        let lines = CHUNK.min(count - first);
        // SAFETY: the caller's promise; a chunk of each row fits its place.
        unsafe {
            for t in 0..a.m as usize {
                K::convert(a.x.add(t * a.x_stride as usize + first * K::X_SOURCE_BYTES), x.add(t * X_STRIDE), lines);
            }
            for block in 0..a.blocks as usize {
                let lines = Lines { at: a.w.add((block * count + first) * LINE), stride: LINE, column: 0, count: lines, ahead: None };
                macro_rules! rows {
                    ($($n:literal)*) => {
                        match a.m {
                            $($n if $n > FEW && $n <= M => continued::<K, $n>(a, block, lines, x, first > 0),)*
                            _ => debug_assert!(false, "{} rows, the kernel takes {M}", a.m),
                        }
                    };
                }
                rows!(1 2 3 4 5 6 7 8 9 10 11 12);
            }
        }
    }
}

/// `M` rows by a block, a chunk of the lines; what was summed before stands in the result if there was anything.
///
/// # Safety
/// As for [`converted_rows`].
#[inline(always)]
unsafe fn continued<K: Mac, const M: usize>(a: &DotArgs, block: usize, lines: Lines, x: *const u8, any: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let out = a.out.add(block * ROWS);
        let mut sums = [[K::L::splat(0.0); 1]; M];
        if any {
            for_rows!(M, t => { sums[t] = [K::L::load(out.byte_add(t * a.out_stride as usize))]; });
        }
        tile::add::<K, M, 1>(&mut sums, lines, Rows { at: x, step: K::X_BYTES, stride: X_STRIDE });
        for_rows!(M, t => { K::L::store(out.byte_add(t * a.out_stride as usize), sums[t][0]) });
    }
}
