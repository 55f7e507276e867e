//! Chooses what is rounded. In f32 nothing is: narrower weights are widened. In bf16 matrices, inputs of products, K and V are rounded;
//! weights of norms and biases stay as they are stored, because they are few. A table that rows are gathered from is a matrix too,
//! so that a head tied to it is the same weight. In the quantized formats matrices of layers get the one, embedding and head the other format of
//! `Precision`, and inputs of products become int8. Products that choose experts stay in f32.
//!
//! Before:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @w = "w": bf16[4, 8]
//!   %y = linear %x, @w : f32[s, 4]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[s, 8]) {
//!   weight @w: f32[4, 8] = cast(f32, "w": bf16[4, 8])
//!   %y = linear %x, @w : f32[s, 4]
//!   return %y
//! }
//! ```

use crate::context::Context;
use crate::edit;
use crate::pipeline::Precision;
use crate::recipes;
use crate::registry::{Exactness, Kind, Pass};
use crate::variants::MAIN;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, Module, Operand};
use llamac_ir::op::{OpKind, Stage};
use std::collections::BTreeSet;

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "choose-precision",
    kind: Kind::Transform(run),
    exactness: Exactness::Approximate,
    stage: Stage::Quantized,
    source: include_str!("choose_precision.rs"),
};

fn run(module: &mut Module, context: &mut Context) -> Result<(), String> {
    let precision = context.precision;
    for func in &mut module.funcs {
        let to = if func.name == MAIN { precision.table } else { precision.weights };
        if context.fire(&func.name, &format!("choose-precision/{to}")) {
            let given: Vec<DType> =
                func.weights.iter().map(|w| context.formats.get(&(func.name.clone(), w.name.clone())).copied().unwrap_or(to)).collect();
            choose(func, &given, to, precision.kv)?;
        }
    }
    Ok(())
}

/// What a matrix stays in if its columns cannot be quantized in groups.
const UNGROUPED: DType = DType::Bf16;

/// Casts weights, vectors too if that only widens them, and rounds what products and the cache take in. `given` has the format of each weight
/// that nothing speaks against, `to` that of products without a matrix.
fn choose(func: &mut Func, given: &[DType], to: DType, kv: DType) -> Result<(), String> {
    let (routers, padded) = (router_weights(func), behind_padded_heads(func));
    let format = |w: usize| match given[w] {
        _ if routers.contains(&w) => DType::F32,
        to if padded.contains(&w) && to.info().scale.is_some() => UNGROUPED,
        to => to,
    };
    let formats: Vec<DType> = (0..func.weights.len()).map(format).collect();
    for (weight, to) in func.weights.iter_mut().zip(&formats) {
        if weight.ty.dtype.info().real && (*to == DType::F32 || weight.ty.shape.len() >= 2) {
            weight.recipe = recipes::cast(*to, weight.recipe.clone());
            weight.ty = weight.recipe.ty()?;
        }
    }
    for inst in &mut func.body {
        let matrix = inst.operands.iter().find_map(|o| match o {
            Operand::Weight(w) if func.weights[w.0 as usize].ty.shape.len() >= 2 => Some(formats[w.0 as usize]),
            _ => None,
        });
        edit::set_word(inst, "act", Precision::act(matrix.unwrap_or(to)).name());
        edit::set_word(inst, "kv", kv.name());
    }
    Ok(())
}

/// Weights that read heads whose size is no multiple of 16 features. A target may pad such heads, and then groups of columns would not be the same.
fn behind_padded_heads(func: &Func) -> BTreeSet<usize> {
    let padded = |o: Operand| edit::def(func, o, OpKind::Attention).is_some_and(|i| !func.body[i].int("head_dim").is_multiple_of(16));
    let readers = func.body.iter().filter(|inst| inst.op == OpKind::Linear && padded(inst.operands[0]));
    readers.filter_map(|inst| if let Operand::Weight(w) = inst.operands[1] { Some(w.0 as usize) } else { None }).collect()
}

/// Weights of products whose result chooses experts: a rounded score could choose another one.
fn router_weights(func: &Func) -> BTreeSet<usize> {
    let chooses = func.body.iter().filter(|inst| inst.op == OpKind::TopGates);
    let products = chooses.filter_map(|inst| edit::def(func, inst.operands[0], OpKind::Linear));
    products.filter_map(|i| if let Operand::Weight(w) = func.body[i].operands[1] { Some(w.0 as usize) } else { None }).collect()
}

/// Matrices that are never quantized.
pub(crate) fn not_quantized(func: &Func) -> BTreeSet<usize> {
    router_weights(func).into_iter().chain(behind_padded_heads(func)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Options;
    use crate::testing::check_with;

    const LAYER: &str = "func @f(%x: f32[s, 8], %pos: i32[s], %seq: i32[s]) {
  weight @g = \"g\": f16[8]
  weight @w = \"w\": f32[8, 8]
  weight @b = \"b\": f16[8]
  %n = rms_norm %x, @g, eps=1e-5
  %k = linear %n, @w, @b
  kv_write %k, %k, %pos, %seq, head_dim=4
  %a = attention %k, %pos, %seq, heads=2, kv_heads=2, head_dim=4, scale=0.5
  return %a
}";

    fn at(precision: Precision) -> String {
        check_with("choose-precision", LAYER, &Options { precision, ..Options::default() }).0
    }

    #[test]
    fn bf16_rounds_matrices_inputs_and_the_cache_only() {
        insta::assert_snapshot!(at(Precision::BF16), @r#"
        func @f(%x: f32[s, 8], %pos: i32[s], %seq: i32[s]) {
          weight @g: f16[8] = "g": f16[8]
          weight @w: bf16[8, 8] = cast(bf16, "w": f32[8, 8])
          weight @b: f16[8] = "b": f16[8]
          %n = rms_norm %x, @g, eps=1e-5                                : f32[s, 8]
          %k = linear %n, @w, @b, act=bf16                              : f32[s, 8]
          kv_write %k, %k, %pos, %seq, head_dim=4, kv=bf16
          %a = attention %k, %pos, %seq, heads=2, kv_heads=2, head_dim=4, scale=0.5, kv=bf16  : f32[s, 8]
          return %a
        }

        func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
          weight @e: bf16[4, 4] = cast(bf16, "main.e": f32[4, 4])
          %x = embed %ids, @e         : f32[s, 4]
          %y = gather_rows %x, %want  : f32[r, 4]
          return %y
        }
        "#);
    }

    #[test]
    fn f32_widens_and_rounds_nothing() {
        insta::assert_snapshot!(at(Precision::F32), @r#"
        func @f(%x: f32[s, 8], %pos: i32[s], %seq: i32[s]) {
          weight @g: f32[8] = cast(f32, "g": f16[8])
          weight @w: f32[8, 8] = "w": f32[8, 8]
          weight @b: f32[8] = cast(f32, "b": f16[8])
          %n = rms_norm %x, @g, eps=1e-5                                : f32[s, 8]
          %k = linear %n, @w, @b                                        : f32[s, 8]
          kv_write %k, %k, %pos, %seq, head_dim=4
          %a = attention %k, %pos, %seq, heads=2, kv_heads=2, head_dim=4, scale=0.5  : f32[s, 8]
          return %a
        }
        "#);
    }

    #[test]
    fn int4_is_for_layers_and_embedding_and_head_get_int8() {
        let precision = Precision::from_name("int4").unwrap();
        let text = at(precision);
        assert!(text.contains("weight @w: q4g32[8, 8] = cast(q4g32, \"w\": f32[8, 8])"), "{text}");
        assert!(text.contains("linear %n, @w, @b, act=i8") && text.contains("kv=bf16"), "{text}");
        assert!(text.contains("weight @e: q8[4, 4]"), "{text}");
    }

    #[test]
    fn what_reads_heads_of_odd_size_is_not_quantized() {
        let odd = LAYER
            .replace("return %a", "%o = linear %a, @o\n  return %o")
            .replace("  %n = rms", "  weight @o = \"o\": f32[8, 8]\n  %n = rms");
        let precision = Precision::from_name("int4").unwrap();
        let text = check_with("choose-precision", &odd, &Options { precision, ..Options::default() }).0;
        assert!(text.contains("weight @o: bf16[8, 8]") && text.contains("linear %a, @o, act=bf16"), "{text}");
        assert!(text.contains("weight @w: q4g32[8, 8]"), "{text}");
    }

    #[test]
    fn the_router_stays_in_f32_beside_rounded_experts() {
        let experts = "func @f(%x: f32[s, 8]) {
  weight @r = \"r\": bf16[3, 8]
  weight @w = \"w\": f32[3, 8, 8]
  %scores = linear %x, @r
  %gates = top_gates %scores, top_k=1
  %xe = expert_scale %x, %gates
  %ye = expert_linear %xe, @w
  %y = expert_sum %ye
  return %y
}";
        let (text, _) =
            check_with("choose-precision", experts, &Options { precision: Precision::from_name("bf16").unwrap(), ..Options::default() });
        assert!(text.contains("@r: f32[3, 8] = cast(f32, ") && text.contains("linear %x, @r  "), "{text}");
        assert!(text.contains("@w: bf16[3, 8, 8] = cast(bf16, ") && text.contains("expert_linear %xe, @w, act=bf16"), "{text}");
    }

    #[test]
    fn what_is_f32_already_is_not_cast() {
        let wide = LAYER.replace("f16", "f32");
        let (text, _) = check_with("choose-precision", &wide, &Options::default());
        assert!(!text.contains("cast"), "{text}");
    }
}
