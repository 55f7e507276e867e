//! The pipeline: which passes run in which order. One function, read from top to bottom.

use crate::context::{Context, Fired};
use crate::cost::Machine;
use crate::egraph::{Rule, chains};
pub use crate::precision::{PRECISIONS, Precision};
use crate::registry::{self, Kind, Pass};
pub use crate::report::Report;
use crate::report::{Cost, FuncReport, Lost};
use crate::rewrite::{Rewritten, rewrite};
use crate::variants::Formats;
use crate::why::{Chains, Histories};
use llamac_ir::module::Module;
use llamac_ir::op::Stage;
use llamac_ir::verify::{VerifyError, verify};
use std::collections::BTreeMap;
use std::fmt;

/// How to run passes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// What `choose-precision` chooses.
    pub precision: Precision,
    /// Weights that it gives another format.
    pub formats: Formats,
    /// What the cost model reckons with.
    pub machine: Machine,
    /// Only these passes; `None`: all of them.
    pub passes: Option<Vec<String>>,
    /// Applications of rules allowed in all, to find a guilty one by bisection; `None`: any number.
    pub fuel: Option<usize>,
    /// Values to explain, see [`crate::why`]; `None`: nothing is explained, which is faster. The result is the same.
    pub why: Option<String>,
}

/// Why a run stopped. Always a bug of a pass, but for unknown names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipelineError {
    /// There is no pass of that name.
    Unknown(String),
    /// The module was not in order before anything ran.
    Input(Vec<String>),
    /// A pass left the module in a bad state.
    Broken {
        /// The pass.
        pass: String,
        /// Rules that it applied.
        rules: Vec<String>,
        /// What the verifier found.
        errors: Vec<String>,
    },
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PipelineError::Unknown(name) => {
                write!(f, "there is no pass `{name}`; did you mean `{}`?", registry::nearest(name))
            }
            PipelineError::Input(errors) => write!(f, "the module is not in order before any pass: {}", errors.join("; ")),
            PipelineError::Broken { pass, rules, errors } => {
                write!(f, "pass `{pass}` (rules applied: {}) broke the module: {}", rules.join(", "), errors.join("; "))
            }
        }
    }
}

impl std::error::Error for PipelineError {}

/// Passes of the one e-graph.
pub const REWRITES: &[&str] =
    &["swap-gather-norm", "fold-norm", "merge-qkv", "merge-gate-up", "fuse-norm-linear", "fuse-swiglu", "fuse-residual"];

/// The pass that says what is rounded.
pub const CHOOSE_PRECISION: &str = "choose-precision";

/// Optimises a module from [`Stage::Imported`] to [`Stage::Placed`].
///
/// # Errors
/// A pass broke the module.
pub fn run(module: &mut Module, options: &Options) -> Result<Report, PipelineError> {
    run_observed(module, options, &mut |_, _| {})
}

/// As [`run`]; `observer` sees the module after each pass, with the name of the pass. All rewrites together are `rewrite`.
///
/// # Errors
/// As [`run`].
pub fn run_observed(module: &mut Module, options: &Options, observer: &mut dyn FnMut(&str, &Module)) -> Result<Report, PipelineError> {
    let mut run = Run::new(module, options, observer)?;

    run.pass("fold-constants")?;
    run.pass("merge-common")?;
    run.pass("remove-dead")?;
    // From here on: canonical ops only, no two alike, nothing dead.
    run.reach(Stage::Canonical)?;

    run.pass(CHOOSE_PRECISION)?;
    // From here on: every weight has its final element type, every product and cache says what it rounds.
    run.reach(Stage::Quantized)?;

    run.pass("fold-rope-permutation")?;
    run.pass("push-down-rows")?;
    run.rewrites(REWRITES)?;
    run.pass("batch-experts")?;
    run.pass("fuse-rope-kv-write")?;
    // From here on: fused ops.
    run.reach(Stage::Fused)?;

    run.pass("fold-constants")?;
    run.pass("merge-common")?;
    run.pass("remove-dead")?;
    // From here on: rows, calls and formats are final.
    run.reach(Stage::Placed)?;
    Ok(run.report())
}

/// Runs the named passes in the order given, each by itself; `observer` sees the module after each.
///
/// # Errors
/// A name is unknown, or a pass broke the module.
pub fn run_named(
    module: &mut Module,
    names: &[&str],
    options: &Options,
    observer: &mut dyn FnMut(&str, &Module),
) -> Result<Report, PipelineError> {
    let mut run = Run::new(module, options, observer)?;
    for name in names {
        run.pass(name)?;
    }
    Ok(run.report())
}

/// A run under way.
struct Run<'a> {
    module: &'a mut Module,
    options: &'a Options,
    observer: &'a mut dyn FnMut(&str, &Module),
    context: Context,
    before: BTreeMap<String, Cost>,
    rewritten: BTreeMap<String, Rewritten>,
    histories: Option<Histories>,
    /// Chains of rules of the rewrite that is under way, by function and value.
    chains: Chains,
}

impl<'a> Run<'a> {
    fn new(module: &'a mut Module, options: &'a Options, observer: &'a mut dyn FnMut(&str, &Module)) -> Result<Run<'a>, PipelineError> {
        let known = |name: &&String| registry::pass(name).is_none();
        if let Some(name) = options.passes.iter().flatten().find(known) {
            return Err(PipelineError::Unknown(name.clone()));
        }
        verify(module, module.stage).map_err(|e| PipelineError::Input(texts(&e)))?;
        let before = costs(module, &options.machine);
        let mut context = Context::new(options.machine, options.precision, options.fuel);
        context.formats.clone_from(&options.formats);
        let histories = options.why.as_ref().map(|pattern| Histories::new(pattern, module));
        Ok(Run { module, options, observer, context, before, rewritten: BTreeMap::new(), histories, chains: BTreeMap::new() })
    }

    fn enabled(&self, name: &str) -> bool {
        self.options.passes.as_ref().is_none_or(|names| names.iter().any(|n| n == name))
    }

    /// Runs one pass.
    fn pass(&mut self, name: &str) -> Result<(), PipelineError> {
        let pass = registry::pass(name).ok_or_else(|| PipelineError::Unknown(name.to_owned()))?;
        if !self.enabled(name) {
            return Ok(());
        }
        match pass.kind {
            Kind::Rewrite(_) => self.rewrites(&[name]),
            Kind::Transform(run) => self.checked(name, pass.stage, |this| run(this.module, &mut this.context)),
        }?;
        // Rewrites are judged in the format that is compiled: a model stored in bf16 and compiled in f32 would look like a loss otherwise.
        if name == CHOOSE_PRECISION {
            self.before = costs(self.module, &self.options.machine);
        }
        Ok(())
    }

    /// Runs the rules of several passes in one saturation of each function.
    fn rewrites(&mut self, names: &[&str]) -> Result<(), PipelineError> {
        let passes: Vec<&Pass> = names.iter().filter(|n| self.enabled(n)).filter_map(|n| registry::pass(n)).collect();
        let rules: Vec<Rule> = passes.iter().flat_map(|p| if let Kind::Rewrite(rules) = p.kind { rules } else { &[] }).copied().collect();
        let Some(stage) = passes.iter().map(|p| p.stage).max() else { return Ok(()) };
        let name = if let [name] = names { name } else { "rewrite" };
        self.checked(name, stage, |this| {
            for func in &mut this.module.funcs {
                let rewritten = rewrite(func, &rules, &mut this.context)?;
                if this.histories.as_ref().is_some_and(|h| h.follows(&func.name)) {
                    this.chains.insert(func.name.clone(), chains(func, &rewritten.func, &rules, &this.context));
                }
                func.clone_from(&rewritten.func);
                this.rewritten.insert(func.name.clone(), rewritten);
            }
            Ok(())
        })
    }

    /// Does `what`, raises the stage, verifies, and tells the observer.
    fn checked(&mut self, pass: &str, stage: Stage, what: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), PipelineError> {
        let before = self.context.fired.clone();
        let given = self.histories.is_some().then(|| self.module.clone());
        let done = what(self);
        self.module.stage = self.module.stage.max(stage);
        let verified = done.map_err(|e| vec![e]).and_then(|()| verify(self.module, self.module.stage).map_err(|e| texts(&e)));
        verified.map_err(|errors| PipelineError::Broken { pass: pass.to_owned(), rules: news(&before, &self.context.fired), errors })?;
        if let (Some(histories), Some(given)) = (&mut self.histories, given) {
            histories.step(pass, &given, self.module, &std::mem::take(&mut self.chains));
        }
        (self.observer)(pass, self.module);
        Ok(())
    }

    /// The module has come to `stage`.
    fn reach(&mut self, stage: Stage) -> Result<(), PipelineError> {
        self.module.stage = self.module.stage.max(stage);
        verify(self.module, self.module.stage).map_err(|errors| PipelineError::Broken {
            pass: format!("everything up to the stage {}", stage.name()),
            rules: news(&BTreeMap::new(), &self.context.fired),
            errors: texts(&errors),
        })
    }

    fn report(mut self) -> Report {
        let machine = self.options.machine;
        let funcs = self.module.funcs.iter().map(|func| {
            let blocked = self.context.blocked.remove(&func.name).unwrap_or_default().into_iter();
            let blocked = blocked.map(|(rule, reason)| Lost { rule, reason: format!("blocked: {reason}"), extra_ns: None });
            let rewritten = self.rewritten.remove(&func.name);
            let mut lost: Vec<Lost> = rewritten.iter().flat_map(|r| r.lost.clone()).collect();
            lost.extend(blocked);
            FuncReport {
                name: func.name.clone(),
                before: self.before.get(&func.name).copied(),
                after: machine.func_cost(func),
                saturation: rewritten.as_ref().map(|r| r.saturation.clone()),
                fired: self.context.fired.remove(&func.name).unwrap_or_default(),
                gains: rewritten.map(|r| r.gains).unwrap_or_default(),
                lost,
            }
        });
        Report { funcs: funcs.collect(), why: self.histories.take().map(Histories::finish).unwrap_or_default() }
    }
}

fn costs(module: &Module, machine: &Machine) -> BTreeMap<String, Cost> {
    module.funcs.iter().map(|f| (f.name.clone(), machine.func_cost(f))).collect()
}

fn texts(errors: &[VerifyError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Rules that fired between two moments, with their functions.
fn news(before: &BTreeMap<String, Fired>, after: &BTreeMap<String, Fired>) -> Vec<String> {
    let mut out = Vec::new();
    for (func, rules) in after {
        let old = before.get(func);
        let new = rules.iter().filter(|(rule, count)| old.and_then(|o| o.get(*rule)) != Some(count));
        out.extend(new.map(|(rule, _)| format!("{rule} in @{func}")));
    }
    out
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
