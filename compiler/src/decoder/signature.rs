//! The signature of a decoder: that of its graph, or for a checkpoint the one that exporters would give it.

use crate::frontend::onnx::eager;
use llamac_passes::raise::{Port as Found, Ports};
use llamac_runtime::artifact::signature::{Port, Role, Signature};
use std::collections::BTreeSet;

/// The signature of a graph from its ports, what raising found them to be, and the inputs from which it counts tokens.
pub(crate) fn of_graph(inputs: &[eager::Port], outputs: &[eager::Port], found: &Ports, counted: &BTreeSet<String>) -> Signature {
    let role = |port: Found| match port {
        Found::Ids => Role::Ids,
        Found::Positions => Role::Positions,
        Found::Mask { padding } => Role::Mask { padding },
        Found::Key(layer) => Role::Key(layer),
        Found::Value(layer) => Role::Value(layer),
        Found::Logits => Role::Logits,
        Found::Unread => Role::Unread,
        Found::Other => Role::Other,
    };
    let made = |port: &eager::Port, role: Role| {
        let dims = port.shape.iter().flatten().map(|d| d.as_ref().map_or_else(Clone::clone, ToString::to_string));
        Port { name: port.name.clone(), dtype: port.dtype.name().to_owned(), shape: dims.collect(), role, optional: port.default }
    };
    let input = |port: &eager::Port| {
        let found = found.inputs.iter().find(|(name, _)| *name == port.name).map_or(Role::Unread, |(_, p)| role(*p));
        let rank = port.shape.as_ref().map_or(0, Vec::len);
        let single = port.shape.as_ref().is_some_and(|s| s.iter().all(|d| *d == Ok(1)));
        made(
            port,
            match (found, counted.contains(&port.name), rank) {
                (Role::Unread, true, _) if single => Role::Total,
                (Role::Unread, true, 2) if port.shape.as_ref().is_some_and(|s| s[1] != Ok(1)) => Role::Mask { padding: false },
                (Role::Unread, true, _) => Role::Last,
                (other, _, _) => other,
            },
        )
    };
    let outputs = outputs.iter().zip(&found.outputs).map(|(port, found)| made(port, role(*found))).collect();
    Signature { inputs: inputs.iter().map(input).collect(), outputs, counts: !counted.is_empty() }
}

/// What an export of a checkpoint would take and give: all but the ids may be left out.
pub(crate) fn of_checkpoint(layers: usize, kv_heads: usize, head_dim: usize, vocab: usize) -> Signature {
    let port = |name: &str, dtype: &str, shape: &[&str], role, optional| Port {
        name: name.to_owned(),
        dtype: dtype.to_owned(),
        shape: shape.iter().map(|d| (*d).to_owned()).collect(),
        role,
        optional,
    };
    let (heads, d, vocab) = (kv_heads.to_string(), head_dim.to_string(), vocab.to_string());
    let mut inputs = vec![
        port("input_ids", "i64", &["batch", "sequence"], Role::Ids, false),
        port("attention_mask", "i64", &["batch", "past + sequence"], Role::Mask { padding: true }, true),
        port("position_ids", "i64", &["batch", "sequence"], Role::Positions, true),
    ];
    let mut outputs = vec![port("logits", "f32", &["batch", "sequence", &vocab], Role::Logits, false)];
    for layer in 0..layers {
        for (kind, role) in [("key", Role::Key(layer)), ("value", Role::Value(layer))] {
            inputs.push(port(&format!("past_key_values.{layer}.{kind}"), "f32", &["batch", &heads, "past", &d], role, true));
            outputs.push(port(&format!("present.{layer}.{kind}"), "f32", &["batch", &heads, "past + sequence", &d], role, false));
        }
    }
    Signature { inputs, outputs, counts: false }
}
