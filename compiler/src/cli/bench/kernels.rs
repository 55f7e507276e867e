//! Kernel rows that this CPU can run, alone, on the shapes of a model, from the cache and from memory.

use super::model::raw_read;
use crate::cli::output::table;
use crate::diag::{Diag, Result};
use llamac_runtime::artifact::target::{ARCH, has_feature};
use llamac_runtime::artifact::{Artifact, SectionKind};
use llamac_runtime::format::{WEIGHT_FORMATS, WeightFormat};
use llamac_runtime::kernels::bench::{Measured, bench_attention, bench_dot};
use llamac_runtime::kernels::table::GENERIC;
use llamac_runtime::kernels::{KERNELS, KernelRow};
use llamac_runtime::roof;
use llamac_runtime::threads::default_threads;
use serde_json::json;
use std::collections::BTreeSet;

/// Rows of activations that rows for many are given.
const MANY: usize = 384;
/// Tokens in the cache for attention.
const DEPTH: usize = 4096;

struct Line {
    name: &'static str,
    shape: String,
    from: &'static str,
    measured: Measured,
    /// Raw read just before, bytes per second; for what is read from memory.
    raw: Option<f64>,
    /// Multiply-accumulates per second at best, in the kernel's arithmetic.
    peak: f64,
}

pub(super) fn main(artifact: &Artifact, text: &str, threads: Option<usize>, as_json: bool) -> Result<()> {
    let threads = threads.unwrap_or_else(default_threads);
    // Generic twins are a hundred times slower; who wants them asks for them.
    let asked = |r: &&KernelRow| r.name.contains(text) && (!text.is_empty() || r.isa != &GENERIC) && matches!(r.op, "dot" | "attention");
    let rows: Vec<&KernelRow> = KERNELS.iter().filter(asked).collect();
    if rows.is_empty() {
        return Err(Diag::new("bench", format!("no kernel has `{text}` in its name")).help("the names: llamac bench NAME.llx --kernels"));
    }
    if !rows.iter().any(|r| runs_here(r)) {
        let names: Vec<&str> = rows.iter().map(|r| r.name).collect();
        return Err(Diag::new("bench", format!("this CPU can run none of {}", names.join(", "))));
    }
    let mut lines = Vec::new();
    for row in rows.into_iter().filter(|r| runs_here(r)) {
        let arithmetic = if row.op == "dot" { roof::Arithmetic::of_format(row.format) } else { roof::Arithmetic::of_cache(row.format) };
        let peak = roof::macs(arithmetic, threads);
        match row.op {
            "dot" => lines.extend(dots(row, artifact, threads, peak)),
            "attention" => lines.extend(attention(row, artifact, threads, peak)),
            _ => {}
        }
    }
    match as_json {
        true => println!("{}", json!(lines.iter().map(Line::json).collect::<Vec<_>>())),
        false => {
            let head = ["kernel", "shape", "from", "us", "GB/s", "% of read", "GMAC/s", "% of peak"].map(str::to_owned).to_vec();
            println!("{} threads\n", threads);
            print!("{}", table(&std::iter::once(head).chain(lines.iter().map(Line::cells)).collect::<Vec<_>>()));
        }
    }
    Ok(())
}

fn runs_here(row: &KernelRow) -> bool {
    (row.isa.arch.is_empty() || row.isa.arch == ARCH) && row.isa.features.iter().all(|f| has_feature(f))
}

fn dots(row: &'static KernelRow, artifact: &Artifact, threads: usize, peak: f64) -> Vec<Line> {
    let Some(format) = WEIGHT_FORMATS.iter().find(|f| f.name == row.format) else { return Vec::new() };
    let m = if row.m == 1 { 1 } else { MANY };
    let mut lines = Vec::new();
    for (n, k) in shapes(artifact) {
        for from_dram in [false, true] {
            // From memory, rows for many are as fast as from the cache.
            if from_dram && m > 1 {
                continue;
            }
            lines.push(Line {
                name: row.name,
                shape: format!("{m} x {k} -> {n}"),
                from: if from_dram { "memory" } else { "cache" },
                raw: from_dram.then(|| raw_read(threads)),
                peak,
                measured: bench_dot(row, padded(format, k), n.div_ceil(16), m, threads, from_dram),
            });
        }
    }
    lines
}

fn padded(format: &WeightFormat, k: usize) -> usize {
    k.next_multiple_of(format.k_unit.max(16))
}

fn attention(row: &'static KernelRow, artifact: &Artifact, threads: usize, peak: f64) -> Vec<Line> {
    let plan = &artifact.meta().plan;
    let line = |kv: &llamac_runtime::artifact::meta::KvMeta| Line {
        name: row.name,
        shape: format!("{DEPTH} keys of {}", kv.head_dim),
        from: "memory",
        raw: Some(raw_read(threads)),
        peak,
        measured: bench_attention(row, kv.head_dim, 1, 1, DEPTH, threads),
    };
    plan.kv.iter().take(1).map(line).collect()
}

/// `(rows, columns)` of the model's matrices, each once.
fn shapes(artifact: &Artifact) -> Vec<(usize, usize)> {
    let text = String::from_utf8_lossy(artifact.section(SectionKind::Ir).unwrap_or_default());
    let Ok(module) = llamac_ir::parse::parse(&text) else { return vec![(2048, 2048)] };
    let weights = module.funcs.iter().flat_map(|f| &f.weights);
    let shapes: BTreeSet<(usize, usize)> = weights
        .filter_map(|w| match w.ty.shape.as_slice() {
            [n, k] => Some((n.value()?, k.value()?)),
            _ => None,
        })
        .collect();
    shapes.into_iter().collect()
}

impl Line {
    fn bytes_per_second(&self) -> f64 {
        self.measured.bytes as f64 / self.measured.seconds
    }

    fn macs_per_second(&self) -> f64 {
        self.measured.macs as f64 / self.measured.seconds
    }

    fn cells(&self) -> Vec<String> {
        let read = self.bytes_per_second();
        vec![
            self.name.to_owned(),
            self.shape.clone(),
            self.from.to_owned(),
            format!("{:.1}", self.measured.seconds * 1e6),
            format!("{:.1}", read / 1e9),
            self.raw.map_or_else(String::new, |raw| format!("{:.0}", read / raw * 100.0)),
            format!("{:.1}", self.macs_per_second() / 1e9),
            format!("{:.0}", self.macs_per_second() / self.peak * 100.0),
        ]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "kernel": self.name, "shape": self.shape, "from": self.from, "seconds": self.measured.seconds,
            "bytes_per_second": self.bytes_per_second(), "read_share": self.raw.map(|raw| self.bytes_per_second() / raw),
            "macs_per_second": self.macs_per_second(), "peak_share": self.macs_per_second() / self.peak,
        })
    }
}
