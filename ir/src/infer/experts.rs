//! Types of the ops on mixtures of experts. Helpers for single operands are in `args`.

use super::args::{Args, Mismatch};
use crate::dtype::DType;
use crate::types::{Dim, Type};

type Types = Result<Vec<Type>, Mismatch>;

fn values(dtype: DType, shape: Vec<Dim>) -> Type {
    Type::new(dtype, shape)
}

pub(super) fn top_gates(args: &Args<'_>) -> Types {
    let (rows, experts) = args.activations(0, None)?;
    top_k(args, experts)?;
    Ok(vec![values(DType::F32, vec![rows, experts.into()])])
}

fn top_k(args: &Args<'_>, experts: usize) -> Result<usize, Mismatch> {
    match args.positive("top_k")? {
        k if k > experts => Err(args.attribute("top_k", k, format!("at most the number of experts, {experts}"))),
        k => Ok(k),
    }
}

pub(super) fn scale(args: &Args<'_>) -> Types {
    let (rows, width) = args.activations(0, None)?;
    let (gate_rows, experts) = args.activations(1, None)?;
    args.activations(1, Some((&rows, experts)))?;
    Ok(vec![values(DType::F32, vec![gate_rows, experts.into(), width.into()])])
}

pub(super) fn linear(args: &Args<'_>) -> Types {
    let (rows, experts, k) = stacked(args, 0)?;
    let (_, n) = weight(args, 1, Some(experts), k)?;
    Ok(vec![values(DType::F32, vec![rows, experts.into(), n.into()])])
}

pub(super) fn sum(args: &Args<'_>) -> Types {
    let (rows, _, width) = stacked(args, 0)?;
    Ok(vec![values(DType::F32, vec![rows, width.into()])])
}

pub(super) fn route(args: &Args<'_>) -> Types {
    let (rows, experts) = args.activations(0, None)?;
    let k = top_k(args, experts)?;
    Ok(vec![values(DType::I32, vec![rows.clone(), k.into()]), values(DType::F32, vec![rows, k.into()])])
}

pub(super) fn moe_linear_swiglu(args: &Args<'_>) -> Types {
    let (rows, h) = args.activations(0, None)?;
    let k = ids(args, 1, &rows)?;
    args.activations(2, Some((&rows, k)))?;
    match weight(args, 3, None, h)? {
        (_, n) if n % 2 == 0 => Ok(vec![values(DType::F32, vec![rows, k.into(), (n / 2).into()])]),
        _ => Err(args.operand(3, "an even number of rows: gate over up")),
    }
}

pub(super) fn moe_linear_add(args: &Args<'_>) -> Types {
    let (rows, k, f) = stacked(args, 0)?;
    if ids(args, 1, &rows)? != k {
        return Err(args.operand(1, format!("i32[{rows}, {k}]")));
    }
    let (_, n) = weight(args, 2, None, f)?;
    args.activations(3, Some((&rows, n)))?;
    Ok(vec![values(DType::F32, vec![rows, n.into()])])
}

/// Rows, experts and width of `f32[rows, experts, width]`.
fn stacked(args: &Args<'_>, i: usize) -> Result<(Dim, usize, usize), Mismatch> {
    let ty = args.ty(i);
    let sizes = || Some((ty.shape.get(1)?.value()?, ty.shape.get(2)?.value()?));
    match (ty.dtype, ty.shape.len(), sizes()) {
        (DType::F32, 3, Some((experts, width))) if experts > 0 && width > 0 => Ok((ty.shape[0].clone(), experts, width)),
        _ => Err(args.operand(i, "f32[rows, experts, columns] with fixed experts and columns")),
    }
}

/// `k` of `i32[rows, k]`.
fn ids(args: &Args<'_>, i: usize, rows: &Dim) -> Result<usize, Mismatch> {
    let ty = args.ty(i);
    match (ty.dtype, ty.shape.as_slice(), ty.shape.get(1).and_then(Dim::value)) {
        (DType::I32, [r, _], Some(k)) if r == rows && k > 0 => Ok(k),
        _ => Err(args.operand(i, format!("i32[{rows}, k]"))),
    }
}

/// Experts and output features of the weight `T[experts, features, k]`.
fn weight(args: &Args<'_>, i: usize, experts: Option<usize>, k: usize) -> Result<(usize, usize), Mismatch> {
    let ty = args.ty(i);
    match ty.sizes().as_deref() {
        Some(&[e, n, columns]) if ty.dtype.info().real && e > 0 && n > 0 && columns == k && experts.is_none_or(|x| x == e) => Ok((e, n)),
        _ => {
            let experts = experts.map_or("experts".to_owned(), |e| e.to_string());
            Err(args.operand(i, format!("real numbers T[{experts}, features, {k}]")))
        }
    }
}
