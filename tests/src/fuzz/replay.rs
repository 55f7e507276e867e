//! A case as text: comments that say how to run it, then the module. `llamac opt` reads the same file.

use super::Case;
use llamac_ir::op::Stage;
use llamac_ir::parse::parse;
use llamac_passes::pipeline::Precision;
use std::fmt::Write;

/// The text of a case; `details` say what is wrong with it.
pub fn write(case: &Case, details: &str, file: &str) -> String {
    let mut out = String::new();
    for line in details.lines() {
        let _ = writeln!(out, "// {line}");
    }
    let _ = writeln!(out, "// cargo run --release -p llamac-tests --bin fuzz-passes -- --replay {file}");
    if !case.execute && case.module.stage != Stage::Graph {
        let _ = writeln!(out, "// llamac opt {file} --quant {} --bisect --seed {}", case.precision.name, case.seed);
    }
    let _ = writeln!(out, "//! quant={} seed={} execute={}", case.precision.name, case.seed, case.execute);
    if let Some(fuel) = case.fuel {
        let _ = writeln!(out, "//! fuel={fuel}");
    }
    if let Some(passes) = &case.passes {
        let _ = writeln!(out, "//! passes={}", passes.join(","));
    }
    let _ = write!(out, "{}", case.module);
    out
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// A sentence that says what is wrong with the text.
pub fn read(text: &str) -> Result<Case, String> {
    let module = parse(text).map_err(|e| format!("line {}: {}", e.line, e.message))?;
    let mut case = Case { module, precision: Precision::F32, fuel: None, passes: None, seed: 0, execute: false };
    for word in text.lines().filter_map(|l| l.strip_prefix("//! ")).flat_map(str::split_whitespace) {
        let wrong = || format!("found `{word}`, expected quant=, seed=, execute=, fuel= or passes=");
        let (key, value) = word.split_once('=').ok_or_else(wrong)?;
        match key {
            "quant" => case.precision = Precision::from_name(value).ok_or_else(wrong)?,
            "seed" => case.seed = value.parse().map_err(|_| wrong())?,
            "execute" => case.execute = value == "true",
            "fuel" => case.fuel = Some(value.parse().map_err(|_| wrong())?),
            "passes" => case.passes = Some(value.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect()),
            _ => return Err(wrong()),
        }
    }
    Ok(case)
}
