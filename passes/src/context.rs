//! What passes are given while they run, and where they write down what they did: fuel, rules fired, candidates blocked.

use crate::cost::Machine;
use crate::pipeline::Precision;
use crate::variants::Formats;
use std::collections::{BTreeMap, BTreeSet};

/// How often each rule was applied, by its name `pass/rule`.
pub type Fired = BTreeMap<String, usize>;

/// State of a run of passes.
#[derive(Debug, Clone)]
pub struct Context {
    /// Cost model.
    pub machine: Machine,
    /// What weights and activations are rounded to.
    pub precision: Precision,
    /// Weights that get another format.
    pub formats: Formats,
    /// Applications that are still allowed; `None`: any number.
    fuel: Option<usize>,
    /// Rules fired, by function.
    pub fired: BTreeMap<String, Fired>,
    /// Rules that a guard kept from firing, by function: `(rule, reason)`.
    pub blocked: BTreeMap<String, BTreeSet<(String, String)>>,
}

impl Context {
    /// Nothing done yet.
    pub fn new(machine: Machine, precision: Precision, fuel: Option<usize>) -> Context {
        Context { machine, precision, formats: Formats::new(), fuel, fired: BTreeMap::new(), blocked: BTreeMap::new() }
    }

    /// Asks to apply `rule` once in `func`; true if there is fuel, which is then used up and written down.
    pub fn fire(&mut self, func: &str, rule: &str) -> bool {
        match &mut self.fuel {
            Some(0) => return false,
            Some(n) => *n -= 1,
            None => {}
        }
        *self.fired.entry(func.to_owned()).or_default().entry(rule.to_owned()).or_default() += 1;
        true
    }

    /// Whether fuel is limited.
    pub fn limited(&self) -> bool {
        self.fuel.is_some()
    }

    /// Writes down that a guard kept `rule` from firing in `func`.
    pub fn block(&mut self, func: &str, rule: &str, reason: String) {
        self.blocked.entry(func.to_owned()).or_default().insert((rule.to_owned(), reason));
    }
}
