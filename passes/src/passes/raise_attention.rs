//! Finds attention that an exporter wrote with products and a softmax, the scale on scores, queries or keys; and takes away the copies of keys and
//! values that it made for grouped queries.
//!
//! Before:
//! ```text
//! func @f(%q: f32[b, 4, s, 8], %k: f32[b, 2, t, 8], %v: f32[b, 2, t, 8], %m: f32[b, 1, s, t]) {
//!   weight @scale = literal([], 0.5)
//!   %k5 = tensor.reshape %k, shape=[b, 2, 1, t, 8] : f32[b, 2, 1, t, 8]
//!   %kx = tensor.expand %k5, shape=[b, 2, 2, t, 8] : f32[b, 2, 2, t, 8]
//!   %k4 = tensor.reshape %kx, shape=[b, 4, t, 8] : f32[b, 4, t, 8]
//!   %v5 = tensor.reshape %v, shape=[b, 2, 1, t, 8] : f32[b, 2, 1, t, 8]
//!   %vx = tensor.expand %v5, shape=[b, 2, 2, t, 8] : f32[b, 2, 2, t, 8]
//!   %v4 = tensor.reshape %vx, shape=[b, 4, t, 8] : f32[b, 4, t, 8]
//!   %kt = tensor.transpose %k4, perm=[0, 1, 3, 2] : f32[b, 4, 8, t]
//!   %qk = tensor.matmul %q, %kt : f32[b, 4, s, t]
//!   %scaled = tensor.mul %qk, @scale : f32[b, 4, s, t]
//!   %masked = tensor.add %scaled, %m : f32[b, 4, s, t]
//!   %p = tensor.softmax %masked, axis=-1 : f32[b, 4, s, t]
//!   %y = tensor.matmul %p, %v4 : f32[b, 4, s, 8]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%q: f32[b, 4, s, 8], %k: f32[b, 2, t, 8], %v: f32[b, 2, t, 8], %m: f32[b, 1, s, t]) {
//!   %y = tensor.attention %q, %k, %v, %m, scale=0.5 : f32[b, 4, s, 8]
//!   return %y
//! }
//! ```

use crate::egraph::{Graph, Rule, Union};
use crate::raise::find::{all, either, is_last, is_perm, node, number, operand};
use crate::registry::{Exactness, Kind, Pass};
use egg::Id;
use llamac_ir::op::{Attr, OpKind, Stage, TensorOp as T};
use llamac_ir::types::Dim;

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "raise-attention",
    kind: Kind::Rewrite(&[
        Rule { name: "raise-attention/softmax", propose: softmax },
        Rule { name: "raise-attention/repeat", propose: repeat },
    ]),
    exactness: Exactness::Reassociated,
    stage: Stage::Graph,
    source: include_str!("raise_attention.rs"),
};

/// `softmax(scale * q k^T + mask) v`.
fn softmax(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, _, o) in graph.ops(OpKind::Tensor(T::MatMul)) {
        if graph.ty(class).shape.len() != 4 {
            continue;
        }
        for scores in guarded(graph, o[0]).into_iter().flat_map(|p| all(graph, p, T::Softmax)).filter(|(a, s)| is_last(graph, s[0], &a[0]))
        {
            let scores = scores.1[0];
            let mut masked: Vec<(Id, Option<Id>)> = either(graph, scores, T::Add).into_iter().map(|(s, m)| (s, Some(m))).collect();
            masked.push((scores, None));
            for (scores, mask) in masked {
                for (q, k, scale) in products(graph, scores) {
                    if !fits(graph, q, k, o[1], mask) {
                        continue;
                    }
                    let operands = [q, k, o[1]].into_iter().chain(mask).collect();
                    out.push(vec![(class, node(T::Attention, vec![Attr::float(scale), Attr::Int(0)], operands))]);
                }
            }
        }
    }
    out
}

/// The class, and what it is but for rows that see nothing: exporters put 0 where the softmax is not a number.
fn guarded(graph: &Graph, class: Id) -> Vec<Id> {
    let mut out = vec![class];
    for (_, o) in all(graph, class, T::Where) {
        if number(graph, o[1]) == Some(0.0) && operand(graph, o[0], T::IsNan).contains(&o[2]) {
            out.push(o[2]);
        }
    }
    out
}

/// `(q, k, scale)` where the class is `scale * q k^T`.
fn products(graph: &Graph, class: Id) -> Vec<(Id, Id, f64)> {
    let mut out = Vec::new();
    for (product, outer) in scaled(graph, class) {
        for (_, o) in all(graph, product, T::MatMul) {
            for (q, left) in scaled(graph, o[0]) {
                for (turned, right) in scaled(graph, o[1]) {
                    for (attrs, k) in all(graph, turned, T::Transpose) {
                        if is_perm(&attrs, &[0, 1, 3, 2]) {
                            let scale = shortest(outer * left * right);
                            out.extend(scaled(graph, k[0]).into_iter().map(|(k, inner)| (q, k, shortest(scale * inner))));
                        }
                    }
                }
            }
        }
    }
    out
}

/// Products of decimals have digits behind the f32 that the exporter meant.
fn shortest(x: f64) -> f64 {
    format!("{:?}", x as f32).parse().unwrap_or(x)
}

/// The class times 1, and `(x, factor)` where it is `x * factor` or `x / (1 / factor)`.
fn scaled(graph: &Graph, class: Id) -> Vec<(Id, f64)> {
    let mut out = vec![(class, 1.0)];
    let same = |x: &Id| graph.ty(*x) == graph.ty(class);
    out.extend(either(graph, class, T::Mul).into_iter().filter_map(|(x, f)| Some((x, number(graph, f)?))).filter(|(x, _)| same(x)));
    let divided = all(graph, class, T::Div).into_iter().filter_map(|(_, o)| Some((o[0], 1.0 / number(graph, o[1])?)));
    out.extend(divided.filter(|(x, f)| same(x) && f.is_finite()));
    out
}

fn fits(graph: &Graph, q: Id, k: Id, v: Id, mask: Option<Id>) -> bool {
    let ([b, h, s, _], [b2, g, t, d], [b3, g2, t2, _]) =
        (graph.ty(q).shape.as_slice(), graph.ty(k).shape.as_slice(), graph.ty(v).shape.as_slice())
    else {
        return false;
    };
    let groups = h.value().zip(g.value()).is_some_and(|(h, g)| g > 0 && h % g == 0);
    let dtype = graph.ty(q).dtype;
    let mask = mask.is_none_or(|m| {
        let ty = graph.ty(m);
        let full = [b, h, s, t];
        ty.dtype == dtype && ty.shape.len() == 4 && ty.shape.iter().zip(full).all(|(x, y)| x == y || *x == Dim::int(1))
    });
    b == b2 && b == b3 && g == g2 && t == t2 && groups && graph.ty(q).shape.last() == Some(d) && mask && graph.ty(k).dtype == dtype
}

/// Attention over repeated keys and values is grouped attention.
fn repeat(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut out = Vec::new();
    for (class, attrs, o) in graph.ops(OpKind::Tensor(T::Attention)) {
        for k in repeated(graph, o[1]) {
            for v in repeated(graph, o[2]).into_iter().filter(|v| graph.ty(*v).shape[1] == graph.ty(k).shape[1]) {
                let operands = [o[0], k, v].into_iter().chain(o.get(3).copied()).collect();
                out.push(vec![(class, node(T::Attention, attrs.clone(), operands))]);
            }
        }
    }
    out
}

/// `x: [b, g, t, d]` where the class is `[b, g * n, t, d]`, each head `n` times.
fn repeated(graph: &Graph, class: Id) -> Vec<Id> {
    let mut out = Vec::new();
    for (_, o) in all(graph, class, T::Reshape) {
        for (_, e) in all(graph, o[0], T::Expand) {
            for (_, x) in all(graph, e[0], T::Reshape) {
                let (wide, small, whole) = (&graph.ty(o[0]).shape, &graph.ty(e[0]).shape, &graph.ty(x[0]).shape);
                let ([b, g, n, t, d], [sb, sg, one, st, sd], [xb, xg, xt, xd], [cb, cg, ct, cd]) =
                    (wide.as_slice(), small.as_slice(), whole.as_slice(), graph.ty(class).shape.as_slice())
                else {
                    continue;
                };
                let kept = [b, g, t, d] == [sb, sg, st, sd] && [b, g, t, d] == [xb, xg, xt, xd] && [b, t, d] == [cb, ct, cd];
                if kept && *one == Dim::int(1) && g.mul(n) == *cg {
                    out.push(x[0]);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const SPLIT: &str = "func @f(%q: f32[b, 2, s, 8], %k: f32[b, 2, t, 8], %v: f32[b, 2, t, 8], %m: f32[1, 1, s, t]) {
  weight @half = literal([], 0.5)
  weight @zero = literal([1], 0.0)
  %qs = tensor.mul %q, @half
  %kt = tensor.transpose %k, perm=[0, 1, 3, 2]
  %ks = tensor.mul %kt, @half
  %qk = tensor.matmul %qs, %ks
  %masked = tensor.add %m, %qk
  %p = tensor.softmax %masked, axis=3
  %nan = tensor.is_nan %p
  %safe = tensor.where %nan, @zero, %p
  %y = tensor.matmul %safe, %v
  return %y
}";

    #[test]
    fn a_scale_on_both_factors_and_a_guard_are_attention() {
        let text = check("raise-attention", SPLIT);
        assert!(text.contains("%y = tensor.attention %q, %k, %v, %m, scale=0.25") && text.lines().count() == 4, "{text}");
    }

    #[test]
    fn a_softmax_over_queries_or_keys_that_are_not_turned_is_something_else() {
        assert!(fired("raise-attention", &SPLIT.replace("axis=3", "axis=2")).is_empty());
        let square = SPLIT
            .replace("[b, 2, t, 8]", "[b, 2, s, 8]")
            .replace("f32[1, 1, s, t]", "f32[1, 1, s, 8]")
            .replace("perm=[0, 1, 3, 2]", "perm=[0, 1, 2, 3]");
        assert!(!square.contains("3, 2]"));
    }

    #[test]
    fn heads_in_another_order_are_no_groups() {
        let tiled = "func @f(%q: f32[b, 4, s, 8], %k: f32[b, 2, t, 8]) {
  %k5 = tensor.reshape %k, shape=[b, 1, 2, t, 8]
  %kx = tensor.expand %k5, shape=[b, 2, 2, t, 8]
  %k4 = tensor.reshape %kx, shape=[b, 4, t, 8]
  %y = tensor.attention %q, %k4, %k4, scale=0.5
  return %y
}";
        assert!(fired("raise-attention", tiled).is_empty());
    }
}
