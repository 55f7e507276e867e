//! Rewriting one function: into the e-graph, rules until they end, the cheapest program out; and which rules that took.

use crate::context::Context;
use crate::egraph::extract::{Candidates, Choice};
use crate::egraph::leave::leave;
use crate::egraph::saturate::{Added, saturate};
use crate::egraph::{Graph, Limits, Rule, enter};
use crate::report::{Lost, Saturation};
use egg::Language;
use llamac_ir::module::Func;
use llamac_ir::op::OpKind;
use std::collections::BTreeMap;

/// A rewritten function and how it came about.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// The function.
    pub func: Func,
    /// How the saturation ended.
    pub saturation: Saturation,
    /// What the function would cost more without each rule, ns per token; rules that gain nothing are not in it.
    pub gains: BTreeMap<String, f64>,
    /// What fired and gained nothing. What a guard stopped is in the context.
    pub lost: Vec<Lost>,
}

/// Rewrites a verified function by the rules.
///
/// # Errors
/// A rule built something that does not type.
pub fn rewrite(func: &Func, rules: &[Rule], context: &mut Context) -> Result<Rewritten, String> {
    // A graph whose layers are not found yet is as large as it is deep.
    let limits = Limits { nodes: Limits::default().nodes.max(8 * func.body.len()), ..Limits::default() };
    let mut entered = enter(func);
    let (saturation, added) = saturate(&mut entered.graph, rules, limits, &func.name, context);
    for (rule, reason) in &entered.graph.blocked {
        context.block(&func.name, rule, reason.clone());
    }
    let candidates = Candidates::new(&entered.graph, &entered.roots(), &context.machine);
    if func.body.iter().any(|inst| matches!(inst.op, OpKind::Tensor(_))) {
        // What raising found is always wanted: nothing is weighed, and a graph of a hundred layers stays one function.
        let func = leave(func, &entered, &candidates, &candidates.lowest())?;
        return Ok(Rewritten { func, saturation, gains: BTreeMap::new(), lost: Vec::new() });
    }
    let choice = candidates.choose();
    let cost = candidates.cost(&choice);
    let mut gains = BTreeMap::new();
    let mut lost = Vec::new();
    // With little fuel a rule may have stopped halfway: what it gains says nothing then.
    let judged = if context.limited() { None } else { Some(saturation.fired.keys()) };
    for fired in judged.into_iter().flatten() {
        let others: Vec<Rule> = rules.iter().filter(|r| r.name != fired).copied().collect();
        let mut without = enter(func);
        saturate(&mut without.graph, &others, limits, &func.name, &mut Context::new(context.machine, context.precision, None));
        let then = Candidates::new(&without.graph, &without.roots(), &context.machine);
        let cost_without = then.cost(&then.choose());
        if cost_without > cost {
            gains.insert(fired.clone(), (cost_without - cost) as f64 / 1000.0);
        } else {
            lost.push(loser(fired, &entered.graph, &candidates, &choice, cost, &added));
        }
    }
    let func = leave(func, &entered, &candidates, &choice)?;
    Ok(Rewritten { func, saturation, gains, lost })
}

/// Why a rule that fired gains nothing: what it would cost to use what it made.
fn loser(rule: &str, graph: &Graph, candidates: &Candidates, choice: &Choice, cost: u64, added: &Added) -> Lost {
    let mut forced = choice.clone();
    for (_, (class, node)) in added.iter().filter(|(by, _)| *by == rule) {
        let class = graph.egraph.find(*class);
        let node = node.clone().map_children(|c| graph.egraph.find(c));
        if let Some(number) = candidates.number(class)
            && let Some(at) = candidates.classes[number].iter().position(|c| c.node == node)
        {
            forced[number] = at;
        }
    }
    let forced = candidates.cost(&forced);
    let extra = (forced > cost && forced < u64::MAX).then(|| (forced - cost) as f64 / 1000.0);
    let reason = match extra {
        Some(ns) => format!("not chosen: costs {ns:.0} ns more per token"),
        None => "not needed: without it the result costs the same".to_owned(),
    };
    Lost { rule: rule.to_owned(), reason, extra_ns: extra }
}
