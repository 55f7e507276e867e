//! Dot regions: which activation copy they read, which columns go where, and which of the following elementwise ops and
//! cache writes are done on the tile while it is in the L1 cache.

use llamac_ir::dtype::DType;
use llamac_ir::module::{Operand, ValueId, WeightId};
use llamac_ir::op::OpKind;
use llamac_runtime::format::{self, Act, WEIGHT_FORMATS, WeightFormat};

use super::func::{CopyKey, FuncLower};
use super::layout::Layout;
use super::program::*;
use super::{LowerError, weights};

/// The packed format for weights of that type and whether the activations must be rounded to bf16 apart from it.
/// `None`: no kernel can compute this.
pub(super) fn dot_format(dtype: DType, act: &str) -> Option<(WeightFormat, bool)> {
    let same = WEIGHT_FORMATS.iter().find(|f| f.name == dtype.name());
    match same {
        Some(f) if f.act.name() == act => Some((*f, false)),
        // Sixteen-bit weights with f32 activations, or f32 weights with rounded ones: widened weights give the exact result.
        _ if matches!(dtype, DType::F32 | DType::Bf16 | DType::F16) => Some((format::F32, act == Act::Bf16.name())),
        _ => None,
    }
}

/// How activations in that format are stored.
pub(super) fn act_elem(act: Act) -> Elem {
    match act {
        Act::F32 => Elem::F32,
        Act::Bf16 => Elem::Bf16,
        Act::I8 => Elem::I8,
    }
}

/// Operands of the linear-like ops: norm gamma, weight, residual, bias.
struct Parts {
    gamma: Option<WeightId>,
    weight: WeightId,
    residual: Option<ValueId>,
    bias: Option<WeightId>,
    norm: bool,
    swiglu: bool,
}

/// A slice of a product's columns.
struct Slice {
    value: ValueId,
    /// First column, with padding.
    col: usize,
    /// Columns, with padding.
    padded: usize,
    /// The instruction.
    inst: usize,
}

impl FuncLower<'_, '_> {
    fn parts(&self, at: usize) -> Result<Parts, LowerError> {
        let inst = &self.func.body[at];
        let (norm, swiglu) = match inst.op {
            OpKind::NormLinear | OpKind::UnitLinear => (true, false),
            OpKind::NormLinearSwiGlu | OpKind::UnitLinearSwiGlu => (true, true),
            _ => (false, false),
        };
        let gamma = matches!(inst.op, OpKind::NormLinear | OpKind::NormLinearSwiGlu);
        let add = inst.op == OpKind::LinearAdd;
        let (w, b) = if gamma { (2, 3) } else { (1, if add { 3 } else { 2 }) };
        Ok(Parts {
            gamma: if gamma { Some(self.weight_operand(inst, 1)?) } else { None },
            weight: self.weight_operand(inst, w)?,
            residual: if add { Some(self.value_operand(inst, 2)?) } else { None },
            bias: if inst.operands.len() > b { Some(self.weight_operand(inst, b)?) } else { None },
            norm,
            swiglu,
        })
    }

    /// Lowers a linear-like instruction.
    pub(super) fn dot(&mut self, at: usize) -> Result<(), LowerError> {
        let func = self.func;
        let inst = &func.body[at];
        let parts = self.parts(at)?;
        let (x, result) = (self.value_operand(inst, 0)?, inst.results[0]);
        let weight = &func.weights[parts.weight.0 as usize];
        let Some((format, round)) = dot_format(weight.ty.dtype, inst.word("act")) else {
            let what = format!("@{} is {} with act={}: no kernel has that", weight.name, weight.ty.dtype, inst.word("act"));
            return Err(LowerError::at(&func.name, what));
        };
        let norm = if parts.norm { Some((parts.gamma, inst.float("eps").to_bits())) } else { None };
        let view = self.activations(x, norm, act_elem(format.act), round)?;

        let layout = self.layout(result);
        let rows = if parts.swiglu { RowOrder::GateUp(layout) } else { RowOrder::Plain(layout) };
        let cols = self.layout(x);
        let matrix = weights::matrix(self, parts.weight, format, rows, cols)?;
        let bias = parts.bias.map(|w| weights::vector(self, w, rows)).transpose()?;
        let lanes = if parts.swiglu { 2 } else { 1 };
        let residual = parts.residual.map(|v| self.view(v)).transpose()?;
        // The result columns from `col` on.
        let base = |col: usize| {
            let lane = |l: usize| match bias {
                None => Expr::Acc(l),
                Some(weight) => {
                    let vector = Expr::Vector { weight, start: col * lanes + 16 * l, stride: 16 * lanes };
                    Expr::Add(Box::new(Expr::Acc(l)), Box::new(vector))
                }
            };
            let y = if lanes == 2 { Expr::Mul(Box::new(Expr::Silu(Box::new(lane(0)))), Box::new(lane(1))) } else { lane(0) };
            match residual {
                None => y,
                Some(v) => Expr::Add(Box::new(Expr::Load(View { buffer: v.buffer, col: v.col + col })), Box::new(y)),
            }
        };

        let mut segments = Vec::new();
        match self.slices(result)? {
            Some(slices) => {
                for Slice { value, col, padded, inst } in slices {
                    self.done[inst] = [true; 2];
                    segments.push(self.segment(at, value, base(col), col / 16 * lanes, padded / 16, lanes)?);
                }
            }
            None => {
                let blocks = layout.padded(self.width(result)?) / 16;
                segments.push(self.segment(at, result, base(0), 0, blocks, lanes)?);
            }
        }
        self.region(result, Body::Dot { weight: matrix, x: view, segments })
    }

    /// If nothing but slices reads the value and they cut it at block borders: the slices in order of columns.
    fn slices(&self, value: ValueId) -> Result<Option<Vec<Slice>>, LowerError> {
        let uses = &self.uses[value.0 as usize];
        if uses.is_empty() || self.is_result[value.0 as usize] {
            return Ok(None);
        }
        let (layout, width) = (self.layout(value), self.width(value)?);
        let mut out = Vec::new();
        for &(i, _) in uses {
            let inst = &self.func.body[i];
            if inst.op != OpKind::SliceCols {
                return Ok(None);
            }
            let (start, len) = (inst.int("start"), inst.int("len"));
            self.check_heads(inst.results[0], start, len)?;
            let col = layout.col(start);
            let whole_blocks = layout != Layout::Plain || len % 16 == 0 || start + len == width;
            if !whole_blocks || col % 16 != 0 {
                return Ok(None);
            }
            out.push(Slice { value: inst.results[0], col, padded: layout.padded(len), inst: i });
        }
        out.sort_by_key(|s| s.col);
        let apart = out.windows(2).all(|w| w[0].col + w[0].padded <= w[1].col);
        Ok(if apart { Some(out) } else { None })
    }

    /// A segment that computes `value` by `expr` at instruction `at` and takes along what can be done at once.
    pub(super) fn segment(
        &mut self,
        at: usize,
        value: ValueId,
        expr: Expr,
        first: usize,
        blocks: usize,
        lanes: usize,
    ) -> Result<Segment, LowerError> {
        let (mut value, mut expr) = (value, expr);
        while let [(i, operand)] = self.uses[value.0 as usize][..] {
            let inst = &self.func.body[i];
            if self.is_result[value.0 as usize] {
                break;
            }
            match inst.op {
                OpKind::Silu => {}
                OpKind::RowScale if operand == 0 && self.ready(i, 1) => {}
                OpKind::Add | OpKind::Mul | OpKind::SwiGlu if self.ready(i, 1 - operand) => {}
                OpKind::Rope if operand == 0 && inst.word("layout") == "interleaved" && self.ready(i, 1) => {}
                OpKind::KvWrite | OpKind::RopeKvWrite if operand < 2 && inst.word("kv") != "i8" && self.cache_is_quiet(at, i) => {
                    let roped = inst.op == OpKind::RopeKvWrite && operand == 0;
                    if roped && !self.ready(i, 2) {
                        break;
                    }
                    let cache = self.cache_of(inst, value)?;
                    if roped {
                        expr = Expr::Rope { x: Box::new(expr), angles: self.view_operand(inst, 2)?, head_dim: cache.head_dim };
                    }
                    self.done[i][operand] = true;
                    let sink = if operand == 0 { Sink::CacheK(cache) } else { Sink::CacheV(cache) };
                    return Ok(Segment { first, blocks, lanes, expr, sink });
                }
                _ => break,
            }
            expr = self.elementwise(inst, Some((value, expr)))?;
            self.done[i] = [true; 2];
            value = inst.results[0];
        }
        let elem = self.store_elem(value);
        let out = self.result_buffer(value, elem)?;
        self.pending.push(out);
        Ok(Segment { first, blocks, lanes, expr, sink: Sink::Store(out) })
    }

    /// Whether an operand is already in a buffer, or a weight.
    fn ready(&self, inst: usize, operand: usize) -> bool {
        match self.func.body[inst].operands[operand] {
            Operand::Value(v) => self.located(v),
            Operand::Weight(_) => true,
        }
    }

    /// Whether no attention between two instructions would see a cache write that is done early.
    fn cache_is_quiet(&self, from: usize, to: usize) -> bool {
        self.func.body[from..to].iter().all(|inst| inst.op != OpKind::Attention)
    }

    /// How a value is best stored: rounded to bf16 if nothing but dots with bf16 activations reads it.
    pub(super) fn store_elem(&self, value: ValueId) -> Elem {
        let uses = &self.uses[value.0 as usize];
        let rounds = |&(i, operand): &(usize, usize)| {
            let inst = &self.func.body[i];
            let weight = if inst.op == OpKind::MoeLinearAdd { 2 } else { 1 };
            matches!(inst.op, OpKind::Linear | OpKind::LinearAdd | OpKind::MoeLinearAdd)
                && operand == 0
                && matches!(inst.operands[weight], Operand::Weight(w)
                    if dot_format(self.func.weights[w.0 as usize].ty.dtype, inst.word("act")).is_some_and(|(f, _)| f.act == Act::Bf16))
        };
        if !uses.is_empty() && !self.is_result[value.0 as usize] && uses.iter().all(rounds) { Elem::Bf16 } else { Elem::F32 }
    }

    /// A view of the value, f32, rounded to int8.
    pub(super) fn quantized(&mut self, x: ValueId, from: View) -> Result<BufferId, LowerError> {
        let (rows, width, layout) = (self.rows(x)?, self.width(x)?, self.layout(x));
        if layout != Layout::Plain {
            // Padding between heads would move columns into other groups than the IR says.
            return Err(LowerError::new(self.func, x, "is padded by heads and cannot be rounded in groups of columns"));
        }
        let name = format!("{}.i8", self.func.values[x.0 as usize].name);
        let out = self.b.buffer(&name, rows, width, layout, Elem::I8, Role::Scratch);
        let times = self.b.program.buffer(from.buffer).times;
        self.b.program.buffers[out.0 as usize].times = times;
        self.regions.push(Region { name, rows, times, barrier: true, body: Body::Quantize { x: from, out } });
        Ok(out)
    }

    /// The value, normed if asked, as a dot wants it.
    fn activations(&mut self, x: ValueId, norm: Option<(Option<WeightId>, u64)>, elem: Elem, round: bool) -> Result<View, LowerError> {
        if norm.is_none() && !round {
            let view = self.view(x)?;
            if self.b.program.buffer(view.buffer).elem == elem && view.col.is_multiple_of(16) {
                return Ok(view);
            }
        }
        let key = CopyKey { value: x, norm, elem, round };
        if let Some((_, buffer)) = self.copies.iter().find(|(k, _)| *k == key) {
            return Ok(View { buffer: *buffer, col: 0 });
        }
        let buffer = match norm {
            _ if elem == Elem::I8 => {
                let from = self.activations(x, norm, Elem::F32, false)?;
                self.quantized(x, from)?
            }
            None => {
                let view = self.view(x)?;
                self.copy(x, view, elem, round)?
            }
            Some((gamma, eps)) => {
                let (rows, width, layout) = (self.rows(x)?, self.width(x)?, self.layout(x));
                let name = format!("{}.norm", self.func.values[x.0 as usize].name);
                let out = self.b.buffer(&name, rows, width, layout, elem, Role::Scratch);
                let body = self.norm_body(x, gamma, f64::from_bits(eps), 0, out)?;
                self.regions.push(Region { name, rows, times: 1, barrier: true, body });
                if round { self.copy(x, View { buffer: out, col: 0 }, elem, true)? } else { out }
            }
        };
        self.copies.push((key, buffer));
        Ok(View { buffer, col: 0 })
    }
}
