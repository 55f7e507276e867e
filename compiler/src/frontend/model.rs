//! A model as its files describe it: configuration, weights (mapped, not read), tokenizer. Reading the files is here; what is in each is in
//! `hf`, `safetensors` and `tokenizer`.

use super::hf::build::{self, Build};
use super::hf::config::{LlamaConfig, parse_config};
use super::hf::generation::parse_generation;
use super::hf::names::Names;
use super::hf::tensors;
use super::onnx::{self, OnnxModel};
use super::safetensors::Checkpoint;
use super::tokenizer::{self, TokenizerSections};
use crate::decoder;
use crate::diag::{Diag, Result, Warning};
use crate::lower::Limits;
use llamac_ir::dtype::DType;
use llamac_ir::module::Module;
use llamac_ir::recipe::Source;
use llamac_runtime::artifact::meta::GenerationMeta;
use llamac_runtime::artifact::signature::Signature;
use std::path::{Path, PathBuf};

/// A model that can be planned, and compiled if its weights are there.
#[derive(Debug)]
pub struct Model {
    /// Name, for people.
    pub name: String,
    /// Sizes.
    pub config: LlamaConfig,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Names of its tensors.
    pub names: Names,
    /// Defaults for generation.
    pub generation: GenerationMeta,
    /// Weights of a Hugging Face directory; `None` if only the config was read.
    pub checkpoint: Option<Checkpoint>,
    /// The graph and weights of an ONNX model; `config` is then what the graph says.
    pub onnx: Option<OnnxModel>,
    /// Tokenizer and chat template, if they were read.
    pub tokenizer: Option<TokenizerSections>,
    /// What is odd about the files, but no error.
    pub warnings: Vec<Warning>,
}

/// Weights of a model, mapped.
pub trait Weights: Source {
    /// A tensor will not be read again soon: its pages may leave this process.
    fn release(&self, _name: &str) {}
}

impl Weights for Checkpoint {
    fn release(&self, name: &str) {
        Checkpoint::release(self, name);
    }
}

impl Weights for onnx::OnnxWeights {}

/// Reads the config of a model folder, or a `config.json` by itself: enough to plan.
///
/// # Errors
/// No such file, or a config that is not compiled.
pub fn load_config(path: &Path) -> Result<Model> {
    if let Some(graph) = onnx::graph_file(path) {
        return onnx::load(&graph);
    }
    let (file, folder) = config_file(path)?;
    let config = read(&file, "the model's configuration")?;
    let config = parse_config(&config).map_err(|d| d.inside(file.display()))?;
    let (generation, mut warnings) = generation(&folder, &config)?;
    let partly = [config.architecture.ignored, config.architecture.missing].into_iter().flatten();
    warnings.extend(partly.map(|what| Warning(Diag::new("model", what).place(file.display()))));
    let name = config.name.clone().unwrap_or_else(|| folder_name(&folder));
    let tied = config.tied.unwrap_or(false);
    Ok(Model { name, config, tied, names: Names::default(), generation, checkpoint: None, onnx: None, tokenizer: None, warnings })
}

/// Reads a model folder: config, headers of the weights, tokenizer.
///
/// # Errors
/// A file is missing, damaged or disagrees with another; the diagnostic says which.
pub fn load(folder: &Path) -> Result<Model> {
    if let Some(graph) = onnx::graph_file(folder) {
        return onnx::load(&graph);
    }
    if folder.is_file() {
        return Err(Diag::new("model", "a model is a folder, this is a file")
            .place(folder.display())
            .expected("a Hugging Face directory with config.json and safetensors files, or a file model.onnx")
            .help("give the folder that the file is in"));
    }
    let mut model = load_config(folder)?;
    if let Some(missing) = model.config.architecture.missing {
        let name = model.config.architecture.name;
        return Err(Diag::new("model", format!("`{name}` is not compiled by this version: {missing}"))
            .place(folder.display())
            .found(name)
            .expected("a text model")
            .help("`llamac plan` shows what its text half needs"));
    }
    let checkpoint = Checkpoint::open(folder)?;
    model.names = Names::of(&checkpoint);
    model.tied = model.config.tied.unwrap_or_else(|| checkpoint.tensor(model.names.head).is_none());
    model.warnings.extend_from_slice(checkpoint.warnings());
    model.warnings.extend(tensors::check(&checkpoint, &model.config, model.tied, &model.names)?);
    model.checkpoint = Some(checkpoint);

    let tokenizer = load_tokenizer(folder, model.config.vocab)?;
    model.warnings.extend_from_slice(&tokenizer.warnings);
    model.tokenizer = Some(tokenizer);
    Ok(model)
}

impl Model {
    /// Where the weights are read, if there are any.
    pub fn weights(&self) -> Option<&dyn Weights> {
        let checkpoint = self.checkpoint.as_ref().map(|c| c as &dyn Weights);
        checkpoint.or_else(|| self.onnx.as_ref().map(|m| &m.weights as &dyn Weights))
    }

    /// Tensors that the model takes and gives, by name.
    pub fn signature(&self) -> Signature {
        let config = &self.config;
        let checkpoint = || decoder::of_checkpoint(config.layers, config.kv_heads, config.head_dim, config.vocab);
        self.onnx.as_ref().map_or_else(checkpoint, |graph| graph.signature.clone())
    }

    /// Parameters, counted from the shapes.
    pub fn parameters(&self) -> u64 {
        if let Some(graph) = &self.onnx {
            return graph.parameters();
        }
        tensors::parameters(&self.config, self.tied)
    }

    /// Element type of the weights: that of the checkpoint, else what the config claims, else bf16.
    pub fn dtype(&self) -> DType {
        if let Some(graph) = &self.onnx {
            return graph.dtype();
        }
        let stored = self.checkpoint.as_ref().and_then(|c| tensors::dtype(c, &self.names.embed(), 1));
        stored.or(self.config.dtype).unwrap_or(DType::Bf16)
    }

    /// The model as a module of the IR.
    ///
    /// # Errors
    /// The builder and the op table disagree: a bug of ours.
    pub fn module(&self, limits: &Limits) -> Result<Module> {
        if let Some(graph) = &self.onnx {
            let dims = vec![("s".to_owned(), 1, limits.max_step), ("r".to_owned(), 0, limits.max_rows)];
            return Ok(Module { name: self.name.clone(), dims, ..graph.module.clone() });
        }
        let claimed = self.config.dtype.unwrap_or(DType::Bf16);
        let stored = |name: &str| self.checkpoint.as_ref().and_then(|c| tensors::dtype(c, name, self.config.layers)).unwrap_or(claimed);
        let build = Build {
            config: &self.config,
            tied: self.tied,
            names: self.names,
            name: &self.name,
            dtype: &stored,
            max_step: limits.max_step,
            max_rows: limits.max_rows,
            max_context: limits.max_context,
        };
        build::module(&build).map_err(|e| Diag::new("internal", "the model could not be built; this is a bug of llamac").found(e))
    }
}

/// The config file that a path means, and its folder.
fn config_file(path: &Path) -> Result<(PathBuf, PathBuf)> {
    if path.is_dir() {
        return Ok((path.join("config.json"), path.to_path_buf()));
    }
    if !path.exists() {
        return Err(Diag::new("model", "there is no such model")
            .place(path.display())
            .expected("a Hugging Face directory with config.json, or a config.json")
            .help("download a checkpoint, for example with `huggingface-cli download`, and give its folder"));
    }
    Ok((path.to_path_buf(), path.parent().unwrap_or(Path::new("")).to_path_buf()))
}

/// The folder's name; that of the one above for a folder called `model`.
pub(super) fn folder_name(folder: &Path) -> String {
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let named = full.ancestors().find(|a| a.file_name().is_some_and(|n| n != "model"));
    named.and_then(Path::file_name).map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned())
}

fn read(file: &Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|e| {
        Diag::io(format!("cannot read {what}"), file.display(), &e)
            .help("a Hugging Face directory has this file; download the whole checkpoint")
    })
}

fn read_if_there(file: &Path, what: &str) -> Result<Option<Vec<u8>>> {
    if file.exists() { read(file, what).map(Some) } else { Ok(None) }
}

fn generation(folder: &Path, config: &LlamaConfig) -> Result<(GenerationMeta, Vec<Warning>)> {
    let file = folder.join("generation_config.json");
    let text = read_if_there(&file, "the generation defaults")?;
    parse_generation(text.as_deref(), config).map_err(|d| d.inside(file.display()))
}

pub(super) fn load_tokenizer(folder: &Path, vocab: usize) -> Result<TokenizerSections> {
    let json = read(&folder.join("tokenizer.json"), "the tokenizer")?;
    let config = read_if_there(&folder.join("tokenizer_config.json"), "the tokenizer's configuration")?;
    let jinja = read_if_there(&folder.join("chat_template.jinja"), "the chat template")?;
    let jinja = jinja.map(|t| String::from_utf8_lossy(&t).into_owned());
    tokenizer::compile(&json, config.as_deref(), jinja.as_deref(), vocab).map_err(|d| d.inside(folder.display()))
}
