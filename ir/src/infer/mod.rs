//! Types of results from types of operands and attributes: one rule per op. How operands are looked at is in `args`; the types of
//! recipes are in `recipe`, and `layers` is typed by its callee in `verify`.

mod args;
mod experts;
mod tensor;

use crate::dtype::DType;
use crate::op::{Attr, OpKind};
use crate::types::{Dim, Type};
use args::Args;
pub(crate) use args::Mismatch;

/// Types of the results of an op; `attrs` are in the order of the op table, complete.
///
/// # Errors
/// A sentence that names the op, the operand or attribute, what was found and what was expected. `layers` is always refused.
pub fn infer(op: OpKind, operands: &[Type], attrs: &[Attr]) -> Result<Vec<Type>, String> {
    result_types(op, operands, attrs).map_err(|e| e.to_string())
}

/// As [`infer`], with the error as data.
pub(crate) fn result_types(op: OpKind, operands: &[Type], attrs: &[Attr]) -> Result<Vec<Type>, Mismatch> {
    let args = Args::new(op, operands, attrs)?;
    let one = |ty: Type| Ok(vec![ty]);
    match op {
        OpKind::Embed => {
            let rows = args.ints(0, None)?;
            let (_, width) = args.matrix(1, None)?;
            one(activations(rows, width))
        }
        OpKind::Linear => {
            let (rows, k) = args.activations(0, None)?;
            let n = weight_and_bias(&args, 1, 2, k)?;
            one(activations(rows, n))
        }
        OpKind::RmsNorm => {
            let (rows, k) = args.activations(0, None)?;
            args.vector(1, Some(k))?;
            args.epsilon("eps")?;
            one(activations(rows, k))
        }
        OpKind::RmsUnit => {
            let (rows, k) = args.activations(0, None)?;
            args.epsilon("eps")?;
            let group = args.int("group")?;
            if group > 0 && k % group != 0 {
                return Err(args.attribute("group", group, format!("0 or a divisor of {k}")));
            }
            one(activations(rows, k))
        }
        OpKind::RopeAngles => {
            let rows = args.ints(0, None)?;
            let pairs = args.vector(1, None)?;
            one(activations(rows, args.product("inv_freq", pairs, 2)?))
        }
        OpKind::Rope => {
            let (rows, width) = rope(&args, 0, 1)?;
            one(activations(rows, width))
        }
        OpKind::KvWrite => {
            let (rows, width) = args.activations(0, None)?;
            args.heads(0, width)?;
            args.activations(1, Some((&rows, width)))?;
            args.ints(2, Some(&rows))?;
            args.ints(3, Some(&rows))?;
            Ok(vec![])
        }
        OpKind::RopeKvWrite => {
            let (rows, width) = rope(&args, 0, 2)?;
            args.activations(1, Some((&rows, width)))?;
            args.ints(3, Some(&rows))?;
            args.ints(4, Some(&rows))?;
            Ok(vec![])
        }
        OpKind::Attention => attention(&args),
        OpKind::Silu => one(args.floats(0)?.clone()),
        OpKind::Add | OpKind::Mul => {
            let a = args.floats(0)?;
            if args.ty(1) != a {
                let last = a.shape.last().and_then(Dim::value);
                args.same_or_vector(1, a, last)?;
            }
            one(a.clone())
        }
        OpKind::SliceCols => {
            let ty = args.floats(0)?;
            let width = args.width(0)?;
            let (start, len) = (args.int("start")?, args.positive("len")?);
            if start.checked_add(len).is_none_or(|end| end > width) {
                return Err(args.attribute("len", len, format!("start + len <= {width}, with start={start}")));
            }
            let mut ty = ty.clone();
            ty.shape.pop();
            ty.shape.push(len.into());
            one(ty)
        }
        OpKind::GatherRows => {
            let rows = args.ints(1, None)?;
            let mut ty = args.floats_or_ints(0)?.clone();
            ty.shape[0] = rows;
            one(ty)
        }
        OpKind::TopGates => experts::top_gates(&args),
        OpKind::ExpertScale => experts::scale(&args),
        OpKind::ExpertLinear => experts::linear(&args),
        OpKind::ExpertSum => experts::sum(&args),
        OpKind::Route => experts::route(&args),
        OpKind::MoeLinearSwiGlu => experts::moe_linear_swiglu(&args),
        OpKind::MoeLinearAdd => experts::moe_linear_add(&args),
        OpKind::RowScale => {
            let (rows, width) = args.activations(0, None)?;
            args.activations(1, Some((&rows, 1)))?;
            one(activations(rows, width))
        }
        OpKind::AttnTemperature => {
            let rows = args.ints(0, None)?;
            if args.finite("floor_scale")? <= 0.0 {
                return Err(args.attribute("floor_scale", args.finite("floor_scale")?, "a positive number"));
            }
            args.finite("attn_scale")?;
            one(activations(rows, 1))
        }
        OpKind::Layers => Err(args.refuse("`layers` is typed by the functions that it calls")),
        OpKind::Tensor(op) => tensor::result_types(op, &args),
        OpKind::SwiGlu => {
            let gate = args.floats(0)?;
            args.same(1, gate)?;
            one(gate.clone())
        }
        OpKind::NormLinear | OpKind::NormLinearSwiGlu => {
            let (rows, k) = args.activations(0, None)?;
            args.vector(1, Some(k))?;
            args.epsilon("eps")?;
            let n = weight_and_bias(&args, 2, 3, k)?;
            one(activations(rows, if op == OpKind::NormLinear { n } else { half(&args, 2, n)? }))
        }
        OpKind::UnitLinear | OpKind::UnitLinearSwiGlu => {
            let (rows, k) = args.activations(0, None)?;
            args.epsilon("eps")?;
            let n = weight_and_bias(&args, 1, 2, k)?;
            one(activations(rows, if op == OpKind::UnitLinear { n } else { half(&args, 1, n)? }))
        }
        OpKind::LinearAdd => {
            let (rows, k) = args.activations(0, None)?;
            let n = weight_and_bias(&args, 1, 3, k)?;
            args.activations(2, Some((&rows, n)))?;
            one(activations(rows, n))
        }
    }
}

fn activations(rows: Dim, width: usize) -> Type {
    Type::new(DType::F32, [rows, width.into()])
}

/// Output features of the weight `[O, k]` and its optional bias `[O]`.
fn weight_and_bias(args: &Args<'_>, weight: usize, bias: usize, k: usize) -> Result<usize, Mismatch> {
    let (n, _) = args.matrix(weight, Some(k))?;
    if args.has(bias) {
        args.vector(bias, Some(n))?;
    }
    Ok(n)
}

/// Half of the output features of a gate-over-up weight.
fn half(args: &Args<'_>, weight: usize, n: usize) -> Result<usize, Mismatch> {
    if n.is_multiple_of(2) { Ok(n / 2) } else { Err(args.operand(weight, "an even number of rows: gate over up")) }
}

/// Rows and width of what is rotated; its angles must be `[rows, head_dim]`.
fn rope(args: &Args<'_>, x: usize, angles: usize) -> Result<(Dim, usize), Mismatch> {
    let (rows, width) = args.activations(x, None)?;
    let head = args.heads(x, width)?;
    if head % 2 != 0 {
        return Err(args.attribute("head_dim", head, "an even number"));
    }
    args.activations(angles, Some((&rows, head)))?;
    Ok((rows, width))
}

fn attention(args: &Args<'_>) -> Result<Vec<Type>, Mismatch> {
    let (heads, kv_heads, head) = (args.positive("heads")?, args.positive("kv_heads")?, args.positive("head_dim")?);
    if heads % kv_heads != 0 {
        return Err(args.attribute("kv_heads", kv_heads, format!("a divisor of {heads} heads")));
    }
    args.finite("scale")?;
    args.int("chunk")?;
    let width = args.product("heads", heads, head)?;
    let (rows, found) = args.activations(0, None)?;
    if found != width {
        return Err(args.operand(0, format!("heads * head_dim = {width} columns")));
    }
    args.ints(1, Some(&rows))?;
    args.ints(2, Some(&rows))?;
    Ok(vec![activations(rows, width)])
}

#[cfg(test)]
#[path = "infer_tests.rs"]
mod tests;
