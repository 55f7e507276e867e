//! `llamac plan`: memory and work of a model before anything is compiled.

use super::args::BuildArgs;
use super::inspect;
use super::machine::{self, MachineArg};
use crate::diag::Result;
use crate::{driver, frontend};
use serde_json::json;
use std::path::PathBuf;

/// Exact memory of a model before it is compiled: weights, KV cache, activations. A config.json is enough.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// Hugging Face directory, a config.json alone, or an ONNX model.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    build: BuildArgs,
    /// Predict rates on a machine: cores, memory bandwidth in GB/s, memory in GB.
    #[arg(long, value_name = "CORES,GB/S,GB")]
    machine: Option<MachineArg>,
    /// Also show the optimised module, one page.
    #[arg(long)]
    summary: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: &PlanArgs) -> Result<()> {
    let model = frontend::load_config(&args.model)?;
    let planned = driver::plan(&model, &args.build.options())?;
    let meta = planned.meta(&model, None);
    planned.warnings.iter().for_each(|w| eprintln!("{w}"));
    if args.json {
        println!("{}", json!({ "model": meta.model, "plan": meta.plan, "kv_bytes_per_token": inspect::kv_per_token(&meta.plan) }));
        return Ok(());
    }
    println!("{} ({} layers) in {} for {}", meta.model.name, meta.model.layers, meta.model.quant, planned.target.name);
    print!("{}", inspect::memory(&meta));
    if let Some(machine) = args.machine {
        print!("\n{}", machine::predictions(machine, &meta, &planned.target));
    }
    if args.summary {
        print!("\n{}", llamac_passes::summary::summary(&planned.module));
    }
    Ok(())
}
