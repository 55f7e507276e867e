//! The verifier: says everything that is wrong with a module at a stage. Modules may be hostile: ids out of range are errors, never
//! panics. What stands in one function is checked in `func`, calls of layers in `layers`.

mod func;
mod layers;

use crate::dtype::DType;
use crate::module::{Func, Module};
use crate::op::Stage;
use crate::recipe::LAYER;
use crate::types::Dim;
use std::collections::BTreeSet;
use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyError {
    /// Name of the function; empty for the module as a whole.
    pub func: String,
    /// The instruction as text, or `weight @w`, `%value`, `return`; empty for the function as a whole.
    pub at: String,
    /// What it is about.
    pub what: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.func.is_empty() {
            write!(f, "@{}: ", self.func)?;
        }
        if !self.at.is_empty() {
            write!(f, "`{}`: ", self.at)?;
        }
        write!(f, "{}: found {}, expected {}", self.what, self.found, self.expected)
    }
}

impl std::error::Error for VerifyError {}

/// Errors as one text, a line for each.
pub fn listed(errors: &[VerifyError]) -> String {
    errors.iter().map(VerifyError::to_string).collect::<Vec<_>>().join("\n")
}

/// Checks a module that claims to be at `stage`.
///
/// # Errors
/// Everything that is wrong, in the order of the text.
pub fn verify(module: &Module, stage: Stage) -> Result<(), Vec<VerifyError>> {
    let mut errors = Errors::default();
    dims(module, &mut errors);
    let mut names = BTreeSet::new();
    for func in &module.funcs {
        errors.func = func.name.clone();
        if !names.insert(&func.name) {
            errors.add("", "name of a function", "a second function of that name", "one function of each name");
        }
        func::check(func, Some(stage), &mut errors);
        symbols(module, func, &mut errors);
        layers::check(module, func, &mut errors);
    }
    errors.func = "main".to_owned();
    match module.func("main") {
        // A graph of an exporter has the inputs that its exporter gave it.
        Some(_) if stage == Stage::Graph => {}
        Some(main) => entry(main, &mut errors),
        None => errors.add("", "entry", "no such function", "a function called `main`"),
    }
    errors.done()
}

/// Checks one function by itself: everything but stage, symbols and calls of layers.
///
/// # Errors
/// Everything that is wrong, in the order of the text.
pub fn verify_func(func: &Func) -> Result<(), Vec<VerifyError>> {
    let mut errors = Errors { func: func.name.clone(), list: vec![] };
    func::check(func, None, &mut errors);
    errors.done()
}

/// Errors so far, and the function that is looked at.
#[derive(Default)]
struct Errors {
    func: String,
    list: Vec<VerifyError>,
}

impl Errors {
    fn add(&mut self, at: impl Into<String>, what: impl Into<String>, found: impl fmt::Display, expected: impl fmt::Display) {
        let (func, found, expected) = (self.func.clone(), found.to_string(), expected.to_string());
        self.list.push(VerifyError { func, at: at.into(), what: what.into(), found, expected });
    }
    fn done(self) -> Result<(), Vec<VerifyError>> {
        if self.list.is_empty() { Ok(()) } else { Err(self.list) }
    }
}

fn dims(module: &Module, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for (symbol, low, high) in &module.dims {
        let at = format!("dim {symbol}");
        if symbol.is_empty()
            || !symbol.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            || symbol.starts_with(|c: char| c.is_ascii_digit())
        {
            errors.add(&at, "name of a dimension", format!("`{symbol}`"), "letters, digits and `_`, no digit first");
        }
        if !names.insert(symbol) {
            errors.add(&at, "name of a dimension", "a second one of that name", "one dimension of each name");
        }
        if low > high {
            errors.add(&at, "bounds", format!("{low}..{high}"), "bounds that go up");
        }
    }
}

/// Every symbol in a type must be declared.
fn symbols(module: &Module, func: &Func, errors: &mut Errors) {
    let mut missing = BTreeSet::new();
    for value in &func.values {
        for (symbol, _) in value.ty.shape.iter().flat_map(|d| &d.terms) {
            let declared = |part: &str| module.dims.iter().any(|(name, ..)| name == part);
            if !symbol.split('*').all(declared) && missing.insert(symbol) {
                errors.add(format!("%{}", value.name), "symbol", format!("`{symbol}`"), "a dimension declared by `dim`");
            }
        }
    }
}

/// The parameters of `main`: token ids, positions and sequences of the new tokens; numbers of the rows whose logits are wanted.
const ENTRY: &[&str] = &["ids", "pos", "seq", "want"];

fn entry(main: &Func, errors: &mut Errors) {
    let params: Vec<_> = main.params.iter().filter_map(|p| main.values.get(p.0 as usize)).collect();
    let names: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
    if names != ENTRY {
        errors.add("", "parameters", names.join(", "), ENTRY.join(", "));
    }
    let mut rows: Vec<&Dim> = Vec::new();
    for param in &params {
        match (param.ty.dtype, param.ty.shape.as_slice()) {
            (DType::I32, [dim]) if dim.constant == 0 && matches!(dim.terms.as_slice(), [(_, 1)]) => rows.push(dim),
            _ => errors.add(format!("%{}", param.name), "type of a parameter", &param.ty, "i32[s] with a symbol"),
        }
    }
    if let [ids, pos, seq, want] = rows.as_slice()
        && (ids != pos || ids != seq || ids == want)
    {
        let found = format!("{ids}, {pos}, {seq}, {want}");
        errors.add("", "sizes of the parameters", found, "one symbol for ids, pos and seq, another for want");
    }
    match main.results.as_slice() {
        [result] => match func::operand_type(main, *result) {
            Some(ty) if ty.dtype == DType::F32 => {}
            ty => errors.add("return", "type of the result", ty.map_or("nothing".to_owned(), |t| t.to_string()), "f32"),
        },
        results => errors.add("return", "number of results", results.len(), 1),
    }
    for weight in &main.weights {
        weight.recipe.sources(&mut |name| {
            if name.contains(LAYER) {
                errors.add(
                    format!("weight @{}", weight.name),
                    "source",
                    format!("\"{name}\""),
                    format!("no {LAYER} outside layer functions"),
                );
            }
        });
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
