//! Fixture models and their reference tensors: those of the repository, and more of the same layout in `LLAMAC_FIXTURES`.

use crate::repo;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A model with reference outputs: a folder with `model/` and `reference/`.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// Name of the folder.
    pub name: String,
    /// The checkpoint.
    pub model: PathBuf,
    /// Reference tensors by name.
    pub reference: BTreeMap<String, Tensor>,
    /// `reference/manifest.json`.
    pub manifest: Value,
}

/// A reference tensor.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Shape.
    pub shape: Vec<usize>,
    /// f32 data (empty for integers).
    pub f32: Vec<f32>,
    /// i64 data (empty for floats).
    pub i64: Vec<i64>,
}

/// Fixtures of the repository whose architecture this version compiles.
const MODELS: &[&str] = &["tiny-llama3", "llama3-untied", "llama3-onnx", "llama4-scout-like", "llama4-maverick-like"];

/// The repository's fixtures, and those in `LLAMAC_FIXTURES` that the repository does not have.
pub fn all() -> Vec<Fixture> {
    let mut fixtures: Vec<Fixture> = MODELS.iter().map(|name| load(name)).collect();
    let Some(more) = std::env::var_os("LLAMAC_FIXTURES") else {
        eprintln!("skipped: fixtures outside the repository (LLAMAC_FIXTURES is not set)");
        return fixtures;
    };
    let mut folders: Vec<PathBuf> = std::fs::read_dir(more).into_iter().flatten().flatten().map(|e| e.path()).collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_llama(&folder) && !MODELS.contains(&name.as_str()) {
            fixtures.push(read(&folder, name));
        }
    }
    fixtures
}

/// Whether a folder has a checkpoint of an architecture that this version compiles, and references for it.
fn is_llama(folder: &Path) -> bool {
    let config = std::fs::read_to_string(folder.join("model/config.json")).unwrap_or_default();
    let compiled = ["\"LlamaForCausalLM\"", "\"Llama4ForCausalLM\""].iter().any(|name| config.contains(name));
    compiled && folder.join("reference/reference.safetensors").exists()
}

/// Fixtures of an architecture: those of the repository, and those in `LLAMAC_FIXTURES` that the repository does not have.
pub fn of_architecture(name: &str) -> Vec<Fixture> {
    let more = std::env::var_os("LLAMAC_FIXTURES").map(PathBuf::from);
    let mut folders = BTreeMap::new();
    for root in more.into_iter().chain([repo::root().join("tests/fixtures")]) {
        for folder in std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path()) {
            let config = std::fs::read_to_string(folder.join("model/config.json")).unwrap_or_default();
            if config.contains(&format!("\"{name}\"")) && folder.join("reference/reference.safetensors").exists() {
                folders.insert(folder.file_name().unwrap_or_default().to_string_lossy().into_owned(), folder);
            }
        }
    }
    folders.into_iter().map(|(name, folder)| read(&folder, name)).collect()
}

/// A fixture of the repository.
///
/// # Panics
/// If its files cannot be read.
pub fn load(name: &str) -> Fixture {
    read(&repo::root().join("tests/fixtures").join(name), name.to_owned())
}

fn read(folder: &Path, name: String) -> Fixture {
    let open = |file: &str| std::fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{}/{file}: {e}", folder.display()));
    let manifest = serde_json::from_slice(&open("reference/manifest.json")).expect("a JSON manifest");
    Fixture { name, model: folder.join("model"), reference: tensors(&open("reference/reference.safetensors")), manifest }
}

/// The f32 and i64 tensors of a safetensors file.
///
/// # Panics
/// If it is not one.
pub fn tensors(bytes: &[u8]) -> BTreeMap<String, Tensor> {
    let file = safetensors::SafeTensors::deserialize(bytes).expect("a safetensors file");
    let mut all = BTreeMap::new();
    for (key, view) in file.tensors() {
        let mut tensor = Tensor { shape: view.shape().to_vec(), f32: Vec::new(), i64: Vec::new() };
        match view.dtype() {
            safetensors::Dtype::F32 => tensor.f32 = view.data().as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect(),
            safetensors::Dtype::I64 => tensor.i64 = view.data().as_chunks().0.iter().map(|c| i64::from_le_bytes(*c)).collect(),
            _ => continue,
        }
        all.insert(key, tensor);
    }
    all
}

/// One prompt of a fixture.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its name in the reference.
    pub name: String,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Rows that have reference logits.
    pub positions: Vec<usize>,
    /// Reference logits of these rows.
    pub logits: Vec<f32>,
    /// Greedy continuation and the margin of each step; empty if there is none.
    pub greedy: Vec<(u32, f32)>,
    /// The prompt as text, if it was made from one.
    pub text: Option<String>,
    /// The greedy continuation as text.
    pub greedy_text: Option<String>,
}

impl Fixture {
    /// All prompts.
    ///
    /// # Panics
    /// If the reference is incomplete.
    pub fn prompts(&self) -> Vec<Prompt> {
        self.reference.keys().filter_map(|k| k.strip_suffix(".logits")).map(|name| self.prompt(name)).collect()
    }

    /// The prompt of that name.
    ///
    /// # Panics
    /// If there is none.
    pub fn prompt(&self, name: &str) -> Prompt {
        let tensor = |key: &str| self.reference.get(&format!("{name}.{key}"));
        let ids = self.ids(&format!("{name}.input_ids"));
        let positions = match tensor("logit_positions") {
            Some(t) => t.i64.iter().map(|&i| usize::try_from(i).expect("a position")).collect(),
            None => (0..ids.len()).collect(),
        };
        let greedy = match tensor("greedy_margin") {
            Some(margin) => self.ids(&format!("{name}.greedy_ids")).into_iter().zip(margin.f32.iter().copied()).collect(),
            None => Vec::new(),
        };
        let entry = self.manifest["prompts"].as_array().into_iter().flatten().find(|p| p["name"] == name);
        let text = |key: &str| entry.and_then(|p| p[key].as_str()).map(str::to_owned);
        let logits = self.reference[&format!("{name}.logits")].f32.clone();
        Prompt { name: name.to_owned(), ids, positions, logits, greedy, text: text("text"), greedy_text: text("greedy_text") }
    }

    /// Token ids of a reference tensor, row after row.
    ///
    /// # Panics
    /// If it is missing or holds anything but ids.
    pub fn ids(&self, key: &str) -> Vec<u32> {
        self.reference[key].i64.iter().map(|&i| u32::try_from(i).expect("a token id")).collect()
    }

    /// A figure that the fixture's maker measured, `noise.KEY` of the manifest.
    ///
    /// # Panics
    /// If it is missing.
    pub fn noise(&self, key: &str) -> f64 {
        self.manifest["noise"][key].as_f64().unwrap_or_else(|| panic!("{}: no noise.{key}", self.name))
    }
}
