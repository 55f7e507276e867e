//! `llamac inspect`: what is in an artifact.

use super::output::{bytes, grouped, table};
use crate::diag::Result;
use llamac_runtime::abi;
use llamac_runtime::artifact::meta::Meta;
use llamac_runtime::artifact::{Artifact, OpenOptions, SectionKind};
use serde_json::json;
use std::path::PathBuf;

/// Show what is in an artifact: sections, plan, kernels, sizes. Works on any machine.
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Artifact that `llamac compile` wrote.
    #[arg(value_name = "ARTIFACT")]
    artifact: PathBuf,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
    /// Print the optimised module (IR text) instead.
    #[arg(long, conflicts_with = "json")]
    ir: bool,
    /// Print the buffers of the activation arena too.
    #[arg(long)]
    buffers: bool,
}

pub(super) fn main(args: &InspectArgs) -> Result<()> {
    let path = &args.artifact;
    if let Some(text) = crate::graph::described(path)? {
        print!("{text}");
        return Ok(());
    }
    let options = OpenOptions { verify_code: false, check_target: false };
    let artifact = Artifact::open(path, &options).map_err(|e| super::run::open_error(path, &e))?;
    if args.ir {
        print!("{}", String::from_utf8_lossy(artifact.section(SectionKind::Ir).unwrap_or_default()));
        return Ok(());
    }
    let meta = artifact.meta();
    if args.json {
        let sections: Vec<_> = artifact
            .layout()
            .sections
            .iter()
            .map(|s| json!({ "kind": s.name(), "offset": s.offset, "bytes": s.bytes, "blake3": hex(&s.hash) }))
            .collect();
        println!("{}", json!({ "file_bytes": artifact.layout().file_bytes, "sections": sections, "meta": meta }));
        return Ok(());
    }
    println!("{}: {} for {}, {} weights", path.display(), meta.model.name, meta.target.arch, meta.model.quant);
    println!("written by llamac {}, ABI {}, CPU features: {}\n", meta.compiler, meta.target.abi, or_none(&meta.target.features.join(" ")));
    let mut rows = vec![vec!["section".into(), "offset".into(), "bytes".into(), "blake3".into()]];
    for s in &artifact.layout().sections {
        rows.push(vec![s.name(), grouped(s.offset), grouped(s.bytes), hex(&s.hash)[..16].to_owned()]);
    }
    rows.push(vec!["file".into(), String::new(), grouped(artifact.layout().file_bytes), String::new()]);
    print!("{}", table(&rows));
    println!("\n{}", memory(meta));
    println!("kernels: {}", meta.kernels.join(", "));
    if args.buffers {
        let mut rows = vec![vec!["buffer".into(), "offset".into(), "bytes".into()]];
        rows.extend(meta.plan.buffers.iter().map(|b| vec![b.name.clone(), grouped(b.offset), grouped(b.bytes)]));
        print!("\n{}", table(&rows));
    }
    Ok(())
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none beyond the base" } else { text }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// KV bytes that a sequence grows by with each token: layers that see all tokens.
pub(super) fn kv_per_token(meta: &llamac_runtime::artifact::meta::PlanMeta) -> u64 {
    meta.kv.iter().filter(|k| k.chunk == 0).map(|k| k.page_bytes / abi::PAGE_TOKENS as u64).sum()
}

/// The plan as a table, exact bytes with a readable figure beside.
pub(super) fn memory(meta: &Meta) -> String {
    let plan = &meta.plan;
    let per_token = kv_per_token(plan);
    let kv = plan.kv.first().map_or("none", |k| k.format.as_str());
    let context = meta.model.max_context as u64;
    let line = |name: &str, n: u64| vec![name.to_owned(), grouped(n), bytes(n)];
    let mut rows = vec![
        vec!["parameters".into(), grouped(meta.model.parameters), String::new()],
        line("weights, mapped from the file", plan.weight_bytes),
        line(&format!("activations, {} tokens a step", plan.max_step), plan.arena_bytes),
        line("working memory of each thread", (abi::SCRATCH_BYTES + abi::PARTS_BYTES) as u64),
        line(&format!("KV cache per token, {kv}"), per_token),
    ];
    for group in plan.kv.iter().filter(|k| k.chunk > 0) {
        let ring = group.page_bytes * group.chunk.div_ceil(abi::PAGE_TOKENS) as u64;
        rows.push(line(&format!("KV ring of a sequence, {} layers of chunk {}", group.layers, group.chunk), ring));
    }
    for tokens in [4096, context] {
        if tokens <= context {
            rows.push(line(&format!("KV cache of a sequence of {tokens}"), plan.cache_bytes(tokens)));
        }
    }
    rows.dedup();
    rows.push(line(&format!("KV cache at most, {} sequences", plan.max_batch), plan.cache_bytes(context) * plan.max_batch as u64));
    rows.push(line("read from memory per decoded token, without KV", plan.decode_bytes));
    rows.push(vec!["multiply-accumulates per token".into(), grouped(plan.decode_macs), String::new()]);
    table(&rows)
}
