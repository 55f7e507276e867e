//! The products of a page by AMX: 16 queries by 16 keys, or by 16 columns of values, in a tile. The cache lies as the tiles want it: a line of
//! keys is 16 tokens by 2 elements, a line of values 16 columns by 2 tokens. One query alone takes the same way as many.

use super::{LINE, P_STRIDE, Products, Queries};
use crate::abi::{AttentionArgs, PAGE_TOKENS, ROWS};
use crate::kernels::amx;
use crate::kernels::avx512::Dpbf16;
use std::arch::x86_64::*;
use std::ops::Range;

/// bf16 pages whose heads fill tiles, see [`Tiles::fit`]. Tiles are set up for 64 bytes.
pub(in crate::kernels) struct Tiles;

/// Queries of a tile.
const TILE: usize = 16;
/// Tokens, or elements of a head, that a tile sums over.
const DEPTH: usize = 32;

impl Tiles {
    /// Whether heads of so many elements fill tiles, and those of 16 more queries find room.
    pub(in crate::kernels) fn fit(head_dim: u64) -> bool {
        head_dim.is_multiple_of(DEPTH as u64) && head_dim <= 512
    }
}

impl Products for Tiles {
    type K = Dpbf16;
    const PAD: usize = TILE;

    #[inline(always)]
    unsafe fn scores(a: &AttentionArgs, queries: &Queries, range: Range<usize>, (k, _): (*const u8, *const f32), v: *const u8, _: usize) {
        let head_dim = a.head_dim as usize;
        let step_bytes = amx::TILE;
        let block_bytes = head_dim / 2 * LINE;
        for i in range.clone().step_by(TILE) {
            let q = queries.q.wrapping_add(i * queries.q_stride);
            let p = queries.p.wrapping_add(i * P_STRIDE);
            // SAFETY: the caller's promise. Keys behind the last token are memory of the page too, and nobody reads their scores.
            unsafe {
                clear();
                for step in 0..head_dim / DEPTH {
                    amx::load::<4>(q.add(step * amx::ROW), queries.q_stride);
                    add(k.wrapping_add(step * step_bytes), LINE, block_bytes, 4);
                    if i == range.start {
                        fetch(v.wrapping_add(step * 4 * step_bytes));
                    }
                }
                store(p, P_STRIDE, LINE);
            }
        }
    }

    #[inline(always)]
    unsafe fn values(a: &AttentionArgs, queries: &Queries, range: Range<usize>, v: *const u8, next: *const u8, tokens: usize) {
        let columns = a.head_dim as usize / ROWS;
        let line = columns * LINE;
        let steps = tokens.div_ceil(DEPTH);
        let mut padded = [[0u8; amx::TILE]; 4];
        let mut sums = [[0f32; TILE * ROWS]; 4];
        for i in range.clone().step_by(TILE) {
            let p = queries.p.wrapping_add(i * P_STRIDE);
            // SAFETY: the caller's promise. Where tokens end within a step, zeros stand for the others on both sides.
            unsafe {
                if !tokens.is_multiple_of(DEPTH) {
                    (0..TILE).for_each(|t| p.add(t * P_STRIDE + tokens * 2).write_bytes(0, (DEPTH - tokens % DEPTH) * 2));
                }
                for column in (0..columns).step_by(4) {
                    let some = (columns - column).min(4);
                    clear();
                    for step in 0..steps {
                        let here = v.add(step * DEPTH / 2 * line + column * LINE);
                        let left = tokens - step * DEPTH;
                        let (at, stride, block) = if left < DEPTH {
                            for (block, to) in padded.iter_mut().enumerate().take(some) {
                                for pair in 0..left / 2 {
                                    to.as_mut_ptr().add(pair * LINE).copy_from_nonoverlapping(here.add(pair * line + block * LINE), LINE);
                                }
                            }
                            (padded.as_ptr().cast(), LINE, amx::TILE)
                        } else {
                            (here, line, LINE)
                        };
                        amx::load::<4>(p.add(step * amx::ROW), P_STRIDE);
                        add(at, stride, block, some);
                        if i == range.start {
                            fetch(next.wrapping_add((column / 4 * steps + step) * 4 * amx::TILE));
                        }
                    }
                    store(sums.as_mut_ptr().cast(), LINE, amx::TILE);
                    for t in 0..TILE.min(range.end - i) {
                        let shrink = _mm512_set1_ps(*queries.shrink.add(i + t));
                        let out = queries.part(a, i + t).add(column * ROWS);
                        for (block, sums) in sums.iter().enumerate().take(some) {
                            let (out, sum) = (out.add(block * ROWS), _mm512_loadu_ps(sums.as_ptr().add(t * ROWS)));
                            _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_loadu_ps(out), shrink, sum));
                        }
                    }
                }
            }
        }
    }
}

/// No sums.
///
/// # Safety
/// As for [`amx::configure`].
#[inline(always)]
unsafe fn clear() {
    // SAFETY: the caller's promise.
    unsafe {
        amx::zero::<0>();
        amx::zero::<1>();
        amx::zero::<2>();
        amx::zero::<3>();
    }
}

/// Adds to the sums of up to four blocks the products of tile 4 with theirs, which stand `block` bytes apart, their rows `stride`.
///
/// # Safety
/// As for [`amx::load`].
#[inline(always)]
unsafe fn add(at: *const u8, stride: usize, block: usize, some: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        amx::load::<6>(at, stride);
        amx::multiply_bf16::<0, 4, 6>();
        if some > 1 {
            amx::load::<7>(at.wrapping_add(block), stride);
            amx::multiply_bf16::<1, 4, 7>();
        }
        if some > 2 {
            amx::load::<6>(at.wrapping_add(2 * block), stride);
            amx::multiply_bf16::<2, 4, 6>();
        }
        if some > 3 {
            amx::load::<7>(at.wrapping_add(3 * block), stride);
            amx::multiply_bf16::<3, 4, 7>();
        }
    }
}

/// Writes the sums of four blocks, which go `block` bytes apart, their rows `stride`.
///
/// # Safety
/// As for [`amx::store`].
#[inline(always)]
unsafe fn store(to: *mut u8, stride: usize, block: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        amx::store::<0>(to, stride);
        amx::store::<1>(to.add(block), stride);
        amx::store::<2>(to.add(2 * block), stride);
        amx::store::<3>(to.add(3 * block), stride);
    }
}

/// Asks for the lines of four tiles.
///
/// # Safety
/// Any address will do.
#[inline(always)]
unsafe fn fetch(at: *const u8) {
    const { assert!(PAGE_TOKENS.is_multiple_of(DEPTH)) };
    for line in 0..4 * amx::TILE / LINE {
        // SAFETY: a hint.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line * LINE).cast()) }
    }
}
