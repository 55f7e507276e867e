//! Chunks of int4, unpacked to a byte a code: `vpmaddubsw` into sums of 16 bits over 32 columns.

use super::{LINE, Place, TILE, Unpacked, add_chunk, pair, put};
use crate::abi::ROWS;
use crate::format::{ACT_GROUP, SUM_GROUP};
use crate::kernels::quant::avx2::{halves, in_order, line, scales, splat};
use crate::kernels::tile::for_rows;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// int4 in groups of `G`.
pub(in crate::kernels::quant) struct Four<const G: usize>;

/// See [`Unpacked::Chunk`].
#[repr(C, align(64))]
pub(in crate::kernels::quant) struct Chunk {
    /// Codes `[64][16][4]`.
    w: [MaybeUninit<u8>; ACT_GROUP * ROWS],
    /// Scales of the groups.
    scales: [MaybeUninit<[f32; ROWS]>; PARTS],
    /// Sums of a tile's rows: integers of a group, f32 of the chunk.
    total: [MaybeUninit<[i32; ROWS]>; TILE],
    part: [MaybeUninit<[f32; ROWS]>; TILE],
}

/// Parts of a chunk that are summed in 16 bits.
const PARTS: usize = ACT_GROUP / SUM_GROUP;

/// The sums of a group of a row are there: `part = fma(f32(sum), ws, part)`.
#[inline(always)]
unsafe fn scale_group(chunk: *mut Chunk, group: usize, t: usize, sums: [__m256i; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        let part = (&raw mut (*chunk).part).cast::<f32>().add(t * ROWS);
        let scales = pair((&raw const (*chunk).scales).cast::<f32>().add(group * ROWS));
        let old = pair(part);
        let new = |i: usize| _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i]), scales[i], old[i]);
        put(part, [new(0), new(1)]);
    }
}

/// Lines of 4 columns that are summed in 16 bits.
const QUADS: usize = SUM_GROUP / 4;

impl<const G: usize> Unpacked for Four<G> {
    type Chunk = Chunk;
    const TRAILER: usize = 0;
    const FEW: u64 = 8;
    #[inline(always)]
    fn bytes(columns: usize) -> usize {
        columns / (2 * G) * (2 * (G / 8) * LINE + LINE)
    }
    /// 8 columns a line, of which two lines of bytes are made.
    #[inline(always)]
    unsafe fn unpack(w: *const u8, columns: usize, chunk: *mut Chunk) {
        let unit_bytes = Self::bytes(2 * G);
        // SAFETY: the caller's promise; the last line of a unit has the scales of its two groups.
        unsafe {
            let mut to = (&raw mut (*chunk).w).cast::<__m256i>();
            let scales_of = (&raw mut (*chunk).scales).cast::<f32>();
            for unit in 0..columns / (2 * G) {
                let w = w.add(unit * unit_bytes);
                for i in 0..2 * G / 8 {
                    let (low, high) = halves(w.add(i * LINE));
                    for half in [low[0], low[1], high[0], high[1]] {
                        _mm256_store_si256(to, half);
                        to = to.add(1);
                    }
                }
                for half in 0..2 {
                    put(scales_of.add((2 * unit + half) * ROWS), scales(w.add(unit_bytes - LINE + half * 32)));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn tile<const M: usize>(chunk: *mut Chunk, place: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut w = (&raw const (*chunk).w).cast::<u8>();
            let total = (&raw mut (*chunk).total).cast::<__m256i>();
            let ones = _mm256_set1_epi16(1);
            let parts = (&raw mut (*chunk).part).cast::<f32>();
            for_rows!(M, t => { put(parts.add(t * ROWS), [_mm256_setzero_ps(); 2]); });
            for part in 0..place.columns / SUM_GROUP {
                let x = place.x.add(part * SUM_GROUP);
                let mut sums = [[_mm256_setzero_si256(); 2]; M];
                for_rows!(QUADS, quad => {
                    let line = line(w.add(quad * LINE));
                    for_rows!(M, t => {
                        let x = splat(x.add(t * place.stride + 4 * quad));
                        let add = |i: usize| in_order::<M>(_mm256_add_epi16(sums[t][i], _mm256_maddubs_epi16(line[i], x)));
                        sums[t] = [add(0), add(1)];
                    });
                });
                w = w.add(QUADS * LINE);
                let of_group = part % (G / SUM_GROUP);
                for_rows!(M, t => {
                    let offset = splat(place.sums.add(t * place.stride + part * 4));
                    let mut wide = [
                        _mm256_add_epi32(_mm256_madd_epi16(sums[t][0], ones), offset),
                        _mm256_add_epi32(_mm256_madd_epi16(sums[t][1], ones), offset),
                    ];
                    if of_group > 0 {
                        wide = [_mm256_add_epi32(wide[0], *total.add(2 * t)), _mm256_add_epi32(wide[1], *total.add(2 * t + 1))];
                    }
                    if of_group + 1 == G / SUM_GROUP {
                        scale_group(chunk, part / (G / SUM_GROUP), t, wide);
                    } else {
                        *total.add(2 * t) = wide[0];
                        *total.add(2 * t + 1) = wide[1];
                    }
                });
            }
            for_rows!(M, t => { add_chunk(&place, t, pair(parts.add(t * ROWS))); });
        }
    }
}
