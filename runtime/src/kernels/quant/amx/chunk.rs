//! A chunk of 256 columns of a block, unpacked, and a tile of rows to be multiplied with it.

use super::TILE;
use crate::abi::ROWS;
use crate::format::{ACT_GROUP, SUM_GROUP};
use crate::kernels::amx;
use std::arch::x86_64::*;

/// Groups of a chunk, at most.
const GROUPS: usize = ACT_GROUP / SUM_GROUP;

/// Tiles of sums that are on their way to vectors.
pub(super) const SUMS: usize = 4;

/// A chunk of columns of one block.
#[repr(C, align(64))]
pub(super) struct Chunk {
    /// Signed codes `[64][16][4]`.
    codes: [u8; ACT_GROUP * ROWS],
    /// Scales of the groups, `[groups][16]`.
    scales: [f32; GROUPS * ROWS],
    sums: [[u8; amx::TILE]; SUMS],
    /// Where results go that nobody wants.
    nowhere: [f32; ROWS],
}

impl Chunk {
    /// All zeros.
    pub(super) const fn new() -> Chunk {
        let sums = [[0; amx::TILE]; SUMS];
        Chunk { codes: [0; ACT_GROUP * ROWS], scales: [0.0; GROUPS * ROWS], sums, nowhere: [0.0; ROWS] }
    }

    /// Zeros behind the columns that there are, and behind the scales of their groups.
    pub(super) fn clear_from(&mut self, columns: usize, group: usize) {
        self.codes[columns * ROWS..].fill(0);
        if group < ACT_GROUP {
            self.scales[columns.div_ceil(group) * ROWS..].fill(0.0);
        }
    }

    /// Codes of the columns from `column` on.
    #[inline(always)]
    pub(super) fn codes(&mut self, column: usize) -> *mut u8 {
        (&raw mut self.codes).cast::<u8>().wrapping_add(column * ROWS)
    }

    /// Scales of a group.
    #[inline(always)]
    pub(super) fn scales(&mut self, group: usize) -> *mut f32 {
        (&raw mut self.scales).cast::<f32>().wrapping_add(group * ROWS)
    }

    /// A tile of sums.
    #[inline(always)]
    pub(super) fn sums(&mut self, i: usize) -> *mut u8 {
        (&raw mut self.sums).cast::<u8>().wrapping_add(i * amx::TILE)
    }

    /// A tile of no rows, as it were.
    pub(super) fn nowhere(&mut self) -> Place {
        let (x, scales) = (self.codes(0), self.scales(0));
        Place { x, x_stride: 0, scales: scales.cast(), scale_stride: 0, out: (&raw mut self.nowhere).cast(), out_stride: 0 }
    }
}

/// A tile of rows in a chunk.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Codes of the first row, and from one row to the next.
    pub(super) x: *const u8,
    pub(super) x_stride: usize,
    /// Scale of the first row, and from one to the next in bytes.
    pub(super) scales: *const u8,
    pub(super) scale_stride: usize,
    /// Results of the first row, and from one row to the next in bytes.
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

impl Place {
    /// Adds the sums of a chunk of row `t` to its result: `y = fma(part, xs, y)`.
    ///
    /// # Safety
    /// AVX-512; the place is one of `t` rows at least.
    #[inline(always)]
    pub(super) unsafe fn add(&self, t: usize, part: __m512) {
        debug_assert!(t < TILE);
        // SAFETY: the caller's promise.
        unsafe {
            let out = self.out.byte_add(t * self.out_stride);
            let scale = _mm512_set1_ps(self.scales.add(t * self.scale_stride).cast::<f32>().read_unaligned());
            _mm512_storeu_ps(out, _mm512_fmadd_ps(part, scale, _mm512_loadu_ps(out)));
        }
    }
}

/// Does something for each literal, of which there are enough for every format.
macro_rules! each {
    ($i:ident in $($n:literal)* => $body:block) => { $({ const $i: usize = $n; $body })* };
}
pub(super) use each;
