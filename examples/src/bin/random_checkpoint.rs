//! Writes a Hugging Face directory of random weights in the shape of a config.json: true sizes without a download.

use clap::Parser;
use llamac_examples::checkpoint::{self, Options};
use llamac_examples::random::Float;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Write a checkpoint of random weights in the shape of a config.json.
///
/// Activations stay near one, so that numbers are those of a real model; the text that it writes is noise.
/// Example: `random_checkpoint tests/fixtures/configs/llama-3.2-1b/config.json random-1b`, then `llamac compile random-1b`.
#[derive(Debug, Parser)]
struct Args {
    /// The config.json of a Llama 3 or Llama 4 model (of vision models of Llama 4, the text half is written).
    config: PathBuf,
    /// Directory to write.
    out: PathBuf,
    /// Element type.
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Float,
    /// Number of safetensors files.
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Same seed, same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let start = Instant::now();
    match checkpoint::write(&args.config, &args.out, &Options { dtype: args.dtype, shards: args.shards, seed: args.seed }) {
        Ok(bytes) => {
            let seconds = start.elapsed().as_secs_f64();
            eprintln!("{}: {:.2} GB in {seconds:.2} s", args.out.display(), bytes as f64 / 1e9);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
