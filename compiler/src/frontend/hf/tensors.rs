//! The tensors that a config implies, and their comparison with those of a checkpoint. What is computed with them is in `build`.

use super::config::LlamaConfig;
use super::names::Names;
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
    /// Layers that have it; `None`: it is in none.
    pub layers: Option<Vec<usize>>,
}

/// Every tensor of the model, those of a layer once.
pub fn needed(config: &LlamaConfig, tied: bool, names: &Names) -> Vec<Needed> {
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize], keys| all.push(Needed { name, shape: shape.to_vec(), keys, layers: None });
    let embedding = "vocab_size, hidden_size";
    add(names.embed(), &[config.embed_rows, config.hidden], embedding);
    add(names.norm(), &[config.hidden], "hidden_size");
    if !tied {
        add(names.head.to_owned(), &[config.vocab, config.hidden], embedding);
    }
    let every: Vec<usize> = (0..config.layers).collect();
    let (moe, dense): (Vec<usize>, Vec<usize>) = every.iter().partition(|layer| config.kind(**layer).experts);
    for (layers, parts) in [(every, in_every_layer(config)), (dense, in_dense_layers(config)), (moe, in_layers_of_experts(config, names))] {
        let of_layers = |(part, shape, keys): Part| Needed { name: names.in_layer(&part), shape, keys, layers: Some(layers.clone()) };
        all.extend(parts.into_iter().filter(|_| !layers.is_empty()).map(of_layers));
    }
    all
}

/// Name in the layer, shape, keys of the config.
type Part = (String, Vec<usize>, &'static str);

/// A matrix, and a bias if there is one.
fn linear(part: &str, rows: usize, columns: usize, keys: &'static str, bias: bool) -> Vec<Part> {
    let mut parts = vec![(format!("{part}.weight"), vec![rows, columns], keys)];
    if bias {
        parts.push((format!("{part}.bias"), vec![rows], keys));
    }
    parts
}

fn in_every_layer(c: &LlamaConfig) -> Vec<Part> {
    let (q, kv, bias) = (c.heads * c.head_dim, c.kv_heads * c.head_dim, c.attention_bias);
    let heads = "num_attention_heads, head_dim, hidden_size";
    let kv_heads = "num_key_value_heads, head_dim, hidden_size";
    let norm = |name: &str| (format!("{name}.weight"), vec![c.hidden], "hidden_size");
    let mut parts = vec![norm("input_layernorm"), norm("post_attention_layernorm")];
    parts.extend(linear("self_attn.q_proj", q, c.hidden, heads, bias));
    parts.extend(linear("self_attn.k_proj", kv, c.hidden, kv_heads, bias));
    parts.extend(linear("self_attn.v_proj", kv, c.hidden, kv_heads, bias));
    parts.extend(linear("self_attn.o_proj", c.hidden, q, heads, bias));
    parts
}

fn mlp(part: &str, ffn: usize, c: &LlamaConfig, keys: &'static str) -> Vec<Part> {
    let mut parts = linear(&format!("{part}.gate_proj"), ffn, c.hidden, keys, c.mlp_bias);
    parts.extend(linear(&format!("{part}.up_proj"), ffn, c.hidden, keys, c.mlp_bias));
    parts.extend(linear(&format!("{part}.down_proj"), c.hidden, ffn, keys, c.mlp_bias));
    parts
}

fn in_dense_layers(c: &LlamaConfig) -> Vec<Part> {
    match &c.llama4 {
        Some(l) => mlp("feed_forward", l.dense_ffn, c, "intermediate_size_mlp, hidden_size"),
        None => mlp("mlp", c.ffn, c, "intermediate_size, hidden_size"),
    }
}

fn in_layers_of_experts(c: &LlamaConfig, names: &Names) -> Vec<Part> {
    let Some(l) = &c.llama4 else { return Vec::new() };
    let keys = "num_local_experts, intermediate_size, hidden_size";
    let mut parts = linear("feed_forward.router", l.experts, c.hidden, keys, false);
    parts.extend(mlp("feed_forward.shared_expert", c.ffn, c, keys));
    if names.each_expert {
        (0..l.experts).for_each(|e| parts.extend(mlp(&format!("feed_forward.experts.{e}"), c.ffn, c, keys)));
    } else {
        parts.push(("feed_forward.experts.gate_up_proj".to_owned(), vec![l.experts, c.hidden, 2 * c.ffn], keys));
        parts.push(("feed_forward.experts.down_proj".to_owned(), vec![l.experts, c.ffn, c.hidden], keys));
    }
    parts
}

/// Parameters of the model.
pub fn parameters(config: &LlamaConfig, tied: bool) -> u64 {
    let times = |n: &Needed| n.layers.as_ref().map_or(1, |layers| layers.len() as u64);
    needed(config, tied, &Names::default()).iter().map(|n| times(n) * n.shape.iter().map(|&d| d as u64).product::<u64>()).sum()
}

/// Element type of a tensor, by its name with `{layer}`: that of all layers that have it, or f32 where they differ (every type widens to it).
pub fn dtype(checkpoint: &Checkpoint, name: &str, layers: usize) -> Option<DType> {
    let last = if name.contains(LAYER) { layers } else { 1 };
    let mut each = (0..last).filter_map(|layer| checkpoint.tensor(&name.replace(LAYER, &layer.to_string())).and_then(|t| t.dtype.ir));
    let first = each.next()?;
    Some(if each.all(|dtype| dtype == first) { first } else { DType::F32 })
}

/// Compares a checkpoint with what the config implies.
///
/// # Errors
/// A tensor is missing, has another shape than the config says or a type that is no float; or there are tensors that would change what the
/// model computes and that the config does not ask for (more layers, biases).
pub fn check(checkpoint: &Checkpoint, config: &LlamaConfig, tied: bool, names: &Names) -> Result<Vec<Warning>> {
    let mut known = BTreeSet::new();
    for need in needed(config, tied, names) {
        for layer in need.layers.as_deref().unwrap_or(&[0]) {
            let name = need.name.replace(LAYER, &layer.to_string());
            check_one(checkpoint, &need, &name)?;
            known.insert(name);
        }
    }
    let extra: Vec<&str> = checkpoint.names().filter(|n| !known.contains(*n) && !harmless(n, names) && !of_vision(n)).collect();
    if let Some(name) = extra.iter().find(|n| layer_of(n, names).is_some_and(|layer| layer >= config.layers)) {
        return Err(disagree(checkpoint, name, "the checkpoint has more layers than the config")
            .expected(format_args!("{} layers (`num_hidden_layers`)", config.layers))
            .help("take config.json and weights of the same model"));
    }
    if let Some(name) = extra.iter().find(|n| layer_of(n, names).is_some() && n.ends_with(".bias")) {
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
fn harmless(name: &str, names: &Names) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == names.head
}

/// Tensors of the vision half: the config's architecture says that it is not compiled.
fn of_vision(name: &str) -> bool {
    let name = name.strip_prefix("model.").unwrap_or(name);
    name.starts_with("vision_model.") || name.starts_with("multi_modal_projector.")
}

fn layer_of(name: &str, names: &Names) -> Option<usize> {
    name.strip_prefix(&names.layers())?.split('.').next()?.parse().ok()
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
