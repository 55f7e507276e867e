//! Applying rules until they have nothing more to say, or a number of rounds or nodes is reached; never a time, so that every machine
//! makes the same artifact.

use super::{Graph, Node};
use crate::context::Context;
use crate::report::Saturation;
use egg::Id;

/// One equality that a rule wants: the class holds the node, too.
pub type Union = (Id, Node);

/// A rewrite rule. It looks at the whole graph, adds what it needs, and says what is equal; the graph itself drops what it knew already.
/// Rules about several readers of one value start at what reads them all, so that nothing is tried pairwise.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// `pass/rule`.
    pub name: &'static str,
    /// Unions that belong together are one group, and cost one unit of fuel.
    pub propose: fn(&mut Graph) -> Vec<Vec<Union>>,
}

/// When to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rounds over all rules.
    pub iterations: usize,
    /// E-nodes.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { iterations: 30, nodes: 20_000 }
    }
}

/// What the rules added, in order: rule and equality.
pub type Added = Vec<(&'static str, Union)>;

/// Applies the rules round after round.
pub fn saturate(graph: &mut Graph, rules: &[Rule], limits: Limits, func: &str, context: &mut Context) -> (Saturation, Added) {
    let mut out = Saturation::default();
    let mut added = Vec::new();
    while out.iterations < limits.iterations && graph.egraph.total_size() < limits.nodes && !out.saturated {
        out.iterations += 1;
        let mut changed = false;
        for rule in rules {
            graph.egraph.analysis.rule = rule.name;
            for group in (rule.propose)(graph) {
                let ids: Vec<(Id, Id)> = group.iter().map(|(class, node)| (*class, graph.egraph.add_uncanonical(node.clone()))).collect();
                let news = ids.iter().any(|(a, b)| graph.egraph.find(*a) != graph.egraph.find(*b));
                if !news || !context.fire(func, rule.name) {
                    continue;
                }
                changed = true;
                *out.fired.entry(rule.name.to_owned()).or_default() += 1;
                for (a, b) in ids {
                    graph.unite(a, b, rule.name);
                }
                added.extend(group.into_iter().map(|union| (rule.name, union)));
            }
            graph.egraph.rebuild();
        }
        out.saturated = !changed;
    }
    out.nodes = graph.egraph.total_size();
    out.classes = graph.egraph.number_of_classes();
    (out, added)
}
