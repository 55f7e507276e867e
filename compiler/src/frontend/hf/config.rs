//! `config.json` of a Llama as checked data. No weight is looked at here; what tensors a config implies is in `tensors`.

use super::architecture::{Architecture, Family, architecture};
use super::keys::{Keys, bad, parse};
use super::llama4::{Kind, Llama4, llama4};
use super::rope::{ROPE_TYPES, Rope, RopeScaling};
use crate::diag::Result;
use llamac_ir::dtype::DType;

/// The text model of a Llama. Every size is positive and small enough that sizes of tensors and of the whole model fit 64 bits.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// What the config says it is.
    pub architecture: &'static Architecture,
    /// Last part of `_name_or_path`, if there is one.
    pub name: Option<String>,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Decoder layers that are compiled.
    pub layers: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Width of the MLP, with Llama 4 that of an expert.
    pub ffn: usize,
    /// Rows of the output projection.
    pub vocab: usize,
    /// Rows of the embedding.
    pub embed_rows: usize,
    /// `max_position_embeddings`, tokens.
    pub max_positions: usize,
    /// Added to the mean square in norms.
    pub eps: f64,
    /// What Llama 4 adds.
    pub llama4: Option<Llama4>,
    /// Rotary frequencies.
    pub rope: Rope,
    /// Whether the head is the embedding; `None`: the weights decide.
    pub tied: Option<bool>,
    /// Whether q, k, v and o have biases.
    pub attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
    /// Element type that the config claims for the weights.
    pub dtype: Option<DType>,
    /// Begin-of-sequence id.
    pub bos: Option<u32>,
    /// Ids that end a turn.
    pub eos: Vec<u32>,
}

const MAX_WIDTH: usize = 1 << 22;
const MAX_LAYERS: usize = 1 << 12;
const MAX_VOCAB: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 30;

impl LlamaConfig {
    /// What a layer is.
    pub fn kind(&self, layer: usize) -> Kind {
        self.llama4.as_ref().and_then(|l| l.layers.get(layer)).copied().unwrap_or(Kind::PLAIN)
    }
    /// The distinct kinds of layers in the order in which the model uses them.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for kind in (0..self.layers).map(|i| self.kind(i)) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }
}

/// Reads the text of a `config.json`.
///
/// # Errors
/// Text that is no JSON object, an architecture that is not compiled, a key that is missing or has a value that cannot be; the diagnostic names the key.
pub fn parse_config(text: &[u8]) -> Result<LlamaConfig> {
    let value = parse(text)?;
    let outer = Keys::of(&value)?;
    let architecture = architecture(&outer)?;
    let keys = match architecture.nested {
        true => outer.object("text_config")?.ok_or_else(|| outer.bad("text_config", "`text_config` is missing").expected("an object"))?,
        false => Keys::of(&value)?,
    };
    check_plain(&outer)?;
    check_plain(&keys)?;
    let defaults = if architecture.family == Family::Llama4 { (1e-5, 5e5) } else { (1e-6, 1e4) };

    let hidden = keys.needed("hidden_size", MAX_WIDTH)?;
    let heads = keys.needed("num_attention_heads", MAX_WIDTH)?;
    let kv_heads = keys.count("num_key_value_heads", MAX_WIDTH)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys
            .bad("num_key_value_heads", "`num_key_value_heads` does not divide `num_attention_heads`")
            .expected(format_args!("a divisor of num_attention_heads = {heads}")));
    }
    let head_dim = head_dim(&keys, hidden, heads)?;
    let all_layers = keys.needed("num_hidden_layers", MAX_LAYERS)?;
    let crossing = if architecture.family == Family::Mllama { crossing(&keys, all_layers)? } else { 0 };
    let vocab = keys.needed("vocab_size", MAX_VOCAB)?;
    let name = outer.text("_name_or_path")?.and_then(|path| path.rsplit(['/', '\\']).find(|part| !part.is_empty())).map(str::to_owned);
    Ok(LlamaConfig {
        architecture,
        name,
        hidden,
        layers: all_layers - crossing,
        heads,
        kv_heads,
        head_dim,
        ffn: keys.needed("intermediate_size", MAX_WIDTH)?,
        vocab,
        // Llama 3.2 Vision embeds eight more ids than it can emit, that of the image among them.
        embed_rows: vocab + if architecture.family == Family::Mllama { 8 } else { 0 },
        // transformers' defaults: old Llama configs leave these four out.
        max_positions: keys.count("max_position_embeddings", MAX_POSITIONS)?.unwrap_or(2048),
        eps: eps(&keys, defaults.0)?,
        llama4: if architecture.family == Family::Llama4 { Some(llama4(&keys, all_layers, MAX_WIDTH)?) } else { None },
        rope: rope(&keys, defaults.1)?,
        tied: either(keys.flag("tie_word_embeddings")?, || outer.flag("tie_word_embeddings"))?,
        attention_bias: keys.flag("attention_bias")?.unwrap_or(false),
        mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false),
        dtype: either(dtype(&keys)?, || dtype(&outer))?,
        bos: keys.id("bos_token_id")?,
        eos: keys.ids("eos_token_id")?.unwrap_or_default(),
    })
}

/// What the text model says, else what the whole one does.
fn either<T>(inner: Option<T>, outer: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
    inner.map_or_else(outer, |x| Ok(Some(x)))
}

/// Number of cross-attention layers, which must leave a layer of the other kind.
fn crossing(keys: &Keys<'_>, layers: usize) -> Result<usize> {
    let mut given = keys.numbers("cross_attention_layers")?.unwrap_or_default();
    given.sort_unstable();
    given.dedup();
    if given.len() >= layers || given.iter().any(|n| *n >= layers) {
        return Err(keys
            .bad("cross_attention_layers", "`cross_attention_layers` cannot be that")
            .expected(format_args!("some of 0 to {}", layers - 1)));
    }
    Ok(given.len())
}

/// Keys that would change the meaning of the model and are not compiled.
fn check_plain(keys: &Keys<'_>) -> Result<()> {
    if let Some(act) = keys.text("hidden_act")?.filter(|act| !["silu", "swish"].contains(act)) {
        return Err(keys.bad("hidden_act", format!("unknown activation `{act}`")).expected("silu"));
    }
    if let Some(quant) = keys.object("quantization_config")? {
        let method = quant.text("quant_method")?.unwrap_or("unknown");
        return Err(bad("the checkpoint is already quantized")
            .place("`quantization_config`")
            .found(format_args!("quant_method {method}"))
            .expected("plain f32, f16 or bf16 weights")
            .help("take the original checkpoint; llamac quantizes by itself"));
    }
    if keys.positive("partial_rotary_factor")?.is_some_and(|part| part != 1.0) {
        return Err(keys.bad("partial_rotary_factor", "heads that are rotated only in part are not compiled").expected(1));
    }
    Ok(())
}

fn head_dim(keys: &Keys<'_>, hidden: usize, heads: usize) -> Result<usize> {
    let (head_dim, key) = match keys.count("head_dim", 4096)? {
        Some(given) => (given, "head_dim"),
        None if hidden.is_multiple_of(heads) => (hidden / heads, "hidden_size"),
        None => {
            return Err(keys
                .bad("num_attention_heads", "`num_attention_heads` does not divide `hidden_size`, and `head_dim` is not given")
                .expected(format_args!("a divisor of hidden_size = {hidden}, or the key `head_dim`")));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(keys
            .bad(key, "the head size is odd, so its elements cannot be rotated in pairs")
            .expected(format_args!("an even head size, not {head_dim}")));
    }
    if heads * head_dim > MAX_WIDTH {
        return Err(keys.bad(key, "all heads together are too wide").expected(format_args!("heads * head_dim of at most {MAX_WIDTH}")));
    }
    Ok(head_dim)
}

fn eps(keys: &Keys<'_>, default: f64) -> Result<f64> {
    match keys.not_negative("rms_norm_eps")? {
        None => Ok(default),
        Some(eps) if eps < 1.0 => Ok(eps),
        Some(_) => Err(keys.bad("rms_norm_eps", "`rms_norm_eps` is too large").expected("a number below 1, such as 1e-5")),
    }
}

fn dtype(keys: &Keys<'_>) -> Result<Option<DType>> {
    let key = if keys.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    match keys.text(key)?.map(|t| t.trim_start_matches("torch.")) {
        None | Some("auto") => Ok(None),
        Some("bfloat16") => Ok(Some(DType::Bf16)),
        Some("float16" | "half") => Ok(Some(DType::F16)),
        Some("float32" | "float") => Ok(Some(DType::F32)),
        Some(_) => Err(keys.bad(key, "unknown element type").expected("bfloat16, float16 or float32")),
    }
}

/// Both styles: `rope_theta` with `rope_scaling`, and `rope_parameters` with everything inside (which goes first).
fn rope(keys: &Keys<'_>, default_theta: f64) -> Result<Rope> {
    let outer = keys.positive("rope_theta")?;
    let inner = match keys.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => keys.object("rope_scaling")?,
    };
    let Some(inner) = inner else {
        return Ok(Rope { theta: check_theta(keys, outer.unwrap_or(default_theta))?, scaling: RopeScaling::None });
    };
    let theta = match inner.positive("rope_theta")? {
        Some(theta) => check_theta(&inner, theta)?,
        None => check_theta(keys, outer.unwrap_or(default_theta))?,
    };
    if inner.positive("partial_rotary_factor")?.is_some_and(|part| part != 1.0) {
        return Err(inner.bad("partial_rotary_factor", "heads that are rotated only in part are not compiled").expected(1));
    }
    let key = if inner.get("rope_type").is_some() { "rope_type" } else { "type" };
    let factor = || match inner.positive("factor")? {
        Some(factor) if (1.0..=1e6).contains(&factor) => Ok(factor),
        _ => Err(inner.bad("factor", "the rope factor is missing or cannot be").expected("a number from 1 to 1e6")),
    };
    let scaling = match inner.text(key)? {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: factor()? },
        Some("dynamic") => RopeScaling::Dynamic { factor: factor()? },
        Some("llama3") => {
            let needed = |key: &str| {
                inner
                    .positive(key)?
                    .ok_or_else(|| inner.bad(key, format!("`{key}` is missing for rope type llama3")).expected("a number above 0"))
            };
            let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
            if high < low {
                return Err(inner
                    .bad("high_freq_factor", "`high_freq_factor` is below `low_freq_factor`")
                    .expected(format_args!("at least {low}")));
            }
            RopeScaling::Llama3 { factor: factor()?, low, high, original: needed("original_max_position_embeddings")? }
        }
        Some(_) => {
            return Err(inner
                .bad(key, "unknown rope type")
                .expected(format_args!("one of {}", ROPE_TYPES.join(", ")))
                .help("this kind of context extension is not compiled; take a checkpoint with one of the known types"));
        }
    };
    Ok(Rope { theta, scaling })
}

fn check_theta(keys: &Keys<'_>, theta: f64) -> Result<f64> {
    match theta {
        t if (1.0..=1e15).contains(&t) => Ok(t),
        _ => Err(keys.bad("rope_theta", "`rope_theta` cannot be that").expected("a number from 1 to 1e15, such as 500000")),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
