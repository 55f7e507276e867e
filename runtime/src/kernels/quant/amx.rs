//! AMX: tiles of 16 rows of activations by 16 weight rows. A chunk of 256 columns of a block is unpacked to signed bytes once for all rows of a
//! call, as the tiles want them; sums of a group go through memory to vectors, where they are scaled as everywhere. The arithmetic is that of the
//! module above, so the few rows that do not fill a tile may be computed by AVX-512 instead.

mod chunk;
mod formats;
mod groups;
mod rows;

use super::avx512::Vnni512;
use super::dot::{ByRow, Format, by_12, one};
use super::groups as few;
use crate::abi::{DotArgs, ROWS};
use crate::format::{ACT_GROUP, I8Row};
use crate::kernels::amx;
use chunk::{Chunk, Place};
use formats::{Eight, Four, Row, Six, Unpacked};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Bytes of a line.
const LINE: usize = 64;

/// Rows of a tile.
const TILE: usize = 16;

/// So many rows that are left over take as long in a tile as without.
const FEW: usize = 6;
/// So many alone do, which wait for their weights to come from memory.
const ALONE: usize = 12;

/// CPUs with AMX wait long for their memory: with lines fetched into L2 far ahead and from there in time, one row reads at 97 % of the raw
/// read, by the prefetchers of the hardware alone at 75.
type Ahead = Vnni512<4096, { 32 << 10 }, 4096>;

/// Blocks of a call, at most.
const BLOCKS: usize = 4;

/// Rows behind the last full tile: their activations of a chunk and their results, with room for a whole tile.
#[repr(C, align(64))]
struct Rest {
    codes: [[u8; ACT_GROUP]; TILE],
    scales: [f32; TILE],
    out: [[f32; BLOCKS * ROWS]; TILE],
}

impl Rest {
    /// All zeros.
    const fn new() -> Rest {
        Rest { codes: [[0; ACT_GROUP]; TILE], scales: [0.0; TILE], out: [[0.0; BLOCKS * ROWS]; TILE] }
    }
    /// As a tile, with the results of a block.
    fn place(&mut self, block: usize) -> Place {
        let (x, scales) = ((&raw const self.codes).cast(), (&raw const self.scales).cast());
        let out = (&raw mut self.out).cast::<f32>().wrapping_add(block * ROWS);
        Place { x, x_stride: ACT_GROUP, scales, scale_stride: 4, out, out_stride: BLOCKS * ROWS * 4 }
    }
}

/// Any number of rows; the few behind full tiles by `F`, the same format.
///
/// # Safety
/// The contract of [`DotArgs`] with [`BLOCKS`] blocks at most; AVX-512 with VNNI, and AMX as for [`amx::configure`].
#[inline(always)]
unsafe fn many<U: Unpacked, F: Format>(a: &DotArgs) {
    let m = a.m as usize;
    let in_tiles = if m <= ALONE || m % TILE <= FEW { m - m % TILE } else { m };
    if in_tiles < m {
        let rest = DotArgs {
            m: (m - in_tiles) as u64,
            x: a.x.wrapping_add(in_tiles * a.x_stride as usize),
            out: a.out.wrapping_byte_add(in_tiles * a.out_stride as usize),
            ..*a
        };
        // SAFETY: the caller's promise, of which these are some rows.
        unsafe { by_12::<Ahead, F>(&rest) };
    }
    if in_tiles > 0 {
        // SAFETY: the caller's promise.
        unsafe {
            amx::configure(&const { amx::Config::products(if U::GROUP < amx::ROW { U::GROUP } else { amx::ROW }) });
            tiles::<U>(&DotArgs { m: in_tiles as u64, ..*a });
            amx::release();
        }
    }
}

/// Rows in tiles, the last of which need not be full.
///
/// # Safety
/// As for [`many`]; the tiles are set up.
#[inline(always)]
unsafe fn tiles<U: Unpacked>(a: &DotArgs) {
    let (k, m, x_stride, out_stride) = (a.k as usize, a.m as usize, a.x_stride as usize, a.out_stride as usize);
    let (row, blocks) = (I8Row::new(k), a.blocks as usize);
    debug_assert!(blocks <= BLOCKS);
    let block_bytes = U::bytes(k) + U::TRAILER;
    let (full, left) = (m / TILE, m % TILE);
    let (mut chunk, mut rest) = (Chunk::new(), Rest::new());
    // SAFETY: the caller's promise; a row of activations has whole chunks of codes, of which those behind column `k` are zeros, and `rest` has
    // room for all that is written to it.
    unsafe {
        for t in 0..m {
            a.out.byte_add(t * out_stride).write_bytes(0, blocks * ROWS);
        }
        for first in (0..k).step_by(ACT_GROUP) {
            let x = a.x.add(first);
            let scales = a.x.add(row.scales + first / ACT_GROUP * 4);
            for t in 0..left {
                let at = (full * TILE + t) * x_stride;
                rest.codes[t] = x.add(at).cast::<[u8; ACT_GROUP]>().read();
                rest.scales[t] = scales.add(at).cast::<f32>().read_unaligned();
            }
            for block in 0..blocks {
                let w = a.w.add(block * block_bytes + U::bytes(first));
                let columns = ACT_GROUP.min(k - first);
                U::unpack(w, columns, &mut chunk);
                if columns < ACT_GROUP {
                    chunk.clear_from(columns, U::GROUP);
                }
                // What is unpacked next: read from memory while the tiles are multiplied.
                let next = if block + 1 < blocks { (block + 1) * block_bytes + U::bytes(first) } else { U::bytes(first + columns) };
                for at in (0..U::bytes(ACT_GROUP)).step_by(LINE) {
                    _mm_prefetch::<_MM_HINT_T0>(a.w.wrapping_add(next + at).cast());
                }
                let in_rest = rest.place(block);
                let place = |tile: usize| match tile < full {
                    false => in_rest,
                    true => Place {
                        x: x.add(tile * TILE * x_stride),
                        x_stride,
                        scales: scales.add(tile * TILE * x_stride),
                        scale_stride: x_stride,
                        out: a.out.byte_add(tile * TILE * out_stride).add(block * ROWS),
                        out_stride,
                    },
                };
                U::add(&mut chunk, m.div_ceil(TILE), place);
            }
        }
        for t in 0..left {
            let out = a.out.byte_add((full * TILE + t) * out_stride);
            out.copy_from_nonoverlapping(rest.out[t].as_ptr(), blocks * ROWS);
        }
        if U::TRAILER > 0 {
            for block in 0..blocks {
                for t in 0..m {
                    let scales = a.w.add((block + 1) * block_bytes - U::TRAILER);
                    U::scale_row(scales, a.out.byte_add(t * out_stride).add(block * ROWS));
                }
            }
        }
    }
}

kernels! { "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni":
    /// int4 in groups of 32.
    q4g32 = many::<Four<32>, few::Four<32>>;
    /// int4 in groups of 32, one row.
    q4g32_one = one::<Ahead, few::Four<32>, 1>;
    /// int4 in groups of 64.
    q4g64 = many::<Four<64>, few::Four<64>>;
    /// int4 in groups of 64, one row.
    q4g64_one = one::<Ahead, few::Four<64>, 1>;
    /// int4 in groups of 128.
    q4g128 = many::<Four<128>, few::Four<128>>;
    /// int4 in groups of 128, one row.
    q4g128_one = one::<Ahead, few::Four<128>, 1>;
    /// int6 in groups of 32.
    q6g32 = many::<Six, few::Six>;
    /// int6 in groups of 32, one row.
    q6g32_one = one::<Ahead, few::Six, 1>;
    /// int8 by rows.
    q8 = many::<Row, ByRow>;
    /// int8 by rows, one row.
    q8_one = one::<Ahead, ByRow, 1>;
    /// int8 in groups of 32.
    q8g32 = many::<Eight, few::Eight>;
    /// int8 in groups of 32, one row.
    q8g32_one = one::<Ahead, few::Eight, 1>;
    /// The roof.
    peak = amx::peak::<false>;
}
