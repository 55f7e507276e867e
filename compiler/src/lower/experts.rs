//! Mixtures of experts: routing, the order of places, and one dot over all experts for gate and up and one for down. Plain dots are in `dot`.

use llamac_ir::module::{Inst, Operand, ValueId, WeightId};
use llamac_runtime::abi::ROWS;
use llamac_runtime::format::WeightFormat;

use super::dot::{act_elem, dot_format};
use super::func::FuncLower;
use super::layout::Layout;
use super::program::*;
use super::{LowerError, weights};

impl FuncLower<'_, '_> {
    /// Choice of experts, and the order of places that follows from it.
    pub(super) fn route(&mut self, inst: &Inst) -> Result<(), LowerError> {
        let scores = self.value_operand(inst, 0)?;
        let (experts, top_k) = (self.width(scores)?, inst.int("top_k"));
        let [ids_value, gates_value] = inst.results[..] else {
            return Err(LowerError::at(&self.func.name, "`route` must have two results"));
        };
        let scores = self.view(scores)?;
        let ids = self.result_buffer(ids_value, Elem::I32)?;
        let gates = self.result_buffer(gates_value, Elem::F32)?;
        self.region(ids_value, Body::Route { scores, experts, top_k, ids, gates })?;
        // Pairs by place and places by pair stand where rows would.
        let name = format!("{}.places", self.func.values[ids_value.0 as usize].name);
        let list = self.b.buffer(&name, self.rows(ids_value)?, 2 * top_k, Layout::Plain, Elem::I32, Role::Scratch);
        self.b.program.buffers[list.0 as usize].extra = ((experts + 1).next_multiple_of(ROWS) * Elem::I32.bytes()) as u64;
        self.lists.push((ids_value, list));
        self.region(ids_value, Body::Group { ids, experts, top_k, list })
    }

    /// Gated rows in the order of places, and the gated product of each expert with its rows.
    pub(super) fn moe_linear_swiglu(&mut self, inst: &Inst) -> Result<(), LowerError> {
        let (x, result) = (self.value_operand(inst, 0)?, inst.results[0]);
        let gates = self.view_operand(inst, 2)?.buffer;
        let (weight, format, round) = self.expert_weight(inst, 3)?;
        let (list, top_k) = (self.list(inst, 1)?, self.times(result));
        let experts = self.experts(weight)?;
        let (view, layout) = (self.view(x)?, self.layout(x));
        let name = format!("{}.gated", self.func.values[x.0 as usize].name);
        let (rows, width) = (self.rows(x)?, self.width(x)?);
        let out = self.b.buffer(&name, rows, width, layout, Elem::F32, Role::Scratch);
        self.b.program.buffers[out.0 as usize].times = top_k;
        let body = Body::ExpertRows { x: view, gates, experts, top_k, list, out };
        self.regions.push(Region { name, rows, times: top_k, barrier: true, body });
        let x = self.places(x, View { buffer: out, col: 0 }, act_elem(format.act), round)?;

        let (cols, layout) = (layout, self.layout(result));
        let matrix = weights::experts(self, weight, format, RowOrder::GateUp(layout), cols, top_k)?;
        let expr = Expr::Mul(Box::new(Expr::Silu(Box::new(Expr::Acc(0)))), Box::new(Expr::Acc(1)));
        let blocks = layout.padded(self.width(result)?) / ROWS;
        let elem = self.store_elem(result);
        let out = self.result_buffer(result, elem)?;
        let segments = vec![Segment { first: 0, blocks, lanes: 2, expr, sink: Sink::Store(out) }];
        self.region(result, Body::ExpertDot { weight: matrix, list, x, segments })
    }

    /// The product of each expert with its rows, and the sum over the experts of a row.
    pub(super) fn moe_linear_add(&mut self, inst: &Inst) -> Result<(), LowerError> {
        let (h, result) = (self.value_operand(inst, 0)?, inst.results[0]);
        let (weight, format, round) = self.expert_weight(inst, 2)?;
        let (list, top_k, experts) = (self.list(inst, 1)?, self.times(h), self.experts(weight)?);
        let residual = self.view_operand(inst, 3)?;
        let view = self.view(h)?;
        let x = self.places(h, view, act_elem(format.act), round)?;
        let (layout, cols) = (self.layout(result), self.layout(h));
        let matrix = weights::experts(self, weight, format, RowOrder::Plain(layout), cols, top_k)?;
        let (rows, width) = (self.rows(result)?, self.width(result)?);
        let name = format!("{}.experts", self.func.values[result.0 as usize].name);
        let products = self.b.buffer(&name, rows, width, layout, Elem::F32, Role::Scratch);
        self.b.program.buffers[products.0 as usize].times = top_k;
        let segment = Segment { first: 0, blocks: layout.padded(width) / ROWS, lanes: 1, expr: Expr::Acc(0), sink: Sink::Store(products) };
        let body = Body::ExpertDot { weight: matrix, list, x, segments: vec![segment] };
        self.regions.push(Region { name, rows, times: top_k, barrier: true, body });
        let out = self.result_buffer(result, Elem::F32)?;
        self.region(result, Body::Combine { rows: products, experts, top_k, list, residual, out })
    }

    /// Rows by place as a dot wants them.
    fn places(&mut self, value: ValueId, view: View, elem: Elem, round: bool) -> Result<View, LowerError> {
        if self.b.program.buffer(view.buffer).elem == elem && !round {
            return Ok(view);
        }
        let buffer = if elem == Elem::I8 { self.quantized(value, view)? } else { self.copy(value, view, elem, round)? };
        Ok(View { buffer, col: 0 })
    }

    fn expert_weight(&self, inst: &Inst, i: usize) -> Result<(WeightId, WeightFormat, bool), LowerError> {
        let id = self.weight_operand(inst, i)?;
        let weight = &self.func.weights[id.0 as usize];
        match dot_format(weight.ty.dtype, inst.word("act")) {
            Some((format, round)) => Ok((id, format, round)),
            None => {
                let what = format!("@{} is {} with act={}: no kernel has that", weight.name, weight.ty.dtype, inst.word("act"));
                Err(LowerError::at(&self.func.name, what))
            }
        }
    }

    fn experts(&self, weight: WeightId) -> Result<usize, LowerError> {
        let w = &self.func.weights[weight.0 as usize];
        let first = w.ty.shape.first().and_then(|d| d.value());
        first.ok_or_else(|| LowerError::at(&self.func.name, format!("@{} is {}, but must have experts", w.name, w.ty)))
    }

    /// The list of places that belongs to an operand that `route` made.
    fn list(&self, inst: &Inst, i: usize) -> Result<BufferId, LowerError> {
        let found = self.lists.iter().find(|(v, _)| inst.operands.get(i) == Some(&Operand::Value(*v))).map(|(_, list)| *list);
        found.ok_or_else(|| LowerError::at(&self.func.name, format!("operand {i} of `{}` must come from `route`", inst.op.name())))
    }
}
