//! From a function to its e-graph and the skeleton of ordered ops.

use super::{Facts, Graph, Node};
use egg::{EGraph, Id};
use llamac_ir::module::{Func, Operand, ValueId};
use llamac_ir::op::Effect;
use std::collections::BTreeMap;

/// A function as an e-graph.
#[derive(Debug, Clone)]
pub struct Entered {
    /// The pure part.
    pub graph: Graph,
    /// Ordered instructions: index in the body, classes of their operands.
    pub skeleton: Vec<(usize, Vec<Id>)>,
    /// Classes of what the function returns.
    pub results: Vec<Id>,
    /// Where each value of the function went in.
    pub values: BTreeMap<ValueId, Id>,
}

impl Entered {
    /// Every class that must be computed.
    pub fn roots(&self) -> Vec<Id> {
        self.skeleton.iter().flat_map(|(_, operands)| operands).chain(&self.results).copied().collect()
    }
}

/// Puts the pure ops of a verified function into an e-graph. Equal ops become one.
pub fn enter(func: &Func) -> Entered {
    fill(func, EGraph::new)
}

/// As [`enter`], into an e-graph that can explain its equalities, which takes more time and memory.
pub fn enter_explained(func: &Func) -> Entered {
    fill(func, |facts| EGraph::new(facts).with_explanations_enabled())
}

fn fill(func: &Func, empty: impl FnOnce(Facts) -> EGraph<Node, Facts>) -> Entered {
    let facts = Facts { values: func.values.iter().map(|v| v.ty.clone()).collect(), weights: Vec::new(), names: Vec::new(), rule: "enter" };
    let mut graph = Graph { egraph: empty(facts), anchors: Vec::new(), blocked: Default::default(), newest: Vec::new() };
    let weights: Vec<Id> = func.weights.iter().map(|w| graph.weight(&w.name, w.recipe.clone())).collect();
    let mut values: Vec<Option<Id>> = vec![None; func.values.len()];
    let define = |graph: &mut Graph, values: &mut Vec<Option<Id>>, v: ValueId, node: Node| {
        let class = graph.egraph.add(node);
        graph.name(class, func.values[v.0 as usize].name.clone());
        values[v.0 as usize] = Some(class);
    };
    let class = |values: &[Option<Id>], operand: &Operand| match operand {
        Operand::Value(v) => {
            values[v.0 as usize].unwrap_or_else(|| panic!("@{} is not verified: a value is read before it is made", func.name))
        }
        Operand::Weight(w) => weights[w.0 as usize],
    };
    for &p in &func.params {
        define(&mut graph, &mut values, p, Node::Value(p));
    }
    let mut skeleton = Vec::new();
    for (at, inst) in func.body.iter().enumerate() {
        let operands: Vec<Id> = inst.operands.iter().map(|o| class(&values, o)).collect();
        match inst.op.info().effect {
            Effect::Pure if inst.results.len() == 1 => {
                let node = Node::Op(inst.op, inst.attrs.clone(), operands);
                define(&mut graph, &mut values, inst.results[0], node);
            }
            // A node is one value, so what makes two stays in the skeleton.
            Effect::Pure | Effect::Ordered => {
                graph.anchors.push((inst.op, operands.clone()));
                skeleton.push((at, operands));
                for &v in &inst.results {
                    define(&mut graph, &mut values, v, Node::Value(v));
                }
            }
        }
    }
    let results = func.results.iter().map(|o| class(&values, o)).collect();
    graph.egraph.rebuild();
    let values = values.into_iter().enumerate().filter_map(|(i, class)| Some((ValueId(i as u32), class?))).collect();
    Entered { graph, skeleton, results, values }
}
