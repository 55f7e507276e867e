//! `tokenizer.json` as data. What of it is supported is decided in `parts` and `vocab`.

use super::{bad, unsupported};
use crate::diag::Result;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The file.
#[derive(Debug, Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    pub(super) post_processor: Value,
    #[serde(default)]
    pub(super) decoder: Value,
    pub(super) model: Model,
}

/// An entry of `added_tokens`.
#[derive(Debug, Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u64,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

/// `model` of a BPE tokenizer.
#[derive(Debug, Deserialize)]
pub(super) struct Model {
    #[serde(default)]
    pub(super) dropout: Option<f64>,
    #[serde(default)]
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) ignore_merges: bool,
    /// Token texts in the byte-level alphabet, with their ids.
    pub(super) vocab: BTreeMap<String, u64>,
    pub(super) merges: Vec<Merge>,
}

/// Two token texts: `"a b"`, or `["a", "b"]` as newer files write it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Text(String),
    Pair(String, String),
}

impl Merge {
    /// Left and right.
    pub(super) fn sides(&self) -> Option<(&str, &str)> {
        match self {
            Merge::Text(text) => text.split_once(' ').filter(|(_, right)| !right.contains(' ')),
            Merge::Pair(left, right) => Some((left, right)),
        }
    }
}

/// Only what kind of model it is: other kinds have other fields.
#[derive(Deserialize)]
struct Kind {
    model: KindOfModel,
}

#[derive(Deserialize)]
struct KindOfModel {
    r#type: Option<String>,
}

/// Reads the file.
pub(super) fn parse(json: &[u8]) -> Result<File> {
    let no_json = |e: serde_json::Error| bad("the file is not a tokenizer").found(e).expected("the JSON of a BPE tokenizer");
    let kind: Kind = serde_json::from_slice(json).map_err(no_json)?;
    match kind.model.r#type.as_deref() {
        // Files of the first versions of the format do not say.
        None | Some("BPE") => serde_json::from_slice(json).map_err(no_json),
        Some(other) => {
            Err(unsupported(format!("a tokenizer of type {other} is not supported")).place("`model.type`").found(other).expected("BPE"))
        }
    }
}
