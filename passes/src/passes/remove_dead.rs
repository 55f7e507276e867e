//! Removes pure ops whose result nothing reads, weights that nothing reads, and functions that nothing calls.
//!
//! Before:
//! ```text
//! func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
//!   weight @e = "e": f32[16, 8]
//!   weight @g = "g": f32[8]
//!   %x = embed %ids, @e : f32[s, 8]
//!   %n = rms_norm %x, @g, eps=1e-5 : f32[s, 8]
//!   %m = silu %n : f32[s, 8]
//!   %y = gather_rows %x, %want : f32[r, 8]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
//!   weight @e = "e": f32[16, 8]
//!   %x = embed %ids, @e : f32[s, 8]
//!   %y = gather_rows %x, %want : f32[r, 8]
//!   return %y
//! }
//! ```

use crate::context::Context;
use crate::edit;
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::module::{Func, Module, Operand, ValueId};
use llamac_ir::op::{Effect, Stage};
use std::collections::BTreeSet;

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "remove-dead",
    kind: Kind::Transform(run),
    exactness: Exactness::Exact,
    stage: Stage::Imported,
    source: include_str!("remove_dead.rs"),
};

fn run(module: &mut Module, context: &mut Context) -> Result<(), String> {
    functions(module, context);
    for func in &mut module.funcs {
        ops(func, context);
        edit::compact(func);
    }
    Ok(())
}

/// Calls are not nested: a function is alive if a living one calls it, which is `main` or called by `main`.
fn functions(module: &mut Module, context: &mut Context) {
    let called: BTreeSet<String> = module.funcs.iter().flat_map(|f| &f.body).flat_map(|i| &i.calls).map(|run| run.func.clone()).collect();
    module.funcs.retain(|f| f.name == "main" || called.contains(&f.name) || !context.fire(&f.name, "remove-dead/function"));
}

fn ops(func: &mut Func, context: &mut Context) {
    let mut live: BTreeSet<ValueId> = values(&func.results).collect();
    let mut kept = Vec::new();
    for inst in std::mem::take(&mut func.body).into_iter().rev() {
        let dead = inst.op.info().effect == Effect::Pure && inst.results.iter().all(|v| !live.contains(v));
        if dead && context.fire(&func.name, "remove-dead/op") {
            continue;
        }
        live.extend(values(&inst.operands));
        kept.push(inst);
    }
    kept.reverse();
    func.body = kept;
}

fn values(operands: &[Operand]) -> impl Iterator<Item = ValueId> + '_ {
    operands.iter().filter_map(|o| if let Operand::Value(v) = o { Some(*v) } else { None })
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const MODULE: &str = "module m stage=imported
dim s = 1..9
dim r = 1..9
func @layer(%x: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
  weight @g = \"g\": f32[4]
  weight @unread = \"u\": f32[4]
  %dead = silu %x
  %n = rms_norm %x, @g, eps=1e-5
  kv_write %n, %n, %pos, %seq, head_dim=4
  return %x
}
func @unused(%x: f32[s, 4]) {
  return %x
}
func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @e = \"e\": f32[4, 4]
  %x = embed %ids, @e
  %y = layers %x, %pos, %seq [@layer 0..2] : f32[s, 4]
  %z = gather_rows %x, %want
  return %z
}";

    #[test]
    fn what_is_written_to_the_cache_is_alive() {
        let rules = fired("remove-dead", MODULE);
        assert_eq!((rules.get("remove-dead/op"), rules.len()), (Some(&1), 1));
        insta::assert_snapshot!(check("remove-dead", MODULE), @r#"
        func @layer(%x: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
          weight @g: f32[4] = "g": f32[4]
          %n = rms_norm %x, @g, eps=1e-5  : f32[s, 4]
          kv_write %n, %n, %pos, %seq, head_dim=4
          return %x
        }

        func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
          weight @e: f32[4, 4] = "e": f32[4, 4]
          %x = embed %ids, @e                       : f32[s, 4]
          %y = layers %x, %pos, %seq [@layer 0..2]  : f32[s, 4]
          %z = gather_rows %x, %want                : f32[r, 4]
          return %z
        }
        "#);
    }

    #[test]
    fn nothing_is_removed_from_a_module_without_dead_parts() {
        let alive = check("remove-dead", MODULE);
        assert!(fired("remove-dead", &format!("module m stage=imported\ndim s = 1..9\ndim r = 1..9\n{alive}")).is_empty());
    }
}
