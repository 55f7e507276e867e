//! What computes shapes, worked out while importing: nodes whose inputs are small integers of known value. A node that is not here, or whose
//! result would depend on the sizes of symbols, becomes an op like any other.

use super::attributes::Attributes;
use super::import::{Importer, domain, input};
use super::known::{Known, MOST, at_most, equal, quotient};
use crate::diag::Result;
use llamac_ir::dtype::DType;
use llamac_ir::types::Dim;
use tract_onnx::pb::NodeProto;

/// The value of the node's one output, if it is known.
pub(super) fn known(imp: &mut Importer, node: &NodeProto, attributes: &Attributes<'_>) -> Result<Option<Known>> {
    if !domain(node).is_empty() || node.output.len() != 1 {
        return Ok(None);
    }
    if ["Shape", "Size"].contains(&node.op_type.as_str()) {
        return shape(imp, node, attributes);
    }
    // Where values are computed, nothing is left to be worked out from names.
    if imp.eager.is_some() {
        return Ok(None);
    }
    let inputs: Option<Vec<Known>> = node.input.iter().filter(|n| !n.is_empty()).map(|n| imp.known.get(n).cloned()).collect();
    let Some(inputs) = inputs.filter(|i| !i.is_empty()) else { return Ok(None) };
    let axis = |default: i64, rank: usize| -> Result<Option<usize>> {
        let axis = attributes.int_or("axis", default)?;
        Ok(usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok().filter(|a| *a < rank.max(1)))
    };
    let first = &inputs[0];
    let second = inputs.get(1);
    let arithmetic = |f: &dyn Fn(&Dim, &Dim) -> Option<Dim>| second.and_then(|b| first.zip(b, first.dtype, f));
    let truth = |f: &dyn Fn(&Dim, &Dim) -> Option<bool>| {
        second.and_then(|b| first.zip(b, DType::Bool, |x, y| f(x, y).map(|t| Dim::int(i64::from(t)))))
    };
    Ok(match node.op_type.as_str() {
        "Identity" => Some(first.clone()),
        "Add" => arithmetic(&|a, b| Some(a.add(b))),
        "Sub" => arithmetic(&|a, b| Some(a.sub(b))),
        "Mul" => arithmetic(&|a, b| Some(a.mul(b))),
        "Div" => arithmetic(&quotient),
        "Max" if inputs.len() == 2 => arithmetic(&|a, b| at_most(a, b).map(|less| if less { b.clone() } else { a.clone() })),
        "Min" if inputs.len() == 2 => arithmetic(&|a, b| at_most(a, b).map(|less| if less { a.clone() } else { b.clone() })),
        "Neg" => Some(Known { values: first.values.iter().map(|d| d.scale(-1)).collect(), ..first.clone() }),
        "Equal" => truth(&equal),
        "LessOrEqual" => truth(&at_most),
        "Greater" => truth(&|a, b| at_most(a, b).map(|t| !t)),
        "Less" => truth(&|a, b| at_most(b, a).map(|t| !t)),
        "GreaterOrEqual" => truth(&|a, b| at_most(b, a)),
        "And" => truth(&|a, b| Some(a.number()? != 0 && b.number()? != 0)),
        "Not" => {
            let values = first.values.iter().map(|d| d.number().map(|n| Dim::int(i64::from(n == 0)))).collect::<Option<Vec<_>>>();
            values.map(|values| Known { values, ..first.clone() })
        }
        "Where" if inputs.len() == 3 => {
            let picked =
                inputs[0].zip(&inputs[1], inputs[1].dtype, |c, a| c.number().map(|c| if c != 0 { a.clone() } else { Dim::sym("?") }));
            picked.and_then(|p| p.zip(&inputs[2], p.dtype, |a, b| Some(if *a == Dim::sym("?") { b.clone() } else { a.clone() })))
        }
        "Cast" => match attributes.int("to")?.map(|to| super::elements::dtype_of(to as i32)).transpose()? {
            Some(dtype @ (DType::I64 | DType::I32)) => Some(Known { dtype, ..first.clone() }),
            _ => None,
        },
        "Gather" if first.shape.len() == 1 && axis(0, 1)? == Some(0) => second.and_then(|indices| {
            let count = first.values.len() as i64;
            let at = |d: &Dim| {
                d.number().and_then(|n| usize::try_from(if n < 0 { n + count } else { n }).ok()).and_then(|n| first.values.get(n))
            };
            let values = indices.values.iter().map(|d| at(d).cloned()).collect::<Option<Vec<_>>>()?;
            Some(Known { dtype: first.dtype, shape: indices.shape.clone(), values })
        }),
        "Concat" if inputs.iter().all(|k| k.shape.len() == 1) && axis(0, 1)? == Some(0) => {
            let values: Vec<Dim> = inputs.iter().flat_map(|k| k.values.clone()).collect();
            Some(Known { dtype: first.dtype, shape: vec![values.len()], values })
        }
        "Slice" if first.shape.len() == 1 => slice(&inputs),
        "Squeeze" | "Unsqueeze" if first.values.len() == 1 => {
            let axes = second.map_or(0, |a| a.values.len());
            let rank = match (node.op_type.as_str(), axes) {
                ("Squeeze", 0) => Some(0),
                ("Squeeze", n) => first.shape.len().checked_sub(n),
                (_, n) => Some(first.shape.len() + n),
            };
            rank.map(|rank| Known { shape: vec![1; rank], ..first.clone() })
        }
        "Squeeze" if second.is_none() => Some(Known { shape: first.shape.iter().copied().filter(|n| *n != 1).collect(), ..first.clone() }),
        "Reshape" => {
            attributes.only("allowzero", attributes.int_or("allowzero", 0)?)?;
            reshape(first, second)
        }
        "ConstantOfShape" => {
            match first.numbers().map(|n| n.iter().map(|n| usize::try_from(*n)).collect::<std::result::Result<Vec<_>, _>>()) {
                Some(Ok(shape)) if shape.iter().product::<usize>() <= MOST => {
                    let value = attributes.tensor("value")?;
                    match value.map(|t| (super::elements::dtype_of(t.data_type), t)) {
                        Some((Ok(dtype @ (DType::I64 | DType::I32 | DType::Bool)), t)) => {
                            let name = format!("{}.value", node.output[0]);
                            imp.weights.add(&name, t)?;
                            let one = imp.weights.integers(&name, 1).and_then(|v| v.first().copied());
                            one.map(|n| Known { dtype, values: vec![Dim::int(n); shape.iter().product()], shape })
                        }
                        _ => None,
                    }
                }
                _ => None,
            }
        }
        "Range" => match inputs.iter().map(|k| k.single().and_then(Dim::number)).collect::<Option<Vec<_>>>().as_deref() {
            Some(&[start, limit, step]) if step > 0 && (limit - start) / step <= MOST as i64 => {
                let values: Vec<Dim> = (0..).map(|i| start + i * step).take_while(|x| *x < limit).map(Dim::int).collect();
                Some(Known { dtype: first.dtype, shape: vec![values.len()], values })
            }
            _ => None,
        },
        _ => None,
    })
}

fn shape(imp: &mut Importer, node: &NodeProto, attributes: &Attributes<'_>) -> Result<Option<Known>> {
    let Some(name) = input(node, 0) else { return Ok(None) };
    let dims = imp.shape_of(name)?;
    if node.op_type == "Size" {
        return Ok(Some(Known::scalar(dims.iter().fold(Dim::int(1), |n, d| n.mul(d)))));
    }
    let rank = dims.len() as i64;
    let bound = |n: i64| (if n < 0 { n + rank } else { n }).clamp(0, rank) as usize;
    let (start, end) = (bound(attributes.int_or("start", 0)?), bound(attributes.int_or("end", rank)?));
    Ok(Some(Known::vector(dims.get(start..end).unwrap_or(&[]).to_vec())))
}

fn slice(inputs: &[Known]) -> Option<Known> {
    let first = &inputs[0];
    let len = first.values.len() as i64;
    let single = |i: usize| inputs.get(i).map_or(Some(1), |k| k.single()?.number());
    let bound = |n: i64| (if n < 0 { n.saturating_add(len) } else { n }).clamp(0, len) as usize;
    let (start, end, step) = (bound(single(1)?), bound(single(2)?), single(4)?);
    if step < 1 || inputs.get(3).is_some_and(|a| !matches!(a.single().and_then(Dim::number), Some(0 | -1))) {
        return None;
    }
    let values: Vec<Dim> = first.values.get(start..end.max(start))?.iter().step_by(step as usize).cloned().collect();
    Some(Known { dtype: first.dtype, shape: vec![values.len()], values })
}

/// To a scalar or a vector; all else becomes an op.
fn reshape(first: &Known, shape: Option<&Known>) -> Option<Known> {
    let count = first.values.len() as i64;
    let shape = match shape?.numbers()?.as_slice() {
        [] if count == 1 => vec![],
        [n] if *n == -1 || *n == count => vec![first.values.len()],
        _ => return None,
    };
    Some(Known { shape, ..first.clone() })
}
