//! Weights in few bits: each spelling becomes a weight of floats that is computed from its codes when it is read, and a plain product. What the graph
//! rounds products' inputs to is left to `--quant`.

use super::super::attributes::Attributes;
use super::super::bad;
use super::super::blocks::{Blocks, Order};
use super::super::import::{Importer, input};
use crate::diag::{Diag, Result};
use llamac_ir::dtype::DType;
use llamac_ir::module::Operand;
use llamac_ir::op::TensorOp as T;
use llamac_ir::op::{Attr, OpKind};
use llamac_ir::recipe::Recipe;
use tract_onnx::pb::NodeProto;

type Found = Result<Vec<Operand>>;

/// Facts of a stored tensor.
pub(super) fn stored(i: &Importer, node: &NodeProto, at: usize, what: &str) -> Result<(String, Vec<usize>, DType, bool)> {
    let name = input(node, at).ok_or_else(|| bad(format!("{what} is missing")))?;
    let found = i.weights.get(name).ok_or_else(|| bad(format!("{what} is computed, not stored")).found(name).expected("an initializer"))?;
    Ok((name.to_owned(), found.shape.clone(), found.dtype, found.packed))
}

pub(super) fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

pub(super) fn refused(what: &str, found: &[usize], expected: usize) -> Diag {
    bad(format!("{what} does not fit the weight")).found(format_args!("{found:?}")).expected(format_args!("{expected} elements"))
}

/// `DequantizeLinear` of a weight: one scale, one for each index of an axis, or one for each block along it.
pub(super) fn dequantize(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 3)?;
    let (axis, block) = (a.int_or("axis", 1)?, a.int_or("block_size", 0)?);
    a.only("output_dtype", 0)?;
    let (codes, shape, dtype, _) = stored(i, node, 0, "the quantized tensor")?;
    let (scales, scale_shape, scale_type, _) = stored(i, node, 1, "the scale")?;
    if !matches!(dtype, DType::I8 | DType::U8) || scale_type != DType::F32 {
        return Err(bad("codes or scales are of a type that is not compiled")
            .found(format_args!("{dtype} and {scale_type}"))
            .expected("4 or 8 bit integers and float"));
    }
    let rank = shape.len() as i64;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok().filter(|a| *a < shape.len());
    let order = match (scale_shape.len(), block) {
        (0, 0) => Order::Axis { len: count(&shape).max(1), inner: 1, block: count(&shape).max(1) },
        (1, 0) | (2.., 1..) => {
            let axis = axis.ok_or_else(|| bad("there is no such axis").found(rank))?;
            let inner = count(&shape[axis + 1..]);
            // One scale for each index of the axis is one for each block when the axis is what is left behind.
            match block {
                0 if inner == 1 => {
                    Order::Axis { len: count(&shape[..axis]).max(1), inner: shape[axis], block: count(&shape[..axis]).max(1) }
                }
                0 => return Err(bad("scales along an axis that is not the last are not compiled").found(axis)),
                _ => Order::Axis { len: shape[axis], inner, block: block as usize },
            }
        }
        _ => return Err(bad("scales and block size do not fit").found(format_args!("{scale_shape:?} and {block}"))),
    };
    let expected = match order {
        Order::Axis { len, inner, block } => count(&shape) / (len * inner).max(1) * len.div_ceil(block) * inner,
        Order::Rows { .. } => 0,
    };
    if count(&scale_shape) != expected {
        return Err(refused("the scale", &scale_shape, expected));
    }
    let zeros = match input(node, 2) {
        None => None,
        Some(_) => {
            let (name, zero_shape, ..) = stored(i, node, 2, "the zero point")?;
            if count(&zero_shape) != expected {
                return Err(refused("the zero point", &zero_shape, expected));
            }
            Some(name)
        }
    };
    i.weights.add_blocks(&node.output[0], &shape, Blocks { codes, scales, zeros, zero: 0, order });
    Ok(vec![i.operand(&node.output[0])?])
}

/// `x W^T` with `W: [N, K]` in blocks of codes.
pub(super) fn matmul_bits(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 4)?;
    let size = |name: &'static str| -> Result<usize> {
        let found = a.int(name)?.ok_or_else(|| bad(format!("`{name}` is missing")))?;
        usize::try_from(found).ok().filter(|n| (1..1 << 32).contains(n)).ok_or_else(|| bad(format!("`{name}` cannot be that")).found(found))
    };
    let (k, n, block) = (size("K")?, size("N")?, size("block_size")?);
    // How exactly the exporter wants products computed: `--quant` says that here.
    a.int("accuracy_level")?;
    a.only("weight_prepacked", 0)?;
    let bits = a.int_or("bits", 4)?;
    let (codes, shape, dtype, _) = stored(i, node, 1, "the quantized weight")?;
    let (scales, scale_shape, ..) = stored(i, node, 2, "the scale")?;
    if bits != 4 && bits != 8 {
        return Err(bad("this number of bits is not compiled").found(bits).expected("4 or 8"));
    }
    let scale_count = n * k.div_ceil(block);
    if dtype != DType::U8 || count(&shape) != scale_count * block * bits as usize / 8 {
        return Err(refused("the quantized weight", &shape, scale_count * block * bits as usize / 8));
    }
    if count(&scale_shape) != scale_count {
        return Err(refused("the scale", &scale_shape, scale_count));
    }
    if input(node, 3).is_some() {
        return Err(bad("zero points of MatMulNBits are not compiled").found(&node.input[3]).expected("a symmetric weight"));
    }
    let codes = if bits == 4 { i.weights.as_nibbles(&codes) } else { codes };
    let zero = 1 << (bits - 1);
    let w = rows_of_blocks(i, n, Blocks { codes, scales, zeros: None, zero, order: Order::Rows { columns: k, block } })?;
    let (x, name) = (i.read(node, 0)?, &node.output[0]);
    let turned = i.tensor(T::Transpose, name, &[w], &[("perm", Attr::ints(&[1, 0]))])?;
    Ok(vec![i.tensor(T::MatMul, &node.output[0], &[x, turned.into()], &[])?.into()])
}

/// A weight `[rows, columns]` of blocks along rows. The same codes with the same scales are the same weight, also where another op has more or fewer columns:
/// a table and a head that are tied stay so.
pub(super) fn rows_of_blocks(i: &mut Importer, rows: usize, blocks: Blocks) -> Result<Operand> {
    let Order::Rows { columns, .. } = blocks.order else { return Err(bad("blocks that are not along rows")) };
    let root = i.weights.root(&blocks.codes).to_owned();
    let mut name = format!("{root}.{rows}x{columns}");
    while i.weights.blocks(&name).is_some_and(|known| *known != blocks) {
        name.push('+');
    }
    if i.weights.blocks(&name).is_none() {
        i.weights.add_blocks(&name, &[rows, columns], blocks);
    }
    i.operand(&name)
}

/// Rows of a table that stands in blocks of codes.
pub(super) fn gather_blocks(i: &mut Importer, node: &NodeProto, a: &Attributes<'_>) -> Found {
    i.at_most(node, 3)?;
    let bits = a.int_or("bits", 4)?;
    let block = a.int_or("block_size", 128)?;
    let (codes, shape, dtype, packed) = stored(i, node, 0, "the quantized table")?;
    let (scales, scale_shape, ..) = stored(i, node, 2, "the scale")?;
    let [rows, bytes] = shape[..] else { return Err(bad("the table is no matrix").found(format_args!("{shape:?}"))) };
    a.only("gather_axis", 0)?;
    match a.int_or("quantize_axis", 1)? {
        1 | -1 => {}
        other => return Err(bad("attribute `quantize_axis` has a value that is not compiled").found(other).expected("1, the last axis")),
    }
    if !matches!(bits, 4 | 8) || dtype != DType::U8 || packed {
        let found = format_args!("{bits} bits in {dtype}{}", if packed { " of 4 bits" } else { "" }).to_string();
        return Err(bad("codes of this type are not compiled").found(found).expected("4 or 8 bits in uint8"));
    }
    let block = usize::try_from(block).ok().filter(|b| *b > 0).ok_or_else(|| bad("`block_size` cannot be that").found(block))?;
    let columns = bytes * 8 / bits as usize;
    if !columns.is_multiple_of(block) || count(&scale_shape) != rows * (columns / block) {
        return Err(refused("the scale", &scale_shape, rows * columns.div_ceil(block)));
    }
    let codes = if bits == 4 { i.weights.as_nibbles(&codes) } else { codes };
    let order = Order::Rows { columns, block };
    let table = rows_of_blocks(i, rows, Blocks { codes, scales, zeros: None, zero: 1 << (bits - 1), order })?;
    let ids = i.read(node, 1)?;
    Ok(vec![i.tensor(T::Gather, &node.output[0], &[table, ids], &[("axis", Attr::Int(0))])?.into()])
}

/// The first `len` columns of rows that are looked up in a table of blocks, if what is cut off only fills the last block up: rows of the table
/// that is as narrow.
pub(super) fn narrowed(i: &mut Importer, name: &str, x: Operand, len: usize) -> Result<Option<Operand>> {
    let Operand::Value(v) = x else { return Ok(None) };
    let func = i.f.func();
    let Some(inst) = func.def(v).map(|at| &func.body[at]) else { return Ok(None) };
    let ([Operand::Weight(w), ids], true) = (&inst.operands[..], inst.op == OpKind::Tensor(T::Gather) && inst.signed("axis") == 0) else {
        return Ok(None);
    };
    let (Recipe::Source { name: table, .. }, ids) = (&func.weights[w.0 as usize].recipe, *ids) else { return Ok(None) };
    let (Some(blocks), Some(rows)) = (i.weights.blocks(table).cloned(), i.weights.get(table).map(|t| t.shape[0])) else { return Ok(None) };
    let Order::Rows { columns, block } = blocks.order else { return Ok(None) };
    if len == 0 || len.div_ceil(block) * block != columns {
        return Ok(None);
    }
    let narrow = rows_of_blocks(i, rows, Blocks { order: Order::Rows { columns: len, block }, ..blocks })?;
    Ok(Some(i.tensor(T::Gather, name, &[narrow, ids], &[("axis", Attr::Int(0))])?.into()))
}

/// Codes, scale and zero point of all of a tensor.
pub(super) fn dynamic_quantize(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    i.at_most(node, 1)?;
    let x = i.read(node, 0)?;
    let name = |at: usize| node.output.get(at).filter(|o| !o.is_empty()).unwrap_or(&node.output[0]);
    let scale: Operand = i.tensor(T::DynamicScale, name(1), &[x], &[])?.into();
    let zero: Operand = i.tensor(T::DynamicZero, name(2), &[x], &[])?.into();
    let codes = i.tensor(T::Quantize, name(0), &[x, scale, zero], &[])?;
    Ok(vec![codes.into(), scale, zero])
}

/// A product of bytes, each less its zero point, exactly.
pub(super) fn matmul_integer(i: &mut Importer, node: &NodeProto, _: &Attributes<'_>) -> Found {
    i.at_most(node, 4)?;
    let name = &node.output[0];
    let wide = |i: &mut Importer, x: Operand| i.tensor(T::Cast, name, &[x], &[("to", Attr::Word("i32".to_owned()))]).map(Operand::from);
    let mut factors = [i.read(node, 0)?, i.read(node, 1)?];
    for (at, factor) in factors.iter_mut().enumerate() {
        *factor = wide(i, *factor)?;
        // Symmetric weights have zero points, too, all of them 0.
        let Some(zero) = input(node, at + 2).filter(|zero| !i.weights.all_zero(zero)) else { continue };
        let zero = i.operand(zero)?;
        let mut zero = wide(i, zero)?;
        // One for each row of the first factor, for each column of the second.
        if let (0, [rows]) = (at, &i.ty(zero).shape[..]) {
            let shape = vec![rows.clone(), 1.into()];
            zero = super::moving::reshaped(i, name, zero, shape)?;
        }
        *factor = i.tensor(T::Sub, name, &[*factor, zero], &[])?.into();
    }
    super::network::product(i, name, factors)
}
