//! `llamac targets`: what code can be made for.

use super::output::table;
use crate::diag::Result;
use crate::target::Target;
use serde_json::json;

/// List the targets, and what this CPU has.
///
/// A target is a name with features added or taken away: `x86_64-v4+avx512bf16`, `x86_64-v3-fma`. `native` is this machine.
#[derive(Debug, clap::Args)]
pub(super) struct TargetsArgs {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: &TargetsArgs) -> Result<()> {
    let native = Target::native().ok();
    let all: Vec<Target> = native.iter().cloned().chain(Target::all()).collect();
    if args.json {
        let list: Vec<_> = all
            .iter()
            .map(|t| json!({ "name": t.name, "arch": t.arch.name(), "features": t.features, "missing_here": t.missing_here() }))
            .collect();
        println!("{}", json!(list));
        return Ok(());
    }
    let mut rows = vec![vec!["target".to_owned(), "runs here".to_owned()]];
    for t in &all {
        let missing = t.missing_here();
        let here = match () {
            () if missing.is_empty() => "yes".to_owned(),
            () if native.as_ref().is_some_and(|n| n.arch != t.arch) => "no, another architecture".to_owned(),
            () => format!("no, without {}", missing.join(" ")),
        };
        rows.push(vec![t.name.clone(), here]);
    }
    print!("{}", table(&rows));
    for t in &all {
        println!("\n{}: {}", t.name, t.features.iter().cloned().collect::<Vec<_>>().join(" "));
    }
    Ok(())
}
