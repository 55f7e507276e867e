//! `llamac eval`: perplexity of a text.

use super::args::ArtifactArgs;
use crate::diag::{Diag, Result};
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::step::{Engine, EngineOptions};
use llamac_runtime::tokenizer::EncodeOptions;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Perplexity of a text file.
///
/// The text is cut into windows of --window tokens; each is a sequence of its own behind a begin-of-sequence token. Printed is
/// exp(mean negative log likelihood) over all tokens of all windows.
#[derive(Debug, clap::Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    artifact: ArtifactArgs,
    /// Text file, UTF-8.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of a window.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(2..))]
    window: u64,
    /// Only the first N windows.
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Also compare with another artifact of the same model: KL divergence of this one's next-token distribution from the other's at every
    /// token, and how often both like the same token best.
    #[arg(long, value_name = "OTHER")]
    kl_against: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: &EvalArgs) -> Result<()> {
    let path = &args.artifact.artifact;
    let artifact = Artifact::open(path, &OpenOptions::default()).map_err(|e| super::run::open_error(path, &e))?;
    let tokenizer = super::run::tokenizer(&artifact)?;
    let text = std::fs::read_to_string(&args.text).map_err(|e| Diag::io("cannot read the text", args.text.display(), &e))?;
    let ids = tokenizer.encode(&text, EncodeOptions { parse_special: false, add_bos: false });
    let bos = artifact.meta().generation.bos;
    let window = (args.window as usize).min(artifact.meta().model.max_context - usize::from(bos.is_some()));
    let windows: Vec<Vec<u32>> = ids
        .chunks(window)
        .filter(|w| w.len() > 1 || bos.is_some())
        .take(args.windows.unwrap_or(usize::MAX))
        .map(|w| bos.into_iter().chain(w.iter().copied()).collect())
        .collect();
    if windows.is_empty() {
        return Err(Diag::new("text", "the text is too short")
            .place(args.text.display())
            .found(format!("{} tokens", ids.len()))
            .expected("two or more"));
    }
    let options = EngineOptions { threads: args.artifact.threads, ..EngineOptions::default() };
    let mut engine = Engine::new(&artifact, &options).map_err(|e| super::run::engine_error(path, &e))?;
    let other = args.kl_against.as_deref();
    let mut against = other.map(|path| super::kl::Against::open(path, &artifact, args.artifact.threads)).transpose()?;
    let start = Instant::now();
    let (mut sum, mut count) = (0.0, 0usize);
    for tokens in &windows {
        if let Some(against) = &mut against {
            against.window(tokens)?;
        }
        let batch = [SeqInput { slot: 0, tokens, logits: Want::All }];
        let scored = engine.step_each(&batch, |_, row, logits| {
            if let Some(against) = &mut against {
                against.compare(row, logits);
            }
            if let Some(&target) = tokens.get(row + 1) {
                sum -= log_probability(logits, target);
                count += 1;
            }
        });
        scored.map_err(|e| super::run::engine_error(path, &e))?;
        engine.truncate(0, 0);
    }
    let (nll, seconds) = (sum / count as f64, start.elapsed().as_secs_f64());
    let kl = against.map(super::kl::Against::figures);
    match args.json {
        true => println!(
            "{}",
            json!({ "perplexity": nll.exp(), "nll": nll, "tokens": count, "windows": windows.len(), "seconds": seconds, "kl": kl })
        ),
        false => println!(
            "perplexity {:.4} (mean negative log likelihood {nll:.6}) over {count} tokens in {} windows; {:.0} tokens/s",
            nll.exp(),
            windows.len(),
            count as f64 / seconds
        ),
    }
    if let (Some(kl), false) = (kl, args.json) {
        println!("{kl}");
    }
    Ok(())
}

/// Natural logarithm of the softmax of `logits` at `target`, summed in f64.
pub(super) fn log_probability(logits: &[f32], target: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(logits[target as usize] - max) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_of_all_tokens_sum_to_one() {
        let logits = [1.0, -3.0, 80.0, 79.5];
        let total: f64 = (0..4).map(|t| log_probability(&logits, t).exp()).sum();
        assert!((total - 1.0).abs() < 1e-12);
    }
}
