//! Runs an artifact's check vectors on this machine and compares with the logits that the reference evaluator stored.

use crate::artifact::Artifact;
use crate::artifact::check::CheckVectors;
use crate::batch::{SeqInput, Want};
use crate::step::{Engine, EngineError, EngineOptions};

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CheckReport {
    /// Rows of logits compared.
    pub rows: usize,
    /// rms(difference) / std(reference).
    pub rms: f64,
    /// Largest difference.
    pub max_abs: f64,
    /// Bound on `rms` that the artifact states.
    pub bound: f64,
    /// Layers that were run; 0: all.
    pub layers: usize,
}

impl CheckReport {
    /// Whether the artifact computes here what it should. A NaN does not pass.
    pub fn passed(&self) -> bool {
        self.rms <= self.bound
    }
}

/// Runs the vectors.
///
/// # Errors
/// The artifact cannot be run here.
pub fn run(artifact: &Artifact, vectors: &CheckVectors, threads: Option<usize>) -> Result<CheckReport, EngineError> {
    let head = &vectors.head;
    let options = EngineOptions { threads, schedule: head.schedule.clone(), max_batch: Some(1), ..EngineOptions::default() };
    let mut engine = Engine::new(artifact, &options)?;
    let mut found = Vec::with_capacity(vectors.logits.len());
    for case in &head.cases {
        let view = engine.step(&[SeqInput { slot: 0, tokens: case, logits: Want::All }])?;
        let first = view.rows().saturating_sub(head.rows);
        (first..view.rows()).for_each(|row| found.extend_from_slice(view.row(row)));
        engine.truncate(0, 0);
    }
    let (rms, max_abs) = difference(&found, &vectors.logits);
    Ok(CheckReport { rows: head.rows * head.cases.len(), rms, max_abs, bound: head.max_rms, layers: head.schedule.len() })
}

/// rms(found - expected) / std(expected), and the largest difference; NaN if they do not have the same length.
pub fn difference(found: &[f32], expected: &[f32]) -> (f64, f64) {
    if found.len() != expected.len() || found.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    let n = expected.len() as f64;
    let mean = expected.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = expected.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let (mut square, mut max_abs) = (0.0, 0.0);
    for (&a, &b) in found.iter().zip(expected) {
        let d = (f64::from(a) - f64::from(b)).abs();
        square += d * d;
        // `max` would drop a NaN.
        if d > max_abs || d.is_nan() {
            max_abs = d;
        }
    }
    ((square / n / variance).sqrt(), max_abs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_relative_to_the_spread_and_a_nan_never_passes() {
        let (rms, max) = difference(&[1.0, 2.0, 3.5], &[1.0, 2.0, 3.0]);
        assert!((rms - (0.25f64 / 3.0 / (2.0 / 3.0)).sqrt()).abs() < 1e-12);
        assert_eq!(max, 0.5);
        let (rms, max) = difference(&[f32::NAN, 2.0], &[1.0, 2.0]);
        assert!(!CheckReport { rows: 1, rms, max_abs: max, bound: 1.0, layers: 0 }.passed());
        assert!(difference(&[1.0], &[]).0.is_nan());
    }
}
