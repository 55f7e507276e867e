//! A pass that is wrong, known to tests only: what checks are for.

use crate::egraph::{Node, Rule};
use crate::registry::{Exactness, Kind, Pass};
use llamac_ir::op::{OpKind, Stage};

/// Takes a product of two values for their sum.
pub(crate) const WRONG: Pass = Pass {
    name: "test-wrong",
    kind: Kind::Rewrite(&[Rule {
        name: "test-wrong/mul-is-add",
        propose: |graph| {
            let products = graph.ops(OpKind::Mul);
            products.into_iter().map(|(class, _, operands)| vec![(class, Node::Op(OpKind::Add, vec![], operands))]).collect()
        },
    }]),
    exactness: Exactness::Exact,
    stage: Stage::Imported,
    source: "",
};
