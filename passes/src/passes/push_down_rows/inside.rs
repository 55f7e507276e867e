//! Pushing gathers of rows through the ops of one function. Backwards: which results are read by gathers alone; forwards: those ops again,
//! on gathered operands.

use crate::edit;
use llamac_ir::infer::infer;
use llamac_ir::module::{Func, Inst, Operand, ValueId};
use llamac_ir::op::OpKind;
use llamac_ir::types::Type;
use std::collections::BTreeMap;

/// Whether row `t` of the result depends on row `t` of the operands alone, and on the cache.
fn row_by_row(op: OpKind) -> bool {
    match op {
        OpKind::GatherRows | OpKind::Layers | OpKind::KvWrite | OpKind::RopeKvWrite => false,
        // A gather itself, of rows that cost next to nothing.
        OpKind::Embed => false,
        // Rows are pushed before experts are batched, and it has two results.
        OpKind::Route => false,
        OpKind::Tensor(_) => false,
        OpKind::Linear
        | OpKind::RmsNorm
        | OpKind::RmsUnit
        | OpKind::RopeAngles
        | OpKind::Rope
        | OpKind::Attention
        | OpKind::Silu
        | OpKind::Add
        | OpKind::Mul
        | OpKind::SliceCols
        | OpKind::SwiGlu
        | OpKind::TopGates
        | OpKind::ExpertScale
        | OpKind::ExpertLinear
        | OpKind::ExpertSum
        | OpKind::RowScale
        | OpKind::AttnTemperature
        | OpKind::MoeLinearSwiGlu
        | OpKind::MoeLinearAdd
        | OpKind::NormLinear
        | OpKind::UnitLinear
        | OpKind::NormLinearSwiGlu
        | OpKind::UnitLinearSwiGlu
        | OpKind::LinearAdd => true,
    }
}

/// The rows by which alone a value is read.
pub(super) fn gathered_by(func: &Func, uses: &[Vec<(usize, usize)>], value: ValueId) -> Option<ValueId> {
    let rows = |&(i, o): &(usize, usize)| match (&func.body[i].op, o, func.body[i].operands.get(1)) {
        (OpKind::GatherRows, 0, Some(Operand::Value(rows))) => Some(*rows),
        _ => None,
    };
    let uses = &uses[value.0 as usize];
    let first = rows(uses.first()?)?;
    (!edit::is_result(func, value) && uses.iter().all(|u| rows(u) == Some(first))).then_some(first)
}

/// A `gather_rows` of a value, not yet in the body.
pub(super) fn gather(func: &mut Func, value: ValueId, rows: ValueId) -> Result<Inst, String> {
    let operands = vec![Operand::Value(value), Operand::Value(rows)];
    let name = format!("{}.{}", func.values[value.0 as usize].name, func.values[rows.0 as usize].name);
    let result = typed(func, OpKind::GatherRows, &operands, &[], &name)?;
    Ok(Inst { op: OpKind::GatherRows, operands, attrs: vec![], results: vec![result], calls: vec![] })
}

fn typed(func: &mut Func, op: OpKind, operands: &[Operand], attrs: &[llamac_ir::op::Attr], name: &str) -> Result<ValueId, String> {
    let types: Vec<Type> = operands.iter().map(|o| func.ty(*o).clone()).collect();
    let ty = infer(op, &types, attrs)?.pop().ok_or("an op without result")?;
    Ok(edit::value(func, name, ty))
}

/// The function with its gathers as early as they can be; `None` if they are.
///
/// # Errors
/// An op does not type on gathered rows: it was not row by row.
pub(super) fn push(func: &Func) -> Result<Option<Func>, String> {
    let uses = edit::uses(func);
    // For each instruction, the rows that alone are wanted of its result.
    let mut small: Vec<Option<ValueId>> = vec![None; func.body.len()];
    for (i, inst) in func.body.iter().enumerate().rev().filter(|(_, inst)| row_by_row(inst.op)) {
        let Some(&result) = inst.results.first() else { continue };
        let wanted = |&(j, o): &(usize, usize)| match &func.body[j] {
            gather if gather.op == OpKind::GatherRows && o == 0 => value_of(gather.operands[1]),
            _ => small[j],
        };
        let readers = &uses[result.0 as usize];
        let rows = readers.first().and_then(wanted);
        let known = rows.is_some_and(|r| func.def(r).is_none_or(|d| d < i));
        if known && !edit::is_result(func, result) && readers.iter().all(|u| wanted(u) == rows) {
            small[i] = rows;
        }
    }
    if small.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut out = func.clone();
    out.body.clear();
    // Gathered forms of values, by rows.
    let mut forms: BTreeMap<(ValueId, ValueId), ValueId> = BTreeMap::new();
    let mut replaced: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for (i, inst) in func.body.iter().enumerate() {
        if inst.op == OpKind::GatherRows
            && let (Some(x), Some(rows)) = (value_of(inst.operands[0]), value_of(inst.operands[1]))
        {
            match forms.get(&(x, rows)) {
                Some(form) => {
                    // What is wanted lives on under its own name.
                    out.values[form.0 as usize].name = func.values[inst.results[0].0 as usize].name.clone();
                    replaced.insert(inst.results[0], *form);
                }
                None => {
                    forms.insert((x, rows), inst.results[0]);
                    out.body.push(inst.clone());
                }
            }
            continue;
        }
        let Some(rows) = small[i] else {
            out.body.push(inst.clone());
            continue;
        };
        let result = inst.results[0];
        let all_rows = func.values[result.0 as usize].ty.shape.first().cloned();
        let mut operands = inst.operands.clone();
        for operand in &mut operands {
            let Operand::Value(v) = *operand else { continue };
            if func.ty(*operand).shape.first() != all_rows.as_ref() {
                continue;
            }
            let form = match forms.get(&(v, rows)) {
                Some(form) => *form,
                None => {
                    let gathered = gather(&mut out, v, rows)?;
                    let form = gathered.results[0];
                    out.body.push(gathered);
                    forms.insert((v, rows), form);
                    form
                }
            };
            *operand = Operand::Value(form);
        }
        let types: Vec<Type> = operands.iter().map(|o| out.ty(*o).clone()).collect();
        out.values[result.0 as usize].ty = infer(inst.op, &types, &inst.attrs)?.pop().ok_or("an op without result")?;
        forms.insert((result, rows), result);
        out.body.push(Inst { operands, ..inst.clone() });
    }
    edit::replace(&mut out, &replaced);
    edit::compact(&mut out);
    Ok(Some(out))
}

fn value_of(operand: Operand) -> Option<ValueId> {
    if let Operand::Value(v) = operand { Some(v) } else { None }
}
