//! What tensors are called: the prefixes that checkpoints of one architecture use, and how experts are stored. Shapes are in `tensors`.

use crate::frontend::safetensors::Checkpoint;
use llamac_ir::recipe::LAYER;

/// Names of a checkpoint's text tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// What every tensor but the head is called first.
    prefix: &'static str,
    /// The output projection where it is not the embedding.
    pub head: &'static str,
    /// Whether each expert is a tensor `[out, in]` of its own; otherwise all of a layer are one `[experts, in, out]`.
    pub each_expert: bool,
}

/// Plain text checkpoints, those of the hub with a vision half, and those that transformers saves with one.
const STYLES: [Names; 3] = [
    Names { prefix: "model.", head: "lm_head.weight", each_expert: false },
    Names { prefix: "language_model.model.", head: "language_model.lm_head.weight", each_expert: false },
    Names { prefix: "model.language_model.", head: "lm_head.weight", each_expert: false },
];

impl Default for Names {
    fn default() -> Names {
        STYLES[0]
    }
}

impl Names {
    /// The names that a checkpoint uses; the default where it has none that are known.
    pub fn of(checkpoint: &Checkpoint) -> Names {
        let style = STYLES.into_iter().find(|s| checkpoint.tensor(&s.embed()).is_some()).unwrap_or_default();
        let each_expert = checkpoint.names().any(|n| n.starts_with(&style.layers()) && n.ends_with(".experts.0.gate_proj.weight"));
        Names { each_expert, ..style }
    }
    /// The input embedding.
    pub fn embed(&self) -> String {
        format!("{}embed_tokens.weight", self.prefix)
    }
    /// The last norm's weight.
    pub fn norm(&self) -> String {
        format!("{}norm.weight", self.prefix)
    }
    /// A layer's tensor, with `{layer}` for its number.
    pub fn in_layer(&self, part: &str) -> String {
        format!("{}{LAYER}.{part}", self.layers())
    }
    /// What every tensor of a layer is called first.
    pub fn layers(&self) -> String {
        format!("{}layers.", self.prefix)
    }
}
