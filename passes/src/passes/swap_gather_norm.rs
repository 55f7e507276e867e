//! Takes rows before a norm instead of after it. The norm may be needed whole by others, too: norming the few rows once more may cost less
//! than keeping the normed rows for them, and lets the linear behind be fused; cost decides.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8], %want: i32[r]) {
//!   weight @g = "g": f32[8]
//!   %n = rms_norm %x, @g, eps=1e-5 : f32[s, 8]
//!   %y = gather_rows %n, %want : f32[r, 8]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8], %want: i32[r]) {
//!   weight @g = "g": f32[8]
//!   %gather_rows = gather_rows %x, %want : f32[r, 8]
//!   %y = rms_norm %gather_rows, @g, eps=1e-5 : f32[r, 8]
//!   return %y
//! }
//! ```

use crate::egraph::{Graph, Node, Rule, Union};
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::op::{OpKind, Stage};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "swap-gather-norm",
    kind: Kind::Rewrite(&[
        Rule { name: "swap-gather-norm/norm", propose: |graph| swapped(graph, OpKind::RmsNorm) },
        Rule { name: "swap-gather-norm/unit", propose: |graph| swapped(graph, OpKind::RmsUnit) },
    ]),
    exactness: Exactness::Exact,
    stage: Stage::Imported,
    source: include_str!("swap_gather_norm.rs"),
};

fn swapped(graph: &mut Graph, norm: OpKind) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, operands) in graph.ops(OpKind::GatherRows) {
        for (attrs, mut normed) in graph.ops_in(operands[0], norm) {
            normed[0] = graph.op(OpKind::GatherRows, vec![], vec![normed[0], operands[1]]);
            out.push(vec![(class, Node::Op(norm, attrs, normed))]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const BOTH: &str = "func @f(%x: f32[s, 8], %want: i32[r]) {
  weight @w = \"w\": f32[4, 8]
  %n = rms_unit %x, eps=1e-5
  %y = gather_rows %n, %want
  %z = linear %y, @w
  return %z
}";

    #[test]
    fn few_rows_are_normed() {
        assert_eq!(fired("swap-gather-norm", BOTH)["swap-gather-norm/unit"], 1);
        insta::assert_snapshot!(check("swap-gather-norm", BOTH), @r#"
        func @f(%x: f32[s, 8], %want: i32[r]) {
          weight @w: f32[4, 8] = "w": f32[4, 8]
          %gather_rows = gather_rows %x, %want  : f32[r, 8]
          %y = rms_unit %gather_rows, eps=1e-5  : f32[r, 8]
          %z = linear %y, @w                    : f32[r, 4]
          return %z
        }
        "#);
    }

    #[test]
    fn other_ops_are_not_swapped() {
        assert!(fired("swap-gather-norm", &BOTH.replace("rms_unit %x, eps=1e-5", "silu %x")).is_empty());
    }

    #[test]
    fn a_norm_that_is_needed_whole_is_not_done_again_for_nothing() {
        let whole = BOTH
            .replace("return %z", "%g = gather_rows %z, %want\n  return %z")
            .replace("%z = linear %y, @w", "%u = mul %n, %n\n  %g = gather_rows %u, %want\n  %z = mul %y, %g");
        let whole = whole.replace("  weight @w = \"w\": f32[4, 8]\n", "").replace("%g = gather_rows %z, %want\n  return", "return");
        let text = check("swap-gather-norm", &whole);
        assert!(text.contains("gather_rows %n, %want"), "{text}");
    }
}
