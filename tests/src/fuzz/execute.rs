//! The slow half of a case: the optimised module becomes an artifact, the engine runs it, and its logits are compared with the evaluator's.

use super::{Case, Outcome, SHAKE, SHAKES, Wrong, said};
use llamac::bare;
use llamac_ir::module::Module;
use llamac_passes::check::{Inputs, Seeded, bound, outputs};
use llamac_passes::registry::Exactness;
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::step::{Engine, EngineOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Two sequences side by side, then a token of each, then one more of the second.
const STEPS: &[&[(usize, &[u32])]] = &[&[(0, &[1, 3, 2]), (1, &[0, 2])], &[(0, &[2]), (1, &[1])], &[(1, &[3])]];

/// Runs the placed module and compares with the evaluator on `reference`, which has its formats.
pub(super) fn execute(case: &Case, reference: &Module, placed: &Module, source: &Seeded) -> Outcome {
    let done = catch_unwind(AssertUnwindSafe(|| logits(placed, source)));
    let found = match done {
        Err(panic) => return Outcome::Wrong(Wrong::Crash, said(&*panic)),
        Ok(Err(e)) if e.contains("cannot lower") => return Outcome::Skipped("no lowering"),
        Ok(Err(e)) => return Outcome::Wrong(Wrong::Engine, e),
        Ok(Ok(found)) => found,
    };
    let inputs = inputs();
    let (Ok(x), Ok(shaken)) = (outputs(reference, source, &inputs), outputs(reference, &source.shaken(SHAKE), &inputs)) else {
        return Outcome::Skipped("not evaluated");
    };
    let relative = |y: &[f32]| {
        let square = |v: f32| f64::from(v).powi(2);
        let scale: f64 = x.results.iter().map(|v| square(*v)).sum();
        let error: f64 = x.results.iter().zip(y).map(|(a, b)| square(a - b)).sum();
        if x.results.len() == y.len() && error.is_finite() { (error / scale.max(f64::MIN_POSITIVE)).sqrt() } else { f64::INFINITY }
    };
    // Kernels may round queries and probabilities, too, and sum in f32.
    let rounded = case.precision.name != "f32";
    let most = if rounded { 4.0 * bound(Exactness::Approximate, placed).min(5e-2) } else { 1e-5 };
    match (relative(&found), relative(&shaken.results)) {
        (error, _) if error <= most => Outcome::Same,
        // Kernels sum in f32, which moves numbers by more than the passes do.
        (error, shaken) if error <= 10.0 * SHAKES * shaken => Outcome::Skipped("ill-conditioned"),
        (error, shaken) => {
            Outcome::Wrong(Wrong::Engine, format!("logits differ by {error:.1e}; weights moved by {SHAKE:.0e} make {shaken:.1e}"))
        }
    }
}

/// The inputs of [`STEPS`] as the evaluator takes them, all rows wanted.
fn inputs() -> Inputs {
    let mut kept = [0usize; 2];
    let step = |step: &&[(usize, &[u32])]| {
        let (mut ids, mut pos, mut seq) = (vec![], vec![], vec![]);
        for (slot, tokens) in *step {
            for token in *tokens {
                ids.push(*token as i32);
                pos.push(kept[*slot] as i32);
                seq.push(*slot as i32);
                kept[*slot] += 1;
            }
        }
        let want = (0..ids.len() as i32).collect();
        [ids, pos, seq, want]
    };
    Inputs(STEPS.iter().map(step).collect())
}

fn logits(placed: &Module, source: &Seeded) -> Result<Vec<f32>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("fuzz.llx");
    bare::compile(placed, source, &path, "native").map_err(|e| e.to_string())?;
    let artifact = Artifact::open(&path, &OpenOptions::default()).map_err(|e| e.to_string())?;
    let options = EngineOptions { threads: Some(1), ..EngineOptions::default() };
    let mut engine = Engine::new(&artifact, &options).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    for step in STEPS {
        let batch: Vec<SeqInput<'_>> = step.iter().map(|(slot, tokens)| SeqInput { slot: *slot, tokens, logits: Want::All }).collect();
        engine.step_each(&batch, |_, _, row| out.extend_from_slice(row)).map_err(|e| e.to_string())?;
    }
    Ok(out)
}
