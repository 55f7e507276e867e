//! Merges the linears that make gate and up of a gated MLP into one of twice the width. The rule starts at the product of the two.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @wg = "g": bf16[6, 8]
//!   weight @wu = "u": bf16[6, 8]
//!   %gate = linear %x, @wg : f32[s, 6]
//!   %up = linear %x, @wu : f32[s, 6]
//!   %a = silu %gate : f32[s, 6]
//!   %h = mul %a, %up : f32[s, 6]
//!   return %h
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @wg_wu: bf16[12, 8] = concat("g": bf16[6, 8], "u": bf16[6, 8])
//!   %gate_up = linear %x, @wg_wu : f32[s, 12]
//!   %gate = slice_cols %gate_up, start=0, len=6 : f32[s, 6]
//!   %a = silu %gate : f32[s, 6]
//!   %up = slice_cols %gate_up, start=6, len=6 : f32[s, 6]
//!   %h = mul %a, %up : f32[s, 6]
//!   return %h
//! }
//! ```

use crate::egraph::{Graph, Rule, Union};
use crate::merge;
use crate::registry::{Exactness, Kind, Pass};
use egg::Id;
use llamac_ir::op::{OpKind, Stage};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "merge-gate-up",
    kind: Kind::Rewrite(&[Rule { name: "merge-gate-up/product", propose }]),
    exactness: Exactness::Exact,
    stage: Stage::Imported,
    source: include_str!("merge_gate_up.rs"),
};

fn propose(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut pairs: Vec<(Id, Id)> = graph.ops(OpKind::SwiGlu).into_iter().map(|(_, _, operands)| (operands[0], operands[1])).collect();
    for (_, _, operands) in graph.ops(OpKind::Mul) {
        for (a, b) in [(operands[0], operands[1]), (operands[1], operands[0])] {
            pairs.extend(graph.ops_in(a, OpKind::Silu).into_iter().map(|(_, gate)| (gate[0], b)));
        }
    }
    let mut out = Vec::new();
    for (gate, up) in pairs {
        let parts = [merge::parts(graph, gate), merge::parts(graph, up)].concat();
        out.extend(merge::groups(graph, parts).iter().map(|group| merge::merge(graph, group)));
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const MLP: &str = "func @f(%x: f32[s, 8], %y: f32[s, 8]) {
  weight @wg = \"g\": f32[6, 8]
  weight @bg = \"bg\": f32[6]
  weight @wu = \"u\": f32[6, 8]
  weight @bu = \"bu\": f32[6]
  %gate = linear %x, @wg, @bg
  %up = linear %x, @wu, @bu
  %h = swiglu %gate, %up
  return %h
}";

    #[test]
    fn biases_are_merged_too() {
        assert_eq!(fired("merge-gate-up", MLP)["merge-gate-up/product"], 1);
        insta::assert_snapshot!(check("merge-gate-up", MLP), @r#"
        func @f(%x: f32[s, 8], %y: f32[s, 8]) {
          weight @wg_wu: f32[12, 8] = concat("g": f32[6, 8], "u": f32[6, 8])
          weight @bg_bu: f32[12] = concat("bg": f32[6], "bu": f32[6])
          %gate_up = linear %x, @wg_wu, @bg_bu         : f32[s, 12]
          %gate = slice_cols %gate_up, start=0, len=6  : f32[s, 6]
          %up = slice_cols %gate_up, start=6, len=6    : f32[s, 6]
          %h = swiglu %gate, %up                       : f32[s, 6]
          return %h
        }
        "#);
    }

    #[test]
    fn two_inputs_or_two_roundings_stay_apart() {
        assert!(fired("merge-gate-up", &MLP.replace("%up = linear %x", "%up = linear %y")).is_empty());
        assert!(fired("merge-gate-up", &MLP.replace("@wu, @bu", "@wu, @bu, act=bf16")).is_empty());
    }

    #[test]
    fn a_gate_that_is_its_own_up_stays_alone() {
        assert!(fired("merge-gate-up", &MLP.replace("swiglu %gate, %up", "swiglu %gate, %gate")).is_empty());
    }
}
