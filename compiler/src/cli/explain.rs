//! `llamac explain`: what the optimiser did and why, and what will be run.

use super::args::{BuildArgs, ChoiceArgs};
use crate::diag::{Diag, Result};
use crate::{codegen, driver, frontend};
use llamac_passes::registry::{self, PASSES};
use llamac_passes::report::{FuncReport, Report};
use serde_json::json;
use std::path::PathBuf;

/// Show what the optimiser did to a model: which rules fired, what fused, predicted cost before and after, and why a candidate lost.
///
/// A config.json is enough: no weight is read, but for --quant auto, which also shows the formats that it chooses.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// Hugging Face directory, a config.json alone, or an ONNX model.
    #[arg(value_name = "MODEL", required_unless_present_any = ["passes", "pass"])]
    model: Option<PathBuf>,
    #[command(flatten)]
    build: BuildArgs,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Only this function of the module.
    #[arg(long, value_name = "NAME")]
    func: Option<String>,
    /// Print the module, and nothing else: text that `llamac opt` reads.
    ///
    /// `before` is what the front end wrote, `quantized` has formats and nothing fused, `after` is what is lowered.
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "before",
        value_parser = ["before", "quantized", "after"], conflicts_with_all = ["json", "step", "code"])]
    ir: Option<String>,
    /// Print the history of a value of the imported module: `%q`, or all results of an op: `linear`.
    ///
    /// Every pass and rule that changed it, each intermediate form, and the recipes of new weights. Forms that rewrites found are all equal, in the
    /// order in which they were found; cost chose among them. `--ir` shows the names.
    #[arg(long, value_name = "%VALUE|OP", conflicts_with_all = ["ir", "json", "step", "code"])]
    why: Option<String>,
    /// Print the step program: buffers, regions, barriers.
    #[arg(long)]
    step: bool,
    /// Print the names, sizes and kernels of the machine code.
    #[arg(long)]
    code: bool,
    /// List every pass.
    #[arg(long)]
    passes: bool,
    /// Print what a pass does, with an example before and after.
    #[arg(long, value_name = "NAME")]
    pass: Option<String>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: &ExplainArgs) -> Result<()> {
    if args.passes {
        list_passes();
        return Ok(());
    }
    if let Some(name) = &args.pass {
        let pass = registry::pass(name).ok_or_else(|| {
            Diag::new("pass", "there is no such pass")
                .found(name)
                .help(format!("did you mean `{}`? `llamac explain --passes` lists them", registry::nearest(name)))
        })?;
        println!("{}", pass.doc());
        return Ok(());
    }
    let Some(path) = &args.model else { return Ok(()) };
    let model = frontend::load_config(path)?;
    let mut options = args.choice.add_to(driver::CompileOptions { why: args.why.clone(), ..args.build.options() })?;
    let auto = options.budget.map(|_| driver::choose(path, &options)).transpose()?;
    if let Some(auto) = &auto {
        options = auto.apply(&options);
    }
    let planned = driver::plan(&model, &options)?;
    if let (Some(auto), false) = (&auto, args.json) {
        println!("{auto}");
    }
    planned.warnings.iter().for_each(|w| eprintln!("{w}"));
    if let Some(when) = &args.ir {
        let module = match when.as_str() {
            "after" => &planned.module,
            "quantized" => &planned.quantized,
            _ => &planned.imported,
        };
        print!("{module}");
        return Ok(());
    }
    if let Some(pattern) = &args.why {
        return print_why(pattern, &planned, args.func.as_deref());
    }
    let report = chosen(&planned.report, args.func.as_deref())?;
    if args.json {
        println!(
            "{}",
            json!({ "model": model.name, "target": planned.target.name, "functions": report.iter().map(|f| as_json(f)).collect::<Vec<_>>() })
        );
        return Ok(());
    }
    println!(
        "{} for {}: predicted times are rooflines of one call; a barrier stands before each region\n",
        model.name, planned.target.name
    );
    report.iter().for_each(|f| print!("{f}"));
    if args.step {
        println!("\n{}", planned.program);
    }
    if args.code {
        let code =
            codegen::compile(&planned.program, &planned.target).map_err(|e| Diag::new("internal", "no code could be made").found(e))?;
        println!("\n{} bytes of code; kernels: {}", code.blob.len(), code.kernels.join(", "));
        code.symbols.iter().for_each(|s| println!("  {:>7} {:>6}  {}", s.offset, s.bytes, s.name));
    }
    Ok(())
}

fn print_why(pattern: &str, planned: &driver::Planned, func: Option<&str>) -> Result<()> {
    let wanted = |name: &str| func.is_none_or(|f| f.trim_start_matches('@') == name);
    let found: Vec<_> = planned.report.why.iter().filter(|w| wanted(&w.func)).collect();
    if found.is_empty() {
        let names = planned.imported.funcs.iter().filter(|f| wanted(&f.name));
        let names: Vec<String> =
            names.flat_map(|f| f.body.iter().flat_map(|i| &i.results).map(|v| format!("%{}", f.values[v.0 as usize].name))).collect();
        return Err(Diag::new("option", "no value and no op of the model has that name")
            .found(pattern)
            .expected(names.join(", "))
            .help("`llamac explain MODEL --ir` shows the module"));
    }
    found.iter().for_each(|why| println!("{why}"));
    Ok(())
}

fn list_passes() {
    for pass in PASSES {
        let doc = pass.doc();
        let first = doc.split(['.', '\n']).next().unwrap_or_default();
        println!("{:<24} {:<13} {first}", pass.name, format!("{:?}", pass.exactness).to_lowercase());
    }
}

fn chosen<'r>(report: &'r Report, func: Option<&str>) -> Result<Vec<&'r FuncReport>> {
    let found: Vec<&FuncReport> = report.funcs.iter().filter(|f| func.is_none_or(|name| name.trim_start_matches('@') == f.name)).collect();
    if found.is_empty() {
        let names: Vec<&str> = report.funcs.iter().map(|f| f.name.as_str()).collect();
        return Err(Diag::new("option", "there is no such function")
            .found(func.unwrap_or_default())
            .expected(names.join(", "))
            .help("name one with --func"));
    }
    Ok(found)
}

fn as_json(f: &FuncReport) -> serde_json::Value {
    let cost = |c: &llamac_passes::report::Cost| json!({ "decode_ns": c.decode_ns, "prefill_ns": c.prefill_ns, "regions": c.regions, "decode_bytes": c.decode_bytes });
    json!({
        "name": f.name,
        "before": f.before.as_ref().map(cost),
        "after": cost(&f.after),
        "saturation": f.saturation.as_ref().map(|s| json!({ "iterations": s.iterations, "nodes": s.nodes, "classes": s.classes, "saturated": s.saturated })),
        "fired": f.fired,
        "gains_ns": f.gains,
        "lost": f.lost.iter().map(|l| json!({ "rule": l.rule, "reason": l.reason, "extra_ns": l.extra_ns })).collect::<Vec<_>>(),
    })
}
