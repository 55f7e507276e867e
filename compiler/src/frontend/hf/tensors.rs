//! The tensors that a config implies, and their comparison with those of a checkpoint. What is computed with them is in `build`.

use super::config::LlamaConfig;
use crate::diag::{Diag, Result, Warning};
use crate::frontend::safetensors::Checkpoint;
use llamac_ir::dtype::DType;
use llamac_ir::recipe::LAYER;
use std::collections::BTreeSet;

/// A tensor that the model needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Name in the checkpoint, with `{layer}` for the number of the layer.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Keys of the config that the shape comes from.
    pub keys: &'static str,
}

/// Name of the input embedding.
pub const EMBED: &str = "model.embed_tokens.weight";
/// Name of the output projection where it is not the embedding.
pub const HEAD: &str = "lm_head.weight";
/// Name of the last norm's weight.
pub const NORM: &str = "model.norm.weight";
/// What every tensor of a layer is called first.
const LAYERS: &str = "model.layers.";

/// Name of a layer's tensor.
pub fn in_layer(part: &str) -> String {
    format!("{LAYERS}{LAYER}.{part}")
}

/// Every tensor of the model, those of a layer once.
pub fn needed(config: &LlamaConfig, tied: bool) -> Vec<Needed> {
    let (hidden, ffn) = (config.hidden, config.ffn);
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize], keys| all.push(Needed { name, shape: shape.to_vec(), keys });
    let embedding = "vocab_size, hidden_size";
    add(EMBED.to_owned(), &[config.vocab, hidden], embedding);
    add(NORM.to_owned(), &[hidden], "hidden_size");
    if !tied {
        add(HEAD.to_owned(), &[config.vocab, hidden], embedding);
    }
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        add(in_layer(&format!("{norm}.weight")), &[hidden], "hidden_size");
    }
    let heads = "num_attention_heads, head_dim, hidden_size";
    let kv_heads = "num_key_value_heads, head_dim, hidden_size";
    let mlp = "intermediate_size, hidden_size";
    let linears = [
        ("self_attn.q_proj", q, hidden, heads, config.attention_bias),
        ("self_attn.k_proj", kv, hidden, kv_heads, config.attention_bias),
        ("self_attn.v_proj", kv, hidden, kv_heads, config.attention_bias),
        ("self_attn.o_proj", hidden, q, heads, config.attention_bias),
        ("mlp.gate_proj", ffn, hidden, mlp, config.mlp_bias),
        ("mlp.up_proj", ffn, hidden, mlp, config.mlp_bias),
        ("mlp.down_proj", hidden, ffn, mlp, config.mlp_bias),
    ];
    for (part, rows, columns, keys, bias) in linears {
        add(in_layer(&format!("{part}.weight")), &[rows, columns], keys);
        if bias {
            add(in_layer(&format!("{part}.bias")), &[rows], keys);
        }
    }
    all
}

/// Parameters of the model.
pub fn parameters(config: &LlamaConfig, tied: bool) -> u64 {
    let times = |n: &Needed| if n.name.contains(LAYER) { config.layers as u64 } else { 1 };
    needed(config, tied).iter().map(|n| times(n) * n.shape.iter().map(|&d| d as u64).product::<u64>()).sum()
}

/// Element type of each needed tensor: that of all layers, or f32 where layers differ (every type widens to it).
pub fn dtype(checkpoint: &Checkpoint, name: &str, layers: usize) -> Option<DType> {
    let each = |layer: usize| checkpoint.tensor(&name.replace(LAYER, &layer.to_string())).and_then(|t| t.dtype.ir);
    let first = each(0)?;
    let last = if name.contains(LAYER) { layers } else { 1 };
    Some(if (1..last).all(|layer| each(layer) == Some(first)) { first } else { DType::F32 })
}

/// Compares a checkpoint with what the config implies.
///
/// # Errors
/// A tensor is missing, has another shape than the config says or a type that is no float; or there are tensors that would change what the
/// model computes and that the config does not ask for (more layers, biases).
pub fn check(checkpoint: &Checkpoint, config: &LlamaConfig, tied: bool) -> Result<Vec<Warning>> {
    let mut known = BTreeSet::new();
    for need in needed(config, tied) {
        let layers = if need.name.contains(LAYER) { config.layers } else { 1 };
        for layer in 0..layers {
            let name = need.name.replace(LAYER, &layer.to_string());
            check_one(checkpoint, &need, &name)?;
            known.insert(name);
        }
    }
    let extra: Vec<&str> = checkpoint.names().filter(|n| !known.contains(*n) && !harmless(n)).collect();
    if let Some(name) = extra.iter().find(|n| layer_of(n).is_some_and(|layer| layer >= config.layers)) {
        return Err(disagree(checkpoint, name, "the checkpoint has more layers than the config")
            .expected(format_args!("{} layers (`num_hidden_layers`)", config.layers))
            .help("take config.json and weights of the same model"));
    }
    if let Some(name) = extra.iter().find(|n| layer_of(n).is_some() && n.ends_with(".bias")) {
        return Err(disagree(checkpoint, name, "the checkpoint has a bias that the config does not ask for")
            .expected("no biases (`attention_bias`, `mlp_bias`)")
            .help("set the key in config.json to true if the model has biases"));
    }
    Ok(extra.first().map_or_else(Vec::new, |name| {
        let what = format!("{} tensors are not part of the model and are ignored, `{name}` the first", extra.len());
        vec![Warning(Diag::new("weights", what).place(checkpoint.folder().display()))]
    }))
}

/// Tensors that old checkpoints carry and that say nothing: rotary tables, and a head that is tied.
fn harmless(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == HEAD
}

fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix(LAYERS)?.split('.').next()?.parse().ok()
}

fn disagree(checkpoint: &Checkpoint, name: &str, what: &str) -> Diag {
    let place = checkpoint.file_of(name).unwrap_or_else(|| checkpoint.folder());
    Diag::new("weights", what).place(format_args!("{}: tensor `{name}`", place.display())).found(format_args!("`{name}`"))
}

fn check_one(checkpoint: &Checkpoint, need: &Needed, name: &str) -> Result<()> {
    let Some(tensor) = checkpoint.tensor(name) else {
        return Err(Diag::new("weights", format!("tensor `{name}` is missing"))
            .place(checkpoint.folder().display())
            .found(format_args!("{} tensors, none of that name", checkpoint.names().count()))
            .expected(format_args!("shape {:?} (from {})", need.shape, need.keys))
            .help("download the whole checkpoint; config.json and weights must be of the same model"));
    };
    if tensor.shape != need.shape {
        return Err(disagree(checkpoint, name, "a tensor has another shape than the config says")
            .found(format_args!("{:?}", tensor.shape))
            .expected(format_args!("{:?} (from {} in config.json)", need.shape, need.keys))
            .help("take config.json and weights of the same model"));
    }
    if !matches!(tensor.dtype.ir, Some(DType::F32 | DType::F16 | DType::Bf16)) {
        return Err(disagree(checkpoint, name, "a tensor has a type that is not compiled")
            .found(tensor.dtype.name)
            .expected("F32, F16 or BF16")
            .help("take the original, unquantized checkpoint; llamac quantizes by itself"));
    }
    Ok(())
}
