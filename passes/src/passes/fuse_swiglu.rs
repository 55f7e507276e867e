//! Fuses the gated activation of an MLP, first by itself, then with the norm and the merged product before it: gate and up of a tile
//! never leave the cache.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @g = "g": f32[8]
//!   weight @w = "w": f32[12, 8]
//!   %y = norm_linear %x, @g, @w, eps=1e-5 : f32[s, 12]
//!   %gate = slice_cols %y, start=0, len=6 : f32[s, 6]
//!   %up = slice_cols %y, start=6, len=6 : f32[s, 6]
//!   %a = silu %gate : f32[s, 6]
//!   %h = mul %a, %up : f32[s, 6]
//!   return %h
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @g = "g": f32[8]
//!   weight @w = "w": f32[12, 8]
//!   %h = norm_linear_swiglu %x, @g, @w, eps=1e-5 : f32[s, 6]
//!   return %h
//! }
//! ```

use crate::egraph::{Graph, Node, Rule, Union};
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::op::{Attr, OpKind, Stage};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "fuse-swiglu",
    kind: Kind::Rewrite(&[
        Rule { name: "fuse-swiglu/mul", propose: mul },
        Rule { name: "fuse-swiglu/norm-linear", propose: |graph| halves(graph, OpKind::NormLinear, OpKind::NormLinearSwiGlu) },
        Rule { name: "fuse-swiglu/unit-linear", propose: |graph| halves(graph, OpKind::UnitLinear, OpKind::UnitLinearSwiGlu) },
    ]),
    exactness: Exactness::Exact,
    stage: Stage::Fused,
    source: include_str!("fuse_swiglu.rs"),
};

/// `silu(gate) * up`, either way round.
fn mul(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, operands) in graph.ops(OpKind::Mul) {
        for (a, up) in [(operands[0], operands[1]), (operands[1], operands[0])] {
            // A vector over the last axis is no `up`.
            if graph.ty(up) != graph.ty(a) {
                continue;
            }
            let gates = graph.ops_in(a, OpKind::Silu).into_iter();
            out.extend(gates.map(|(_, gate)| vec![(class, Node::Op(OpKind::SwiGlu, vec![], vec![gate[0], up]))]));
        }
    }
    out
}

/// `swiglu` of the first and the second half of a fused product.
fn halves(graph: &mut Graph, from: OpKind, to: OpKind) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, operands) in graph.ops(OpKind::SwiGlu) {
        let half = graph.width(class) as i64;
        let starting_at = |start: i64, class| {
            let slices = graph.ops_in(class, OpKind::SliceCols).into_iter();
            slices.filter(move |(attrs, _)| *attrs == [Attr::Int(start), Attr::Int(half)]).map(|(_, x)| x[0]).collect::<Vec<_>>()
        };
        let ups = starting_at(half, operands[1]);
        for both in starting_at(0, operands[0]).into_iter().filter(|x| ups.contains(x) && graph.width(*x) as i64 == 2 * half) {
            out.extend(graph.ops_in(both, from).into_iter().map(|(attrs, children)| vec![(class, Node::Op(to, attrs, children))]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const UNIT: &str = "func @f(%x: f32[s, 8]) {
  weight @w = \"w\": f32[12, 8]
  weight @b = \"b\": f32[12]
  %y = unit_linear %x, @w, @b, eps=1e-5
  %gate = slice_cols %y, start=0, len=6
  %up = slice_cols %y, start=6, len=6
  %a = silu %gate
  %h = mul %up, %a
  return %h
}";

    #[test]
    fn the_product_fuses_either_way_round() {
        let rules = fired("fuse-swiglu", UNIT);
        assert_eq!((rules["fuse-swiglu/mul"], rules["fuse-swiglu/unit-linear"]), (1, 1));
        insta::assert_snapshot!(check("fuse-swiglu", UNIT), @r#"
        func @f(%x: f32[s, 8]) {
          weight @w: f32[12, 8] = "w": f32[12, 8]
          weight @b: f32[12] = "b": f32[12]
          %h = unit_linear_swiglu %x, @w, @b, eps=1e-5  : f32[s, 6]
          return %h
        }
        "#);
    }

    #[test]
    fn up_over_gate_does_not_fuse_with_the_linear() {
        let turned = UNIT.replace("silu %gate", "silu %up").replace("mul %up, %a", "mul %a, %gate");
        let text = check("fuse-swiglu", &turned);
        assert!(text.contains("swiglu %up, %gate") && !text.contains("unit_linear_swiglu"), "{text}");
    }

    #[test]
    fn a_product_with_a_vector_is_no_swiglu() {
        let vector = "func @f(%x: f32[s, 8]) {
  weight @g = \"g\": f32[8]
  %a = silu %x
  %h = mul %a, @g
  return %h
}";
        assert!(fired("fuse-swiglu", vector).is_empty());
    }
}
