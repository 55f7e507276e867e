//! The op table: one entry per op generates the enum, its facts and its documentation. The meaning of an op is its evaluator
//! (`eval/`), its types are in `infer/`. To add an op: a line here, an arm there and there (ARCHITECTURE.md has the list). The ops of graphs
//! that others exported, `tensor.*`, have a table of their own in `tensor`.

pub mod tensor;

use crate::types::Dim;
use std::fmt;
pub use tensor::TensorOp;

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A float, as bits so that ops can be compared and hashed. Make it with [`Attr::float`].
    Float(u64),
    /// A word: `half`, `bf16`.
    Word(String),
    /// A list of dimensions or plain integers: `[batch, 1, -1]`.
    Dims(Vec<Dim>),
}

impl Attr {
    /// A float attribute.
    pub fn float(x: f64) -> Attr {
        Attr::Float(x.to_bits())
    }
    /// A list of plain integers.
    pub fn ints(list: &[i64]) -> Attr {
        Attr::Dims(list.iter().map(|&n| Dim::int(n)).collect())
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Int(i) => write!(f, "{i}"),
            Attr::Float(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Attr::Word(w) => f.write_str(w),
            Attr::Dims(list) => {
                f.write_str("[")?;
                for (i, dim) in list.iter().enumerate() {
                    write!(f, "{}{dim}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Whether an op may enter the e-graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Same operands, same result; no state.
    Pure,
    /// Reads or writes the KV cache of its call: stays in order.
    Ordered,
}

/// What kind of value an attribute holds, and its default (`None`: it must be given).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttrKind {
    /// Integer.
    Int(Option<i64>),
    /// Float.
    Float(Option<f64>),
    /// One of these words; the first is the default if the flag is set.
    Word(&'static [&'static str], bool),
    /// A list of dimensions; it must be given.
    Dims,
}

/// Facts about an op.
#[derive(Debug)]
pub struct OpInfo {
    /// Name in text.
    pub name: &'static str,
    /// Names of the operands; a trailing `?` marks an optional last one, a trailing `*` any number.
    pub operands: &'static [&'static str],
    /// Attributes in printing order.
    pub attrs: &'static [(&'static str, AttrKind)],
    /// Number of results.
    pub results: usize,
    /// Purity.
    pub effect: Effect,
    /// First stage at which it may appear.
    pub from: Stage,
    /// Documentation.
    pub doc: &'static str,
}

/// How far a module has come. Each op says at which stage it first may appear; the verifier checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The graph of an exporter: `tensor.*` ops, inputs by its own names. Only [`OpKind::Tensor`] ops and plain ones that raising made.
    Graph,
    /// As a front end wrote it.
    Imported,
    /// Only canonical ops.
    Canonical,
    /// Weight and activation formats chosen.
    Quantized,
    /// Fused ops allowed.
    Fused,
    /// Rows, calls and formats final: ready to lower.
    Placed,
}

impl Stage {
    /// Every stage in order, with its name in text.
    pub const ALL: &'static [(Stage, &'static str)] = &[
        (Stage::Graph, "graph"),
        (Stage::Imported, "imported"),
        (Stage::Canonical, "canonical"),
        (Stage::Quantized, "quantized"),
        (Stage::Fused, "fused"),
        (Stage::Placed, "placed"),
    ];
    /// Its name in text.
    pub fn name(self) -> &'static str {
        Stage::ALL[self as usize].1
    }
}

macro_rules! ops {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal ($($operand:literal),*) {$($attr:ident : $kind:expr),*} -> $results:literal, $effect:ident, $from:ident;)+) => {
        /// The kind of an op; its facts are [`OpKind::info`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OpKind {
            $($(#[doc = $doc])+ $variant,)+
            /// An op of the tensor dialect.
            Tensor(TensorOp),
        }

        impl OpKind {
            /// Its line of [`OPS`], if it is there.
            fn line(self) -> Option<usize> {
                enum Line { $($variant),+ }
                match self {
                    $(OpKind::$variant => Some(Line::$variant as usize),)+
                    OpKind::Tensor(_) => None,
                }
            }
        }

        /// Every op but those of [`tensor::TENSOR_OPS`], in the order of [`OpKind`].
        pub static OPS: &[(OpKind, OpInfo)] = &[$((OpKind::$variant, OpInfo {
            name: $name, operands: &[$($operand),*], attrs: &[$((stringify!($attr), $kind)),*],
            results: $results, effect: Effect::$effect, from: Stage::$from, doc: concat!($($doc, "\n"),+),
        })),+];
    };
}

use AttrKind::{Float, Int, Word};
const ACT: AttrKind = Word(&["f32", "bf16", "i8"], true);
const KV: AttrKind = Word(&["f32", "bf16", "i8"], true);
const LAYOUT: AttrKind = Word(&["half", "interleaved"], false);

ops! {
    /// `out[t] = table[ids[t]]`, as f32. `ids: i32[s]`, `table: T[V, H]` gives `f32[s, H]`.
    Embed "embed" ("ids", "table") {} -> 1, Pure, Imported;
    /// `out[t][o] = sum_k w[o][k] * round(x[t][k], act) (+ bias[o])`; `act=i8` rounds groups of 256 columns to `127` steps each way. `x: f32[s, K]`, `w: T[O, K]`, `bias: T[O]` gives `f32[s, O]`.
    Linear "linear" ("x", "w", "bias?") {act: ACT} -> 1, Pure, Imported;
    /// RMS norm over the last axis: `gamma * x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich, 2019).
    RmsNorm "rms_norm" ("x", "gamma") {eps: Float(None)} -> 1, Pure, Imported;
    /// RMS norm without a weight, over groups of `group` features (0: all of them).
    RmsUnit "rms_unit" ("x") {eps: Float(None), group: Int(Some(0))} -> 1, Pure, Imported;
    /// Rotary angles: `out[t][2i], out[t][2i+1] = cos(a), sin(a)` with `a = f32(pos[t]) * inv_freq[i]` in f32. Gives `f32[s, 2 * pairs]`.
    RopeAngles "rope_angles" ("pos", "inv_freq") {} -> 1, Pure, Imported;
    /// Rotates each head of `x: f32[s, heads * head_dim]` by `angles: f32[s, head_dim]`. Pair `i` is elements `(i, i + head_dim/2)`
    /// of a head (`half`) or `(2i, 2i+1)` (`interleaved`) (Su et al., 2021).
    Rope "rope" ("x", "angles") {head_dim: Int(None), layout: LAYOUT} -> 1, Pure, Imported;
    /// Writes the rows of `k` and `v: f32[s, kv_heads * head_dim]` at positions `pos` of sequences `seq` into the cache of this call, rounded to `kv`; `kv=i8` rounds each head of a row to `127` steps each way.
    KvWrite "kv_write" ("k", "v", "pos", "seq") {head_dim: Int(None), kv: KV} -> 0, Ordered, Imported;
    /// Causal attention of `q: f32[s, heads * head_dim]` over the cache of this call: query head `h` reads KV head `h / (heads / kv_heads)`;
    /// the query at position `p` sees keys `c ..= p` of its sequence, `c = 0`, or the last multiple of `chunk` not above `p` if `chunk > 0`.
    Attention "attention" ("q", "pos", "seq") {heads: Int(None), kv_heads: Int(None), head_dim: Int(None), scale: Float(None), chunk: Int(Some(0)), kv: KV} -> 1, Ordered, Imported;
    /// `x * sigmoid(x)`.
    Silu "silu" ("x") {} -> 1, Pure, Imported;
    /// Elementwise sum; `b` may be a vector over the last axis.
    Add "add" ("a", "b") {} -> 1, Pure, Imported;
    /// Elementwise product; `b` may be a vector over the last axis.
    Mul "mul" ("a", "b") {} -> 1, Pure, Imported;
    /// Columns `start .. start + len` of the last axis.
    SliceCols "slice_cols" ("x") {start: Int(None), len: Int(None)} -> 1, Pure, Imported;
    /// `out[i] = x[rows[i]]` along the first axis. `rows: i32[r]`.
    GatherRows "gather_rows" ("x", "rows") {} -> 1, Pure, Imported;
    /// Gates of a mixture of experts: `sigmoid(scores)` of the `top_k` largest scores of a row (ties: the lowest index), 0 elsewhere.
    /// `scores: f32[s, E]` gives `f32[s, E]`.
    TopGates "top_gates" ("scores") {top_k: Int(None)} -> 1, Pure, Imported;
    /// The input of every expert: `out[t][e] = gates[t][e] * x[t]`. `x: f32[s, H]`, `gates: f32[s, E]` gives `f32[s, E, H]`.
    ExpertScale "expert_scale" ("x", "gates") {} -> 1, Pure, Imported;
    /// A product for each expert: `out[t][e][o] = sum_k w[e][o][k] * round(x[t][e][k], act)`. `x: f32[s, E, K]`, `w: T[E, O, K]` gives `f32[s, E, O]`.
    ExpertLinear "expert_linear" ("x", "w") {act: ACT} -> 1, Pure, Imported;
    /// Sum over experts in ascending order: `f32[s, E, O]` gives `f32[s, O]`.
    ExpertSum "expert_sum" ("x") {} -> 1, Pure, Imported;
    /// Each row times a factor of its own. `x: f32[s, N]`, `factor: f32[s, 1]` gives `f32[s, N]`.
    RowScale "row_scale" ("x", "factor") {} -> 1, Pure, Imported;
    /// Temperature of queries by position: `1 + attn_scale * ln(1 + floor((pos + 1) / floor_scale))`. `pos: i32[s]` gives `f32[s, 1]`.
    AttnTemperature "attn_temperature" ("pos") {floor_scale: Float(None), attn_scale: Float(None)} -> 1, Pure, Imported;
    /// Calls layer functions one after the other; the first operand is carried through (result of one call is the first operand of
    /// the next), the others are passed to each. The calls are in [`crate::module::Inst::calls`].
    Layers "layers" ("x", "args*") {} -> 1, Ordered, Imported;
    /// `silu(gate) * up`.
    SwiGlu "swiglu" ("gate", "up") {} -> 1, Pure, Fused;
    /// `linear(rms_norm(x, gamma), w, bias)`; without gamma (folded into `w`) see `unit_linear`.
    NormLinear "norm_linear" ("x", "gamma", "w", "bias?") {eps: Float(None), act: ACT} -> 1, Pure, Fused;
    /// `linear(rms_unit(x), w, bias)`.
    UnitLinear "unit_linear" ("x", "w", "bias?") {eps: Float(None), act: ACT} -> 1, Pure, Fused;
    /// `swiglu` of the two halves of `norm_linear(x, gamma, w)`: `w: T[2F, K]` is gate over up.
    NormLinearSwiGlu "norm_linear_swiglu" ("x", "gamma", "w", "bias?") {eps: Float(None), act: ACT} -> 1, Pure, Fused;
    /// `swiglu` of the two halves of `unit_linear(x, w)`.
    UnitLinearSwiGlu "unit_linear_swiglu" ("x", "w", "bias?") {eps: Float(None), act: ACT} -> 1, Pure, Fused;
    /// `residual + linear(x, w, bias)`.
    LinearAdd "linear_add" ("x", "w", "residual", "bias?") {act: ACT} -> 1, Pure, Fused;
    /// `kv_write(rope(k, angles), v, pos, seq)`, interleaved pairs.
    RopeKvWrite "rope_kv_write" ("k", "v", "angles", "pos", "seq") {head_dim: Int(None), kv: KV} -> 0, Ordered, Fused;
    /// The experts of each row in ascending order and their gates: what `top_gates` has where it is not 0. `scores: f32[s, E]` gives
    /// `i32[s, k]` and `f32[s, k]`.
    Route "route" ("scores") {top_k: Int(None)} -> 2, Pure, Fused;
    /// Gate and up of the experts of each row: `swiglu` of the two halves of `w[ids[t][j]] * round(gates[t][j] * x[t], act)`. `x: f32[s, H]`,
    /// `ids: i32[s, k]`, `gates: f32[s, k]`, `w: T[E, 2F, H]` gives `f32[s, k, F]`.
    MoeLinearSwiGlu "moe_linear_swiglu" ("x", "ids", "gates", "w") {act: ACT} -> 1, Pure, Fused;
    /// `residual[t] + sum_j w[ids[t][j]] * round(h[t][j], act)`, `j` ascending. `h: f32[s, k, F]`, `ids: i32[s, k]`, `w: T[E, H, F]`,
    /// `residual: f32[s, H]` gives `f32[s, H]`.
    MoeLinearAdd "moe_linear_add" ("h", "ids", "w", "residual") {act: ACT} -> 1, Pure, Fused;
}

impl OpKind {
    /// Its facts.
    pub fn info(self) -> &'static OpInfo {
        match (self, self.line()) {
            (OpKind::Tensor(op), _) => op.info(),
            (_, line) => &OPS[line.unwrap_or(0)].1,
        }
    }
    /// Its name in text.
    pub fn name(self) -> &'static str {
        self.info().name
    }
    /// The op of that name.
    pub fn from_name(name: &str) -> Option<OpKind> {
        let plain = OPS.iter().find(|(_, info)| info.name == name).map(|(kind, _)| *kind);
        plain.or_else(|| TensorOp::from_name(name).map(OpKind::Tensor))
    }
}
