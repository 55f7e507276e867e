//! `llamac compile`: from a checkpoint to an artifact.

use super::args::{BuildArgs, ChoiceArgs};
use super::output::{self, Progress};
use crate::diag::Result;
use crate::driver::{self, Check, Summary};
use crate::frontend::onnx;
use llamac_passes::check::{Checked, Row};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Compile a model into one artifact: code, packed weights, tokenizer, memory plan.
///
/// MODEL is a Hugging Face directory: config.json, model.safetensors (one file, or several with their index), tokenizer.json,
/// tokenizer_config.json, generation_config.json. Weights are streamed: a model larger than memory compiles.
///
/// Or an ONNX export of such a model: a file `*.onnx`, or a folder with model.onnx and no safetensors. Tokenizer files beside it are taken in; without
/// them the artifact takes token ids only (`llamac logits`).
///
/// An ONNX graph with neither an input `input_ids` nor an output `logits` is no decoder: the artifact holds it as it is, and `llamac infer` interprets
/// it. No machine code is made of it, and the options for code and weights have no effect.
///
/// The artifact appears under its name only when it is complete.
#[derive(Debug, clap::Args)]
pub(super) struct CompileArgs {
    /// Hugging Face directory, or an ONNX model.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Artifact to write [default: the model's name with .llx, here].
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    build: BuildArgs,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Do not compute check vectors for `llamac verify`.
    #[arg(long)]
    no_check: bool,
    /// Check every pass on this model: the reference evaluator runs the module before and after it and compares.
    ///
    /// The weights are the model's own, the prompt is fixed; the first and the last layer of each kind are evaluated, so that a large model takes
    /// seconds to minutes and no more memory. A pass that differs by more than it promises ends the compile: nothing is written.
    #[arg(long)]
    check_passes: bool,
    /// Write a page about the compile: graphs before and after, what fused, weights, buffers, rooflines. One HTML file that needs nothing else.
    #[arg(long, value_name = "OUT.html")]
    report: Option<PathBuf>,
    /// Say nothing but errors.
    #[arg(long, short)]
    quiet: bool,
    /// Print the summary as JSON.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// A bar over the weights; made when the total is known.
pub(super) struct Bar {
    quiet: bool,
    bar: OnceLock<Progress>,
}

impl Bar {
    pub(super) fn new(quiet: bool) -> Bar {
        Bar { quiet, bar: OnceLock::new() }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish();
        }
    }
}

impl driver::Progress for Bar {
    fn weights(&self, bytes: u64, total: u64) {
        self.bar.get_or_init(|| Progress::bytes("packing weights", total, self.quiet)).advance(bytes);
    }
}

pub(super) fn main(args: &CompileArgs) -> Result<()> {
    let options = args.choice.add_to(driver::CompileOptions {
        check: if args.no_check { Check::None } else { Check::Fitting },
        check_passes: args.check_passes,
        report: args.report.clone(),
        ..args.build.options()
    })?;
    let out = args.output.clone().unwrap_or_else(|| default_name(&args.model));
    if let Some(file) = onnx::graph_file(&args.model)
        && !onnx::eager::means_a_decoder(&file)?
    {
        return graph(args, &file, &out);
    }
    let bar = Bar::new(args.quiet || args.json);
    let summary = driver::compile(&args.model, &out, &options, &bar);
    bar.finish();
    let summary = summary?;
    if !args.quiet {
        summary.warnings.iter().for_each(|w| eprintln!("{w}"));
        report(&summary, &out, args);
    }
    Ok(())
}

/// A graph that is no decoder.
fn graph(args: &CompileArgs, file: &Path, out: &Path) -> Result<()> {
    let stored = crate::graph::store(file, out)?;
    if args.json {
        println!("{}", json!({ "artifact": out, "file_bytes": stored.file_bytes, "graph": true }));
    } else if !args.quiet {
        stored.warnings.iter().for_each(|w| eprintln!("{w}"));
        println!("{}: {} of a graph", out.display(), output::bytes(stored.file_bytes));
        println!("  run it: llamac infer {} --input IN.safetensors --output OUT.safetensors", out.display());
    }
    Ok(())
}

/// `path/to/Llama-3.2-1B` gives `Llama-3.2-1B.llx`; a folder called `model` is named after the one above.
fn default_name(model: &Path) -> PathBuf {
    let full = model.canonicalize().unwrap_or_else(|_| model.to_path_buf());
    let full = if full.extension().is_some_and(|e| e == "onnx") { full.with_extension("") } else { full };
    let named = full.ancestors().find(|a| a.file_name().is_some_and(|n| n != "model"));
    let name = named.and_then(Path::file_name).map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned());
    PathBuf::from(format!("{name}.llx"))
}

fn report(summary: &Summary, out: &Path, args: &CompileArgs) {
    let seconds: f64 = summary.times.iter().map(|(_, t)| t.as_secs_f64()).sum();
    if args.json {
        let passes = summary.checked.as_ref().map(passes_as_json);
        let times: serde_json::Map<_, _> = summary.times.iter().map(|(name, t)| ((*name).to_owned(), json!(t.as_secs_f64()))).collect();
        println!(
            "{}",
            json!({ "artifact": out, "file_bytes": summary.file_bytes, "code_bytes": summary.code_bytes, "model": summary.meta.model, "plan": summary.meta.plan, "kernels": summary.meta.kernels, "seconds": seconds, "steps": times, "passes": passes })
        );
        return;
    }
    if let Some(checked) = &summary.checked {
        println!("passes, checked on {} of {} calls of layers:\n{checked}", checked.calls.0, checked.calls.1);
    }
    let m = &summary.meta;
    println!(
        "{}: {} of {} ({} weights, {} of code) for {} ({}) in {seconds:.2} s",
        out.display(),
        output::bytes(summary.file_bytes),
        m.model.name,
        m.model.quant,
        output::bytes(summary.code_bytes as u64),
        args.build.target,
        m.target.arch,
    );
    let took = summary.times.iter().filter(|(_, t)| t.as_millis() > 0);
    let steps: Vec<String> = took.map(|(name, t)| format!("{name} {:.0} ms", t.as_secs_f64() * 1e3)).collect();
    println!("  {}", steps.join(", "));
    if let Some(path) = &args.report {
        println!("  report: {}", path.display());
    }
    if let Some(auto) = &summary.auto {
        print!("{auto}");
    }
    println!("  run it: llamac run {} -p \"Once upon a time\"", out.display());
}

fn passes_as_json(checked: &Checked) -> serde_json::Value {
    let row = |r: &Row| {
        let difference = r.difference.as_ref().map(|d| json!({ "relative": d.relative, "same_bits": d.same_bits, "what": d.what }));
        json!({ "pass": r.pass, "promises": format!("{:?}", r.exactness).to_lowercase(), "bound": r.bound, "difference": difference })
    };
    checked.rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_named_after_the_model_not_after_a_folder_called_model() {
        assert_eq!(default_name(Path::new("/no/such/Llama-3.2-1B")), Path::new("Llama-3.2-1B.llx"));
        assert_eq!(default_name(Path::new("/no/such/tiny/model")), Path::new("tiny.llx"));
        assert_eq!(default_name(Path::new("/no/such/tiny/model.onnx")), Path::new("tiny.llx"));
        assert_eq!(default_name(Path::new("/no/such/llama.onnx")), Path::new("llama.llx"));
    }
}
