//! What Llama 4 adds to a Llama, from its config: which layers rotate, which see one chunk, which have experts, and the constants of each.
//! The module that follows from it is in `build` and `experts`.

use super::keys::Keys;
use crate::diag::Result;

/// The keys that only Llama 4 has.
#[derive(Debug, Clone, PartialEq)]
pub struct Llama4 {
    /// Kind of every layer.
    pub layers: Vec<Kind>,
    /// `attention_chunk_size`, tokens.
    pub chunk: usize,
    /// Whether layers with rope normalise queries and keys after it.
    pub qk_norm: bool,
    /// `floor_scale` and `attn_scale` of the queries of layers without rope.
    pub temperature: Option<(f64, f64)>,
    /// Experts of a layer.
    pub experts: usize,
    /// Experts of a token.
    pub top_k: usize,
    /// Width of the MLP of layers without experts.
    pub dense_ffn: usize,
}

/// What one layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Whether queries and keys are rotated.
    pub rope: bool,
    /// Whether attention sees its own chunk only.
    pub chunked: bool,
    /// Whether the MLP is a mixture of experts.
    pub experts: bool,
}

impl Kind {
    /// A layer of Llama 1 to 3.
    pub const PLAIN: Kind = Kind { rope: true, chunked: false, experts: false };
}

const MAX_EXPERTS: usize = 1 << 16;
const MAX_CHUNK: usize = 1 << 30;

/// Reads the keys of a text model of `layers` layers. Absent keys have the defaults of transformers.
///
/// # Errors
/// A key has a value that cannot be; the diagnostic names it.
pub(super) fn llama4(keys: &Keys<'_>, layers: usize, max_width: usize) -> Result<Llama4> {
    let experts = keys.count("num_local_experts", MAX_EXPERTS)?.unwrap_or(16);
    let top_k = keys.count("num_experts_per_tok", MAX_EXPERTS)?.unwrap_or(1);
    if top_k > experts {
        let what = "a token has more experts than there are";
        return Err(keys.bad("num_experts_per_tok", what).expected(format_args!("at most num_local_experts = {experts}")));
    }
    let tuned = keys.truth("attn_temperature_tuning")?.unwrap_or(true);
    let floor_scale = keys.positive("floor_scale")?.unwrap_or(8192.0);
    let attn_scale = keys.not_negative("attn_scale")?.unwrap_or(0.1);
    let (rope, chunked, moe) = (rope(keys, layers)?, chunked(keys, layers)?, moe(keys, layers)?);
    let kind = |i: usize| Kind { rope: rope[i], chunked: chunked.as_ref().map_or(rope[i], |c| c[i]), experts: moe[i] };
    Ok(Llama4 {
        layers: (0..layers).map(kind).collect(),
        chunk: keys.count("attention_chunk_size", MAX_CHUNK)?.unwrap_or(8192),
        qk_norm: keys.flag("use_qk_norm")?.unwrap_or(true),
        temperature: tuned.then_some((floor_scale, attn_scale)),
        experts,
        top_k,
        dense_ffn: keys.count("intermediate_size_mlp", max_width)?.unwrap_or(16384),
    })
}

/// `no_rope_layers` holds 1 for a layer that rotates; absent or empty, every `no_rope_layer_interval`-th layer does not.
fn rope(keys: &Keys<'_>, layers: usize) -> Result<Vec<bool>> {
    let given = keys.numbers("no_rope_layers")?.unwrap_or_default();
    if given.is_empty() {
        let every = keys.count("no_rope_layer_interval", usize::MAX)?.unwrap_or(4);
        return Ok((1..=layers).map(|n| n % every != 0).collect());
    }
    if given.len() != layers || given.iter().any(|n| *n > 1) {
        let what = "`no_rope_layers` does not say 0 or 1 for every layer";
        return Err(keys.bad("no_rope_layers", what).expected(format_args!("{layers} numbers, 1 where the layer has rope")));
    }
    Ok(given.iter().map(|n| *n == 1).collect())
}

/// `layer_types`, if it is there.
fn chunked(keys: &Keys<'_>, layers: usize) -> Result<Option<Vec<bool>>> {
    let Some(given) = keys.texts("layer_types")? else { return Ok(None) };
    let known = |t: &&str| ["chunked_attention", "full_attention"].contains(t);
    if given.len() != layers || !given.iter().all(known) {
        let what = "`layer_types` does not name the attention of every layer";
        return Err(keys.bad("layer_types", what).expected(format_args!("{layers} words, chunked_attention or full_attention")));
    }
    Ok(Some(given.iter().map(|t| *t == "chunked_attention").collect()))
}

/// `moe_layers` names the layers with experts; absent, they are every `interleave_moe_layer_step`-th.
fn moe(keys: &Keys<'_>, layers: usize) -> Result<Vec<bool>> {
    let Some(given) = keys.numbers("moe_layers")? else {
        let step = keys.count("interleave_moe_layer_step", usize::MAX)?.unwrap_or(1);
        return Ok((1..=layers).map(|n| n % step == 0).collect());
    };
    if given.iter().any(|n| *n >= layers) {
        return Err(keys
            .bad("moe_layers", "`moe_layers` names a layer that is not there")
            .expected(format_args!("numbers below {layers}")));
    }
    Ok((0..layers).map(|i| given.contains(&i)).collect())
}
