//! Each op of a raised graph as ops on rows.

mod experts;

use super::super::table::frequencies;
use super::super::view::{Atom, View};
use super::{Decoder, Fail, Made, turned};
use llamac_ir::dtype::DType;
use llamac_ir::module::{Inst, Operand, ValueId};
use llamac_ir::op::{Attr, OpKind, TensorOp as T};
use llamac_ir::recipe::Recipe;
use llamac_ir::types::Dim;

impl Decoder<'_> {
    /// Result `at` of an instruction.
    pub(super) fn inst(&mut self, inst: &Inst, at: usize) -> Result<Made, Fail> {
        let OpKind::Tensor(op) = inst.op else { return Err("an op that is no tensor op".into()) };
        if at > 0 {
            return Err("a second result is read".into());
        }
        let rows = |view| Ok(Made::Rows(view));
        let name = self.name(inst);
        match op {
            T::Gather => rows(self.embed(inst, &name)?),
            T::Reshape => {
                let view = self.rows(inst.operands[0])?;
                rows(view.reshaped(inst.dims("shape"), &self.symbols).ok_or("a reshape that moves elements between tokens and features")?)
            }
            T::Transpose => {
                let perm: Vec<i64> = inst.dims("perm").iter().filter_map(Dim::number).collect();
                rows(self.rows(inst.operands[0])?.transposed(&perm).ok_or("a transpose of other axes")?)
            }
            T::Cast => {
                // Between ops numbers are f32, whatever the graph rounds them to.
                let real = DType::from_name(inst.word("to")).is_some_and(|d| d.info().real);
                if real { rows(self.rows(inst.operands[0])?) } else { Err("a cast to integers".into()) }
            }
            T::Expand | T::Tile => rows(self.copies(inst)?),
            T::Add | T::Mul => rows(self.combine(inst, op, &name)?),
            T::MatMul => rows(self.product(inst, &name)?),
            T::RmsNorm | T::RmsUnit => rows(self.norm(inst, op, &name)?),
            T::Silu => {
                let view = self.rows(inst.operands[0])?;
                let value = self.out.op(OpKind::Silu, &name, &[view.value.into()], &[])?;
                rows(view.of(value))
            }
            T::Sigmoid => rows(self.gates(inst, &name)?),
            T::Slice => rows(self.slice(inst, &name)?),
            T::ReduceSum => rows(self.sum(inst, &name)?),
            T::Rotary => rows(self.rotary(inst, &name)?),
            T::Concat => self.cached(inst),
            T::Attention => rows(self.attention(inst, &name)?),
            _ => Err("an op that no decoder has here".into()),
        }
    }

    fn embed(&mut self, inst: &Inst, name: &str) -> Result<View, Fail> {
        if inst.operands[1] != Operand::Value(self.ids) || inst.signed("axis") != 0 {
            return Err("a look-up by something else than the token ids".into());
        }
        let table = self.recipe(inst.operands[0]).ok_or("a table that is computed")?;
        let table = self.weight("embed", table)?;
        let ids = self.out.func().params[0];
        let value = self.out.op(OpKind::Embed, name, &[ids.into(), table], &[])?;
        let width = self.width(value)?;
        Ok(View::rows(value, width))
    }

    fn width(&self, value: ValueId) -> Result<usize, Fail> {
        self.out.func().values[value.0 as usize].ty.shape.last().and_then(Dim::value).ok_or_else(|| "a row of unknown length".into())
    }

    /// Copies along an axis that has nothing, or nothing at all.
    fn copies(&mut self, inst: &Inst) -> Result<View, Fail> {
        let view = self.rows(inst.operands[0])?;
        let from = &self.func.ty(inst.operands[0]).shape;
        let to = &self.func.values[inst.results[0].0 as usize].ty.shape;
        if from == to {
            return Ok(view);
        }
        let mut view = view;
        let lead = to.len() - from.len();
        (0..lead).for_each(|_| view.axes.insert(0, vec![]));
        for (axis, want) in to.iter().enumerate() {
            let have = if axis < lead { Dim::int(1) } else { from[axis - lead].clone() };
            if have == *want {
                continue;
            }
            let copies = want.exact_div(&have).and_then(|n| n.value()).ok_or("copies of a number that depends on sizes")?;
            view.axes[axis].insert(0, Atom::Copies(copies));
        }
        Ok(view)
    }

    fn combine(&mut self, inst: &Inst, op: T, name: &str) -> Result<View, Fail> {
        let [a, b] = inst.operands[..] else { return Err("not two operands".into()) };
        let kind = if op == T::Add { OpKind::Add } else { OpKind::Mul };
        let weight = |d: &Self, o: Operand| if d.is_rows_operand(o) { None } else { d.recipe(o) };
        for (x, vector) in [(a, b), (b, a)] {
            if let Some(recipe) = weight(self, vector) {
                return self.with_vector(kind, x, vector, recipe, name);
            }
        }
        if op == T::Mul {
            for (x, factor) in [(a, b), (b, a)] {
                if let Some(factor) = self.temperature(factor)? {
                    let view = self.rows(x)?;
                    let value = self.out.op(OpKind::RowScale, name, &[view.value.into(), factor.into()], &[])?;
                    return Ok(view.of(value));
                }
            }
        }
        let (x, y) = (self.rows(a)?, self.rows(b)?);
        if op == T::Mul {
            for (x, gates) in [(&x, &y), (&y, &x)] {
                if let Some(view) = self.expert_scale(x, gates, name)? {
                    return Ok(view);
                }
            }
        }
        if x.axes != y.axes || x.feats != y.feats {
            return Err("operands whose rows lie in different ways".into());
        }
        let func = self.out.func();
        let made_by = |v: ValueId, op: OpKind| func.def(v).map(|i| &func.body[i]).filter(|i| i.op == op);
        // One order of operands, whatever the exporter's: gates first, and the experts of a layer last.
        let mut operands = [x.value, y.value];
        if kind == OpKind::Mul && made_by(y.value, OpKind::Silu).is_some() && made_by(x.value, OpKind::Silu).is_none() {
            operands.reverse();
        }
        if let Some(&[Operand::Value(shared), Operand::Value(experts)]) = made_by(y.value, kind).map(|i| &i.operands[..])
            && kind == OpKind::Add
            && made_by(experts, OpKind::ExpertSum).is_some()
        {
            operands = [self.out.op(kind, name, &[x.value.into(), shared.into()], &[])?, experts];
        }
        let value = self.out.op(kind, name, &operands.map(Operand::from), &[])?;
        Ok(x.of(value))
    }

    fn is_rows_operand(&self, operand: Operand) -> bool {
        matches!(operand, Operand::Value(v) if matches!(self.made.get(&v), Some(Made::Rows(_))))
    }

    /// Rows and a vector over their features; a bias joins the product that it follows.
    fn with_vector(&mut self, kind: OpKind, x: Operand, vector: Operand, recipe: Recipe, name: &str) -> Result<View, Fail> {
        let view = self.rows(x)?;
        let count: usize = recipe.ty()?.sizes().unwrap_or_default().iter().product();
        if !view.is_rows() || count != view.width() {
            return Err("a weight that is no vector over the features".into());
        }
        let recipe = crate::recipes::reshaped(&recipe, &[count]).ok_or("a vector of another shape")?;
        let vector = self.weight(&self.weight_name(vector), recipe)?;
        let func = self.out.func();
        let linear = func.def(view.value).map(|i| func.body[i].clone()).filter(|i| i.op == OpKind::Linear && i.operands.len() == 2);
        let value = match linear {
            Some(linear) if kind == OpKind::Add => {
                self.out.op(OpKind::Linear, name, &[linear.operands[0], linear.operands[1], vector], &[])?
            }
            _ => self.out.op(kind, name, &[view.value.into(), vector], &[])?,
        };
        Ok(view.of(value))
    }

    fn product(&mut self, inst: &Inst, name: &str) -> Result<View, Fail> {
        let view = self.rows(inst.operands[0])?;
        let recipe = self.recipe(inst.operands[1]).ok_or("a product of two things that are computed, outside attention")?;
        let shape = recipe.ty()?.sizes().ok_or("a weight of unknown size")?;
        let weight = self.weight_name(inst.operands[1]);
        match shape[..] {
            [k, n] if view.is_rows() && view.width() == k => {
                let weight = self.weight(&weight, turned(recipe))?;
                let value = self.out.op(OpKind::Linear, name, &[view.value.into(), weight], &[])?;
                Ok(view.joined(value, n))
            }
            [experts, k, n] if view.feats == [experts, k] && view.axes == experts_first() => {
                let weight = self.weight(&weight, turned(recipe))?;
                let value = self.out.op(OpKind::ExpertLinear, name, &[view.value.into(), weight], &[])?;
                Ok(View { value, feats: vec![experts, n], axes: view.axes })
            }
            // What every expert gives is weighed behind, as `QMoE` does it.
            [_, k, _] if view.feats == [k] => {
                Err("experts on rows without their gate: code is made for gates, sigmoids of scores, on what experts take".into())
            }
            _ => Err("a product along something else than the features".into()),
        }
    }

    fn norm(&mut self, inst: &Inst, op: T, name: &str) -> Result<View, Fail> {
        let view = self.rows(inst.operands[0])?;
        let eps = ("eps", Attr::float(inst.float("eps")));
        let last = view.axes.last().cloned().unwrap_or_default();
        let value = if op == T::RmsNorm {
            if !view.is_rows() {
                return Err("a norm with a weight over a part of the features".into());
            }
            let gamma = self.recipe(inst.operands[1]).ok_or("a norm whose weight is computed")?;
            let gamma = self.weight(&self.weight_name(inst.operands[1]), gamma)?;
            self.out.op(OpKind::RmsNorm, name, &[view.value.into(), gamma], &[eps])?
        } else {
            let innermost = view.feats.len() - 1;
            let group = match last[..] {
                _ if view.is_rows() => 0,
                [Atom::Feat(i)] if i == innermost => view.feats[i],
                _ => return Err("a norm over features that are not neighbours".into()),
            };
            self.out.op(OpKind::RmsUnit, name, &[view.value.into()], &[eps, ("group", Attr::Int(group as i64))])?
        };
        Ok(view.of(value))
    }

    fn slice(&mut self, inst: &Inst, name: &str) -> Result<View, Fail> {
        let view = self.rows(inst.operands[0])?;
        let rank = view.axes.len() as i64;
        let axis = inst.signed("axis");
        let innermost = view.feats.len() - 1;
        let single = |name: &str| inst.dims(name).first().and_then(Dim::number);
        let (Some(start), Some(len), 1) = (single("start"), single("len"), inst.signed("step")) else {
            return Err("a slice that depends on sizes".into());
        };
        let flat = view.feats.len() == 1 || view.axes == experts_first();
        if (axis != -1 && axis != rank - 1) || view.axes.last() != Some(&vec![Atom::Feat(innermost)]) || !flat {
            return Err("a slice of something else than features".into());
        }
        if let Some(value) = self.rows_of_linear(&view, start, len, name)? {
            return Ok(view.joined(value, len as usize));
        }
        let value = self.out.op(OpKind::SliceCols, name, &[view.value.into()], &[("start", Attr::Int(start)), ("len", Attr::Int(len))])?;
        let mut view = view.of(value);
        view.feats[innermost] = len as usize;
        Ok(view)
    }

    /// Columns of a product as the product with these rows of its weight: queries, keys and values that an exporter packed are three again.
    fn rows_of_linear(&mut self, view: &View, start: i64, len: i64, name: &str) -> Result<Option<ValueId>, Fail> {
        let func = self.out.func();
        let Some(linear) = func.def(view.value).map(|i| func.body[i].clone()).filter(|i| i.op == OpKind::Linear && view.is_rows()) else {
            return Ok(None);
        };
        let (Ok(start), Ok(len)) = (usize::try_from(start), usize::try_from(len)) else { return Ok(None) };
        let mut operands = linear.operands.clone();
        for operand in &mut operands[1..] {
            let Operand::Weight(w) = *operand else { return Ok(None) };
            let whole = &self.out.func().weights[w.0 as usize];
            let (base, recipe) = (whole.name.clone(), crate::recipes::rows(start, len, whole.recipe.clone()));
            *operand = self.weight(&base, recipe)?;
        }
        Ok(Some(self.out.op(OpKind::Linear, name, &operands, &[])?))
    }

    fn rotary(&mut self, inst: &Inst, name: &str) -> Result<View, Fail> {
        let view = self.rows(inst.operands[0])?;
        let head_dim = heads(&view)?.1;
        let angles = self.angles(inst.operands[1], inst.operands[2])?;
        let layout = if inst.signed("interleaved") != 0 { "interleaved" } else { "half" };
        let attrs = [("head_dim", Attr::Int(head_dim as i64)), ("layout", Attr::Word(layout.to_owned()))];
        let value = self.out.op(OpKind::Rope, name, &[view.value.into(), angles.into()], &attrs)?;
        Ok(view.of(value))
    }

    /// `rope_angles` of positions times frequencies whose cosine and sine these are.
    fn angles(&mut self, cos: Operand, sin: Operand) -> Result<ValueId, Fail> {
        if let (Some(cos), Some(sin)) = (self.def_of(cos, T::Gather), self.def_of(sin, T::Gather)) {
            let by_position = cos.operands[1] == sin.operands[1] && [cos, sin].iter().all(|i| i.signed("axis") == 0);
            if !by_position || !self.is_position(cos.operands[1]) {
                return Err("rotary tables that are read by something else than positions".into());
            }
            let frequencies = self.table([cos.operands[0], sin.operands[0]])?;
            return self.angles_of(frequencies);
        }
        let (Some(cos), Some(sin)) = (self.def_of(cos, T::Cos), self.def_of(sin, T::Sin)) else {
            return Err("rotary tables that are no cosine and sine".into());
        };
        let product = self.def_of(cos.operands[0], T::Mul).filter(|_| cos.operands == sin.operands);
        let product = product.ok_or("rotary angles that are no product of positions and frequencies")?;
        for (p, w) in [(product.operands[0], product.operands[1]), (product.operands[1], product.operands[0])] {
            let Some(frequencies) = self.recipe(w) else { continue };
            if !self.is_position(p) {
                return Err("rotary angles of something else than positions".into());
            }
            let count: usize = frequencies.ty()?.sizes().unwrap_or_default().iter().product();
            let frequencies = crate::recipes::reshaped(&frequencies, &[count]).ok_or("frequencies of another shape")?;
            return self.angles_of(frequencies);
        }
        Err("rotary angles without frequencies that are a weight".into())
    }

    /// `rope_angles` of these frequencies, made once.
    fn angles_of(&mut self, frequencies: Recipe) -> Result<ValueId, Fail> {
        if let Some((_, known)) = self.angles.iter().find(|(r, _)| *r == frequencies) {
            return Ok(*known);
        }
        let weight = self.weight("inv_freq", frequencies.clone())?;
        let value = self.out.op(OpKind::RopeAngles, "angles", &[self.pos.into(), weight], &[])?;
        self.angles.push((frequencies, value));
        Ok(value)
    }

    /// The frequencies of stored tables of cosine and sine.
    fn table(&mut self, tables: [Operand; 2]) -> Result<Recipe, Fail> {
        if let Some((_, known)) = self.tables.iter().find(|(t, _)| *t == tables) {
            return Ok(known.clone()?);
        }
        let [Some(cos), Some(sin)] = tables.map(|t| self.recipe(t)) else { return Err("rotary tables that are computed".into()) };
        let found = frequencies(self.source, &cos, &sin).map(|f| Recipe::Literal { shape: vec![f.len()], data: f.into() });
        self.tables.push((tables, found.clone()));
        Ok(found?)
    }

    /// Whether an operand is the position of each new token, of any element type; if so, the parameter that it is is noted.
    pub(super) fn is_position(&mut self, operand: Operand) -> bool {
        let found = self.position(operand);
        self.noted.positions.extend(found.flatten());
        found.is_some()
    }

    /// The parameter that gives the positions, if a parameter does.
    fn position(&self, operand: Operand) -> Option<Option<ValueId>> {
        let Operand::Value(v) = operand else { return None };
        let Some(inst) = self.def(operand) else {
            let shape = &self.func.values[v.0 as usize].ty.shape;
            let fits = v != self.ids && *shape == [self.symbols.batch.clone(), self.symbols.seq.clone()];
            return fits.then_some(Some(v));
        };
        let zero = |d: &Dim| *d == Dim::default();
        let from = |inst: &Inst, start: &dyn Fn(&Dim) -> bool| {
            start(&inst.dims("start")[0]) && inst.dims("len") == [self.symbols.seq.clone()] && inst.signed("step") == 1
        };
        match inst.op {
            OpKind::Tensor(T::Reshape | T::Cast | T::Expand) => self.position(inst.operands[0]),
            OpKind::Tensor(T::Range) => from(inst, &|d| self.is_past(d)).then_some(None),
            OpKind::Tensor(T::Add) => {
                let either = [(0, 1), (1, 0)].into_iter().any(|(a, b)| {
                    let range = self.def_of(inst.operands[a], T::Range).is_some_and(|r| from(r, &zero));
                    let past = self.def_of(inst.operands[b], T::Values).is_some_and(|v| matches!(v.dims("values"), [d] if self.is_past(d)));
                    range && past
                });
                either.then_some(None)
            }
            _ => None,
        }
    }

    /// Whether the graph takes a past: floats come in.
    fn has_past(&self) -> bool {
        self.func.params.iter().any(|p| self.func.values[p.0 as usize].ty.dtype.info().real)
    }

    /// Whether a length is that of the past: a symbol that is neither batch nor sequence, or nothing in a graph that has no past.
    fn is_past(&self, dim: &Dim) -> bool {
        *dim == Dim::default() && !self.has_past()
            || dim.constant == 0 && matches!(dim.terms.as_slice(), [(_, 1)]) && *dim != self.symbols.batch && *dim != self.symbols.seq
    }

    /// `[past, new]` along the tokens.
    fn cached(&mut self, inst: &Inst) -> Result<Made, Fail> {
        let [Operand::Value(past), new] = inst.operands[..] else {
            return Err("a concatenation of something else than past and new".into());
        };
        let view = self.rows(new)?;
        let (count, axis) = (view.axes.len() as i64, inst.signed("axis"));
        let fits = self.func.params.contains(&past)
            && view.axes.get((if axis < 0 { axis + count } else { axis }) as usize) == Some(&vec![Atom::Seq]);
        if !fits {
            return Err("a concatenation of something else than past and new keys or values".into());
        }
        self.noted.pasts.extend(inst.results.iter().map(|all| (*all, past)));
        Ok(Made::Cached(view))
    }

    fn attention(&mut self, inst: &Inst, name: &str) -> Result<View, Fail> {
        let q = self.rows(inst.operands[0])?;
        let cached = |d: &Self, o: Operand| -> Result<View, Fail> {
            match o {
                Operand::Value(v) => match d.made.get(&v) {
                    Some(Made::Cached(view)) => Ok(view.clone()),
                    // A graph that has no past.
                    Some(Made::Rows(view)) if !d.has_past() => Ok(view.clone()),
                    _ => Err("attention over keys or values that are not past and new".into()),
                },
                Operand::Weight(_) => Err("attention over a weight".into()),
            }
        };
        let (k, v) = (cached(self, inst.operands[1])?, cached(self, inst.operands[2])?);
        if let (Operand::Value(k), Operand::Value(v)) = (inst.operands[1], inst.operands[2]) {
            self.noted.caches.push([k, v]);
        }
        let ((heads_q, head_dim), (kv_heads, k_dim)) = (heads(&q)?, heads(&k)?);
        if heads(&v)? != (kv_heads, k_dim) || k_dim != head_dim {
            return Err("keys, queries and values of heads of different sizes".into());
        }
        let causal = inst.signed("is_causal") != 0;
        if causal && (self.has_past() || inst.operands.len() > 3) {
            return Err("`is_causal` beside a cache: exporters and versions of the op mean different things".into());
        }
        // The length of the past is what keys have beside the new tokens.
        let all = self.func.ty(inst.operands[1]).shape[2].sub(&self.symbols.seq);
        let past = all.terms.first().map(|(s, _)| s.clone()).unwrap_or_default();
        let chunk = if causal { 0 } else { self.chunk(inst.operands.get(3).copied(), &past)? };
        let int = |n: usize| Attr::Int(n as i64);
        let (pos, seq) = (self.pos.into(), self.seq.into());
        self.out.effect(OpKind::KvWrite, &[k.value.into(), v.value.into(), pos, seq], &[("head_dim", int(head_dim))])?;
        let scale = inst.float("scale");
        let exact = 1.0 / (head_dim as f64).sqrt();
        let attrs = [
            ("heads", int(heads_q)),
            ("kv_heads", int(kv_heads)),
            ("head_dim", int(head_dim)),
            ("scale", Attr::float(if scale as f32 == exact as f32 { exact } else { scale })),
            ("chunk", int(chunk)),
        ];
        let value = self.out.op(OpKind::Attention, name, &[q.value.into(), pos, seq], &attrs)?;
        Ok(q.of(value))
    }
}

/// `[expert, tokens, features]`.
fn experts_first() -> Vec<Vec<Atom>> {
    vec![vec![Atom::Feat(0)], vec![Atom::Batch, Atom::Seq], vec![Atom::Feat(1)]]
}

/// Heads and size of a head of `[batch, heads, seq, head_dim]`.
fn heads(view: &View) -> Result<(usize, usize), Fail> {
    let axes = [vec![Atom::Batch], vec![Atom::Feat(0)], vec![Atom::Seq], vec![Atom::Feat(1)]];
    match view.feats[..] {
        [heads, each] if view.axes == axes => Ok((heads, each)),
        // A single head has no axis of its own.
        [each] if view.axes == [vec![Atom::Batch], vec![], vec![Atom::Seq], vec![Atom::Feat(0)]] => Ok((1, each)),
        _ => Err("rows that are not [batch, heads, sequence, head_dim]".into()),
    }
}
