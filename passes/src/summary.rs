//! One page about a module: ops by kind, weights by element type, bytes per token, predicted time. Layers are counted, never unrolled.

use crate::cost::{self, CONTEXT, Machine, PROMPT};
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, Module};
use llamac_ir::op::OpKind;
use llamac_ir::recipe::Recipe;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Figures of a module's weights and cache.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Totals {
    /// Parameters by element type. A weight of one recipe counts once.
    pub parameters: BTreeMap<DType, u64>,
    /// Bytes by element type.
    pub bytes: BTreeMap<DType, u64>,
    /// Weight bytes that one decoded token reads: of experts those that are chosen.
    pub decode_bytes: u64,
    /// Bytes of K and V that one token leaves in the cache for good.
    pub kv_bytes: u64,
    /// Bytes of K and V in the rings of one sequence: those of layers that see one chunk.
    pub ring_bytes: u64,
}

/// Adds up weights and cache over all calls.
pub fn totals(module: &Module) -> Totals {
    let mut out = Totals::default();
    for (name, count) in cost::calls(module) {
        let (Some(func), count) = (module.func(&name), count as u64) else { continue };
        let mut seen: Vec<&Recipe> = Vec::new();
        for weight in func.weights.iter().filter(|w| w.ty.sizes().is_some()) {
            let elements: u64 = weight.ty.sizes().unwrap_or_default().iter().map(|n| *n as u64).product();
            let bytes = cost::bytes(&weight.ty, 1) as u64;
            if !seen.contains(&&weight.recipe) {
                seen.push(&weight.recipe);
                *out.parameters.entry(weight.ty.dtype).or_default() += count * elements;
                *out.bytes.entry(weight.ty.dtype).or_default() += count * bytes;
            }
        }
        out.decode_bytes += count * cost::weight_bytes_read(func);
        let chunk = func.body.iter().filter(|i| i.op == OpKind::Attention).map(|i| i.int("chunk") as u64).max().unwrap_or(0);
        match chunk {
            0 => out.kv_bytes += count * kv_bytes(func),
            _ => out.ring_bytes += count * kv_bytes(func) * chunk,
        }
    }
    out
}

fn kv_bytes(func: &Func) -> u64 {
    let writes = func.body.iter().filter(|i| matches!(i.op, OpKind::KvWrite | OpKind::RopeKvWrite));
    let row = |inst: &llamac_ir::module::Inst| {
        let columns: usize = inst.operands[..2].iter().filter_map(|o| func.ty(*o).shape.last()?.value()).sum();
        let element = DType::from_name(inst.word("kv")).map_or(4.0, |kv| cost::element_bytes(kv, columns));
        // A scale for each head.
        let scales = if inst.word("kv") == "i8" { columns / inst.int("head_dim").max(1) * 4 } else { 0 };
        (columns as f64 * element) as u64 + scales as u64
    };
    writes.map(row).sum()
}

/// One page about a module, on the default machine of the cost model.
pub fn summary(module: &Module) -> String {
    let machine = Machine::default();
    let mut out = format!("module {}, stage {}\n", module.name, module.stage.name());
    for (name, count) in cost::calls(module) {
        let Some(func) = module.func(&name) else { continue };
        let mut ops: BTreeMap<&str, usize> = BTreeMap::new();
        for inst in &func.body {
            *ops.entry(inst.op.name()).or_default() += 1;
        }
        let ops: Vec<String> = ops.iter().map(|(op, n)| if *n == 1 { (*op).to_owned() } else { format!("{op} x{n}") }).collect();
        let _ = writeln!(out, "\n@{name}: {count} call{}", if count == 1 { "" } else { "s" });
        let _ = writeln!(out, "  ops      {}", ops.join(", "));
        for weight in &func.weights {
            let _ = writeln!(out, "  weight   @{} {}", weight.name, weight.ty);
        }
        let _ = writeln!(out, "  per call {}", machine.func_cost(func));
    }
    let totals = totals(module);
    let cost = machine.module_cost(module);
    let _ = writeln!(out, "\nparameters   {}", totals.parameters.values().sum::<u64>());
    for (dtype, bytes) in &totals.bytes {
        let _ = writeln!(out, "weights      {dtype}: {} parameters, {bytes} bytes", totals.parameters[dtype]);
    }
    let _ = writeln!(out, "decode       {} weight bytes per token", totals.decode_bytes);
    let _ = writeln!(out, "KV cache     {} bytes per token", totals.kv_bytes);
    if totals.ring_bytes > 0 {
        let _ = writeln!(out, "KV rings     {} bytes per sequence", totals.ring_bytes);
    }
    let (decode, prefill) = (cost.decode_ns / 1e6, cost.prefill_ns / 1e6);
    let _ = writeln!(out, "predicted    {decode:.2} ms per token at {CONTEXT} cached, {prefill:.2} ms for a prompt of {PROMPT}");
    out
}
