//! Finds RMS norms that an exporter wrote in parts, in every spelling: squares by `pow` or `mul`, the root by `sqrt` or `pow`, its inverse by
//! `reciprocal`, `div` or `pow`, the weight on either side.
//!
//! Before:
//! ```text
//! func @f(%x: f32[b, s, 8]) {
//!   weight @two = literal([], 2.0)
//!   weight @eps = literal([], 1e-5)
//!   weight @g = "g": f32[8]
//!   %square = tensor.pow %x, @two : f32[b, s, 8]
//!   %mean = tensor.reduce_mean %square, axes=[-1] : f32[b, s, 1]
//!   %sum = tensor.add %mean, @eps : f32[b, s, 1]
//!   %root = tensor.sqrt %sum : f32[b, s, 1]
//!   %inverse = tensor.reciprocal %root : f32[b, s, 1]
//!   %unit = tensor.mul %x, %inverse : f32[b, s, 8]
//!   %y = tensor.mul @g, %unit : f32[b, s, 8]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[b, s, 8]) {
//!   weight @g = "g": f32[8]
//!   %y = tensor.rms_norm %x, @g, eps=1e-5 : f32[b, s, 8]
//!   return %y
//! }
//! ```

use crate::egraph::{Graph, Rule, Union};
use crate::raise::find::{all, either, is_last, node, number, operand};
use crate::registry::{Exactness, Kind, Pass};
use egg::Id;
use llamac_ir::op::{Attr, OpKind, Stage, TensorOp as T};

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "raise-norm",
    kind: Kind::Rewrite(&[Rule { name: "raise-norm/unit", propose: unit }, Rule { name: "raise-norm/weight", propose: weight }]),
    exactness: Exactness::Reassociated,
    stage: Stage::Graph,
    source: include_str!("raise_norm.rs"),
};

/// `x / sqrt(mean(x^2) + eps)`.
fn unit(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for op in [T::Mul, T::Div] {
        for (class, _, operands) in graph.ops(OpKind::Tensor(op)) {
            let orders =
                if op == T::Mul { vec![(operands[0], operands[1]), (operands[1], operands[0])] } else { vec![(operands[0], operands[1])] };
            for (x, factor) in orders {
                if graph.ty(class) != graph.ty(x) {
                    continue;
                }
                let roots = if op == T::Div { roots(graph, factor) } else { inverse_roots(graph, factor) };
                for (mean, eps) in roots.into_iter().flat_map(|sum| sums(graph, sum)) {
                    if means_square_of(graph, mean, x) {
                        out.push(vec![(class, node(T::RmsUnit, vec![Attr::float(eps)], vec![x]))]);
                    }
                }
            }
        }
    }
    out
}

/// `v` where the class is `1 / sqrt(v)`.
fn inverse_roots(graph: &Graph, class: Id) -> Vec<Id> {
    let mut out: Vec<Id> = operand(graph, class, T::Reciprocal).into_iter().flat_map(|r| roots(graph, r)).collect();
    for (_, o) in all(graph, class, T::Div) {
        if number(graph, o[0]) == Some(1.0) {
            out.extend(roots(graph, o[1]));
        }
    }
    out.extend(powers(graph, class, -0.5));
    out
}

/// `v` where the class is `sqrt(v)`.
fn roots(graph: &Graph, class: Id) -> Vec<Id> {
    operand(graph, class, T::Sqrt).into_iter().chain(powers(graph, class, 0.5)).collect()
}

fn powers(graph: &Graph, class: Id, exponent: f64) -> Vec<Id> {
    all(graph, class, T::Pow).into_iter().filter(|(_, o)| number(graph, o[1]) == Some(exponent)).map(|(_, o)| o[0]).collect()
}

/// `(v, eps)` where the class is `v + eps`.
fn sums(graph: &Graph, class: Id) -> Vec<(Id, f64)> {
    either(graph, class, T::Add).into_iter().filter_map(|(v, eps)| Some((v, number(graph, eps).filter(|e| *e >= 0.0)?))).collect()
}

/// Whether the class is the mean of the squares of `x` over its last axis.
fn means_square_of(graph: &Graph, class: Id, x: Id) -> bool {
    all(graph, class, T::ReduceMean).into_iter().any(|(attrs, o)| {
        let square = o[0];
        is_last(graph, x, &attrs[0])
            && (powers(graph, square, 2.0).contains(&x) || all(graph, square, T::Mul).iter().any(|(_, o)| o[0] == x && o[1] == x))
    })
}

/// A norm without a weight, times a vector.
fn weight(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, operands) in graph.ops(OpKind::Tensor(T::Mul)) {
        for (unit, gamma) in [(operands[0], operands[1]), (operands[1], operands[0])] {
            let vector = graph.as_weight(gamma).is_some() && graph.ty(gamma).shape.len() == 1 && graph.width(gamma) == graph.width(unit);
            if vector && graph.ty(class) == graph.ty(unit) && graph.width(gamma) > 0 {
                let norms = all(graph, unit, T::RmsUnit);
                out.extend(norms.into_iter().map(|(eps, x)| vec![(class, node(T::RmsNorm, eps, vec![x[0], gamma]))]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const PARTS: &str = "func @f(%x: f32[b, s, 8]) {
  weight @half = literal([1], 0.5)
  weight @one = literal([], 1.0)
  weight @eps = literal([1], 1e-6)
  weight @g = \"g\": f32[8]
  %square = tensor.mul %x, %x
  %mean = tensor.reduce_mean %square, axes=[2]
  %sum = tensor.add @eps, %mean
  %root = tensor.pow %sum, @half
  %inverse = tensor.div @one, %root
  %unit = tensor.mul %inverse, %x
  %y = tensor.mul %unit, @g
  return %y
}";

    #[test]
    fn other_spellings_are_norms_too() {
        let divided = PARTS.replace("  %inverse = tensor.div @one, %root\n", "").replace("tensor.mul %inverse, %x", "tensor.div %x, %root");
        for text in [PARTS, &divided] {
            let text = check("raise-norm", text);
            assert!(text.contains("%y = tensor.rms_norm %x, @g, eps=1e-6") && text.lines().count() == 5, "{text}");
        }
    }

    #[test]
    fn other_means_are_no_norm() {
        for (from, to) in
            [("axes=[2]", "axes=[1]"), ("tensor.mul %x, %x", "tensor.abs %x"), ("reduce_mean", "reduce_sum"), ("0.5)", "0.25)")]
        {
            assert!(fired("raise-norm", &PARTS.replace(from, to)).is_empty(), "{from} to {to}");
        }
    }

    #[test]
    fn the_norm_of_something_else_is_no_norm() {
        let other = PARTS.replace("tensor.mul %inverse, %x", "tensor.mul %inverse, %square");
        assert!(fired("raise-norm", &other).is_empty());
    }
}
