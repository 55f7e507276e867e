//! How far an artifact's distributions are from those of another one of the same model, token by token. The texts come from `eval`.

use crate::auto::divergence;
use crate::diag::{Diag, Result};
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::sampler::argmax;
use llamac_runtime::step::{Engine, EngineOptions};
use std::fmt;
use std::path::{Path, PathBuf};

/// The other artifact, its logits of the current window, and what was found so far.
pub(super) struct Against {
    path: PathBuf,
    engine: Engine,
    vocab: usize,
    logits: Vec<f32>,
    kl: Vec<f64>,
    same: usize,
}

impl Against {
    /// Opens the artifact at `path`, which must be of the same model as `like`.
    pub(super) fn open(path: &Path, like: &Artifact, threads: Option<usize>) -> Result<Against> {
        let artifact = Artifact::open(path, &OpenOptions::default()).map_err(|e| super::run::open_error(path, &e))?;
        let (vocab, expected) = (artifact.meta().model.vocab, like.meta().model.vocab);
        if vocab != expected {
            let what = "the artifacts are of different models";
            return Err(Diag::new("artifact", what).place(path.display()).found(format!("{vocab} tokens")).expected(expected));
        }
        let options = EngineOptions { threads, ..EngineOptions::default() };
        let engine = Engine::new(&artifact, &options).map_err(|e| super::run::engine_error(path, &e))?;
        Ok(Against { path: path.to_owned(), engine, vocab, logits: Vec::new(), kl: Vec::new(), same: 0 })
    }

    /// Runs a window.
    pub(super) fn window(&mut self, tokens: &[u32]) -> Result<()> {
        self.logits.clear();
        let batch = [SeqInput { slot: 0, tokens, logits: Want::All }];
        let all = &mut self.logits;
        self.engine
            .step_each(&batch, |_, _, logits| all.extend_from_slice(logits))
            .map_err(|e| super::run::engine_error(&self.path, &e))?;
        self.engine.truncate(0, 0);
        Ok(())
    }

    /// Compares a row of the current window.
    pub(super) fn compare(&mut self, row: usize, logits: &[f32]) {
        let other = &self.logits[row * self.vocab..][..self.vocab];
        self.kl.push(divergence(other, logits));
        self.same += usize::from(argmax(other) == argmax(logits));
    }

    pub(super) fn figures(mut self) -> Figures {
        self.kl.sort_by(f64::total_cmp);
        let (n, at) = (self.kl.len().max(1), |part: f64| self.kl.get((self.kl.len() as f64 * part) as usize).copied().unwrap_or(0.0));
        Figures { mean: self.kl.iter().sum::<f64>() / n as f64, median: at(0.5), p99: at(0.99), top1: self.same as f64 / n as f64 }
    }
}

/// KL divergence over all tokens, in nats, and the share of tokens at which both like the same best.
#[derive(Debug, serde::Serialize)]
pub(super) struct Figures {
    mean: f64,
    median: f64,
    p99: f64,
    top1: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { mean, median, p99, top1 } = self;
        write!(f, "KL mean {mean:.3e}, median {median:.3e}, 99% {p99:.3e}; same best token {:.2}%", top1 * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_that_of_the_distributions() {
        let ln = |p: [f64; 2]| p.map(|x| (x.ln() + 3.0) as f32);
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((divergence(&ln([0.5, 0.5]), &ln([0.25, 0.75])) - expected).abs() < 1e-6);
        assert!(divergence(&[1.0, 2.0], &[4.0, 5.0]).abs() < 1e-12);
    }
}
