//! Finding the first application of a rule that makes a module mean something else: fuel allows the first so many, the evaluator judges.

use super::bound;
use super::run::{Difference, Inputs, difference, outputs};
use crate::pipeline::{self, Options, PipelineError, Report};
use crate::registry::Exactness;
use llamac_ir::eval::EvalError;
use llamac_ir::module::Module;
use llamac_ir::recipe::Source;
use std::fmt;

/// An application of a rule that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Guilty {
    /// Its number: with this much fuel less one the module is still right.
    pub fuel: usize,
    /// Applications in all.
    pub of: usize,
    /// `pass/rule in @func`.
    pub rule: String,
    /// The module with one application less.
    pub before: Module,
    /// The module with it; `None` if it cannot be made.
    pub after: Option<Module>,
    /// How it differs from the module that was given, or what the pipeline says.
    pub how: String,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BisectError {
    /// The module itself cannot be evaluated.
    Eval(EvalError),
    /// A pass is unknown, or the module is not in order.
    Pipeline(PipelineError),
    /// Wrong without any rule applied: a pass does something that no fuel limits.
    Unlimited(String),
}

impl fmt::Display for BisectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BisectError::Eval(e) => write!(f, "{e}"),
            BisectError::Pipeline(e) => write!(f, "{e}"),
            BisectError::Unlimited(how) => write!(f, "the result is wrong even without fuel: {how}"),
        }
    }
}

impl std::error::Error for BisectError {}

/// The result of so much fuel: the module and what fired, and what is wrong with it.
struct Tried {
    module: Option<Module>,
    report: Report,
    wrong: Option<String>,
}

/// Looks for the first wrong application; `Ok(None)` if the whole run keeps the meaning. `names` are passes to run in that order, `None` is the
/// pipeline.
///
/// # Errors
/// The module cannot be run, or it is wrong without any application.
pub fn bisect(
    module: &Module,
    names: Option<&[&str]>,
    options: &Options,
    source: &dyn Source,
    inputs: &Inputs,
) -> Result<Option<Guilty>, BisectError> {
    let expected = outputs(module, source, inputs).map_err(BisectError::Eval)?;
    let exactness = if options.precision == pipeline::Precision::F32 { Exactness::Reassociated } else { Exactness::Approximate };
    let attempt = |fuel: Option<usize>| -> Result<Tried, BisectError> {
        let mut after = module.clone();
        let options = Options { fuel, ..options.clone() };
        let done = match names {
            Some(names) => pipeline::run_named(&mut after, names, &options, &mut |_, _| {}),
            None => pipeline::run(&mut after, &options),
        };
        match done {
            Err(e @ (PipelineError::Unknown(_) | PipelineError::Input(_))) => Err(BisectError::Pipeline(e)),
            Err(e @ PipelineError::Broken { .. }) => Ok(Tried { module: None, report: Report::default(), wrong: Some(e.to_string()) }),
            Ok(report) => {
                let judged = outputs(&after, source, inputs).map(|found| difference(&expected, &found));
                let bound = bound(exactness, &after);
                let wrong = match judged {
                    Err(e) => Some(e.to_string()),
                    Ok(d) if d.within(bound) => None,
                    Ok(Difference { what, relative, .. }) => Some(format!("the {what} differ by {relative:.1e}, more than {bound:.1e}")),
                };
                Ok(Tried { module: Some(after), report, wrong })
            }
        }
    };
    let whole = attempt(None)?;
    let Some(how) = whole.wrong else { return Ok(None) };
    let none = attempt(Some(0))?;
    if let Some(how) = none.wrong {
        return Err(BisectError::Unlimited(how));
    }
    // The run as a whole may have ended in the middle, so its report does not say how much fuel it takes: double until it is wrong.
    let (mut right, mut wrong) = ((0, none), (1, attempt(Some(1))?));
    while wrong.1.wrong.is_none() && wrong.0 < 1 << 20 {
        let next = wrong.0 * 2;
        right = wrong;
        wrong = (next, attempt(Some(next))?);
    }
    if wrong.1.wrong.is_none() {
        return Err(BisectError::Unlimited(how));
    }
    while wrong.0 - right.0 > 1 {
        let middle = right.0 + (wrong.0 - right.0) / 2;
        let tried = attempt(Some(middle))?;
        let side = if tried.wrong.is_some() { &mut wrong } else { &mut right };
        *side = (middle, tried);
    }
    let fired = |r: &Report| r.funcs.iter().flat_map(|f| f.fired.values()).sum::<usize>();
    let rule = match &wrong.1.module {
        Some(_) => newest(&right.1.report, &wrong.1.report),
        None => wrong.1.wrong.clone().unwrap_or_default(),
    };
    Ok(Some(Guilty {
        fuel: wrong.0,
        of: fired(&whole.report).max(wrong.0),
        rule,
        before: right.1.module.unwrap_or_else(|| module.clone()),
        after: wrong.1.module,
        how: wrong.1.wrong.unwrap_or(how),
    }))
}

/// The rule that fired once more in the second report.
fn newest(before: &Report, after: &Report) -> String {
    let count = |report: &Report, func: &str, rule: &str| {
        report.funcs.iter().filter(|f| f.name == func).find_map(|f| f.fired.get(rule).copied()).unwrap_or(0)
    };
    let all = after.funcs.iter().flat_map(|f| f.fired.iter().map(move |(rule, n)| (f.name.as_str(), rule, *n)));
    let more = all.filter(|(func, rule, n)| *n > count(before, func, rule)).map(|(func, rule, _)| format!("{rule} in @{func}"));
    more.collect::<Vec<_>>().join(", ")
}
