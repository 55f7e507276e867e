//! The compiler as one function, read from top to bottom: [`compile`]. Each step is a module of its own; only the order is here.

use crate::check;
use crate::codegen::{self, Code};
use crate::diag::{Diag, Result, Warning};
use crate::frontend::{self, Model};
use crate::lower::{self, Limits, Program};
use crate::pack::{self, unwritable};
use crate::target::Target;
use llamac_ir::dtype::DType;
use llamac_ir::module::Module;
use llamac_passes::pipeline::{self, PRECISIONS, Precision, Report};
use llamac_runtime::abi::ABI_VERSION;
use llamac_runtime::artifact::check::CheckVectors;
use llamac_runtime::artifact::meta::{Meta, ModelMeta, TargetMeta};
use llamac_runtime::artifact::{ArtifactWriter, SectionKind};
use std::path::Path;
use std::time::{Duration, Instant};

/// What to compile for. `None` means: as the model suggests.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// A name of `llamac_passes::pipeline::PRECISIONS`.
    pub quant: Option<String>,
    /// See [`Target::parse`].
    pub target: String,
    /// Longest sequence, tokens.
    pub max_context: Option<usize>,
    /// Sequences at a time.
    pub max_batch: usize,
    /// New tokens in one step.
    pub max_step: usize,
    /// Whether the reference evaluator computes check vectors.
    pub check: bool,
}

impl Default for CompileOptions {
    fn default() -> CompileOptions {
        CompileOptions { quant: None, target: "native".into(), max_context: None, max_batch: 8, max_step: 512, check: true }
    }
}

/// Rows of logits that one step may return. More are asked for in several steps.
const MAX_ROWS: usize = 64;

/// Longest sequence by default: the KV cache of a longer one should be asked for.
const DEFAULT_CONTEXT: usize = 32768;

/// Who is told how far a compile is.
pub trait Progress: Sync {
    /// `bytes` of `total` weight bytes more have been written.
    fn weights(&self, bytes: u64, total: u64);
}

/// Tells nobody.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn weights(&self, _: u64, _: u64) {}
}

/// A model after every step that needs no weights.
#[derive(Debug)]
pub struct Planned {
    /// The module as the front end wrote it.
    pub imported: Module,
    /// The module with formats chosen and nothing fused: what the reference evaluator runs.
    pub quantized: Module,
    /// The module after the passes.
    pub module: Module,
    /// What the passes did.
    pub report: Report,
    /// The step program.
    pub program: Program,
    /// What it is compiled for.
    pub target: Target,
    /// Format of weights and products.
    pub precision: Precision,
    /// Everything worth telling the user.
    pub warnings: Vec<Warning>,
}

/// What a compile did.
#[derive(Debug)]
pub struct Summary {
    /// Metadata of the artifact.
    pub meta: Meta,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Everything worth telling the user.
    pub warnings: Vec<Warning>,
    /// Time of each step.
    pub times: Vec<(&'static str, Duration)>,
}

/// Optimises and lowers a model: everything that a plan needs.
///
/// # Errors
/// A target that is not known, a context that the model cannot have, or a bug of ours that the verifier found.
pub fn plan(model: &Model, options: &CompileOptions) -> Result<Planned> {
    let target = Target::parse(&options.target).map_err(|e| Diag::new("target", e.to_string()).help("`llamac targets` lists them"))?;
    let mut warnings = model.warnings.clone();
    let precision = precision(options.quant.as_deref(), model, &mut warnings)?;
    let limits = limits(model, options, &mut warnings)?;

    let imported = model.module(&limits)?;
    let mut module = imported.clone();
    let mut quantized = None;
    let passes = pipeline::Options { precision, machine: target.machine(), ..pipeline::Options::default() };
    let report = pipeline::run_observed(&mut module, &passes, &mut |pass, module| {
        if pass == "choose-precision" {
            quantized = Some(module.clone());
        }
    })
    .map_err(|e| ours("a pass left the module in a bad state", &e))?;
    let quantized = quantized.unwrap_or_else(|| imported.clone());

    let program = lower::lower(&module, &target, &limits).map_err(|e| ours("the module could not be lowered", &e))?;
    Ok(Planned { imported, quantized, module, report, program, target, precision, warnings })
}

/// Compiles the model in `folder` into the artifact `out`, which appears under its name only when it is complete.
///
/// # Errors
/// Whatever is wrong with the input, the options or the place to write to.
pub fn compile(folder: &Path, out: &Path, options: &CompileOptions, progress: &dyn Progress) -> Result<Summary> {
    let mut times = Times::new();
    let mut writer = ArtifactWriter::create(out).map_err(|e| unwritable(&e))?;
    let model = frontend::load(folder)?;
    times.lap("read");
    let planned = plan(&model, options)?;
    times.lap("optimise");
    let code = codegen::compile(&planned.program, &planned.target).map_err(|e| ours("no code could be made", &e))?;
    times.lap("code");
    let meta = planned.meta(&model, Some(&code));
    let weights = model.weights().ok_or_else(|| ours("the model was loaded without weights", &folder.display()))?;
    let vectors = match options.check {
        true => Some(check::vectors(&planned.quantized, weights, model.parameters(), model.config.vocab, &meta.model.quant)?),
        false => None,
    };
    times.lap("check vectors");

    let sections = small_sections(&meta, &code, model.tokenizer.as_ref(), vectors.as_ref(), &planned.module);
    let small: u64 = sections.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let total = planned.program.weight_bytes;
    writer.reserve(total + small).map_err(|e| unwritable(&e))?;
    for (kind, bytes) in &sections {
        writer.put(*kind, bytes).map_err(|e| unwritable(&e))?;
    }
    let section = writer.sized_section(SectionKind::Weights, total).map_err(|e| unwritable(&e))?;
    pack::write(&planned.program, weights, &section, &|bytes| progress.weights(bytes, total))?;
    section.finish().map_err(|e| unwritable(&e))?;
    let file_bytes = writer.finish().map_err(|e| unwritable(&e))?;
    times.lap("weights");
    Ok(Summary { meta, file_bytes, code_bytes: code.blob.len(), warnings: planned.warnings, times: times.laps })
}

impl Planned {
    /// The artifact's metadata; without `code` its entry and kernels stay empty.
    pub fn meta(&self, model: &Model, code: Option<&Code>) -> Meta {
        Meta {
            compiler: env!("CARGO_PKG_VERSION").to_owned(),
            target: TargetMeta {
                arch: self.target.arch.name().to_owned(),
                features: self.target.features.iter().cloned().collect(),
                abi: ABI_VERSION,
            },
            model: ModelMeta {
                name: model.name.clone(),
                architecture: model.config.architecture.name.to_owned(),
                layers: model.config.layers,
                vocab: model.config.vocab,
                max_context: self.program.limits.max_context,
                parameters: model.parameters(),
                quant: self.precision.name.to_owned(),
            },
            plan: self.program.plan_meta(),
            kernels: code.map(|c| c.kernels.clone()).unwrap_or_default(),
            schedule: self.program.schedule.clone(),
            entry: code.map_or(0, |c| c.entry),
            generation: model.generation.clone(),
        }
    }
}

fn ours(what: &str, error: &dyn std::fmt::Display) -> Diag {
    Diag::new("internal", format!("{what}; this is a bug of llamac")).found(error).help("please report it with the model's config.json")
}

/// Everything but the weights, in the order of the file.
fn small_sections(
    meta: &Meta,
    code: &Code,
    tokenizer: Option<&frontend::tokenizer::TokenizerSections>,
    vectors: Option<&CheckVectors>,
    module: &Module,
) -> Vec<(SectionKind, Vec<u8>)> {
    let mut sections = vec![(SectionKind::Meta, serde_json::to_vec(meta).unwrap_or_default()), (SectionKind::Code, code.blob.clone())];
    sections.extend(tokenizer.map(|t| (SectionKind::Tokenizer, t.table.clone())));
    sections.extend(tokenizer.and_then(|t| t.template.clone()).map(|t| (SectionKind::Template, t)));
    sections.extend(vectors.map(|v| (SectionKind::Check, v.to_bytes())));
    sections.push((SectionKind::Ir, module.to_string().into_bytes()));
    sections
}

fn precision(quant: Option<&str>, model: &Model, warnings: &mut Vec<Warning>) -> Result<Precision> {
    let stored = model.dtype();
    let Some(name) = quant else {
        return Ok(if stored == DType::F32 { Precision::F32 } else { Precision::BF16 });
    };
    let Some(precision) = Precision::from_name(name) else {
        let names: Vec<&str> = PRECISIONS.iter().map(|p| p.name).collect();
        return Err(Diag::new("quant", "unknown weight format").found(name).expected(names.join(", ")).help("choose one with --quant"));
    };
    if precision == Precision::BF16 && stored == DType::F16 {
        let what = "the checkpoint is f16; bf16 keeps three bits less of each weight (--quant f32 keeps all)";
        warnings.push(Warning(Diag::new("quant", what)));
    }
    Ok(precision)
}

fn limits(model: &Model, options: &CompileOptions, warnings: &mut Vec<Warning>) -> Result<Limits> {
    let trained = model.config.max_positions;
    let stretches = matches!(model.config.rope.scaling, frontend::hf::rope::RopeScaling::Dynamic { .. });
    let max_context = options.max_context.unwrap_or(trained.min(DEFAULT_CONTEXT));
    let flags = [
        ("--max-context", max_context, u32::MAX as usize / 2),
        ("--max-batch", options.max_batch, 1 << 12),
        ("--max-step", options.max_step, 1 << 16),
    ];
    if let Some((flag, found, most)) = flags.into_iter().find(|(_, n, most)| !(1..=*most).contains(n)) {
        return Err(Diag::new("option", format!("{flag} cannot be that"))
            .found(found)
            .expected(format_args!("1 to {most}"))
            .help("choose a value in the range"));
    }
    if max_context > trained && !stretches {
        let what = format!(
            "--max-context {max_context} is more than the {trained} positions that the model was trained for: expect nonsense beyond them"
        );
        warnings.push(Warning(Diag::new("option", what)));
    }
    Ok(Limits {
        max_step: options.max_step,
        max_rows: MAX_ROWS.min(options.max_step.max(options.max_batch)),
        max_batch: options.max_batch,
        max_context,
    })
}

/// How long each step took.
struct Times {
    laps: Vec<(&'static str, Duration)>,
    last: Instant,
}

impl Times {
    fn new() -> Times {
        Times { laps: Vec::new(), last: Instant::now() }
    }

    fn lap(&mut self, name: &'static str) {
        self.laps.push((name, self.last.elapsed()));
        self.last = Instant::now();
    }
}
