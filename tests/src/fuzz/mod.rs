//! A differential fuzzer of the passes: random well-typed modules (`generate`) through the pipeline, compared with the evaluator before and
//! after, and, if asked, through lowering, code and engine (`execute`); random graphs of exporters (`graphs`) through what raises them (`raising`). What differs is made small (`shrink`) and written down (`replay`).

mod execute;
mod generate;
mod graphs;
mod raising;
mod replay;
mod rng;
mod shrink;

pub use generate::{Shape, generate};
pub use replay::{read, write};
pub use rng::Rng;
pub use shrink::{shrink, shrink_by};

use llamac_ir::module::Module;
use llamac_ir::op::Stage;
use llamac_ir::parse::parse;
use llamac_passes::check::{Inputs, Seeded, bound, difference, outputs};
use llamac_passes::context::Fired;
use llamac_passes::pipeline::{self, CHOOSE_PRECISION, Options, PRECISIONS, Precision};
use llamac_passes::registry::{Exactness, PASSES};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A module and how to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// As a front end would write it.
    pub module: Module,
    /// What it is rounded to.
    pub precision: Precision,
    /// Applications of rules that are allowed.
    pub fuel: Option<usize>,
    /// Passes that run; `None`: all.
    pub passes: Option<Vec<String>>,
    /// Seed of the weights.
    pub seed: u64,
    /// Whether machine code is made and run, too.
    pub execute: bool,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The same on both sides.
    Same,
    /// Nothing can be said, for a reason of a few words.
    Skipped(&'static str),
    /// Another meaning, or a failure: what kind, and the details.
    Wrong(Wrong, String),
}

/// A kind of failure; shrinking keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The evaluator gives something else.
    Numbers,
    /// A pass panicked.
    Panic,
    /// A pass left the module in a bad state.
    Broken,
    /// The text of the result does not read back.
    Text,
    /// The engine gives something else.
    Engine,
    /// Lowering or code generation panicked.
    Crash,
}

/// The case of that number.
pub fn case(seed: u64, shape: Shape, execute: bool) -> Case {
    let mut rng = Rng::new(seed);
    if shape == Shape::Graph {
        let module = graphs::generate(&mut rng);
        let fuel = rng.chance(1, 6).then(|| rng.below(12));
        let passes = rng.chance(1, 4).then(|| PASSES.iter().filter(|_| rng.chance(2, 3)).map(|p| p.name.to_owned()).collect());
        return Case { module, precision: Precision::F32, fuel, passes, seed, execute: false };
    }
    let module = generate(&mut rng, shape);
    let precision = if rng.chance(1, 2) { Precision::F32 } else { *rng.pick(PRECISIONS) };
    let fuel = rng.chance(1, 6).then(|| rng.below(40));
    let passes = rng.chance(1, 6).then(|| PASSES.iter().filter(|_| rng.chance(2, 3)).map(|p| p.name.to_owned()).collect());
    // Without all passes some modules have no lowering.
    let (fuel, passes) = if execute { (None, None) } else { (fuel, passes) };
    Case { module, precision, fuel, passes, seed, execute }
}

/// How much the weights are moved to see what a module makes of small differences.
const SHAKE: f32 = 1e-6;

/// How many times the shaken difference a pass may make: it moves more numbers than the weights.
const SHAKES: f64 = 30.0;

/// Runs a case.
pub fn run(case: &Case) -> Outcome {
    observed(case, &mut Fired::new())
}

/// As [`run`]; adds up which rules were applied.
pub fn observed(case: &Case, fired: &mut Fired) -> Outcome {
    if case.module.stage == Stage::Graph {
        return raising::observed(case, fired);
    }
    let inputs = Inputs::all(&case.module);
    let source = Seeded::new(&case.module, case.seed);
    let Ok(given) = outputs(&case.module, &source, &inputs) else { return Outcome::Skipped("not evaluated") };
    if given.results.iter().any(|x| !x.is_finite()) {
        return Outcome::Skipped("not finite");
    }
    let options = Options { precision: case.precision, fuel: case.fuel, passes: case.passes.clone(), ..Options::default() };
    let mut after = case.module.clone();
    // What was there before and after formats were chosen: between them numbers may change, on either side they may not.
    let mut around = (case.module.clone(), None);
    let done = catch_unwind(AssertUnwindSafe(|| {
        pipeline::run_observed(&mut after, &options, &mut |pass, module| match pass {
            CHOOSE_PRECISION => around.1 = Some(module.clone()),
            _ if around.1.is_none() => around.0 = module.clone(),
            _ => {}
        })
    }));
    match done {
        Err(panic) => return Outcome::Wrong(Wrong::Panic, said(&*panic)),
        Ok(Err(e)) => return Outcome::Wrong(Wrong::Broken, e.to_string()),
        Ok(Ok(report)) => {
            for (rule, count) in report.funcs.into_iter().flat_map(|f| f.fired) {
                *fired.entry(rule).or_default() += count;
            }
        }
    }
    if parse(&after.to_string()).ok().as_ref() != Some(&after) {
        return Outcome::Wrong(Wrong::Text, "the printed module reads back as another".to_owned());
    }
    let legs = match &around.1 {
        Some(quantized) => vec![(&case.module, &around.0), (quantized, &after)],
        None => vec![(&case.module, &after)],
    };
    for (x, y) in legs {
        let outcome = compare(x, y, &source, &inputs);
        if outcome != Outcome::Same {
            return outcome;
        }
    }
    if case.execute { execute::execute(case, around.1.as_ref().unwrap_or(&case.module), &after, &source) } else { Outcome::Same }
}

/// Whether two modules mean the same, rounding aside.
fn compare(x: &Module, y: &Module, source: &Seeded, inputs: &Inputs) -> Outcome {
    let before = match outputs(x, source, inputs) {
        Ok(before) => before,
        Err(e) => return Outcome::Wrong(Wrong::Numbers, e.to_string()),
    };
    let after = match outputs(y, source, inputs) {
        Ok(after) => after,
        Err(e) => return Outcome::Wrong(Wrong::Numbers, e.to_string()),
    };
    let found = difference(&before, &after);
    if found.within(bound(Exactness::Reassociated, y)) {
        return Outcome::Same;
    }
    let shaken = match outputs(x, &source.shaken(SHAKE), inputs) {
        Ok(shaken) => difference(&before, &shaken).relative,
        Err(_) => return Outcome::Skipped("not evaluated"),
    };
    match found.relative {
        relative if relative <= SHAKES * shaken => Outcome::Skipped("ill-conditioned"),
        _ => Outcome::Wrong(Wrong::Numbers, format!("{found}; weights moved by {SHAKE:.0e} make {shaken:.1e}")),
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}
