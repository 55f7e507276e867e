//! Turns half-split rotation into interleaved rotation by permuting rows of the weights of queries and keys: neighbours can then be
//! rotated where they are computed. Scores do not change, since queries and keys are permuted alike; what the cache holds is permuted.
//! So all queries and keys of a function change together, or none.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
//!   weight @wq = "q": f32[8, 8]
//!   weight @wk = "k": f32[4, 8]
//!   weight @wv = "v": f32[4, 8]
//!   %q = linear %x, @wq : f32[s, 8]
//!   %k = linear %x, @wk : f32[s, 4]
//!   %v = linear %x, @wv : f32[s, 4]
//!   %qr = rope %q, %angles, head_dim=4, layout=half : f32[s, 8]
//!   %kr = rope %k, %angles, head_dim=4, layout=half : f32[s, 4]
//!   kv_write %kr, %v, %pos, %seq, head_dim=4
//!   %a = attention %qr, %pos, %seq, heads=2, kv_heads=1, head_dim=4, scale=0.5 : f32[s, 8]
//!   return %a
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
//!   weight @wq: f32[8, 8] = permute_rope(4, "q": f32[8, 8])
//!   weight @wk: f32[4, 8] = permute_rope(4, "k": f32[4, 8])
//!   weight @wv = "v": f32[4, 8]
//!   %q = linear %x, @wq : f32[s, 8]
//!   %k = linear %x, @wk : f32[s, 4]
//!   %v = linear %x, @wv : f32[s, 4]
//!   %qr = rope %q, %angles, head_dim=4, layout=interleaved : f32[s, 8]
//!   %kr = rope %k, %angles, head_dim=4, layout=interleaved : f32[s, 4]
//!   kv_write %kr, %v, %pos, %seq, head_dim=4
//!   %a = attention %qr, %pos, %seq, heads=2, kv_heads=1, head_dim=4, scale=0.5 : f32[s, 8]
//!   return %a
//! }
//! ```

use crate::context::Context;
use crate::registry::{Exactness, Kind, Pass};
use crate::{edit, recipes};
use llamac_ir::module::{Func, Module, Operand};
use llamac_ir::op::{OpKind, Stage};
use std::collections::BTreeSet;

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "fold-rope-permutation",
    kind: Kind::Transform(run),
    exactness: Exactness::Reassociated,
    stage: Stage::Imported,
    source: include_str!("fold_rope_permutation.rs"),
};

const RULE: &str = "fold-rope-permutation/attention";

fn run(module: &mut Module, context: &mut Context) -> Result<(), String> {
    for func in &mut module.funcs {
        match rotations(func) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                if context.fire(&func.name, RULE) {
                    found.into_iter().try_for_each(|(rope, linear)| permute(func, rope, linear))?;
                    edit::compact(func);
                }
            }
            Err(reason) => context.block(&func.name, RULE, reason),
        }
    }
    Ok(())
}

/// Rotations of queries and keys with the linears that they read; none if there is no half-split one.
///
/// # Errors
/// Why they cannot change together.
fn rotations(func: &Func) -> Result<BTreeSet<(usize, usize)>, String> {
    let half = |i: &usize| func.body[*i].word("layout") == "half";
    let ropes = (0..func.body.len()).filter(|i| func.body[*i].op == OpKind::Rope);
    let any_half = ropes.clone().any(|i| half(&i));
    let readers = func.body.iter().filter(|inst| matches!(inst.op, OpKind::Attention | OpKind::KvWrite));
    if !any_half || readers.clone().next().is_none() {
        return Ok(BTreeSet::new());
    }
    if func.body.iter().any(|inst| inst.op == OpKind::RopeKvWrite) {
        return Err("a cache write has interleaved keys already".to_owned());
    }
    let uses = edit::uses(func);
    let mut out = BTreeSet::new();
    for inst in readers {
        let name = |o: Operand| if let Operand::Value(v) = o { func.values[v.0 as usize].name.as_str() } else { "" };
        let read = inst.operands[0];
        let rope =
            edit::def(func, read, OpKind::Rope).filter(half).ok_or_else(|| format!("%{} is not a half-split rotation", name(read)))?;
        let x = func.body[rope].operands[0];
        let linear = edit::def(func, x, OpKind::Linear).ok_or_else(|| format!("%{} is not a linear", name(x)))?;
        if func.body[linear].operands[1..].iter().any(|o| matches!(o, Operand::Value(_))) {
            return Err(format!("%{} is no product with a weight", name(x)));
        }
        for i in [rope, linear] {
            let v = func.body[i].results[0];
            if uses[v.0 as usize].len() != 1 || edit::is_result(func, v) {
                return Err(format!("%{} is read by more than one", func.values[v.0 as usize].name));
            }
        }
        out.insert((rope, linear));
    }
    Ok(out)
}

fn permute(func: &mut Func, rope: usize, linear: usize) -> Result<(), String> {
    let head_dim = func.body[rope].int("head_dim");
    edit::set_word(&mut func.body[rope], "layout", "interleaved");
    for at in 1..func.body[linear].operands.len() {
        let Operand::Weight(w) = func.body[linear].operands[at] else { return Err("a linear whose weight is a value".to_owned()) };
        let recipe = recipes::permute_rope(head_dim, func.weights[w.0 as usize].recipe.clone());
        let readers = func.body.iter().flat_map(|inst| &inst.operands).filter(|o| **o == Operand::Weight(w)).count();
        if readers == 1 {
            func.weights[w.0 as usize].recipe = recipe;
        } else {
            let name = func.weights[w.0 as usize].name.clone();
            func.body[linear].operands[at] = Operand::Weight(edit::weight(func, &name, recipe)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_with, fired};

    const HALF: &str = "func @f(%x: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
  weight @wq = \"q\": bf16[8, 8]
  weight @bq = \"bq\": bf16[8]
  weight @wk = \"k\": bf16[8, 8]
  %q = linear %x, @wq, @bq
  %k = linear %x, @wk
  %qr = rope %q, %angles, head_dim=4, layout=half
  %kr = rope %k, %angles, head_dim=4, layout=half
  kv_write %kr, %x, %pos, %seq, head_dim=4, kv=bf16
  %a = attention %qr, %pos, %seq, heads=2, kv_heads=2, head_dim=4, scale=0.5, kv=bf16
  return %a
}";

    #[test]
    fn biases_are_permuted_with_their_weights() {
        assert_eq!(fired("fold-rope-permutation", HALF)[RULE], 1);
        insta::assert_snapshot!(check("fold-rope-permutation", HALF), @r#"
        func @f(%x: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
          weight @wq: bf16[8, 8] = permute_rope(4, "q": bf16[8, 8])
          weight @bq: bf16[8] = permute_rope(4, "bq": bf16[8])
          weight @wk: bf16[8, 8] = permute_rope(4, "k": bf16[8, 8])
          %q = linear %x, @wq, @bq                                      : f32[s, 8]
          %k = linear %x, @wk                                           : f32[s, 8]
          %qr = rope %q, %angles, head_dim=4, layout=interleaved        : f32[s, 8]
          %kr = rope %k, %angles, head_dim=4, layout=interleaved        : f32[s, 8]
          kv_write %kr, %x, %pos, %seq, head_dim=4, kv=bf16
          %a = attention %qr, %pos, %seq, heads=2, kv_heads=2, head_dim=4, scale=0.5, kv=bf16  : f32[s, 8]
          return %a
        }
        "#);
    }

    #[test]
    fn a_weight_that_others_read_is_permuted_as_a_copy() {
        let shared = HALF.replace("kv_write %kr, %x", "%v = linear %x, @wk\n  kv_write %kr, %v");
        let text = check("fold-rope-permutation", &shared);
        assert!(text.contains("%v = linear %x, @wk ") && text.contains("%k = linear %x, @wk.1 "), "{text}");
    }

    #[test]
    fn nothing_changes_unless_all_queries_and_keys_can() {
        let read_twice = HALF.replace("  return %a", "  %o = add %a, %kr\n  return %o");
        assert!(fired("fold-rope-permutation", &read_twice).is_empty());
        let interleaved =
            HALF.replace("%kr = rope %k, %angles, head_dim=4, layout=half", "%kr = rope %k, %angles, head_dim=4, layout=interleaved");
        let (text, report) = check_with("fold-rope-permutation", &interleaved, &Default::default());
        assert!(text.contains("layout=half"));
        assert_eq!(report.funcs[0].lost[0].reason, "blocked: %kr is not a half-split rotation");
    }
}
