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
    /// 1 byte an element: `x = code * scale`, a scale for each [`ACT_GROUP`] columns.
    ///
    /// `scale = max |x| / 127` over the group, in f32; `code = x / scale` in f32, rounded to nearest even, kept within -127..=127; 0
    /// where the scale is 0.
    ///
    /// A row is `kp` = K padded with zeros to a multiple of [`ACT_GROUP`], and holds `[kp codes]`, then `[kp/32]` i32, each -8 times the
    /// sum of 32 codes, `[kp/256]` i32, each -128 times the sum of 256 codes, and `[kp/256]` f32 scales. The sums undo the offsets of
    /// unsigned weights. Weights may be padded less: only zeros are left out.
    I8,
}

/// Columns of an activation row that share a scale in [`Act::I8`].
pub const ACT_GROUP: usize = 256;
/// Columns that share a sum in [`Act::I8`].
pub const SUM_GROUP: usize = 32;

impl Act {
    /// Name in kernel names and printed programs.
    pub const fn name(self) -> &'static str {
        match self {
            Act::F32 => "f32",
            Act::Bf16 => "bf16",
            Act::I8 => "i8",
        }
    }
    /// Bytes of one element; what stands behind the codes of a row is not counted.
    pub const fn bytes(self) -> usize {
        match self {
            Act::F32 => 4,
            Act::Bf16 => 2,
            Act::I8 => 1,
        }
    }
    /// Bytes of a row of `k` elements.
    pub const fn row_bytes(self, k: usize) -> usize {
        match self {
            Act::F32 | Act::Bf16 => k * self.bytes(),
            Act::I8 => I8Row::new(k).bytes,
        }
    }
}

/// Where the parts of a row of [`Act::I8`] begin, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct I8Row {
    /// The sums of 32.
    pub sums: usize,
    /// The sums of 256.
    pub group_sums: usize,
    /// The scales.
    pub scales: usize,
    /// The end.
    pub bytes: usize,
}

impl I8Row {
    /// A row of `k` elements, padded or not.
    pub const fn new(k: usize) -> I8Row {
        let sums = k.next_multiple_of(ACT_GROUP);
        let group_sums = sums + sums / SUM_GROUP * 4;
        let scales = group_sums + sums / ACT_GROUP * 4;
        I8Row { sums, group_sums, scales, bytes: scales + sums / ACT_GROUP * 4 }
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

/// int4, symmetric, a f16 scale for each group of `g` columns of a row.
///
/// A unit is two groups: `g/8` lines for the first, `g/8` for the second, then one line of 16 f16 scales of the first and 16 of the
/// second. Byte `4r + i` of line `j` of a group has `q[r][8j + i] + 8` in its low and `q[r][8j + 4 + i] + 8` in its high half (row `r` in
/// `0..16`, `i` in `0..4`, `q` in -8..=7).
const fn q4(name: &'static str, g: usize) -> WeightFormat {
    WeightFormat { name, k_unit: 2 * g, unit_bytes: 2 * (g / 8) * 64 + 64, trailer_bytes: 0, act: Act::I8 }
}
/// int4 in groups of 32: 4.5 bits an element.
pub const Q4G32: WeightFormat = q4("q4g32", 32);
/// int4 in groups of 64: 4.25 bits.
pub const Q4G64: WeightFormat = q4("q4g64", 64);
/// int4 in groups of 128: 4.125 bits.
pub const Q4G128: WeightFormat = q4("q4g128", 128);
/// int6 in groups of 32, symmetric, a f16 scale for each group: 6.5 bits.
///
/// A unit is two groups and a line of scales, as in int4. A group is four lines with the low four bits of `q + 32`, as int4 has them, then two
/// lines of high bits: byte `4r + i` of line `h` has, from its lowest bits, those of columns `16h + i`, `16h + 4 + i`, `16h + 8 + i` and
/// `16h + 12 + i` (`q` in -32..=31).
pub const Q6G32: WeightFormat = WeightFormat { name: "q6g32", k_unit: 64, unit_bytes: 13 * 64, trailer_bytes: 0, act: Act::I8 };
/// int8 with one scale for a row: `[K/4][16 rows][4]` bytes `q + 128` (`q` in -127..=127), a trailer of 16 f32 scales.
pub const Q8: WeightFormat = WeightFormat { name: "q8", k_unit: 32, unit_bytes: 512, trailer_bytes: 64, act: Act::I8 };
/// int8 in groups of 32. A unit is two groups: `[64/4][16 rows][4]` bytes `q + 128`, then one line of 16 f16 scales of the first and 16
/// of the second group.
pub const Q8G32: WeightFormat = WeightFormat { name: "q8g32", k_unit: 64, unit_bytes: 1088, trailer_bytes: 0, act: Act::I8 };

/// Every packed weight format. A new one is a line here, a packer (`compiler/src/pack`) and kernel rows (`kernels/table.rs`).
pub const WEIGHT_FORMATS: &[WeightFormat] = &[F32, BF16, Q4G32, Q4G64, Q4G128, Q8, Q8G32, Q6G32];

/// Feature dimensions of activations and weights are padded with zeros to a multiple of this in the step program.
pub const FEATURE_PAD: usize = 16;

/// Layout of the KV cache in one page (64 tokens) of one layer: for each KV head K, then for each KV head V.
///
/// K of a head: `[64/16 token tiles][head_dim / pair][16 tokens][pair]`, V of a head: `[64 / pair][head_dim][pair tokens]`,
/// where `pair` is 1 for f32 and 2 for the others: a line of K is 16 tokens, so scores need no horizontal sums. An int8 element is
/// `code * scale` with a code in -127..=127 and one f32 scale for each token of the head; the 64 scales stand behind the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// 4 bytes an element.
    F32,
    /// 2 bytes an element, pairs.
    Bf16,
    /// 1 byte an element, pairs, and 4 bytes for each token of a head.
    I8,
}

impl KvFormat {
    /// Every format.
    pub const ALL: [KvFormat; 3] = [KvFormat::F32, KvFormat::Bf16, KvFormat::I8];

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<KvFormat> {
        KvFormat::ALL.into_iter().find(|f| f.name() == name)
    }
    /// Name in kernel names, artifacts and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            KvFormat::F32 => "f32",
            KvFormat::Bf16 => "bf16",
            KvFormat::I8 => "i8",
        }
    }
    /// Elements that stand together: 1 or 2.
    pub const fn pair(self) -> usize {
        match self {
            KvFormat::F32 => 1,
            KvFormat::Bf16 | KvFormat::I8 => 2,
        }
    }
    /// Bytes of one element, scales not counted.
    pub const fn bytes(self) -> usize {
        match self {
            KvFormat::F32 => 4,
            KvFormat::Bf16 => 2,
            KvFormat::I8 => 1,
        }
    }
    /// Bytes of the scale of a token.
    pub const fn scale_bytes(self) -> usize {
        if matches!(self, KvFormat::I8) { 4 } else { 0 }
    }
    /// Bytes of K (or of V) of one head in one page; `head_dim` is the padded one.
    pub const fn head_bytes(self, head_dim: usize) -> usize {
        PAGE_TOKENS * (head_dim * self.bytes() + self.scale_bytes())
    }
    /// Bytes of one layer in one page.
    pub const fn layer_bytes(self, kv_heads: usize, head_dim: usize) -> usize {
        2 * kv_heads * self.head_bytes(head_dim)
    }
    /// Offset of element `i` of token `t` (in `0..64`) inside the K of a head.
    pub const fn k_offset(self, head_dim: usize, t: usize, i: usize) -> usize {
        let p = self.pair();
        ((((t / ROWS) * (head_dim / p) + i / p) * ROWS + t % ROWS) * p + i % p) * self.bytes()
    }
    /// Offset of element `i` of token `t` inside the V of a head.
    pub const fn v_offset(self, head_dim: usize, t: usize, i: usize) -> usize {
        let p = self.pair();
        (((t / p) * head_dim + i) * p + t % p) * self.bytes()
    }
    /// Offset of the scale of token `t` inside the K or V of a head, for formats that have scales.
    pub const fn scale_offset(self, head_dim: usize, t: usize) -> usize {
        PAGE_TOKENS * head_dim * self.bytes() + t * self.scale_bytes()
    }
}
