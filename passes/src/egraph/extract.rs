//! Choosing one node per class so that the sum over *distinct* classes is smallest. Sharing is what counts (a merged product is paid once
//! and read three times), and a greedy choice class by class cannot see it. So: start greedy; for each class that several could use,
//! move all of them to it at once and keep that if the whole became cheaper; when nothing helps, move all users of a class away from it
//! and try again from there. A test compares with an exact integer program.

use super::{Graph, Node};
use crate::cost::Machine;
use egg::{Id, Language};
use llamac_ir::op::{OpKind, TensorOp};
use llamac_ir::types::Type;
use std::collections::{BTreeMap, BTreeSet};

/// What is chosen: for each class (in the order of [`Candidates`]) the number of a candidate; [`NONE`] if it cannot be made.
pub type Choice = Vec<usize>;

/// No candidate.
pub const NONE: usize = usize::MAX;

/// A node that a class could be made by.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The node, with canonical classes.
    pub node: Node,
    /// Its time in picoseconds.
    pub cost: u64,
    /// Numbers of its operands' classes.
    pub children: Vec<usize>,
}

/// The graph as extraction sees it: in a fixed order.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// Number of each class.
    numbers: BTreeMap<Id, usize>,
    /// Candidates of each class.
    pub classes: Vec<Vec<Candidate>>,
    /// Classes that must be computed.
    pub roots: Vec<usize>,
}

/// Each node costs this much beside its time, in picoseconds, so that of equal programs the shorter wins.
const NODE: u64 = 10;

/// Time of a node in picoseconds; values and weights cost nothing by themselves.
fn node_cost(graph: &Graph, class: Id, node: &Node, machine: &Machine) -> u64 {
    let Node::Op(op, attrs, children) = node else { return 0 };
    let operands: Vec<&Type> = children.iter().map(|c| graph.ty(*c)).collect();
    machine.op_ps(*op, attrs, &operands, &[graph.ty(class)]) + NODE
}

impl Candidates {
    /// Candidates of a saturated graph.
    pub fn new(graph: &Graph, roots: &[Id], machine: &Machine) -> Candidates {
        let mut ids: Vec<Id> = graph.egraph.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let numbers: BTreeMap<Id, usize> = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        let class = |id: &Id| {
            let nodes: BTreeSet<Node> = graph.egraph[*id].nodes.iter().map(|n| n.clone().map_children(|c| graph.egraph.find(c))).collect();
            let candidate = |node: Node| {
                let children = node.children().iter().map(|c| numbers[c]).collect();
                Candidate { cost: node_cost(graph, *id, &node, machine), children, node }
            };
            nodes.into_iter().map(candidate).collect()
        };
        let classes = ids.iter().map(class).collect();
        let roots: BTreeSet<usize> = roots.iter().map(|r| numbers[&graph.egraph.find(*r)]).collect();
        Candidates { numbers, classes, roots: roots.into_iter().collect() }
    }

    /// Number of a class of the graph.
    pub fn number(&self, class: Id) -> Option<usize> {
        self.numbers.get(&class).copied()
    }

    /// The node that is chosen for a class of the graph.
    pub fn chosen(&self, choice: &Choice, class: Id) -> Option<&Node> {
        let number = self.number(class)?;
        self.classes[number].get(choice[number]).map(|c| &c.node)
    }

    /// For each class the candidate that stands on the fewest ops (products count twice): what rules found in place of what they found it in.
    pub fn lowest(&self) -> Choice {
        let (mut choice, mut heights) = (vec![NONE; self.classes.len()], vec![u64::MAX; self.classes.len()]);
        loop {
            let mut changed = false;
            for (class, list) in self.classes.iter().enumerate() {
                for (i, candidate) in list.iter().enumerate() {
                    let below = candidate.children.iter().map(|c| heights[*c]).max().unwrap_or(0);
                    let own = match candidate.node {
                        Node::Value(_) | Node::Weight(_) => 0,
                        Node::Op(OpKind::Tensor(TensorOp::MatMul), ..) => 2,
                        Node::Op(..) => 1,
                    };
                    let height = below.saturating_add(own);
                    if height < heights[class] {
                        (heights[class], choice[class]) = (height, i);
                        changed = true;
                    }
                }
            }
            if !changed {
                return choice;
            }
        }
    }

    /// The best choice that the search finds.
    pub fn choose(&self) -> Choice {
        let (greedy, trees) = self.greedy();
        let users = self.users();
        let mut best = self.descend(greedy, &users);
        let mut cost = self.cost(&best);
        loop {
            let before = cost;
            for class in 0..self.classes.len() {
                let Some(away) = self.without(&best, class, &trees) else { continue };
                let trial = self.descend(away, &users);
                let c = self.cost(&trial);
                if c < cost {
                    (best, cost) = (trial, c);
                }
            }
            if cost == before {
                return best;
            }
        }
    }

    /// Flips groups and single classes as long as that helps.
    fn descend(&self, start: Choice, users: &[Vec<(usize, usize)>]) -> Choice {
        let (mut best, mut cost) = (start.clone(), self.cost(&start));
        loop {
            let before = cost;
            let singles = self.classes.iter().enumerate().flat_map(|(class, list)| (0..list.len()).map(move |i| vec![(class, i)]));
            for flips in users.iter().filter(|u| u.len() > 1).cloned().chain(singles) {
                if flips.iter().all(|(class, i)| best[*class] == *i) {
                    continue;
                }
                let mut trial = best.clone();
                flips.iter().for_each(|(class, i)| trial[*class] = *i);
                let c = self.cost(&trial);
                if c < cost {
                    (best, cost) = (trial, c);
                }
            }
            if cost == before {
                return best;
            }
        }
    }

    /// The choice with every user of a class moved to its cheapest tree without that class; `None` if none uses it or one needs it.
    fn without(&self, choice: &Choice, class: usize, trees: &[u64]) -> Option<Choice> {
        let mut out = choice.clone();
        for (user, list) in self.classes.iter().enumerate() {
            if list.get(choice[user]).is_none_or(|c| !c.children.contains(&class)) {
                continue;
            }
            let tree = |c: &Candidate| c.children.iter().fold(c.cost, |sum, child| sum.saturating_add(trees[*child]));
            let others = list.iter().enumerate().filter(|(_, c)| !c.children.contains(&class));
            out[user] = others.min_by_key(|(_, c)| tree(c))?.0;
        }
        (out != *choice).then_some(out)
    }

    /// For each class, every other class that could use it, with the candidate that does.
    fn users(&self) -> Vec<Vec<(usize, usize)>> {
        let mut users: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.classes.len()];
        for (class, list) in self.classes.iter().enumerate() {
            for (i, candidate) in list.iter().enumerate() {
                for child in &candidate.children {
                    if users[*child].last().is_none_or(|(c, _)| *c != class) {
                        users[*child].push((class, i));
                    }
                }
            }
        }
        users
    }

    /// The cheapest tree of each class, sharing not counted, and its cost.
    fn greedy(&self) -> (Choice, Vec<u64>) {
        let (mut choice, mut trees) = (vec![NONE; self.classes.len()], vec![u64::MAX; self.classes.len()]);
        loop {
            let mut changed = false;
            for (class, list) in self.classes.iter().enumerate() {
                for (i, candidate) in list.iter().enumerate() {
                    let total = candidate.children.iter().fold(candidate.cost, |sum, child| sum.saturating_add(trees[*child]));
                    if total < trees[class] {
                        (trees[class], choice[class]) = (total, i);
                        changed = true;
                    }
                }
            }
            if !changed {
                return (choice, trees);
            }
        }
    }

    /// Sum over the classes that the choice reaches from the roots; `u64::MAX` if it goes in a circle.
    pub fn cost(&self, choice: &Choice) -> u64 {
        const NEW: u8 = 0;
        const OPEN: u8 = 1;
        const DONE: u8 = 2;
        let mut state = vec![NEW; self.classes.len()];
        let mut total = 0u64;
        let mut stack: Vec<(usize, bool)> = self.roots.iter().map(|r| (*r, false)).collect();
        while let Some((class, leave)) = stack.pop() {
            match (leave, state[class]) {
                (true, _) => state[class] = DONE,
                (false, DONE) => {}
                (false, OPEN) => return u64::MAX,
                (false, _) => {
                    let Some(candidate) = self.classes[class].get(choice[class]) else { return u64::MAX };
                    total = total.saturating_add(candidate.cost);
                    state[class] = OPEN;
                    stack.push((class, true));
                    stack.extend(candidate.children.iter().filter(|c| state[**c] != DONE).map(|c| (*c, false)));
                }
            }
        }
        total
    }
}
