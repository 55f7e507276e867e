//! `llamac verify`: hashes, then check vectors.

use super::args::ArtifactArgs;
use super::output::Progress;
use crate::diag::{Diag, Result};
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::verify;
use serde_json::json;

/// Check that an artifact is whole and computes on this machine what it should.
///
/// First every section is compared with its hash (this reads the whole file). Then the prompts that were stored at compile time are run
/// and their logits compared with those that the reference evaluator computed from the checkpoint.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    artifact: ArtifactArgs,
    /// Only compare hashes: works for artifacts of other machines.
    #[arg(long)]
    hashes_only: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(args: &VerifyArgs) -> Result<()> {
    let path = &args.artifact.artifact;
    let options = OpenOptions { verify_code: true, check_target: !args.hashes_only };
    let artifact = Artifact::open(path, &options).map_err(|e| super::run::open_error(path, &e))?;
    let total = artifact.layout().sections.iter().map(|s| s.bytes).sum();
    let bar = Progress::bytes("hashing", total, args.json);
    let mut before = 0;
    artifact
        .verify_hashes(|done, _| {
            bar.advance(done - before);
            before = done;
        })
        .map_err(|e| super::run::open_error(path, &e))?;
    bar.finish();
    if !args.json {
        println!("hashes: {} sections, {} bytes, all as written", artifact.layout().sections.len(), total);
    }
    if args.hashes_only {
        if args.json {
            println!("{}", json!({ "hashes": "ok" }));
        }
        return Ok(());
    }

    let vectors = artifact.check_vectors().map_err(|e| super::run::open_error(path, &e))?;
    let Some(vectors) = vectors else {
        match args.json {
            true => println!("{}", json!({ "hashes": "ok", "check": null })),
            false => println!("check vectors: none are stored (compiled with --no-check)"),
        }
        return Ok(());
    };
    let report = verify::run(&artifact, &vectors, args.artifact.threads).map_err(|e| super::run::engine_error(path, &e))?;
    if args.json {
        println!(
            "{}",
            json!({ "hashes": "ok", "check": { "rows": report.rows, "rms": report.rms, "max_abs": report.max_abs, "bound": report.bound, "passed": report.passed() } })
        );
    }
    if !report.passed() {
        return Err(Diag::new("check", "the artifact does not compute here what the reference evaluator computed when it was compiled")
            .place(path.display())
            .found(format!("rms difference / std = {:.2e}, largest difference {:.2e}", report.rms, report.max_abs))
            .expected(format!("at most {:.0e}", report.bound))
            .help(
                "the file is as it was written, so this is a bug of llamac or of this CPU: please report it with `llamac inspect --json`",
            ));
    }
    if !args.json {
        let layers =
            if report.layers == 0 { "all layers".to_owned() } else { format!("{} layers (the first and the last)", report.layers) };
        println!(
            "check vectors: {} rows of logits through {layers}: rms difference / std = {:.2e} (bound {:.0e}), largest difference {:.2e}",
            report.rows, report.rms, report.bound, report.max_abs
        );
    }
    Ok(())
}
