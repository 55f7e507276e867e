//! `Attention` and `RotaryEmbedding` with all that their schemas allow, written out in plain ops. What decoders have is one op (see `network`): it is
//! what raising looks for.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::elements::dtype_of;
use super::super::import::{Importer, input};
use super::make::Make;
use super::network;
use super::pointwise::swish;
use crate::diag::Result;
use llamac_ir::dtype::DType;
use llamac_ir::module::Operand;
use llamac_ir::op::{Attr, TensorOp as T};
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

/// Whether `network::attention` says all that the node means.
fn plain(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Result<bool> {
    let special = a.float("softcap")?.is_some_and(|c| c != 0.0)
        || a.int_or("left_window_size", -1)? >= 0
        || a.int_or("right_window_size", -1)? >= 0
        || input(node, 6).is_some()
        || node.output.get(3).is_some_and(|o| !o.is_empty());
    if special {
        return Ok(false);
    }
    let (q, k) = (i.read(node, 0)?, i.read(node, 1)?);
    let (q, k) = (i.ty(q), i.ty(k));
    let tokens = |shape: &[Dim]| shape.get(shape.len().saturating_sub(2)).cloned();
    let (new, mut keys) = (tokens(&if q.shape.len() == 3 { vec![q.shape[1].clone(), Dim::int(1)] } else { q.shape.clone() }), None);
    if let Some(own) = tokens(&if k.shape.len() == 3 { vec![k.shape[1].clone(), Dim::int(1)] } else { k.shape.clone() }) {
        keys = Some(own);
    }
    let past = input(node, 4).is_some();
    if a.int_or("is_causal", 0)? != 0 && new != keys {
        return Ok(false);
    }
    // A mask that is shorter than the keys is filled up; where lengths are symbols, it is taken to fit.
    if i.eager.is_none() {
        return Ok(true);
    }
    if past {
        let past = i.read(node, 4)?;
        let past = tokens(&i.ty(past).shape);
        keys = keys.zip(past).map(|(a, b)| a.add(&b));
    }
    if input(node, 3).is_some() {
        let mask = i.read(node, 3)?;
        let last = i.ty(mask).shape.last().cloned();
        return Ok(last == keys || last == Some(Dim::int(1)) && keys != Some(Dim::int(1)));
    }
    Ok(true)
}

pub(super) fn attention(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    if plain(i, node, a)? {
        return network::attention(i, node, a);
    }
    i.at_most(node, 7)?;
    let (heads, kv_heads) = (a.int_or("q_num_heads", 0)?, a.int_or("kv_num_heads", 0)?);
    let precision = a.int("softmax_precision")?.map(|p| dtype_of(p as i32)).transpose()?;
    let (causal, mode) = (a.int_or("is_causal", 0)? != 0, a.int_or("qk_matmul_output_mode", 0)?);
    let (left, right) = (a.int_or("left_window_size", -1)?, a.int_or("right_window_size", -1)?);
    let [mut q, mut k, mut v] = [i.read(node, 0)?, i.read(node, 1)?, i.read(node, 2)?];
    let flat = i.ty(q).shape.len() == 3;
    let name = node.output[0].clone();
    for (x, heads) in [(&mut q, heads), (&mut k, kv_heads), (&mut v, kv_heads)] {
        *x = network::to_heads(i, &name, *x, heads)?;
    }
    let mut past = 0;
    for (at, x) in [(4, &mut k), (5, &mut v)] {
        if input(node, at).is_some() {
            let before = i.read(node, at)?;
            past = i.ty(before).sizes().and_then(|s| s.get(2).copied()).unwrap_or(0) as i64;
            *x = i.tensor(T::Concat, &name, &[before, *x], &[("axis", Attr::Int(2))])?.into();
        }
    }
    let mask = if input(node, 3).is_some() { Some(i.read(node, 3)?) } else { None };
    let lengths = if input(node, 6).is_some() { Some(i.read(node, 6)?) } else { None };
    let scale = a.raw_float("scale")?.map(f64::from);
    let softcap = a.raw_float("softcap")?.map_or(0.0, f64::from);

    let mut m = Make::new(i, node);
    let (present_k, present_v) = (k, v);
    let dtype = m.dtype(q);
    let (q_sizes, v_sizes) = (m.sizes(q)?, m.sizes(v)?);
    let (&[batch, heads, new, width], &[_, kv_heads, keys, _]) = (q_sizes.as_slice(), v_sizes.as_slice()) else {
        return Err(bad("attention is over tensors of three or four axes").found(m.i.ty(q)));
    };
    if kv_heads == 0 || heads % kv_heads != 0 {
        return Err(bad("the heads of keys and values do not divide those of queries").found(format_args!("{heads} and {kv_heads}")));
    }
    for x in [&mut k, &mut v] {
        let sizes = m.sizes(*x)?;
        let split = |n: usize| [sizes[0], sizes[1], n, sizes[2], sizes[3]].map(Dim::from).to_vec();
        let one = m.reshape(*x, split(1))?;
        let all = m.expand(one, split(heads / kv_heads))?;
        *x = m.reshape(all, [sizes[0], heads, sizes[2], sizes[3]].map(Dim::from).to_vec())?;
    }
    let scale = scale.unwrap_or(1.0 / (width as f64).sqrt());
    // Half of the scale on each side, rounded where the function of the schema rounds.
    let (q, k) = (m.with(T::Mul, q, scale.sqrt())?, m.with(T::Mul, k, scale.sqrt())?);
    let turned = m.transpose(k, &[0, 1, 3, 2])?;
    let mut scores = m.bin(T::MatMul, q, turned)?;
    let raw = scores;
    if softcap > 0.0 {
        let part = m.with(T::Div, scores, softcap)?;
        let bent = m.un(T::Tanh, part)?;
        scores = m.with(T::Mul, bent, softcap)?;
    }
    let capped = scores;

    // What is seen, as numbers that are added.
    let full: Vec<Dim> = [batch, heads, new, keys].map(Dim::from).to_vec();
    let mut bias = m.fill(full.clone(), 0.0, dtype)?;
    let blocked = m.number(f64::NEG_INFINITY, dtype)?;
    let nothing = m.number(0.0, dtype)?;
    if let Some(mut mask) = mask {
        let shape = m.sizes(mask)?;
        let (rank, last) = (shape.len(), shape.last().copied().unwrap_or(1));
        if m.dtype(mask) == DType::Bool {
            mask = m.op(T::Where, &[mask, nothing, blocked], &[])?;
        }
        mask = m.cast(mask, dtype)?;
        if last < keys && rank > 0 {
            let mut rest = shape.clone();
            rest[rank - 1] = keys - last;
            let rest = m.fill(rest.into_iter().map(Dim::from).collect(), f64::NEG_INFINITY, dtype)?;
            mask = m.concat(&[mask, rest], rank as i64 - 1)?;
        }
        bias = m.bin(T::Add, bias, mask)?;
    }
    // Position of each query minus that of each key: queries stand behind what precedes them.
    let (rows, columns) = (m.range(new)?, m.range(keys)?);
    let rows = m.reshape(rows, vec![new.into(), 1.into()])?;
    let apart = m.bin(T::Sub, rows, columns)?;
    let offset = match (lengths, past) {
        (Some(lengths), 0) => {
            let each = m.reshape(lengths, vec![batch.into(), 1.into(), 1.into(), 1.into()])?;
            m.with(T::Sub, each, new as f64)?
        }
        (_, past) => m.number(past as f64, DType::I64)?,
    };
    let apart = m.bin(T::Add, apart, offset)?;
    let mut limits = Vec::new();
    if causal {
        limits.push(m.with(T::GreaterOrEqual, apart, 0.0)?);
    }
    if left >= 0 {
        limits.push(m.with(T::LessOrEqual, apart, left as f64)?);
    }
    if right >= 0 {
        limits.push(m.with(T::GreaterOrEqual, apart, -right as f64)?);
    }
    if let Some(lengths) = lengths {
        let each = m.reshape(lengths, vec![batch.into(), 1.into(), 1.into(), 1.into()])?;
        limits.push(m.bin(T::Less, columns, each)?);
    }
    for seen in limits {
        let limit = m.op(T::Where, &[seen, nothing, blocked], &[])?;
        bias = m.bin(T::Add, bias, limit)?;
    }
    let biased = m.bin(T::Add, scores, bias)?;
    let mut exact = biased;
    if let Some(precision) = precision {
        exact = m.cast(exact, precision)?;
    }
    let weights = m.op(T::Softmax, &[exact], &[("axis", Attr::Int(-1))])?;
    // A query that sees nothing gives zeros.
    let top = m.reduce(T::ReduceMax, bias, &[-1])?;
    let blind = m.bin(T::Equal, top, blocked)?;
    let zero = m.number(0.0, m.dtype(weights))?;
    let weights = m.op(T::Where, &[blind, zero, weights], &[])?;
    let rounded = m.cast(weights, dtype)?;
    let mut result = m.bin(T::MatMul, rounded, v)?;
    let shown = match mode {
        0 => raw,
        1 => capped,
        2 => biased,
        3 => weights,
        other => return Err(bad("attribute `qk_matmul_output_mode` has a value that is not compiled").found(other).expected("0 to 3")),
    };
    let shown = m.cast(shown, dtype)?;
    if flat {
        result = network::from_heads(i, &name, result)?;
    }
    Ok(vec![result, present_k, present_v, shown])
}

/// With a rotated part that is not the whole head, and tables that may be of another float type.
pub(super) fn rotary(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let part = a.int_or("rotary_embedding_dim", 0)?;
    let x = i.read(node, 0)?;
    let shape = i.ty(x).shape;
    let whole = part == 0 || shape.len() == 4 && shape[3].number() == Some(part);
    if whole && part == 0 {
        return network::rotary(i, node, a);
    }
    let (heads, interleaved) = (a.int_or("num_heads", 0)?, a.int_or("interleaved", 0)?);
    let (mut cos, mut sin) = (i.read(node, 1)?, i.read(node, 2)?);
    let name = node.output[0].clone();
    let flat = shape.len() == 3;
    let x = network::to_heads(i, &name, x, heads)?;
    if input(node, 3).is_some() {
        let pos = i.read(node, 3)?;
        for table in [&mut cos, &mut sin] {
            *table = i.tensor(T::Gather, &name, &[*table, pos], &[("axis", Attr::Int(0))])?.into();
        }
    }
    let mut m = Make::new(i, node);
    let width = m.shape(x).last().and_then(Dim::value).ok_or_else(|| bad("the size of a head is not known"))? as i64;
    if part > width {
        return Err(bad("more of a head is rotated than there is").found(part).expected(format_args!("at most {width}")));
    }
    let turned = m.slice(x, 3, 0, part, 1)?;
    let turned = m.op(T::Rotary, &[turned, cos, sin], &[("interleaved", Attr::Int(interleaved))])?;
    let mut value = turned;
    if part < width {
        let rest = m.slice(x, 3, part, width - part, 1)?;
        value = m.concat(&[turned, rest], 3)?;
    }
    if flat {
        value = network::from_heads(i, &name, value)?;
    }
    Ok(vec![value])
}

pub(super) fn swiglu(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    let alpha = a.raw_float("alpha")?.map_or(1.0, f64::from);
    let (x, up) = (i.read(node, 0)?, i.read(node, 1)?);
    let mut m = Make::new(i, node);
    let dtype = m.dtype(x);
    let (x, up) = (m.wide(x)?, m.wide(up)?);
    let gate = swish(&mut m, x, alpha)?;
    let value = m.bin(T::Mul, gate, up)?;
    Ok(vec![m.cast(value, dtype)?])
}
