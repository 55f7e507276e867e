//! Flags that several commands share.

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
    /// products to int8, keep embedding and head in int8 and the KV cache in bf16. q4g64, q4g128 and q8g32 are the same with other groups. bf16 keeps a bf16 checkpoint's weights bit for bit, rounds the inputs of matrix products to bf16 and keeps the KV cache in bf16;
    /// everything else is f32. f32 computes everything in f32.
    #[arg(long, value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(PRECISIONS.iter().map(|p| p.name)))]
    pub(super) quant: Option<String>,
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
    pub(super) fn options(&self) -> crate::driver::CompileOptions {
        crate::driver::CompileOptions {
            quant: self.quant.clone(),
            target: self.target.clone(),
            max_context: self.max_context,
            max_batch: self.max_batch,
            max_step: self.max_step,
            check: true,
        }
    }
}
