//! Why two values are equal: a second e-graph that remembers the reason of every union, filled by the same rules, and the shortest chain of
//! equalities that it knows from what a function said to what came out. The optimised function is never taken from it.

use super::saturate::{Limits, Rule, saturate};
use super::{Graph, Node, enter_explained};
use crate::context::Context;
use crate::why::Step;
use egg::{FlatTerm, Id, Language};
use llamac_ir::module::{Func, Operand, ValueId};
use llamac_ir::op::Effect;
use llamac_ir::print;
use std::collections::BTreeMap;

/// For each value of `before`: the rules that lead to its form in `after`, or to the newest form that they found if it is not there. Both are functions with the
/// same ordered ops; `after` came from `before` by `rules`.
pub(crate) fn chains(before: &Func, after: &Func, rules: &[Rule], context: &Context) -> BTreeMap<String, Vec<Step>> {
    let mut entered = enter_explained(before);
    let mut own = Context::new(context.machine, context.precision, None);
    saturate(&mut entered.graph, rules, Limits::default(), &before.name, &mut own);
    let mut terms: BTreeMap<ValueId, Id> = BTreeMap::new();
    let known: BTreeMap<&str, ValueId> = before.values.iter().enumerate().map(|(i, v)| (v.name.as_str(), ValueId(i as u32))).collect();
    let leaf = |graph: &mut Graph, v: ValueId| {
        let old = known.get(after.values[v.0 as usize].name.as_str())?;
        Some(graph.egraph.add_uncanonical(Node::Value(*old)))
    };
    for p in &after.params {
        terms.extend(leaf(&mut entered.graph, *p).map(|id| (*p, id)));
    }
    for inst in &after.body {
        let pure = inst.op.info().effect == Effect::Pure && inst.results.len() == 1;
        for v in &inst.results {
            let id = if pure { term(&mut entered.graph, after, inst, &terms) } else { leaf(&mut entered.graph, *v) };
            terms.extend(id.map(|id| (*v, id)));
        }
    }
    let writer = Writer::new(before, &entered.values, &mut entered.graph);
    let mut out = BTreeMap::new();
    for (name, v) in &known {
        let Some(&start) = entered.values.get(v) else { continue };
        let same = |id: &Id| entered.graph.egraph.find(*id) == entered.graph.egraph.find(start);
        let named = terms.iter().find(|(v, id)| after.values[v.0 as usize].name == **name && same(id));
        let end = named.or_else(|| terms.iter().find(|(_, id)| same(id))).map_or_else(|| entered.graph.newest_form(start), |(_, id)| *id);
        if start == end {
            out.insert((*name).to_owned(), Vec::new());
            continue;
        }
        let mut explanation = entered.graph.egraph.explain_id_equivalence(start, end);
        out.insert((*name).to_owned(), writer.steps(&entered.graph, name, explanation.make_flat_explanation()));
    }
    out
}

/// The node of an instruction of the result, if all of its operands are known.
fn term(graph: &mut Graph, func: &Func, inst: &llamac_ir::module::Inst, terms: &BTreeMap<ValueId, Id>) -> Option<Id> {
    let operand = |graph: &mut Graph, o: &Operand| match o {
        Operand::Value(v) => terms.get(v).copied(),
        Operand::Weight(w) => {
            let weight = &func.weights[w.0 as usize];
            Some(graph.weight(&weight.name, weight.recipe.clone()))
        }
    };
    let children = inst.operands.iter().map(|o| operand(graph, o)).collect::<Option<Vec<_>>>()?;
    Some(graph.egraph.add_uncanonical(Node::Op(inst.op, inst.attrs.clone(), children)))
}

/// Writes terms, with the names of values for what the function had anyway.
struct Writer {
    /// Whole terms of the function's values, by text.
    names: BTreeMap<String, String>,
    values: Vec<String>,
    /// Weights that the function had.
    weights: usize,
}

impl Writer {
    fn new(func: &Func, values: &BTreeMap<ValueId, Id>, graph: &mut Graph) -> Writer {
        let names = func.values.iter().map(|v| v.name.clone()).collect();
        let mut out = Writer { names: BTreeMap::new(), values: names, weights: func.weights.len() };
        for (v, id) in values {
            let expr = graph.egraph.id_to_expr(*id);
            let mut flat: Vec<FlatTerm<Node>> = Vec::new();
            for node in expr.as_ref() {
                let children = node.children().iter().map(|c| flat[usize::from(*c)].clone()).collect();
                flat.push(FlatTerm::new(node.clone(), children));
            }
            if let Some(whole) = flat.last() {
                let text = out.text(graph, whole, false);
                let name = format!("%{}", func.values[v.0 as usize].name);
                out.names.entry(text).or_insert(name);
            }
        }
        out
    }

    /// A term; with `short`, operands that the function had a name for are that name.
    fn text(&self, graph: &Graph, term: &FlatTerm<Node>, short: bool) -> String {
        match &term.node {
            Node::Value(v) => format!("%{}", self.values[v.0 as usize]),
            Node::Weight(w) => format!("@{}", graph.egraph.analysis.weights[*w as usize].name),
            Node::Op(op, attrs, _) => {
                let operand = |t: &FlatTerm<Node>| match self.names.get(&self.text(graph, t, false)) {
                    Some(name) if short => name.clone(),
                    _ => self.text(graph, t, short),
                };
                let mut parts: Vec<String> = term.children.iter().map(operand).collect();
                parts.extend(print::attributes(*op, attrs));
                format!("{}({})", op.name(), parts.join(", "))
            }
        }
    }

    /// The steps of a flat explanation: what each rule made of which part. What happened to another value that the function has a name for is
    /// that value's history.
    fn steps(&self, graph: &Graph, name: &str, terms: &[FlatTerm<Node>]) -> Vec<Step> {
        let mut out = Vec::new();
        for pair in terms.windows(2) {
            let Some((rule, before, after)) = changed(&pair[0], &pair[1]) else { continue };
            if self.names.get(&self.text(graph, before, false)).is_some_and(|n| n.strip_prefix('%') != Some(name)) {
                continue;
            }
            let text = |t: &FlatTerm<Node>| self.text(graph, t, true);
            let mut step = Step { by: rule, from: text(before), to: text(after), weights: vec![] };
            self.made(graph, after, &mut step.weights);
            out.push(step);
        }
        out
    }

    /// Recipes of weights that the function did not have.
    fn made(&self, graph: &Graph, term: &FlatTerm<Node>, out: &mut Vec<String>) {
        if let Node::Weight(w) = term.node
            && w as usize >= self.weights
        {
            let weight = &graph.egraph.analysis.weights[w as usize];
            let line = format!("@{} = {}", weight.name, weight.recipe);
            if !out.contains(&line) {
                out.push(line);
            }
        }
        term.children.iter().for_each(|c| self.made(graph, c, out));
    }
}

/// The rule that leads from one term to the next, and the part that it changed, before and after. A rule used backwards has `undone` in front.
fn changed<'t>(before: &'t FlatTerm<Node>, after: &'t FlatTerm<Node>) -> Option<(String, &'t FlatTerm<Node>, &'t FlatTerm<Node>)> {
    if let Some(rule) = after.forward_rule {
        return Some((rule.to_string(), before, after));
    }
    if let Some(rule) = after.backward_rule {
        return Some((format!("undone: {rule}"), before, after));
    }
    before.children.iter().zip(&after.children).find_map(|(b, a)| changed(b, a))
}
