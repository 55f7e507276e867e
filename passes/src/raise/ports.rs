//! What the inputs and outputs of a graph are to the decoder that it was raised to. Found while translating, by what reads them, never by their names.

use super::decoder::{Decoder, Made};
use llamac_ir::module::{Func, Operand, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// What an input or output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Token ids, `[batch, new]`.
    Ids,
    /// Positions of the new tokens, `[batch, new]`: they turn queries and keys.
    Positions,
    /// Which tokens are none, `[batch, past and new]`: what attention may see depends on it.
    Mask {
        /// A sequence that is padded on its left sees what it would see without the padding (tried out).
        padding: bool,
    },
    /// Keys of a layer, past (an input) or past and new (an output), `[batch, kv heads, tokens, size of a head]`.
    Key(usize),
    /// Values of a layer, as keys.
    Value(usize),
    /// Logits, `[batch, new, vocabulary]`.
    Logits,
    /// Nothing that is computed depends on it.
    Unread,
    /// Something else that is read.
    Other,
}

/// The inputs and outputs of a graph, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ports {
    /// Parameters by their names.
    pub inputs: Vec<(String, Port)>,
    /// Results.
    pub outputs: Vec<Port>,
    /// A mask is causal as far as it was tried, which without a past is [`LONGEST_ALONE`](super::LONGEST_ALONE) tokens: a chunk may begin behind.
    pub open: bool,
}

/// What is noted of ports while a graph is translated.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Parameters that are positions of rotations or of temperatures.
    pub(super) positions: BTreeSet<ValueId>,
    /// The past that a concatenation begins with.
    pub(super) pasts: BTreeMap<ValueId, ValueId>,
    /// Keys and values of each attention, in order.
    pub(super) caches: Vec<[ValueId; 2]>,
    /// Parameters that masks read, and whether these tell of padding as they should.
    pub(super) masks: BTreeMap<ValueId, bool>,
    /// As [`Ports::open`].
    pub(super) open: bool,
}

impl Decoder<'_> {
    /// All ports. The graph has been translated.
    pub(super) fn ports(&self) -> Ports {
        let (func, noted) = (self.func, &self.noted);
        let past = |v: ValueId| noted.pasts.get(&v).copied();
        let cache = |fits: &dyn Fn(ValueId) -> bool| {
            let of = |at: usize| noted.caches.iter().position(|c| fits(c[at]));
            of(0).map(Port::Key).or_else(|| of(1).map(Port::Value))
        };
        let read = read(func);
        let input = |p: ValueId| match cache(&|c| past(c) == Some(p)) {
            _ if p == self.ids => Port::Ids,
            Some(port) => port,
            None if noted.positions.contains(&p) => Port::Positions,
            None if !read.contains(&p) => Port::Unread,
            None => match (noted.masks.get(&p), func.values[p.0 as usize].ty.shape.as_slice()) {
                (Some(padding), [batch, _]) if *batch == self.symbols.batch => Port::Mask { padding: *padding },
                _ => Port::Other,
            },
        };
        let output = |o: &Operand| match o {
            Operand::Value(v) => match (cache(&|c| c == *v || past(c).is_some() && past(c) == past(*v)), self.made.get(v)) {
                (Some(port), _) => port,
                (None, Some(Made::Rows(_))) => Port::Logits,
                _ => Port::Other,
            },
            Operand::Weight(_) => Port::Other,
        };
        let name = |p: &ValueId| func.values[p.0 as usize].name.clone();
        Ports {
            inputs: func.params.iter().map(|p| (name(p), input(*p))).collect(),
            outputs: func.results.iter().map(output).collect(),
            open: noted.open,
        }
    }
}

/// Values that the results depend on.
fn read(func: &Func) -> BTreeSet<ValueId> {
    let value = |o: &Operand| if let Operand::Value(v) = o { Some(*v) } else { None };
    let mut read: BTreeSet<ValueId> = func.results.iter().filter_map(value).collect();
    for inst in func.body.iter().rev() {
        if inst.results.iter().any(|r| read.contains(r)) {
            read.extend(inst.operands.iter().filter_map(value));
        }
    }
    read
}
