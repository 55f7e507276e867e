//! Folds the weight of a norm into the linear behind it, so that no one reads it at run time. Only into f32 weights: in a narrower
//! format the product would be rounded a second time. Not into a weight that an embedding reads, too: it would be stored twice.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @g = "g": f32[8]
//!   weight @w = "w": f32[4, 8]
//!   %n = rms_norm %x, @g, eps=1e-5 : f32[s, 8]
//!   %y = linear %n, @w : f32[s, 4]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @w: f32[4, 8] = scale_columns("w": f32[4, 8], "g": f32[8])
//!   %rms_unit = rms_unit %x, eps=1e-5 : f32[s, 8]
//!   %y = linear %rms_unit, @w : f32[s, 4]
//!   return %y
//! }
//! ```

use crate::egraph::{Graph, Node, Rule, Union};
use crate::recipes;
use crate::registry::{Exactness, Kind, Pass};
use egg::Id;
use llamac_ir::dtype::DType;
use llamac_ir::op::{Attr, OpKind, Stage};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "fold-norm",
    kind: Kind::Rewrite(&[Rule { name: RULE, propose }]),
    exactness: Exactness::Reassociated,
    stage: Stage::Imported,
    source: include_str!("fold_norm.rs"),
};

const RULE: &str = "fold-norm/linear";

/// `linear(rms_norm(x, g), w)` is `linear(rms_unit(x), w * g)`.
fn propose(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, attrs, operands) in graph.ops(OpKind::Linear) {
        for (norm_attrs, norm) in graph.ops_in(operands[0], OpKind::RmsNorm) {
            let Some(weight) = folded(graph, &attrs, operands[1], norm[1]) else { continue };
            let unit = graph.op(OpKind::RmsUnit, vec![norm_attrs[0].clone(), Attr::Int(0)], vec![norm[0]]);
            let mut children = operands.clone();
            children[..2].copy_from_slice(&[unit, weight]);
            out.push(vec![(class, Node::Op(OpKind::Linear, attrs.clone(), children))]);
        }
    }
    out
}

/// The weight with the norm's in it, if that may be.
fn folded(graph: &mut Graph, attrs: &[Attr], weight: Id, gamma: Id) -> Option<Id> {
    let (w, g) = (graph.as_weight(weight)?.clone(), graph.as_weight(gamma)?.recipe.clone());
    let rounds = attrs.iter().any(|a| *a != Attr::Word("f32".to_owned()));
    if w.ty.dtype != DType::F32 {
        graph.block(RULE, format!("weights of {} would be rounded twice with the norm in them", w.ty.dtype));
        return None;
    }
    if rounds {
        graph.block(RULE, "inputs of products are rounded, and would be rounded otherwise without the norm's weight".to_owned());
        return None;
    }
    if graph.ops(OpKind::Embed).iter().any(|(_, _, operands)| operands[1] == weight) {
        graph.block(RULE, format!("@{} is also read by `embed`: with the norm in it, it would be stored twice", w.name));
        return None;
    }
    Some(graph.weight(&w.name, recipes::scale_columns(w.recipe, &g)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_with, fired};

    const TWO: &str = "func @f(%x: f32[s, 8]) {
  weight @g = \"g\": f32[8]
  weight @a = \"a\": f32[4, 8]
  weight @b = \"b\": f32[4, 8]
  weight @c = \"c\": f32[4]
  %n = rms_norm %x, @g, eps=1e-5
  %y = linear %n, @a, @c
  %z = linear %n, @b
  %o = mul %y, %z
  return %o
}";

    #[test]
    fn every_reader_of_the_norm_gets_its_weight() {
        assert_eq!(fired("fold-norm", TWO)[RULE], 2);
        insta::assert_snapshot!(check("fold-norm", TWO), @r#"
        func @f(%x: f32[s, 8]) {
          weight @a: f32[4, 8] = scale_columns("a": f32[4, 8], "g": f32[8])
          weight @c: f32[4] = "c": f32[4]
          weight @b: f32[4, 8] = scale_columns("b": f32[4, 8], "g": f32[8])
          %rms_unit = rms_unit %x, eps=1e-5  : f32[s, 8]
          %y = linear %rms_unit, @a, @c      : f32[s, 4]
          %z = linear %rms_unit, @b          : f32[s, 4]
          %o = mul %y, %z                    : f32[s, 4]
          return %o
        }
        "#);
    }

    #[test]
    fn narrow_weights_and_rounded_inputs_stay_as_they_are() {
        let narrow = TWO.replace("f32[4, 8]", "bf16[4, 8]");
        assert!(fired("fold-norm", &narrow).is_empty());
        let rounded = TWO.replace("linear %n, @a, @c", "linear %n, @a, @c, act=bf16").replace("linear %n, @b", "linear %n, @b, act=bf16");
        let (_, report) = check_with("fold-norm", &rounded, &Default::default());
        assert!(report.funcs[0].fired.is_empty());
        assert_eq!(report.funcs[0].lost.len(), 1);
        assert!(report.funcs[0].lost[0].reason.starts_with("blocked: inputs of products are rounded"));
    }

    #[test]
    fn a_head_tied_to_the_embedding_is_not_stored_twice() {
        let tied = "func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @e = \"e\": f32[8, 4]
  weight @g = \"g\": f32[4]
  %x = embed %ids, @e
  %w = gather_rows %x, %want
  %n = rms_norm %w, @g, eps=1e-5
  %y = linear %n, @e
  return %y
}";
        assert!(fired("fold-norm", tied).is_empty());
        let (_, report) = check_with("fold-norm", tied, &Default::default());
        assert!(report.funcs[0].lost[0].reason.contains("stored twice"));
    }
}
