//! What a run of the pipeline did, as plain data and as text. It is the same on every machine: no times, no addresses.

use crate::context::Fired;
use crate::why::Why;
use std::collections::BTreeMap;
use std::fmt;

/// Predicted time of one call of a function.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// One token, in nanoseconds.
    pub decode_ns: f64,
    /// A prompt of 512 tokens, in nanoseconds.
    pub prefill_ns: f64,
    /// Regions that a thread passes through: the barriers of a call, at most.
    pub regions: usize,
    /// Bytes of weights that one token reads: of experts those that are chosen.
    pub decode_bytes: u64,
}

/// How an equality saturation ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saturation {
    /// Rounds over all rules.
    pub iterations: usize,
    /// E-nodes at the end.
    pub nodes: usize,
    /// E-classes at the end.
    pub classes: usize,
    /// Whether no rule had anything more to say.
    pub saturated: bool,
    /// Rules that added something.
    pub fired: Fired,
}

/// A rewrite that is not in the result, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// `pass/rule`.
    pub rule: String,
    /// The reason, for people.
    pub reason: String,
    /// How much longer one token and a 512th of a prompt would take, in nanoseconds, if cost was the reason.
    pub extra_ns: Option<f64>,
}

/// What was done to one function.
#[derive(Debug, Clone, PartialEq)]
pub struct FuncReport {
    /// Its name, without `@`.
    pub name: String,
    /// Before the passes, but in the formats of the result; `None` if a pass made the function.
    pub before: Option<Cost>,
    /// After the passes.
    pub after: Cost,
    /// The saturation that rewrote it.
    pub saturation: Option<Saturation>,
    /// Rules applied, those of the saturation included.
    pub fired: Fired,
    /// What one token and a 512th of a prompt would cost more without each rule of the saturation, ns.
    pub gains: BTreeMap<String, f64>,
    /// What lost.
    pub lost: Vec<Lost>,
}

/// What a run of the pipeline did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Functions of the result, in its order.
    pub funcs: Vec<FuncReport>,
    /// Histories of the values that were asked for.
    pub why: Vec<Why>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for func in &self.funcs {
            write!(f, "{func}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FuncReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "@{}", self.name)?;
        if let Some(before) = &self.before {
            writeln!(f, "  before  {before}")?;
        }
        writeln!(f, "  after   {}", self.after)?;
        if let Some(s) = &self.saturation {
            let end = if s.saturated { "saturated" } else { "stopped at its limit" };
            writeln!(f, "  e-graph {end} after {} rounds: {} nodes, {} classes", s.iterations, s.nodes, s.classes)?;
        }
        for (rule, count) in &self.fired {
            match self.gains.get(rule) {
                Some(ns) => writeln!(f, "  {rule:<34} {count:>3} x, gains {ns:.0} ns per token")?,
                None => writeln!(f, "  {rule:<34} {count:>3} x")?,
            }
        }
        for lost in &self.lost {
            writeln!(f, "  {:<34} {}", lost.rule, lost.reason)?;
        }
        Ok(())
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |ns: f64| ns / 1000.0;
        let (decode, prefill) = (us(self.decode_ns), us(self.prefill_ns));
        write!(
            f,
            "decode {decode:.2} us, prefill {prefill:.2} us, {} regions, a token reads {} weight bytes",
            self.regions, self.decode_bytes
        )
    }
}
