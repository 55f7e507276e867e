//! Modules of the tensor dialect through the passes that raise: one by one, and all rules in one saturation as `raise` runs them. Both must compute what
//! the graph computes.

use super::{Case, Outcome, SHAKES, Wrong, said};
use llamac_ir::dtype::DType;
use llamac_ir::eval::{Cache, Tensor, eval_func};
use llamac_ir::module::Module;
use llamac_ir::op::Stage;
use llamac_ir::parse::parse;
use llamac_ir::recipe::Source;
use llamac_passes::check::Seeded;
use llamac_passes::context::Fired;
use llamac_passes::pipeline::{self, Options};
use llamac_passes::raise::{RaiseError, raise};
use llamac_passes::registry::PASSES;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Sizes of `b`, `s` and `t`.
const SIZES: [usize; 3] = [2, 3, 5];

pub(super) fn observed(case: &Case, fired: &mut Fired) -> Outcome {
    let module = &case.module;
    let source = Seeded::new(module, case.seed);
    let (args, moved) = (arguments(module, case.seed, 0.0), arguments(module, case.seed, shake(module)));
    let Ok(given) = outputs(module, &source, &args) else { return Outcome::Skipped("not evaluated") };
    if given.iter().flatten().any(|x| !x.is_finite()) {
        return Outcome::Skipped("not finite");
    }
    let Ok(shaken) = outputs(module, &source.shaken(shake(module)), &moved) else { return Outcome::Skipped("not evaluated") };
    let options = Options { fuel: case.fuel, ..Options::default() };
    let names: Vec<&str> = match &case.passes {
        Some(names) => names.iter().map(String::as_str).filter(|n| of_graphs(n)).collect(),
        None => PASSES.iter().map(|p| p.name).filter(|n| of_graphs(n)).collect(),
    };
    let mut found = Vec::new();
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut after = module.clone();
        let report = pipeline::run_named(&mut after, &names, &options, &mut |_, _| {}).map_err(|e| e.to_string())?;
        for (rule, count) in report.funcs.into_iter().flat_map(|f| f.fired) {
            *fired.entry(rule).or_default() += count;
        }
        found.push(after);
        let raised = raise(module, &source, module.dims.clone(), &options, &mut |pass, module| {
            if pass == "raise" {
                found.push(module.clone());
            }
        });
        // That it is no decoder is no surprise.
        match raised {
            Err(RaiseError::Pass(e)) => Err(e.to_string()),
            _ => Ok(()),
        }
    }));
    match done {
        Err(panic) => return Outcome::Wrong(Wrong::Panic, said(&*panic)),
        Ok(Err(e)) => return Outcome::Wrong(Wrong::Broken, e),
        Ok(Ok(())) => {}
    }
    // Products of bytes become products of floats, 16 bits become 32: that is meant.
    let most = if rounds(module) { 3e-2 } else { 2e-5 };
    for (after, how) in found.iter().zip(["one by one", "in one saturation"]) {
        if parse(&after.to_string()).ok().as_ref() != Some(after) {
            return Outcome::Wrong(Wrong::Text, "the printed module reads back as another".to_owned());
        }
        let after = match outputs(after, &source, &args) {
            Ok(after) => after,
            Err(e) => return Outcome::Wrong(Wrong::Numbers, format!("{how}: {e}")),
        };
        for (at, ((x, y), z)) in given.iter().zip(&after).zip(&shaken).enumerate() {
            let (found, moved) = (relative(x, y), relative(x, z));
            if found > most && found > SHAKES * moved {
                return Outcome::Wrong(
                    Wrong::Numbers,
                    format!("{how}: result {at} differs by {found:.1e}; shaken it moves by {moved:.1e}"),
                );
            }
        }
        if after.len() != given.len() {
            return Outcome::Wrong(Wrong::Numbers, format!("{how}: {} results, expected {}", after.len(), given.len()));
        }
    }
    Outcome::Same
}

fn of_graphs(name: &str) -> bool {
    PASSES.iter().any(|p| p.name == name && p.stage == Stage::Graph)
}

/// Whether the passes change what is rounded.
fn rounds(module: &Module) -> bool {
    let types = module.funcs.iter().flat_map(|f| &f.values).map(|v| v.ty.dtype);
    types.into_iter().any(|d| matches!(d, DType::F16 | DType::Bf16 | DType::U8))
}

/// How much numbers are moved to see what a graph makes of small differences.
fn shake(module: &Module) -> f32 {
    if rounds(module) { 1e-3 } else { 1e-6 }
}

fn relative(x: &[f32], y: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v).powi(2);
    let (scale, error): (f64, f64) = (x.iter().map(|v| square(*v)).sum(), x.iter().zip(y).map(|(a, b)| square(a - b)).sum());
    if x.len() == y.len() && error.is_finite() { (error / scale.max(f64::MIN_POSITIVE)).sqrt() } else { f64::INFINITY }
}

/// A value for each parameter, each number moved by up to the part `by` of itself.
fn arguments(module: &Module, seed: u64, by: f32) -> Vec<Tensor> {
    let Some(main) = module.func("main") else { return Vec::new() };
    let mut rng = super::Rng::new(seed ^ 0x5eed);
    let size = |name: &str| ["b", "s", "t"].iter().position(|s| *s == name).map(|at| SIZES[at]);
    let one = |p: &llamac_ir::module::ValueId| {
        let ty = &main.values[p.0 as usize].ty;
        let shape: Vec<usize> = ty.shape.iter().map(|d| d.eval(&size).unwrap_or(1)).collect();
        let unit = |rng: &mut super::Rng| rng.below(20_001) as f32 / 10_000.0 - 1.0;
        let data = (0..shape.iter().product()).map(|_| {
            let x = 1.5 * unit(&mut rng);
            // What is the same in 16 bits.
            let x = half::bf16::from_f32(x).to_f32();
            x * (1.0 + by * unit(&mut rng))
        });
        Tensor::f32(&shape, data.collect())
    };
    main.params.iter().map(one).collect()
}

fn outputs(module: &Module, source: &dyn Source, args: &[Tensor]) -> Result<Vec<Vec<f32>>, String> {
    let main = module.func("main").ok_or("no main")?;
    let results = eval_func(main, source, None, args, &mut Cache::default()).map_err(|e| e.to_string())?;
    Ok(results.iter().map(|t| t.as_f32().map(<[f32]>::to_vec).unwrap_or_default()).collect())
}
