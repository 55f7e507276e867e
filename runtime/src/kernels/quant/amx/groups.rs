//! Chunks of formats with scales of groups: one long software pipeline over the groups of all tiles. A tile takes some 50 cycles to be read
//! and as many to be multiplied; a core cannot see so far ahead by itself while it scales the sums of other groups.

use super::TILE;
use super::chunk::{Chunk, Place, SUMS, each};
use super::formats::Unpacked;
use crate::format::ACT_GROUP;
use crate::kernels::amx;
use std::arch::x86_64::*;

/// Groups between the reading of a tile and the scaling of its sums.
const BEHIND: usize = 3;

/// Adds the products of `n` tiles of rows with the chunk to their results.
///
/// # Safety
/// As for [`super::many`]; the chunk is unpacked, the places are those of 16 rows each, and tiles are set up for the columns of a group.
#[inline(always)]
pub(super) unsafe fn add<U: Unpacked>(chunk: &mut Chunk, n: usize, place: impl Fn(usize) -> Place) {
    // Of each tile, and tiles of a round of the loop, which has four or eight groups.
    let groups = ACT_GROUP / U::GROUP;
    let together = if groups < SUMS { SUMS / groups } else { 1 };
    // SAFETY: the caller's promise.
    let nothing = unsafe { _mm512_setzero_ps() };
    let mut part = [nothing; TILE];
    let mut before = [chunk.nowhere(); 2];
    for first in (0..).step_by(together) {
        let mut now = [chunk.nowhere(); 2];
        (0..together.min(n.saturating_sub(first))).for_each(|i| now[i] = place(first + i));
        // SAFETY: the caller's promise. What is read and scaled before there is anything goes nowhere, so does what comes behind the last.
        unsafe {
            each!(I in 0 1 2 3 4 5 6 7 => {
                if I < groups * together {
                    let (behind, of) = if I < BEHIND { (groups * together + I - BEHIND, &before) } else { (I - BEHIND, &now) };
                    scale::<U>(chunk, behind % groups, (I + SUMS - BEHIND) % SUMS, &mut part);
                    if behind % groups == groups - 1 {
                        (0..TILE).for_each(|t| of[behind / groups].add(t, part[t]));
                        part = [nothing; TILE];
                    }
                    if I == BEHIND - 1 && first >= n {
                        return;
                    }
                    amx::store::<{ (I + 2) % SUMS }>(chunk.sums((I + 2) % SUMS), amx::ROW);
                    multiply::<U, { (I + 3) % SUMS }>(I.is_multiple_of(2));
                    load::<U>(chunk, &now[I / groups], I % groups * U::GROUP, I % 2 == 1);
                }
            });
        }
        before = now;
    }
}

/// The activations and codes of a group to the tiles with odd or even numbers, or to all if it has two steps.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
unsafe fn load<U: Unpacked>(chunk: &mut Chunk, place: &Place, column: usize, odd: bool) {
    let (x, w) = (place.x.wrapping_add(column), chunk.codes(column));
    // SAFETY: the caller's promise.
    unsafe {
        if U::GROUP > amx::ROW || !odd {
            amx::load::<4>(x, place.x_stride);
            amx::load::<6>(w, amx::ROW);
        }
        if U::GROUP > amx::ROW {
            amx::load::<5>(x.wrapping_add(amx::ROW), place.x_stride);
            amx::load::<7>(chunk.codes(column + amx::ROW), amx::ROW);
        } else if odd {
            amx::load::<5>(x, place.x_stride);
            amx::load::<7>(w, amx::ROW);
        }
    }
}

/// The sums of the group that was read last to tile `C`.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
unsafe fn multiply<U: Unpacked, const C: usize>(odd: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        amx::zero::<C>();
        if U::GROUP > amx::ROW || !odd {
            amx::multiply::<C, 4, 6>();
        }
        if U::GROUP > amx::ROW || odd {
            amx::multiply::<C, 5, 7>();
        }
    }
}

/// The sums of a group are there: `part = fma(f32(sum), ws, part)`.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
unsafe fn scale<U: Unpacked>(chunk: &mut Chunk, group: usize, from: usize, part: &mut [__m512; TILE]) {
    // SAFETY: the caller's promise.
    unsafe {
        let scales = _mm512_loadu_ps(chunk.scales(group));
        let sums = chunk.sums(from);
        for (t, part) in part.iter_mut().enumerate() {
            let sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums.add(t * amx::ROW).cast()));
            *part = _mm512_fmadd_ps(sum, scales, *part);
        }
    }
}
