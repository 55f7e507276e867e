//! Random modules of the tensor dialect: what exporters write for norms, gates, rotations, attention and products of bytes, in any of their spellings,
//! joined at random, and now and then with something wrong in it, so that it is not what it looks like. Running them is in `raising`.

use super::Rng;
use llamac_ir::build::FuncBuilder;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Module, Operand, ValueId};
use llamac_ir::op::{Attr, OpKind, Stage, TensorOp as T};
use llamac_ir::recipe::Recipe;
use llamac_ir::types::{Dim, Type};

type Made<T> = Result<T, String>;

/// Heads of queries, heads of keys, size of a head.
const HEADS: [usize; 3] = [4, 2, 6];
/// Width of rows that heads stand in.
const WIDE: usize = HEADS[0] * HEADS[2];

struct Making<'r> {
    rng: &'r mut Rng,
    b: FuncBuilder,
    /// Element type of everything.
    dtype: DType,
    /// Values `[b, s, width]`.
    rows: Vec<(ValueId, usize)>,
    /// Other values that are returned, so that they must stay what they are.
    extra: Vec<ValueId>,
    /// Angles `[b, s, d/2]`; keys and values `[b, heads, t, d]`; what is added to scores, `[b, 1, s, t]`.
    angles: ValueId,
    cache: [ValueId; 2],
    mask: ValueId,
    /// Positions, `[b, 1, s]`.
    pos: ValueId,
}

/// A module of one function at [`Stage::Graph`].
///
/// # Panics
/// If what it made does not type: a bug of the generator.
pub(super) fn generate(rng: &mut Rng) -> Module {
    let dtype = if rng.chance(1, 8) { *rng.pick(&[DType::F16, DType::Bf16]) } else { DType::F32 };
    let mut b = FuncBuilder::new("main");
    let [_, kv, d] = HEADS;
    let mut param = |name: &str, shape: Vec<Dim>| b.param(name, Type { dtype, shape });
    let [batch, seq, all] = ["b", "s", "t"].map(Dim::sym);
    let x = param("x", vec![batch.clone(), seq.clone(), WIDE.into()]);
    let angles = param("angles", vec![batch.clone(), seq.clone(), (d / 2).into()]);
    let cache = ["k", "v"].map(|n| param(n, vec![batch.clone(), kv.into(), all.clone(), d.into()]));
    let mask = param("mask", vec![batch.clone(), 1.into(), seq.clone(), all]);
    let pos = param("pos", vec![batch, 1.into(), seq]);
    let mut making = Making { rng, b, dtype, rows: vec![(x, WIDE)], extra: vec![], angles, cache, mask, pos };
    let func = making.function().expect("a function that types");
    let dims = ["b", "s", "t"].map(|s| (s.to_owned(), 1, 64)).to_vec();
    let module = Module { name: "fuzz".to_owned(), stage: Stage::Graph, dims, funcs: vec![func] };
    llamac_ir::verify::verify(&module, module.stage).unwrap_or_else(|e| panic!("{}\n{module}", llamac_ir::verify::listed(&e)));
    module
}

impl Making<'_> {
    fn function(&mut self) -> Made<llamac_ir::module::Func> {
        for _ in 0..1 + self.rng.below(4) {
            let (x, w) = self.any();
            match self.rng.below(7) {
                0 | 1 => self.norm(x, w)?,
                2 => self.gate(x, w)?,
                3 => self.linear(x, w)?,
                4 => self.turned(x, w)?,
                5 => self.attended(x, w)?,
                _ => self.bytes(x, w)?,
            }
        }
        let mut results: Vec<Operand> = self.rows.iter().rev().take(2).map(|(v, _)| Operand::from(*v)).collect();
        results.extend(self.extra.iter().map(|v| Operand::from(*v)));
        let b = std::mem::replace(&mut self.b, FuncBuilder::new("main"));
        Ok(b.finish(&results))
    }

    fn op(&mut self, op: T, operands: &[Operand], attrs: &[(&str, Attr)]) -> Made<Operand> {
        Ok(self.b.op(OpKind::Tensor(op), "v", operands, attrs)?.into())
    }

    fn any(&mut self) -> (ValueId, usize) {
        *self.rng.pick(&self.rows)
    }

    /// Whether something is to be wrong here.
    fn wrong(&mut self) -> bool {
        self.rng.chance(1, 8)
    }

    /// Two operands in any order.
    fn either(&mut self, op: T, a: Operand, b: Operand) -> Made<Operand> {
        let both = if self.rng.chance(1, 2) { [a, b] } else { [b, a] };
        self.op(op, &both, &[])
    }

    /// One number of a type.
    fn number(&mut self, x: f32, dtype: DType) -> Made<Operand> {
        let shape = if self.rng.chance(1, 3) { vec![1] } else { vec![] };
        let literal = Recipe::Literal { shape, data: vec![x].into() };
        let recipe = if dtype == DType::F32 { literal } else { Recipe::Cast(dtype, Box::new(literal)) };
        Ok(self.b.weight("c", recipe)?.into())
    }

    fn weight(&mut self, dtype: DType, shape: &[usize]) -> Made<Operand> {
        let name = format!("w{}", self.b.func().weights.len());
        Ok(self.b.weight(&name, Recipe::Source { name: name.clone(), ty: Type::fixed(dtype, shape) })?.into())
    }

    fn cast(&mut self, x: Operand, to: DType) -> Made<Operand> {
        self.op(T::Cast, &[x], &[("to", Attr::Word(to.name().to_owned()))])
    }

    fn push(&mut self, x: Operand, width: usize) {
        if let Operand::Value(v) = x {
            self.rows.push((v, width));
        }
    }

    /// Sometimes a part of a whole is needed elsewhere, too.
    fn also(&mut self, x: Operand) {
        if let Operand::Value(v) = x
            && self.rng.chance(1, 12)
        {
            self.extra.push(v);
        }
    }

    fn norm(&mut self, x: ValueId, w: usize) -> Made<()> {
        let narrow = self.dtype;
        let mut x = Operand::from(x);
        let wide = narrow != DType::F32 && self.rng.chance(2, 3);
        let dtype = if wide { DType::F32 } else { narrow };
        if wide {
            x = self.cast(x, DType::F32)?;
        }
        let (two, eps) = (self.number(2.0, dtype)?, *self.rng.pick(&[1e-5, 1e-6, 1e-3]));
        let eps = self.number(eps, dtype)?;
        let square = match self.rng.below(3) {
            0 => self.op(T::Pow, &[x, two], &[])?,
            _ if self.wrong() => self.op(T::Abs, &[x], &[])?,
            _ => self.op(T::Mul, &[x, x], &[])?,
        };
        let axis = if self.wrong() { 1 } else { *self.rng.pick(&[-1, 2]) };
        let mean = if self.wrong() { T::ReduceSum } else { T::ReduceMean };
        let mean = self.op(mean, &[square], &[("axes", Attr::ints(&[axis]))])?;
        let sum = self.either(T::Add, mean, eps)?;
        self.also(sum);
        let unit = match self.rng.below(5) {
            0 => {
                let root = self.root(sum, dtype)?;
                let inverse = self.op(T::Reciprocal, &[root], &[])?;
                self.also(inverse);
                self.either(T::Mul, x, inverse)?
            }
            1 => {
                let (root, one) = (self.root(sum, dtype)?, if self.wrong() { 2.0 } else { 1.0 });
                let one = self.number(one, dtype)?;
                let inverse = self.op(T::Div, &[one, root], &[])?;
                self.either(T::Mul, x, inverse)?
            }
            2 | 3 => {
                let root = self.root(sum, dtype)?;
                self.op(T::Div, &[x, root], &[])?
            }
            _ => {
                let power = if self.wrong() { -0.25 } else { -0.5 };
                let power = self.number(power, dtype)?;
                let inverse = self.op(T::Pow, &[sum, power], &[])?;
                self.either(T::Mul, x, inverse)?
            }
        };
        let mut y = if wide { self.cast(unit, narrow)? } else { unit };
        if self.rng.chance(3, 4) {
            let gamma = if self.wrong() { self.weight(narrow, &[1, w])? } else { self.weight(narrow, &[w])? };
            y = self.either(T::Mul, y, gamma)?;
        }
        self.push(y, w);
        Ok(())
    }

    fn root(&mut self, sum: Operand, dtype: DType) -> Made<Operand> {
        if self.rng.chance(2, 3) {
            return self.op(T::Sqrt, &[sum], &[]);
        }
        let half = self.number(0.5, dtype)?;
        self.op(T::Pow, &[sum, half], &[])
    }

    /// `x * sigmoid(x) * y`.
    fn gate(&mut self, x: ValueId, w: usize) -> Made<()> {
        let same: Vec<ValueId> = self.rows.iter().filter(|(_, width)| *width == w).map(|(v, _)| *v).collect();
        let of = if self.wrong() { *self.rng.pick(&same) } else { x };
        let s = self.op(T::Sigmoid, &[of.into()], &[])?;
        self.also(s);
        let mut y = self.either(T::Mul, x.into(), s)?;
        if self.rng.chance(1, 2) {
            let up = *self.rng.pick(&same);
            y = self.either(T::Mul, y, up.into())?;
            // Products of products would grow.
            y = self.op(T::Tanh, &[y], &[])?;
        }
        self.push(y, w);
        Ok(())
    }

    fn linear(&mut self, x: ValueId, w: usize) -> Made<()> {
        let n = *self.rng.pick(&[WIDE, 8]);
        let weight = self.weight(self.dtype, &[w, n])?;
        let mut y = self.op(T::MatMul, &[x.into(), weight], &[])?;
        if self.rng.chance(1, 2) && n == w {
            y = self.either(T::Add, x.into(), y)?;
        }
        y = self.op(T::Tanh, &[y], &[])?;
        self.push(y, n);
        Ok(())
    }

    /// `[b, s, WIDE]` of any rows.
    fn whole(&mut self, x: ValueId, w: usize) -> Made<Operand> {
        if w == WIDE {
            return Ok(x.into());
        }
        let weight = self.weight(self.dtype, &[w, WIDE])?;
        self.op(T::MatMul, &[x.into(), weight], &[])
    }

    fn shaped(&mut self, x: Operand, shape: Vec<Dim>) -> Made<Operand> {
        self.op(T::Reshape, &[x], &[("shape", Attr::Dims(shape))])
    }

    fn transposed(&mut self, x: Operand, perm: &[i64]) -> Made<Operand> {
        self.op(T::Transpose, &[x], &[("perm", Attr::ints(perm))])
    }

    fn concat(&mut self, parts: &[Operand], axis: i64) -> Made<Operand> {
        self.op(T::Concat, parts, &[("axis", Attr::Int(axis))])
    }

    fn split(&mut self, x: Operand) -> Made<Operand> {
        self.shaped(x, vec![Dim::sym("b"), Dim::sym("s"), HEADS[0].into(), HEADS[2].into()])
    }

    fn joined(&mut self, x: Operand) -> Made<()> {
        let y = self.shaped(x, vec![Dim::sym("b"), Dim::sym("s"), WIDE.into()])?;
        self.push(y, WIDE);
        Ok(())
    }

    /// Angles that come in, or positions times frequencies.
    fn angle(&mut self) -> Made<Operand> {
        if self.rng.chance(2, 3) {
            return Ok(self.angles.into());
        }
        let frequencies = self.weight(self.dtype, &[1, HEADS[2] / 2, 1])?;
        let product = self.op(T::MatMul, &[frequencies, self.pos.into()], &[])?;
        self.transposed(product, &[0, 2, 1])
    }

    fn turned(&mut self, x: ValueId, w: usize) -> Made<()> {
        let x = self.whole(x, w)?;
        let x = self.split(x)?;
        if self.rng.chance(1, 2) {
            let heads = self.transposed(x, &[0, 2, 1, 3])?;
            let y = self.halves(heads)?;
            let y = self.transposed(y, &[0, 2, 1, 3])?;
            return self.joined(y);
        }
        let y = self.pairs(x)?;
        self.joined(y)
    }

    /// `x * cos + rotate_half(x) * sin` on `[b, heads, s, d]`.
    fn halves(&mut self, x: Operand) -> Made<Operand> {
        let half = (HEADS[2] / 2) as i64;
        let a = self.angle()?;
        let twice = self.concat(&[a, a], -1)?;
        let mut tables = [T::Cos, T::Sin].map(|f| self.op(f, &[twice], &[]));
        if self.wrong() {
            tables.reverse();
        }
        let [cos, sin] = tables;
        let mut tables = [cos?, sin?];
        for table in &mut tables {
            if self.rng.chance(1, 4) {
                let one = self.number(1.0, self.dtype)?;
                *table = self.either(T::Mul, *table, one)?;
            }
            *table = self.shaped(*table, vec![Dim::sym("b"), 1.into(), Dim::sym("s"), HEADS[2].into()])?;
        }
        let start = if self.wrong() { half - 1 } else { half };
        let mut part = |start: i64| {
            let attrs = [("axis", Attr::Int(3)), ("start", Attr::ints(&[start])), ("len", Attr::ints(&[half]))];
            self.op(T::Slice, &[x], &attrs)
        };
        let (left, right) = (part(0)?, part(start)?);
        let minus = if self.wrong() { right } else { self.op(T::Neg, &[right], &[])? };
        let parts = if self.wrong() { [left, minus] } else { [minus, left] };
        let turned = self.concat(&parts, 3)?;
        let (straight, turned) = (self.either(T::Mul, x, tables[0])?, self.either(T::Mul, turned, tables[1])?);
        self.also(turned);
        self.either(T::Add, straight, turned)
    }

    /// Even and odd elements on `[b, s, heads, d]`.
    fn pairs(&mut self, x: Operand) -> Made<Operand> {
        let [heads, _, d] = HEADS;
        let half = d / 2;
        let lead = [Dim::sym("b"), Dim::sym("s"), heads.into(), half.into()];
        let with = |last: usize| lead.iter().cloned().chain([last.into()]).collect::<Vec<_>>();
        let a = self.angle()?;
        let mut tables = Vec::new();
        for f in [T::Cos, T::Sin] {
            let table = self.op(f, &[a], &[])?;
            tables.push(self.shaped(table, vec![Dim::sym("b"), Dim::sym("s"), 1.into(), half.into()])?);
        }
        let split = self.shaped(x, with(2))?;
        let mut picked = Vec::new();
        for n in if self.wrong() { [1, 0] } else { [0, 1] } {
            let index = self.op(T::Values, &[], &[("shape", Attr::Dims(vec![])), ("values", Attr::ints(&[n]))])?;
            picked.push(self.op(T::Gather, &[split, index], &[("axis", Attr::Int(4))])?);
        }
        let (p, q) = (self.either(T::Mul, picked[0], tables[0])?, self.either(T::Mul, picked[1], tables[1])?);
        let even = if self.wrong() { self.op(T::Add, &[p, q], &[])? } else { self.op(T::Sub, &[p, q], &[])? };
        let (u, v) = (self.either(T::Mul, picked[0], tables[1])?, self.either(T::Mul, picked[1], tables[0])?);
        let odd = self.either(T::Add, u, v)?;
        let (even, odd) = (self.shaped(even, with(1))?, self.shaped(odd, with(1))?);
        let both = if self.wrong() { self.concat(&[odd, even], -1)? } else { self.concat(&[even, odd], -1)? };
        self.shaped(both, vec![Dim::sym("b"), Dim::sym("s"), heads.into(), d.into()])
    }

    /// Keys or values with a copy for each head of queries.
    fn repeated(&mut self, x: Operand) -> Made<Operand> {
        let [heads, kv, d] = HEADS;
        let n = heads / kv;
        let [batch, all] = ["b", "t"].map(Dim::sym);
        // In the other order heads are not groups.
        let wrong = self.wrong();
        let (apart, copies) = match wrong {
            true => (
                vec![batch.clone(), 1.into(), kv.into(), all.clone(), d.into()],
                vec![batch.clone(), n.into(), kv.into(), all.clone(), d.into()],
            ),
            false => (
                vec![batch.clone(), kv.into(), 1.into(), all.clone(), d.into()],
                vec![batch.clone(), kv.into(), n.into(), all.clone(), d.into()],
            ),
        };
        let x = self.shaped(x, apart)?;
        let x = self.op(T::Expand, &[x], &[("shape", Attr::Dims(copies))])?;
        self.shaped(x, vec![batch, heads.into(), all, d.into()])
    }

    fn attended(&mut self, x: ValueId, w: usize) -> Made<()> {
        let x = self.whole(x, w)?;
        let x = self.split(x)?;
        let mut q = self.transposed(x, &[0, 2, 1, 3])?;
        if self.rng.chance(1, 2) {
            q = self.halves(q)?;
        }
        let [k, v] = self.cache.map(Operand::from);
        let (k, v) = if self.rng.chance(3, 4) { (self.repeated(k)?, self.repeated(v)?) } else { (self.repeated(k)?, self.repeated(k)?) };
        let mut turned = self.transposed(k, &[0, 1, 3, 2])?;
        // The scale stands on scores, or a part of it on each factor.
        let scale = 0.5f32;
        let on_factors = self.rng.chance(1, 3);
        if on_factors {
            let part = self.number(scale.sqrt(), self.dtype)?;
            q = self.either(T::Mul, q, part)?;
            turned = self.either(T::Mul, turned, part)?;
        }
        let mut scores = self.op(T::MatMul, &[q, turned], &[])?;
        if !on_factors {
            scores = if self.rng.chance(1, 2) {
                let by = self.number(scale, self.dtype)?;
                self.either(T::Mul, scores, by)?
            } else {
                let by = self.number(1.0 / scale, self.dtype)?;
                self.op(T::Div, &[scores, by], &[])?
            };
        }
        if self.rng.chance(3, 4) {
            scores = self.either(T::Add, scores, self.mask.into())?;
        }
        self.also(scores);
        let axis = if self.wrong() { 2 } else { *self.rng.pick(&[-1, 3]) };
        let mut p = self.op(T::Softmax, &[scores], &[("axis", Attr::Int(axis))])?;
        if self.rng.chance(1, 4) {
            let (zero, nan) = (self.number(0.0, self.dtype)?, self.op(T::IsNan, &[p], &[])?);
            p = self.op(T::Where, &[nan, zero, p], &[])?;
        }
        let y = self.op(T::MatMul, &[p, v], &[])?;
        let y = self.transposed(y, &[0, 2, 1, 3])?;
        self.joined(y)
    }

    /// A product of bytes.
    fn bytes(&mut self, x: ValueId, w: usize) -> Made<()> {
        if self.dtype != DType::F32 {
            return self.linear(x, w);
        }
        let n = 8;
        let scale = self.op(T::DynamicScale, &[x.into()], &[])?;
        let zero = self.op(T::DynamicZero, &[x.into()], &[])?;
        let codes = self.op(T::Quantize, &[x.into(), scale, zero], &[])?;
        let (codes, zero) = (self.cast(codes, DType::I32)?, self.cast(zero, DType::I32)?);
        let from_zero = if self.wrong() { codes } else { self.op(T::Sub, &[codes, zero], &[])? };
        let weight = self.weight(DType::I8, &[w, n])?;
        let weight = self.cast(weight, DType::I32)?;
        let product = self.op(T::MatMul, &[from_zero, weight], &[])?;
        let product = self.cast(product, DType::F32)?;
        let each = if self.rng.chance(1, 2) { self.weight(DType::F32, &[n])? } else { self.number(0.01, DType::F32)? };
        let scales = self.either(T::Mul, scale, each)?;
        let y = self.either(T::Mul, product, scales)?;
        // Codes of weights are large.
        let small = self.number(0.001, DType::F32)?;
        let y = self.op(T::Mul, &[y, small], &[])?;
        self.push(y, n);
        Ok(())
    }
}
