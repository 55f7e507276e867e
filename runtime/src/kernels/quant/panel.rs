//! Tiles of many rows of int4 on AVX2: a chunk of 256 columns of a block is unpacked to bytes once and stays in the L1 cache while all rows
//! of the tile go over it, six at a time. The arithmetic is that of the module above. int8 has nothing to unpack.

use super::avx2::{halves, in_order, line, scales, splat};
use crate::abi::{DotArgs, ROWS};
use crate::format::{ACT_GROUP, I8Row, SUM_GROUP};
use crate::kernels::tile::for_rows;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Up to this many rows go over the packed weights directly: to unpack for them costs more than it spares.
const FEW: u64 = 8;

/// Bytes of a line.
const LINE: usize = 64;

/// Rows that are summed at a time: with two registers each, and three for a line and activations, they fill the sixteen.
const TILE: usize = 6;

/// A chunk of columns of one block, and sums on the way.
#[repr(C, align(64))]
struct Chunk {
    /// Codes `[64][16][4]`.
    w: [MaybeUninit<u8>; ACT_GROUP * ROWS],
    /// Scales of the groups.
    scales: [MaybeUninit<[f32; ROWS]>; ACT_GROUP / SUM_GROUP],
    /// Sums of a tile's rows: integers of a group, f32 of the chunk.
    total: [MaybeUninit<[i32; ROWS]>; TILE],
    part: [MaybeUninit<[f32; ROWS]>; TILE],
}

/// A tile of rows in a chunk.
#[derive(Clone, Copy)]
struct Place {
    /// Codes of the first row.
    x: *const u8,
    /// Sums of 32 of the first row.
    sums: *const u8,
    /// Scale of the first row.
    scale: *const u8,
    /// From a row's codes, sums and scale to the next's.
    stride: usize,
    out: *mut f32,
    out_stride: usize,
    /// Columns of the chunk.
    columns: usize,
}

/// Up to `PANEL` rows of int4 in groups of `G`; few of them through `few`.
///
/// # Safety
/// The contract of [`DotArgs`], `few` is a kernel of the same format; AVX2, FMA and F16C, here and below.
#[inline(always)]
pub(super) unsafe fn four<const G: usize>(a: &DotArgs, few: impl FnOnce(&DotArgs)) {
    if a.m <= FEW {
        return few(a);
    }
    let mut space = MaybeUninit::<Chunk>::uninit();
    // The compiler must not know what it points to: it would copy sums from memory to memory to spare itself the addition of them.
    let chunk = std::hint::black_box(space.as_mut_ptr());
    let (k, x_stride, out_stride) = (a.k as usize, a.x_stride as usize, a.out_stride as usize);
    let row = I8Row::new(k);
    // None much smaller than the others: small tiles are slow.
    let even = (a.m as usize).div_ceil((a.m as usize).div_ceil(TILE));
    let unit_bytes = 2 * (G / 8) * LINE + LINE;
    let bytes = |columns: usize| columns / (2 * G) * unit_bytes;
    for t in 0..a.m as usize {
        // SAFETY: the caller's promise.
        unsafe { a.out.byte_add(t * out_stride).write_bytes(0, a.blocks as usize * ROWS) };
    }
    for first in (0..k).step_by(ACT_GROUP) {
        let columns = ACT_GROUP.min(k - first);
        for block in 0..a.blocks as usize {
            // SAFETY: the caller's promise; `chunk` has room for 256 columns.
            unsafe {
                unpack::<G>(a.w.add(block * bytes(k) + bytes(first)), columns, chunk);
                // What is unpacked next: read from memory while the tiles are multiplied.
                let next = if block + 1 < a.blocks as usize { (block + 1) * bytes(k) + bytes(first) } else { bytes(first + columns) };
                for at in (0..bytes(ACT_GROUP)).step_by(LINE) {
                    _mm_prefetch::<_MM_HINT_T0>(a.w.wrapping_add(next + at).cast());
                }
                let place = |at: usize| Place {
                    x: a.x.add(at * x_stride + first),
                    sums: a.x.add(at * x_stride + row.sums + first / SUM_GROUP * 4),
                    scale: a.x.add(at * x_stride + row.scales + first / ACT_GROUP * 4),
                    stride: x_stride,
                    out: a.out.byte_add(at * out_stride).add(block * ROWS),
                    out_stride,
                    columns,
                };
                let mut at = 0;
                while at < a.m as usize {
                    let rows = even.min(a.m as usize - at);
                    match rows {
                        1 => tile::<G, 1>(chunk, place(at)),
                        2 => tile::<G, 2>(chunk, place(at)),
                        3 => tile::<G, 3>(chunk, place(at)),
                        4 => tile::<G, 4>(chunk, place(at)),
                        5 => tile::<G, 5>(chunk, place(at)),
                        _ => tile::<G, TILE>(chunk, place(at)),
                    }
                    at += rows;
                }
            }
        }
    }
}

/// Sixteen f32.
#[inline(always)]
unsafe fn pair(at: *const f32) -> [__m256; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
}

/// Sixteen f32.
#[inline(always)]
unsafe fn put(at: *mut f32, x: [__m256; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        _mm256_storeu_ps(at, x[0]);
        _mm256_storeu_ps(at.add(8), x[1]);
    }
}

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

/// The weights of some columns into `chunk`: 8 columns a line, of which two lines of bytes are made.
#[inline(always)]
unsafe fn unpack<const G: usize>(w: *const u8, columns: usize, chunk: *mut Chunk) {
    let unit_bytes = 2 * (G / 8) * LINE + LINE;
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

/// `M` rows by the chunk.
#[inline(always)]
unsafe fn tile<const G: usize, const M: usize>(chunk: *mut Chunk, place: Place) {
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
        for_rows!(M, t => {
            let (out, part) = (place.out.byte_add(t * place.out_stride), pair(parts.add(t * ROWS)));
            let scale = _mm256_set1_ps(place.scale.add(t * place.stride).cast::<f32>().read_unaligned());
            let y = pair(out);
            put(out, [_mm256_fmadd_ps(part[0], scale, y[0]), _mm256_fmadd_ps(part[1], scale, y[1])]);
        });
    }
}
