//! Checks of one function by itself: ids, names, order of definition, types, attributes, stages. Calls of layers are in `layers`.

use super::Errors;
use crate::infer::{self, Mismatch};
use crate::module::{Func, Inst, Operand, ValueId};
use crate::op::{Attr, OpKind, Stage};
use crate::print;
use crate::types::Type;
use std::collections::{BTreeMap, BTreeSet};

/// Checks `func`; the stages of ops only if one is given.
pub(super) fn check(func: &Func, stage: Option<Stage>, errors: &mut Errors) {
    let mut known = Known { func, defined: vec![false; func.values.len()], names: BTreeSet::new() };
    for param in &func.params {
        known.define(*param, "parameters", errors);
    }
    weights(func, errors);
    let mut cache = BTreeMap::new();
    for inst in &func.body {
        let at = print::inst(func, inst);
        if let Some(stage) = stage.filter(|s| inst.op.info().from > *s) {
            errors.add(&at, format!("stage of `{}`", inst.op.name()), stage.name(), format!("{} or later", inst.op.info().from.name()));
        }
        if let (OpKind::Tensor(op), Some(stage @ (Stage::Imported | Stage::Canonical | Stage::Quantized | Stage::Fused | Stage::Placed))) =
            (inst.op, stage)
        {
            errors.add(&at, format!("stage of `{}`", op.info().name), stage.name(), Stage::Graph.name());
        }
        let read = inst.operands.iter().filter(|o| !known.check_read(**o, &at, errors)).count() == 0;
        if read && inst.op != OpKind::Layers {
            types(func, inst, &at, errors);
            one_cache(func, inst, &at, &mut cache, errors);
        }
        if inst.op != OpKind::Layers && !inst.calls.is_empty() {
            errors.add(&at, "calls of functions", inst.calls.len(), "none: only `layers` calls");
        }
        for result in &inst.results {
            known.define(*result, &at, errors);
        }
    }
    for result in &func.results {
        known.check_read(*result, "return", errors);
    }
}

/// The type of an operand, if there is such an operand.
pub(super) fn operand_type(func: &Func, operand: Operand) -> Option<&Type> {
    match operand {
        Operand::Value(v) => func.values.get(v.0 as usize).map(|v| &v.ty),
        Operand::Weight(w) => func.weights.get(w.0 as usize).map(|w| &w.ty),
    }
}

/// Values that are defined above the place that is looked at.
struct Known<'a> {
    func: &'a Func,
    defined: Vec<bool>,
    names: BTreeSet<&'a str>,
}

impl Known<'_> {
    fn define(&mut self, id: ValueId, at: &str, errors: &mut Errors) {
        let Some(value) = self.func.values.get(id.0 as usize) else {
            errors.add(at, "value defined", format!("number {}", id.0), format!("less than {}", self.func.values.len()));
            return;
        };
        if std::mem::replace(&mut self.defined[id.0 as usize], true) {
            errors.add(at, "value defined", format!("%{} a second time", value.name), "one definition");
        } else if !self.names.insert(&value.name) {
            errors.add(at, "name of a value", format!("%{} a second time", value.name), "one value of each name");
        }
    }
    /// Whether an operand exists and, if it is a value, is defined.
    fn check_read(&self, operand: Operand, at: &str, errors: &mut Errors) -> bool {
        let (kind, number, count) = match operand {
            Operand::Value(v) => ("value read", v.0, self.func.values.len()),
            Operand::Weight(w) => ("weight read", w.0, self.func.weights.len()),
        };
        if number as usize >= count {
            errors.add(at, kind, format!("number {number}"), format!("less than {count}"));
            return false;
        }
        let defined = !matches!(operand, Operand::Value(v) if !self.defined[v.0 as usize]);
        if !defined {
            errors.add(at, kind, print::operand(self.func, operand), "a value that is defined above");
        }
        defined
    }
}

fn weights(func: &Func, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for weight in &func.weights {
        let at = format!("weight @{}", weight.name);
        if !names.insert(&weight.name) {
            errors.add(&at, "name of a weight", "a second one of that name", "one weight of each name");
        }
        match weight.recipe.ty() {
            Ok(ty) if ty == weight.ty => {}
            Ok(ty) => errors.add(&at, "type of the weight", &weight.ty, format!("{ty}, as the recipe has")),
            Err(e) => errors.add(&at, "recipe", e, "one that has a type"),
        }
    }
}

/// Compares the types of the results with those that the operands give.
fn types(func: &Func, inst: &Inst, at: &str, errors: &mut Errors) {
    let operands: Vec<Type> = inst.operands.iter().filter_map(|o| operand_type(func, *o).cloned()).collect();
    match infer::result_types(inst.op, &operands, &inst.attrs) {
        Err(Mismatch { what, found, expected }) => errors.add(at, what, found, expected),
        Ok(expected) if expected.len() != inst.results.len() => errors.add(at, "number of results", inst.results.len(), expected.len()),
        Ok(expected) => {
            for (result, expected) in inst.results.iter().zip(&expected) {
                match func.values.get(result.0 as usize) {
                    Some(value) if value.ty != *expected => errors.add(at, "type of the result", &value.ty, expected),
                    _ => {}
                }
            }
        }
    }
}

/// All ops of a function share one cache: they must agree on what it holds.
fn one_cache(func: &Func, inst: &Inst, at: &str, seen: &mut BTreeMap<&'static str, String>, errors: &mut Errors) {
    let int = |name: &str| match attr(inst, name) {
        Some(Attr::Int(i)) => *i,
        _ => 0,
    };
    let width = match inst.op {
        OpKind::KvWrite | OpKind::RopeKvWrite => inst.operands.first().and_then(|k| operand_type(func, *k)?.shape.last()?.value()),
        OpKind::Attention => usize::try_from(int("kv_heads").saturating_mul(int("head_dim"))).ok(),
        _ => return,
    };
    let facts = [
        ("elements of a key", width.map_or("none".to_owned(), |w| w.to_string())),
        ("head_dim of the cache", int("head_dim").to_string()),
        ("format of the cache", attr(inst, "kv").map_or("none".to_owned(), Attr::to_string)),
    ];
    for (what, found) in facts {
        let first = seen.entry(what).or_insert_with(|| found.clone());
        if *first != found {
            errors.add(at, what, &found, format!("{first}, as above"));
        }
    }
}

fn attr<'a>(inst: &'a Inst, name: &str) -> Option<&'a Attr> {
    inst.attrs.get(inst.op.info().attrs.iter().position(|(n, _)| *n == name)?)
}
