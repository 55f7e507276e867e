//! The kernel table: every kernel of every architecture by name, and which of them a target or this CPU can use. Append-only, because
//! artifacts name rows.

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::quant::{self, round};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use super::{generic, kv_write, moe, parts, rows};
use crate::abi::{ATTENTION_TILE_ROWS, Kernel, PAGE_TOKENS};
use crate::artifact::target::{ARCH, has_feature};
use std::fmt;

/// One kernel. The table describes those of other architectures too, so that the compiler can choose them.
#[derive(Debug, Clone, Copy)]
pub struct KernelRow {
    /// `<op>_<weight>_<act>_<m>x<n>_<isa>`; what an op does not have is left out.
    pub name: &'static str,
    /// `dot`, `attention`, `gather`, `quantize_i8`, `rope_angles`, `route` ...
    pub op: &'static str,
    /// Name of the weight format (dot, gather) or of the KV format (attention); empty for the others.
    pub format: &'static str,
    /// The instruction set: rows of one op, format and isa give the same bits.
    pub isa: &'static Isa,
    /// Rows of activations per call, at most.
    pub m: usize,
    /// Weight blocks per call, at most; keys per page for attention.
    pub blocks: usize,
    /// The function; none on other architectures.
    pub kernel: Option<Kernel>,
}

/// An instruction set that kernels are written for.
#[derive(Debug, PartialEq, Eq)]
pub struct Isa {
    /// Name in kernel names.
    pub name: &'static str,
    /// Architecture; empty: any.
    pub arch: &'static str,
    /// Features that a CPU must have, by the names of Rust's `target_feature`.
    pub features: &'static [&'static str],
}

/// Plain Rust.
pub const GENERIC: Isa = Isa { name: "generic", arch: "", features: &[] };

/// AVX2 with FMA.
pub const AVX2: Isa = Isa { name: "avx2", arch: "x86_64", features: &["avx2", "fma"] };
/// AVX-512 as in x86-64-v4.
pub const AVX512: Isa = Isa { name: "avx512", arch: "x86_64", features: &["avx2", "fma", "avx512f", "avx512bw", "avx512vl"] };
/// AVX-512 with dot products of bf16.
pub const AVX512BF16: Isa =
    Isa { name: "avx512bf16", arch: "x86_64", features: &["avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512bf16"] };
/// AVX2 with FMA and conversions from f16.
pub const AVX2F16C: Isa = Isa { name: "avx2", arch: "x86_64", features: &["avx2", "fma", "f16c"] };
/// AVX2 with dot products of int8.
pub const AVXVNNI: Isa = Isa { name: "avxvnni", arch: "x86_64", features: &["avx2", "fma", "f16c", "avxvnni"] };
/// AVX-512 with dot products of int8.
pub const AVX512VNNI: Isa =
    Isa { name: "avx512vnni", arch: "x86_64", features: &["avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512vnni"] };
/// Products of tiles of int8, with AVX-512 for the rest.
pub const AMX: Isa = Isa {
    name: "amx",
    arch: "x86_64",
    features: &["avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "amx-tile", "amx-int8"],
};
/// Products of tiles of bf16.
pub const AMXBF16: Isa = Isa {
    name: "amxbf16",
    arch: "x86_64",
    features: &["avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512bf16", "amx-tile", "amx-bf16"],
};
/// 64-bit ARM.
pub const NEON: Isa = Isa { name: "neon", arch: "aarch64", features: &["neon"] };
/// 64-bit ARM with dot products of int8.
pub const NEONDOT: Isa = Isa { name: "neondot", arch: "aarch64", features: &["neon", "dotprod"] };

/// Why a kernel cannot be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelError {
    /// This runtime's table has no such row.
    Unknown,
    /// The row is for another architecture.
    Architecture(&'static str),
    /// The CPU lacks features that the row needs.
    Features(Vec<&'static str>),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Unknown => f.write_str("this runtime has no kernel of that name; a newer one may"),
            KernelError::Architecture(arch) => write!(f, "the kernel is for {arch}, this machine is {ARCH}"),
            KernelError::Features(missing) => write!(f, "this CPU lacks {}", missing.join(", ")),
        }
    }
}

impl std::error::Error for KernelError {}

/// A row: instruction set, op, format, name, rows, blocks, function. The function is named on its own architecture only.
macro_rules! row {
    ($isa:ident, $op:literal, $format:literal, $name:literal, $m:expr, $blocks:expr, $kernel:path) => {
        KernelRow { name: $name, op: $op, format: $format, isa: &$isa, m: $m, blocks: $blocks, kernel: row!(@ $isa, $kernel) }
    };
    (@ GENERIC, $kernel:path) => { Some($kernel as Kernel) };
    (@ NEON, $kernel:path) => { row!(# "aarch64", $kernel) };
    (@ NEONDOT, $kernel:path) => { row!(# "aarch64", $kernel) };
    (@ $x86:ident, $kernel:path) => { row!(# "x86_64", $kernel) };
    (# $arch:literal, $kernel:path) => {{
        #[cfg(target_arch = $arch)]
        let kernel: Option<Kernel> = Some($kernel);
        #[cfg(not(target_arch = $arch))]
        let kernel: Option<Kernel> = None;
        kernel
    }};
}

/// Any number of rows.
const ANY: usize = usize::MAX;
/// Rows of a kernel that unpacks weights for all of them.
pub(super) const PANEL: usize = 36;
/// The same for int8, which takes longer to unpack.
pub(super) const PANEL_I8: usize = 72;
/// Rows of a kernel that unpacks weights for tiles of 16 of them.
const TALL: usize = 128;
/// Rows of an attention kernel. The names say 4, as many as there were when artifacts began to name them.
const TILE: usize = ATTENTION_TILE_ROWS;

/// Every kernel. Where rows of several instruction sets serve a target, the last are preferred.
pub static KERNELS: &[KernelRow] = &[
    row!(GENERIC, "yield_now", "", "yield_now_generic", ANY, 1, rows::yield_now),
    row!(GENERIC, "rope_angles", "", "rope_angles_generic", ANY, 1, rows::rope_angles),
    row!(GENERIC, "gather", "f32", "gather_f32_generic", ANY, 1, rows::gather_f32),
    row!(GENERIC, "gather", "bf16", "gather_bf16_generic", ANY, 1, rows::gather_bf16),
    row!(GENERIC, "dot", "f32", "dot_f32_f32_1x64_generic", 1, 64, generic::dot_f32),
    row!(GENERIC, "dot", "f32", "dot_f32_f32_4x4_generic", 4, 4, generic::dot_f32),
    row!(GENERIC, "attention", "f32", "attention_f32_f32_4x64_generic", TILE, PAGE_TOKENS, generic::attention_f32),
    row!(GENERIC, "dot", "bf16", "dot_bf16_bf16_1x64_generic", 1, 64, generic::dot_bf16),
    row!(GENERIC, "dot", "bf16", "dot_bf16_bf16_4x4_generic", 4, 4, generic::dot_bf16),
    row!(GENERIC, "attention", "bf16", "attention_bf16_f32_4x64_generic", TILE, PAGE_TOKENS, generic::attention_bf16),
    row!(AVX2, "dot", "f32", "dot_f32_f32_1x64_avx2", 1, 64, avx2::dot_f32_one),
    row!(AVX2, "dot", "f32", "dot_f32_f32_6x2_avx2", 6, 2, avx2::dot_f32_many),
    row!(AVX2, "attention", "f32", "attention_f32_f32_4x64_avx2", TILE, PAGE_TOKENS, avx2::attention_f32),
    row!(AVX2, "dot", "bf16", "dot_bf16_bf16_1x64_avx2", 1, 64, avx2::dot_bf16_one),
    row!(AVX2, "dot", "bf16", "dot_bf16_bf16_5x4_avx2", 5, 4, avx2::dot_bf16_many),
    row!(AVX2, "attention", "bf16", "attention_bf16_f32_4x64_avx2", TILE, PAGE_TOKENS, avx2::attention_bf16),
    row!(AVX512, "dot", "f32", "dot_f32_f32_1x64_avx512", 1, 64, avx512::dot_f32_one),
    row!(AVX512, "dot", "f32", "dot_f32_f32_12x4_avx512", 12, 4, avx512::dot_f32_many),
    row!(AVX512, "attention", "f32", "attention_f32_f32_4x64_avx512", TILE, PAGE_TOKENS, avx512::attention_f32),
    row!(AVX512, "dot", "bf16", "dot_bf16_bf16_1x64_avx512", 1, 64, avx512::dot_bf16_one),
    row!(AVX512, "dot", "bf16", "dot_bf16_bf16_12x4_avx512", 12, 4, avx512::dot_bf16_many),
    row!(AVX512, "attention", "bf16", "attention_bf16_f32_4x64_avx512", TILE, PAGE_TOKENS, avx512::attention_bf16),
    row!(AVX512BF16, "dot", "bf16", "dot_bf16_bf16_1x64_avx512bf16", 1, 64, avx512::dot_dpbf16_one),
    row!(AVX512BF16, "dot", "bf16", "dot_bf16_bf16_12x4_avx512bf16", 12, 4, avx512::dot_dpbf16_many),
    row!(AVX512BF16, "attention", "bf16", "attention_bf16_bf16_4x64_avx512bf16", TILE, PAGE_TOKENS, avx512::attention_dpbf16),
    row!(NEON, "dot", "f32", "dot_f32_f32_1x64_neon", 1, 64, neon::dot_f32_one),
    row!(NEON, "dot", "f32", "dot_f32_f32_6x4_neon", 6, 4, neon::dot_f32_many),
    row!(NEON, "attention", "f32", "attention_f32_f32_4x64_neon", TILE, PAGE_TOKENS, neon::attention_f32),
    row!(NEON, "dot", "bf16", "dot_bf16_bf16_1x64_neon", 1, 64, neon::dot_bf16_one),
    row!(NEON, "dot", "bf16", "dot_bf16_bf16_5x4_neon", 5, 4, neon::dot_bf16_many),
    row!(NEON, "attention", "bf16", "attention_bf16_f32_4x64_neon", TILE, PAGE_TOKENS, neon::attention_bf16),
    // The integer formats. All rows of a format agree bit for bit, also across instruction sets.
    row!(GENERIC, "quantize_i8", "", "quantize_i8_generic", ANY, 1, round::generic),
    row!(AVX2F16C, "quantize_i8", "", "quantize_i8_avx2", ANY, 1, round::avx2),
    row!(AVX512, "quantize_i8", "", "quantize_i8_avx512", ANY, 1, round::avx512),
    row!(GENERIC, "gather", "q4g32", "gather_q4g32_generic", ANY, 1, quant::generic::gather_q4g32),
    row!(GENERIC, "gather", "q4g64", "gather_q4g64_generic", ANY, 1, quant::generic::gather_q4g64),
    row!(GENERIC, "gather", "q4g128", "gather_q4g128_generic", ANY, 1, quant::generic::gather_q4g128),
    row!(GENERIC, "gather", "q8", "gather_q8_generic", ANY, 1, quant::generic::gather_q8),
    row!(GENERIC, "gather", "q8g32", "gather_q8g32_generic", ANY, 1, quant::generic::gather_q8g32),
    row!(GENERIC, "dot", "q4g32", "dot_q4g32_i8_1x64_generic", 1, 64, quant::generic::dot_q4g32),
    row!(GENERIC, "dot", "q4g32", "dot_q4g32_i8_4x4_generic", 4, 4, quant::generic::dot_q4g32),
    row!(GENERIC, "dot", "q4g64", "dot_q4g64_i8_1x64_generic", 1, 64, quant::generic::dot_q4g64),
    row!(GENERIC, "dot", "q4g64", "dot_q4g64_i8_4x4_generic", 4, 4, quant::generic::dot_q4g64),
    row!(GENERIC, "dot", "q4g128", "dot_q4g128_i8_1x64_generic", 1, 64, quant::generic::dot_q4g128),
    row!(GENERIC, "dot", "q4g128", "dot_q4g128_i8_4x4_generic", 4, 4, quant::generic::dot_q4g128),
    row!(GENERIC, "dot", "q8", "dot_q8_i8_1x64_generic", 1, 64, quant::generic::dot_q8),
    row!(GENERIC, "dot", "q8", "dot_q8_i8_4x4_generic", 4, 4, quant::generic::dot_q8),
    row!(GENERIC, "dot", "q8g32", "dot_q8g32_i8_1x64_generic", 1, 64, quant::generic::dot_q8g32),
    row!(GENERIC, "dot", "q8g32", "dot_q8g32_i8_4x4_generic", 4, 4, quant::generic::dot_q8g32),
    row!(AVX2F16C, "dot", "q4g32", "dot_q4g32_i8_1x64_avx2", 1, 64, quant::avx2::q4g32_one),
    row!(AVX2F16C, "dot", "q4g32", "dot_q4g32_i8_4x4_avx2", 4, 4, quant::avx2::q4g32),
    row!(AVX2F16C, "dot", "q4g32", "dot_q4g32_i8_36x4_avx2", PANEL, 4, quant::avx2::q4g32_many),
    row!(AVX2F16C, "dot", "q4g64", "dot_q4g64_i8_1x64_avx2", 1, 64, quant::avx2::q4g64_one),
    row!(AVX2F16C, "dot", "q4g64", "dot_q4g64_i8_4x4_avx2", 4, 4, quant::avx2::q4g64),
    row!(AVX2F16C, "dot", "q4g64", "dot_q4g64_i8_36x4_avx2", PANEL, 4, quant::avx2::q4g64_many),
    row!(AVX2F16C, "dot", "q4g128", "dot_q4g128_i8_1x64_avx2", 1, 64, quant::avx2::q4g128_one),
    row!(AVX2F16C, "dot", "q4g128", "dot_q4g128_i8_4x4_avx2", 4, 4, quant::avx2::q4g128),
    row!(AVX2F16C, "dot", "q4g128", "dot_q4g128_i8_36x4_avx2", PANEL, 4, quant::avx2::q4g128_many),
    row!(AVX2F16C, "dot", "q8", "dot_q8_i8_1x64_avx2", 1, 64, quant::avx2::q8_one),
    row!(AVX2F16C, "dot", "q8", "dot_q8_i8_4x4_avx2", 4, 4, quant::avx2::q8),
    row!(AVX2F16C, "dot", "q8", "dot_q8_i8_72x4_avx2", PANEL_I8, 4, quant::avx2::q8_many),
    row!(AVX2F16C, "dot", "q8g32", "dot_q8g32_i8_1x64_avx2", 1, 64, quant::avx2::q8g32_one),
    row!(AVX2F16C, "dot", "q8g32", "dot_q8g32_i8_4x4_avx2", 4, 4, quant::avx2::q8g32),
    row!(AVXVNNI, "dot", "q4g32", "dot_q4g32_i8_1x64_avxvnni", 1, 64, quant::avxvnni::q4g32),
    row!(AVXVNNI, "dot", "q4g32", "dot_q4g32_i8_4x4_avxvnni", 4, 4, quant::avxvnni::q4g32),
    row!(AVXVNNI, "dot", "q4g64", "dot_q4g64_i8_1x64_avxvnni", 1, 64, quant::avxvnni::q4g64),
    row!(AVXVNNI, "dot", "q4g64", "dot_q4g64_i8_4x4_avxvnni", 4, 4, quant::avxvnni::q4g64),
    row!(AVXVNNI, "dot", "q4g128", "dot_q4g128_i8_1x64_avxvnni", 1, 64, quant::avxvnni::q4g128),
    row!(AVXVNNI, "dot", "q4g128", "dot_q4g128_i8_4x4_avxvnni", 4, 4, quant::avxvnni::q4g128),
    row!(AVXVNNI, "dot", "q8", "dot_q8_i8_1x64_avxvnni", 1, 64, quant::avxvnni::q8),
    row!(AVXVNNI, "dot", "q8", "dot_q8_i8_4x4_avxvnni", 4, 4, quant::avxvnni::q8),
    row!(AVXVNNI, "dot", "q8g32", "dot_q8g32_i8_1x64_avxvnni", 1, 64, quant::avxvnni::q8g32),
    row!(AVXVNNI, "dot", "q8g32", "dot_q8g32_i8_4x4_avxvnni", 4, 4, quant::avxvnni::q8g32),
    row!(AVX512, "dot", "q4g32", "dot_q4g32_i8_1x64_avx512", 1, 64, quant::avx512::q4g32),
    row!(AVX512, "dot", "q4g32", "dot_q4g32_i8_4x4_avx512", 4, 4, quant::avx512::q4g32),
    row!(AVX512, "dot", "q4g64", "dot_q4g64_i8_1x64_avx512", 1, 64, quant::avx512::q4g64),
    row!(AVX512, "dot", "q4g64", "dot_q4g64_i8_4x4_avx512", 4, 4, quant::avx512::q4g64),
    row!(AVX512, "dot", "q4g128", "dot_q4g128_i8_1x64_avx512", 1, 64, quant::avx512::q4g128),
    row!(AVX512, "dot", "q4g128", "dot_q4g128_i8_4x4_avx512", 4, 4, quant::avx512::q4g128),
    row!(AVX512, "dot", "q8", "dot_q8_i8_1x64_avx512", 1, 64, quant::avx512::q8),
    row!(AVX512, "dot", "q8", "dot_q8_i8_4x4_avx512", 4, 4, quant::avx512::q8),
    row!(AVX512, "dot", "q8g32", "dot_q8g32_i8_1x64_avx512", 1, 64, quant::avx512::q8g32),
    row!(AVX512, "dot", "q8g32", "dot_q8g32_i8_4x4_avx512", 4, 4, quant::avx512::q8g32),
    row!(AVX512VNNI, "dot", "q4g32", "dot_q4g32_i8_1x64_avx512vnni", 1, 64, quant::avx512::vnni_q4g32),
    row!(AVX512VNNI, "dot", "q4g32", "dot_q4g32_i8_12x4_avx512vnni", 12, 4, quant::avx512::vnni_q4g32),
    row!(AVX512VNNI, "dot", "q4g64", "dot_q4g64_i8_1x64_avx512vnni", 1, 64, quant::avx512::vnni_q4g64),
    row!(AVX512VNNI, "dot", "q4g64", "dot_q4g64_i8_12x4_avx512vnni", 12, 4, quant::avx512::vnni_q4g64),
    row!(AVX512VNNI, "dot", "q4g128", "dot_q4g128_i8_1x64_avx512vnni", 1, 64, quant::avx512::vnni_q4g128),
    row!(AVX512VNNI, "dot", "q4g128", "dot_q4g128_i8_12x4_avx512vnni", 12, 4, quant::avx512::vnni_q4g128),
    row!(AVX512VNNI, "dot", "q8", "dot_q8_i8_1x64_avx512vnni", 1, 64, quant::avx512::vnni_q8),
    row!(AVX512VNNI, "dot", "q8", "dot_q8_i8_12x4_avx512vnni", 12, 4, quant::avx512::vnni_q8),
    row!(AVX512VNNI, "dot", "q8g32", "dot_q8g32_i8_1x64_avx512vnni", 1, 64, quant::avx512::vnni_q8g32),
    row!(AVX512VNNI, "dot", "q8g32", "dot_q8g32_i8_12x4_avx512vnni", 12, 4, quant::avx512::vnni_q8g32),
    row!(GENERIC, "route", "", "route_generic", ANY, 1, moe::route),
    row!(GENERIC, "moe_group", "", "moe_group_generic", ANY, 1, moe::moe_group),
    row!(GENERIC, "expert_rows", "", "expert_rows_generic", ANY, 1, moe::expert_rows),
    row!(GENERIC, "moe_combine", "", "moe_combine_generic", ANY, 1, moe::moe_combine),
    row!(GENERIC, "attn_temperature", "", "attn_temperature_generic", ANY, 1, moe::attn_temperature),
    row!(GENERIC, "gather", "q6g32", "gather_q6g32_generic", ANY, 1, quant::generic::gather_q6g32),
    row!(GENERIC, "dot", "q6g32", "dot_q6g32_i8_1x64_generic", 1, 64, quant::generic::dot_q6g32),
    row!(GENERIC, "dot", "q6g32", "dot_q6g32_i8_4x4_generic", 4, 4, quant::generic::dot_q6g32),
    row!(AVX2F16C, "dot", "q6g32", "dot_q6g32_i8_1x64_avx2", 1, 64, quant::avx2::q6g32_one),
    row!(AVX2F16C, "dot", "q6g32", "dot_q6g32_i8_4x4_avx2", 4, 4, quant::avx2::q6g32),
    row!(AVXVNNI, "dot", "q6g32", "dot_q6g32_i8_1x64_avxvnni", 1, 64, quant::avxvnni::q6g32),
    row!(AVXVNNI, "dot", "q6g32", "dot_q6g32_i8_4x4_avxvnni", 4, 4, quant::avxvnni::q6g32),
    row!(AVX512, "dot", "q6g32", "dot_q6g32_i8_1x64_avx512", 1, 64, quant::avx512::q6g32),
    row!(AVX512, "dot", "q6g32", "dot_q6g32_i8_4x4_avx512", 4, 4, quant::avx512::q6g32),
    row!(AVX512VNNI, "dot", "q6g32", "dot_q6g32_i8_1x64_avx512vnni", 1, 64, quant::avx512::vnni_q6g32),
    row!(AVX512VNNI, "dot", "q6g32", "dot_q6g32_i8_12x4_avx512vnni", 12, 4, quant::avx512::vnni_q6g32),
    row!(GENERIC, "kv_write", "i8", "kv_write_i8_generic", ANY, 1, kv_write::generic),
    row!(AVX2, "kv_write", "i8", "kv_write_i8_avx2", ANY, 1, kv_write::avx2),
    row!(GENERIC, "attention", "i8", "attention_i8_f32_4x64_generic", TILE, PAGE_TOKENS, generic::attention_i8),
    row!(AVX2, "attention", "i8", "attention_i8_i16_4x64_avx2", TILE, PAGE_TOKENS, avx2::attention_i8),
    row!(AVX512, "attention", "i8", "attention_i8_i16_4x64_avx512", TILE, PAGE_TOKENS, avx512::attention_i8),
    row!(NEON, "attention", "i8", "attention_i8_i16_4x64_neon", TILE, PAGE_TOKENS, neon::attention_i8),
    row!(GENERIC, "attention_merge", "", "attention_merge_generic", 1, 1, parts::merge),
    row!(NEON, "dot", "q4g32", "dot_q4g32_i8_1x64_neon", 1, 64, quant::neon::base::q4g32_one),
    row!(NEON, "dot", "q4g32", "dot_q4g32_i8_4x4_neon", 4, 4, quant::neon::base::q4g32),
    row!(NEON, "dot", "q4g64", "dot_q4g64_i8_1x64_neon", 1, 64, quant::neon::base::q4g64_one),
    row!(NEON, "dot", "q4g64", "dot_q4g64_i8_4x4_neon", 4, 4, quant::neon::base::q4g64),
    row!(NEON, "dot", "q4g128", "dot_q4g128_i8_1x64_neon", 1, 64, quant::neon::base::q4g128_one),
    row!(NEON, "dot", "q4g128", "dot_q4g128_i8_4x4_neon", 4, 4, quant::neon::base::q4g128),
    row!(NEON, "dot", "q6g32", "dot_q6g32_i8_1x64_neon", 1, 64, quant::neon::base::q6g32_one),
    row!(NEON, "dot", "q6g32", "dot_q6g32_i8_4x4_neon", 4, 4, quant::neon::base::q6g32),
    row!(NEON, "dot", "q8", "dot_q8_i8_1x64_neon", 1, 64, quant::neon::base::q8_one),
    row!(NEON, "dot", "q8", "dot_q8_i8_4x4_neon", 4, 4, quant::neon::base::q8),
    row!(NEON, "dot", "q8g32", "dot_q8g32_i8_1x64_neon", 1, 64, quant::neon::base::q8g32_one),
    row!(NEON, "dot", "q8g32", "dot_q8g32_i8_4x4_neon", 4, 4, quant::neon::base::q8g32),
    row!(NEONDOT, "dot", "q4g32", "dot_q4g32_i8_1x64_neondot", 1, 64, quant::neon::dotprod::q4g32_one),
    row!(NEONDOT, "dot", "q4g32", "dot_q4g32_i8_4x4_neondot", 4, 4, quant::neon::dotprod::q4g32),
    row!(NEONDOT, "dot", "q4g64", "dot_q4g64_i8_1x64_neondot", 1, 64, quant::neon::dotprod::q4g64_one),
    row!(NEONDOT, "dot", "q4g64", "dot_q4g64_i8_4x4_neondot", 4, 4, quant::neon::dotprod::q4g64),
    row!(NEONDOT, "dot", "q4g128", "dot_q4g128_i8_1x64_neondot", 1, 64, quant::neon::dotprod::q4g128_one),
    row!(NEONDOT, "dot", "q4g128", "dot_q4g128_i8_4x4_neondot", 4, 4, quant::neon::dotprod::q4g128),
    row!(NEONDOT, "dot", "q6g32", "dot_q6g32_i8_1x64_neondot", 1, 64, quant::neon::dotprod::q6g32_one),
    row!(NEONDOT, "dot", "q6g32", "dot_q6g32_i8_4x4_neondot", 4, 4, quant::neon::dotprod::q6g32),
    row!(NEONDOT, "dot", "q8", "dot_q8_i8_1x64_neondot", 1, 64, quant::neon::dotprod::q8_one),
    row!(NEONDOT, "dot", "q8", "dot_q8_i8_4x4_neondot", 4, 4, quant::neon::dotprod::q8),
    row!(NEONDOT, "dot", "q8g32", "dot_q8g32_i8_1x64_neondot", 1, 64, quant::neon::dotprod::q8g32_one),
    row!(NEONDOT, "dot", "q8g32", "dot_q8g32_i8_4x4_neondot", 4, 4, quant::neon::dotprod::q8g32),
    row!(AMX, "dot", "q4g32", "dot_q4g32_i8_1x64_amx", 1, 64, quant::amx::q4g32_one),
    row!(AMX, "dot", "q4g32", "dot_q4g32_i8_128x4_amx", TALL, 4, quant::amx::q4g32),
    row!(AMX, "dot", "q4g64", "dot_q4g64_i8_1x64_amx", 1, 64, quant::amx::q4g64_one),
    row!(AMX, "dot", "q4g64", "dot_q4g64_i8_128x4_amx", TALL, 4, quant::amx::q4g64),
    row!(AMX, "dot", "q4g128", "dot_q4g128_i8_1x64_amx", 1, 64, quant::amx::q4g128_one),
    row!(AMX, "dot", "q4g128", "dot_q4g128_i8_128x4_amx", TALL, 4, quant::amx::q4g128),
    row!(AMX, "dot", "q6g32", "dot_q6g32_i8_1x64_amx", 1, 64, quant::amx::q6g32_one),
    row!(AMX, "dot", "q6g32", "dot_q6g32_i8_128x4_amx", TALL, 4, quant::amx::q6g32),
    row!(AMX, "dot", "q8", "dot_q8_i8_1x64_amx", 1, 64, quant::amx::q8_one),
    row!(AMX, "dot", "q8", "dot_q8_i8_128x4_amx", TALL, 4, quant::amx::q8),
    row!(AMX, "dot", "q8g32", "dot_q8g32_i8_1x64_amx", 1, 64, quant::amx::q8g32_one),
    row!(AMX, "dot", "q8g32", "dot_q8g32_i8_128x4_amx", TALL, 4, quant::amx::q8g32),
    row!(AMXBF16, "attention", "bf16", "attention_bf16_bf16_4x64_amxbf16", TILE, PAGE_TOKENS, avx512::attention_amx),
];

/// The kernel of a name, if this CPU can run it.
///
/// # Errors
/// There is no such row, or it is not for this CPU.
pub fn resolve(name: &str) -> Result<Kernel, KernelError> {
    let row = KERNELS.iter().find(|r| r.name == name).ok_or(KernelError::Unknown)?;
    let missing: Vec<&str> = row.isa.features.iter().copied().filter(|f| !has_feature(f)).collect();
    match row.kernel {
        None => Err(KernelError::Architecture(row.isa.arch)),
        Some(_) if !missing.is_empty() => Err(KernelError::Features(missing)),
        Some(kernel) => Ok(kernel),
    }
}

/// The rows of an op and format that a target should use: all rows of the best instruction set that it has, in table order. They
/// agree bit for bit; rows of different instruction sets need not, so a program never mixes them.
pub fn candidates(op: &str, format: &str, arch: &str, has_feature: impl Fn(&str) -> bool) -> Vec<&'static KernelRow> {
    let fits = |isa: &Isa| (isa.arch.is_empty() || isa.arch == arch) && isa.features.iter().all(|f| has_feature(f));
    let usable = || KERNELS.iter().filter(|r| r.op == op && r.format == format && fits(r.isa));
    let Some(best) = usable().next_back() else { return Vec::new() };
    usable().filter(|r| r.isa == best.isa).collect()
}

/// First key that a query at position `pos` sees.
pub(super) fn first_key(pos: u64, chunk: u64) -> u64 {
    if chunk == 0 { 0 } else { pos - pos % chunk }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_begin_with_op_and_format() {
        for (i, row) in KERNELS.iter().enumerate() {
            assert!(KERNELS[..i].iter().all(|r| r.name != row.name), "{} twice", row.name);
            let start = if row.format.is_empty() { row.op.to_owned() } else { format!("{}_{}", row.op, row.format) };
            assert!(row.name.starts_with(&start) && row.name.ends_with(row.isa.name), "{}", row.name);
        }
    }

    #[test]
    fn every_format_has_a_generic_twin_for_one_row_and_for_tiles() {
        for format in crate::format::WEIGHT_FORMATS {
            let rows = candidates("dot", format.name, "an unknown machine", |_| false);
            assert!(rows.iter().any(|r| r.m == 1) && rows.iter().any(|r| r.m > 1), "{}", format.name);
        }
        for (op, format) in [
            ("attention", "f32"),
            ("attention", "bf16"),
            ("attention", "i8"),
            ("kv_write", "i8"),
            ("gather", "f32"),
            ("gather", "bf16"),
            ("rope_angles", ""),
            ("yield_now", ""),
            ("quantize_i8", ""),
        ] {
            assert!(!candidates(op, format, "an unknown machine", |_| false).is_empty(), "{op} {format}");
        }
    }

    #[test]
    fn a_target_gets_the_rows_of_its_best_instruction_set_only() {
        let isa = |arch: &str, features: &[&str]| {
            let rows = candidates("dot", "bf16", arch, |f| features.contains(&f));
            assert!(rows.iter().all(|r| r.isa == rows[0].isa));
            rows[0].isa.name
        };
        let v3 = ["avx2", "fma"];
        let v4 = [&v3[..], &["avx512f", "avx512bw", "avx512vl"]].concat();
        assert_eq!(isa("x86_64", &[]), "generic");
        assert_eq!(isa("x86_64", &v3), "avx2");
        assert_eq!(isa("x86_64", &v4), "avx512");
        assert_eq!(isa("x86_64", &[&v4[..], &["avx512bf16"]].concat()), "avx512bf16");
        assert_eq!(isa("aarch64", &["neon"]), "neon");
        assert_eq!(isa("riscv64", &v3), "generic");
    }

    #[test]
    fn a_result_tile_fits_the_scratch() {
        for row in KERNELS.iter().filter(|r| r.op == "dot") {
            // Two blocks more for panels that are rounded up to pairs.
            assert!(row.m * (row.blocks + 2) * crate::abi::ROWS * 4 <= crate::abi::SCRATCH_BYTES, "{}", row.name);
        }
    }

    #[test]
    fn what_cannot_run_here_is_refused_with_a_reason() {
        assert_eq!(
            resolve("dot_q1_x").map_err(|e| e.to_string()).err().as_deref(),
            Some("this runtime has no kernel of that name; a newer one may")
        );
        for row in KERNELS {
            let missing: Vec<&str> = row.isa.features.iter().copied().filter(|f| !has_feature(f)).collect();
            match resolve(row.name) {
                Ok(_) => assert!(missing.is_empty()),
                Err(KernelError::Architecture(arch)) => assert_ne!(arch, ARCH),
                Err(e) => assert_eq!(e, KernelError::Features(missing)),
            }
        }
    }
}
