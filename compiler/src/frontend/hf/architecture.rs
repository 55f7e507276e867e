//! Which architectures are known, where the text model's keys stand in their configs, and what of them is not compiled. The keys themselves
//! are read in `config` and `llama4`.

use super::keys::Keys;
use crate::diag::{Diag, Result};

/// What a text model is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 1 to 3.
    Llama,
    /// Llama 4: mixture of experts, chunked attention, layers without rope.
    Llama4,
    /// Llama 3.2 Vision: a Llama 3 with cross-attention layers between.
    Mllama,
}

/// An architecture that a config may name.
#[derive(Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Its name in `architectures`.
    pub name: &'static str,
    /// Its `model_type`.
    model_type: &'static str,
    /// The text model.
    pub family: Family,
    /// Whether the text model's keys are inside `text_config`.
    pub nested: bool,
    /// What is not compiled and not needed for text alone.
    pub ignored: Option<&'static str>,
    /// What is not compiled and without which the model cannot run: it can be planned only.
    pub missing: Option<&'static str>,
}

const fn text(name: &'static str, model_type: &'static str, family: Family) -> Architecture {
    Architecture { name, model_type, family, nested: false, ignored: None, missing: None }
}

/// A graph that was raised to a Llama: no config names it.
pub static ONNX: Architecture = text("ONNX graph", "onnx", Family::Llama);

/// Every architecture that is known.
pub static ARCHITECTURES: &[Architecture] = &[
    text("LlamaForCausalLM", "llama", Family::Llama),
    text("Llama4ForCausalLM", "llama4_text", Family::Llama4),
    Architecture {
        nested: true,
        ignored: Some("the vision half (vision encoder and projector) is not compiled yet: the model takes text only"),
        ..text("Llama4ForConditionalGeneration", "llama4", Family::Llama4)
    },
    Architecture {
        nested: true,
        missing: Some("cross-attention layers and the vision encoder are not compiled yet"),
        ..text("MllamaForConditionalGeneration", "mllama", Family::Mllama)
    },
];

/// The architecture that a config names, by `architectures` or by `model_type`.
///
/// # Errors
/// None is named, or one that is not known.
pub(super) fn architecture(keys: &Keys<'_>) -> Result<&'static Architecture> {
    let named = keys.get("architectures").and_then(|v| v.as_array()).and_then(|list| list.first()).and_then(|v| v.as_str());
    let kind = keys.text("model_type")?;
    let found = ARCHITECTURES.iter().find(|a| named.map_or(kind == Some(a.model_type), |name| name == a.name));
    if let Some(found) = found {
        return Ok(found);
    }
    let names: Vec<&str> = ARCHITECTURES.iter().filter(|a| a.missing.is_none()).map(|a| a.name).collect();
    let Some(found) = named.or(kind) else {
        return Err(keys.bad("architectures", "the config names no architecture").expected(format_args!("one of {}", names.join(", "))));
    };
    Err(Diag::new("model", format!("`{found}` is not compiled by this version"))
        .place("`architectures`")
        .found(found)
        .expected(names.join(", "))
        .help("only the Llama family is compiled; take a Llama model"))
}
