//! Merging linears of one input into one: what the rules about queries and keys and those about gate and up have in common.

use crate::egraph::{Graph, Node, Union};
use crate::recipes;
use egg::Id;
use llamac_ir::dtype::DType;
use llamac_ir::op::{Attr, OpKind};

/// A linear as merging sees it.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The class that it makes.
    class: Id,
    attrs: Vec<Attr>,
    x: Id,
    weight: Id,
    bias: Option<Id>,
}

/// What linears must share to be merged: input, how it is rounded, element types of weight and bias.
type Key = (Id, Vec<Attr>, DType, Option<DType>);

/// Every linear of a class whose operands are weights.
pub(crate) fn parts(graph: &Graph, class: Id) -> Vec<Part> {
    let class = graph.egraph.find(class);
    let linears = graph.ops_in(class, OpKind::Linear).into_iter();
    let parts = linears.map(|(attrs, operands)| Part { class, attrs, x: operands[0], weight: operands[1], bias: operands.get(2).copied() });
    parts.filter(|p| graph.as_weight(p.weight).is_some() && p.bias.is_none_or(|b| graph.as_weight(b).is_some())).collect()
}

fn key(graph: &Graph, part: &Part) -> Key {
    (part.x, part.attrs.clone(), graph.ty(part.weight).dtype, part.bias.map(|b| graph.ty(b).dtype))
}

/// Sorts parts into groups that can be merged, in the order in which they are given; a class counts once in each group.
pub(crate) fn groups(graph: &Graph, parts: Vec<Part>) -> Vec<Vec<Part>> {
    let mut groups: Vec<(Key, Vec<Part>)> = Vec::new();
    for part in parts {
        let key = key(graph, &part);
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, members)) if members.iter().any(|m| m.class == part.class) => {}
            Some((_, members)) => members.push(part),
            None => groups.push((key, vec![part])),
        }
    }
    groups.into_iter().map(|(_, members)| members).filter(|members| members.len() > 1).collect()
}

/// One linear for all parts of a group: each part equals a slice of its columns.
pub(crate) fn merge(graph: &mut Graph, group: &[Part]) -> Vec<Union> {
    let stacked = |graph: &mut Graph, ids: Vec<Id>| {
        let weights: Vec<_> = ids.iter().filter_map(|id| graph.as_weight(*id)).collect();
        let name = weights.iter().map(|w| w.name.as_str()).collect::<Vec<_>>().join("_");
        let recipe = recipes::concat(weights.iter().map(|w| w.recipe.clone()).collect());
        graph.weight(&name, recipe)
    };
    let weight = stacked(graph, group.iter().map(|p| p.weight).collect());
    let biases: Vec<Id> = group.iter().filter_map(|p| p.bias).collect();
    let mut operands = vec![group[0].x, weight];
    if !biases.is_empty() {
        operands.push(stacked(graph, biases));
    }
    let merged = graph.op(OpKind::Linear, group[0].attrs.clone(), operands);
    let names: Vec<&str> = group.iter().filter_map(|p| graph.name_of(p.class)).collect();
    let name = names.join("_");
    graph.name(merged, name);
    let mut start = 0;
    let slice = |p: &Part| {
        let len = graph.width(p.class);
        let attrs = vec![Attr::Int(start as i64), Attr::Int(len as i64)];
        start += len;
        (p.class, Node::Op(OpKind::SliceCols, attrs, vec![merged]))
    };
    group.iter().map(slice).collect()
}
