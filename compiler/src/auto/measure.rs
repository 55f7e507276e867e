//! What the choice of formats is measured with: errors of quantized matrices in the norm of their inputs, and divergence of the model's
//! distributions when some of its weights are rounded. The model runs in the reference evaluator.

use crate::calibrate::inputs;
use crate::diag::{Diag, Result};
use llamac_ir::dtype::DType;
use llamac_ir::eval::quant::{self, Codes, Feedback};
use llamac_ir::eval::{Evaluator, Tensor};
use llamac_ir::module::Module;
use llamac_ir::recipe::{Prepared, Recipe, Source};

/// Rows of a matrix that its error is estimated from, for each of its experts.
const SAMPLE: usize = 128;

/// Logits that are compared at most, elements: what bounds memory.
const LOGITS: usize = 1 << 24;

/// Mean square of the error in the products of one input row with a matrix in each of the formats. A matrix whose input is not known counts the
/// squares of its own error.
///
/// # Errors
/// A tensor cannot be read.
pub(super) fn errors(recipe: &Recipe, source: &dyn Source, formats: &[DType]) -> Result<Vec<f64>> {
    let fail = |e: String| Diag::new("internal", "a weight cannot be read").found(e);
    let prepared = Prepared::new(recipe, source).map_err(fail)?;
    let mut moments = None;
    recipe.sources(&mut |name| moments = moments.take().or_else(|| source.moments(name)));
    let moments = moments.filter(|m| m.columns == prepared.columns() && prepared.rows().is_multiple_of(m.experts()));
    let feedback = moments.as_ref().map(|m| Feedback::new(m));
    let each = prepared.rows() / moments.as_ref().map_or(1, |m| m.experts());
    let step = each.div_ceil(SAMPLE);
    let mut sums = vec![0.0; formats.len()];
    let (mut row, mut difference) = (vec![0.0f32; prepared.columns()], Vec::new());
    let mut codes = Codes::default();
    for r in (0..prepared.rows()).filter(|r| r % each % step == 0) {
        prepared.row(r, &mut row).map_err(fail)?;
        for (sum, format) in sums.iter_mut().zip(formats) {
            difference.clone_from(&row);
            let done = match &feedback {
                Some(feedback) => quant::round_for(*format, &mut difference, r / each, feedback),
                None => quant::quantize(*format, &row, &mut codes).and_then(|()| quant::round(*format, &mut difference)),
            };
            done.map_err(fail)?;
            difference.iter_mut().zip(&row).for_each(|(d, x)| *d -= x);
            *sum += match &moments {
                Some(moments) => moments.square(&difference, r / each),
                None => difference.iter().map(|d| f64::from(*d).powi(2)).sum(),
            };
        }
    }
    Ok(sums.into_iter().map(|s| s * step as f64).collect())
}

/// Windows of tokens and the distributions that the exact model has there.
pub(super) struct Reference {
    inputs: [(&'static str, Tensor); 4],
    logits: Vec<f32>,
    vocab: usize,
}

impl Reference {
    /// Runs the exact model.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub(super) fn new(exact: &Module, source: &dyn Source, windows: &[Vec<u32>], vocab: usize) -> Result<Reference> {
        let mut inputs = inputs(windows);
        let tokens: usize = windows.iter().map(Vec::len).sum();
        let step = tokens.div_ceil((LOGITS / vocab).max(1));
        let want: Vec<i32> = (0..tokens as i32).rev().step_by(step).collect();
        if let Some(input) = inputs.iter_mut().find(|i| i.0 == "want") {
            input.1 = Tensor::i32(&[want.len()], want);
        }
        let logits = logits(exact, source, &inputs)?;
        Ok(Reference { inputs, logits, vocab })
    }

    /// Mean divergence of another form of the model from the exact one, nats for each token.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub(super) fn divergence(&self, module: &Module, source: &dyn Source) -> Result<f64> {
        let found = logits(module, source, &self.inputs)?;
        let rows = self.logits.chunks_exact(self.vocab).zip(found.chunks_exact(self.vocab));
        let (sum, count) = rows.fold((0.0, 0usize), |(sum, n), (p, q)| (sum + divergence(p, q), n + 1));
        Ok(sum / count.max(1) as f64)
    }
}

fn logits(module: &Module, source: &dyn Source, inputs: &[(&str, Tensor)]) -> Result<Vec<f32>> {
    let fail = |e: String| Diag::new("internal", "the reference evaluator could not run the model").found(e);
    let results = Evaluator::new(module, source).run(inputs).map_err(|e| fail(e.to_string()))?;
    results.first().and_then(Tensor::as_f32).map(<[f32]>::to_vec).ok_or_else(|| fail("no f32 result".to_owned()))
}

/// `sum p ln(p / q)` of the softmaxes of two rows of logits.
pub(crate) fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let log_sum = |x: &[f32]| {
        let max = f64::from(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        max + x.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>().ln()
    };
    let (zp, zq) = (log_sum(p), log_sum(q));
    let one = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - zp, f64::from(*q) - zq);
        p.exp() * (p - q)
    };
    p.iter().zip(q).map(one).sum()
}
