//! How the features of a value are padded: which values are padded head by head, found by union-find over one function.

use llamac_ir::module::{Func, Inst, Operand, ValueId};
use llamac_ir::op::OpKind;
use llamac_runtime::format::FEATURE_PAD;

use super::LowerError;

/// Order and padding of features. Head sizes that are multiples of the padding are plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// Zeros behind the last feature.
    Plain,
    /// Zeros behind each head of this size.
    Heads(usize),
}

/// `n` rounded up to the padding.
pub fn pad(n: usize) -> usize {
    n.next_multiple_of(FEATURE_PAD)
}

impl Layout {
    /// The layout for heads of that size.
    pub fn heads(head_dim: usize) -> Layout {
        if head_dim.is_multiple_of(FEATURE_PAD) { Layout::Plain } else { Layout::Heads(head_dim) }
    }
    /// Columns of `width` features with padding.
    pub fn padded(self, width: usize) -> usize {
        match self {
            Layout::Plain => pad(width),
            Layout::Heads(d) => width / d * pad(d),
        }
    }
    /// Column of feature `i`; `i` is at the start of a head unless the layout is plain.
    pub fn col(self, i: usize) -> usize {
        match self {
            Layout::Plain => i,
            Layout::Heads(d) => i / d * pad(d) + i % d,
        }
    }
}

/// Width of the last axis of a value.
pub(super) fn width(func: &Func, value: ValueId) -> Option<usize> {
    func.values[value.0 as usize].ty.shape.last()?.value()
}

/// The layout of every value of a function. Parameters and results are plain.
pub(super) fn layouts(func: &Func) -> Result<Vec<Layout>, LowerError> {
    let mut sets = Sets { parent: (0..func.values.len()).collect() };
    for inst in &func.body {
        let values = || inst.operands.iter().filter_map(|o| if let Operand::Value(v) = o { Some(*v) } else { None });
        match inst.op {
            OpKind::Add | OpKind::Mul | OpKind::Silu | OpKind::SwiGlu => values().for_each(|v| sets.union(v, inst.results[0])),
            OpKind::SliceCols | OpKind::GatherRows | OpKind::RowScale | OpKind::RmsNorm | OpKind::RmsUnit | OpKind::Rope => {
                if let Operand::Value(v) = inst.operands[0] {
                    sets.union(v, inst.results[0]);
                }
            }
            OpKind::MoeLinearAdd => {
                if let Operand::Value(v) = inst.operands[3] {
                    sets.union(v, inst.results[0]);
                }
            }
            OpKind::LinearAdd => {
                if let Operand::Value(v) = inst.operands[2] {
                    sets.union(v, inst.results[0]);
                }
            }
            _ => {}
        }
    }
    let mut want: Vec<Option<Layout>> = vec![None; func.values.len()];
    let mut set = |sets: &mut Sets, v: ValueId, layout: Layout| -> Result<(), LowerError> {
        let root = sets.find(v.0 as usize);
        match want[root] {
            Some(old) if old != layout => Err(LowerError::new(func, v, "is needed with two different paddings of its heads")),
            _ => {
                want[root] = Some(layout);
                Ok(())
            }
        }
    };
    for v in func.params.iter().copied().chain(results(func)) {
        set(&mut sets, v, Layout::Plain)?;
    }
    // What is written without padding between heads, and what callees take without it.
    let plain = func.body.iter().filter(|inst| matches!(inst.op, OpKind::Embed | OpKind::RopeAngles | OpKind::Layers));
    for v in plain.flat_map(|inst| inst.operands.iter().filter_map(value).chain(inst.results.iter().copied())) {
        set(&mut sets, v, Layout::Plain)?;
    }
    for inst in &func.body {
        for v in per_head(inst) {
            let head = if inst.op == OpKind::RmsUnit { inst.int("group") } else { inst.int("head_dim") };
            set(&mut sets, v, Layout::heads(head))?;
        }
    }
    (0..func.values.len())
        .map(|i| {
            let v = ValueId(i as u32);
            let layout = want[sets.find(i)].unwrap_or(Layout::Plain);
            match (layout, width(func, v)) {
                (Layout::Heads(d), Some(w)) if w % d != 0 => Err(LowerError::new(func, v, "is not a whole number of heads")),
                _ => Ok(layout),
            }
        })
        .collect()
}

fn value(operand: &Operand) -> Option<ValueId> {
    if let Operand::Value(v) = operand { Some(*v) } else { None }
}

/// Values of the instruction whose heads must start at multiples of the padding.
fn per_head(inst: &Inst) -> Vec<ValueId> {
    let operand = |i: usize| if let Operand::Value(v) = inst.operands[i] { Some(v) } else { None };
    match inst.op {
        OpKind::Rope => [operand(0), inst.results.first().copied()].into_iter().flatten().collect(),
        OpKind::Attention => [operand(0), inst.results.first().copied()].into_iter().flatten().collect(),
        OpKind::KvWrite | OpKind::RopeKvWrite => [operand(0), operand(1)].into_iter().flatten().collect(),
        OpKind::RmsUnit if inst.int("group") > 0 => operand(0).into_iter().collect(),
        _ => Vec::new(),
    }
}

pub(super) fn results(func: &Func) -> impl Iterator<Item = ValueId> + '_ {
    func.results.iter().filter_map(|o| if let Operand::Value(v) = o { Some(*v) } else { None })
}

struct Sets {
    parent: Vec<usize>,
}

impl Sets {
    fn find(&mut self, mut i: usize) -> usize {
        while self.parent[i] != i {
            self.parent[i] = self.parent[self.parent[i]];
            i = self.parent[i];
        }
        i
    }
    fn union(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.find(a.0 as usize), self.find(b.0 as usize));
        self.parent[a.max(b)] = a.min(b);
    }
}
