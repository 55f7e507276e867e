//! An artifact from a module and any source of weights, without a tokenizer: what tests and fuzzers compile. Models go through `driver`.

use crate::codegen;
use crate::diag::{Diag, Result};
use crate::lower::{self, Limits};
use crate::pack::{self, unwritable};
use crate::target::Target;
use llamac_ir::module::Module;
use llamac_ir::recipe::Source;
use llamac_runtime::abi::ABI_VERSION;
use llamac_runtime::artifact::meta::{GenerationMeta, Meta, ModelMeta, TargetMeta};
use llamac_runtime::artifact::{ArtifactWriter, SectionKind};
use std::path::Path;

/// Small bounds: buffers of a few kilobytes.
const LIMITS: Limits = Limits { max_step: 16, max_rows: 16, max_batch: 2, max_context: 64 };

/// Compiles a module whose passes have run.
///
/// # Errors
/// The target is unknown, the module has no lowering, a source cannot be read, or the file cannot be written.
pub fn compile(module: &Module, source: &dyn Source, out: &Path, target: &str) -> Result<()> {
    let target = Target::parse(target).map_err(|e| Diag::new("target", e.to_string()).help("`llamac targets` lists them"))?;
    let program = lower::lower(module, &target, &LIMITS).map_err(|e| Diag::new("lower", e.to_string()).help("run every pass first"))?;
    let code = codegen::compile(&program, &target).map_err(|e| Diag::new("internal", "no code could be made").found(e))?;
    let model = ModelMeta {
        name: module.name.clone(),
        architecture: "module".to_owned(),
        layers: program.layers.len(),
        vocab: program.buffer(program.logits).width,
        max_context: LIMITS.max_context,
        parameters: 0,
        quant: String::new(),
    };
    let meta = Meta {
        compiler: env!("CARGO_PKG_VERSION").to_owned(),
        target: TargetMeta { arch: target.arch.name().to_owned(), features: target.features.iter().cloned().collect(), abi: ABI_VERSION },
        model,
        plan: program.plan_meta(),
        kernels: code.kernels.clone(),
        schedule: program.schedule.clone(),
        entry: code.entry,
        generation: GenerationMeta::default(),
        signature: None,
    };
    let mut writer = ArtifactWriter::create(out).map_err(|e| unwritable(&e))?;
    let meta = serde_json::to_vec(&meta).map_err(|e| Diag::new("internal", "no metadata could be made").found(e))?;
    for (kind, bytes) in [(SectionKind::Meta, meta), (SectionKind::Code, code.blob), (SectionKind::Ir, module.to_string().into_bytes())] {
        writer.put(kind, &bytes).map_err(|e| unwritable(&e))?;
    }
    let section = writer.sized_section(SectionKind::Weights, program.weight_bytes).map_err(|e| unwritable(&e))?;
    pack::write(&program, source, &|_| {}, &section, &|_| {})?;
    section.finish().map_err(|e| unwritable(&e))?;
    writer.finish().map_err(|e| unwritable(&e))?;
    Ok(())
}
