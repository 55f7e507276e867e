//! `llamac bench`: speed of an artifact on this machine, beside what the machine can do at best. Measuring is in `model` and `kernels`.

mod compare;
mod kernels;
mod model;

use super::args::{ArtifactArgs, Load};
use super::output::{bytes, table};
use crate::diag::{Diag, Result};
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::pages;
use llamac_runtime::step::{Engine, EngineOptions};
use model::{Case, Figures};
use serde_json::json;
use std::time::Instant;

/// Measure prefill and decode, and the roofs of this machine beside them.
///
/// Memory speed changes from second to second on shared machines, so a raw read of memory stands between any two measurements, and the
/// share of it is what can be compared. Printed are medians and the whole spread. GFLOP/s count matrix products and attention (keys that a
/// token sees); `% of peak` is the time that both would take, each at the peak of its own arithmetic, over the time that was measured.
#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    artifact: ArtifactArgs,
    /// Prompt lengths to measure.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "128,512,2048")]
    prefill: Vec<usize>,
    /// Tokens to decode in one measurement; 0: none.
    #[arg(long, value_name = "N", default_value_t = 32)]
    decode: usize,
    /// Tokens in the cache before decoding. They are not computed: the time does not depend on what they say.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "0,4096,32768")]
    depth: Vec<usize>,
    /// Sequences that decode side by side.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,4,8,16")]
    batch: Vec<usize>,
    /// Measurements of each case.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    reps: u64,
    /// Measure kernels alone instead, on the shapes of this model: the rows of the kernel table that this CPU can run and whose names contain
    /// TEXT (`dot_q4g32`, `avx2`); without one all of them but the generic twins.
    #[arg(long, value_name = "TEXT", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    kernels: Option<String>,
    /// How weights come into memory; the time that takes is printed.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Load::Mmap)]
    load: Load,
    /// Compare with an earlier run: a file that `--json` wrote. Compared are shares of the roof; a change within the spread is called none.
    #[arg(long, value_name = "FILE")]
    compare: Option<std::path::PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// How long it took until steps could be run, how long the first one took, and what a token reads.
#[derive(Debug, Clone, Copy)]
struct Start {
    load: Load,
    ready_seconds: f64,
    first_step_seconds: f64,
    /// Bytes of the mapped artifact that a step of one token reads, counted in whole pages by the processor's marks in the page tables; `None`
    /// where weights are copied or the system has no such count.
    accessed_bytes: Option<u64>,
}

pub(super) fn main(args: &BenchArgs) -> Result<()> {
    let path = &args.artifact.artifact;
    let artifact = Artifact::open(path, &OpenOptions::default()).map_err(|e| super::run::open_error(path, &e))?;
    if let Some(text) = &args.kernels {
        return kernels::main(&artifact, text, args.artifact.threads, args.json);
    }
    let earlier = args.compare.as_deref().map(compare::read).transpose()?;
    let options = EngineOptions { threads: args.artifact.threads, load: args.load.mode(), ..EngineOptions::default() };
    let clock = Instant::now();
    let mut engine = Engine::new(&artifact, &options).map_err(|e| super::run::engine_error(path, &e))?;
    let ready_seconds = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    let mut one_token = || {
        let step = engine.step(&[SeqInput { slot: 0, tokens: &[0], logits: Want::Last }]).map(drop);
        engine.truncate(0, 0);
        step.map_err(|e| super::run::engine_error(path, &e))
    };
    one_token()?;
    let first_step_seconds = clock.elapsed().as_secs_f64();
    let mut accessed_bytes = None;
    if matches!(args.load, Load::Mmap) && pages::forget_accesses().is_ok() {
        one_token()?;
        accessed_bytes = pages::mapped(path).map(|m| m.accessed);
    }
    let start = Start { load: args.load, ready_seconds, first_step_seconds, accessed_bytes };
    let (cases, skipped) = cases(args, &engine);
    skipped.iter().for_each(|why| eprintln!("{why}"));
    if cases.is_empty() {
        return Err(Diag::new("bench", "nothing is left to measure")
            .place(path.display())
            .help("ask for shorter prompts and depths, or compile with a larger --max-context and --max-batch"));
    }
    let roofs = model::Roofs::measure(&engine);
    let measured: Vec<Figures> = cases
        .iter()
        .map(|case| model::measure(&mut engine, &roofs, case, args.reps as usize))
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| super::run::engine_error(path, &e))?;
    match args.json {
        true => println!("{}", to_json(&artifact, &engine, &start, &roofs, &measured)),
        false => print!("{}", to_text(&artifact, &engine, &start, &roofs, &measured)),
    }
    if let Some(earlier) = earlier {
        let text = compare::to_text(&earlier, &measured);
        if args.json { eprint!("{text}") } else { print!("\n{text}") }
    }
    Ok(())
}

/// What can be measured within the limits of the artifact, and what cannot, and why.
fn cases(args: &BenchArgs, engine: &Engine) -> (Vec<Case>, Vec<String>) {
    let (context, slots) = (engine.kv().max_context(), engine.kv().slots());
    let (mut cases, mut skipped) = (Vec::new(), Vec::new());
    for &tokens in args.prefill.iter().filter(|n| **n > 0) {
        match tokens <= context {
            true => cases.push(Case::Prefill { tokens }),
            false => skipped.push(format!("skipped prefill of {tokens}: the artifact's --max-context is {context}")),
        }
    }
    for (&depth, &batch) in args.depth.iter().flat_map(|d| args.batch.iter().map(move |b| (d, b))).filter(|_| args.decode > 0) {
        let name = format!("skipped decode at depth {depth}, batch {batch}");
        // Up to the very end of the context, if that is what was asked for.
        let depth = if depth <= context { depth.min(context.saturating_sub(args.decode)) } else { depth };
        if depth + args.decode > context {
            skipped.push(format!("{name}: the artifact's --max-context is {context}"));
        } else if !(1..=slots).contains(&batch) {
            skipped.push(format!("{name}: the artifact's --max-batch is {slots}"));
        } else {
            cases.push(Case::Decode { depth, batch, steps: args.decode });
        }
    }
    (cases, skipped)
}

fn to_text(artifact: &Artifact, engine: &Engine, start: &Start, roofs: &model::Roofs, measured: &[Figures]) -> String {
    let meta = artifact.meta();
    let mut text = format!(
        "{}, {} weights, {} threads; this machine reads {:.1} GB/s and multiplies {:.0} GFLOP/s in {}, for attention {:.0} in {}\n\
        a token reads {} of {} weights, and its keys and values{}; weights by {:?}: ready in {:.1} ms, first step {:.1} ms\n\n",
        meta.model.name,
        meta.model.quant,
        engine.threads(),
        roofs.read / 1e9,
        roofs.flops / 1e9,
        roofs.arithmetic,
        roofs.attention.0 / 1e9,
        roofs.attention.1,
        bytes(meta.plan.decode_bytes),
        bytes(meta.plan.weight_bytes),
        start.accessed_bytes.map_or_else(String::new, |b| format!(" (counted, in whole pages: {})", bytes(b))),
        start.load,
        start.ready_seconds * 1e3,
        start.first_step_seconds * 1e3
    );
    let head = ["case", "tok/s", "from", "to", "ms/step", "GB/s", "% of read", "GFLOP/s", "% of peak"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for f in measured {
        rows.push(vec![
            f.name.clone(),
            digits(f.rate.median),
            digits(f.rate.least),
            digits(f.rate.most),
            format!("{:.3}", f.step_seconds * 1e3),
            f.read.map_or_else(String::new, |r| format!("{:.1}", r.bytes_per_second / 1e9)),
            f.read.map_or_else(String::new, |r| format!("{:.0}", r.share * 100.0)),
            digits(f.flops / 1e9),
            format!("{:.0}", f.peak_share * 100.0),
        ]);
    }
    text.push_str(&table(&rows));
    text
}

fn to_json(artifact: &Artifact, engine: &Engine, start: &Start, roofs: &model::Roofs, measured: &[Figures]) -> serde_json::Value {
    let cases: Vec<_> = measured
        .iter()
        .map(|f| {
            json!({
                "case": f.name, "tokens_per_second": { "median": f.rate.median, "min": f.rate.least, "max": f.rate.most },
                "step_seconds": f.step_seconds, "bytes_per_second": f.read.map(|r| r.bytes_per_second),
                "read_share": f.read.map(|r| r.share), "flops": f.flops, "peak_share": f.peak_share,
            })
        })
        .collect();
    json!({
        "model": artifact.meta().model.name, "quant": artifact.meta().model.quant, "threads": engine.threads(),
        "roofs": { "read_bytes_per_second": roofs.read, "flops": roofs.flops, "arithmetic": roofs.arithmetic,
            "attention_flops": roofs.attention.0, "attention_arithmetic": roofs.attention.1 },
        "decode_bytes": artifact.meta().plan.decode_bytes, "weight_bytes": artifact.meta().plan.weight_bytes,
        "start": { "load": format!("{:?}", start.load), "ready_seconds": start.ready_seconds, "first_step_seconds": start.first_step_seconds,
            "accessed_bytes": start.accessed_bytes },
        "cases": cases,
    })
}

/// Three digits for small figures, whole numbers for large ones.
fn digits(x: f64) -> String {
    if x >= 99.95 { format!("{x:.0}") } else { format!("{x:.1}") }
}
