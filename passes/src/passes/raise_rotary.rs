//! Finds rotary embeddings that an exporter wrote with slices and tables: halves (`x * cos + rotate_half(x) * sin`, tables twice as wide as they
//! need be) and pairs (even and odd elements taken apart and stacked again).
//!
//! Before:
//! ```text
//! func @f(%x: f32[b, 2, s, 8], %a: f32[b, s, 4]) {
//!   %twice = tensor.concat %a, %a, axis=-1 : f32[b, s, 8]
//!   %cos = tensor.cos %twice : f32[b, s, 8]
//!   %sin = tensor.sin %twice : f32[b, s, 8]
//!   %c = tensor.reshape %cos, shape=[b, 1, s, 8] : f32[b, 1, s, 8]
//!   %t = tensor.reshape %sin, shape=[b, 1, s, 8] : f32[b, 1, s, 8]
//!   %left = tensor.slice %x, axis=3, start=[0], len=[4] : f32[b, 2, s, 4]
//!   %right = tensor.slice %x, axis=3, start=[4], len=[4] : f32[b, 2, s, 4]
//!   %minus = tensor.neg %right : f32[b, 2, s, 4]
//!   %turned = tensor.concat %minus, %left, axis=-1 : f32[b, 2, s, 8]
//!   %xc = tensor.mul %x, %c : f32[b, 2, s, 8]
//!   %xs = tensor.mul %turned, %t : f32[b, 2, s, 8]
//!   %y = tensor.add %xc, %xs : f32[b, 2, s, 8]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[b, 2, s, 8], %a: f32[b, s, 4]) {
//!   %tensor.cos = tensor.cos %a : f32[b, s, 4]
//!   %tensor.sin = tensor.sin %a : f32[b, s, 4]
//!   %y = tensor.rotary %x, %tensor.cos, %tensor.sin : f32[b, 2, s, 8]
//!   return %y
//! }
//! ```

use crate::egraph::{Graph, Rule, Union};
use crate::raise::find::{all, either, is_last, node, number, operand, squeezed};
use crate::registry::{Exactness, Kind, Pass};
use egg::Id;
use llamac_ir::op::{Attr, OpKind, Stage, TensorOp as T};
use llamac_ir::types::Dim;

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "raise-rotary",
    kind: Kind::Rewrite(&[
        Rule { name: "raise-rotary/one", propose: one },
        Rule { name: "raise-rotary/table", propose: table },
        Rule { name: "raise-rotary/outer", propose: outer },
        Rule { name: "raise-rotary/half", propose: half },
        Rule { name: "raise-rotary/pairs", propose: pairs },
    ]),
    exactness: Exactness::Reassociated,
    stage: Stage::Graph,
    source: include_str!("raise_rotary.rs"),
};

/// Tables times a factor of 1, which scaled rotary embeddings have.
fn one(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, o) in graph.ops(OpKind::Tensor(T::Mul)) {
        for (x, factor) in [(o[0], o[1]), (o[1], o[0])] {
            if number(graph, factor) == Some(1.0) && graph.ty(x) == graph.ty(class) && graph.egraph.find(x) != graph.egraph.find(class) {
                out.extend(graph.egraph[x].nodes.first().map(|same| vec![(class, same.clone())]));
            }
        }
    }
    out
}

/// Cosine and sine of two copies are two copies of cosine and sine.
fn table(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for op in [T::Cos, T::Sin] {
        for (class, _, o) in graph.ops(OpKind::Tensor(op)) {
            for (attrs, parts) in all(graph, o[0], T::Concat) {
                if let [a, b] = parts[..]
                    && a == b
                {
                    let one = graph.op(OpKind::Tensor(op), vec![], vec![a]);
                    out.push(vec![(class, node(T::Concat, attrs, vec![one, one]))]);
                }
            }
        }
    }
    out
}

/// A column times a row, turned: the row's numbers times the column's. `[1, n, 1] x [b, 1, s]`, then exchanged, is `[b, s, 1] * [n]`.
fn outer(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, attrs, o) in graph.ops(OpKind::Tensor(T::Transpose)) {
        if attrs != [Attr::ints(&[0, 2, 1])] {
            continue;
        }
        for (_, ab) in all(graph, o[0], T::MatMul) {
            let (column, row) = (graph.ty(ab[0]).shape.clone(), graph.ty(ab[1]).shape.clone());
            let ([_, n, k], [b, _, s]) = (column.as_slice(), row.as_slice()) else { continue };
            if *k != Dim::int(1) {
                continue;
            }
            let numbers: Vec<Id> = std::iter::once(ab[0]).chain(operand(graph, ab[0], T::Expand)).collect();
            let weights: Vec<_> = numbers.into_iter().filter_map(|c| graph.as_weight(c).cloned()).collect();
            for w in weights {
                let Some(vector) = n.value().and_then(|n| crate::recipes::reshaped(&w.recipe, &[n])) else { continue };
                if w.ty.shape.iter().filter(|d| **d != Dim::int(1)).count() > 1 {
                    continue;
                }
                let vector = graph.weight(&w.name, vector);
                let turned = Attr::Dims(vec![b.clone(), s.clone(), Dim::int(1)]);
                let pos = graph.op(OpKind::Tensor(T::Reshape), vec![turned], vec![ab[1]]);
                out.push(vec![(class, node(T::Mul, vec![], vec![pos, vector]))]);
            }
        }
    }
    out
}

/// `x * cos + rotate_half(x) * sin`.
fn half(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, o) in graph.ops(OpKind::Tensor(T::Add)) {
        if graph.ty(class).shape.len() != 4 {
            continue;
        }
        for (straight, turned) in [(o[0], o[1]), (o[1], o[0])] {
            for (x, cos) in either(graph, straight, T::Mul) {
                let Some(cos) = doubled(graph, cos, x) else { continue };
                for (r, sin) in either(graph, turned, T::Mul) {
                    let Some(sin) = doubled(graph, sin, x) else { continue };
                    if graph.ty(x) == graph.ty(class) && is_turned(graph, r, x) {
                        out.push(vec![(class, node(T::Rotary, vec![Attr::Int(0)], vec![x, cos, sin]))]);
                    }
                }
            }
        }
    }
    out
}

/// `t: [b, s, d/2]` where the class is `[b, 1, s, d]`, `t` twice side by side.
fn doubled(graph: &Graph, class: Id, x: Id) -> Option<Id> {
    let [b, _, s, d] = graph.ty(x).shape.as_slice() else { return None };
    let wide = [b.clone(), Dim::int(1), s.clone(), d.clone()];
    if graph.ty(class).shape != wide {
        return None;
    }
    let inner = squeezed(graph, class).into_iter().filter(|c| graph.ty(*c).shape == [b.clone(), s.clone(), d.clone()]);
    inner.flat_map(|c| all(graph, c, T::Concat).into_iter().map(move |found| (c, found))).find_map(|(c, (attrs, parts))| match parts[..] {
        [a, b] if a == b && is_last(graph, c, &attrs[0]) => Some(a),
        _ => None,
    })
}

/// Whether the class is `concat(-right half, left half)` of `x`.
fn is_turned(graph: &Graph, class: Id, x: Id) -> bool {
    let width = graph.width(x) as i64;
    let part = |class: Id, start: i64| {
        all(graph, class, T::Slice).iter().any(|(attrs, o)| {
            o[0] == x && is_last(graph, x, &attrs[0]) && attrs[1..] == [Attr::ints(&[start]), Attr::ints(&[width / 2]), Attr::Int(1)]
        })
    };
    all(graph, class, T::Concat).iter().any(|(attrs, parts)| match parts[..] {
        [minus, left] => {
            width % 2 == 0
                && is_last(graph, x, &attrs[0])
                && part(left, 0)
                && operand(graph, minus, T::Neg).into_iter().any(|right| part(right, width / 2))
        }
        _ => false,
    })
}

/// Even and odd elements, rotated and stacked again: `[b, s, heads, d]`.
fn pairs(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, o) in graph.ops(OpKind::Tensor(T::Reshape)) {
        for (attrs, parts) in all(graph, o[0], T::Concat) {
            let [even, odd] = parts[..] else { continue };
            if !is_last(graph, o[0], &attrs[0]) || graph.ty(class).shape.len() != 4 {
                continue;
            }
            let evens: Vec<Id> = squeezed(graph, even).into_iter().flat_map(|c| all(graph, c, T::Sub)).map(|(_, o)| o[0]).collect();
            for minus in evens {
                for found in rotated(graph, minus, even, odd) {
                    let (x, cos, sin) = found;
                    if graph.ty(x) != graph.ty(class) {
                        continue;
                    }
                    let middle = vec![Attr::ints(&[0, 2, 1, 3])];
                    let heads = graph.op(OpKind::Tensor(T::Transpose), middle.clone(), vec![x]);
                    let turned = graph.op(OpKind::Tensor(T::Rotary), vec![Attr::Int(1)], vec![heads, cos, sin]);
                    out.push(vec![(class, node(T::Transpose, middle, vec![turned]))]);
                }
            }
        }
    }
    out
}

/// `(x, cos, sin)` where `even = x0 cos - x1 sin` (its first product is `first`) and `odd = x0 sin + x1 cos`.
fn rotated(graph: &Graph, first: Id, even: Id, odd: Id) -> Vec<(Id, Id, Id)> {
    let mut out = Vec::new();
    let subs: Vec<(Id, Id)> = squeezed(graph, even).into_iter().flat_map(|c| all(graph, c, T::Sub)).map(|(_, o)| (o[0], o[1])).collect();
    let adds: Vec<(Id, Id)> = squeezed(graph, odd).into_iter().flat_map(|c| either(graph, c, T::Add)).collect();
    for (_, second) in subs.into_iter().filter(|(a, _)| *a == first) {
        for (x0, cos) in either(graph, first, T::Mul) {
            let Some(x) = picked(graph, x0, 0) else { continue };
            for (x1, sin) in either(graph, second, T::Mul) {
                if picked(graph, x1, 1) != Some(x) {
                    continue;
                }
                let is = |class: Id, a: Id, b: Id| either(graph, class, T::Mul).contains(&(a, b));
                if adds.iter().any(|(p, q)| is(*p, x0, sin) && is(*q, x1, cos))
                    && let (Some(cos), Some(sin)) = (row_table(graph, cos, x), row_table(graph, sin, x))
                {
                    out.push((x, cos, sin));
                }
            }
        }
    }
    out
}

/// `x: [b, s, heads, d]` where the class is its even (0) or odd (1) elements.
fn picked(graph: &Graph, class: Id, which: i64) -> Option<Id> {
    for c in squeezed(graph, class) {
        for (attrs, o) in all(graph, c, T::Gather) {
            if !is_last(graph, o[0], &attrs[0]) || number(graph, o[1]) != Some(which as f64) || graph.width(o[0]) != 2 {
                continue;
            }
            for (_, whole) in all(graph, o[0], T::Reshape) {
                let (wide, split) = (&graph.ty(whole[0]).shape, &graph.ty(o[0]).shape);
                if wide.len() == 4 && split.len() == 5 && wide[..3] == split[..3] {
                    return Some(whole[0]);
                }
            }
        }
    }
    None
}

/// The table `[b, s, d/2]` that a class `[b, s, 1, d/2]` is, also if it was stacked with another and taken out again.
fn row_table(graph: &Graph, class: Id, x: Id) -> Option<Id> {
    let [b, s, _, d] = graph.ty(x).shape.as_slice() else { return None };
    let wanted = [b.clone(), s.clone(), (d.value()? / 2).into()];
    let table = squeezed(graph, class).into_iter().find(|c| graph.ty(*c).shape == wanted)?;
    for (attrs, o) in all(graph, table, T::Gather) {
        let Some(which) = number(graph, o[1]) else { continue };
        for (axis, parts) in all(graph, o[0], T::Concat) {
            let stacked = is_last(graph, o[0], &attrs[0]) && is_last(graph, o[0], &axis[0]) && parts.len() == graph.width(o[0]);
            if let Some(part) = parts.get(which as usize).filter(|_| stacked && which >= 0.0) {
                return squeezed(graph, *part).into_iter().find(|p| graph.ty(*p).shape == wanted);
            }
        }
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const PAIRS: &str = "func @f(%x: f32[b, s, 2, 8], %a: f32[b, s, 4]) {
  %zero = tensor.values shape=[], values=[0]
  %one = tensor.values shape=[], values=[1]
  %cos = tensor.cos %a
  %sin = tensor.sin %a
  %c = tensor.reshape %cos, shape=[b, s, 1, 4]
  %t = tensor.reshape %sin, shape=[b, s, 1, 4]
  %split = tensor.reshape %x, shape=[b, s, 2, 4, 2]
  %x0 = tensor.gather %split, %zero, axis=4
  %x1 = tensor.gather %split, %one, axis=4
  %p = tensor.mul %x0, %c
  %q = tensor.mul %x1, %t
  %even = tensor.sub %p, %q
  %u = tensor.mul %x0, %t
  %v = tensor.mul %x1, %c
  %odd = tensor.add %u, %v
  %e = tensor.reshape %even, shape=[b, s, 2, 4, 1]
  %o = tensor.reshape %odd, shape=[b, s, 2, 4, 1]
  %both = tensor.concat %e, %o, axis=-1
  %y = tensor.reshape %both, shape=[b, s, 2, 8]
  return %y
}";

    #[test]
    fn pairs_are_an_interleaved_rotation() {
        insta::assert_snapshot!(check("raise-rotary", PAIRS));
    }

    #[test]
    fn what_turns_the_other_way_is_no_rotation() {
        assert!(fired("raise-rotary", &PAIRS.replace("tensor.sub %p, %q", "tensor.sub %q, %p")).is_empty());
        assert!(fired("raise-rotary", &PAIRS.replace("tensor.mul %x1, %c", "tensor.mul %x1, %t")).is_empty());
        assert!(fired("raise-rotary", &PAIRS.replace("%split, %one", "%split, %zero")).is_empty());
    }

    #[test]
    fn a_factor_of_one_is_nothing() {
        let factor = "func @f(%a: f32[b, s, 4]) {
  weight @one = literal([], 1.0)
  %c = tensor.cos %a
  %y = tensor.mul @one, %c
  return %y
}";
        assert!(check("raise-rotary", factor).ends_with("tensor.cos %a  : f32[b, s, 4]\n  return %c\n}"));
        assert!(fired("raise-rotary", &factor.replace("1.0", "1.5")).is_empty());
        assert!(fired("raise-rotary", &factor.replace("literal([], 1.0)", "literal([1, 1, 1, 1], 1.0)")).is_empty());
    }

    #[test]
    fn frequencies_by_a_product_of_column_and_row_are_a_product_of_elements() {
        let text = check(
            "raise-rotary",
            "func @f(%p: f32[b, 1, s]) {
  weight @w = \"w\": f32[1, 4, 1]
  %e = tensor.expand @w, shape=[b, 4, 1]
  %m = tensor.matmul %e, %p
  %y = tensor.transpose %m, perm=[0, 2, 1]
  return %y
}",
        );
        insta::assert_snapshot!(text);
    }
}
