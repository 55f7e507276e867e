//! What the walk over a function asks of its values, and the buffers and regions that it makes for them. The walk itself is in `func`.

use llamac_ir::module::{Inst, Operand, ValueId, WeightId};

use super::LowerError;
use super::func::{FuncLower, Index, Loc};
use super::layout::{Layout, width};
use super::program::*;
use super::weights;

impl FuncLower<'_, '_> {
    pub(super) fn region(&mut self, value: ValueId, body: Body) -> Result<(), LowerError> {
        let name = self.func.values[value.0 as usize].name.clone();
        let rows = match &body {
            Body::RowGather { .. } => 1,
            _ => self.rows(value)?,
        };
        let times = if matches!(body, Body::ExpertDot { .. }) { self.times(value) } else { 1 };
        self.regions.push(Region { name, rows, times, barrier: true, body });
        self.pending.clear();
        Ok(())
    }

    /// Row set of a value, by the symbol of its first dimension.
    pub(super) fn rows(&self, value: ValueId) -> Result<usize, LowerError> {
        let ty = &self.func.values[value.0 as usize].ty;
        let found = ty.shape.first().and_then(|d| match (d.constant, &d.terms[..]) {
            (0, [(name, 1)]) => self.b.symbols.iter().position(|s| s == name),
            _ => None,
        });
        found.ok_or_else(|| LowerError::new(self.func, value, format_args!("is {ty}, whose rows are of no row set")))
    }

    pub(super) fn width(&self, value: ValueId) -> Result<usize, LowerError> {
        width(self.func, value).ok_or_else(|| LowerError::new(self.func, value, "has no fixed width"))
    }

    pub(super) fn layout(&self, value: ValueId) -> Layout {
        self.layouts[value.0 as usize]
    }

    pub(super) fn loc(&self, value: ValueId) -> Result<Loc, LowerError> {
        self.locs[value.0 as usize].ok_or_else(|| LowerError::new(self.func, value, "is read before it is made"))
    }

    /// Whether the value was made by a region before the one that is being formed.
    pub(super) fn located(&self, value: ValueId) -> bool {
        match self.locs[value.0 as usize] {
            Some(Loc::View(v)) => !self.pending.contains(&v.buffer),
            _ => false,
        }
    }

    pub(super) fn view(&self, value: ValueId) -> Result<View, LowerError> {
        match self.loc(value)? {
            Loc::View(v) => Ok(v),
            Loc::Index(..) => Err(LowerError::new(self.func, value, "holds numbers of rows, not features")),
        }
    }

    pub(super) fn value_operand(&self, inst: &Inst, i: usize) -> Result<ValueId, LowerError> {
        match inst.operands.get(i) {
            Some(Operand::Value(v)) => Ok(*v),
            _ => Err(LowerError::at(&self.func.name, format_args!("operand {i} of `{}` must be a value", inst.op.name()))),
        }
    }

    pub(super) fn weight_operand(&self, inst: &Inst, i: usize) -> Result<WeightId, LowerError> {
        match inst.operands.get(i) {
            Some(Operand::Weight(w)) => Ok(*w),
            _ => Err(LowerError::at(&self.func.name, format_args!("operand {i} of `{}` must be a weight", inst.op.name()))),
        }
    }

    pub(super) fn view_operand(&self, inst: &Inst, i: usize) -> Result<View, LowerError> {
        self.view(self.value_operand(inst, i)?)
    }

    pub(super) fn expect_index(&self, operand: Operand, what: Index, set: usize) -> Result<(), LowerError> {
        if let Operand::Value(v) = operand
            && self.loc(v)? == Loc::Index(what, set)
        {
            return Ok(());
        }
        let name = match operand {
            Operand::Value(v) => format!("%{}", self.func.values[v.0 as usize].name),
            Operand::Weight(w) => format!("@{}", self.func.weights[w.0 as usize].name),
        };
        Err(LowerError::at(&self.func.name, format!("{name} is not the {what:?} of row set {set}")))
    }

    /// Rows of a value for each row of its set: the length of the axis between rows and features.
    pub(super) fn times(&self, value: ValueId) -> usize {
        let shape = &self.func.values[value.0 as usize].ty.shape;
        if let [_, middle, _] = &shape[..] { middle.value().unwrap_or(1) } else { 1 }
    }

    /// A new buffer that holds the value.
    pub(super) fn result_buffer(&mut self, value: ValueId, elem: Elem) -> Result<BufferId, LowerError> {
        let (rows, width, layout) = (self.rows(value)?, self.width(value)?, self.layout(value));
        let name = self.func.values[value.0 as usize].name.clone();
        let out = self.b.buffer(&name, rows, width, layout, elem, Role::Scratch);
        self.b.program.buffers[out.0 as usize].times = self.times(value);
        self.locs[value.0 as usize] = Some(Loc::View(View { buffer: out, col: 0 }));
        Ok(out)
    }

    /// A new buffer with the columns of a view, stored as `elem`, rounded to bf16 if asked.
    pub(super) fn copy(&mut self, value: ValueId, from: View, elem: Elem, round: bool) -> Result<BufferId, LowerError> {
        let (rows, width, layout) = (self.rows(value)?, self.width(value)?, self.layout(value));
        let name = format!("{}.{}", self.func.values[value.0 as usize].name, elem.name());
        let out = self.b.buffer(&name, rows, width, layout, elem, Role::Scratch);
        let times = self.b.program.buffer(from.buffer).times;
        self.b.program.buffers[out.0 as usize].times = times;
        let load = Expr::Load(from);
        let expr = if round { Expr::Round(Box::new(load)) } else { load };
        let segment = Segment { first: 0, blocks: layout.padded(width) / 16, lanes: 1, expr, sink: Sink::Store(out) };
        self.regions.push(Region { name, rows, times, barrier: true, body: Body::Map { segments: vec![segment] } });
        Ok(out)
    }

    pub(super) fn norm_body(
        &mut self,
        x: ValueId,
        gamma: Option<WeightId>,
        eps: f64,
        group: usize,
        out: BufferId,
    ) -> Result<Body, LowerError> {
        let (total, layout) = (self.width(x)?, self.layout(x));
        let gamma = gamma.map(|w| weights::vector(self, w, RowOrder::Plain(layout))).transpose()?;
        let width = if group == 0 { total } else { group };
        Ok(Body::Norm { x: self.view(x)?, gamma, eps, groups: total / width, width, out })
    }
}
