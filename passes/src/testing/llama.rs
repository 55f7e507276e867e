//! A small module in the shape of a Llama 3 text model, as a front end would build it.

use llamac_ir::build::{FuncBuilder, Result};
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, LayerRun, Module, Operand, ValueId, WeightId};
use llamac_ir::op::{Attr, OpKind, Stage};
use llamac_ir::recipe::Recipe;
use llamac_ir::types::{Dim, Type};

/// Sizes and choices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Llama {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) inner: usize,
    pub(crate) vocab: usize,
    pub(crate) tied: bool,
    pub(crate) biases: bool,
    pub(crate) stored: DType,
}

impl Default for Llama {
    fn default() -> Llama {
        let (hidden, heads, kv_heads, head_dim) = (24, 6, 2, 6);
        Llama { layers: 3, hidden, heads, kv_heads, head_dim, inner: 29, vocab: 17, tied: true, biases: false, stored: DType::Bf16 }
    }
}

impl Llama {
    /// The module.
    pub(crate) fn module(&self) -> Module {
        let funcs = vec![self.layer().unwrap(), self.main().unwrap()];
        let dims = vec![("s".to_owned(), 1, 512), ("r".to_owned(), 1, 64)];
        Module { name: "llama".into(), stage: Stage::Imported, dims, funcs }
    }

    fn source(&self, b: &mut FuncBuilder, name: &str, tensor: &str, shape: &[usize]) -> Result<WeightId> {
        b.weight(name, Recipe::Source { name: tensor.to_owned(), ty: Type::fixed(self.stored, shape) })
    }

    fn linear(&self, b: &mut FuncBuilder, name: &str, x: ValueId, to: usize, from: usize, bias: bool) -> Result<ValueId> {
        let w = self.source(b, &format!("w{name}"), &format!("l.{{layer}}.{name}.weight"), &[to, from])?;
        let mut operands: Vec<Operand> = vec![x.into(), w.into()];
        if bias {
            operands.push(self.source(b, &format!("b{name}"), &format!("l.{{layer}}.{name}.bias"), &[to])?.into());
        }
        b.op(OpKind::Linear, name, &operands, &[])
    }

    fn norm(&self, b: &mut FuncBuilder, name: &str, x: ValueId, tensor: &str) -> Result<ValueId> {
        let g = self.source(b, name, tensor, &[self.hidden])?;
        b.op(OpKind::RmsNorm, &format!("{name}.x"), &[x.into(), g.into()], &[("eps", Attr::float(1e-5))])
    }

    fn layer(&self) -> Result<Func> {
        let Llama { hidden: h, heads, kv_heads, head_dim: d, inner, .. } = *self;
        let (head_dim, ints) = (("head_dim", Attr::Int(d as i64)), |n: usize| Attr::Int(n as i64));
        let mut b = FuncBuilder::new("layer");
        let rows = |n: usize| Type::new(DType::F32, [Dim::sym("s"), n.into()]);
        let (x, angles) = (b.param("x", rows(h)), b.param("angles", rows(d)));
        let (pos, seq) = (b.param("pos", Type::new(DType::I32, [Dim::sym("s")])), b.param("seq", Type::new(DType::I32, [Dim::sym("s")])));
        let n = self.norm(&mut b, "attn_norm", x, "l.{layer}.attn_norm")?;
        let q = self.linear(&mut b, "q", n, heads * d, h, self.biases)?;
        let k = self.linear(&mut b, "k", n, kv_heads * d, h, self.biases)?;
        let v = self.linear(&mut b, "v", n, kv_heads * d, h, self.biases)?;
        let half = ("layout", Attr::Word("half".into()));
        let q = b.op(OpKind::Rope, "q.rope", &[q.into(), angles.into()], &[head_dim.clone(), half.clone()])?;
        let k = b.op(OpKind::Rope, "k.rope", &[k.into(), angles.into()], &[head_dim.clone(), half])?;
        b.effect(OpKind::KvWrite, &[k.into(), v.into(), pos.into(), seq.into()], std::slice::from_ref(&head_dim))?;
        let scale = ("scale", Attr::float((d as f64).powf(-0.5)));
        let attrs = [("heads", ints(heads)), ("kv_heads", ints(kv_heads)), head_dim, scale];
        let a = b.op(OpKind::Attention, "attn", &[q.into(), pos.into(), seq.into()], &attrs)?;
        let o = self.linear(&mut b, "o", a, h, heads * d, self.biases)?;
        let x = b.op(OpKind::Add, "x1", &[x.into(), o.into()], &[])?;
        let n = self.norm(&mut b, "mlp_norm", x, "l.{layer}.mlp_norm")?;
        let gate = self.linear(&mut b, "gate", n, inner, h, self.biases)?;
        let up = self.linear(&mut b, "up", n, inner, h, self.biases)?;
        let gate = b.op(OpKind::Silu, "act", &[gate.into()], &[])?;
        let m = b.op(OpKind::Mul, "inner", &[gate.into(), up.into()], &[])?;
        let down = self.linear(&mut b, "down", m, h, inner, self.biases)?;
        let x = b.op(OpKind::Add, "x2", &[x.into(), down.into()], &[])?;
        Ok(b.finish(&[x.into()]))
    }

    fn main(&self) -> Result<Func> {
        let mut b = FuncBuilder::new("main");
        let ints = |s: &str| Type::new(DType::I32, [Dim::sym(s)]);
        let (ids, pos) = (b.param("ids", ints("s")), b.param("pos", ints("s")));
        let (seq, want) = (b.param("seq", ints("s")), b.param("want", ints("r")));
        let table = self.source(&mut b, "embed", "embed", &[self.vocab, self.hidden])?;
        let x = b.op(OpKind::Embed, "x", &[ids.into(), table.into()], &[])?;
        let freq: Vec<f32> = (0..self.head_dim / 2).map(|i| 0.5f32.powi(i as i32)).collect();
        let freq = b.weight("inv_freq", Recipe::Literal { shape: vec![freq.len()], data: freq.into() })?;
        let angles = b.op(OpKind::RopeAngles, "angles", &[pos.into(), freq.into()], &[])?;
        let calls = vec![LayerRun { func: "layer".into(), first: 0, count: self.layers }];
        let ty = Type::new(DType::F32, [Dim::sym("s"), self.hidden.into()]);
        let y = b.layers("y", &[x.into(), angles.into(), pos.into(), seq.into()], calls, ty)?;
        let n = self.norm(&mut b, "final_norm", y, "final_norm")?;
        let head = if self.tied { table } else { self.source(&mut b, "head", "head", &[self.vocab, self.hidden])? };
        let all = b.op(OpKind::Linear, "all", &[n.into(), head.into()], &[])?;
        let logits = b.op(OpKind::GatherRows, "logits", &[all.into(), want.into()], &[])?;
        Ok(b.finish(&[logits.into()]))
    }
}
