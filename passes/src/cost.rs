//! What an op costs on a machine: roofline time from bytes, multiply-accumulates and barriers, for one token and for a prompt.
//! Everything comes from element types and shapes, so that a new weight format costs what its bits say. No op is rewritten here.

use crate::report::Cost;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, Module, Operand, WeightId};
use llamac_ir::op::{Attr, OpKind};
use llamac_ir::types::Type;

/// Roofline of a machine, all threads together. The defaults are those of a two-core server slice; what matters to the
/// optimiser is their ratios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Threads of the step.
    pub threads: u32,
    /// Reading from memory, GB/s.
    pub read_gbs: f64,
    /// Reading from the shared cache, GB/s.
    pub cache_gbs: f64,
    /// f32 multiply-accumulates, 1e9 per second.
    pub f32_gmacs: f64,
    /// bf16 multiply-accumulates, 1e9 per second.
    pub bf16_gmacs: f64,
    /// int8 multiply-accumulates, 1e9 per second.
    pub i8_gmacs: f64,
    /// One barrier between regions, ns.
    pub barrier_ns: f64,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine { threads: 2, read_gbs: 57.0, cache_gbs: 150.0, f32_gmacs: 117.0, bf16_gmacs: 234.0, i8_gmacs: 468.0, barrier_ns: 70.0 }
    }
}

/// New tokens of the prompt that prefill is reckoned for.
pub const PROMPT: usize = 512;

/// Tokens in the cache when one token is decoded.
pub const CONTEXT: usize = 1024;

/// The symbol of wanted rows: one per step; every other symbol stands for new tokens.
const WANTED: &str = "r";

/// Bytes of one element with its share of the scale; `columns` are those of its row.
pub fn element_bytes(dtype: DType, columns: usize) -> f64 {
    let info = dtype.info();
    let group = if info.group == u32::MAX { columns } else { info.group as usize };
    let scale = info.scale.map_or(0.0, |s| f64::from(s.info().bits) / group.max(1) as f64);
    (f64::from(info.bits) + scale) / 8.0
}

/// Bytes of a value or weight at `n` new tokens.
pub fn bytes(ty: &Type, n: usize) -> f64 {
    let columns = ty.shape.last().and_then(|d| d.value()).unwrap_or(1);
    elements(ty, n) * element_bytes(ty.dtype, columns)
}

fn elements(ty: &Type, n: usize) -> f64 {
    let bound = |symbol: &str| Some(if symbol == WANTED { 1 } else { n });
    ty.shape.iter().map(|d| d.eval(&bound).unwrap_or(1) as f64).product()
}

/// Regions that an op becomes if nothing takes it along.
pub fn regions(op: OpKind) -> usize {
    match op {
        OpKind::SliceCols | OpKind::RopeKvWrite | OpKind::Layers => 0,
        OpKind::NormLinear | OpKind::UnitLinear | OpKind::NormLinearSwiGlu | OpKind::UnitLinearSwiGlu => 2,
        OpKind::Embed
        | OpKind::Linear
        | OpKind::RmsNorm
        | OpKind::RmsUnit
        | OpKind::RopeAngles
        | OpKind::Rope
        | OpKind::KvWrite
        | OpKind::Attention
        | OpKind::Silu
        | OpKind::Add
        | OpKind::Mul
        | OpKind::GatherRows
        | OpKind::SwiGlu
        | OpKind::TopGates
        | OpKind::ExpertScale
        | OpKind::ExpertLinear
        | OpKind::ExpertSum
        | OpKind::RowScale
        | OpKind::AttnTemperature
        | OpKind::LinearAdd => 1,
        OpKind::Route | OpKind::MoeLinearAdd => 2,
        OpKind::MoeLinearSwiGlu => 2,
        OpKind::Tensor(_) => 1,
    }
}

impl Machine {
    /// Time of an op in nanoseconds at `n` new tokens: the slower of data and arithmetic, and a barrier per region. Operands without
    /// symbols are weights and come from memory, all else from the cache.
    pub fn op_ns(&self, n: usize, op: OpKind, attrs: &[Attr], operands: &[&Type], results: &[&Type]) -> f64 {
        if op == OpKind::Layers || op == OpKind::SliceCols {
            return 0.0;
        }
        let (mut memory, mut cache, mut macs) = (0.0, 0.0, 0.0);
        for ty in operands {
            match ty.sizes() {
                Some(_) if op == OpKind::Embed => memory += bytes(ty, n) * n as f64 / elements_along(ty),
                Some(_) => memory += bytes(ty, n) * experts_read(op, n, operands, ty),
                None => cache += bytes(ty, n),
            }
        }
        cache += results.iter().map(|ty| bytes(ty, n)).sum::<f64>();
        let word = |name: &str| attribute(op, attrs, name).and_then(|a| if let Attr::Word(w) = a { DType::from_name(w) } else { None });
        let int = |name: &str| attribute(op, attrs, name).map_or(0.0, |a| if let Attr::Int(i) = a { *i as f64 } else { 0.0 });
        let act = word("act");
        if act.is_some() {
            let rows = operands.first().map_or(0.0, |x| elements(x, n) / elements_of_row(x));
            let chosen =
                operands.get(1).filter(|_| matches!(op, OpKind::MoeLinearSwiGlu | OpKind::MoeLinearAdd)).map(|ids| elements(ids, n));
            macs = chosen.unwrap_or(0.0) * operands.iter().filter_map(|ty| expert_elements(ty)).sum::<f64>();
            if op == OpKind::ExpertLinear {
                macs = elements(operands[0], n) / elements_of_row(operands[0])
                    * operands.iter().filter_map(|ty| expert_elements(ty)).sum::<f64>();
            }
            macs += rows * operands.iter().filter(|ty| ty.sizes().is_some_and(|s| s.len() == 2)).map(|ty| elements(ty, n)).sum::<f64>();
        }
        if regions(op) == 2 && act.is_some() {
            // The normed copy is written once and read once, in the format of the product.
            let width = act.map_or(4.0, |a| element_bytes(a, 1));
            cache += 2.0 * width * operands.first().map_or(0.0, |x| elements(x, n));
        }
        if op == OpKind::Attention {
            // A prompt sees half of itself on average; its own K and V are in the cache.
            let seen = if n == 1 { CONTEXT as f64 } else { n as f64 / 2.0 };
            let kv = 2.0 * seen * int("kv_heads") * int("head_dim") * word("kv").map_or(4.0, |kv| element_bytes(kv, 1));
            let rows = operands.first().map_or(0.0, |q| elements(q, n) / elements_of_row(q));
            macs = 2.0 * rows * seen * int("heads") * int("head_dim");
            memory += kv;
        }
        let rate = match act {
            Some(DType::Bf16) => self.bf16_gmacs,
            Some(DType::I8) => self.i8_gmacs,
            _ => self.f32_gmacs,
        };
        let data = memory / self.read_gbs + cache / self.cache_gbs;
        data.max(macs / rate) + regions(op) as f64 * self.barrier_ns
    }

    /// What extraction adds up, in picoseconds: time to decode a token plus a 512th of the time to read a prompt of 512, so that weights
    /// count as often as they are read. Whole numbers, so that sums do not depend on their order.
    pub fn op_ps(&self, op: OpKind, attrs: &[Attr], operands: &[&Type], results: &[&Type]) -> u64 {
        let ns = |n| self.op_ns(n, op, attrs, operands, results);
        ((ns(1) + ns(PROMPT) / PROMPT as f64) * 1000.0) as u64
    }

    /// One call of a function; calls of layers inside are not counted.
    pub fn func_cost(&self, func: &Func) -> Cost {
        let ns = |n: usize| -> f64 {
            let one = |inst: &llamac_ir::module::Inst| {
                let operands: Vec<&Type> = inst.operands.iter().map(|o| func.ty(*o)).collect();
                let results: Vec<&Type> = inst.results.iter().map(|v| &func.values[v.0 as usize].ty).collect();
                self.op_ns(n, inst.op, &inst.attrs, &operands, &results)
            };
            func.body.iter().map(one).sum()
        };
        let regions = func.body.iter().map(|i| regions(i.op)).sum();
        Cost { decode_ns: ns(1), prefill_ns: ns(PROMPT), regions, decode_bytes: weight_bytes_read(func) }
    }

    /// A whole step: `main` and every call of a layer.
    pub fn module_cost(&self, module: &Module) -> Cost {
        let mut total = Cost::default();
        for (name, count) in calls(module) {
            if let Some(func) = module.func(&name) {
                let cost = self.func_cost(func);
                total.decode_ns += cost.decode_ns * count as f64;
                total.prefill_ns += cost.prefill_ns * count as f64;
                total.regions += cost.regions * count;
                total.decode_bytes += cost.decode_bytes * count as u64;
            }
        }
        total
    }
}

/// How often a step runs each function: `main` once, then layer functions in order of their first call.
pub fn calls(module: &Module) -> Vec<(String, usize)> {
    let mut out = vec![("main".to_owned(), 1)];
    for run in module.func("main").iter().flat_map(|f| &f.body).flat_map(|inst| &inst.calls) {
        match out.iter_mut().find(|(name, _)| *name == run.func) {
            Some((_, count)) => *count += run.count,
            None => out.push((run.func.clone(), run.count)),
        }
    }
    out
}

/// Bytes of a function's weights that one token reads: of an embedding a row, of experts the chosen ones, of all others everything.
pub fn weight_bytes_read(func: &Func) -> u64 {
    let read = |(i, weight): (usize, &llamac_ir::module::Weight)| {
        let id = Operand::Weight(WeightId(i as u32));
        let share = |inst: &llamac_ir::module::Inst| match inst.op {
            OpKind::Embed => 1.0 / elements_along(&weight.ty),
            op => experts_read(op, 1, &inst.operands.iter().map(|o| func.ty(*o)).collect::<Vec<_>>(), &weight.ty),
        };
        let most = func.body.iter().filter(|inst| inst.operands.contains(&id)).map(share).fold(0.0, f64::max);
        (most * bytes(&weight.ty, 1)) as u64
    };
    func.weights.iter().enumerate().filter(|(_, w)| w.ty.sizes().is_some()).map(read).sum()
}

/// The part of a weight with experts that is read at `n` new tokens: no more experts than are chosen.
fn experts_read(op: OpKind, n: usize, operands: &[&Type], weight: &Type) -> f64 {
    match (op, operands.get(1), &weight.shape[..]) {
        (OpKind::MoeLinearSwiGlu | OpKind::MoeLinearAdd, Some(ids), [_, _, _]) => (elements(ids, n) / elements_along(weight)).min(1.0),
        _ => 1.0,
    }
}

/// Elements of one expert's matrix.
fn expert_elements(ty: &Type) -> Option<f64> {
    match ty.sizes()?[..] {
        [_, rows, columns] => Some(rows as f64 * columns as f64),
        _ => None,
    }
}

fn attribute<'a>(op: OpKind, attrs: &'a [Attr], name: &str) -> Option<&'a Attr> {
    attrs.get(op.info().attrs.iter().position(|(n, _)| *n == name)?)
}

/// Rows of a table.
fn elements_along(ty: &Type) -> f64 {
    ty.shape.first().and_then(|d| d.value()).unwrap_or(1).max(1) as f64
}

/// Elements of a row.
fn elements_of_row(ty: &Type) -> f64 {
    ty.shape.last().and_then(|d| d.value()).unwrap_or(1).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use llamac_ir::build::fill_attrs;
    use llamac_ir::types::Dim;

    fn act(columns: usize) -> Type {
        Type::new(DType::F32, [Dim::sym("s"), columns.into()])
    }

    fn linear(dtype: DType, n: usize) -> f64 {
        let w = Type::fixed(dtype, &[4096, 2048]);
        let attrs = fill_attrs(OpKind::Linear, &[("act", Attr::Word("bf16".into()))]).unwrap();
        Machine::default().op_ns(n, OpKind::Linear, &attrs, &[&act(2048), &w], &[&act(4096)])
    }

    #[test]
    fn decoding_costs_the_bytes_of_the_weight() {
        let bytes = 4096.0 * 2048.0 * 2.0 / 57.0;
        let other = linear(DType::Bf16, 1) - bytes;
        assert!((70.0..300.0).contains(&other), "{other} ns beside the weight");
    }

    #[test]
    fn fewer_bits_cost_less_and_scales_count() {
        assert!(linear(DType::Q4G32, 1) < linear(DType::Q8G32, 1) && linear(DType::Q8G32, 1) < linear(DType::Bf16, 1));
        assert_eq!(element_bytes(DType::Q4G32, 64), 0.5 + 2.0 / 32.0);
        assert_eq!(element_bytes(DType::Q8, 64), 1.0 + 4.0 / 64.0);
    }

    #[test]
    fn a_prompt_costs_arithmetic_not_bytes() {
        let macs = 512.0 * 4096.0 * 2048.0 / 234.0;
        assert!((linear(DType::Bf16, 512) - macs - 70.0).abs() < 1.0);
        assert_eq!(linear(DType::Bf16, 512), linear(DType::Q4G32, 512));
    }

    #[test]
    fn experts_cost_those_that_are_chosen() {
        let (x, ids, w) = (act(512), Type::new(DType::I32, [Dim::sym("s"), 1usize.into()]), Type::fixed(DType::Bf16, &[16, 4096, 512]));
        let gates = act(1);
        let attrs = fill_attrs(OpKind::MoeLinearSwiGlu, &[("act", Attr::Word("bf16".into()))]).unwrap();
        let ns = |n| Machine::default().op_ns(n, OpKind::MoeLinearSwiGlu, &attrs, &[&x, &ids, &gates, &w], &[&act(2048)]);
        let one = 4096.0 * 512.0 * 2.0 / 57.0;
        assert!((ns(1) - one).abs() < 500.0 && ns(4) > 3.9 * one && ns(32) < 17.0 * one, "{} {} {}", ns(1), ns(4), ns(32));
    }

    #[test]
    fn an_embedding_costs_a_row() {
        let ids = Type::new(DType::I32, [Dim::sym("s")]);
        let table = Type::fixed(DType::Bf16, &[128_256, 2048]);
        assert!(Machine::default().op_ns(1, OpKind::Embed, &[], &[&ids, &table], &[&act(2048)]) < 500.0);
    }
}
