//! `llamac compile`: from a checkpoint to an artifact.

use super::args::{BuildArgs, ChoiceArgs};
use super::output::{self, Progress};
use crate::diag::Result;
use crate::driver::{self, Summary};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Compile a model into one artifact: code, packed weights, tokenizer, memory plan.
///
/// MODEL is a Hugging Face directory: config.json, model.safetensors (one file, or several with their index), tokenizer.json,
/// tokenizer_config.json, generation_config.json. Weights are streamed: a model larger than memory compiles.
///
/// The artifact appears under its name only when it is complete.
#[derive(Debug, clap::Args)]
pub(super) struct CompileArgs {
    /// Hugging Face directory.
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
    let options = args.choice.add_to(driver::CompileOptions { check: !args.no_check, ..args.build.options() })?;
    let out = args.output.clone().unwrap_or_else(|| default_name(&args.model));
    let bar = Bar::new(args.quiet || args.json);
    let summary = driver::compile(&args.model, &out, &options, &bar);
    bar.finish();
    let summary = summary?;
    if !args.quiet {
        summary.warnings.iter().for_each(|w| eprintln!("{w}"));
        report(&summary, &out, args.json);
    }
    Ok(())
}

/// `path/to/Llama-3.2-1B` gives `Llama-3.2-1B.llx`; a folder called `model` is named after the one above.
fn default_name(model: &Path) -> PathBuf {
    let full = model.canonicalize().unwrap_or_else(|_| model.to_path_buf());
    let named = full.ancestors().find(|a| a.file_name().is_some_and(|n| n != "model"));
    let name = named.and_then(Path::file_name).map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned());
    PathBuf::from(format!("{name}.llx"))
}

fn report(summary: &Summary, out: &Path, as_json: bool) {
    let seconds: f64 = summary.times.iter().map(|(_, t)| t.as_secs_f64()).sum();
    if as_json {
        let times: serde_json::Map<_, _> = summary.times.iter().map(|(name, t)| ((*name).to_owned(), json!(t.as_secs_f64()))).collect();
        println!(
            "{}",
            json!({ "artifact": out, "file_bytes": summary.file_bytes, "code_bytes": summary.code_bytes, "model": summary.meta.model, "plan": summary.meta.plan, "kernels": summary.meta.kernels, "seconds": seconds, "steps": times })
        );
        return;
    }
    let m = &summary.meta;
    println!(
        "{}: {} of {} ({} weights, {} of code) for {} {} in {seconds:.2} s",
        out.display(),
        output::bytes(summary.file_bytes),
        m.model.name,
        m.model.quant,
        output::bytes(summary.code_bytes as u64),
        m.target.arch,
        m.target.features.last().map_or("", String::as_str),
    );
    let steps: Vec<String> = summary.times.iter().map(|(name, t)| format!("{name} {:.0} ms", t.as_secs_f64() * 1e3)).collect();
    println!("  {}", steps.join(", "));
    if let Some(auto) = &summary.auto {
        print!("{auto}");
    }
    println!("  run it: llamac run {} -p \"Once upon a time\"", out.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_named_after_the_model_not_after_a_folder_called_model() {
        assert_eq!(default_name(Path::new("/no/such/Llama-3.2-1B")), Path::new("Llama-3.2-1B.llx"));
        assert_eq!(default_name(Path::new("/no/such/tiny/model")), Path::new("tiny.llx"));
    }
}
