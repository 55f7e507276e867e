//! The whole pipeline on one module, each pass compared with what it was given. Passes that only rewrite run together in one e-graph; they
//! are also run one by one on what the e-graph was given, so that each has a row of its own.

use super::run::{Difference, Inputs, Outputs, difference, outputs};
use super::{bound, truncate};
use crate::pipeline::{self, Options, PipelineError, REWRITES};
use crate::registry::{self, Exactness};
use llamac_ir::eval::EvalError;
use llamac_ir::module::Module;
use llamac_ir::recipe::Source;
use std::fmt;

/// A pass and how far its result is from what it was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The pass; `rewrite` is all passes of the e-graph together.
    pub pass: String,
    /// What it promises.
    pub exactness: Exactness,
    /// The difference; `None`: it changed nothing.
    pub difference: Option<Difference>,
    /// The most that it may be.
    pub bound: f64,
}

impl Row {
    /// Whether the pass kept its promise.
    pub fn fine(&self) -> bool {
        self.difference.as_ref().is_none_or(|d| d.within(self.bound))
    }
}

/// What was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// Passes in the order in which they ran.
    pub rows: Vec<Row>,
    /// Calls of layers that were evaluated, of so many.
    pub calls: (usize, usize),
    /// The optimised module, truncated.
    pub module: Module,
}

impl Checked {
    /// The first pass that broke its promise.
    pub fn wrong(&self) -> Option<&Row> {
        self.rows.iter().find(|r| !r.fine())
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:<13} {:>9}  difference of the result from what the pass was given", "pass", "promises", "at most")?;
        for row in &self.rows {
            let found = row.difference.as_ref().map_or("changes nothing".to_owned(), Difference::to_string);
            let verdict = if row.fine() { "" } else { "  WRONG" };
            let most = if row.bound == 0.0 { "same bits".to_owned() } else { format!("{:.1e}", row.bound) };
            writeln!(f, "{:<24} {:<13} {most:>9}  {found}{verdict}", row.pass, format!("{:?}", row.exactness).to_lowercase())?;
        }
        Ok(())
    }
}

/// Why nothing could be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckError {
    /// A pass broke the module.
    Pipeline(PipelineError),
    /// The module in front of or behind a pass cannot be evaluated.
    Eval(String, EvalError),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckError::Pipeline(e) => write!(f, "{e}"),
            CheckError::Eval(pass, e) => write!(f, "after `{pass}`: {e}"),
        }
    }
}

impl std::error::Error for CheckError {}

/// Runs the pipeline on the truncated module and compares the module before and after each pass.
///
/// # Errors
/// A pass broke the module, or it cannot be evaluated.
pub fn each_pass(module: &Module, options: &Options, source: &dyn Source, inputs: &Inputs) -> Result<Checked, CheckError> {
    let start = truncate(module);
    let count = |m: &Module| m.funcs.iter().flat_map(|f| &f.body).flat_map(|i| &i.calls).map(|run| run.count).sum();
    let calls = (count(&start), count(module));
    let given = outputs(&start, source, inputs).map_err(|e| CheckError::Eval("the front end".to_owned(), e))?;
    let mut steps = Steps { options, source, inputs, before: start.clone(), given, rows: Vec::new(), failed: None };
    let mut module = start;
    let done = pipeline::run_observed(&mut module, options, &mut |pass, after| steps.step(pass, after));
    match (done, steps.failed) {
        (Err(e), _) => Err(CheckError::Pipeline(e)),
        (Ok(_), Some(e)) => Err(e),
        (Ok(_), None) => Ok(Checked { rows: steps.rows, calls, module }),
    }
}

/// What has been compared so far.
struct Steps<'a> {
    options: &'a Options,
    source: &'a dyn Source,
    inputs: &'a Inputs,
    before: Module,
    given: Outputs,
    rows: Vec<Row>,
    failed: Option<CheckError>,
}

impl Steps<'_> {
    fn step(&mut self, pass: &str, after: &Module) {
        if self.failed.is_none()
            && let Err(e) = self.compare(pass, after)
        {
            self.failed = Some(e);
        }
    }

    fn compare(&mut self, pass: &str, after: &Module) -> Result<(), CheckError> {
        let mut exactness = registry::pass(pass).map_or(Exactness::Exact, |p| p.exactness);
        if registry::pass(pass).is_none() {
            let enabled = |name: &&&str| self.options.passes.as_ref().is_none_or(|names| names.iter().any(|n| n == **name));
            for name in REWRITES.iter().filter(enabled) {
                let mut alone = self.before.clone();
                let options = Options { passes: None, why: None, ..self.options.clone() };
                pipeline::run_named(&mut alone, &[name], &options, &mut |_, _| {}).map_err(CheckError::Pipeline)?;
                let promised = registry::pass(name).map_or(Exactness::Exact, |p| p.exactness);
                let row = self.row(name, promised, &alone)?;
                if row.0.difference.is_some() {
                    exactness = exactness.max(promised);
                }
                self.rows.push(row.0);
            }
        }
        let (row, outputs) = self.row(pass, exactness, after)?;
        self.rows.push(row);
        self.before.clone_from(after);
        if let Some(outputs) = outputs {
            self.given = outputs;
        }
        Ok(())
    }

    fn row(&self, pass: &str, exactness: Exactness, after: &Module) -> Result<(Row, Option<Outputs>), CheckError> {
        let row = |difference| Row { pass: pass.to_owned(), exactness, difference, bound: bound(exactness, after) };
        if after.funcs == self.before.funcs {
            return Ok((row(None), None));
        }
        let found = outputs(after, self.source, self.inputs).map_err(|e| CheckError::Eval(pass.to_owned(), e))?;
        Ok((row(Some(difference(&self.given, &found))), Some(found)))
    }
}
