//! Where the keys and values of each layer are in the pages of the cache, and how a pass has reordered them: what reading and loading a cache must
//! know. Reading and loading are in the runtime (`step/cache.rs`).

use crate::lower::Program;
use llamac_ir::module::{Func, Module, Operand};
use llamac_ir::op::OpKind;
use llamac_runtime::artifact::meta::CacheMeta;
use std::collections::BTreeMap;

/// The caches of all layers, by layer; empty if some layer has none of its own. `imported` is the module as the front end wrote it, `module` what became
/// of it.
pub(crate) fn caches(imported: &Module, module: &Module, program: &Program) -> Vec<CacheMeta> {
    let (before, after) = (by_layer(imported), by_layer(module));
    let mut out: BTreeMap<usize, CacheMeta> = BTreeMap::new();
    for (call, layer) in program.schedule.iter().zip(&program.layers) {
        let function = &program.functions[call.function as usize];
        let (Some(was), Some(is)) = (before.get(layer), after.get(layer)) else { return Vec::new() };
        let paired = was.layout == Some("half") && is.layout == Some("interleaved");
        let meta = CacheMeta { group: function.kv_group, offset: call.kv, head_dim: was.head_dim, paired };
        if out.insert(*layer, meta).is_some() {
            return Vec::new();
        }
    }
    let all = out.keys().copied().eq(0..program.schedule.len());
    if all { out.into_values().collect() } else { Vec::new() }
}

/// How a layer writes its keys.
struct Written<'a> {
    head_dim: usize,
    /// Layout of the rotation just before; `None`: keys are not rotated.
    layout: Option<&'a str>,
}

/// The cache writes of a module by layer; a layer whose function has not exactly one is left out.
fn by_layer(module: &Module) -> BTreeMap<usize, Written<'_>> {
    let runs = module.func("main").into_iter().flat_map(|f| &f.body).flat_map(|i| &i.calls);
    let mut out = BTreeMap::new();
    for run in runs {
        let Some(func) = module.func(&run.func) else { continue };
        for layer in run.first..run.first + run.count {
            out.extend(written(func).map(|w| (layer, w)));
        }
    }
    out
}

fn written(func: &Func) -> Option<Written<'_>> {
    let mut writes = func.body.iter().filter(|i| matches!(i.op, OpKind::KvWrite | OpKind::RopeKvWrite));
    let (write, None) = (writes.next()?, writes.next()) else { return None };
    let head_dim = write.int("head_dim");
    if write.op == OpKind::RopeKvWrite {
        // It rotates neighbours.
        return Some(Written { head_dim, layout: Some("interleaved") });
    }
    // A norm may stand between rotation and write.
    let mut at = write.operands[0];
    loop {
        let Operand::Value(v) = at else { return None };
        let Some(inst) = func.def(v).map(|d| &func.body[d]) else { return Some(Written { head_dim, layout: None }) };
        match inst.op {
            OpKind::Rope => return Some(Written { head_dim, layout: Some(inst.word("layout")) }),
            OpKind::RmsUnit | OpKind::RmsNorm | OpKind::RowScale | OpKind::Mul => at = *inst.operands.first()?,
            _ => return Some(Written { head_dim, layout: None }),
        }
    }
}
