//! What rules over tensor ops ask the e-graph: ops of a kind in a class, operands in either order, single numbers.

use crate::egraph::{Graph, Node};
use egg::Id;
use llamac_ir::op::{Attr, OpKind, TensorOp};
use llamac_ir::recipe::Recipe;
use llamac_ir::types::Dim;

/// Tensor ops of that kind in a class: operands.
pub(crate) fn all(graph: &Graph, class: Id, op: TensorOp) -> Vec<(Vec<Attr>, Vec<Id>)> {
    graph.ops_in(class, OpKind::Tensor(op))
}

/// Operands of ops of two operands, in both orders.
pub(crate) fn either(graph: &Graph, class: Id, op: TensorOp) -> Vec<(Id, Id)> {
    all(graph, class, op).into_iter().flat_map(|(_, o)| [(o[0], o[1]), (o[1], o[0])]).collect()
}

/// Operands of ops of one operand.
pub(crate) fn operand(graph: &Graph, class: Id, op: TensorOp) -> Vec<Id> {
    all(graph, class, op).into_iter().map(|(_, o)| o[0]).collect()
}

/// A tensor op as a node.
pub(crate) fn node(op: TensorOp, attrs: Vec<Attr>, children: Vec<Id>) -> Node {
    Node::Op(OpKind::Tensor(op), attrs, children)
}

/// The one number that a class is, as the shortest decimal of its f32.
pub(crate) fn number(graph: &Graph, class: Id) -> Option<f64> {
    if let Some(weight) = graph.as_weight(class) {
        return literal(&weight.recipe);
    }
    let fill = all(graph, class, TensorOp::Fill).into_iter().find_map(|(attrs, _)| match &attrs[1] {
        Attr::Float(bits) => Some(f64::from_bits(*bits)),
        _ => None,
    });
    let values = all(graph, class, TensorOp::Values).into_iter().find_map(|(attrs, _)| match &attrs[1] {
        Attr::Dims(list) if list.len() == 1 => list[0].number().map(|n| n as f64),
        _ => None,
    });
    let moved = || {
        all(graph, class, TensorOp::Expand).into_iter().chain(all(graph, class, TensorOp::Reshape)).find_map(|(_, o)| number(graph, o[0]))
    };
    fill.or(values).or_else(moved)
}

/// The one number of a recipe.
pub(crate) fn literal(recipe: &Recipe) -> Option<f64> {
    match recipe {
        Recipe::Literal { data, .. } if data.len() == 1 => format!("{:?}", data[0]).parse().ok(),
        Recipe::Cast(_, of) => literal(of),
        _ => None,
    }
}

/// Number of axes of a class.
pub(crate) fn rank(graph: &Graph, class: Id) -> usize {
    graph.ty(class).shape.len()
}

/// Whether an axis attribute means the last axis of a class.
pub(crate) fn is_last(graph: &Graph, class: Id, axis: &Attr) -> bool {
    let rank = rank(graph, class) as i64;
    match axis {
        Attr::Int(axis) => *axis == -1 || *axis == rank - 1,
        Attr::Dims(axes) => matches!(axes.as_slice(), [one] if one.number() == Some(-1) || one.number() == Some(rank - 1)),
        _ => false,
    }
}

/// The permutation that exchanges the last two of four axes, or the middle two.
pub(crate) fn is_perm(attrs: &[Attr], perm: &[i64]) -> bool {
    attrs == [Attr::ints(perm)]
}

/// A class without reshapes that only add or drop axes of length 1.
pub(crate) fn squeezed(graph: &Graph, class: Id) -> Vec<Id> {
    let real = |c: Id| graph.ty(c).shape.iter().filter(|d| **d != Dim::int(1)).cloned().collect::<Vec<_>>();
    let mut out = vec![class];
    let inner = all(graph, class, TensorOp::Reshape).into_iter().map(|(_, o)| o[0]);
    out.extend(inner.filter(|c| real(*c) == real(class)));
    out
}
