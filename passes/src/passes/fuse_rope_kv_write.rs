//! Fuses the rotation of keys with the write into the cache: keys are rotated on their way, and never stored elsewhere.
//!
//! Before:
//! ```text
//! func @f(%k: f32[s, 8], %v: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
//!   %r = rope %k, %angles, head_dim=4, layout=interleaved : f32[s, 8]
//!   kv_write %r, %v, %pos, %seq, head_dim=4, kv=bf16
//!   return %v
//! }
//! ```
//! After:
//! ```text
//! func @f(%k: f32[s, 8], %v: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
//!   rope_kv_write %k, %v, %angles, %pos, %seq, head_dim=4, kv=bf16
//!   return %v
//! }
//! ```

use crate::context::Context;
use crate::edit;
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::module::{Func, Module, Operand};
use llamac_ir::op::{OpKind, Stage};

/// The pass. A transform, because the write is an ordered op.
pub(crate) const PASS: Pass = Pass {
    name: "fuse-rope-kv-write",
    kind: Kind::Transform(run),
    exactness: Exactness::Exact,
    stage: Stage::Fused,
    source: include_str!("fuse_rope_kv_write.rs"),
};

const RULE: &str = "fuse-rope-kv-write/rope";

fn run(module: &mut Module, context: &mut Context) -> Result<(), String> {
    for func in &mut module.funcs {
        let name = func.name.clone();
        while let Some((rope, write)) = find(func) {
            if !context.fire(&name, RULE) {
                break;
            }
            let (k, angles) = (func.body[rope].operands[0], func.body[rope].operands[1]);
            let inst = &mut func.body[write];
            inst.op = OpKind::RopeKvWrite;
            inst.operands[0] = k;
            inst.operands.insert(2, angles);
            func.body.remove(rope);
            edit::compact(func);
        }
    }
    Ok(())
}

/// A rotation by the head size of the write that is its only reader.
fn find(func: &Func) -> Option<(usize, usize)> {
    let uses = edit::uses(func);
    let mut writes = (0..func.body.len()).filter(|i| func.body[*i].op == OpKind::KvWrite);
    writes.find_map(|write| {
        let Operand::Value(k) = func.body[write].operands[0] else { return None };
        let rope = edit::def(func, Operand::Value(k), OpKind::Rope)?;
        let alone = uses[k.0 as usize].len() == 1 && !edit::is_result(func, k);
        let fits = func.body[rope].word("layout") == "interleaved" && func.body[rope].int("head_dim") == func.body[write].int("head_dim");
        (alone && fits).then_some((rope, write))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, fired};

    const ROPED: &str = "func @f(%k: f32[s, 8], %v: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
  %r = rope %k, %angles, head_dim=4, layout=interleaved
  kv_write %r, %v, %pos, %seq, head_dim=4
  %a = attention %v, %pos, %seq, heads=2, kv_heads=2, head_dim=4, scale=0.5
  return %a
}";

    #[test]
    fn attention_sees_the_same_keys() {
        assert_eq!(fired("fuse-rope-kv-write", ROPED)[RULE], 1);
        insta::assert_snapshot!(check("fuse-rope-kv-write", ROPED), @r#"
        func @f(%k: f32[s, 8], %v: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
          rope_kv_write %k, %v, %angles, %pos, %seq, head_dim=4
          %a = attention %v, %pos, %seq, heads=2, kv_heads=2, head_dim=4, scale=0.5  : f32[s, 8]
          return %a
        }
        "#);
    }

    #[test]
    fn half_split_rotations_and_keys_read_elsewhere_are_left() {
        assert!(fired("fuse-rope-kv-write", &ROPED.replace("interleaved", "half")).is_empty());
        assert!(fired("fuse-rope-kv-write", &ROPED.replace("attention %v", "attention %r")).is_empty());
        assert!(fired("fuse-rope-kv-write", &ROPED.replace("return %a", "return %r")).is_empty());
    }
}
