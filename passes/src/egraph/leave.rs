//! From a choice of nodes back to a function: ordered ops in their order, each pure op just before the first that needs it.

use super::extract::{Candidates, Choice};
use super::{Entered, Node};
use egg::{Id, Language};
use llamac_ir::build::FuncBuilder;
use llamac_ir::module::{Func, Operand, ValueId};
use llamac_ir::op::{Attr, OpKind};
use std::collections::BTreeMap;

/// Makes the function that was chosen. Names stay where a value does; weights that nothing reads are gone.
///
/// # Errors
/// The choice does not type: a bug of a rule.
pub fn leave(func: &Func, entered: &Entered, candidates: &Candidates, choice: &Choice) -> Result<Func, String> {
    let mut out =
        Leaver { builder: FuncBuilder::new(&func.name), entered, candidates, choice, classes: BTreeMap::new(), values: BTreeMap::new() };
    for &p in &func.params {
        let info = &func.values[p.0 as usize];
        let new = out.builder.param(&info.name, info.ty.clone());
        out.values.insert(p, new);
    }
    for (at, operands) in &entered.skeleton {
        let inst = &func.body[*at];
        let operands = operands.iter().map(|c| out.class(*c)).collect::<Result<Vec<_>, _>>()?;
        match (&inst.results[..], inst.op) {
            ([], op) => out.builder.effect(op, &operands, &named(op, &inst.attrs))?,
            ([v, ..], op) => {
                let info = &func.values[v.0 as usize];
                let new = match op {
                    OpKind::Layers => vec![out.builder.layers(&info.name, &operands, inst.calls.clone(), info.ty.clone())?],
                    _ => out.builder.ops(op, &info.name, &operands, &named(op, &inst.attrs))?,
                };
                out.values.extend(inst.results.iter().copied().zip(new));
            }
        }
    }
    let results = entered.results.iter().map(|c| out.class(*c)).collect::<Result<Vec<_>, _>>()?;
    Ok(out.builder.finish(&results))
}

/// Attributes with their names.
pub(crate) fn named(op: OpKind, attrs: &[Attr]) -> Vec<(&'static str, Attr)> {
    op.info().attrs.iter().map(|(name, _)| *name).zip(attrs.iter().cloned()).collect()
}

struct Leaver<'a> {
    builder: FuncBuilder,
    entered: &'a Entered,
    candidates: &'a Candidates,
    choice: &'a Choice,
    /// Where each class is in the new function.
    classes: BTreeMap<Id, Operand>,
    /// Parameters and results of ordered ops in the new function.
    values: BTreeMap<ValueId, ValueId>,
}

impl Leaver<'_> {
    /// Where a class is; makes it first if need be. An explicit stack, because functions may be deep.
    fn class(&mut self, class: Id) -> Result<Operand, String> {
        let root = self.entered.graph.egraph.find(class);
        let mut stack = vec![root];
        while let Some(&class) = stack.last() {
            if self.classes.contains_key(&class) {
                stack.pop();
                continue;
            }
            let node = self.candidates.chosen(self.choice, class).ok_or("extraction chose nothing for a class that is needed")?;
            let mut missing: Vec<Id> = node.children().iter().rev().filter(|c| !self.classes.contains_key(c)).copied().collect();
            // Gathered rows first: lowering takes an op into the product before it only if its other operands are there.
            missing.sort_by_key(|c| matches!(self.candidates.chosen(self.choice, *c), Some(Node::Op(OpKind::GatherRows, ..))));
            if missing.is_empty() {
                let operand = self.node(class, node)?;
                self.classes.insert(class, operand);
                stack.pop();
            } else {
                stack.extend(missing);
            }
        }
        Ok(self.classes[&root])
    }

    /// Makes a node whose operands are there.
    fn node(&mut self, class: Id, node: &Node) -> Result<Operand, String> {
        let graph = &self.entered.graph;
        match node {
            Node::Value(v) => {
                self.values.get(v).map(|v| Operand::Value(*v)).ok_or_else(|| "a value is needed before it is made".to_owned())
            }
            Node::Weight(w) => {
                let weight = &graph.egraph.analysis.weights[*w as usize];
                self.builder.weight(&weight.name, weight.recipe.clone()).map(Operand::Weight)
            }
            Node::Op(op, attrs, children) => {
                let operands: Vec<Operand> = children.iter().map(|c| self.classes[c]).collect();
                let name = graph.name_of(class).unwrap_or(op.name());
                self.builder.op(*op, name, &operands, &named(*op, attrs)).map(Operand::Value)
            }
        }
    }
}
