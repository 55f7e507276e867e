//! Packed layouts as data: weight formats, activation formats and the KV page. Kernels and the packer both read this table;
//! the arithmetic of a format is in the evaluator (`llamac-ir`), its kernels in `kernels/`.

use crate::abi::{PAGE_TOKENS, ROWS};

/// How activations are handed to a dot kernel: row-major rows of `row_bytes(k)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// 4 bytes an element.
    F32,
    /// 2 bytes an element, rounded to nearest even.
    Bf16,
}

impl Act {
    /// Name in kernel names and printed programs.
    pub const fn name(self) -> &'static str {
        match self {
            Act::F32 => "f32",
            Act::Bf16 => "bf16",
        }
    }
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Act::F32 => 4,
            Act::Bf16 => 2,
        }
    }
}

/// A packed weight format. Rows are stored in blocks of 16; a block is its units along K, one after the other, then a trailer;
/// blocks follow each other. So a thread that owns consecutive blocks reads one sequential stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightFormat {
    /// Name in kernel names, artifacts and the command line.
    pub name: &'static str,
    /// Elements along K in one unit; K is padded with zeros to a multiple of it.
    pub k_unit: usize,
    /// Bytes of one unit of 16 rows.
    pub unit_bytes: usize,
    /// Bytes behind the last unit of a block (per-row scales).
    pub trailer_bytes: usize,
    /// What the dot kernels of this format take.
    pub act: Act,
}

impl WeightFormat {
    /// Bytes of a block of 16 rows with `k` elements each (`k` is padded here).
    pub const fn block_bytes(&self, k: usize) -> usize {
        k.div_ceil(self.k_unit) * self.unit_bytes + self.trailer_bytes
    }
    /// Bytes of a packed `[rows, k]` matrix.
    pub const fn matrix_bytes(&self, rows: usize, k: usize) -> usize {
        rows.div_ceil(ROWS) * self.block_bytes(k)
    }
}

/// f32: `[K][16 rows]`.
pub const F32: WeightFormat = WeightFormat { name: "f32", k_unit: 1, unit_bytes: 64, trailer_bytes: 0, act: Act::F32 };
/// bf16: `[K/2][16 rows][2]`.
pub const BF16: WeightFormat = WeightFormat { name: "bf16", k_unit: 2, unit_bytes: 64, trailer_bytes: 0, act: Act::Bf16 };

/// Every packed weight format. A new one is a line here, a packer (`compiler/src/pack`) and kernel rows (`kernels/table.rs`).
pub const WEIGHT_FORMATS: &[WeightFormat] = &[F32, BF16];

/// Feature dimensions of activations and weights are padded with zeros to a multiple of this in the step program.
pub const FEATURE_PAD: usize = 16;

/// Layout of the KV cache in one page (64 tokens) of one layer: for each KV head K, then for each KV head V.
///
/// K of a head: `[64/16 token tiles][head_dim / pair][16 tokens][pair]`, V of a head: `[64 / pair][head_dim][pair tokens]`,
/// where `pair` is 2 for bf16 and 1 for f32: a 64-byte line of K is 16 tokens, so scores need no horizontal sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// 4 bytes an element.
    F32,
    /// 2 bytes an element, pairs.
    Bf16,
}

impl KvFormat {
    /// Name in kernel names, artifacts and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            KvFormat::F32 => "f32",
            KvFormat::Bf16 => "bf16",
        }
    }
    /// Elements that stand together: 1 or 2.
    pub const fn pair(self) -> usize {
        match self {
            KvFormat::F32 => 1,
            KvFormat::Bf16 => 2,
        }
    }
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        4 / self.pair()
    }
    /// Bytes of K (or of V) of one head in one page; `head_dim` is the padded one.
    pub const fn head_bytes(self, head_dim: usize) -> usize {
        PAGE_TOKENS * head_dim * self.bytes()
    }
    /// Bytes of one layer in one page.
    pub const fn layer_bytes(self, kv_heads: usize, head_dim: usize) -> usize {
        2 * kv_heads * self.head_bytes(head_dim)
    }
    /// Offset of element `i` of token `t` (in `0..64`) inside the K of a head.
    pub const fn k_offset(self, head_dim: usize, t: usize, i: usize) -> usize {
        let p = self.pair();
        (((t / ROWS) * (head_dim / p) + i / p) * ROWS + t % ROWS) * 4 + (i % p) * self.bytes()
    }
    /// Offset of element `i` of token `t` inside the V of a head.
    pub const fn v_offset(self, head_dim: usize, t: usize, i: usize) -> usize {
        let p = self.pair();
        ((t / p) * head_dim + i) * 4 + (t % p) * self.bytes()
    }
}
