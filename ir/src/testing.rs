//! What tests of this crate share: seeded numbers, sources in memory, a small model, random functions.

use crate::build::FuncBuilder;
use crate::dtype::DType;
use crate::module::{Func, LayerRun, Module, Operand, ValueId};
use crate::op::{Attr, OpKind, Stage};
use crate::recipe::{Recipe, Source};
use crate::types::{Dim, Type};
use std::collections::BTreeMap;

/// Numbers that look random and are the same on every run (Marsaglia, 2003).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
    /// Between -1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// Source tensors by name: columns and elements.
#[derive(Default)]
pub(crate) struct Sources(pub(crate) BTreeMap<String, (usize, Vec<f32>)>);

impl Sources {
    pub(crate) fn with(mut self, name: &str, columns: usize, data: Vec<f32>) -> Sources {
        self.0.insert(name.to_owned(), (columns, data));
        self
    }
}

impl Source for Sources {
    fn row(&self, name: &str, row: usize, out: &mut [f32]) -> Result<(), String> {
        let (columns, data) = self.0.get(name).ok_or_else(|| format!("no tensor `{name}`"))?;
        out.copy_from_slice(data.chunks(*columns).nth(row).ok_or("no such row")?);
        Ok(())
    }
}

pub(crate) fn source(name: &str, shape: &[usize]) -> Recipe {
    Recipe::Source { name: name.to_owned(), ty: Type::fixed(DType::F32, shape) }
}

pub(crate) fn ty(dtype: DType, rows: &str, columns: usize) -> Type {
    Type::new(dtype, [Dim::sym(rows), columns.into()])
}

fn ints(symbol: &str) -> Type {
    Type::new(DType::I32, [Dim::sym(symbol)])
}

/// A model of two layers of width 8, two heads of 4 and one KV head, with 11 tokens, and its weights.
pub(crate) fn model() -> (Module, Sources) {
    let mut rng = Rng(7);
    let mut sources = Sources::default();
    let mut tensor = |name: &str, shape: &[usize]| {
        sources.0.insert(name.to_owned(), (shape[shape.len() - 1], rng.floats(shape.iter().product())));
    };
    for layer in 0..2 {
        tensor(&format!("{layer}.norm"), &[8]);
        [("q", 8), ("k", 4), ("v", 4), ("o", 8)].iter().for_each(|(name, n)| tensor(&format!("{layer}.{name}"), &[*n, 8]));
    }
    tensor("embed", &[11, 8]);
    let dims = vec![("s".to_owned(), 1, 16), ("r".to_owned(), 1, 4)];
    let funcs = vec![layer_func().unwrap(), main_func().unwrap()];
    (Module { name: "small-model".to_owned(), stage: Stage::Imported, dims, funcs }, sources)
}

fn layer_func() -> Result<Func, String> {
    let mut b = FuncBuilder::new("layer");
    let x = b.param("x", ty(DType::F32, "s", 8));
    let angles = b.param("angles", ty(DType::F32, "s", 4));
    let (pos, seq) = (b.param("pos", ints("s")), b.param("seq", ints("s")));
    let norm = b.weight("norm", source("{layer}.norm", &[8]))?;
    let n = b.op(OpKind::RmsNorm, "n", &[x.into(), norm.into()], &[("eps", Attr::float(1e-5))])?;
    let product = |b: &mut FuncBuilder, name: &str, rows: usize, x: ValueId| {
        let w = b.weight(name, source(&format!("{{layer}}.{name}"), &[rows, 8]))?;
        b.op(OpKind::Linear, name, &[x.into(), w.into()], &[])
    };
    let (q, k, v) = (product(&mut b, "q", 8, n)?, product(&mut b, "k", 4, n)?, product(&mut b, "v", 4, n)?);
    let rope = [("head_dim", Attr::Int(4)), ("layout", Attr::Word("half".to_owned()))];
    let q = b.op(OpKind::Rope, "qr", &[q.into(), angles.into()], &rope)?;
    let k = b.op(OpKind::Rope, "kr", &[k.into(), angles.into()], &rope)?;
    b.effect(OpKind::KvWrite, &[k.into(), v.into(), pos.into(), seq.into()], &[("head_dim", Attr::Int(4))])?;
    let heads = [("heads", Attr::Int(2)), ("kv_heads", Attr::Int(1)), ("head_dim", Attr::Int(4)), ("scale", Attr::float(0.5))];
    let a = b.op(OpKind::Attention, "a", &[q.into(), pos.into(), seq.into()], &heads)?;
    let o = product(&mut b, "o", 8, a)?;
    let y = b.op(OpKind::Add, "y", &[x.into(), o.into()], &[])?;
    Ok(b.finish(&[y.into()]))
}

fn main_func() -> Result<Func, String> {
    let mut b = FuncBuilder::new("main");
    let (ids, pos, seq) = (b.param("ids", ints("s")), b.param("pos", ints("s")), b.param("seq", ints("s")));
    let want = b.param("want", ints("r"));
    let embed = b.weight("embed", source("embed", &[11, 8]))?;
    let freq = b.weight("inv_freq", Recipe::Literal { shape: vec![2], data: vec![1.0, 0.01].into() })?;
    let x = b.op(OpKind::Embed, "x", &[ids.into(), embed.into()], &[])?;
    let angles = b.op(OpKind::RopeAngles, "angles", &[pos.into(), freq.into()], &[])?;
    let calls = vec![LayerRun { func: "layer".to_owned(), first: 0, count: 2 }];
    let operands: [Operand; 4] = [x.into(), angles.into(), pos.into(), seq.into()];
    let y = b.layers("y", &operands, calls, ty(DType::F32, "s", 8))?;
    let rows = b.op(OpKind::GatherRows, "rows", &[y.into(), want.into()], &[])?;
    let logits = b.op(OpKind::Linear, "logits", &[rows.into(), embed.into()], &[])?;
    Ok(b.finish(&[logits.into()]))
}
