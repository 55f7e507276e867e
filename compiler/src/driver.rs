//! The compiler as one function, read from top to bottom: [`compile`]. Each step is a module of its own; only the order is here.

use crate::auto::{self, Auto, Budget, Chosen, KV_AUTO};
use crate::caches;
use crate::calibrate::{self, Calibrated, Text};
use crate::check;
pub use crate::check::Check;
use crate::check_passes;
use crate::codegen::{self, Code};
use crate::diag::{Diag, Result, Warning};
use crate::frontend::{self, Model};
use crate::lower::{self, Limits, Program};
use crate::pack::{self, unwritable};
use crate::report;
use crate::target::Target;
use llamac_ir::dtype::DType;
use llamac_ir::module::Module;
use llamac_ir::recipe::Source;
use llamac_passes::check::Checked;
use llamac_passes::pipeline::{self, PRECISIONS, Precision, Report};
use llamac_passes::raise::LONGEST_ALONE;
use llamac_passes::variants::{self, Formats};
use llamac_runtime::abi::ABI_VERSION;
use llamac_runtime::artifact::check::CheckVectors;
use llamac_runtime::artifact::meta::{Meta, ModelMeta, PlanMeta, TargetMeta};
use llamac_runtime::artifact::{ArtifactWriter, SectionKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What to compile for. `None` means: as the model suggests.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// A name of `llamac_passes::pipeline::PRECISIONS`.
    pub quant: Option<String>,
    /// Format of the KV cache, `bf16` or `int8`; not for f32 artifacts. `auto` with `--quant auto` chooses one of them.
    pub kv: Option<String>,
    /// See [`Target::parse`].
    pub target: String,
    /// Longest sequence, tokens.
    pub max_context: Option<usize>,
    /// Sequences at a time.
    pub max_batch: usize,
    /// New tokens in one step.
    pub max_step: usize,
    /// Which layers the reference evaluator computes check vectors of.
    pub check: Check,
    /// Whether every pass is checked against the reference evaluator; a compile whose passes are not right fails.
    pub check_passes: bool,
    /// Values whose history the report shall have: `llamac_passes::pipeline::Options::why`.
    pub why: Option<String>,
    /// Where to write a page about the compile.
    pub report: Option<PathBuf>,
    /// What quantizing is calibrated on; `None`: weights are rounded as they are.
    pub calibrate: Option<Text>,
    /// For `--quant auto`: what the choice of formats keeps to.
    pub budget: Option<Budget>,
    /// For `--quant auto`: the formats, when they have been chosen.
    pub chosen: Option<Chosen>,
}

impl Default for CompileOptions {
    fn default() -> CompileOptions {
        CompileOptions {
            quant: None,
            kv: None,
            target: "native".into(),
            max_context: None,
            max_batch: 8,
            max_step: 512,
            check: Check::Fitting,
            check_passes: false,
            why: None,
            report: None,
            calibrate: None,
            budget: None,
            chosen: None,
        }
    }
}

/// Rows of logits that one step may return. More are asked for in several steps.
const MAX_ROWS: usize = 64;

/// What the KV cache of an artifact that is not f32 can be kept in, by the name that users give.
pub(crate) const KV_FORMATS: [(&str, DType); 2] = [("bf16", DType::Bf16), ("int8", DType::I8)];

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
    /// The module as the front end wrote it, layers with different formats in functions of their own.
    pub imported: Module,
    /// How the passes ran.
    pub passes: pipeline::Options,
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
    /// What the check of the passes found, if it was asked for.
    pub checked: Option<Checked>,
    /// What `--quant auto` chose.
    pub auto: Option<Auto>,
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
    let precision = with_kv(precision(options, model, &mut warnings)?, options)?;
    let limits = limits(model, options, &mut warnings)?;

    let mut imported = model.module(&limits)?;
    let formats = options.chosen.as_ref().map(|chosen| apply(chosen, &mut imported)).unwrap_or_default();
    let mut module = imported.clone();
    let mut quantized = None;
    let passes =
        pipeline::Options { why: options.why.clone(), formats, precision, machine: target.machine(), ..pipeline::Options::default() };
    let report = pipeline::run_observed(&mut module, &passes, &mut |pass, module| {
        if pass == pipeline::CHOOSE_PRECISION {
            quantized = Some(module.clone());
        }
    })
    .map_err(|e| ours("a pass left the module in a bad state", &e))?;
    let quantized = quantized.unwrap_or_else(|| imported.clone());

    let program = lower::lower(&module, &target, &limits).map_err(|e| ours("the module could not be lowered", &e))?;
    Ok(Planned { imported, passes, quantized, module, report, program, target, precision, warnings })
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
    let weights = model.weights().ok_or_else(|| ours("the model was loaded without weights", &folder.display()))?;
    let (calibrated, auto) = calibrate(&model, options)?;
    let source = calibrated.as_ref().map_or(weights as &dyn Source, |c| c);
    times.lap("calibrate");
    let planned = plan(&model, &auto.as_ref().map_or_else(|| options.clone(), |auto| auto.apply(options)))?;
    times.lap("optimise");
    let code = codegen::compile(&planned.program, &planned.target).map_err(|e| ours("no code could be made", &e))?;
    times.lap("code");
    let checked = match options.check_passes {
        true => Some(check_passes::check(&planned, weights, &model)?),
        false => None,
    };
    times.lap("check passes");
    let meta = planned.meta(&model, Some(&code));
    if let Some(path) = &options.report {
        let page = report::page(&planned, &meta);
        std::fs::write(path, page)
            .map_err(|e| Diag::io("cannot write the report", path.display(), &e).help("give another path with --report"))?;
    }
    let few = match options.check {
        Check::None => None,
        Check::Fitting => Some(model.parameters() > check::WHOLE_MODEL),
        Check::Few => Some(true),
    };
    let vectors = few.map(|few| check::vectors(&planned.quantized, source, few, model.config.vocab, &meta.model.quant)).transpose()?;
    times.lap("check vectors");

    let sections = small_sections(&meta, &code, model.tokenizer.as_ref(), vectors.as_ref(), &planned.module);
    let small: u64 = sections.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let total = planned.program.weight_bytes;
    writer.reserve(total + small).map_err(|e| unwritable(&e))?;
    for (kind, bytes) in &sections {
        writer.put(*kind, bytes).map_err(|e| unwritable(&e))?;
    }
    let section = writer.sized_section(SectionKind::Weights, total).map_err(|e| unwritable(&e))?;
    pack::write(&planned.program, source, &|name| weights.release(name), &section, &|bytes| progress.weights(bytes, total))?;
    section.finish().map_err(|e| unwritable(&e))?;
    let file_bytes = writer.finish().map_err(|e| unwritable(&e))?;
    times.lap("weights");
    Ok(Summary { meta, file_bytes, code_bytes: code.blob.len(), warnings: planned.warnings, checked, auto, times: times.laps })
}

/// Runs the calibration text, and chooses formats if that is wanted.
fn calibrate<'a>(model: &'a Model, options: &CompileOptions) -> Result<(Option<Calibrated<'a>>, Option<Auto>)> {
    let checkpoint = || {
        model.checkpoint.as_ref().ok_or_else(|| {
            Diag::new("option", "only checkpoints in safetensors files are calibrated")
                .found(format_args!("the model `{}` without such files", model.name))
                .help("leave --calibrate out, or give the Hugging Face directory that the graph was exported from")
        })
    };
    if options.quant.as_deref() == Some(Precision::AUTO.name) {
        // What is wrong with the other options is said before anything slow is done.
        let kv = options.kv.clone().filter(|kv| kv != KV_AUTO);
        plan(model, &CompileOptions { quant: Some("int8".into()), kv, ..options.clone() })?;
        let Some(budget) = options.budget else { return plan(model, options).map(|_| (None, None)) };
        let text = options.calibrate.clone().unwrap_or(Text::Default);
        let calibrated = calibrate::run(model, checkpoint()?, &text, true)?;
        let auto = auto::choose(model, &text, &calibrated, options, budget)?;
        return Ok((Some(calibrated), Some(auto)));
    }
    let precision = plan(model, options)?.precision;
    match &options.calibrate {
        Some(text) if precision.quantized() => Ok((Some(calibrate::run(model, checkpoint()?, text, false)?), None)),
        Some(_) => Err(needs_quant(precision.name)),
        None => Ok((None, None)),
    }
}

/// Chooses formats for the model in `folder` without compiling it.
///
/// # Errors
/// As [`compile`].
pub fn choose(folder: &Path, options: &CompileOptions) -> Result<Auto> {
    let model = frontend::load(folder)?;
    match calibrate(&model, options)? {
        (_, Some(auto)) => Ok(auto),
        _ => Err(ours("nothing was chosen", &options.quant.as_deref().unwrap_or_default())),
    }
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
            plan: PlanMeta { caches: caches::caches(&self.imported, &self.module, &self.program), ..self.program.plan_meta() },
            kernels: code.map(|c| c.kernels.clone()).unwrap_or_default(),
            schedule: self.program.schedule.clone(),
            entry: code.map_or(0, |c| c.entry),
            generation: model.generation.clone(),
            signature: Some(model.signature()),
        }
    }
}

fn needs_quant(found: &str) -> Diag {
    Diag::new("option", "--calibrate is for quantized weights")
        .found(format_args!("--quant {found}"))
        .expected("int4, int8, q8g32, q6g32, q4g32, q4g64 or q4g128")
        .help("add --quant int4, or leave --calibrate out")
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

/// Gives layers with different formats functions of their own; returns the formats by function.
fn apply(chosen: &Chosen, module: &mut Module) -> Formats {
    let made = variants::split(module, |func, layer| chosen.get(&(func.to_owned(), Some(layer))));
    let layers = made.into_iter().filter_map(|(name, _, formats)| Some((name, formats?)));
    let main = chosen.iter().filter(|((_, layer), _)| layer.is_none()).map(|((name, _), formats)| (name.clone(), formats));
    let each = layers.chain(main).flat_map(|(name, of)| of.iter().map(move |(weight, format)| ((name.clone(), weight.clone()), *format)));
    each.collect()
}

fn precision(options: &CompileOptions, model: &Model, warnings: &mut Vec<Warning>) -> Result<Precision> {
    let stored = model.dtype();
    if options.quant.as_deref() == Some(Precision::AUTO.name) {
        return match options.chosen {
            Some(_) => Ok(Precision::AUTO),
            None => Err(Diag::new("quant", "--quant auto reads the weights and has to know what the model may cost")
                .found("no choice of formats")
                .expected("`llamac compile` or `llamac explain` of a model folder, with --size or --max-kl")
                .help("for example: llamac compile MODEL --quant auto --size 4.5bpw")),
        };
    }
    let Some(name) = options.quant.as_deref() else {
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

/// What K and V are rounded to, where the user says it.
fn with_kv(precision: Precision, options: &CompileOptions) -> Result<Precision> {
    let Some(name) = options.kv.as_deref() else { return Ok(precision) };
    let known = KV_FORMATS.iter().find(|(known, _)| *known == name);
    let kv = match (known, name) {
        (Some((_, dtype)), _) => *dtype,
        (None, KV_AUTO) => {
            return Err(Diag::new("option", "--kv auto chooses together with the formats of the weights")
                .found(format_args!("--quant {}", options.quant.as_deref().unwrap_or("by default")))
                .expected("--quant auto, with --size or --max-kl")
                .help("for example: --quant auto --max-kl 0.01 --kv auto; or give --kv bf16 or --kv int8"));
        }
        (None, other) => {
            return Err(Diag::new("option", "unknown format of the KV cache")
                .found(other)
                .expected("bf16 or int8")
                .help("choose one with --kv"));
        }
    };
    if precision == Precision::F32 {
        return Err(Diag::new("option", "an f32 artifact keeps its KV cache in f32")
            .found(format_args!(
                "--kv {name} with {}",
                options.quant.as_deref().map_or("an f32 checkpoint".to_owned(), |q| format!("--quant {q}"))
            ))
            .expected("--quant bf16, int8 or int4 with --kv")
            .help("add --quant bf16, or leave --kv out"));
    }
    Ok(Precision { kv, ..precision })
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
    if model.onnx.as_ref().is_some_and(|graph| graph.open) && max_context > LONGEST_ALONE {
        let what = format!(
            "the graph has no cache: its mask was tried for sequences of up to {LONGEST_ALONE} tokens, and is taken to go on the same way"
        );
        let help =
            format!("if its attention has chunks that are longer, use --max-context {LONGEST_ALONE}, or export the model with a cache");
        warnings.push(Warning(Diag::new("onnx", what).help(help)));
    }
    if max_context > trained && stretches {
        let what = format!(
            "rope scaling `dynamic` is fixed for sequences of {max_context}: shorter ones get it too, where Hugging Face moves it with the length (and \
             keeps the plain rope up to {trained})"
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
