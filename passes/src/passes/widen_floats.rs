//! Makes every float of an exporter's graph an f32: what 16-bit exports round between ops, and the casts that they put around norms, softmax and tables,
//! is the exporter's choice of arithmetic, not the model. Weights stay what they are stored as; what an artifact rounds is chosen by `--quant`.
//!
//! Before:
//! ```text
//! func @f(%x: f16[b, s, 8]) {
//!   weight @g = "g": f16[8]
//!   %wide = tensor.cast %x, to=f32 : f32[b, s, 8]
//!   %unit = tensor.rms_unit %wide, eps=1e-5 : f32[b, s, 8]
//!   %narrow = tensor.cast %unit, to=f16 : f16[b, s, 8]
//!   %y = tensor.mul @g, %narrow : f16[b, s, 8]
//!   return %y
//! }
//! ```
//! After:
//! ```text
//! func @f(%x: f32[b, s, 8]) {
//!   weight @g: f32[8] = cast(f32, "g": f16[8])
//!   %unit = tensor.rms_unit %x, eps=1e-5 : f32[b, s, 8]
//!   %y = tensor.mul @g, %unit : f32[b, s, 8]
//!   return %y
//! }
//! ```

use crate::context::Context;
use crate::recipes;
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::build::FuncBuilder;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, Module, Operand, ValueId};
use llamac_ir::op::{Attr, OpKind, Stage, TensorOp as T};
use std::collections::BTreeMap;

/// The pass.
pub(crate) const PASS: Pass = Pass {
    name: "widen-floats",
    kind: Kind::Transform(run),
    exactness: Exactness::Approximate,
    stage: Stage::Graph,
    source: include_str!("widen_floats.rs"),
};

const RULE: &str = "widen-floats/graph";

fn narrow(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16)
}

fn run(module: &mut Module, context: &mut Context) -> Result<(), String> {
    if module.stage != Stage::Graph {
        return Ok(());
    }
    for func in &mut module.funcs {
        let types = func.values.iter().map(|v| &v.ty).chain(func.weights.iter().map(|w| &w.ty));
        if types.into_iter().any(|ty| narrow(ty.dtype)) && context.fire(&func.name, RULE) {
            *func = widened(func)?;
        }
    }
    Ok(())
}

fn widened(func: &Func) -> Result<Func, String> {
    let mut out = FuncBuilder::new(&func.name);
    let mut values: BTreeMap<ValueId, Operand> = BTreeMap::new();
    for p in &func.params {
        let mut info = func.values[p.0 as usize].clone();
        if narrow(info.ty.dtype) {
            info.ty.dtype = DType::F32;
        }
        values.insert(*p, out.param(&info.name, info.ty).into());
    }
    let mut weights: Vec<Operand> = Vec::new();
    for weight in &func.weights {
        let recipe = weight.recipe.clone();
        weights.push(out.weight(&weight.name, if narrow(weight.ty.dtype) { recipes::cast(DType::F32, recipe) } else { recipe })?.into());
    }
    let of = |values: &BTreeMap<ValueId, Operand>, o: &Operand| match o {
        Operand::Weight(w) => Ok(weights[w.0 as usize]),
        Operand::Value(v) => values.get(v).copied().ok_or("a value is read before it is made"),
    };
    for inst in &func.body {
        let operands = inst.operands.iter().map(|o| of(&values, o)).collect::<Result<Vec<_>, _>>()?;
        let mut attrs = crate::egraph::leave::named(inst.op, &inst.attrs);
        for (_, attr) in &mut attrs {
            if let Attr::Word(word) = attr
                && DType::from_name(word).is_some_and(narrow)
            {
                *attr = Attr::Word(DType::F32.name().to_owned());
            }
        }
        let first = inst.results.first().map(|r| func.values[r.0 as usize].name.clone()).unwrap_or_default();
        let same = inst.op == OpKind::Tensor(T::Cast)
            && operands.first().is_some_and(|o| out.func().ty(*o).dtype == DType::F32)
            && attrs.iter().any(|(_, a)| *a == Attr::Word(DType::F32.name().to_owned()));
        let made: Vec<Operand> = match same {
            true => operands,
            false => out.ops(inst.op, &first, &operands, &attrs)?.into_iter().map(Operand::from).collect(),
        };
        values.extend(inst.results.iter().copied().zip(made));
    }
    let results = func.results.iter().map(|o| of(&values, o)).collect::<Result<Vec<_>, _>>()?;
    Ok(out.finish(&results))
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, fired};

    const SOFT: &str = "func @f(%x: bf16[b, s, 8], %m: f32[b, s, 8]) {
  weight @w = \"w\": bf16[8, 4]
  weight @half = cast(bf16, literal([], 0.5))
  %scaled = tensor.mul %x, @half
  %wide = tensor.cast %scaled, to=f32
  %masked = tensor.add %wide, %m
  %p = tensor.softmax %masked, axis=-1
  %narrow = tensor.cast %p, to=bf16
  %y = tensor.matmul %narrow, @w
  %real = tensor.cast %y, to=f32
  return %real
}";

    #[test]
    fn casts_between_floats_vanish_and_weights_are_widened() {
        insta::assert_snapshot!(check("widen-floats", SOFT), @r#"
        func @f(%x: f32[b, s, 8], %m: f32[b, s, 8]) {
          weight @w: f32[8, 4] = cast(f32, "w": bf16[8, 4])
          weight @half: f32[] = cast(f32, cast(bf16, literal([], 0.5)))
          %scaled = tensor.mul %x, @half        : f32[b, s, 8]
          %masked = tensor.add %scaled, %m      : f32[b, s, 8]
          %p = tensor.softmax %masked, axis=-1  : f32[b, s, 8]
          %y = tensor.matmul %p, @w             : f32[b, s, 4]
          return %y
        }
        "#);
    }

    #[test]
    fn a_graph_of_f32_and_casts_to_integers_stay() {
        assert!(fired("widen-floats", &SOFT.replace("bf16", "f32").replace("cast(f32, literal([], 0.5))", "literal([], 0.5)")).is_empty());
        let to_integers = "func @f(%x: f16[b, 4]) {
  %i = tensor.cast %x, to=i64
  %y = tensor.cast %i, to=f16
  return %y
}";
        let text = check("widen-floats", to_integers);
        assert!(text.contains("%i = tensor.cast %x, to=i64") && text.contains("%y = tensor.cast %i, to=f32"), "{text}");
    }
}
