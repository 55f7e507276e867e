//! The e-graph over the pure part of a function: its nodes are ops of the table, values that come from elsewhere, and weights. `enter`
//! fills it, `saturate` applies rules, `extract` chooses, `leave` makes a function again, `explain` says which rules made two values equal. Ordered ops never enter: they stay in a skeleton
//! whose operands are the roots.

pub mod enter;
mod explain;
pub mod extract;
pub mod leave;
pub mod saturate;

pub use enter::{Entered, enter, enter_explained};
pub(crate) use explain::chains;
pub use saturate::{Limits, Rule, Union};

use egg::{Analysis, DidMerge, EGraph, Id, Language};
use llamac_ir::infer::infer;
use llamac_ir::module::{ValueId, Weight};
use llamac_ir::op::{Attr, OpKind};
use llamac_ir::recipe::Recipe;
use llamac_ir::types::Type;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// A parameter or the result of an ordered op.
    Value(ValueId),
    /// A weight: index into [`Facts::weights`]. Weights of one recipe are one node.
    Weight(u32),
    /// A pure op with its attributes.
    Op(OpKind, Vec<Attr>, Vec<Id>),
}

/// What two nodes must share to be matched: their kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`Node::Value`].
    Value,
    /// [`Node::Weight`].
    Weight,
    /// [`Node::Op`].
    Op(OpKind),
}

impl Language for Node {
    type Discriminant = Kind;

    fn discriminant(&self) -> Kind {
        match self {
            Node::Value(_) => Kind::Value,
            Node::Weight(_) => Kind::Weight,
            Node::Op(op, ..) => Kind::Op(*op),
        }
    }
    fn matches(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Op(a, x, c), Node::Op(b, y, d)) => (a, x, c.len()) == (b, y, d.len()),
            _ => self == other,
        }
    }
    fn children(&self) -> &[Id] {
        if let Node::Op(_, _, children) = self { children } else { &[] }
    }
    fn children_mut(&mut self) -> &mut [Id] {
        if let Node::Op(_, _, children) = self { children } else { &mut [] }
    }
}

/// What the e-graph knows beside its nodes. The data of a class is its type: if two classes of different types are merged, the rule
/// that did it is unsound, and the program stops with its name.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Types of the function's values.
    values: Vec<Type>,
    /// Weights that nodes refer to.
    pub weights: Vec<Weight>,
    /// Names for classes that no value of the function had.
    names: Vec<(Id, String)>,
    /// The rule that is at work.
    rule: &'static str,
}

impl Analysis<Node> for Facts {
    type Data = Type;

    fn make(graph: &mut EGraph<Node, Facts>, node: &Node, _: Id) -> Type {
        let facts = &graph.analysis;
        match node {
            Node::Value(v) => facts.values[v.0 as usize].clone(),
            Node::Weight(w) => facts.weights[*w as usize].ty.clone(),
            Node::Op(op, attrs, children) => {
                let operands: Vec<Type> = children.iter().map(|c| graph[*c].data.clone()).collect();
                let mut types =
                    infer(*op, &operands, attrs).unwrap_or_else(|e| panic!("rule `{}` made an op that does not type: {e}", facts.rule));
                types.pop().unwrap_or_else(|| panic!("rule `{}` made `{}`, which has no result", facts.rule, op.name()))
            }
        }
    }

    fn merge(&mut self, a: &mut Type, b: Type) -> DidMerge {
        assert!(*a == b, "rule `{}` is unsound: it set a value of type {a} equal to one of type {b}", self.rule);
        DidMerge(false, false)
    }
}

/// The e-graph of one function.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The graph itself.
    pub egraph: EGraph<Node, Facts>,
    /// Operands of ordered ops, for rules that are anchored there: op and operand classes, weights and all.
    pub anchors: Vec<(OpKind, Vec<Id>)>,
    /// Rules that a guard kept from firing: `(rule, reason)`.
    pub blocked: std::collections::BTreeSet<(String, String)>,
    /// Only with explanations: the newest form of each class that a rule changed.
    newest: Vec<(Id, Id)>,
}

impl Graph {
    /// Sets a class equal to a new form. Rules look at classes, so an explanation says that the new form came from the newest one before it.
    fn unite(&mut self, class: Id, form: Id, rule: &'static str) {
        if !self.egraph.are_explanations_enabled() {
            self.egraph.union_trusted(class, form, rule);
            return;
        }
        let from = self.newest_form(class);
        self.egraph.union_trusted(from, form, rule);
        self.newest.push((class, form));
    }

    /// The newest form of a class, if rules gave it any; else itself.
    fn newest_form(&self, class: Id) -> Id {
        let same = |id: Id| self.egraph.find(id) == self.egraph.find(class);
        self.newest.iter().rev().find(|(c, _)| same(*c)).map_or(class, |(_, form)| *form)
    }

    /// Adds a pure op.
    pub fn op(&mut self, op: OpKind, attrs: Vec<Attr>, children: Vec<Id>) -> Id {
        self.egraph.add(Node::Op(op, attrs, children))
    }

    /// Adds a weight, or finds the one with this recipe. `name` is a wish.
    ///
    /// # Panics
    /// If the recipe does not type: a bug of the rule that is at work.
    pub fn weight(&mut self, name: &str, recipe: Recipe) -> Id {
        let facts = &mut self.egraph.analysis;
        let known = facts.weights.iter().position(|w| w.recipe == recipe);
        let at = known.unwrap_or_else(|| {
            let ty = recipe.ty().unwrap_or_else(|e| panic!("rule `{}` made a recipe that does not type: {e}", facts.rule));
            facts.weights.push(Weight { name: name.to_owned(), ty, recipe });
            facts.weights.len() - 1
        });
        self.egraph.add(Node::Weight(at as u32))
    }

    /// The weight that a class is, if it is one.
    pub fn as_weight(&self, class: Id) -> Option<&Weight> {
        self.egraph[class].nodes.iter().find_map(|n| match n {
            Node::Weight(w) => Some(&self.egraph.analysis.weights[*w as usize]),
            _ => None,
        })
    }

    /// Ops of that kind in a class: attributes and operands, in a fixed order.
    pub fn ops_in(&self, class: Id, op: OpKind) -> Vec<(Vec<Attr>, Vec<Id>)> {
        let find = |id: &Id| self.egraph.find(*id);
        let mut out: Vec<_> = self.egraph[class]
            .nodes
            .iter()
            .filter_map(|n| match n {
                Node::Op(o, attrs, children) if *o == op => Some((attrs.clone(), children.iter().map(find).collect())),
                _ => None,
            })
            .collect();
        out.sort();
        out.dedup();
        out
    }

    /// Ops of that kind in the whole graph: class, attributes and operands, in a fixed order.
    pub fn ops(&self, op: OpKind) -> Vec<(Id, Vec<Attr>, Vec<Id>)> {
        let mut classes: Vec<Id> = self.egraph.classes_for_op(&Kind::Op(op)).into_iter().flatten().collect();
        classes.sort_unstable();
        classes.into_iter().flat_map(|c| self.ops_in(c, op).into_iter().map(move |(attrs, children)| (c, attrs, children))).collect()
    }

    /// Type of a class.
    pub fn ty(&self, class: Id) -> &Type {
        &self.egraph[class].data
    }

    /// Size of the last axis of a class.
    pub fn width(&self, class: Id) -> usize {
        self.ty(class).shape.last().and_then(|d| d.value()).unwrap_or(0)
    }

    /// Wishes a name for what a class holds, for people who read the result.
    pub fn name(&mut self, class: Id, name: String) {
        self.egraph.analysis.names.push((class, name));
    }

    /// The name of a class: of a value that it holds, or as wished.
    pub fn name_of(&self, class: Id) -> Option<&str> {
        let class = self.egraph.find(class);
        self.egraph.analysis.names.iter().find(|(c, _)| self.egraph.find(*c) == class).map(|(_, name)| name.as_str())
    }

    /// Writes down that a guard kept a rule from firing.
    pub fn block(&mut self, rule: &str, reason: String) {
        self.blocked.insert((rule.to_owned(), reason));
    }
}

#[cfg(test)]
#[path = "egraph_tests.rs"]
mod tests;
