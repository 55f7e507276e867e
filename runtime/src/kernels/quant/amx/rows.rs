//! Chunks of int8 with scales of rows only: up to four tiles of rows at a time, so that four sums grow side by side. Each takes its 52 cycles
//! for a step of 64 columns, a product alone 16.

use super::TILE;
use super::chunk::{Chunk, Place, SUMS, each};
use crate::format::ACT_GROUP;
use crate::kernels::amx;
use std::arch::x86_64::*;

/// Adds the products of `n` tiles of rows with the chunk to their results.
///
/// # Safety
/// As for [`super::many`]; the chunk is unpacked, the places are those of 16 rows each, and tiles are set up for 64 columns.
#[inline(always)]
pub(super) unsafe fn add(chunk: &mut Chunk, n: usize, place: impl Fn(usize) -> Place) {
    let mut before = [chunk.nowhere(); SUMS];
    for first in (0..).step_by(SUMS) {
        let mut now = [chunk.nowhere(); SUMS];
        let some = SUMS.min(n.saturating_sub(first));
        (0..some).for_each(|i| now[i] = place(first + i));
        // SAFETY: the caller's promise. What is scaled before there is anything goes nowhere.
        unsafe {
            each!(STEP in 0 1 2 3 => {
                if some > 0 {
                    amx::load::<6>(chunk.codes(STEP * amx::ROW), amx::ROW);
                    each!(I in 0 1 2 3 => {
                        if I < some {
                            if STEP == 0 {
                                amx::zero::<I>();
                            }
                            load::<I>(&now[I], STEP * amx::ROW);
                        }
                    });
                }
                // The sums of the tiles before, a tile in each step.
                let sums = chunk.sums(STEP);
                for t in 0..TILE {
                    before[STEP].add(t, _mm512_cvtepi32_ps(_mm512_loadu_si512(sums.add(t * amx::ROW).cast())));
                }
            });
            if some == 0 {
                return;
            }
            each!(I in 0 1 2 3 => { amx::store::<I>(chunk.sums(I), amx::ROW); });
        }
        before = now;
    }
}

/// Adds a step of a tile of rows to tile `C`.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
unsafe fn load<const C: usize>(place: &Place, column: usize) {
    const { assert!(ACT_GROUP.is_multiple_of(amx::ROW)) };
    let x = place.x.wrapping_add(column);
    // SAFETY: the caller's promise.
    unsafe {
        if C.is_multiple_of(2) {
            amx::load::<4>(x, place.x_stride);
            amx::multiply::<C, 4, 6>();
        } else {
            amx::load::<5>(x, place.x_stride);
            amx::multiply::<C, 5, 6>();
        }
    }
}
