//! Fuses a linear with the addition that follows it: the residual is added while the tile is in the cache.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8], %h: f32[s, 4]) {
//!   weight @w = "w": bf16[4, 8]
//!   %o = linear %x, @w, act=bf16 : f32[s, 4]
//!   %y = add %h, %o : f32[s, 4]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8], %h: f32[s, 4]) {
//!   weight @w = "w": bf16[4, 8]
//!   %y = linear_add %x, @w, %h, act=bf16 : f32[s, 4]
//!   return %y
//! }
//! ```

use crate::egraph::{Graph, Node, Rule, Union};
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::op::{OpKind, Stage};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "fuse-residual",
    kind: Kind::Rewrite(&[Rule { name: "fuse-residual/add", propose }]),
    exactness: Exactness::Exact,
    stage: Stage::Fused,
    source: include_str!("fuse_residual.rs"),
};

/// `residual + linear(x, w, bias)`, either way round: a sum of two is the same both ways.
fn propose(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, operands) in graph.ops(OpKind::Add) {
        for (residual, sum) in [(operands[0], operands[1]), (operands[1], operands[0])] {
            // A vector over the last axis is no residual.
            if graph.ty(residual) != graph.ty(sum) {
                continue;
            }
            for (attrs, linear) in graph.ops_in(sum, OpKind::Linear) {
                let children = [&linear[..2], &[residual], &linear[2..]].concat();
                out.push(vec![(class, Node::Op(OpKind::LinearAdd, attrs, children))]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const TURNED: &str = "func @f(%x: f32[s, 8], %h: f32[s, 4]) {
  weight @w = \"w\": f32[4, 8]
  weight @b = \"b\": f32[4]
  %o = linear %x, @w, @b
  %y = add %o, %h
  return %y
}";

    #[test]
    fn the_sum_fuses_either_way_round_and_keeps_the_bias() {
        assert_eq!(fired("fuse-residual", TURNED)["fuse-residual/add"], 1);
        insta::assert_snapshot!(check("fuse-residual", TURNED), @r#"
        func @f(%x: f32[s, 8], %h: f32[s, 4]) {
          weight @w: f32[4, 8] = "w": f32[4, 8]
          weight @b: f32[4] = "b": f32[4]
          %y = linear_add %x, @w, %h, @b  : f32[s, 4]
          return %y
        }
        "#);
    }

    #[test]
    fn a_vector_is_no_residual() {
        let vector = TURNED.replace("add %o, %h", "add %o, @b");
        assert!(fired("fuse-residual", &vector).is_empty());
    }

    #[test]
    fn a_product_that_is_read_elsewhere_too_is_not_done_twice() {
        let twice =
            TURNED.replace("  return %y", "  %z = mul %y, %o\n  return %z").replace("[4, 8]", "[400, 800]").replace("s, 8]", "s, 800]");
        let twice = twice.replace("s, 4]", "s, 400]").replace("f32[4]", "f32[400]");
        let text = check("fuse-residual", &twice);
        assert!(!text.contains("linear_add"), "{text}");
    }
}
