//! Fuses a norm with the linear that reads it: the normed rows are written once, in the format that the product reads.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @g = "g": f32[8]
//!   weight @w = "w": bf16[4, 8]
//!   %n = rms_norm %x, @g, eps=1e-5 : f32[s, 8]
//!   %y = linear %n, @w, act=bf16 : f32[s, 4]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @g = "g": f32[8]
//!   weight @w = "w": bf16[4, 8]
//!   %y = norm_linear %x, @g, @w, eps=1e-5, act=bf16 : f32[s, 4]
//!   return %y
//! }
//! ```

use crate::egraph::{Graph, Node, Rule, Union};
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::op::{Attr, OpKind, Stage};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "fuse-norm-linear",
    kind: Kind::Rewrite(&[
        Rule { name: "fuse-norm-linear/norm", propose: |graph| fused(graph, OpKind::RmsNorm, OpKind::NormLinear) },
        Rule { name: "fuse-norm-linear/unit", propose: |graph| fused(graph, OpKind::RmsUnit, OpKind::UnitLinear) },
    ]),
    exactness: Exactness::Exact,
    stage: Stage::Fused,
    source: include_str!("fuse_norm_linear.rs"),
};

fn fused(graph: &mut Graph, norm: OpKind, to: OpKind) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, attrs, operands) in graph.ops(OpKind::Linear) {
        for (norm_attrs, norm_operands) in graph.ops_in(operands[0], norm) {
            // A norm over parts of a row has no fused form.
            if norm_attrs.get(1).is_some_and(|group| *group != Attr::Int(0)) {
                continue;
            }
            let attrs = vec![norm_attrs[0].clone(), attrs[0].clone()];
            let children = [&norm_operands[..], &operands[1..]].concat();
            out.push(vec![(class, Node::Op(to, attrs, children))]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, check_with, fired};

    const UNIT: &str = "func @f(%x: f32[s, 8]) {
  weight @w = \"w\": f32[4, 8]
  weight @b = \"b\": f32[4]
  %n = rms_unit %x, eps=1e-5
  %y = linear %n, @w, @b
  return %y
}";

    #[test]
    fn a_norm_without_a_weight_fuses_and_keeps_the_bias() {
        assert_eq!(fired("fuse-norm-linear", UNIT)["fuse-norm-linear/unit"], 1);
        insta::assert_snapshot!(check("fuse-norm-linear", UNIT), @r#"
        func @f(%x: f32[s, 8]) {
          weight @w: f32[4, 8] = "w": f32[4, 8]
          weight @b: f32[4] = "b": f32[4]
          %y = unit_linear %x, @w, @b, eps=1e-5  : f32[s, 4]
          return %y
        }
        "#);
    }

    #[test]
    fn a_norm_of_heads_does_not_fuse() {
        assert!(fired("fuse-norm-linear", &UNIT.replace("eps=1e-5", "eps=1e-5, group=4")).is_empty());
    }

    #[test]
    fn a_norm_that_three_read_is_not_done_three_times() {
        let three = "func @f(%x: f32[s, 8]) {
  weight @a = \"a\": f32[8, 8]
  weight @b = \"b\": f32[8, 8]
  weight @c = \"c\": f32[8, 8]
  %n = rms_unit %x, eps=1e-5
  %p = linear %n, @a
  %q = linear %n, @b
  %r = linear %n, @c
  %t = mul %p, %q
  %u = mul %t, %r
  return %u
}";
        let (text, report) = check_with("fuse-norm-linear", three, &Default::default());
        assert!(!text.contains("unit_linear"), "{text}");
        let lost = &report.funcs[0].lost[0];
        assert!(lost.extra_ns.is_some_and(|ns| ns > 100.0) && lost.reason.starts_with("not chosen: costs"), "{lost:?}");
    }
}
