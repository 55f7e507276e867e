//! Merges weights of one recipe, and pure ops with the same operands and attributes.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @a = "g": f32[8]
//!   weight @b = "g": f32[8]
//!   %m = rms_norm %x, @a, eps=1e-5 : f32[s, 8]
//!   %n = rms_norm %x, @b, eps=1e-5 : f32[s, 8]
//!   %y = add %m, %n : f32[s, 8]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @a = "g": f32[8]
//!   %m = rms_norm %x, @a, eps=1e-5 : f32[s, 8]
//!   %y = add %m, %m : f32[s, 8]
//!   return %y
//! }
//! ```

use crate::context::Context;
use crate::edit;
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::module::{Func, Module, Operand, ValueId, WeightId};
use llamac_ir::op::{Attr, Effect, OpKind, Stage};
use std::collections::BTreeMap;

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "merge-common",
    kind: Kind::Transform(run),
    exactness: Exactness::Exact,
    stage: Stage::Imported,
    source: include_str!("merge_common.rs"),
};

fn run(module: &mut Module, context: &mut Context) -> Result<(), String> {
    for func in &mut module.funcs {
        weights(func, context);
        ops(func, context);
        edit::compact(func);
    }
    Ok(())
}

fn weights(func: &mut Func, context: &mut Context) {
    for later in 1..func.weights.len() {
        let same = |earlier: &usize| func.weights[*earlier].recipe == func.weights[later].recipe;
        let (old, read) = (Operand::Weight(WeightId(later as u32)), |inst: &llamac_ir::module::Inst, o| inst.operands.contains(&o));
        let Some(first) = (0..later).find(same) else { continue };
        if func.body.iter().any(|inst| read(inst, old)) && context.fire(&func.name, "merge-common/weight") {
            let new = Operand::Weight(WeightId(first as u32));
            func.body.iter_mut().flat_map(|inst| &mut inst.operands).filter(|o| **o == old).for_each(|o| *o = new);
        }
    }
}

fn ops(func: &mut Func, context: &mut Context) {
    let mut seen: BTreeMap<(OpKind, Vec<Attr>, Vec<Operand>), ValueId> = BTreeMap::new();
    let mut replaced: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut body = Vec::new();
    for mut inst in std::mem::take(&mut func.body) {
        for operand in &mut inst.operands {
            if let Operand::Value(v) = operand
                && let Some(new) = replaced.get(v)
            {
                *v = *new;
            }
        }
        if inst.op.info().effect == Effect::Pure {
            let key = (inst.op, inst.attrs.clone(), inst.operands.clone());
            match seen.get(&key) {
                Some(first) if context.fire(&func.name, "merge-common/op") => {
                    replaced.insert(inst.results[0], *first);
                    continue;
                }
                Some(_) => {}
                None => {
                    seen.insert(key, inst.results[0]);
                }
            }
        }
        body.push(inst);
    }
    func.body = body;
    edit::replace(func, &replaced);
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    #[test]
    fn chains_of_equal_ops_become_one() {
        let chains = "func @f(%x: f32[s, 8]) {
  %a = silu %x
  %b = silu %a
  %c = silu %x
  %d = silu %c
  %y = mul %b, %d
  return %y
}";
        assert_eq!(fired("merge-common", chains)["merge-common/op"], 2);
        insta::assert_snapshot!(check("merge-common", chains), @r#"
        func @f(%x: f32[s, 8]) {
          %a = silu %x     : f32[s, 8]
          %b = silu %a     : f32[s, 8]
          %y = mul %b, %b  : f32[s, 8]
          return %y
        }
        "#);
    }

    #[test]
    fn reads_of_the_cache_are_not_equal() {
        let reads = "func @f(%x: f32[s, 8], %pos: i32[s], %seq: i32[s]) {
  kv_write %x, %x, %pos, %seq, head_dim=4
  %a = attention %x, %pos, %seq, heads=2, kv_heads=2, head_dim=4, scale=0.5
  %y = silu %x
  kv_write %y, %y, %pos, %seq, head_dim=4
  %b = attention %x, %pos, %seq, heads=2, kv_heads=2, head_dim=4, scale=0.5
  %z = add %a, %b
  return %z
}";
        assert!(fired("merge-common", reads).is_empty());
    }

    #[test]
    fn ops_that_differ_in_an_attribute_stay_apart() {
        let slices = "func @f(%x: f32[s, 8]) {
  %a = slice_cols %x, start=0, len=4
  %b = slice_cols %x, start=4, len=4
  %y = mul %a, %b
  return %y
}";
        assert!(fired("merge-common", slices).is_empty());
    }
}
