//! Tiles of many rows on AVX2: a chunk of 256 columns of a block is unpacked once, to what the multiply-add instructions take, and stays in the
//! L1 cache while all rows of the tile go over it, a few at a time. The arithmetic is that of the module above.

mod eight;
mod four;

pub(super) use eight::Eight;
pub(super) use four::Four;

use crate::abi::{DotArgs, ROWS};
use crate::format::{ACT_GROUP, I8Row, SUM_GROUP};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Bytes of a line.
const LINE: usize = 64;

/// Rows that are summed at a time, at most: with two registers each, and three or four for a line and activations, they fill the sixteen.
const TILE: usize = 6;

/// A tile of rows in a chunk.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Number of the first row in the call.
    row: usize,
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

/// A format that chunks are unpacked of.
///
/// # Safety
/// Everything needs AVX2, FMA and F16C. `w` has so many columns of a block; `columns` is a multiple of the format's unit, at most [`ACT_GROUP`].
pub(super) trait Unpacked {
    /// A chunk of columns of one block, and sums on the way.
    type Chunk;
    /// Packed bytes of so many columns of a block.
    fn bytes(columns: usize) -> usize;
    /// Bytes behind the columns of a block: scales of its rows.
    const TRAILER: usize;
    /// Up to this many rows go over the packed weights directly: to unpack for them costs more than it spares.
    const FEW: u64;
    /// Rows that are summed at a time.
    const TILE: usize = TILE;
    /// Takes the codes of all `m` rows over, from `x` on, where they will not do as they are.
    unsafe fn take_rows(_x: *const u8, _stride: usize, _m: usize, _columns: usize, _chunk: *mut Self::Chunk) {}
    /// Unpacks the weights.
    unsafe fn unpack(w: *const u8, columns: usize, chunk: *mut Self::Chunk);
    /// Adds the products of `M` rows with the chunk to their results.
    unsafe fn tile<const M: usize>(chunk: *mut Self::Chunk, place: Place);
    /// Multiplies the results of a row with the scales behind a block.
    unsafe fn scale_rows(_scales: *const u8, _out: *mut f32) {}
}

/// Up to `PANEL` rows; few of them through `few`.
///
/// # Safety
/// The contract of [`DotArgs`], `few` is a kernel of the same format; and as for [`Unpacked`].
#[inline(always)]
pub(super) unsafe fn many<T: Unpacked>(a: &DotArgs, few: impl FnOnce(&DotArgs)) {
    if a.m <= T::FEW {
        return few(a);
    }
    let mut space = MaybeUninit::<T::Chunk>::uninit();
    // The compiler must not know what it points to: it would copy sums from memory to memory to spare itself the addition of them.
    let chunk = std::hint::black_box(space.as_mut_ptr());
    let (k, m, x_stride, out_stride) = (a.k as usize, a.m as usize, a.x_stride as usize, a.out_stride as usize);
    let row = I8Row::new(k);
    // None much smaller than the others: small tiles are slow.
    let even = m.div_ceil(m.div_ceil(T::TILE));
    let block_bytes = T::bytes(k) + T::TRAILER;
    for t in 0..m {
        // SAFETY: the caller's promise.
        unsafe { a.out.byte_add(t * out_stride).write_bytes(0, a.blocks as usize * ROWS) };
    }
    for first in (0..k).step_by(ACT_GROUP) {
        let columns = ACT_GROUP.min(k - first);
        // SAFETY: the caller's promise; `chunk` has room for 256 columns of `PANEL` rows and of a block, here and below.
        unsafe { T::take_rows(a.x.add(first), x_stride, m, columns, chunk) };
        for block in 0..a.blocks as usize {
            // SAFETY: see above.
            unsafe {
                T::unpack(a.w.add(block * block_bytes + T::bytes(first)), columns, chunk);
                // What is unpacked next: read from memory while the tiles are multiplied.
                let next =
                    if block + 1 < a.blocks as usize { (block + 1) * block_bytes + T::bytes(first) } else { T::bytes(first + columns) };
                for at in (0..T::bytes(ACT_GROUP)).step_by(LINE) {
                    _mm_prefetch::<_MM_HINT_T0>(a.w.wrapping_add(next + at).cast());
                }
                let place = |at: usize| Place {
                    row: at,
                    x: a.x.add(at * x_stride + first),
                    sums: a.x.add(at * x_stride + row.sums + first / SUM_GROUP * 4),
                    scale: a.x.add(at * x_stride + row.scales + first / ACT_GROUP * 4),
                    stride: x_stride,
                    out: a.out.byte_add(at * out_stride).add(block * ROWS),
                    out_stride,
                    columns,
                };
                let mut at = 0;
                while at < m {
                    let rows = even.min(m - at);
                    match rows {
                        1 => T::tile::<1>(chunk, place(at)),
                        2 => T::tile::<2>(chunk, place(at)),
                        3 => T::tile::<3>(chunk, place(at)),
                        4 => T::tile::<4>(chunk, place(at)),
                        5 if T::TILE > 4 => T::tile::<5>(chunk, place(at)),
                        6 if T::TILE > 5 => T::tile::<6>(chunk, place(at)),
                        _ => break,
                    }
                    at += rows;
                }
            }
        }
    }
    if T::TRAILER > 0 {
        for block in 0..a.blocks as usize {
            for t in 0..m {
                // SAFETY: see above.
                unsafe {
                    let scales = a.w.add((block + 1) * block_bytes - T::TRAILER);
                    T::scale_rows(scales, a.out.byte_add(t * out_stride).add(block * ROWS));
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

/// Adds the sums of a chunk of row `t` of a tile to its result: `y = fma(part, xs, y)`.
#[inline(always)]
unsafe fn add_chunk(place: &Place, t: usize, part: [__m256; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        let out = place.out.byte_add(t * place.out_stride);
        let scale = _mm256_set1_ps(place.scale.add(t * place.stride).cast::<f32>().read_unaligned());
        let y = pair(out);
        put(out, [_mm256_fmadd_ps(part[0], scale, y[0]), _mm256_fmadd_ps(part[1], scale, y[1])]);
    }
}
