//! Finds products of integers that stand for a product of floats: the input rounded to bytes with a scale of its own (`DynamicQuantizeLinear`), a weight
//! of bytes, the result times both scales. What the input is rounded to is the compiler's to choose (`--quant`), and must not depend on the other
//! tokens of a step, as a scale of the whole tensor does; the weight stays exactly what it is.
//!
//! Before:
//! ```text
//! func @f(%x: f32[b, s, 8]) {
//!   weight @w = "w": i8[8, 4]
//!   weight @ws = "ws": f32[4]
//!   %scale = tensor.dynamic_scale %x : f32[]
//!   %zero = tensor.dynamic_zero %x : u8[]
//!   %q = tensor.quantize %x, %scale, %zero : u8[b, s, 8]
//!   %qi = tensor.cast %q, to=i32 : i32[b, s, 8]
//!   %zi = tensor.cast %zero, to=i32 : i32[]
//!   %from_zero = tensor.sub %qi, %zi : i32[b, s, 8]
//!   %wi = tensor.cast @w, to=i32 : i32[8, 4]
//!   %product = tensor.matmul %from_zero, %wi : i32[b, s, 4]
//!   %real = tensor.cast %product, to=f32 : f32[b, s, 4]
//!   %scales = tensor.mul %scale, @ws : f32[4]
//!   %y = tensor.mul %real, %scales : f32[b, s, 4]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[b, s, 8]) {
//!   weight @w: f32[8, 4] = scale_columns(cast(f32, "w": i8[8, 4]), "ws": f32[4])
//!   %y = tensor.matmul %x, @w : f32[b, s, 4]
//!   return %y
//! }
//! ```

use crate::egraph::{Graph, Rule, Union};
use crate::raise::find::{all, either, literal, node, operand};
use crate::registry::{Exactness, Kind, Pass};
use egg::Id;
use llamac_ir::dtype::DType;
use llamac_ir::op::{OpKind, Stage, TensorOp as T};
use llamac_ir::recipe::Recipe;

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "raise-integer",
    kind: Kind::Rewrite(&[Rule { name: "raise-integer/product", propose }]),
    exactness: Exactness::Approximate,
    stage: Stage::Graph,
    source: include_str!("raise_integer.rs"),
};

fn propose(graph: &mut Graph) -> Vec<Vec<Union>> {
    let mut found = Vec::new();
    for (class, _, o) in graph.ops(OpKind::Tensor(T::Mul)) {
        for (real, scales) in [(o[0], o[1]), (o[1], o[0])] {
            for product in operand(graph, real, T::Cast) {
                for (_, factors) in all(graph, product, T::MatMul) {
                    found.extend(inputs(graph, factors[0], scales).into_iter().map(|(x, by)| (class, x, factors[1], by)));
                }
            }
        }
    }
    let mut out = Vec::new();
    for (class, x, integers, by) in found {
        // A product of other floats than the input's would have another type.
        if graph.ty(class).dtype != graph.ty(x).dtype || graph.ty(class).dtype != DType::F32 {
            continue;
        }
        for codes in operand(graph, integers, T::Cast) {
            if let Some((name, recipe)) = weight(graph, codes, by) {
                let weight = graph.weight(&name, recipe);
                out.push(vec![(class, node(T::MatMul, vec![], vec![x, weight]))]);
            }
        }
    }
    out
}

/// `(x, s)` where the class is what `x` was rounded to, less its zero point, and the scales are those of `x` times `s`.
fn inputs(graph: &Graph, class: Id, scales: Id) -> Vec<(Id, Id)> {
    let mut out = Vec::new();
    for (_, difference) in all(graph, class, T::Sub) {
        let zeros = operand(graph, difference[1], T::Cast);
        for (_, q) in operand(graph, difference[0], T::Cast).into_iter().flat_map(|c| all(graph, c, T::Quantize)) {
            let (x, scale, zero) = (q[0], q[1], q[2]);
            let same = |a: Id, b: Id| graph.egraph.find(a) == graph.egraph.find(b);
            // Scale and zero point of all of `x`: nothing of it is cut off.
            let own = |class: Id, op: T| operand(graph, class, op).into_iter().any(|of| same(of, x));
            if zeros.iter().any(|z| same(*z, zero)) && own(scale, T::DynamicScale) && own(zero, T::DynamicZero) {
                out.extend(either(graph, scales, T::Mul).into_iter().filter(|(s, _)| same(*s, scale)).map(|(_, by)| (x, by)));
            }
        }
    }
    out
}

/// Name and recipe of a weight `[k, n]` of codes times one scale or one for each column.
fn weight(graph: &Graph, codes: Id, by: Id) -> Option<(String, Recipe)> {
    let (codes, by) = (graph.as_weight(codes)?, graph.as_weight(by)?);
    let (shape, each) = (codes.ty.sizes()?, by.ty.sizes()?);
    let [_, columns] = shape[..] else { return None };
    if !matches!(codes.ty.dtype, DType::I8 | DType::U8) {
        return None;
    }
    let scales = match literal(&by.recipe) {
        _ if each == [columns] => by.recipe.clone(),
        Some(one) => Recipe::Literal { shape: vec![columns], data: vec![one as f32; columns].into() },
        _ => return None,
    };
    let real = Recipe::Cast(DType::F32, Box::new(codes.recipe.clone()));
    Some((codes.name.clone(), Recipe::ScaleColumns(Box::new(real), Box::new(scales))))
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const DYNAMIC: &str = "func @f(%x: f32[b, s, 8], %other: f32[b, s, 8]) {
  weight @w = \"w\": i8[8, 4]
  weight @ws = literal([1], 0.25)
  %scale = tensor.dynamic_scale %x
  %zero = tensor.dynamic_zero %x
  %q = tensor.quantize %x, %scale, %zero
  %qi = tensor.cast %q, to=i32
  %zi = tensor.cast %zero, to=i32
  %from_zero = tensor.sub %qi, %zi
  %wi = tensor.cast @w, to=i32
  %product = tensor.matmul %from_zero, %wi
  %real = tensor.cast %product, to=f32
  %scales = tensor.mul @ws, %scale
  %y = tensor.mul %scales, %real
  return %y
}";

    #[test]
    fn one_scale_for_the_whole_weight_is_one_for_each_column() {
        let text = check("raise-integer", DYNAMIC);
        assert!(text.contains("%y = tensor.matmul %x, @w") && text.contains("literal([4], 0.25, 0.25, 0.25, 0.25)"), "{text}");
        assert_eq!(text.lines().filter(|l| l.contains("tensor.")).count(), 1, "{text}");
    }

    #[test]
    fn scales_and_zero_points_of_something_else_stay() {
        for (from, to) in [
            ("dynamic_scale %x", "dynamic_scale %other"),
            ("dynamic_zero %x", "dynamic_zero %other"),
            ("%q = tensor.quantize %x", "%q = tensor.quantize %other"),
            ("tensor.mul @ws, %scale", "tensor.mul @ws, @ws"),
        ] {
            assert!(fired("raise-integer", &DYNAMIC.replace(from, to)).is_empty(), "{from} to {to}");
        }
    }

    #[test]
    fn a_weight_that_is_computed_stays() {
        let computed = DYNAMIC.replace("tensor.cast @w, to=i32", "tensor.cast @w, to=i32\n  %w2 = tensor.add %wi, %wi");
        assert!(fired("raise-integer", &computed.replace("%from_zero, %wi", "%from_zero, %w2")).is_empty());
    }
}
