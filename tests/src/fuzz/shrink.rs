//! Making a failing case small: fewer passes, calls, functions, instructions and operands, as long as it fails in the same way.

use super::{Case, Outcome, Wrong, run};
use llamac_ir::module::{Func, Module, Operand, ValueId};
use llamac_ir::op::{Effect, OpKind};
use llamac_ir::verify::verify;
use llamac_passes::registry::PASSES;
use std::collections::BTreeSet;

/// The smallest case that the search finds that fails in the same way, and what is wrong with it.
pub fn shrink(case: &Case, kind: Wrong, details: String) -> (Case, String) {
    shrink_by(case, details, &mut |case| match run(case) {
        Outcome::Wrong(found, details) if found == kind => Some(details),
        _ => None,
    })
}

/// As [`shrink`], with a failure of any kind: `fails` says how a case fails, if it does.
pub fn shrink_by(case: &Case, details: String, fails: &mut dyn FnMut(&Case) -> Option<String>) -> (Case, String) {
    let mut best = Best { case: case.clone(), details, fails, left: 4000 };
    if best.case.execute {
        best.take(Case { execute: false, ..best.case.clone() });
    }
    loop {
        let before = size(&best.case);
        best.options();
        best.calls();
        best.instructions();
        best.dead();
        if size(&best.case) == before || best.left == 0 {
            return (best.case, best.details);
        }
    }
}

/// What gets smaller: passes, then what stands in the module.
fn size(case: &Case) -> (usize, usize) {
    let inst = |func: &Func| func.weights.len() + func.body.iter().map(|i| 1 + i.operands.len() + i.calls.len()).sum::<usize>();
    let calls: usize = case.module.funcs.iter().flat_map(|f| &f.body).flat_map(|i| &i.calls).map(|run| run.count).sum();
    (case.passes.as_ref().map_or(PASSES.len(), Vec::len), calls + case.module.funcs.iter().map(inst).sum::<usize>())
}

struct Best<'a> {
    case: Case,
    details: String,
    fails: &'a mut dyn FnMut(&Case) -> Option<String>,
    /// Cases that may still be run.
    left: usize,
}

impl Best<'_> {
    /// Takes a case if it fails in the same way.
    fn take(&mut self, case: Case) -> bool {
        if self.left == 0 || verify(&case.module, case.module.stage).is_err() {
            return false;
        }
        self.left -= 1;
        let Some(details) = (self.fails)(&case) else { return false };
        (self.case, self.details) = (case, details);
        true
    }

    fn module(&mut self, module: Module) -> bool {
        module != self.case.module && self.take(Case { module, ..self.case.clone() })
    }

    /// Fewer passes, no rounding, no fuel.
    fn options(&mut self) {
        if self.case.fuel.is_some() {
            self.take(Case { fuel: None, ..self.case.clone() });
        }
        if self.case.precision != llamac_passes::pipeline::Precision::F32 {
            self.take(Case { precision: llamac_passes::pipeline::Precision::F32, ..self.case.clone() });
        }
        let all: Vec<String> = PASSES.iter().map(|p| p.name.to_owned()).collect();
        for pass in self.case.passes.clone().unwrap_or(all) {
            if self.case.execute {
                break;
            }
            let now = self.case.passes.clone().unwrap_or_else(|| PASSES.iter().map(|p| p.name.to_owned()).collect());
            let fewer = now.into_iter().filter(|p| *p != pass).collect();
            self.take(Case { passes: Some(fewer), ..self.case.clone() });
        }
    }

    /// Fewer calls, or none.
    fn calls(&mut self) {
        for f in 0..self.case.module.funcs.len() {
            for at in (0..self.case.module.funcs[f].body.len()).rev() {
                let runs = self.case.module.funcs[f].body[at].calls.len();
                for run in (0..runs).rev() {
                    let mut module = self.case.module.clone();
                    module.funcs[f].body[at].calls.remove(run);
                    if runs > 1 && self.module(module) {
                        continue;
                    }
                    let mut module = self.case.module.clone();
                    module.funcs[f].body[at].calls[run].count = 1;
                    self.module(module);
                }
            }
        }
        let called: BTreeSet<String> =
            self.case.module.funcs.iter().flat_map(|f| &f.body).flat_map(|i| &i.calls).map(|run| run.func.clone()).collect();
        let mut module = self.case.module.clone();
        module.funcs.retain(|f| f.name == "main" || called.contains(&f.name));
        self.module(module);
    }

    /// Instructions go, and an earlier value takes the place of what they made.
    fn instructions(&mut self) {
        for f in 0..self.case.module.funcs.len() {
            let mut at = self.case.module.funcs.get(f).map_or(0, |func| func.body.len());
            while at > 0 {
                at -= 1;
                let Some(func) = self.case.module.funcs.get(f) else { return };
                let Some(inst) = func.body.get(at) else { continue };
                let earlier = match inst.results[..] {
                    [] => vec![None],
                    [v] => stand_ins(func, at, v).into_iter().map(Some).collect(),
                    _ => continue,
                };
                let shorter = earlier.into_iter().map(|by| without(&self.case.module, f, at, by));
                for module in shorter.collect::<Vec<_>>() {
                    if self.module(module) {
                        break;
                    }
                }
                // An optional bias is the last operand.
                let Some(inst) = self.case.module.funcs.get(f).and_then(|func| func.body.get(at)) else { continue };
                if inst.op == OpKind::Linear && inst.operands.len() == 3 {
                    let mut module = self.case.module.clone();
                    module.funcs[f].body[at].operands.pop();
                    self.module(module);
                }
            }
        }
    }

    /// What nothing reads.
    fn dead(&mut self) {
        let mut module = self.case.module.clone();
        module.funcs.iter_mut().for_each(remove_dead);
        self.module(module);
    }
}

/// Values of the same type that may stand for the result of the instruction `at`: its operands first, then the oldest.
fn stand_ins(func: &Func, at: usize, v: ValueId) -> Vec<ValueId> {
    let same = |w: &ValueId| func.values[w.0 as usize].ty == func.values[v.0 as usize].ty;
    let operands = func.body[at].operands.iter().filter_map(|o| if let Operand::Value(v) = o { Some(*v) } else { None });
    let older = func.params.iter().copied().chain(func.body[..at].iter().flat_map(|i| i.results.clone()));
    let mut out: Vec<ValueId> = operands.chain(older).filter(same).collect();
    let mut seen = BTreeSet::new();
    out.retain(|v| seen.insert(*v));
    out.truncate(4);
    out
}

/// The module without an instruction, `by` in the place of its result, and without what nothing reads then.
fn without(module: &Module, f: usize, at: usize, by: Option<ValueId>) -> Module {
    let mut out = module.clone();
    let func = &mut out.funcs[f];
    let gone = func.body.remove(at);
    if let (Some(by), [v]) = (by, &gone.results[..]) {
        let operands = func.body.iter_mut().flat_map(|i| &mut i.operands).chain(&mut func.results);
        operands.filter(|o| **o == Operand::Value(*v)).for_each(|o| *o = Operand::Value(by));
    }
    remove_dead(func);
    out
}

fn remove_dead(func: &mut Func) {
    loop {
        let read: BTreeSet<Operand> = func.body.iter().flat_map(|i| &i.operands).chain(&func.results).copied().collect();
        let dead = |op: OpKind, results: &[ValueId]| {
            op.info().effect == Effect::Pure && results.iter().all(|v| !read.contains(&Operand::Value(*v)))
        };
        let Some(at) = func.body.iter().rposition(|i| dead(i.op, &i.results)) else { break };
        func.body.remove(at);
    }
    let read: BTreeSet<Operand> = func.body.iter().flat_map(|i| &i.operands).chain(&func.results).copied().collect();
    let kept: Vec<usize> =
        (0..func.weights.len()).filter(|w| read.contains(&Operand::Weight(llamac_ir::module::WeightId(*w as u32)))).collect();
    let number = |w: u32| kept.iter().position(|k| *k == w as usize).map_or(u32::MAX, |n| n as u32);
    for operand in func.body.iter_mut().flat_map(|i| &mut i.operands).chain(&mut func.results) {
        if let Operand::Weight(w) = operand {
            w.0 = number(w.0);
        }
    }
    func.weights = kept.iter().map(|w| func.weights[*w].clone()).collect();
    func.renumber();
}
