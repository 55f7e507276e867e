//! What Llama 4 has more: experts with gates on their inputs, and queries whose temperature depends on the position.

use super::super::super::view::{Atom, View};
use super::super::{Decoder, Fail};
use super::experts_first;
use crate::raise::find::literal;
use llamac_ir::module::{Inst, Operand, ValueId};
use llamac_ir::op::{Attr, OpKind, TensorOp as T};
use llamac_ir::types::Dim;

impl Decoder<'_> {
    /// The one number of an operand.
    fn number(&self, operand: Operand) -> Option<f64> {
        if let Operand::Weight(w) = operand {
            return literal(&self.func.weights[w.0 as usize].recipe);
        }
        let inst = self.def(operand)?;
        match inst.op {
            OpKind::Tensor(T::Fill) => Some(inst.float("value")),
            OpKind::Tensor(T::Expand | T::Reshape) => self.number(inst.operands[0]),
            _ => None,
        }
    }

    /// The operand of a sum or product whose other operand is this number.
    fn beside(&self, operand: Operand, op: T) -> Option<(Operand, f64)> {
        let inst = self.def_of(operand, op)?;
        let [a, b] = inst.operands[..] else { return None };
        self.number(b).map(|n| (a, n)).or_else(|| self.number(a).map(|n| (b, n)))
    }

    /// `1 + attn_scale * ln(1 + floor((pos + 1) / floor_scale))`, if that is what the operand is.
    pub(super) fn temperature(&mut self, operand: Operand) -> Result<Option<ValueId>, Fail> {
        let mut at = operand;
        while let Some(inst) = self.def(at).filter(|i| matches!(i.op, OpKind::Tensor(T::Expand | T::Reshape))) {
            at = inst.operands[0];
        }
        let found = (|| {
            let (scaled, one) = self.beside(at, T::Add)?;
            let (log, attn_scale) = self.beside(scaled, T::Mul)?;
            let (floor, plus) = self.beside(self.def_of(log, T::Log)?.operands[0], T::Add)?;
            let quotient = self.def_of(self.def_of(floor, T::Floor)?.operands[0], T::Div)?;
            let floor_scale = self.number(quotient.operands[1])?;
            let (pos, next) = self.beside(quotient.operands[0], T::Add)?;
            (one == 1.0 && plus == 1.0 && next == 1.0).then_some((floor_scale, attn_scale, pos))
        })();
        let Some((floor_scale, attn_scale, pos)) = found else { return Ok(None) };
        if !self.is_position(pos) {
            return Ok(None);
        }
        let attrs = [("floor_scale", Attr::float(floor_scale)), ("attn_scale", Attr::float(attn_scale))];
        self.out.op(OpKind::AttnTemperature, "temperature", &[self.pos.into()], &attrs).map(Some).map_err(Fail::from)
    }

    /// `sigmoid` of the largest scores, minus infinity where they were not chosen.
    pub(super) fn gates(&mut self, inst: &Inst, name: &str) -> Result<View, Fail> {
        let scatter = self.def_of(inst.operands[0], T::ScatterElements).ok_or("a sigmoid that is neither a silu nor over chosen scores")?;
        let [base, Operand::Value(indices), Operand::Value(values)] = scatter.operands[..] else {
            return Err("a scatter of weights".into());
        };
        let top = self.def_of(Operand::Value(values), T::TopK).filter(|t| t.results == [values, indices]);
        let top = top.ok_or("a scatter of something else than the largest scores")?;
        let (scores, k) = (self.rows(top.operands[0])?, top.int("k"));
        let rank = scores.axes.len() as i64;
        let last = |axis: i64| axis == -1 || axis == rank - 1;
        if self.number(base) != Some(f64::NEG_INFINITY) || !last(scatter.signed("axis")) || !last(top.signed("axis")) || !scores.is_rows() {
            return Err("scores that are chosen in another way".into());
        }
        let value = self.out.op(OpKind::TopGates, name, &[scores.value.into()], &[("top_k", Attr::Int(k as i64))])?;
        Ok(scores.of(value))
    }

    /// Copies of the rows, each times the gate of its expert.
    pub(super) fn expert_scale(&mut self, x: &View, gates: &View, name: &str) -> Result<Option<View>, Fail> {
        let ([experts], [width]) = (&gates.feats[..], &x.feats[..]) else { return Ok(None) };
        let copies = vec![Atom::Copies(*experts), Atom::Batch, Atom::Seq];
        let gated = vec![Atom::Feat(0), Atom::Batch, Atom::Seq];
        if x.axes != [copies, vec![Atom::Feat(0)]] || gates.axes != [gated.clone(), vec![]] {
            return Ok(None);
        }
        let value = self.out.op(OpKind::ExpertScale, name, &[x.value.into(), gates.value.into()], &[])?;
        Ok(Some(View { value, feats: vec![*experts, *width], axes: vec![gated, vec![Atom::Feat(1)]] }))
    }

    /// The sum over experts.
    pub(super) fn sum(&mut self, inst: &Inst, name: &str) -> Result<View, Fail> {
        let view = self.rows(inst.operands[0])?;
        let over: Vec<i64> = inst.dims("axes").iter().filter_map(Dim::number).collect();
        if view.axes != experts_first() || !matches!(over[..], [0 | -3]) {
            return Err("a sum over something else than experts".into());
        }
        let value = self.out.op(OpKind::ExpertSum, name, &[view.value.into()], &[])?;
        Ok(View { value, feats: vec![view.feats[1]], axes: vec![vec![], vec![Atom::Batch, Atom::Seq], vec![Atom::Feat(0)]] })
    }
}
