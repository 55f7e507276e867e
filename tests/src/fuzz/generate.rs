//! Random well-typed modules with the contract of a decoder: `main` embeds, calls layers and gives logits of the wanted rows. Functions are made
//! of motifs that rules look for (norms, products of one input, gates, residuals, attention, experts), joined at random and with parts missing,
//! read twice, or in another order than a front end would write.

use super::Rng;
use llamac_ir::build::FuncBuilder;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, LayerRun, Module, Operand, ValueId, WeightId};
use llamac_ir::op::{Attr, OpKind, Stage};
use llamac_ir::recipe::Recipe;
use llamac_ir::types::{Dim, Type};

/// How far a module is from a Llama.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Anything that types.
    Any,
    /// What lowering has regions for.
    Decoder,
    /// The graph of an exporter (`graphs`).
    Graph,
}

/// Sizes that all functions of a module share.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    hidden: usize,
    head_dim: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    chunk: usize,
    stored: DType,
    shape: Shape,
}

/// A module.
///
/// # Panics
/// If what it made does not type: a bug of the generator.
pub fn generate(rng: &mut Rng, shape: Shape) -> Module {
    let kv_heads = 1 + rng.below(2);
    let sizes = Sizes {
        hidden: *rng.pick(&[4, 8, 12, 16, 32]),
        head_dim: *rng.pick(&[2, 4, 6, 16]),
        heads: kv_heads * (1 + rng.below(3)),
        kv_heads,
        vocab: 4 + rng.below(20),
        chunk: if rng.chance(1, 4) { 2 } else { 0 },
        stored: *rng.pick(&[DType::F32, DType::F32, DType::Bf16, DType::F16]),
        shape,
    };
    let kinds = 1 + rng.below(2);
    let mut funcs: Vec<Func> =
        (0..kinds).map(|i| Layer::new(rng, sizes, &format!("layer{i}")).function().expect("a layer that types")).collect();
    let mut calls = Vec::new();
    let mut first = 0;
    for _ in 0..1 + rng.below(3) {
        let count = 1 + rng.below(2);
        calls.push(LayerRun { func: format!("layer{}", rng.below(kinds)), first, count });
        first += count;
    }
    funcs.push(main(rng, sizes, calls).expect("a main that types"));
    let dims = vec![("s".to_owned(), 1, 64), ("r".to_owned(), 1, 64)];
    let module = Module { name: "fuzz".to_owned(), stage: Stage::Imported, dims, funcs };
    llamac_ir::verify::verify(&module, module.stage).unwrap_or_else(|e| panic!("{}\n{module}", llamac_ir::verify::listed(&e)));
    module
}

type Made<T> = Result<T, String>;

fn rows(symbol: &str, n: usize) -> Type {
    Type::new(DType::F32, [Dim::sym(symbol), n.into()])
}

fn ints(symbol: &str) -> Type {
    Type::new(DType::I32, [Dim::sym(symbol)])
}

/// `main`: embedding, layers, perhaps some more, norm, head, wanted rows (in any order).
fn main(rng: &mut Rng, sizes: Sizes, calls: Vec<LayerRun>) -> Made<Func> {
    let mut f = Layer::new(rng, sizes, "main");
    let (ids, pos) = (f.b.param("ids", ints("s")), f.b.param("pos", ints("s")));
    let (seq, want) = (f.b.param("seq", ints("s")), f.b.param("want", ints("r")));
    let table = f.weight(&[sizes.vocab, sizes.hidden])?;
    let x = f.b.op(OpKind::Embed, "x", &[ids.into(), table.into()], &[])?;
    let freq: Vec<f32> = (0..sizes.head_dim / 2).map(|i| 0.5f32.powi(i as i32)).collect();
    let freq = f.b.weight("inv_freq", Recipe::Literal { shape: vec![freq.len()], data: freq.into() })?;
    let angles = f.b.op(OpKind::RopeAngles, "angles", &[pos.into(), freq.into()], &[])?;
    let operands: [Operand; 4] = [x.into(), angles.into(), pos.into(), seq.into()];
    let mut y = f.b.layers("y", &operands, calls, rows("s", sizes.hidden))?;
    f.env = vec![(x, sizes.hidden), (y, sizes.hidden)];
    if sizes.shape == Shape::Any {
        for _ in 0..f.rng.below(4) {
            f.motif()?;
        }
        y = f.back_to(sizes.hidden)?;
    }
    // Gather, norm and head in one of their orders.
    let at = f.rng.below(3);
    let gather = |f: &mut Layer<'_>, v: ValueId| f.b.op(OpKind::GatherRows, "rows", &[v.into(), want.into()], &[]);
    if at == 0 {
        y = gather(&mut f, y)?;
    }
    if f.rng.chance(3, 4) {
        y = f.norm(y, sizes.hidden)?;
    }
    if at == 1 {
        y = gather(&mut f, y)?;
    }
    if f.rng.chance(3, 4) {
        let head = if f.rng.chance(1, 2) { table } else { f.weight(&[sizes.vocab, sizes.hidden])? };
        y = f.b.op(OpKind::Linear, "head", &[y.into(), head.into()], &[])?;
    }
    if at == 2 {
        y = gather(&mut f, y)?;
    }
    Ok(f.b.finish(&[y.into()]))
}

/// A function in the making.
struct Layer<'r> {
    rng: &'r mut Rng,
    sizes: Sizes,
    name: String,
    b: FuncBuilder,
    /// Values of all rows, with their widths.
    env: Vec<(ValueId, usize)>,
    /// Weights so far, with their shapes.
    weights: Vec<(WeightId, Vec<usize>)>,
    angles: Option<ValueId>,
    /// Positions and sequences, until the cache was used.
    cache: Option<(ValueId, ValueId)>,
    pos: Option<ValueId>,
}

impl<'r> Layer<'r> {
    fn new(rng: &'r mut Rng, sizes: Sizes, name: &str) -> Layer<'r> {
        let (b, name) = (FuncBuilder::new(name), name.to_owned());
        Layer { rng, sizes, name, b, env: vec![], weights: vec![], angles: None, cache: None, pos: None }
    }

    fn function(mut self) -> Made<Func> {
        let Sizes { hidden, head_dim, .. } = self.sizes;
        let x = self.b.param("x", rows("s", hidden));
        let angles = self.b.param("angles", rows("s", head_dim));
        let (pos, seq) = (self.b.param("pos", ints("s")), self.b.param("seq", ints("s")));
        (self.angles, self.cache, self.pos) = (Some(angles), Some((pos, seq)), Some(pos));
        self.env.push((x, hidden));
        for _ in 0..1 + self.rng.below(5) {
            self.motif()?;
        }
        let mut y = self.back_to(hidden)?;
        if self.rng.chance(2, 3) {
            y = self.b.op(OpKind::Add, "out", &[x.into(), y.into()], &[])?;
        }
        Ok(self.b.finish(&[y.into()]))
    }

    /// A value of that width: the newest, or what is projected to it.
    fn back_to(&mut self, width: usize) -> Made<ValueId> {
        match self.env.last() {
            Some((v, w)) if *w == width => Ok(*v),
            Some((v, w)) => self.linear(*v, *w, width),
            None => Err("no value".to_owned()),
        }
    }

    /// Some value, more often a new one.
    fn any(&mut self) -> (ValueId, usize) {
        let back = self.rng.below(3).min(self.rng.below(self.env.len()));
        self.env[self.env.len() - 1 - back]
    }

    fn width(&mut self) -> usize {
        let Sizes { hidden, head_dim, heads, .. } = self.sizes;
        *self.rng.pick(&[hidden, hidden, 2 * hidden, heads * head_dim, 6, 10])
    }

    /// A new weight, or one of that shape that is there.
    fn weight(&mut self, shape: &[usize]) -> Made<WeightId> {
        let known: Vec<WeightId> = self.weights.iter().filter(|(_, s)| s == shape).map(|(w, _)| *w).collect();
        if !known.is_empty() && self.rng.chance(1, 8) {
            return Ok(*self.rng.pick(&known));
        }
        let layer = if self.name == "main" { "" } else { ".{layer}" };
        // Sometimes the same tensor under a second name.
        let number = if !known.is_empty() && self.rng.chance(1, 12) { known[0].0 as usize } else { self.weights.len() };
        let name = format!("{}{layer}.w{number}", self.name);
        let dtype = self.b.func().weights.get(number).map_or(self.sizes.stored, |w| w.ty.dtype);
        let recipe = Recipe::Source { name, ty: Type::fixed(dtype, shape) };
        let w = self.b.weight("w", recipe)?;
        self.weights.push((w, shape.to_vec()));
        Ok(w)
    }

    fn linear(&mut self, x: ValueId, from: usize, to: usize) -> Made<ValueId> {
        let w = self.weight(&[to, from])?;
        let mut operands: Vec<Operand> = vec![x.into(), w.into()];
        if self.rng.chance(1, 6) {
            operands.push(self.weight(&[to])?.into());
        }
        self.b.op(OpKind::Linear, "lin", &operands, &[])
    }

    fn norm(&mut self, x: ValueId, width: usize) -> Made<ValueId> {
        let eps = ("eps", Attr::float(*self.rng.pick(&[1e-5, 1e-5, 1e-6])));
        if self.rng.chance(1, 4) {
            let group = if self.rng.chance(1, 2) && width.is_multiple_of(2) { width / 2 } else { 0 };
            return self.b.op(OpKind::RmsUnit, "unit", &[x.into()], &[eps, ("group", Attr::Int(group as i64))]);
        }
        let gamma = self.weight(&[width])?;
        self.b.op(OpKind::RmsNorm, "norm", &[x.into(), gamma.into()], &[eps])
    }

    fn push(&mut self, v: ValueId, width: usize) {
        self.env.push((v, width));
    }

    /// One of the things that rules look for, on values that are there.
    fn motif(&mut self) -> Made<()> {
        let (x, w) = self.any();
        match self.rng.below(12) {
            0 => {
                let n = self.norm(x, w)?;
                self.push(n, w);
            }
            1 => {
                let to = self.width();
                let y = self.linear(x, w, to)?;
                self.push(y, to);
            }
            2 => self.siblings(x, w)?,
            3 => self.pointwise(x, w)?,
            4 | 5 => self.gated(x, w)?,
            6 | 7 => self.residual(x, w)?,
            8 | 9 => self.attention(x, w)?,
            10 => self.experts(x, w)?,
            _ => self.twins(x, w)?,
        }
        Ok(())
    }

    /// Products of one input, normed perhaps, and something that reads them all.
    fn siblings(&mut self, x: ValueId, w: usize) -> Made<()> {
        let x = if self.rng.chance(2, 3) { self.norm(x, w)? } else { x };
        let to = self.width();
        let mut sum = self.linear(x, w, to)?;
        for _ in 0..1 + self.rng.below(2) {
            let y = self.linear(x, w, to)?;
            sum = self.either(OpKind::Add, sum, y)?;
        }
        if self.rng.chance(1, 3) {
            self.push(x, w);
        }
        self.push(sum, to);
        Ok(())
    }

    fn either(&mut self, op: OpKind, a: ValueId, b: ValueId) -> Made<ValueId> {
        let (a, b) = if self.rng.chance(1, 2) { (a, b) } else { (b, a) };
        self.b.op(op, "y", &[a.into(), b.into()], &[])
    }

    fn pointwise(&mut self, x: ValueId, w: usize) -> Made<()> {
        let (y, width) = match self.rng.below(4) {
            0 => (self.b.op(OpKind::Silu, "silu", &[x.into()], &[])?, w),
            1 if w >= 4 => {
                let (start, len) = (self.rng.below(w / 2), 1 + self.rng.below(w / 2));
                let len = if self.sizes.shape == Shape::Decoder { w / 2 } else { len };
                let start = if self.sizes.shape == Shape::Decoder { w / 2 * (start % 2) } else { start };
                let mut y = self.cut(x, start, len)?;
                let mut width = len;
                // Once more: a part of the part, or all of it.
                if self.rng.chance(1, 3) {
                    let start = self.rng.below(2).min(width - 1);
                    width = if self.rng.chance(1, 2) { width - start } else { 1.max(width / 2) };
                    y = self.cut(y, if start + width <= len { start } else { 0 }, width)?;
                }
                (y, width)
            }
            2 => {
                let ones = Recipe::Literal { shape: vec![w], data: vec![1.0; w].into() };
                let vector = if self.rng.chance(1, 6) { self.b.weight("ones", ones)? } else { self.weight(&[w])? };
                let op = *self.rng.pick(&[OpKind::Add, OpKind::Mul]);
                (self.b.op(op, "vec", &[x.into(), vector.into()], &[])?, w)
            }
            _ => {
                let same: Vec<ValueId> = self.env.iter().filter(|(_, width)| *width == w).map(|(v, _)| *v).collect();
                let other = *self.rng.pick(&same);
                let op = *self.rng.pick(&[OpKind::Add, OpKind::Mul]);
                (self.either(op, x, other)?, w)
            }
        };
        self.push(y, width);
        Ok(())
    }

    fn cut(&mut self, x: ValueId, start: usize, len: usize) -> Made<ValueId> {
        let attrs = [("start", Attr::Int(start as i64)), ("len", Attr::Int(len as i64))];
        self.b.op(OpKind::SliceCols, "cut", &[x.into()], &attrs)
    }

    /// `silu(gate) * up`, from two products or from the halves of one, with the parts in any order.
    fn gated(&mut self, x: ValueId, w: usize) -> Made<()> {
        let inner = *self.rng.pick(&[6, 10, 16, 32]);
        let x = if self.rng.chance(2, 3) { self.norm(x, w)? } else { x };
        let (gate, up) = if self.rng.chance(2, 3) {
            (self.linear(x, w, inner)?, self.linear(x, w, inner)?)
        } else {
            let both = self.linear(x, w, 2 * inner)?;
            self.halves(both, inner)?
        };
        let act = self.b.op(OpKind::Silu, "act", &[gate.into()], &[])?;
        let m = self.either(OpKind::Mul, act, up)?;
        if self.rng.chance(1, 5) {
            let extra = *self.rng.pick(&[gate, up, act]);
            self.push(extra, inner);
        }
        self.push(m, inner);
        Ok(())
    }

    fn halves(&mut self, both: ValueId, half: usize) -> Made<(ValueId, ValueId)> {
        Ok((self.cut(both, 0, half)?, self.cut(both, half, half)?))
    }

    fn residual(&mut self, x: ValueId, w: usize) -> Made<()> {
        let back = self.rng.below(self.env.len());
        let (r, width) = self.env[back];
        let y = self.linear(x, w, width)?;
        let sum = self.either(OpKind::Add, r, y)?;
        if self.rng.chance(1, 8) {
            self.push(y, width);
        }
        self.push(sum, width);
        Ok(())
    }

    fn attention(&mut self, x: ValueId, w: usize) -> Made<()> {
        let (Some((pos, seq)), Some(angles)) = (self.cache.take(), self.angles) else { return self.residual(x, w) };
        let Sizes { head_dim: d, heads, kv_heads, chunk, shape, .. } = self.sizes;
        let (wide, narrow) = (heads * d, kv_heads * d);
        let x = if self.rng.chance(3, 4) { self.norm(x, w)? } else { x };
        let (mut q, mut k) = (self.linear(x, w, wide)?, self.linear(x, w, narrow)?);
        let v = if self.rng.chance(1, 10) { k } else { self.linear(x, w, narrow)? };
        let size = ("head_dim", Attr::Int(d as i64));
        if self.rng.chance(1, 6) {
            let attrs = [("eps", Attr::float(1e-5)), ("group", Attr::Int(d as i64))];
            q = self.b.op(OpKind::RmsUnit, "q.unit", &[q.into()], &attrs)?;
            k = self.b.op(OpKind::RmsUnit, "k.unit", &[k.into()], &attrs)?;
        }
        if self.rng.chance(5, 6) {
            let layout = |word: &str| ("layout", Attr::Word(word.to_owned()));
            let word = if self.rng.chance(3, 4) { "half" } else { "interleaved" };
            q = self.b.op(OpKind::Rope, "q.rope", &[q.into(), angles.into()], &[size.clone(), layout(word)])?;
            // Queries and keys rotated in different ways are possible, if odd.
            let word = if shape == Shape::Any && self.rng.chance(1, 12) { "interleaved" } else { word };
            k = self.b.op(OpKind::Rope, "k.rope", &[k.into(), angles.into()], &[size.clone(), layout(word)])?;
        }
        if let Some(pos) = self.pos
            && self.rng.chance(1, 6)
        {
            let attrs = [("floor_scale", Attr::float(2.0)), ("attn_scale", Attr::float(0.1))];
            let t = self.b.op(OpKind::AttnTemperature, "temp", &[pos.into()], &attrs)?;
            q = self.b.op(OpKind::RowScale, "q.temp", &[q.into(), t.into()], &[])?;
        }
        self.b.effect(OpKind::KvWrite, &[k.into(), v.into(), pos.into(), seq.into()], std::slice::from_ref(&size))?;
        let int = |name, n: usize| (name, Attr::Int(n as i64));
        let scale = ("scale", Attr::float((d as f64).powf(-0.5)));
        let attrs = [int("heads", heads), int("kv_heads", kv_heads), size, scale, int("chunk", chunk)];
        let a = self.b.op(OpKind::Attention, "attn", &[q.into(), pos.into(), seq.into()], &attrs)?;
        if self.rng.chance(1, 10) {
            let extra = *self.rng.pick(&[(q, wide), (k, narrow), (v, narrow)]);
            self.push(extra.0, extra.1);
        }
        self.push(a, wide);
        Ok(())
    }

    /// Experts, gated on their input.
    fn experts(&mut self, x: ValueId, w: usize) -> Made<()> {
        let (experts, inner) = (2 + self.rng.below(3), *self.rng.pick(&[6, 16]));
        let normed = if self.rng.chance(2, 3) { self.norm(x, w)? } else { x };
        let router = self.weight(&[experts, w])?;
        let scores = self.b.op(OpKind::Linear, "scores", &[normed.into(), router.into()], &[])?;
        let top = 1 + self.rng.below(experts);
        let gates = self.b.op(OpKind::TopGates, "gates", &[scores.into()], &[("top_k", Attr::Int(top as i64))])?;
        let xe = self.b.op(OpKind::ExpertScale, "xe", &[normed.into(), gates.into()], &[])?;
        let both = self.weight(&[experts, 2 * inner, w])?;
        let ab = self.b.op(OpKind::ExpertLinear, "ab", &[xe.into(), both.into()], &[])?;
        let (gate, up) = self.halves(ab, inner)?;
        let act = self.b.op(OpKind::Silu, "act", &[gate.into()], &[])?;
        let m = self.either(OpKind::Mul, act, up)?;
        let down = self.weight(&[experts, w, inner])?;
        let ye = self.b.op(OpKind::ExpertLinear, "ye", &[m.into(), down.into()], &[])?;
        let mut y = self.b.op(OpKind::ExpertSum, "y", &[ye.into()], &[])?;
        // An expert that everyone shares stands between the sum and the residual.
        if self.rng.chance(1, 3) {
            let shared = self.linear(normed, w, w)?;
            y = self.either(OpKind::Add, shared, y)?;
        }
        if self.sizes.shape == Shape::Decoder || self.rng.chance(4, 5) {
            y = self.either(OpKind::Add, x, y)?;
        }
        self.push(y, w);
        Ok(())
    }

    /// The same twice, for what finds common parts.
    fn twins(&mut self, x: ValueId, w: usize) -> Made<()> {
        let mut twin = || self.b.op(OpKind::Silu, "twin", &[x.into()], &[]);
        let (a, b) = (twin()?, twin()?);
        let y = self.b.op(OpKind::Mul, "twins", &[a.into(), b.into()], &[])?;
        self.push(y, w);
        Ok(())
    }
}
