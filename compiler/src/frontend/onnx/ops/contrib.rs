//! Attention and rotation as ONNX Runtime's own domain has them: rotation inside attention, queries, keys and values packed, tables by position.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::import::{Importer, input};
use super::moving::reshaped;
use super::network::{from_heads, to_heads};
use crate::diag::{Diag, Result};
use llamac_ir::module::Operand;
use llamac_ir::op::Attr;
use llamac_ir::op::TensorOp as T;
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

/// An axis of an operand.
fn axis(i: &Importer, x: Operand, at: usize, what: &str) -> Result<Dim> {
    i.ty(x).shape.get(at).cloned().ok_or_else(|| bad(format!("{what} has too few axes")).found(i.ty(x)).expected(at + 1))
}

/// Columns `start .. start + len` of the last of three axes.
fn columns(i: &mut Importer, name: &str, x: Operand, start: i64, len: i64) -> Result<Operand> {
    let attrs = [("axis", Attr::Int(2)), ("start", Attr::ints(&[start])), ("len", Attr::ints(&[len]))];
    Ok(i.tensor(T::Slice, name, &[x], &attrs)?.into())
}

/// `first, first + 1 ..`, `len` of them, as a tensor of that shape.
fn counted(i: &mut Importer, name: &str, first: &Dim, len: &Dim, shape: Vec<Dim>) -> Result<Operand> {
    let attrs = [("start", Attr::Dims(vec![first.clone()])), ("len", Attr::Dims(vec![len.clone()]))];
    let range: Operand = i.tensor(T::Range, name, &[], &attrs)?.into();
    reshaped(i, name, range, shape)
}

/// Rows of tables by position, `[batch, seq, d/2]` each.
fn rows(i: &mut Importer, name: &str, tables: [Operand; 2], pos: Operand) -> Result<[Operand; 2]> {
    let mut out = tables;
    for table in &mut out {
        *table = i.tensor(T::Gather, name, &[*table, pos], &[("axis", Attr::Int(0))])?.into();
    }
    Ok(out)
}

fn refused(name: &str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Diag {
    bad(format!("attribute `{name}` has a value that is not compiled")).found(found).expected(expected)
}

/// `GroupQueryAttention`: causal attention over a past and these tokens. Lengths of sequences without padding follow from the past's, so
/// `seqlens_k` and `total_sequence_length` say nothing new.
pub(super) fn group_query_attention(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 10)?;
    let name = &node.output[0];
    let int = |name: &'static str| {
        a.int(name)?.filter(|n| *n > 0).ok_or_else(|| bad(format!("`{name}` is missing")).expected("a number of heads"))
    };
    let (heads, kv_heads) = (int("num_heads")?, int("kv_num_heads")?);
    a.only("local_window_size", -1)?;
    a.only("qk_output", 0)?;
    if a.int_or("smooth_softmax", 0)? > 0 {
        return Err(refused("smooth_softmax", 1, 0));
    }
    if let Some(cap) = a.float("softcap")?.filter(|c| *c != 0.0) {
        return Err(refused("softcap", cap, 0));
    }
    for kind in ["k_quant_type", "v_quant_type"] {
        if let Some(other) = a.text(kind)?.filter(|t| t != "NONE") {
            return Err(refused(kind, other, "NONE"));
        }
    }
    a.only("kv_cache_bit_width", 0)?;
    let (turns, interleaved) = (a.int_or("do_rotary", 0)? != 0, a.int_or("rotary_interleaved", 0)?);
    let scale = a.float("scale")?.filter(|s| *s != 0.0);
    // That they are there is checked; see above.
    i.read(node, 5)?;

    let packed = i.read(node, 0)?;
    let (mut q, mut k, mut v) = if input(node, 1).is_some() {
        (packed, i.read(node, 1)?, i.read(node, 2)?)
    } else {
        let width = axis(i, packed, 2, "the query")?;
        let each = width.exact_div(&Dim::int(heads + 2 * kv_heads)).and_then(|d| d.number());
        let d =
            each.ok_or_else(|| bad("the heads do not divide the width").found(format_args!("{heads} + 2 * {kv_heads} heads of {width}")))?;
        let (wide, narrow) = (heads * d, kv_heads * d);
        (columns(i, name, packed, 0, wide)?, columns(i, name, packed, wide, narrow)?, columns(i, name, packed, wide + narrow, narrow)?)
    };
    q = to_heads(i, name, q, heads)?;
    k = to_heads(i, name, k, kv_heads)?;
    v = to_heads(i, name, v, kv_heads)?;
    let (batch, seq) = (axis(i, q, 0, "the query")?, axis(i, q, 2, "the query")?);
    let width = axis(i, q, 3, "the query")?.value().ok_or_else(|| bad("the size of a head is not known"))?;

    let mut past = Dim::int(0);
    for at in [3, 4].into_iter().filter(|at| input(node, *at).is_some()) {
        let cached = i.read(node, at)?;
        past = axis(i, cached, 2, "the past")?;
        // Some exporters leave the size of a head open in the cache; there is only one that fits.
        if let Dim { constant: 0, terms } = axis(i, cached, 3, "the past")?
            && let [(symbol, 1)] = terms.as_slice()
        {
            i.bind(symbol, width);
        }
    }
    if turns {
        let pos = match input(node, 9) {
            Some(_) => i.read(node, 9)?,
            None => {
                let row = counted(i, "positions", &past, &seq, vec![Dim::int(1), seq.clone()])?;
                i.tensor(T::Expand, "positions", &[row], &[("shape", Attr::Dims(vec![batch, seq.clone()]))])?.into()
            }
        };
        let tables = [i.read(node, 7)?, i.read(node, 8)?];
        let half = axis(i, tables[0], 1, "the table")?;
        if half != Dim::from(width / 2) {
            return Err(bad("only a part of each head is rotated").found(format_args!("tables of {half} columns")).expected(width / 2));
        }
        let [cos, sin] = rows(i, name, tables, pos)?;
        for x in [&mut q, &mut k] {
            *x = i.tensor(T::Rotary, name, &[*x, cos, sin], &[("interleaved", Attr::Int(interleaved))])?.into();
        }
    }
    for (at, x) in [(3, &mut k), (4, &mut v)] {
        if input(node, at).is_some() {
            let cached = i.read(node, at)?;
            let all = node.output.get(at - 2).filter(|o| !o.is_empty()).unwrap_or(name);
            *x = i.tensor(T::Concat, all, &[cached, *x], &[("axis", Attr::Int(2))])?.into();
        }
    }
    let one = || Dim::int(1);
    let total = past.add(&seq);
    let queries = counted(i, "queries", &past, &seq, vec![one(), one(), seq.clone(), one()])?;
    let keys = counted(i, "keys", &Dim::int(0), &total, vec![one(), one(), one(), total.clone()])?;
    let causal = i.tensor(T::LessOrEqual, "causal", &[keys, queries], &[])?;
    let scale = Attr::float(scale.unwrap_or(1.0 / (width as f64).sqrt()));
    let value: Operand = i.tensor(T::Attention, name, &[q, k, v, causal.into()], &[("scale", scale)])?.into();
    Ok(vec![from_heads(i, name, value)?, k, v])
}

/// `RotaryEmbedding` of `com.microsoft`: positions come second, tables behind them.
pub(super) fn rotary(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 4)?;
    a.only("is_packed_batching", 0)?;
    a.only("rotary_embedding_dim", 0)?;
    if let Some(other) = a.float("scale")?.filter(|s| *s != 1.0) {
        return Err(refused("scale", other, 1));
    }
    let name = &node.output[0];
    let (mut x, pos) = (i.read(node, 0)?, i.read(node, 1)?);
    let tables = [i.read(node, 2)?, i.read(node, 3)?];
    if i.ty(pos).shape.len() != 2 {
        return Err(bad("positions are one offset, not one for each token").found(i.ty(pos)).expected("[batch, sequence]"));
    }
    let (heads, interleaved) = (a.int_or("num_heads", 0)?, Attr::Int(a.int_or("interleaved", 0)?));
    let flat = i.ty(x).shape.len() == 3;
    if flat {
        let each = axis(i, tables[0], 1, "the table")?.scale(2);
        let own = axis(i, x, 2, "the input")?.exact_div(&each).and_then(|n| n.number()).unwrap_or(0);
        x = to_heads(i, name, x, if heads == 0 { own } else { heads })?;
    }
    let [cos, sin] = rows(i, name, tables, pos)?;
    let mut value: Operand = i.tensor(T::Rotary, name, &[x, cos, sin], &[("interleaved", interleaved)])?.into();
    if flat {
        value = from_heads(i, name, value)?;
    }
    Ok(vec![value])
}
