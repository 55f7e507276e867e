//! `llamac logits`: numbers for people who compare.

use super::args::ArtifactArgs;
use super::tensors::{self, Out};
use crate::diag::{Diag, Result};
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::sampler::argmax;
use llamac_runtime::step::{Engine, EngineOptions};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Logits of token sequences, from safetensors to safetensors.
///
/// For every i64 tensor `NAME.input_ids` of shape [T] the output has `NAME.logits`, f32 [T, V], and with --greedy N also
/// `NAME.greedy_ids`, i64 [N] (ends of sequence are ignored). For shape [W, T] it has `NAME.nll`, f32 [W, T-1]: the negative log likelihood
/// (natural logarithm) of each next token of each window. Results have the same bits whatever --chunk, --batch and --threads say.
#[derive(Debug, clap::Args)]
pub(super) struct LogitsArgs {
    #[command(flatten)]
    artifact: ArtifactArgs,
    /// Safetensors file with `NAME.input_ids`.
    #[arg(long, short, value_name = "IN")]
    input: PathBuf,
    /// Safetensors file to write.
    #[arg(long, short, value_name = "OUT")]
    output: PathBuf,
    /// Also continue each sequence greedily by N tokens.
    #[arg(long, value_name = "N", default_value_t = 0)]
    greedy: usize,
    /// Feed prompts in pieces of C tokens [default: whole].
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u64).range(1..))]
    chunk: Option<u64>,
    /// Sequences that are run side by side.
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
}

/// A sequence to run and what it gives.
struct Job {
    name: String,
    /// Which window of a [W, T] tensor; `None`: logits are wanted.
    window: Option<usize>,
    tokens: Vec<u32>,
    fed: usize,
    logits: Vec<f32>,
    nll: Vec<f32>,
    greedy: Vec<i64>,
    next: Option<u32>,
}

pub(super) fn main(args: &LogitsArgs) -> Result<()> {
    let path = &args.artifact.artifact;
    let artifact = Artifact::open(path, &OpenOptions::default()).map_err(|e| super::run::open_error(path, &e))?;
    let (vocab, slots) = (artifact.meta().model.vocab, artifact.meta().plan.max_batch);
    if args.batch as usize > slots {
        return Err(Diag::new("bad-option", "--batch is larger than the artifact allows")
            .found(args.batch)
            .expected(format!("1 to {slots}"))
            .help(format!("compile with --max-batch {}", args.batch)));
    }
    let mut jobs = jobs(args, vocab)?;
    let options = EngineOptions { threads: args.artifact.threads, ..EngineOptions::default() };
    let mut engine = Engine::new(&artifact, &options).map_err(|e| super::run::engine_error(path, &e))?;
    for group in jobs.chunks_mut(args.batch as usize) {
        run(&mut engine, group, args).map_err(|e| super::run::engine_error(path, &e))?;
    }
    tensors::write(&args.output, &outputs(jobs, vocab, args.greedy))
}

/// One job per sequence of the input file.
fn jobs(args: &LogitsArgs, vocab: usize) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for (key, ids) in tensors::read_ids(&args.input)? {
        let Some(name) = key.strip_suffix(".input_ids") else { continue };
        let bad =
            |what: &str| Diag::new("tensors", what).place(format!("{}: `{key}`", args.input.display())).found(format!("{:?}", ids.shape));
        let (windows, length) = match ids.shape.as_slice() {
            [t] => (None, *t),
            [w, t] => (Some(*w), *t),
            _ => return Err(bad("token ids must be a vector or a matrix of windows").expected("[T] or [W, T]")),
        };
        if length == 0 {
            return Err(bad("a sequence has no tokens").expected("at least one").help("put the begin-of-sequence id in front"));
        }
        for (i, tokens) in ids.data.chunks_exact(length).enumerate() {
            let tokens = tokens_of(tokens, vocab).map_err(|id| {
                bad("a token id is not in the vocabulary")
                    .found(id)
                    .expected(format!("0 to {}", vocab - 1))
                    .help("use the tokenizer of this model")
            })?;
            let window = windows.map(|_| i);
            jobs.push(Job { name: name.to_owned(), window, tokens, fed: 0, logits: vec![], nll: vec![], greedy: vec![], next: None });
        }
    }
    if jobs.is_empty() {
        return Err(Diag::new("tensors", "the input has no i64 tensor whose name ends in `.input_ids`")
            .place(args.input.display())
            .help("name it for example `prompt.input_ids`"));
    }
    Ok(jobs)
}

fn tokens_of(ids: &[i64], vocab: usize) -> std::result::Result<Vec<u32>, i64> {
    ids.iter().map(|&id| u32::try_from(id).ok().filter(|&t| (t as usize) < vocab).ok_or(id)).collect()
}

/// Feeds the group's prompts in pieces, side by side, then continues them.
fn run(engine: &mut Engine, group: &mut [Job], args: &LogitsArgs) -> std::result::Result<(), llamac_runtime::step::EngineError> {
    let piece = args.chunk.map_or(usize::MAX, |c| c as usize);
    while group.iter().any(|j| j.fed < j.tokens.len()) {
        let active: Vec<usize> = (0..group.len()).filter(|&i| group[i].fed < group[i].tokens.len()).collect();
        let inputs: Vec<(usize, Vec<u32>)> =
            active.iter().map(|&i| (i, group[i].tokens[group[i].fed..].iter().copied().take(piece).collect())).collect();
        let batch: Vec<SeqInput<'_>> = inputs.iter().map(|(slot, tokens)| SeqInput { slot: *slot, tokens, logits: Want::All }).collect();
        engine.step_each(&batch, |input, _, logits| {
            let job = &mut group[inputs[input].0];
            job.fed += 1;
            if job.fed == job.tokens.len() {
                job.next = Some(argmax(logits));
            }
            match job.window {
                None => job.logits.extend_from_slice(logits),
                Some(_) => {
                    if let Some(&target) = job.tokens.get(job.fed) {
                        job.nll.push(-super::eval::log_probability(logits, target) as f32);
                    }
                }
            }
        })?;
    }
    for _ in 0..args.greedy {
        let wanted: Vec<(usize, [u32; 1])> =
            group.iter().enumerate().filter(|(_, j)| j.window.is_none()).filter_map(|(i, j)| j.next.map(|t| (i, [t]))).collect();
        for (i, [token]) in &wanted {
            group[*i].greedy.push(i64::from(*token));
        }
        if wanted.is_empty() || group.iter().all(|j| j.greedy.len() >= args.greedy || j.window.is_some()) {
            break;
        }
        let batch: Vec<SeqInput<'_>> =
            wanted.iter().map(|(slot, token)| SeqInput { slot: *slot, tokens: token, logits: Want::Last }).collect();
        engine.step_each(&batch, |input, _, logits| group[wanted[input].0].next = Some(argmax(logits)))?;
    }
    for slot in 0..group.len() {
        engine.truncate(slot, 0);
    }
    Ok(())
}

fn outputs(jobs: Vec<Job>, vocab: usize, greedy: usize) -> BTreeMap<String, Out> {
    let mut out: BTreeMap<String, Out> = BTreeMap::new();
    for job in jobs {
        match job.window {
            None => {
                out.insert(format!("{}.logits", job.name), Out::F32(vec![job.tokens.len(), vocab], job.logits));
                if greedy > 0 {
                    out.insert(format!("{}.greedy_ids", job.name), Out::I64(vec![job.greedy.len()], job.greedy));
                }
            }
            Some(_) => {
                let width = job.nll.len();
                let entry = out.entry(format!("{}.nll", job.name)).or_insert_with(|| Out::F32(vec![0, width], Vec::new()));
                if let Out::F32(shape, data) = entry {
                    shape[0] += 1;
                    data.extend(job.nll);
                }
            }
        }
    }
    out
}
