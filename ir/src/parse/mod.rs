//! Reading the text form that `print` writes. Text from anywhere is safe to read: every error has a place, nesting is limited, numbers
//! are checked. What was read may still be wrong; `verify` says.
//!
//! ```text
//! module NAME stage=STAGE              stage: imported, canonical, quantized, fused, placed
//! dim s = 1..512                       both bounds may be reached
//! func @f(%x: f32[s, 64]) {
//!   weight @w: bf16[64, 64] = "tensor.{layer}": bf16[64, 64]
//!   %y = linear %x, @w, act=bf16       : f32[s, 64]
//!   return %y
//! }
//! ```
//! A type behind an instruction or a weight may be left out where it can be worked out; `//` comments go to the end of the line.

mod func;
mod recipe;
mod scan;
mod ty;

use crate::module::Module;
use crate::op::Stage;
use scan::{Result, Scanner};
use std::fmt;

/// Where and why a text could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// What is there.
    pub message: String,
    /// What may stand there.
    pub expected: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}, expected {}", self.line, self.column, self.message, self.expected)
    }
}

impl std::error::Error for ParseError {}

/// Reads a module.
///
/// # Errors
/// The first place that does not fit the grammar.
pub fn parse(text: &str) -> std::result::Result<Module, ParseError> {
    let scan = &mut Scanner::new(text);
    let mut module = header(scan)?;
    while scan.eat_word("dim") {
        let name = scan.word("the name of a dimension")?.to_owned();
        scan.expect("=")?;
        let (low, high) = scan.range()?;
        module.dims.push((name, low, high));
    }
    while !scan.at_end() {
        if !scan.eat_word("func") {
            return Err(scan.error(if module.funcs.is_empty() { "`dim` or `func`" } else { "`func` or the end of the text" }));
        }
        module.funcs.push(func::func(scan)?);
    }
    Ok(module)
}

fn header(scan: &mut Scanner<'_>) -> Result<Module> {
    if !scan.eat_word("module") {
        return Err(scan.error("`module NAME stage=STAGE`"));
    }
    let name = scan.name("the name of the module")?;
    if !scan.eat_word("stage") {
        return Err(scan.error("`stage=`"));
    }
    scan.expect("=")?;
    let start = scan.place();
    let word = scan.word("the name of a stage")?;
    let stage = Stage::ALL.iter().find(|(_, name)| *name == word).map(|(stage, _)| *stage);
    let names: Vec<&str> = Stage::ALL.iter().map(|(_, name)| *name).collect();
    let stage = stage.ok_or_else(|| scan.error_at(start, format!("found `{word}`"), format!("one of {}", names.join(", "))))?;
    Ok(Module { name, stage, dims: vec![], funcs: vec![] })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
