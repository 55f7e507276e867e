//! Evaluation of one function: bindings of symbols, values in order. Ops are in `ops`, calls of layers in the parent module.

use super::tensor::{Arg, Tensor};
use super::{Cache, EvalError, Observer, ops, tensor_ops};
use crate::dtype::DType;
use crate::module::{Func, Inst, Operand};
use crate::op::OpKind;
use crate::print;
use crate::recipe::{Prepared, Recipe, Source};
use crate::types::{Dim, Type};
use crate::verify;
use std::collections::BTreeMap;

/// How `layers` is evaluated: the instruction and its arguments to its result.
pub(super) type Layers<'a> = &'a mut dyn FnMut(&Inst, Vec<Tensor>, Observer<'_>) -> Result<Tensor, EvalError>;

/// Runs one function without `layers` on arguments in the order of its parameters. `layer` replaces `{layer}` in source names;
/// `cache` is read and written, so that what the function wrote can be compared.
///
/// # Errors
/// The function does not verify, arguments do not fit the parameters, a weight cannot be read, or ids, rows or positions are out of range.
pub fn eval_func(
    func: &Func,
    source: &dyn Source,
    layer: Option<usize>,
    args: &[Tensor],
    cache: &mut Cache,
) -> Result<Vec<Tensor>, EvalError> {
    verify::verify_func(func).map_err(|errors| fail(func, verify::listed(&errors)))?;
    eval(func, source, layer, args.to_vec(), cache, None, &mut |_, _, _, _| {})
}

fn fail(func: &Func, message: String) -> EvalError {
    EvalError { func: func.name.clone(), at: String::new(), message }
}

/// Runs a verified function; without `layers` it may call none.
pub(super) fn eval(
    func: &Func,
    source: &dyn Source,
    layer: Option<usize>,
    args: Vec<Tensor>,
    cache: &mut Cache,
    mut layers: Option<Layers<'_>>,
    observer: Observer<'_>,
) -> Result<Vec<Tensor>, EvalError> {
    let sizes = bind(func, &args).map_err(|e| fail(func, e))?;
    let size = |symbol: &str| sizes.get(symbol).copied();
    let recipes: Vec<Recipe> = func.weights.iter().map(|w| layer.map_or_else(|| w.recipe.clone(), |n| w.recipe.for_layer(n))).collect();
    let mut values: Vec<Option<Tensor>> = vec![None; func.values.len()];
    for (param, arg) in func.params.iter().zip(args) {
        values[param.0 as usize] = Some(arg);
    }
    let last = last_reads(func);
    for (i, inst) in func.body.iter().enumerate() {
        let at = |message| EvalError { func: func.name.clone(), at: print::inst(func, inst), message };
        let operands = inst.operands.iter().map(|o| arg(func, *o, &values, &recipes, source)).collect::<Result<Vec<_>, _>>().map_err(at)?;
        let results = match &mut layers {
            Some(layers) if inst.op == OpKind::Layers => {
                let args = operands.iter().map(Arg::tensor).collect::<Result<Vec<_>, _>>().map_err(at)?;
                vec![layers(inst, args, observer)?]
            }
            _ if let OpKind::Tensor(op) = inst.op => {
                let types: Vec<DType> = inst.results.iter().map(|v| func.values[v.0 as usize].ty.dtype).collect();
                let read: Vec<DType> = inst.operands.iter().map(|o| func.ty(*o).dtype).collect();
                tensor_ops::eval(op, inst, &operands, &read, &types, &size).map_err(at)?
            }
            _ => {
                if let (OpKind::Linear | OpKind::ExpertLinear, Some(Arg::Value(x))) = (inst.op, operands.first()) {
                    observer(func, layer, inst, x);
                }
                ops::eval(inst, &operands, cache).map_err(at)?
            }
        };
        // What is not read again need not be kept.
        inst.operands.iter().for_each(|o| match o {
            Operand::Value(v) if last[v.0 as usize] == Some(i) => values[v.0 as usize] = None,
            _ => {}
        });
        for (id, tensor) in inst.results.iter().zip(results) {
            values[id.0 as usize] = Some(tensor);
        }
    }
    let results = func.results.iter().map(|o| arg(func, *o, &values, &recipes, source)?.tensor());
    results.collect::<Result<Vec<_>, _>>().map_err(|e| fail(func, e))
}

/// Runs one tensor op of a function whose shapes are all numbers, on its operands in order.
///
/// # Errors
/// The instruction is no tensor op, or its operands have values that it cannot take.
pub fn eval_tensor_op(func: &Func, inst: &Inst, args: &[&Tensor]) -> Result<Vec<Tensor>, EvalError> {
    let at = |message| EvalError { func: func.name.clone(), at: print::inst(func, inst), message };
    let OpKind::Tensor(op) = inst.op else { return Err(at("expected a tensor op".to_owned())) };
    let types: Vec<DType> = inst.results.iter().map(|v| func.values[v.0 as usize].ty.dtype).collect();
    let read: Vec<DType> = inst.operands.iter().map(|o| func.ty(*o).dtype).collect();
    let args: Vec<Arg<'_>> = args.iter().map(|t| Arg::Value(t)).collect();
    tensor_ops::eval(op, inst, &args, &read, &types, &|_| None).map_err(at)
}

/// For each value, the last instruction that reads it; `None` for results.
fn last_reads(func: &Func) -> Vec<Option<usize>> {
    let mut last = vec![None; func.values.len()];
    let mut read = |operands: &[Operand], by: Option<usize>| {
        operands.iter().for_each(|o| {
            if let Operand::Value(v) = o {
                last[v.0 as usize] = by
            }
        });
    };
    func.body.iter().enumerate().for_each(|(i, inst)| read(&inst.operands, Some(i)));
    read(&func.results, None);
    last
}

fn arg<'a>(
    func: &Func,
    operand: Operand,
    values: &'a [Option<Tensor>],
    recipes: &'a [Recipe],
    source: &'a dyn Source,
) -> Result<Arg<'a>, String> {
    match operand {
        Operand::Value(v) => values[v.0 as usize].as_ref().map(Arg::Value).ok_or_else(|| "a value is read before it is made".to_owned()),
        Operand::Weight(w) => {
            let weight = &func.weights[w.0 as usize];
            let shape = weight.ty.sizes().ok_or_else(|| format!("@{}: found {}, expected a fixed shape", weight.name, weight.ty))?;
            let prepared = Prepared::new(&recipes[w.0 as usize], source).map_err(|e| format!("@{}: {e}", weight.name))?;
            Ok(Arg::Weight(prepared, shape))
        }
    }
}

/// Checks arguments against parameters; a symbol must have the same size wherever it stands.
fn bind<'a>(func: &'a Func, args: &[Tensor]) -> Result<BTreeMap<&'a str, usize>, String> {
    if args.len() != func.params.len() {
        return Err(format!("found {} arguments, expected {}", args.len(), func.params.len()));
    }
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    // Symbols by themselves first, so that sums of them are known wherever they stand.
    for (param, arg) in func.params.iter().zip(args) {
        for (dim, size) in func.values[param.0 as usize].ty.shape.iter().zip(arg.shape()) {
            if let Dim { constant: 0, terms } = dim
                && let [(symbol, 1)] = terms.as_slice()
            {
                sizes.entry(symbol).or_insert(*size);
            }
        }
    }
    for (param, arg) in func.params.iter().zip(args) {
        let info = &func.values[param.0 as usize];
        if !fits(&info.ty, arg, &mut sizes) {
            let here = |symbol: &str| info.ty.shape.iter().flat_map(|d| &d.terms).any(|(s, _)| s == symbol);
            let known: Vec<String> = sizes.iter().filter(|(s, _)| here(s)).map(|(s, n)| format!("{s}={n}")).collect();
            let found = format!("{}{:?}", arg.dtype(), arg.shape());
            return Err(format!("parameter %{}: found {found}, expected {} with {}", info.name, info.ty, known.join(", ")));
        }
    }
    Ok(sizes)
}

fn fits<'a>(ty: &'a Type, arg: &Tensor, sizes: &mut BTreeMap<&'a str, usize>) -> bool {
    let dtype = match ty.dtype {
        DType::I32 => DType::I32,
        DType::F64 => DType::F64,
        dtype if dtype == DType::Bool || dtype.range().is_some() => DType::I64,
        _ => DType::F32,
    };
    if arg.dtype() != dtype || arg.shape().len() != ty.shape.len() {
        return false;
    }
    ty.shape.iter().zip(arg.shape()).all(|(dim, &size)| match dim {
        Dim { constant: 0, terms } if matches!(terms.as_slice(), [(_, 1)]) => *sizes.entry(&terms[0].0).or_insert(size) == size,
        _ => dim.eval(&|symbol| sizes.get(symbol).copied()) == Some(size),
    })
}
