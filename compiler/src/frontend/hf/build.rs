//! A Llama as a module of the IR, in the plain words of its definition: nothing is fused, merged or permuted here. Sizes and frequencies
//! come from the config, weights are named and not read.

use super::config::LlamaConfig;
use super::llama4::Kind;
use super::names::Names;
use llamac_ir::build::{FuncBuilder, Result};
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, LayerRun, Module, ValueId};
use llamac_ir::op::{Attr, OpKind, Stage};
use llamac_ir::recipe::Recipe;
use llamac_ir::types::{Dim, Type};

/// What the builder must know beside the config.
pub struct Build<'a> {
    /// Sizes.
    pub config: &'a LlamaConfig,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Names of its tensors.
    pub names: Names,
    /// Name of the module.
    pub name: &'a str,
    /// Element type of a tensor in the file, by its name with `{layer}`.
    pub dtype: &'a dyn Fn(&str) -> DType,
    /// New tokens in one step, at most.
    pub max_step: usize,
    /// Rows whose logits are wanted, at most.
    pub max_rows: usize,
    /// Longest sequence; matters to rope scaling `dynamic` only.
    pub max_context: usize,
}

/// The module, at [`Stage::Imported`].
///
/// # Errors
/// The ops refuse a type: a bug of this file.
pub fn module(b: &Build<'_>) -> Result<Module> {
    let dims = vec![("s".to_owned(), 1, b.max_step), ("r".to_owned(), 0, b.max_rows)];
    let mut funcs = b.config.kinds().into_iter().map(|kind| layer(b, kind)).collect::<Result<Vec<_>>>()?;
    funcs.push(main(b)?);
    Ok(Module { name: b.name.to_owned(), stage: Stage::Imported, dims, funcs })
}

fn tokens(width: usize) -> Type {
    Type::new(DType::F32, [Dim::sym("s"), width.into()])
}

fn indices(rows: &str) -> Type {
    Type::new(DType::I32, [Dim::sym(rows)])
}

/// The layer's or the model's view of one function under construction.
pub(super) struct Writer<'a> {
    pub(super) b: &'a Build<'a>,
    pub(super) f: FuncBuilder,
}

impl Writer<'_> {
    fn source(&self, name: String, shape: &[usize]) -> Recipe {
        let ty = Type::fixed((self.b.dtype)(&name), shape);
        Recipe::Source { name, ty }
    }

    /// A tensor of the layer.
    pub(super) fn in_layer(&self, part: &str, shape: &[usize]) -> Recipe {
        self.source(self.b.names.in_layer(part), shape)
    }

    fn norm(&mut self, name: &str, x: ValueId, tensor: String) -> Result<ValueId> {
        let gamma = self.source(tensor, &[self.b.config.hidden]);
        let gamma = self.f.weight(&format!("{name}_norm"), gamma)?;
        self.f.op(OpKind::RmsNorm, name, &[x.into(), gamma.into()], &[("eps", Attr::float(self.b.config.eps))])
    }

    /// A projection of a layer: `weight[rows, columns]`, with its bias if the model has them.
    pub(super) fn linear(&mut self, name: &str, x: ValueId, part: &str, [rows, columns]: [usize; 2], bias: bool) -> Result<ValueId> {
        let weight = self.in_layer(&format!("{part}.weight"), &[rows, columns]);
        let mut operands = vec![x.into(), self.f.weight(&format!("w{name}"), weight)?.into()];
        if bias {
            let bias = self.in_layer(&format!("{part}.bias"), &[rows]);
            operands.push(self.f.weight(&format!("b{name}"), bias)?.into());
        }
        self.f.op(OpKind::Linear, name, &operands, &[])
    }
}

/// Name of the function of a kind of layer; a model with one kind calls it `layer`.
fn func_name(b: &Build<'_>, kind: Kind) -> String {
    if b.config.llama4.is_none() {
        return "layer".to_owned();
    }
    let word = |flag, yes, no| if flag { yes } else { no };
    let words = [word(kind.rope, "rope", "nope"), word(kind.chunked, "chunked", "full"), word(kind.experts, "moe", "dense")];
    format!("layer.{}", words.join("_"))
}

fn layer(b: &Build<'_>, kind: Kind) -> Result<Func> {
    let c = b.config;
    let mut w = Writer { b, f: FuncBuilder::new(&func_name(b, kind)) };
    let x = w.f.param("x", tokens(c.hidden));
    let angles = w.f.param("angles", tokens(c.head_dim));
    let (pos, seq) = (w.f.param("pos", indices("s")), w.f.param("seq", indices("s")));

    let n = w.norm("n", x, b.names.in_layer("input_layernorm.weight"))?;
    let a = w.attention(n, [angles, pos, seq], kind)?;
    let o = w.linear("o", a, "self_attn.o_proj", [c.hidden, c.heads * c.head_dim], c.attention_bias)?;
    let h = w.f.op(OpKind::Add, "h", &[x.into(), o.into()], &[])?;

    let m = w.norm("m", h, b.names.in_layer("post_attention_layernorm.weight"))?;
    let out = match &c.llama4 {
        Some(l) if kind.experts => w.mixture(m, h, l)?,
        llama4 => {
            let (part, ffn) = llama4.as_ref().map_or(("mlp", c.ffn), |l| ("feed_forward", l.dense_ffn));
            let down = w.mlp(m, part, ffn)?;
            w.f.op(OpKind::Add, "out", &[h.into(), down.into()], &[])?
        }
    };
    Ok(w.f.finish(&[out.into()]))
}

impl Writer<'_> {
    /// Attention on the normed `n`, before the output projection.
    fn attention(&mut self, n: ValueId, [angles, pos, seq]: [ValueId; 3], kind: Kind) -> Result<ValueId> {
        let c = self.b.config;
        let head_dim = ("head_dim", Attr::Int(c.head_dim as i64));
        let kv_width = c.kv_heads * c.head_dim;
        let mut q = self.linear("q", n, "self_attn.q_proj", [c.heads * c.head_dim, c.hidden], c.attention_bias)?;
        let mut k = self.linear("k", n, "self_attn.k_proj", [kv_width, c.hidden], c.attention_bias)?;
        let v = self.linear("v", n, "self_attn.v_proj", [kv_width, c.hidden], c.attention_bias)?;
        if kind.rope {
            let layout = if c.llama4.is_some() { "interleaved" } else { "half" };
            let rope = [head_dim.clone(), ("layout", Attr::Word(layout.to_owned()))];
            q = self.f.op(OpKind::Rope, "q_rope", &[q.into(), angles.into()], &rope)?;
            k = self.f.op(OpKind::Rope, "k_rope", &[k.into(), angles.into()], &rope)?;
        }
        if kind.rope && c.llama4.as_ref().is_some_and(|l| l.qk_norm) {
            let unit = [("eps", Attr::float(c.eps)), ("group", Attr::Int(c.head_dim as i64))];
            q = self.f.op(OpKind::RmsUnit, "q_unit", &[q.into()], &unit)?;
            k = self.f.op(OpKind::RmsUnit, "k_unit", &[k.into()], &unit)?;
        }
        if let (false, Some((floor_scale, attn_scale))) = (kind.rope, c.llama4.as_ref().and_then(|l| l.temperature)) {
            let attrs = [("floor_scale", Attr::float(floor_scale)), ("attn_scale", Attr::float(attn_scale))];
            let factor = self.f.op(OpKind::AttnTemperature, "temperature", &[pos.into()], &attrs)?;
            q = self.f.op(OpKind::RowScale, "q_scaled", &[q.into(), factor.into()], &[])?;
        }
        self.f.effect(OpKind::KvWrite, &[k.into(), v.into(), pos.into(), seq.into()], std::slice::from_ref(&head_dim))?;
        let chunk = c.llama4.as_ref().filter(|_| kind.chunked).map_or(0, |l| l.chunk);
        let attention = [
            ("heads", Attr::Int(c.heads as i64)),
            ("kv_heads", Attr::Int(c.kv_heads as i64)),
            head_dim,
            ("scale", Attr::float(1.0 / (c.head_dim as f64).sqrt())),
            ("chunk", Attr::Int(chunk as i64)),
        ];
        self.f.op(OpKind::Attention, "a", &[q.into(), pos.into(), seq.into()], &attention)
    }
}

/// Calls of all layers in order, equal neighbours together.
fn calls(b: &Build<'_>) -> Vec<LayerRun> {
    let mut runs: Vec<LayerRun> = Vec::new();
    for layer in 0..b.config.layers {
        let func = func_name(b, b.config.kind(layer));
        match runs.last_mut() {
            Some(run) if run.func == func => run.count += 1,
            _ => runs.push(LayerRun { func, first: layer, count: 1 }),
        }
    }
    runs
}

fn main(b: &Build<'_>) -> Result<Func> {
    let c = b.config;
    let mut w = Writer { b, f: FuncBuilder::new("main") };
    let (ids, pos, seq) = (w.f.param("ids", indices("s")), w.f.param("pos", indices("s")), w.f.param("seq", indices("s")));
    let want = w.f.param("want", indices("r"));

    let embed = w.source(b.names.embed(), &[c.embed_rows, c.hidden]);
    let embed = w.f.weight("embed", embed)?;
    let x = w.f.op(OpKind::Embed, "x", &[ids.into(), embed.into()], &[])?;
    let frequencies = c.rope.inv_freq(c.head_dim, c.max_positions, b.max_context);
    let inv_freq = w.f.weight("inv_freq", Recipe::Literal { shape: vec![frequencies.len()], data: frequencies.into() })?;
    let angles = w.f.op(OpKind::RopeAngles, "angles", &[pos.into(), inv_freq.into()], &[])?;
    let y = w.f.layers("y", &[x.into(), angles.into(), pos.into(), seq.into()], calls(b), tokens(c.hidden))?;

    let n = w.norm("n", y, b.names.norm())?;
    let head = match b.tied {
        true => embed,
        false => {
            let head = w.source(b.names.head.to_owned(), &[c.vocab, c.hidden]);
            w.f.weight("head", head)?
        }
    };
    let all = w.f.op(OpKind::Linear, "all_logits", &[n.into(), head.into()], &[])?;
    let logits = w.f.op(OpKind::GatherRows, "logits", &[all.into(), want.into()], &[])?;
    Ok(w.f.finish(&[logits.into()]))
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
