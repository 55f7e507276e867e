//! Finds `x * sigmoid(x)`.
//!
//! Before:
//! ```text
//! func @f(%x: f32[b, s, 8]) {
//!   %sigmoid = tensor.sigmoid %x : f32[b, s, 8]
//!   %y = tensor.mul %x, %sigmoid : f32[b, s, 8]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[b, s, 8]) {
//!   %y = tensor.silu %x : f32[b, s, 8]
//!   return %y
//! }
//! ```

use crate::egraph::{Graph, Rule, Union};
use crate::raise::find::{node, operand};
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::op::{OpKind, Stage, TensorOp as T};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "raise-swiglu",
    kind: Kind::Rewrite(&[Rule { name: "raise-swiglu/silu", propose: silu }]),
    exactness: Exactness::Reassociated,
    stage: Stage::Graph,
    source: include_str!("raise_swiglu.rs"),
};

fn silu(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, o) in graph.ops(OpKind::Tensor(T::Mul)) {
        for (x, gate) in [(o[0], o[1]), (o[1], o[0])] {
            if operand(graph, gate, T::Sigmoid).contains(&x) {
                out.push(vec![(class, node(T::Silu, vec![], vec![x]))]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const TURNED: &str = "func @f(%x: f32[b, s, 8], %z: f32[b, s, 8]) {
  %gate = tensor.sigmoid %x
  %y = tensor.mul %gate, %x
  return %y
}";

    #[test]
    fn either_order_is_found() {
        insta::assert_snapshot!(check("raise-swiglu", TURNED), @r"
        func @f(%x: f32[b, s, 8], %z: f32[b, s, 8]) {
          %y = tensor.silu %x  : f32[b, s, 8]
          return %y
        }
        ");
    }

    #[test]
    fn the_sigmoid_of_something_else_is_a_product() {
        assert!(fired("raise-swiglu", &TURNED.replace("%gate, %x", "%gate, %z")).is_empty());
    }
}
