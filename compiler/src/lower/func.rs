//! Walks one function: `main` is cut into parts at its `layers` ops, each kind of layer becomes one function. Here are parameters, calls and
//! every op but the dots (`dot`).

use llamac_ir::module::{Func, Inst, Operand, ValueId, WeightId};
use llamac_ir::op::OpKind;
use llamac_runtime::abi::ScheduleEntry;

use super::layout::{Layout, layouts, pad, results};
use super::module::Builder;
use super::program::*;
use super::{LowerError, coalesce, weights};

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loc {
    /// Numbers of the rows of a set that the runtime provides.
    Index(Index, usize),
    /// Columns of a buffer.
    View(View),
}

/// What the runtime provides for each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Ids,
    Pos,
    Seq,
    Want,
}

/// Lowers one function.
pub(super) struct FuncLower<'a, 'm> {
    pub(super) b: &'a mut Builder<'m>,
    pub(super) func: &'m Func,
    pub(super) area: usize,
    pub(super) layouts: Vec<Layout>,
    /// For each value, the instructions and operand numbers that read it.
    pub(super) uses: Vec<Vec<(usize, usize)>>,
    pub(super) is_result: Vec<bool>,
    pub(super) locs: Vec<Option<Loc>>,
    /// For each instruction, whether a region before it has done it, operand by operand for cache writes.
    pub(super) done: Vec<[bool; 2]>,
    pub(super) regions: Vec<Region>,
    /// Normed or rounded copies of values, to make each only once.
    pub(super) copies: Vec<(CopyKey, BufferId)>,
    /// Buffers of the region that is being formed: nothing in it may read them.
    pub(super) pending: Vec<BufferId>,
    /// For the results of `route`: the list of places.
    pub(super) lists: Vec<(ValueId, BufferId)>,
    cache: Option<(Cache, usize)>,
}

/// What a copy of a value is: of which value, with which norm, stored how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CopyKey {
    pub(super) value: ValueId,
    pub(super) norm: Option<(Option<WeightId>, u64)>,
    pub(super) elem: Elem,
    pub(super) round: bool,
}

impl<'a, 'm> FuncLower<'a, 'm> {
    pub(super) fn new(b: &'a mut Builder<'m>, func: &'m Func, area: usize, args: &[Loc]) -> Result<FuncLower<'a, 'm>, LowerError> {
        if func.params.len() != args.len() {
            let (found, expected) = (args.len(), func.params.len());
            return Err(LowerError::at(&func.name, format!("called with {found} operands, it has {expected} parameters")));
        }
        let mut uses = vec![Vec::new(); func.values.len()];
        for (i, inst) in func.body.iter().enumerate() {
            for (o, operand) in inst.operands.iter().enumerate() {
                if let Operand::Value(v) = operand {
                    uses[v.0 as usize].push((i, o));
                }
            }
        }
        let mut is_result = vec![false; func.values.len()];
        results(func).for_each(|v| is_result[v.0 as usize] = true);
        let mut locs = vec![None; func.values.len()];
        for (p, a) in func.params.iter().zip(args) {
            locs[p.0 as usize] = Some(*a);
        }
        let (layouts, done) = (layouts(func)?, vec![[false; 2]; func.body.len()]);
        Ok(FuncLower {
            b,
            func,
            area,
            layouts,
            uses,
            is_result,
            locs,
            done,
            regions: Vec::new(),
            copies: Vec::new(),
            pending: Vec::new(),
            lists: Vec::new(),
            cache: None,
        })
    }

    pub(super) fn walk(&mut self) -> Result<(), LowerError> {
        for at in 0..self.func.body.len() {
            self.inst(at)?;
        }
        Ok(())
    }

    fn inst(&mut self, at: usize) -> Result<(), LowerError> {
        let inst = &self.func.body[at];
        match inst.op {
            OpKind::KvWrite | OpKind::RopeKvWrite => return self.kv_write(at),
            _ if self.done[at][0] => return Ok(()),
            OpKind::Linear
            | OpKind::LinearAdd
            | OpKind::NormLinear
            | OpKind::UnitLinear
            | OpKind::NormLinearSwiGlu
            | OpKind::UnitLinearSwiGlu => return self.dot(at),
            OpKind::Route => return self.route(inst),
            OpKind::MoeLinearSwiGlu => return self.moe_linear_swiglu(inst),
            OpKind::MoeLinearAdd => return self.moe_linear_add(inst),
            OpKind::Layers => return self.layers(inst),
            OpKind::Attention => return self.attention(inst),
            OpKind::GatherRows => return self.gather_rows(inst),
            _ => {}
        }
        let result = inst.results[0];
        match inst.op {
            OpKind::Embed => {
                self.expect_index(inst.operands[0], Index::Ids, 0)?;
                let w = self.weight_operand(inst, 1)?;
                let table = weights::table(self, w)?;
                let out = self.result_buffer(result, Elem::F32)?;
                self.region(result, Body::Gather { table, out })
            }
            OpKind::RopeAngles => {
                let set = self.rows(result)?;
                self.expect_index(inst.operands[0], Index::Pos, set)?;
                let w = self.weight_operand(inst, 1)?;
                let inv_freq = weights::vector(self, w, RowOrder::Plain(Layout::Plain))?;
                let out = self.result_buffer(result, Elem::F32)?;
                self.region(result, Body::RopeAngles { inv_freq, out })
            }
            OpKind::AttnTemperature => {
                let set = self.rows(result)?;
                self.expect_index(inst.operands[0], Index::Pos, set)?;
                let out = self.result_buffer(result, Elem::F32)?;
                let (floor_scale, attn_scale) = (inst.float("floor_scale"), inst.float("attn_scale"));
                self.region(result, Body::AttnTemperature { floor_scale, attn_scale, out })
            }
            OpKind::RmsNorm | OpKind::RmsUnit => {
                let x = self.value_operand(inst, 0)?;
                let gamma = if inst.op == OpKind::RmsNorm { Some(self.weight_operand(inst, 1)?) } else { None };
                let group = if inst.op == OpKind::RmsUnit { inst.int("group") } else { 0 };
                let elem = self.store_elem(result);
                let out = self.result_buffer(result, elem)?;
                let body = self.norm_body(x, gamma, inst.float("eps"), group, out)?;
                self.region(result, body)
            }
            OpKind::Rope if inst.word("layout") == "half" => {
                let (x, angles) = (self.view_operand(inst, 0)?, self.view_operand(inst, 1)?);
                let head_dim = inst.int("head_dim");
                let heads = self.width(result)? / head_dim;
                let out = self.result_buffer(result, Elem::F32)?;
                self.region(result, Body::RopeHalf { x, angles, heads, head_dim, out })
            }
            OpKind::SliceCols => self.slice(inst),
            OpKind::Rope | OpKind::Silu | OpKind::Add | OpKind::Mul | OpKind::SwiGlu | OpKind::RowScale => {
                let expr = self.elementwise(inst, None)?;
                let blocks = self.layout(result).padded(self.width(result)?) / 16;
                let segment = self.segment(at, result, expr, 0, blocks, 1)?;
                self.region(result, Body::Map { segments: vec![segment] })
            }
            other => Err(LowerError::new(self.func, result, format_args!("is made by `{}`, which has no lowering", other.name()))),
        }
    }

    /// The expression of an elementwise instruction; `chain` stands for the value that it continues.
    pub(super) fn elementwise(&mut self, inst: &Inst, chain: Option<(ValueId, Expr)>) -> Result<Expr, LowerError> {
        let layout = self.layout(inst.results[0]);
        let mut chain = chain;
        let mut operand = |this: &mut Self, i: usize| -> Result<Box<Expr>, LowerError> {
            match inst.operands[i] {
                Operand::Weight(w) => {
                    let weight = weights::vector(this, w, RowOrder::Plain(layout))?;
                    Ok(Box::new(Expr::Vector { weight, start: 0, stride: 16 }))
                }
                Operand::Value(v) => match chain.take_if(|c| c.0 == v) {
                    Some((_, expr)) => Ok(Box::new(expr)),
                    None => Ok(Box::new(Expr::Load(this.view(v)?))),
                },
            }
        };
        Ok(match inst.op {
            OpKind::Add => Expr::Add(operand(self, 0)?, operand(self, 1)?),
            OpKind::Mul => Expr::Mul(operand(self, 0)?, operand(self, 1)?),
            OpKind::Silu => Expr::Silu(operand(self, 0)?),
            OpKind::RowScale => Expr::Mul(operand(self, 0)?, Box::new(Expr::Row(self.view_operand(inst, 1)?))),
            OpKind::SwiGlu => Expr::Mul(Box::new(Expr::Silu(operand(self, 0)?)), operand(self, 1)?),
            _ => Expr::Rope { x: operand(self, 0)?, angles: self.view_operand(inst, 1)?, head_dim: pad(inst.int("head_dim")) },
        })
    }

    fn slice(&mut self, inst: &Inst) -> Result<(), LowerError> {
        let result = inst.results[0];
        let (of, view) = (self.value_operand(inst, 0)?, self.view_operand(inst, 0)?);
        let (start, len, layout) = (inst.int("start"), inst.int("len"), self.layout(result));
        self.check_heads(result, start, len)?;
        let from = View { buffer: view.buffer, col: view.col + layout.col(start) };
        // The last columns bring the padding of the whole value along, if it reaches as far as theirs.
        let last = start + len == self.width(of)? && start + layout.padded(len) <= layout.padded(self.width(of)?);
        let padding_is_zero = layout != Layout::Plain || len % 16 == 0 || last;
        if padding_is_zero && from.col.is_multiple_of(16) && !self.is_result[result.0 as usize] {
            self.locs[result.0 as usize] = Some(Loc::View(from));
            return Ok(());
        }
        let expr = Expr::Keep { x: Box::new(Expr::Load(from)), width: len };
        let expr = if padding_is_zero { Expr::Load(from) } else { expr };
        let out = self.result_buffer(result, Elem::F32)?;
        let segment = Segment { first: 0, blocks: layout.padded(len) / 16, lanes: 1, expr, sink: Sink::Store(out) };
        self.region(result, Body::Map { segments: vec![segment] })
    }

    pub(super) fn check_heads(&self, value: ValueId, start: usize, len: usize) -> Result<(), LowerError> {
        match self.layout(value) {
            Layout::Heads(d) if !start.is_multiple_of(d) || !len.is_multiple_of(d) => {
                Err(LowerError::new(self.func, value, "cuts a head in two"))
            }
            _ => Ok(()),
        }
    }

    fn gather_rows(&mut self, inst: &Inst) -> Result<(), LowerError> {
        let result = inst.results[0];
        self.expect_index(inst.operands[1], Index::Want, 1)?;
        let x = self.value_operand(inst, 0)?;
        match self.loc(x)? {
            Loc::Index(what, 0) => {
                self.locs[result.0 as usize] = Some(Loc::Index(what, 1));
                Ok(())
            }
            Loc::View(view) if self.b.program.buffer(view.buffer).rows == 0 => {
                let whole = view.col == 0 && self.b.program.buffer(view.buffer).padded() == self.layout(x).padded(self.width(x)?);
                let x = if whole { view.buffer } else { self.copy(x, view, Elem::F32, false)? };
                let out = self.result_buffer(result, Elem::F32)?;
                self.region(result, Body::RowGather { x, out })
            }
            _ => Err(LowerError::new(self.func, x, "is gathered from twice")),
        }
    }

    fn kv_write(&mut self, at: usize) -> Result<(), LowerError> {
        let inst = &self.func.body[at];
        let (k, v) = (self.value_operand(inst, 0)?, self.value_operand(inst, 1)?);
        let cache = self.cache_of(inst, k)?;
        let roped = inst.op == OpKind::RopeKvWrite;
        let first = if roped { 3 } else { 2 };
        let set = self.rows(k)?;
        self.expect_index(inst.operands[first], Index::Pos, set)?;
        self.expect_index(inst.operands[first + 1], Index::Seq, set)?;
        if cache.elem == Elem::I8 {
            return self.kv_write_rounded(at, cache, (k, v));
        }
        let mut segments = Vec::new();
        for (i, value) in [k, v].into_iter().enumerate() {
            if self.done[at][i] {
                continue;
            }
            let mut expr = Expr::Load(self.view(value)?);
            if i == 0 && roped {
                expr = Expr::Rope { x: Box::new(expr), angles: self.view_operand(inst, 2)?, head_dim: cache.head_dim };
            }
            let sink = if i == 0 { Sink::CacheK(cache) } else { Sink::CacheV(cache) };
            segments.push(Segment { first: 0, blocks: cache.heads * cache.head_dim / 16, lanes: 1, expr, sink });
        }
        if segments.is_empty() { Ok(()) } else { self.region(k, Body::Map { segments }) }
    }

    /// A scale is that of a whole head: a region of its own, behind the one that rotates K.
    fn kv_write_rounded(&mut self, at: usize, cache: Cache, (k, v): (ValueId, ValueId)) -> Result<(), LowerError> {
        let inst = &self.func.body[at];
        let mut from = self.view(k)?;
        if inst.op == OpKind::RopeKvWrite {
            let expr = Expr::Rope { x: Box::new(Expr::Load(from)), angles: self.view_operand(inst, 2)?, head_dim: cache.head_dim };
            let name = format!("{}.rot", self.func.values[k.0 as usize].name);
            let (rows, width, layout) = (self.rows(k)?, self.width(k)?, self.layout(k));
            let rotated = self.b.buffer(&name, rows, width, layout, Elem::F32, Role::Scratch);
            let blocks = cache.heads * cache.head_dim / 16;
            let segment = Segment { first: 0, blocks, lanes: 1, expr, sink: Sink::Store(rotated) };
            self.region(k, Body::Map { segments: vec![segment] })?;
            from = View { buffer: rotated, col: 0 };
        }
        let v = self.view(v)?;
        self.region(k, Body::KvWrite { k: from, v, cache })
    }

    /// The cache that a `kv_write` or `attention` is about; every one of a function must agree.
    pub(super) fn cache_of(&mut self, inst: &Inst, value: ValueId) -> Result<Cache, LowerError> {
        let head_dim = inst.int("head_dim");
        let heads = if inst.op == OpKind::Attention { inst.int("kv_heads") } else { self.width(value)? / head_dim };
        let elem = match inst.word("kv") {
            "bf16" => Elem::Bf16,
            "i8" => Elem::I8,
            _ => Elem::F32,
        };
        let cache = Cache { elem, heads, head_dim: pad(head_dim) };
        let chunk = if inst.op == OpKind::Attention { Some(inst.int("chunk")) } else { None };
        match &mut self.cache {
            None => self.cache = Some((cache, chunk.unwrap_or(0))),
            Some((old, _)) if *old != cache => {
                return Err(LowerError::new(self.func, value, "uses the cache in another shape than before"));
            }
            Some((_, old)) => *old = chunk.unwrap_or(*old),
        }
        Ok(cache)
    }

    fn attention(&mut self, inst: &Inst) -> Result<(), LowerError> {
        let result = inst.results[0];
        let q = self.value_operand(inst, 0)?;
        let set = self.rows(q)?;
        self.expect_index(inst.operands[1], Index::Pos, set)?;
        self.expect_index(inst.operands[2], Index::Seq, set)?;
        let kv = self.cache_of(inst, q)?;
        let q = self.view(q)?;
        let elem = self.store_elem(result);
        let out = self.result_buffer(result, elem)?;
        let group = inst.int("heads") / inst.int("kv_heads");
        self.region(result, Body::Attention { q, kv, group, scale: inst.float("scale"), chunk: inst.int("chunk"), out })
    }

    fn layers(&mut self, inst: &Inst) -> Result<(), LowerError> {
        let x = self.value_operand(inst, 0)?;
        let view = self.view(x)?;
        // The layers overwrite what they are given, so it must be a buffer of its own that nobody reads any more.
        let buffer = self.b.program.buffer(view.buffer);
        let own = view.col == 0 && buffer.padded() == self.layout(x).padded(self.width(x)?) && buffer.elem == Elem::F32;
        let carried = if own && self.uses[x.0 as usize].len() == 1 && !self.is_result[x.0 as usize] {
            view.buffer
        } else {
            self.copy(x, view, Elem::F32, false)?
        };
        self.b.program.buffers[carried.0 as usize].role = Role::Carried;
        let mut args = vec![Loc::View(View { buffer: carried, col: 0 })];
        for i in 1..inst.operands.len() {
            let v = self.value_operand(inst, i)?;
            let loc = self.loc(v)?;
            if let Loc::View(view) = loc {
                self.b.program.buffers[view.buffer.0 as usize].role = Role::Shared;
            }
            args.push(loc);
        }
        self.flush();
        let first = self.b.program.schedule.len();
        for run in &inst.calls {
            let mut result = args[0];
            for i in 0..run.count {
                args[0] = result;
                let (function, out) = self.b.instance(&run.func, &args)?;
                self.b.program.schedule.push(ScheduleEntry { function: function as u64, weights: 0, kv: 0 });
                self.b.program.layers.push(run.first + i);
                result = out;
            }
            args[0] = result;
        }
        let count = self.b.program.schedule.len() - first;
        self.b.program.steps.push(Step::Layers { first, count });
        self.locs[inst.results[0].0 as usize] = Some(args[0]);
        Ok(())
    }

    /// Ends the current part of `main`.
    pub(super) fn flush(&mut self) {
        if self.regions.is_empty() {
            return;
        }
        let n = self.b.program.steps.iter().filter(|s| matches!(s, Step::Run(_))).count();
        let regions = std::mem::take(&mut self.regions);
        self.b.program.functions.push(Function { name: format!("main.{n}"), area: self.area, kv_group: 0, regions });
        self.b.program.steps.push(Step::Run(self.b.program.functions.len() - 1));
    }

    /// The buffer of `main`'s result: rows of set 1.
    pub(super) fn main_result(&mut self) -> Result<BufferId, LowerError> {
        let Some(&Operand::Value(v)) = self.func.results.first() else {
            return Err(LowerError::at(&self.func.name, "it returns no logits"));
        };
        let view = self.view(v)?;
        let whole =
            |b: &Buffer, this: &Self| Ok(view.col == 0 && b.padded() == this.layout(v).padded(this.width(v)?) && b.elem == Elem::F32);
        let out = if whole(self.b.program.buffer(view.buffer), self)? { view.buffer } else { self.copy(v, view, Elem::F32, false)? };
        if self.b.program.buffer(out).rows == 1 {
            return Ok(out);
        }
        let (width, layout) = (self.width(v)?, self.layout(v));
        let wanted = self.b.buffer("logits", 1, width, layout, Elem::F32, Role::Logits);
        self.regions.push(Region {
            name: "logits".to_owned(),
            rows: 1,
            times: 1,
            barrier: true,
            body: Body::RowGather { x: out, out: wanted },
        });
        Ok(wanted)
    }

    /// Ends a layer function: its result must be where the next call expects its first parameter.
    pub(super) fn layer_result(&mut self, args: &[Loc]) -> Result<(Loc, Option<(Cache, usize)>), LowerError> {
        let Some(&Operand::Value(v)) = self.func.results.first() else {
            return Err(LowerError::at(&self.func.name, "it returns nothing"));
        };
        let (Some(&param), Some(&Loc::View(x))) = (self.func.params.first(), args.first()) else {
            return Err(LowerError::at(&self.func.name, "its first parameter is not carried"));
        };
        let mut out = self.view(v)?;
        let same = self.rows(v)? == self.rows(param)? && self.width(v)? == self.width(param)?;
        let keep: Vec<BufferId> = args[1..].iter().filter_map(|a| if let Loc::View(v) = a { Some(v.buffer) } else { None }).collect();
        coalesce::in_place(&mut self.regions, &self.b.program.buffers, &keep, &mut out.buffer);
        if same && out != x {
            self.regions.push(copy_region(&self.func.name, &self.b.program, out, x.buffer));
            out = x;
        } else if !same {
            let buffer = self.b.program.buffer(out.buffer);
            if out.col != 0 || buffer.elem != Elem::F32 || keep.contains(&out.buffer) || out.buffer == x.buffer {
                let to = self.copy(v, out, Elem::F32, false)?;
                out = View { buffer: to, col: 0 };
            }
            self.b.program.buffers[out.buffer.0 as usize].role = Role::Carried;
        }
        Ok((Loc::View(out), self.cache))
    }
}

/// Copies a whole buffer's columns into another of the same shape.
fn copy_region(name: &str, program: &Program, from: View, to: BufferId) -> Region {
    let buffer = program.buffer(to);
    let segment = Segment { first: 0, blocks: buffer.padded() / 16, lanes: 1, expr: Expr::Load(from), sink: Sink::Store(to) };
    Region { name: format!("{name}.out"), rows: buffer.rows, times: 1, barrier: true, body: Body::Map { segments: vec![segment] } }
}
