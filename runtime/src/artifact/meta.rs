//! The metadata section: what the runtime must know beside code and weights, as JSON. Plain data; reading and checking are in `reader`.

use super::signature::Signature;
use crate::abi::ScheduleEntry;
use serde::{Deserialize, Serialize};

/// Everything in the metadata section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the compiler that wrote the artifact.
    pub compiler: String,
    /// What the code runs on.
    pub target: TargetMeta,
    /// What was compiled.
    pub model: ModelMeta,
    /// Memory and work, known beforehand.
    pub plan: PlanMeta,
    /// Names of the kernels that the code calls, in table order.
    pub kernels: Vec<String>,
    /// Calls of layer functions.
    pub schedule: Vec<ScheduleEntry>,
    /// Offset of the step function in the code section.
    pub entry: u64,
    /// Defaults for generation.
    pub generation: GenerationMeta,
    /// Tensors that it takes and gives by name; not there in artifacts written before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// What the code runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetMeta {
    /// `x86_64`, `aarch64` or `riscv64`.
    pub arch: String,
    /// CPU features that code and kernels need, by the names of Rust's `target_feature`.
    pub features: Vec<String>,
    /// [`crate::abi::ABI_VERSION`] at compile time.
    pub abi: u32,
}

/// What was compiled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelMeta {
    /// Name, for people.
    pub name: String,
    /// Architecture as the checkpoint calls it.
    pub architecture: String,
    /// Layers.
    pub layers: usize,
    /// Logits per row; [`PlanMeta::logits_stride`] is that of the padded row.
    pub vocab: usize,
    /// Positions that a sequence may have.
    pub max_context: usize,
    /// Parameters of the checkpoint.
    pub parameters: u64,
    /// Weight format, `f32` or `bf16` ...
    pub quant: String,
}

/// Memory and work of a step, exact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanMeta {
    /// New tokens in one step, at most.
    pub max_step: usize,
    /// Rows whose logits are wanted in one step, at most.
    pub max_rows: usize,
    /// Sequences at a time, at most.
    pub max_batch: usize,
    /// Bytes of the activation arena.
    pub arena_bytes: u64,
    /// Byte offset of the logits in the arena, f32 rows.
    pub logits_offset: u64,
    /// Bytes from one row of logits to the next.
    pub logits_stride: u64,
    /// Bytes of the weight section.
    pub weight_bytes: u64,
    /// Weight bytes that a decode step of one token reads (a tied embedding once).
    pub decode_bytes: u64,
    /// Multiply-accumulates of a step of one token in linears.
    pub decode_macs: u64,
    /// Of these, multiply-accumulates that every new token needs, also one whose logits are not wanted; 0: not known.
    #[serde(default)]
    pub token_macs: u64,
    /// Named buffers of the arena.
    pub buffers: Vec<BufferMeta>,
    /// KV groups.
    pub kv: Vec<KvMeta>,
    /// Work of attention, by KV group; empty: not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<AttentionMeta>,
    /// Where each layer's keys and values are, by layer; empty: not known (artifacts of 0.1 before the field was there).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheMeta>,
}

/// Where the keys and values of a layer are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMeta {
    /// Index of its [`KvMeta`].
    pub group: usize,
    /// Byte offset in a page of the group: keys of all heads, then values of all heads.
    pub offset: u64,
    /// Size of a head of the model; [`KvMeta::head_dim`] is the padded one.
    pub head_dim: usize,
    /// Whether elements `i` and `i + head_dim / 2` of a key of the model stand side by side: rotation is compiled that way.
    pub paired: bool,
}

/// What attention multiplies for each key that a query sees, scores and values together, in all layers of a KV group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttentionMeta {
    /// Multiply-accumulates in layers where every new token has a query.
    pub token_macs: u64,
    /// Multiply-accumulates in layers where only tokens whose logits are wanted have one.
    pub row_macs: u64,
}

impl PlanMeta {
    /// Bytes of the KV cache of a sequence of that many tokens, in whole pages: of layers that see all of them, and rings of one chunk for
    /// the others.
    pub fn cache_bytes(&self, tokens: u64) -> u64 {
        let kept = |chunk: usize| if chunk == 0 { tokens } else { tokens.min(chunk as u64) };
        self.kv.iter().map(|k| kept(k.chunk).div_ceil(crate::abi::PAGE_TOKENS as u64) * k.page_bytes).sum()
    }

    /// Multiply-accumulates of attention when a sequence that has `before` tokens gets `new` ones, with logits of the last one wanted. Only keys
    /// that a query sees count, whatever a kernel computes beside them.
    pub fn attention_macs(&self, before: usize, new: usize) -> u64 {
        let group = |(macs, kv): (&AttentionMeta, &KvMeta)| {
            let seen = |pos: usize| kv.place(pos) as u64 + 1;
            let last = if new == 0 { 0 } else { seen(before + new - 1) };
            let all = (before..before + new).map(seen).sum::<u64>();
            macs.token_macs.saturating_mul(all).saturating_add(macs.row_macs.saturating_mul(last))
        };
        self.attention.iter().zip(&self.kv).map(group).fold(0, u64::saturating_add)
    }
}

/// A buffer of the arena.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferMeta {
    /// Name in the printed step program.
    pub name: String,
    /// Byte offset in the arena.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One group of layers that share page tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvMeta {
    /// Layers in the group.
    pub layers: usize,
    /// `f32` or `bf16`.
    pub format: String,
    /// KV heads.
    pub kv_heads: usize,
    /// Padded head size.
    pub head_dim: usize,
    /// Bytes of one page of all layers of the group.
    pub page_bytes: u64,
    /// Attention chunk; 0: full attention.
    pub chunk: usize,
}

impl KvMeta {
    /// Place of a position in the cache of a sequence: in a ring of one chunk, if attention is chunked.
    pub fn place(&self, position: usize) -> usize {
        if self.chunk == 0 { position } else { position % self.chunk }
    }
}

/// Defaults for generation, from the checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GenerationMeta {
    /// Begin-of-sequence id.
    pub bos: Option<u32>,
    /// Ids that end a turn.
    pub eos: Vec<u32>,
    /// Whether to sample at all.
    pub do_sample: Option<bool>,
    /// Temperature.
    pub temperature: Option<f32>,
    /// Top-p.
    pub top_p: Option<f32>,
    /// Top-k.
    pub top_k: Option<u32>,
    /// Repetition penalty.
    pub repetition_penalty: Option<f32>,
}
