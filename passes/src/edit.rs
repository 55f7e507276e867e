//! What transforms need to change a function: who reads what, new values, dropping what nothing reads.

use llamac_ir::module::{Func, Inst, Operand, ValueId, ValueInfo, Weight, WeightId};
use llamac_ir::op::{Attr, OpKind};
use llamac_ir::recipe::Recipe;
use llamac_ir::types::Type;
use std::collections::BTreeMap;

/// For each value, the instructions and operand numbers that read it.
pub(crate) fn uses(func: &Func) -> Vec<Vec<(usize, usize)>> {
    let mut uses = vec![Vec::new(); func.values.len()];
    for (i, inst) in func.body.iter().enumerate() {
        for (o, operand) in inst.operands.iter().enumerate() {
            if let Operand::Value(v) = operand {
                uses[v.0 as usize].push((i, o));
            }
        }
    }
    uses
}

/// Whether the function returns the value.
pub(crate) fn is_result(func: &Func, value: ValueId) -> bool {
    func.results.contains(&Operand::Value(value))
}

/// Adds a value.
pub(crate) fn value(func: &mut Func, name: &str, ty: Type) -> ValueId {
    let name = unique(name, |n| func.values.iter().any(|v| v.name == n));
    func.values.push(ValueInfo { name, ty });
    ValueId(func.values.len() as u32 - 1)
}

/// Adds a weight.
///
/// # Errors
/// The recipe does not type.
pub(crate) fn weight(func: &mut Func, name: &str, recipe: Recipe) -> Result<WeightId, String> {
    let ty = recipe.ty()?;
    let name = unique(name, |n| func.weights.iter().any(|w| w.name == n));
    func.weights.push(Weight { name, ty, recipe });
    Ok(WeightId(func.weights.len() as u32 - 1))
}

/// `name`, or `name.1`, `name.2` ... if it is taken.
pub(crate) fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (1..).map(|n| format!("{name}.{n}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|n| !taken(n)).unwrap_or_default()
}

/// Sets a word attribute, if the op has it.
pub(crate) fn set_word(inst: &mut Inst, name: &str, word: &str) {
    if let Some(at) = inst.op.info().attrs.iter().position(|(n, _)| *n == name) {
        inst.attrs[at] = Attr::Word(word.to_owned());
    }
}

/// Makes every reader of a value read what `to` says instead, the function's results included.
pub(crate) fn replace(func: &mut Func, to: &BTreeMap<ValueId, ValueId>) {
    let swap = |operand: &mut Operand| {
        while let Operand::Value(v) = operand
            && let Some(new) = to.get(v)
        {
            *operand = Operand::Value(*new);
        }
    };
    func.body.iter_mut().flat_map(|inst| &mut inst.operands).for_each(swap);
    func.results.iter_mut().for_each(swap);
}

/// The instruction that defines a value, if that is of the kind.
pub(crate) fn def(func: &Func, operand: Operand, op: OpKind) -> Option<usize> {
    match operand {
        Operand::Value(v) => func.def(v).filter(|i| func.body[*i].op == op),
        Operand::Weight(_) => None,
    }
}

/// Drops values that no instruction defines and weights that none reads, and numbers the rest in order of definition.
pub(crate) fn compact(func: &mut Func) {
    let mut order: Vec<ValueId> = func.params.clone();
    order.extend(func.body.iter().flat_map(|inst| inst.results.iter().copied()));
    let new: BTreeMap<ValueId, ValueId> = order.iter().enumerate().map(|(i, v)| (*v, ValueId(i as u32))).collect();
    let read = |w: u32| func.body.iter().flat_map(|i| &i.operands).chain(&func.results).any(|o| *o == Operand::Weight(WeightId(w)));
    let kept: Vec<u32> = (0..func.weights.len() as u32).filter(|w| read(*w)).collect();
    let new_weights: BTreeMap<u32, u32> = kept.iter().enumerate().map(|(i, w)| (*w, i as u32)).collect();
    let rename = |operand: &mut Operand| match operand {
        Operand::Value(v) => *v = new[v],
        Operand::Weight(w) => w.0 = new_weights[&w.0],
    };
    for inst in &mut func.body {
        inst.operands.iter_mut().for_each(rename);
        inst.results.iter_mut().for_each(|v| *v = new[v]);
    }
    func.results.iter_mut().for_each(rename);
    func.params.iter_mut().for_each(|v| *v = new[v]);
    func.values = order.iter().map(|v| func.values[v.0 as usize].clone()).collect();
    func.weights = kept.iter().map(|w| func.weights[*w as usize].clone()).collect();
}
