//! What a decoder takes and gives as tensors: plain data in the metadata. A step needs none of it.

use serde::{Deserialize, Serialize};

/// Tensors of a decoder, in the order of its graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Whether the graph counts tokens where others look at the mask: padding must then stand last, and the cache has none in it.
    #[serde(default)]
    pub counts: bool,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type, `f32`, `i64`, ..
    pub dtype: String,
    /// Lengths: numbers, or names of those that differ from run to run.
    pub shape: Vec<String>,
    /// What it is.
    pub role: Role,
    /// It need not be given.
    #[serde(default)]
    pub optional: bool,
}

/// What a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Token ids, `[batch, new]`.
    Ids,
    /// Positions of the new tokens, `[batch, new]`.
    Positions,
    /// 1 for tokens, 0 for padding, `[batch, past + new]`.
    Mask {
        /// Whether sequences padded on their left see what they would see without the padding.
        padding: bool,
    },
    /// Number of the last token of each sequence, `[batch]`: one less than its past and new tokens.
    Last,
    /// Past and new tokens of the longest sequence, one number.
    Total,
    /// Keys of a layer, past (input) or past and new (output), `[batch, kv heads, tokens, size of a head]`.
    Key(usize),
    /// Values of a layer, as keys.
    Value(usize),
    /// Logits, `[batch, new, vocabulary]`.
    Logits,
    /// Nothing depends on it.
    Unread,
    /// Something else.
    Other,
}
