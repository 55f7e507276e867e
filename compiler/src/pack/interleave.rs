//! Sixteen rows of four-byte words to lines of one word of each: the transpose that takes most of the time of packing stored rows. Tiles of
//! sixteen words; what is left of a row is the caller's.

use llamac_runtime::abi::ROWS;

/// Bytes of a row in one tile: a cache line.
const TILE: usize = 64;

/// Writes the tiles that the rows have; returns the bytes of each row that were used. The rows have the same length, `out` has them all.
#[cfg(target_arch = "x86_64")]
pub(super) fn tiles(rows: &[&[u8]; ROWS], out: &mut [u8]) -> usize {
    use std::arch::x86_64::{
        _mm_loadu_si128 as load, _mm_storeu_si128 as store, _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
    };
    let tiles = rows.iter().map(|row| row.len() / TILE).min().unwrap_or(0).min(out.len() / (TILE * ROWS));
    for t in 0..tiles {
        // Four rows at a time: rows stand some power of two apart, so that a line of each does not fit into the first cache.
        for r in (0..ROWS).step_by(4) {
            for q in (0..TILE).step_by(16) {
                // SAFETY: SSE2 is part of x86-64. Byte `64 t + q + 15` is in every row, as each has `tiles` whole tiles; the lines of word
                // `16 t + q / 4 + 3` are in `out` for the same reason, with row `r + 3` in them.
                unsafe {
                    let at = |i: usize| load(rows[r + i].as_ptr().add(t * TILE + q).cast());
                    let mut line = |i: usize| out.as_mut_ptr().add((t * TILE / 4 + q / 4 + i) * ROWS * 4 + r * 4).cast();
                    let (low, low2) = (_mm_unpacklo_epi32(at(0), at(1)), _mm_unpacklo_epi32(at(2), at(3)));
                    let (high, high2) = (_mm_unpackhi_epi32(at(0), at(1)), _mm_unpackhi_epi32(at(2), at(3)));
                    let words = [
                        _mm_unpacklo_epi64(low, low2),
                        _mm_unpackhi_epi64(low, low2),
                        _mm_unpacklo_epi64(high, high2),
                        _mm_unpackhi_epi64(high, high2),
                    ];
                    words.into_iter().enumerate().for_each(|(i, word)| store(line(i), word));
                }
            }
        }
    }
    tiles * TILE
}

/// No tiles on other processors.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn tiles(_: &[&[u8]; ROWS], _: &mut [u8]) -> usize {
    0
}
