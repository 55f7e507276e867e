//! Folds what is known at compile time: recipes of literals, slices of slices, slices of everything, products with ones.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @ones: f32[4] = literal([4], 1.0, 1.0, 1.0, 1.0)
//!   %a = slice_cols %x, start=2, len=6 : f32[s, 6]
//!   %b = slice_cols %a, start=1, len=4 : f32[s, 4]
//!   %c = slice_cols %b, start=0, len=4 : f32[s, 4]
//!   %d = mul %c, @ones : f32[s, 4]
//!   return %d
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   %b = slice_cols %x, start=3, len=4 : f32[s, 4]
//!   return %b
//! }
//! ```

use crate::context::Context;
use crate::registry::{Exactness, Kind, Pass};
use crate::{edit, recipes};
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, Inst, Module, Operand, ValueId};
use llamac_ir::op::{Attr, OpKind, Stage};
use llamac_ir::recipe::{Prepared, Recipe, Source};
use std::collections::{BTreeMap, BTreeSet};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "fold-constants",
    kind: Kind::Transform(run),
    exactness: Exactness::Exact,
    stage: Stage::Imported,
    source: include_str!("fold_constants.rs"),
};

/// Larger literals are not evaluated here: they would be kept in memory.
const LARGEST: usize = 65_536;

fn run(module: &mut Module, context: &mut Context) -> Result<(), String> {
    for func in &mut module.funcs {
        weights(func, context)?;
        ops(func, context);
        edit::compact(func);
    }
    Ok(())
}

fn weights(func: &mut Func, context: &mut Context) -> Result<(), String> {
    for weight in &mut func.weights {
        let folded = fold(&weight.recipe)?;
        if folded != weight.recipe && context.fire(&func.name, "fold-constants/recipe") {
            weight.recipe = folded;
        }
    }
    Ok(())
}

/// The recipe without steps that do nothing, and with literals evaluated.
fn fold(recipe: &Recipe) -> Result<Recipe, String> {
    let inner = |r: &Recipe| fold(r);
    let folded = match recipe {
        Recipe::Source { .. } | Recipe::Literal { .. } => return Ok(recipe.clone()),
        Recipe::Cast(to, of) => recipes::cast(*to, inner(of)?),
        Recipe::Concat(parts) => recipes::concat(parts.iter().map(inner).collect::<Result<_, _>>()?),
        Recipe::Stack(parts) => Recipe::Stack(parts.iter().map(inner).collect::<Result<_, _>>()?),
        Recipe::Transpose(of) => match inner(of)? {
            Recipe::Transpose(twice) => *twice,
            other => Recipe::Transpose(Box::new(other)),
        },
        Recipe::PermuteRope(head_dim, of) => recipes::permute_rope(*head_dim, inner(of)?),
        Recipe::Rows(start, len, of) => recipes::rows(*start, *len, inner(of)?),
        Recipe::ScaleColumns(of, by) => Recipe::ScaleColumns(Box::new(inner(of)?), Box::new(inner(by)?)),
        Recipe::ScaleRows(of, by) => Recipe::ScaleRows(Box::new(inner(of)?), Box::new(inner(by)?)),
    };
    literal(&folded).map(|l| l.unwrap_or(folded))
}

/// A recipe of literals alone, evaluated; only f32, since literals are.
fn literal(recipe: &Recipe) -> Result<Option<Recipe>, String> {
    let ty = recipe.ty()?;
    let shape = ty.sizes().unwrap_or_default();
    let mut sources = 0;
    recipe.sources(&mut |_| sources += 1);
    if sources > 0 || ty.dtype != DType::F32 || shape.iter().product::<usize>() > LARGEST {
        return Ok(None);
    }
    let prepared = Prepared::new(recipe, &Nothing)?;
    let data = prepared.read_all()?.into();
    Ok(Some(Recipe::Literal { shape, data }))
}

/// A checkpoint without tensors.
struct Nothing;

impl Source for Nothing {
    fn row(&self, name: &str, _: usize, _: &mut [f32]) -> Result<(), String> {
        Err(format!("\"{name}\" is not a literal"))
    }
}

fn ops(func: &mut Func, context: &mut Context) {
    let mut replaced: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for at in 0..func.body.len() {
        let inst = &func.body[at];
        let rule = if inst.op == OpKind::Mul { "fold-constants/ones" } else { "fold-constants/whole-slice" };
        if let Some(mut x) = same(func, inst) {
            if context.fire(&func.name, rule) {
                while let Some(earlier) = replaced.get(&x) {
                    x = *earlier;
                }
                replaced.insert(inst.results[0], x);
            }
        } else if let Some((start, x)) = slice_of_slice(func, at)
            && context.fire(&func.name, "fold-constants/slice-of-slice")
        {
            let inst = &mut func.body[at];
            inst.attrs[0] = Attr::Int(start);
            inst.operands[0] = x;
        }
    }
    edit::replace(func, &replaced);
    let uses = edit::uses(func);
    let read: BTreeSet<ValueId> =
        (0..uses.len() as u32).map(ValueId).filter(|v| !uses[v.0 as usize].is_empty() || edit::is_result(func, *v)).collect();
    let sliced = |inst: &Inst| inst.op == OpKind::SliceCols && !read.contains(&inst.results[0]);
    func.body.retain(|inst| !sliced(inst) && !inst.results.iter().any(|v| replaced.contains_key(v)));
}

/// First column and operand of a slice that is taken from a slice.
fn slice_of_slice(func: &Func, at: usize) -> Option<(i64, Operand)> {
    let inst = &func.body[at];
    if inst.op != OpKind::SliceCols {
        return None;
    }
    let before = &func.body[edit::def(func, inst.operands[0], OpKind::SliceCols)?];
    let (Attr::Int(a), Attr::Int(b)) = (&before.attrs[0], &inst.attrs[0]) else { return None };
    Some((a.checked_add(*b)?, before.operands[0]))
}

/// The operand that the instruction's result is equal to.
fn same(func: &Func, inst: &Inst) -> Option<ValueId> {
    let Operand::Value(x) = *inst.operands.first()? else { return None };
    let equal = match inst.op {
        OpKind::SliceCols => func.ty(inst.operands[0]) == func.ty(inst.results[0].into()),
        OpKind::Mul => matches!(inst.operands[1], Operand::Weight(w) if ones(&func.weights[w.0 as usize].recipe)),
        _ => false,
    };
    equal.then_some(x)
}

fn ones(recipe: &Recipe) -> bool {
    matches!(recipe, Recipe::Literal { data, .. } if data.iter().all(|x| *x == 1.0))
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    #[test]
    fn recipes_of_literals_are_evaluated() {
        let literals = "func @f(%x: f32[s, 2]) {
  weight @w: f32[2, 2] = scale_columns(concat(literal([1, 2], 1.0, 2.0), literal([1, 2], 3.0, 4.0)), literal([2], 10.0, 0.5))
  weight @v: f32[2, 2] = transpose(transpose(\"v\": f32[2, 2]))
  %y = linear %x, @w
  %z = linear %y, @v
  return %z
}";
        assert_eq!(fired("fold-constants", literals)["fold-constants/recipe"], 2);
        insta::assert_snapshot!(check("fold-constants", literals), @r#"
        func @f(%x: f32[s, 2]) {
          weight @w: f32[2, 2] = literal([2, 2], 10.0, 1.0, 30.0, 2.0)
          weight @v: f32[2, 2] = "v": f32[2, 2]
          %y = linear %x, @w  : f32[s, 2]
          %z = linear %y, @v  : f32[s, 2]
          return %z
        }
        "#);
    }

    #[test]
    fn rounded_literals_and_other_factors_stay() {
        let rounded = "func @f(%x: f32[s, 2]) {
  weight @w: bf16[2] = cast(bf16, literal([2], 1.1, 2.2))
  weight @v: f32[2] = literal([2], 1.0, 1.5)
  %y = mul %x, @w
  %z = mul %y, @v
  %a = slice_cols %z, start=1, len=1
  return %a
}";
        assert!(fired("fold-constants", rounded).is_empty());
    }

    #[test]
    fn a_slice_that_others_read_too_stays() {
        let shared = "func @f(%x: f32[s, 8]) {
  %a = slice_cols %x, start=2, len=6
  %b = slice_cols %a, start=1, len=3
  %c = slice_cols %a, start=3, len=3
  %d = mul %b, %c
  %e = slice_cols %a, start=0, len=6
  %f = silu %e
  return %f
}";
        insta::assert_snapshot!(check("fold-constants", shared), @r#"
        func @f(%x: f32[s, 8]) {
          %a = slice_cols %x, start=2, len=6  : f32[s, 6]
          %b = slice_cols %x, start=3, len=3  : f32[s, 3]
          %c = slice_cols %x, start=5, len=3  : f32[s, 3]
          %d = mul %b, %c                     : f32[s, 3]
          %f = silu %a                        : f32[s, 6]
          return %f
        }
        "#);
    }
}
