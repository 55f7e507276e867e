//! Check vectors: logits of short prompts by the reference evaluator, stored in the artifact, so that `llamac verify` can tell on any
//! machine whether code and weights compute what the model means. Running them is in `llamac_runtime`.

use crate::diag::{Diag, Result};
use llamac_ir::eval::{Evaluator, Tensor};
use llamac_ir::module::{LayerRun, Module};
use llamac_ir::op::OpKind;
use llamac_ir::recipe::Source;
use llamac_runtime::artifact::check::{CheckHead, CheckVectors};

/// Which layers a compile computes check vectors of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// None: there are no check vectors.
    None,
    /// All of a small model; the first of each kind and the last of a large one.
    #[default]
    Fitting,
    /// The first of each kind and the last, of any model.
    Few,
}

/// Up to this many weights every layer is evaluated; larger models check the first layer of each kind and the last, which costs about as much
/// time as copying a twentieth of the weights.
pub(crate) const WHOLE_MODEL: u64 = 50_000_000;

/// Tokens of the prompt when all layers are evaluated, and when only two are.
const TOKENS: (usize, usize) = (12, 2);

/// How far the artifact may be from the evaluator: rms(difference) / std(reference). The evaluator sums in f64 and rounds what the
/// artifact rounds, except queries and probabilities, which bf16 kernels may round too.
fn bound(quant: &str) -> f64 {
    match quant {
        "f32" => 1e-4,
        // Seen: up to 4e-3 over the fixtures, where a product lies on the border between two bf16 values.
        "bf16" => 2e-2,
        // Seen: 1e-7 where no int8 code of an activation is rounded the other way, up to 2.3e-2 where one is.
        _ => 5e-2,
    }
}

/// Evaluates `module` (formats chosen, nothing fused) on a fixed prompt.
///
/// # Errors
/// If a source tensor cannot be read.
pub(crate) fn vectors(module: &Module, source: &dyn Source, few: bool, vocab: usize, quant: &str) -> Result<CheckVectors> {
    let mut module = module.clone();
    let mut schedule = Vec::new();
    if few {
        schedule = keep_first_and_last(&mut module);
    }
    // In int8 a difference in the last place of one value can move the code of another, and with experts choose another one: few tokens
    // leave few chances for that, and show a wrong layout or scale as well as many.
    let tokens = if !few && ["f32", "bf16"].contains(&quant) { TOKENS.0 } else { TOKENS.1 };
    // Any ids do; these differ from each other and cover the vocabulary.
    let case: Vec<u32> = (0..tokens).map(|i| ((i * 7919 + 13) % vocab) as u32).collect();
    let rows = if few { 1 } else { 2 };

    let ints = |values: Vec<i32>| Tensor::i32(&[values.len()], values);
    let inputs = [
        ("ids", ints(case.iter().map(|&t| t as i32).collect())),
        ("pos", ints((0..tokens as i32).collect())),
        ("seq", ints(vec![0; tokens])),
        ("want", ints((tokens - rows..tokens).map(|i| i as i32).collect())),
    ];
    let fail = |e: &dyn std::fmt::Display| Diag::new("check", "the reference evaluator could not compute the check vectors").found(e);
    let results = Evaluator::new(&module, source).run(&inputs).map_err(|e| fail(&e))?;
    let logits = results.first().and_then(|t| t.as_f32()).ok_or_else(|| fail(&"no f32 result"))?.to_vec();
    let head = CheckHead { cases: vec![case], rows, vocab, schedule, max_rms: bound(quant) };
    Ok(CheckVectors { head, logits })
}

/// Cuts the calls of layers down to the first of each kind and the last; returns their places in the schedule.
fn keep_first_and_last(module: &mut Module) -> Vec<usize> {
    let mut kept = Vec::new();
    for func in &mut module.funcs {
        for inst in func.body.iter_mut().filter(|i| i.op == OpKind::Layers) {
            let all: Vec<(String, usize)> =
                inst.calls.iter().flat_map(|run| (0..run.count).map(|i| (run.func.clone(), run.first + i))).collect();
            kept = (0..all.len()).filter(|&i| i + 1 == all.len() || all[..i].iter().all(|a| a.0 != all[i].0)).collect();
            inst.calls = kept.iter().map(|&i| LayerRun { func: all[i].0.clone(), first: all[i].1, count: 1 }).collect();
        }
    }
    if kept.is_empty() { vec![0] } else { kept }
}
