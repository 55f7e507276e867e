//! A Llama as a module of the IR, in the plain words of its definition: nothing is fused, merged or permuted here. Sizes and frequencies
//! come from the config, weights are named and not read.

use super::config::LlamaConfig;
use super::tensors::{EMBED, HEAD, NORM, in_layer};
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
    Ok(Module { name: b.name.to_owned(), stage: Stage::Imported, dims, funcs: vec![layer(b)?, main(b)?] })
}

fn tokens(width: usize) -> Type {
    Type::new(DType::F32, [Dim::sym("s"), width.into()])
}

fn indices(rows: &str) -> Type {
    Type::new(DType::I32, [Dim::sym(rows)])
}

/// The layer's or the model's view of one function under construction.
struct Writer<'a, 'b> {
    b: &'a Build<'b>,
    f: FuncBuilder,
}

impl Writer<'_, '_> {
    fn source(&self, name: String, shape: &[usize]) -> Recipe {
        let ty = Type::fixed((self.b.dtype)(&name), shape);
        Recipe::Source { name, ty }
    }

    fn norm(&mut self, name: &str, x: ValueId, tensor: String) -> Result<ValueId> {
        let gamma = self.source(tensor, &[self.b.config.hidden]);
        let gamma = self.f.weight(&format!("{name}_norm"), gamma)?;
        self.f.op(OpKind::RmsNorm, name, &[x.into(), gamma.into()], &[("eps", Attr::float(self.b.config.eps))])
    }

    /// A projection of a layer: `weight[rows, columns]`, with its bias if the model has them.
    fn linear(&mut self, name: &str, x: ValueId, part: &str, [rows, columns]: [usize; 2], bias: bool) -> Result<ValueId> {
        let weight = self.source(in_layer(&format!("{part}.weight")), &[rows, columns]);
        let mut operands = vec![x.into(), self.f.weight(&format!("w{name}"), weight)?.into()];
        if bias {
            let bias = self.source(in_layer(&format!("{part}.bias")), &[rows]);
            operands.push(self.f.weight(&format!("b{name}"), bias)?.into());
        }
        self.f.op(OpKind::Linear, name, &operands, &[])
    }
}

fn layer(b: &Build<'_>) -> Result<Func> {
    let c = b.config;
    let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let head_dim = ("head_dim", Attr::Int(c.head_dim as i64));
    let mut w = Writer { b, f: FuncBuilder::new("layer") };
    let x = w.f.param("x", tokens(c.hidden));
    let angles = w.f.param("angles", tokens(c.head_dim));
    let (pos, seq) = (w.f.param("pos", indices("s")), w.f.param("seq", indices("s")));

    let n = w.norm("n", x, in_layer("input_layernorm.weight"))?;
    let q = w.linear("q", n, "self_attn.q_proj", [q_width, c.hidden], c.attention_bias)?;
    let k = w.linear("k", n, "self_attn.k_proj", [kv_width, c.hidden], c.attention_bias)?;
    let v = w.linear("v", n, "self_attn.v_proj", [kv_width, c.hidden], c.attention_bias)?;
    let rope = [head_dim.clone(), ("layout", Attr::Word("half".to_owned()))];
    let q = w.f.op(OpKind::Rope, "q_rope", &[q.into(), angles.into()], &rope)?;
    let k = w.f.op(OpKind::Rope, "k_rope", &[k.into(), angles.into()], &rope)?;
    w.f.effect(OpKind::KvWrite, &[k.into(), v.into(), pos.into(), seq.into()], std::slice::from_ref(&head_dim))?;
    let attention = [
        ("heads", Attr::Int(c.heads as i64)),
        ("kv_heads", Attr::Int(c.kv_heads as i64)),
        head_dim,
        ("scale", Attr::float(1.0 / (c.head_dim as f64).sqrt())),
    ];
    let a = w.f.op(OpKind::Attention, "a", &[q.into(), pos.into(), seq.into()], &attention)?;
    let o = w.linear("o", a, "self_attn.o_proj", [c.hidden, q_width], c.attention_bias)?;
    let h = w.f.op(OpKind::Add, "h", &[x.into(), o.into()], &[])?;

    let m = w.norm("m", h, in_layer("post_attention_layernorm.weight"))?;
    let gate = w.linear("gate", m, "mlp.gate_proj", [c.ffn, c.hidden], c.mlp_bias)?;
    let up = w.linear("up", m, "mlp.up_proj", [c.ffn, c.hidden], c.mlp_bias)?;
    let act = w.f.op(OpKind::Silu, "act", &[gate.into()], &[])?;
    let mid = w.f.op(OpKind::Mul, "mid", &[act.into(), up.into()], &[])?;
    let down = w.linear("down", mid, "mlp.down_proj", [c.hidden, c.ffn], c.mlp_bias)?;
    let out = w.f.op(OpKind::Add, "out", &[h.into(), down.into()], &[])?;
    Ok(w.f.finish(&[out.into()]))
}

fn main(b: &Build<'_>) -> Result<Func> {
    let c = b.config;
    let mut w = Writer { b, f: FuncBuilder::new("main") };
    let (ids, pos, seq) = (w.f.param("ids", indices("s")), w.f.param("pos", indices("s")), w.f.param("seq", indices("s")));
    let want = w.f.param("want", indices("r"));

    let embed = w.source(EMBED.to_owned(), &[c.vocab, c.hidden]);
    let embed = w.f.weight("embed", embed)?;
    let x = w.f.op(OpKind::Embed, "x", &[ids.into(), embed.into()], &[])?;
    let frequencies = c.rope.inv_freq(c.head_dim, c.max_positions, b.max_context);
    let inv_freq = w.f.weight("inv_freq", Recipe::Literal { shape: vec![frequencies.len()], data: frequencies.into() })?;
    let angles = w.f.op(OpKind::RopeAngles, "angles", &[pos.into(), inv_freq.into()], &[])?;
    let calls = vec![LayerRun { func: "layer".to_owned(), first: 0, count: c.layers }];
    let y = w.f.layers("y", &[x.into(), angles.into(), pos.into(), seq.into()], calls, tokens(c.hidden))?;

    let n = w.norm("n", y, NORM.to_owned())?;
    let head = match b.tied {
        true => embed,
        false => {
            let head = w.source(HEAD.to_owned(), &[c.vocab, c.hidden]);
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
