//! `compile --check-passes` on an ONNX model: the graph before and after the rules of raising, and the decoder that is made of it, evaluated on the same
//! tokens. What follows is in `check_passes`.

use crate::diag::{Diag, Result};
use crate::frontend::onnx::{self, OnnxModel};
use llamac_ir::dtype::DType;
use llamac_ir::eval::{Cache, Evaluator, Tensor, eval_func};
use llamac_ir::module::{Func, Module, Operand, ValueId};
use llamac_ir::op::{OpKind, TensorOp};
use llamac_ir::types::Dim;
use llamac_passes::check::{Outputs, Row, bound, difference};
use llamac_passes::registry::Exactness;

/// Sequences and tokens of each.
const SIZES: (usize, usize) = (2, 5);

/// A row for the rules and one for the decoder.
///
/// # Errors
/// The graph cannot be evaluated.
pub(crate) fn rows(model: &OnnxModel) -> Result<Vec<Row>> {
    let mut steps: Vec<Module> = Vec::new();
    onnx::raised(&model.file, &mut |_, module| steps.push(module.clone()))?;
    let [imported, ruled, decoder] = &steps[..] else { return Ok(Vec::new()) };
    let fail = |e: String| {
        Diag::new("passes", "the graph could not be checked")
            .found(e)
            .help("check that the weights can be read; if they can, this is a bug of llamac")
    };
    let (Some(main), Some(after)) = (imported.func("main"), ruled.func("main")) else { return Ok(Vec::new()) };
    let Arguments { ids, pos, args } = arguments(main).map_err(fail)?;
    let run = |func: &Func| {
        let results = eval_func(func, &model.weights, None, &args, &mut Cache::default()).map_err(|e| fail(e.to_string()))?;
        Ok((Outputs::of_call(func, &results, &Cache::default()), results))
    };
    let (given, results) = run(main)?;
    let (found, _) = run(after)?;
    let exactness = if rounds(main) { Exactness::Approximate } else { Exactness::Reassociated };
    let row = |pass: &str, difference, after: &Module| Row {
        pass: pass.to_owned(),
        exactness,
        difference: Some(difference),
        bound: bound(exactness, after).max(bound(exactness, imported)),
    };
    let rules = row("raise", difference(&given, &found), ruled);

    let (batch, seq) = SIZES;
    let logits = main.results.iter().position(|r| main.ty(*r).shape.len() == 3).and_then(|at| results.get(at)).cloned();
    let logits = logits.ok_or_else(|| fail("no output [batch, sequence, vocabulary]".to_owned()))?;
    let ints = |v: Vec<i32>| Tensor::i32(&[batch * seq], v);
    let rows = || 0..(batch * seq) as i32;
    let inputs =
        [("ids", ints(ids)), ("pos", ints(pos)), ("seq", ints(rows().map(|i| i / seq as i32).collect())), ("want", ints(rows().collect()))];
    let found = Evaluator::new(decoder, &model.weights).run(&inputs).map_err(|e| fail(e.to_string()))?;
    let of = |results: &[Tensor]| Outputs::of_call(main, results, &Cache::default());
    let decoded = row("raise-decoder", difference(&of(&[logits]), &of(&found)), decoder);
    Ok(vec![rules, decoded])
}

/// Whether a graph rounds between ops to less than f32.
fn rounds(func: &Func) -> bool {
    let narrow = func.values.iter().any(|v| matches!(v.ty.dtype, DType::F16 | DType::Bf16));
    narrow || func.body.iter().any(|i| i.op == OpKind::Tensor(TensorOp::Quantize))
}

/// What both sides are given.
struct Arguments {
    ids: Vec<i32>,
    pos: Vec<i32>,
    /// For the graph, in the order of its inputs.
    args: Vec<Tensor>,
}

/// Token ids and positions of all rows, and the arguments of the graph: nothing is past, nothing is padding.
fn arguments(func: &Func) -> std::result::Result<Arguments, String> {
    let looked_up = func.body.iter().find_map(|inst| match inst.operands[..] {
        [Operand::Weight(w), Operand::Value(ids)] if inst.op == OpKind::Tensor(TensorOp::Gather) && func.params.contains(&ids) => {
            Some((w, ids))
        }
        _ => None,
    });
    let (table, ids) = looked_up.ok_or("no table of embeddings")?;
    let vocab = func.weights[table.0 as usize].ty.shape.first().and_then(Dim::value).unwrap_or(1).max(1);
    let symbol =
        |v: ValueId, axis: usize| func.values[v.0 as usize].ty.shape.get(axis).and_then(|d| d.terms.first()).map(|(s, _)| s.clone());
    let (batch, seq) = (symbol(ids, 0), symbol(ids, 1));
    let floats = |p: &&ValueId| func.values[p.0 as usize].ty.dtype.info().real;
    let past = func.params.iter().find(floats).and_then(|p| symbol(*p, 2));
    let (b, s) = SIZES;
    let size = |name: &str| match Some(name) {
        n if n == batch.as_deref() => Some(b),
        n if n == past.as_deref() => Some(0),
        // The new tokens, and all there are.
        _ => Some(s),
    };
    let tokens: Vec<i32> = (0..b * s).map(|i| ((i * 7919 + 3) % vocab) as i32).collect();
    let positions: Vec<i32> = (0..b * s).map(|i| (i % s) as i32).collect();
    let mut args = Vec::new();
    for p in &func.params {
        let info = &func.values[p.0 as usize];
        let shape: Option<Vec<usize>> = info.ty.shape.iter().map(|d| d.eval(&size)).collect();
        let shape = shape.ok_or_else(|| format!("the size of %{} is not known", info.name))?;
        let count: usize = shape.iter().product();
        let wide = |v: &[i32]| v.iter().map(|x| i64::from(*x)).collect::<Vec<_>>();
        args.push(match info.ty.dtype {
            DType::I64 if *p == ids => Tensor::i64(&shape, wide(&tokens)),
            DType::I64 if shape == [b, s] && symbol(*p, 1) == seq => Tensor::i64(&shape, wide(&positions)),
            DType::I64 | DType::Bool => Tensor::i64(&shape, vec![1; count]),
            DType::I32 => Tensor::i32(&shape, vec![1; count]),
            _ => Tensor::f32(&shape, vec![0.0; count]),
        });
    }
    Ok(Arguments { ids: tokens, pos: positions, args })
}
