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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_every_role_is_fixed_and_what_may_be_left_out_has_a_default() {
        let roles = [
            (Role::Ids, r#""ids""#),
            (Role::Positions, r#""positions""#),
            (Role::Mask { padding: true }, r#"{"mask":{"padding":true}}"#),
            (Role::Last, r#""last""#),
            (Role::Total, r#""total""#),
            (Role::Key(3), r#"{"key":3}"#),
            (Role::Value(0), r#"{"value":0}"#),
            (Role::Logits, r#""logits""#),
            (Role::Unread, r#""unread""#),
            (Role::Other, r#""other""#),
        ];
        for (role, text) in roles {
            assert_eq!(serde_json::to_string(&role).unwrap(), text);
            assert_eq!(serde_json::from_str::<Role>(text).unwrap(), role);
        }
        let old = r#"{"inputs":[{"name":"input_ids","dtype":"i64","shape":["batch","7"],"role":"ids"}],"outputs":[]}"#;
        let read: Signature = serde_json::from_str(old).unwrap();
        assert!(!read.counts && !read.inputs[0].optional && read.inputs[0].shape == ["batch", "7"]);
        assert!(serde_json::from_str::<Role>(r#""something-new""#).is_err());
    }
}
