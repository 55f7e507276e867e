//! `llamac infer`: any graph on tensors.

use crate::diag::{Diag, Result};
use crate::graph;
use std::path::{Path, PathBuf};

/// Run a graph on tensors, from safetensors to safetensors.
///
/// MODEL is an artifact that `llamac compile` made, or an ONNX file itself. Tensors have the names, element
/// types and shapes of the graph's inputs and outputs. Element types that safetensors lacks take a byte each: int4 and int2 in I8, uint4 and uint2 in
/// U8, other small floats their code in U8.
///
/// An artifact of a decoder runs its compiled code: ids, mask, positions and past go in, logits and cache come out, under the names of the ONNX graph.
/// (Of a checkpoint: input_ids, attention_mask, position_ids, past_key_values.L.key/value; all but the ids may be left out.) Each row of the batch is a
/// sequence; columns that the mask calls padding are no part of it, and their logits and cache entries come out as zeros. What compiled code would
/// compute otherwise (holes in a mask, other positions) is refused.
///
/// Other graphs, and ONNX files, are interpreted, op by op, in floats of 64 bits that are rounded to the type of each result: exact, not fast.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  llamac compile square.onnx -o square.llx && llamac infer square.llx --input in.safetensors --output out.safetensors"
)]
pub(super) struct InferArgs {
    /// Artifact, or an ONNX model.
    #[arg(value_name = "MODEL", required_unless_present = "batch")]
    model: Option<PathBuf>,
    /// Safetensors file with a tensor for each input of the graph.
    #[arg(long, short, value_name = "IN", required_unless_present = "batch")]
    input: Option<PathBuf>,
    /// Safetensors file to write.
    #[arg(long, short, value_name = "OUT", required_unless_present = "batch")]
    output: Option<PathBuf>,
    /// Say nothing but errors.
    #[arg(long, short)]
    quiet: bool,
    /// Compile and run `model.onnx` on `in.safetensors` in each folder of DIR; writes `out.safetensors` or `error.txt` there.
    #[arg(long, value_name = "DIR", hide = true, conflicts_with_all = ["model", "input", "output"])]
    batch: Option<PathBuf>,
}

pub(super) fn main(args: &InferArgs) -> Result<()> {
    match (args, &args.batch) {
        (_, Some(folder)) => batch(folder),
        (InferArgs { model: Some(model), input: Some(input), output: Some(output), .. }, None) => {
            let shown = graph::infer(model, input, output)?;
            if !args.quiet {
                println!("{}: {}", output.display(), shown.join(", "));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn batch(folder: &Path) -> Result<()> {
    let fail = |e: &std::io::Error| Diag::io("cannot read the folder of cases", folder.display(), e);
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).map_err(|e| fail(&e))?.filter_map(|e| Some(e.ok()?.path())).collect();
    cases.retain(|c| c.join("model.onnx").exists());
    cases.sort();
    for case in cases {
        let (artifact, error) = (case.join("model.llx"), case.join("error.txt"));
        let run = || {
            graph::store(&case.join("model.onnx"), &artifact)?;
            graph::infer(&artifact, &case.join("in.safetensors"), &case.join("out.safetensors"))
        };
        // What panics is shown as such: it is a bug.
        let done = std::panic::catch_unwind(run).unwrap_or_else(|_| Err(Diag::new("internal", "a panic")));
        if let Err(diag) = done {
            std::fs::write(&error, diag.to_string()).map_err(|e| fail(&e))?;
        }
    }
    Ok(())
}
