//! Batches experts: from every expert over every row, masked by gates that are mostly 0, to the chosen experts over their rows. An expert whose
//! gate is 0 gives 0, as its products have no bias and `silu(0) = 0`, so leaving it out is exact. The gate stays on the input: it stands
//! inside the SiLU, and a gate behind that would mean something else. The sum of the experts and the residual is associated anew.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8], %scores: f32[s, 3], %r: f32[s, 8]) {
//!   weight @gate_up = "gate_up": f32[3, 12, 8]
//!   weight @down = "down": f32[3, 8, 6]
//!   %g = top_gates %scores, top_k=1 : f32[s, 3]
//!   %xe = expert_scale %x, %g : f32[s, 3, 8]
//!   %ab = expert_linear %xe, @gate_up : f32[s, 3, 12]
//!   %a = slice_cols %ab, start=0, len=6 : f32[s, 3, 6]
//!   %b = slice_cols %ab, start=6, len=6 : f32[s, 3, 6]
//!   %m = swiglu %a, %b : f32[s, 3, 6]
//!   %ye = expert_linear %m, @down : f32[s, 3, 8]
//!   %y = expert_sum %ye : f32[s, 8]
//!   %out = add %r, %y : f32[s, 8]
//!   return %out
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8], %scores: f32[s, 3], %r: f32[s, 8]) {
//!   weight @gate_up = "gate_up": f32[3, 12, 8]
//!   weight @down = "down": f32[3, 8, 6]
//!   %ids, %gates = route %scores, top_k=1 : i32[s, 1], f32[s, 1]
//!   %h = moe_linear_swiglu %x, %ids, %gates, @gate_up : f32[s, 1, 6]
//!   %out = moe_linear_add %h, %ids, @down, %r : f32[s, 8]
//!   return %out
//! }
//! ```

use crate::context::Context;
use crate::edit;
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::infer::infer;
use llamac_ir::module::{Func, Inst, Module, Operand, ValueId};
use llamac_ir::op::{Attr, Effect, OpKind, Stage};
use llamac_ir::types::Type;

/// The pass. A transform, because choosing experts has two results.
pub(crate) const PASS: Pass = Pass {
    name: "batch-experts",
    kind: Kind::Transform(run),
    exactness: Exactness::Reassociated,
    stage: Stage::Fused,
    source: include_str!("batch_experts.rs"),
};

const RULE: &str = "batch-experts/chosen";

fn run(module: &mut Module, context: &mut Context) -> Result<(), String> {
    for func in &mut module.funcs {
        let name = func.name.clone();
        while let Some(experts) = (0..func.body.len()).find_map(|at| find(func, at)) {
            if !context.fire(&name, RULE) {
                break;
            }
            batch(func, &experts)?;
        }
    }
    Ok(())
}

/// Experts that are added to something.
struct Experts {
    /// The addition.
    add: usize,
    residual: Operand,
    scores: Operand,
    top_k: Attr,
    x: Operand,
    gate_up: Operand,
    gate_up_act: Attr,
    down: Operand,
    down_act: Attr,
}

/// The experts that the addition at `add` has as an operand, if all of their parts are as they must be.
fn find(func: &Func, add: usize) -> Option<Experts> {
    let inst = func.body.get(add).filter(|inst| inst.op == OpKind::Add)?;
    let uses = edit::uses(func);
    let operand = |at: usize, i: usize| func.body[at].operands[i];
    [(0, 1), (1, 0)].into_iter().find_map(|(of, other)| {
        let residual = inst.operands[other];
        let sum = edit::def(func, inst.operands[of], OpKind::ExpertSum)?;
        let y = func.body[sum].results[0];
        // What is read elsewhere too would have to be computed twice.
        let alone = uses[y.0 as usize].len() == 1 && !edit::is_result(func, y);
        let down = edit::def(func, operand(sum, 0), OpKind::ExpertLinear)?;
        let (gate, up) = gated(func, operand(down, 0))?;
        let both = halves(func, gate, up)?;
        let scale = edit::def(func, operand(both, 0), OpKind::ExpertScale)?;
        let gates = edit::def(func, operand(scale, 1), OpKind::TopGates)?;
        (alone && func.ty(residual) == func.ty(inst.operands[of])).then(|| Experts {
            add,
            residual,
            scores: operand(gates, 0),
            top_k: func.body[gates].attr("top_k").clone(),
            x: operand(scale, 0),
            gate_up: operand(both, 1),
            gate_up_act: func.body[both].attr("act").clone(),
            down: operand(down, 1),
            down_act: func.body[down].attr("act").clone(),
        })
    })
}

/// Gate and up of `silu(gate) * up`, fused or not.
fn gated(func: &Func, m: Operand) -> Option<(Operand, Operand)> {
    if let Some(at) = edit::def(func, m, OpKind::SwiGlu) {
        return Some((func.body[at].operands[0], func.body[at].operands[1]));
    }
    let product = &func.body[edit::def(func, m, OpKind::Mul)?].operands;
    [(product[0], product[1]), (product[1], product[0])]
        .into_iter()
        .find_map(|(silu, up)| edit::def(func, silu, OpKind::Silu).map(|at| (func.body[at].operands[0], up)))
}

/// The product that `gate` is the first and `up` the second half of.
fn halves(func: &Func, gate: Operand, up: Operand) -> Option<usize> {
    let half = func.ty(gate).shape.last()?.value()?;
    let slice = |operand: Operand, start: usize| {
        let inst = &func.body[edit::def(func, operand, OpKind::SliceCols)?];
        (inst.int("start") == start && inst.int("len") == half).then_some(inst.operands[0])
    };
    let both = slice(gate, 0).filter(|both| slice(up, half) == Some(*both))?;
    let whole = func.ty(both).shape.last()?.value()? == 2 * half;
    edit::def(func, both, OpKind::ExpertLinear).filter(|_| whole)
}

/// Puts the batched form in the place of the addition, and drops what nothing reads then.
fn batch(func: &mut Func, e: &Experts) -> Result<(), String> {
    let out = func.body[e.add].results[0];
    let route = inst(func, OpKind::Route, vec![e.scores], vec![e.top_k.clone()], &["ids", "gates"])?;
    let (ids, gates) = (route.results[0].into(), route.results[1].into());
    let h = inst(func, OpKind::MoeLinearSwiGlu, vec![e.x, ids, gates, e.gate_up], vec![e.gate_up_act.clone()], &["h"])?;
    let operands = vec![h.results[0].into(), ids, e.down, e.residual];
    let add = Inst { op: OpKind::MoeLinearAdd, operands, attrs: vec![e.down_act.clone()], results: vec![out], calls: vec![] };
    func.body.splice(e.add..=e.add, [route, h, add]);
    loop {
        let uses = edit::uses(func);
        let read = |v: &ValueId| !uses[v.0 as usize].is_empty() || edit::is_result(func, *v);
        let dead = |i: &Inst| i.op.info().effect == Effect::Pure && !i.results.iter().any(read);
        let Some(at) = func.body.iter().position(dead) else { break };
        func.body.remove(at);
    }
    edit::compact(func);
    Ok(())
}

fn inst(func: &mut Func, op: OpKind, operands: Vec<Operand>, attrs: Vec<Attr>, names: &[&str]) -> Result<Inst, String> {
    let types: Vec<Type> = operands.iter().map(|o| func.ty(*o).clone()).collect();
    let types = infer(op, &types, &attrs)?;
    let results = names.iter().zip(types).map(|(name, ty)| edit::value(func, name, ty)).collect();
    Ok(Inst { op, operands, attrs, results, calls: vec![] })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{check, fired};

    const LAYER: &str = "func @f(%x: f32[s, 8], %r: f32[s, 8], %other: f32[s, 4]) {
  weight @router = \"router\": f32[4, 8]
  weight @gate_up = \"gate_up\": f32[4, 12, 8]
  weight @down = \"down\": f32[4, 8, 6]
  %scores = linear %x, @router
  %g = top_gates %scores, top_k=2
  %xe = expert_scale %x, %g
  %ab = expert_linear %xe, @gate_up
  %a = slice_cols %ab, start=0, len=6
  %b = slice_cols %ab, start=6, len=6
  %c = silu %a
  %m = mul %b, %c
  %ye = expert_linear %m, @down
  %y = expert_sum %ye
  %out = add %y, %r
  return %out
}";

    #[test]
    fn two_experts_of_four_give_the_same_numbers_as_all() {
        assert_eq!(fired("batch-experts", LAYER)[RULE], 1);
        let text = check("batch-experts", LAYER);
        assert!(text.contains("%ids, %gates = route %scores, top_k=2") && !text.contains("expert_"), "{text}");
        insta::assert_snapshot!(text);
    }

    /// The illegal twin of the rule: `gate * expert(x)` is another function than `expert(gate * x)`, because of the SiLU between.
    #[test]
    fn a_gate_on_the_output_of_an_expert_is_left_alone() {
        let late = LAYER
            .replace("  %xe = expert_scale %x, %g\n", "  %one = top_gates %far, top_k=4\n  %xe = expert_scale %x, %one\n")
            .replace("%other: f32[s, 4]", "%far: f32[s, 4]")
            .replace("  %y = expert_sum %ye", "  %sum = expert_sum %ye\n  %gate = linear %g, @ones\n  %y = row_scale %sum, %gate")
            .replace("  weight @router", "  weight @ones = \"ones\": f32[1, 4]\n  weight @router");
        assert!(fired("batch-experts", &late).is_empty());
        insta::assert_snapshot!(check("batch-experts", &late));
    }

    #[test]
    fn a_gate_behind_the_silu_is_left_alone() {
        let behind = LAYER.replace("expert_linear %m", "expert_linear %late").replace("  %ye", "  %late = mul %m, %xe\n  %ye");
        let behind = behind
            .replace("[4, 12, 8]", "[4, 16, 8]")
            .replace("[4, 8, 6]", "[4, 8, 8]")
            .replace("len=6", "len=8")
            .replace("start=6", "start=8");
        assert!(fired("batch-experts", &behind).is_empty());
    }

    #[test]
    fn gates_that_no_choice_made_and_up_before_gate_are_left_alone() {
        assert!(fired("batch-experts", &LAYER.replace("expert_scale %x, %g", "expert_scale %x, %other")).is_empty());
        assert!(fired("batch-experts", &LAYER.replace("silu %a", "silu %b").replace("mul %b", "mul %a")).is_empty());
    }

    #[test]
    fn a_sum_that_is_read_twice_is_left_alone() {
        let twice = LAYER.replace("return %out", "%z = add %out, %y\n  return %z");
        assert!(fired("batch-experts", &twice).is_empty());
    }
}
