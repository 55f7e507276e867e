//! Takes rows as early as possible. Logits are wanted of few rows only, so the head, the final norm and, in the last layer, everything
//! but keys and values is computed for those rows. Values that someone needs whole stay whole: no work is ever done twice.
//! Inside a function this is in `push_down_rows/inside.rs`; here the last call of the layers is split off.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8], %want: i32[r]) {
//!   weight @g = "g": f32[8]
//!   weight @w = "w": f32[4, 8]
//!   %n = rms_norm %x, @g, eps=1e-5 : f32[s, 8]
//!   %y = linear %n, @w : f32[s, 4]
//!   %z = gather_rows %y, %want : f32[r, 4]
//!   return %z
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8], %want: i32[r]) {
//!   weight @g = "g": f32[8]
//!   weight @w = "w": f32[4, 8]
//!   %x.want = gather_rows %x, %want : f32[r, 8]
//!   %n = rms_norm %x.want, @g, eps=1e-5 : f32[r, 8]
//!   %z = linear %n, @w : f32[r, 4]
//!   return %z
//! }
//! ```

mod inside;

use crate::context::Context;
use crate::edit;
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::module::{Func, Inst, LayerRun, Module, Operand, ValueId};
use llamac_ir::op::{OpKind, Stage};
use std::collections::BTreeMap;

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "push-down-rows",
    kind: Kind::Transform(run),
    exactness: Exactness::Exact,
    stage: Stage::Imported,
    source: include_str!("push_down_rows.rs"),
};

fn run(module: &mut Module, context: &mut Context) -> Result<(), String> {
    for func in &mut module.funcs {
        if let Some(pushed) = inside::push(func)?
            && context.fire(&func.name, "push-down-rows/ops")
        {
            *func = pushed;
        }
    }
    let Some(at) = module.funcs.iter().position(|f| f.name == "main") else { return Ok(()) };
    let Some(split) = last_layer(module, &module.funcs[at])? else { return Ok(()) };
    if context.fire("main", "push-down-rows/last-layer") {
        module.funcs[at] = split.caller;
        module.funcs.push(split.last);
    }
    Ok(())
}

/// A caller of layers whose last call is to another function.
struct Split {
    caller: Func,
    last: Func,
}

/// Splits off the last call of a `layers` that is read by nothing but gathers of the same rows.
fn last_layer(module: &Module, caller: &Func) -> Result<Option<Split>, String> {
    let uses = edit::uses(caller);
    for (at, inst) in caller.body.iter().enumerate().filter(|(_, i)| i.op == OpKind::Layers) {
        let y = inst.results[0];
        let (Some(rows), Some(run)) = (inside::gathered_by(caller, &uses, y), inst.calls.iter().rev().find(|r| r.count > 0)) else {
            continue;
        };
        if caller.def(rows).is_some_and(|d| d > at) {
            continue;
        }
        let Some(callee) = module.func(&run.func) else { continue };
        let Some(last) = wanted_rows_only(module, callee, caller, rows)? else { continue };
        let call = LayerRun { func: last.name.clone(), first: run.first + run.count - 1, count: 1 };
        return Ok(Some(Split { caller: split(caller, at, rows, call), last }));
    }
    Ok(None)
}

/// A layer function that returns the wanted rows only, if there is anything to gain.
fn wanted_rows_only(module: &Module, callee: &Func, caller: &Func, rows: ValueId) -> Result<Option<Func>, String> {
    let mut last = callee.clone();
    let [Operand::Value(result)] = last.results[..] else { return Ok(None) };
    last.name = edit::unique(&format!("{}.last", callee.name), |n| module.func(n).is_some());
    let info = &caller.values[rows.0 as usize];
    let want = edit::value(&mut last, &info.name, info.ty.clone());
    last.params.push(want);
    let gathered = inside::gather(&mut last, result, want)?;
    last.body.push(gathered);
    let result = last.body[last.body.len() - 1].results[0];
    last.results = vec![Operand::Value(result)];
    inside::push(&last)
}

/// The caller with `call` as a `layers` of its own behind the others, whose result takes the place of the gathers.
fn split(caller: &Func, at: usize, rows: ValueId, call: LayerRun) -> Func {
    let mut out = caller.clone();
    let y = out.body[at].results[0];
    let gathers = |inst: &Inst| inst.op == OpKind::GatherRows && inst.operands[0] == Operand::Value(y);
    let mut gathered = out.body.iter().filter(|i| gathers(i)).map(|i| i.results[0]);
    let Some(wanted) = gathered.next() else { return out };
    let replaced: BTreeMap<ValueId, ValueId> = gathered.map(|v| (v, wanted)).collect();
    out.body.retain(|inst| !gathers(inst));

    let layers = &mut out.body[at];
    let mut operands = layers.operands.clone();
    if let Some(run) = layers.calls.iter_mut().rev().find(|r| r.count > 0) {
        run.count -= 1;
    }
    layers.calls.retain(|run| run.count > 0);
    let alone = layers.calls.is_empty();
    if !alone {
        operands[0] = Operand::Value(y);
    }
    operands.push(Operand::Value(rows));
    let last = Inst { op: OpKind::Layers, operands, attrs: vec![], results: vec![wanted], calls: vec![call] };
    if alone {
        out.body[at] = last;
    } else {
        out.body.insert(at + 1, last);
    }
    edit::replace(&mut out, &replaced);
    edit::compact(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, check, fired};

    const MODULE: &str = "module m stage=imported
dim s = 1..9
dim r = 1..9
func @layer(%x: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
  weight @w = \"w.{layer}\": f32[4, 4]
  weight @v = \"v.{layer}\": f32[4, 4]
  %k = linear %x, @w
  kv_write %k, %x, %pos, %seq, head_dim=4
  %a = attention %k, %pos, %seq, heads=1, kv_heads=1, head_dim=4, scale=0.5
  %o = linear %a, @v
  %y = add %x, %o
  return %y
}
func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @e = \"e\": f32[4, 4]
  %x = embed %ids, @e
  %y = layers %x, %pos, %seq [@layer 0..3] : f32[s, 4]
  %z = linear %y, @e
  %logits = gather_rows %z, %want
  return %logits
}";

    #[test]
    fn the_last_layer_writes_all_keys_and_computes_wanted_rows() {
        let rules = fired("push-down-rows", MODULE);
        assert_eq!((rules["push-down-rows/ops"], rules["push-down-rows/last-layer"]), (1, 1));
        insta::assert_snapshot!(check("push-down-rows", MODULE), @r#"
        func @layer(%x: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
          weight @w: f32[4, 4] = "w.{layer}": f32[4, 4]
          weight @v: f32[4, 4] = "v.{layer}": f32[4, 4]
          %k = linear %x, @w                                            : f32[s, 4]
          kv_write %k, %x, %pos, %seq, head_dim=4
          %a = attention %k, %pos, %seq, heads=1, kv_heads=1, head_dim=4, scale=0.5  : f32[s, 4]
          %o = linear %a, @v                                            : f32[s, 4]
          %y = add %x, %o                                               : f32[s, 4]
          return %y
        }

        func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
          weight @e: f32[4, 4] = "e": f32[4, 4]
          %x = embed %ids, @e                                        : f32[s, 4]
          %y = layers %x, %pos, %seq [@layer 0..2]                   : f32[s, 4]
          %y.want = layers %y, %pos, %seq, %want [@layer.last 2..3]  : f32[r, 4]
          %logits = linear %y.want, @e                               : f32[r, 4]
          return %logits
        }

        func @layer.last(%x: f32[s, 4], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
          weight @w: f32[4, 4] = "w.{layer}": f32[4, 4]
          weight @v: f32[4, 4] = "v.{layer}": f32[4, 4]
          %k = linear %x, @w                                            : f32[s, 4]
          kv_write %k, %x, %pos, %seq, head_dim=4
          %k.want = gather_rows %k, %want                               : f32[r, 4]
          %pos.want = gather_rows %pos, %want                           : i32[r]
          %seq.want = gather_rows %seq, %want                           : i32[r]
          %a = attention %k.want, %pos.want, %seq.want, heads=1, kv_heads=1, head_dim=4, scale=0.5  : f32[r, 4]
          %o = linear %a, @v                                            : f32[r, 4]
          %x.want = gather_rows %x, %want                               : f32[r, 4]
          %y.want = add %x.want, %o                                     : f32[r, 4]
          return %y.want
        }
        "#);
    }

    #[test]
    fn a_single_layer_needs_no_other_calls() {
        let text = check("push-down-rows", &MODULE.replace("0..3", "0..1"));
        assert!(text.contains("layers %x, %pos, %seq, %want [@layer.last 0..1]"), "{text}");
    }

    #[test]
    fn a_value_that_is_needed_whole_stays_whole() {
        let whole = "func @f(%x: f32[s, 4], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  %n = silu %x
  %y = gather_rows %n, %want
  kv_write %n, %n, %pos, %seq, head_dim=4
  return %y
}";
        assert!(fired("push-down-rows", whole).is_empty());
        let twice = MODULE.replace("return %logits", "%u = silu %y\n  %v = gather_rows %u, %want\n  return %v");
        assert_eq!(fired("push-down-rows", &twice)["push-down-rows/last-layer"], 1);
    }

    #[test]
    fn gathers_of_different_rows_do_not_meet() {
        let both = "func @f(%x: f32[s, 4], %want: i32[r], %other: i32[r]) {
  %n = silu %x
  %y = gather_rows %n, %want
  %z = gather_rows %n, %other
  %o = add %y, %z
  return %o
}";
        let module = testing::module(both);
        let mut after = module.clone();
        let report = crate::pipeline::run_named(&mut after, &["push-down-rows"], &Default::default(), &mut |_, _| {}).unwrap();
        assert!(report.funcs.iter().all(|f| f.fired.is_empty()) && after == module);
    }

    #[test]
    fn a_layer_with_nothing_to_gain_is_not_split_off() {
        let plain = MODULE.replace("return %y\n}\nfunc @main", "return %x\n}\nfunc @main");
        assert!(!fired("push-down-rows", &plain).contains_key("push-down-rows/last-layer"));
    }
}
