//! Flags that several commands share.

use crate::auto::{Budget, KV_AUTO};
use crate::calibrate::Text;
use crate::diag::{Diag, Result};
use crate::driver::{CompileOptions, KV_FORMATS};
use clap::ValueEnum;
use llamac_passes::pipeline::PRECISIONS;
use llamac_runtime::memory::LoadMode;
use std::path::PathBuf;

/// What is compiled and for what: shared by `compile`, `plan`, `explain` and `run MODEL`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BuildArgs {
    /// Weight format. Without it: bf16, or f32 if the checkpoint is f32.
    ///
    /// int4 (q4g32: a scale for each 32 columns) and int8 (q8: a scale for each row) quantize the matrices of the layers, round the inputs of matrix
    /// products to int8, keep embedding and head in int8 and the KV cache in bf16. q4g64, q4g128 and q8g32 are the same with other groups, q6g32 has 6 bits. bf16 keeps a bf16
    /// checkpoint's weights bit for bit, rounds the inputs of matrix products to bf16 and keeps the KV cache in bf16; everything else is f32.
    /// f32 computes everything in f32. auto chooses among q4g128, q4g64, q4g32, q6g32 and q8 for each group of matrices in each layer, under
    /// --size or --max-kl.
    #[arg(long, value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(PRECISIONS.iter().map(|p| p.name).chain(["auto"])))]
    pub(super) quant: Option<String>,
    /// Format of the KV cache [default: bf16, or f32 in an f32 artifact].
    ///
    /// int8 keeps a scale for each head of each token: half the memory, and half of what a token reads of it at a long context. auto, with
    /// --quant auto, chooses: under --size 700MB the cache of one sequence of --max-context tokens counts, and the smaller loss wins; under
    /// --max-kl the fewest bytes of weights and cache; under --size 4.5bpw the cache does not count and stays bf16 unless int8 loses less.
    #[arg(long, value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(KV_FORMATS.iter().map(|f| f.0).chain([KV_AUTO])))]
    pub(super) kv: Option<String>,
    /// CPU to compile for: `native`, `x86_64-v2`, `x86_64-v3`, `x86_64-v4`, with `+feature` added. See `llamac targets`.
    #[arg(long, value_name = "TARGET", default_value = "native")]
    pub(super) target: String,
    /// Longest sequence, tokens [default: the model's limit, at most 32768].
    #[arg(long, value_name = "N")]
    pub(super) max_context: Option<usize>,
    /// Sequences that may be in progress at a time.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) max_batch: usize,
    /// New tokens that one step may take: the size of a prefill chunk and of the activation buffers.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(super) max_step: usize,
}

/// What quantizing looks at, and what `--quant auto` keeps to: shared by `compile` and `explain`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ChoiceArgs {
    /// Quantize with regard to what matrices are multiplied with when the model reads TEXT: a UTF-8 file, or `default` for a text that is part of
    /// llamac. The error of the products becomes small instead of that of the weights: about half the KL divergence at the same size.
    ///
    /// The model is run over at most 2048 tokens in the reference evaluator, on every core: some minutes for 1B parameters.
    #[arg(long, value_name = "TEXT", value_parser = text)]
    calibrate: Option<Text>,
    /// For --quant auto: bits for each weight with its scales, as `4.5bpw`, or bytes of all matrices, as `700MB`; embedding and head count.
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "max_kl")]
    size: Option<Budget>,
    /// For --quant auto: most KL divergence from the unrounded model, mean over the tokens of a held-out part of the text, in nats.
    #[arg(long, value_name = "KL", value_parser = most_kl)]
    max_kl: Option<Budget>,
}

impl ChoiceArgs {
    /// The options with these.
    pub(super) fn add_to(&self, options: CompileOptions) -> Result<CompileOptions> {
        let budget = self.size.or(self.max_kl);
        if budget.is_some() && options.quant.as_deref() != Some("auto") {
            return Err(Diag::new("option", "--size and --max-kl are for --quant auto")
                .found(options.quant.as_deref().map_or_else(|| "no --quant".to_owned(), |q| format!("--quant {q}")))
                .expected("--quant auto")
                .help("add --quant auto, or leave them out"));
        }
        Ok(CompileOptions { calibrate: self.calibrate.clone(), budget, ..options })
    }
}

fn text(given: &str) -> std::result::Result<Text, std::convert::Infallible> {
    Ok(if given == "default" { Text::Default } else { Text::File(given.into()) })
}

fn size(given: &str) -> std::result::Result<Budget, String> {
    let wrong = || format!("found `{given}`, expected a size such as 4.5bpw, 700MB or 1.2GB");
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0).ok_or_else(wrong);
    if let Some(bits) = given.strip_suffix("bpw") {
        return Ok(Budget::BitsPerWeight(number(bits)?));
    }
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)];
    let (text, unit) = units.iter().find_map(|(u, by)| given.strip_suffix(u).map(|t| (t, *by))).unwrap_or((given, 1.0));
    Ok(Budget::Bytes((number(text)? * unit) as u64))
}

fn most_kl(given: &str) -> std::result::Result<Budget, String> {
    let number = given.parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0);
    number.map(Budget::Divergence).ok_or_else(|| format!("found `{given}`, expected a number of nats such as 0.01"))
}

/// An artifact to open and how to run it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ArtifactArgs {
    /// Artifact that `llamac compile` wrote.
    #[arg(value_name = "ARTIFACT")]
    pub(super) artifact: PathBuf,
    /// Threads to run on [default: every core this process may use].
    #[arg(long, short = 't', value_name = "N")]
    pub(super) threads: Option<usize>,
}

/// [`LoadMode`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Load {
    /// Map the file: ready at once.
    Mmap,
    /// Copy the weights into huge pages first: faster afterwards on some systems.
    Huge,
    /// Map, and copy only where the system maps the file in small pages.
    Auto,
}

impl Load {
    /// As the runtime takes it.
    pub(super) fn mode(self) -> LoadMode {
        match self {
            Load::Mmap => LoadMode::Mmap,
            Load::Huge => LoadMode::Huge,
            Load::Auto => LoadMode::Auto,
        }
    }
}

impl BuildArgs {
    /// As the driver takes it.
    pub(super) fn options(&self) -> CompileOptions {
        CompileOptions {
            quant: self.quant.clone(),
            kv: self.kv.clone(),
            target: self.target.clone(),
            max_context: self.max_context,
            max_batch: self.max_batch,
            max_step: self.max_step,
            ..CompileOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bits_or_bytes() {
        assert_eq!(size("4.5bpw"), Ok(Budget::BitsPerWeight(4.5)));
        assert_eq!(size("700MB"), Ok(Budget::Bytes(700_000_000)));
        assert_eq!(size("1.5 GB"), Ok(Budget::Bytes(1_500_000_000)));
        assert_eq!(size("1234"), Ok(Budget::Bytes(1234)));
        for bad in ["", "bpw", "-1MB", "0", "many", "infbpw"] {
            assert!(size(bad).is_err_and(|e| e.contains("4.5bpw")), "{bad}");
        }
        assert!(most_kl("0.01").is_ok() && most_kl("-1").is_err() && most_kl("x").is_err());
    }
}
