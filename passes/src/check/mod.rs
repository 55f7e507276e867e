//! Checking that passes keep the meaning of a module: both sides are evaluated on the same data and compared as exactly as the pass promises.
//! `seeded` makes weights from their names, `run` evaluates and compares, `each_pass` goes through the pipeline, `bisect` finds the first wrong
//! rewrite. What stands for a real model is cut down by `truncate`: every function stays whole, but is called twice at most.

mod bisect;
mod each_pass;
mod run;
mod seeded;

pub use bisect::{BisectError, Guilty, bisect};
pub use each_pass::{CheckError, Checked, Row, each_pass};
pub use run::{Difference, Inputs, Outputs, difference, outputs};
pub use seeded::{Seeded, uniform};

use crate::cost;
use crate::registry::Exactness;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, Inst, LayerRun, Module};
use llamac_ir::op::{Attr, OpKind, Stage, TensorOp};

/// How far the result of a pass may be from what it was given: rms of the difference over rms of the reference. 0: the same bits.
///
/// `after` says what is rounded, and that decides: where inputs of products are rounded, a difference in the last place of a sum can move an
/// element to the next step, so "another order" is farther than in f32; and what an approximation costs is a matter of its bits. The figures
/// are those of one product; errors of several add up like a random walk.
pub fn bound(exactness: Exactness, after: &Module) -> f64 {
    let product = |inst: &Inst| inst.op == OpKind::Tensor(TensorOp::MatMul) || inst.op.info().attrs.iter().any(|(name, _)| *name == "act");
    let products = |func: &Func| func.body.iter().filter(|inst| product(inst)).count();
    let all: usize = cost::calls(after).iter().filter_map(|(name, count)| Some(count * products(after.func(name)?))).sum();
    let walk = (all.max(1) as f64).sqrt();
    match exactness {
        Exactness::Exact => 0.0,
        Exactness::Reassociated if after.stage == Stage::Graph => walk * 5e-7,
        Exactness::Reassociated => walk * if rounds(after) { 3e-4 } else { 5e-7 },
        // An exporter's graph that rounds inputs to bytes is raised to one that does not.
        Exactness::Approximate if after.stage == Stage::Graph => walk * 1.3e-2,
        // A rounded score may choose another expert, whose result has nothing to do with the first one's.
        Exactness::Approximate if rounds(after) && chooses(after) => 1.0,
        Exactness::Approximate => {
            walk * match narrowest(after) {
                // A group's largest of 32 is about 2.1 deviations off, a seventh of that is a step, and its rms error a step / sqrt(12): 9 %.
                0..=4 => 9e-2,
                // Weights and inputs in 127 steps each way: 0.6 to 1.3 %.
                5..=8 => 1.3e-2,
                // 8 bits of mantissa: 0.1 to 0.2 %.
                9..=16 => 4e-3,
                _ if rounds(after) => 4e-3,
                _ => 5e-7,
            }
        }
    }
}

/// Whether any op rounds what it takes in.
fn rounds(module: &Module) -> bool {
    let narrow = |attr: &Attr| matches!(attr, Attr::Word(w) if DType::from_name(w).is_some_and(|d| d != DType::F32));
    module.funcs.iter().flat_map(|f| &f.body).flat_map(|inst| &inst.attrs).any(narrow)
}

/// Whether experts are chosen.
fn chooses(module: &Module) -> bool {
    module.funcs.iter().flat_map(|f| &f.body).any(|inst| matches!(inst.op, OpKind::TopGates | OpKind::Route))
}

/// Bits of the narrowest matrix.
fn narrowest(module: &Module) -> u32 {
    let matrices = module.funcs.iter().flat_map(|f| &f.weights).filter(|w| w.ty.shape.len() >= 2);
    matrices.map(|w| w.ty.dtype.info().bits).min().unwrap_or(32)
}

/// The module with the first and the last call of each layer function only: a model of any depth costs about as much as one of two layers.
pub fn truncate(module: &Module) -> Module {
    let mut out = module.clone();
    for inst in out.funcs.iter_mut().flat_map(|f| &mut f.body).filter(|inst| inst.op == OpKind::Layers) {
        let all: Vec<(&str, usize)> =
            inst.calls.iter().flat_map(|run| (0..run.count).map(|i| (run.func.as_str(), run.first + i))).collect();
        let other = |calls: &[(&str, usize)], func: &str| calls.iter().all(|(name, _)| *name != func);
        let kept = all.iter().enumerate().filter(|(i, (func, _))| other(&all[..*i], func) || other(&all[i + 1..], func));
        let kept = kept.map(|(_, (func, layer))| LayerRun { func: (*func).to_owned(), first: *layer, count: 1 }).collect();
        inst.calls = kept;
    }
    out
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
