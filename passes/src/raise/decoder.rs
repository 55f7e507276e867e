//! From a graph with norms, rotations and attention found to the rows of a step: batch and sequence become tokens, past keys and values become the
//! cache, the inputs become `ids`, `pos`, `seq` and `want`. What is moved only is not moved at all (see `view`).

mod ops;

use super::mask::Mask;
use super::ports::{Noted, Ports};
use super::view::{Symbols, View};
use llamac_ir::build::FuncBuilder;
use llamac_ir::dtype::DType;
use llamac_ir::module::{Func, Inst, Operand, ValueId};
use llamac_ir::op::{OpKind, TensorOp as T};
use llamac_ir::recipe::{Recipe, Source};
use llamac_ir::types::{Dim, Type};
use std::collections::BTreeMap;

/// Why a graph is no decoder that can be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoDecoder {
    /// The value of the graph at which it was seen, with the op that makes it.
    pub at: String,
    /// What is missing or in the way.
    pub why: String,
}

/// Why one op was not translated.
enum Fail {
    /// This operand was not.
    Operand(ValueId),
    /// The op itself.
    Here(String),
}

impl From<String> for Fail {
    fn from(why: String) -> Fail {
        Fail::Here(why)
    }
}

impl From<&str> for Fail {
    fn from(why: &str) -> Fail {
        Fail::Here(why.to_owned())
    }
}

/// A translated value.
#[derive(Debug, Clone)]
pub(super) enum Made {
    /// Rows of the step.
    Rows(View),
    /// Past rows and these: what is in the cache after the step.
    Cached(View),
    /// Neither; the first reason.
    Not(NoDecoder),
}

/// Translates the graph's `main` to a flat function with the parameters of a step: layers are not found yet, all attention is in it.
///
/// # Errors
/// The graph is no decoder, and where that shows.
pub(super) fn decoder(func: &Func, source: &dyn Source) -> Result<(Func, Ports), NoDecoder> {
    let mut d = Decoder::new(func, source)?;
    for inst in &func.body {
        for (at, value) in inst.results.iter().enumerate() {
            let made = match d.inst(inst, at) {
                Ok(made) => made,
                Err(fail) => Made::Not(d.reason(inst, fail)),
            };
            d.made.insert(*value, made);
        }
    }
    let ports = d.ports();
    Ok((d.finish()?, ports))
}

pub(super) struct Decoder<'a> {
    pub(super) func: &'a Func,
    source: &'a dyn Source,
    out: FuncBuilder,
    pub(super) symbols: Symbols,
    pub(super) ids: ValueId,
    pub(super) made: BTreeMap<ValueId, Made>,
    /// Instruction that defines each value.
    defs: BTreeMap<ValueId, &'a Inst>,
    /// `pos` and `seq` of the step.
    pos: ValueId,
    seq: ValueId,
    want: ValueId,
    /// Rotary angles by their frequencies.
    angles: Vec<(Recipe, ValueId)>,
    /// Frequencies of tables of cosine and sine.
    tables: Vec<([Operand; 2], Result<Recipe, String>)>,
    /// Chunk lengths of masks.
    chunks: BTreeMap<ValueId, Result<usize, String>>,
    pub(super) noted: Noted,
}

impl<'a> Decoder<'a> {
    fn new(func: &'a Func, source: &'a dyn Source) -> Result<Decoder<'a>, NoDecoder> {
        let defs = func.body.iter().flat_map(|inst| inst.results.iter().map(move |r| (*r, inst))).collect();
        let ids = func.body.iter().find_map(|inst| embedded(func, inst));
        let (ids, batch, seq) = ids.ok_or_else(|| NoDecoder {
            at: "inputs".to_owned(),
            why: "no input of token ids [batch, sequence] that looks up rows of a table".to_owned(),
        })?;
        let mut out = FuncBuilder::new("main");
        let ints = |symbol: &str| Type::new(DType::I32, [Dim::sym(symbol)]);
        out.param("ids", ints("s"));
        let (pos, seq_param, want) = (out.param("pos", ints("s")), out.param("seq", ints("s")), out.param("want", ints("r")));
        Ok(Decoder {
            func,
            source,
            out,
            symbols: Symbols { batch, seq },
            ids,
            made: BTreeMap::new(),
            defs,
            pos,
            seq: seq_param,
            want,
            angles: Vec::new(),
            tables: Vec::new(),
            chunks: BTreeMap::new(),
            noted: Noted::default(),
        })
    }

    /// The reason of an operand that could not be translated, or that of this op.
    fn reason(&self, inst: &Inst, fail: Fail) -> NoDecoder {
        let here = |why: &str| NoDecoder { at: llamac_ir::print::inst(self.func, inst), why: why.to_owned() };
        match fail {
            Fail::Here(why) => here(&why),
            Fail::Operand(v) => match self.made.get(&v) {
                Some(Made::Not(reason)) => reason.clone(),
                Some(Made::Cached(_)) => here("the cache is read by something else than attention"),
                _ => here(&format!("%{} is not computed row by row from tokens", self.func.values[v.0 as usize].name)),
            },
        }
    }

    /// The rows of an operand.
    fn rows(&self, operand: Operand) -> Result<View, Fail> {
        match operand {
            Operand::Value(v) => match self.made.get(&v) {
                Some(Made::Rows(view)) => Ok(view.clone()),
                _ => Err(Fail::Operand(v)),
            },
            Operand::Weight(w) => Err(format!("@{} is a weight where rows are needed", self.func.weights[w.0 as usize].name).into()),
        }
    }

    fn def(&self, operand: Operand) -> Option<&'a Inst> {
        if let Operand::Value(v) = operand { self.defs.get(&v).copied() } else { None }
    }

    /// The op that defines an operand, if it is of that kind.
    fn def_of(&self, operand: Operand, op: T) -> Option<&'a Inst> {
        self.def(operand).filter(|i| i.op == OpKind::Tensor(op))
    }

    /// The recipe of a weight, also one that the graph reshapes, turns or casts first.
    fn recipe(&self, operand: Operand) -> Option<Recipe> {
        if let Operand::Weight(w) = operand {
            return Some(self.func.weights[w.0 as usize].recipe.clone());
        }
        let inst = self.def(operand)?;
        let of = self.recipe(*inst.operands.first()?)?;
        match inst.op {
            OpKind::Tensor(T::Transpose) => {
                let perm: Vec<i64> = inst.dims("perm").iter().filter_map(Dim::number).collect();
                let last = perm.len() as i64 - 1;
                let exchanged = perm.len() >= 2 && perm[..perm.len() - 2].iter().enumerate().all(|(i, p)| i as i64 == *p);
                (exchanged && perm[perm.len() - 2..] == [last, last - 1]).then(|| turned(of))
            }
            OpKind::Tensor(T::Reshape) => {
                let shape: Option<Vec<usize>> = inst.dims("shape").iter().map(Dim::value).collect();
                crate::recipes::reshaped(&of, &shape?)
            }
            OpKind::Tensor(T::Cast) => DType::from_name(inst.word("to")).filter(|d| d.info().real).map(|d| crate::recipes::cast(d, of)),
            _ => None,
        }
    }

    fn weight_name(&self, operand: Operand) -> String {
        match operand {
            Operand::Weight(w) => self.func.weights[w.0 as usize].name.clone(),
            Operand::Value(v) => match self.def(Operand::Value(v)).and_then(|i| i.operands.first()) {
                Some(of) => self.weight_name(*of),
                None => "w".to_owned(),
            },
        }
    }

    /// A weight of the result, made once.
    fn weight(&mut self, name: &str, recipe: Recipe) -> Result<Operand, String> {
        let recipe = as_stored(recipe);
        if let Some(at) = self.out.func().weights.iter().position(|w| w.recipe == recipe) {
            return Ok(Operand::Weight(llamac_ir::module::WeightId(at as u32)));
        }
        Ok(self.out.weight(name, recipe)?.into())
    }

    fn name(&self, inst: &Inst) -> String {
        inst.results.first().map_or_else(String::new, |r| self.func.values[r.0 as usize].name.clone())
    }

    /// Length of the chunks of a mask.
    fn chunk(&mut self, mask: Option<Operand>, past: &str) -> Result<usize, String> {
        let Some(Operand::Value(mask)) = mask else {
            return Err("attention without a causal mask, or with one that is a weight".to_owned());
        };
        if let Some(known) = self.chunks.get(&mask) {
            return known.clone();
        }
        let symbol = |d: &Dim| d.terms.first().map(|(s, _)| s.clone()).unwrap_or_default();
        let (batch, seq) = (symbol(&self.symbols.batch), symbol(&self.symbols.seq));
        let asked = Mask {
            func: self.func,
            mask,
            source: self.source,
            batch: &batch,
            seq: &seq,
            past,
            positions: &self.noted.positions,
            ids: self.ids,
        };
        let found = asked.chunk().map_err(|e| format!("the mask is not causal: {e}"));
        if let Ok(chunk) = found {
            let padding = asked.padding(chunk);
            asked.tells().for_each(|p| *self.noted.masks.entry(p).or_insert(true) &= padding);
        }
        self.noted.open |= past.is_empty() && found == Ok(0);
        self.chunks.insert(mask, found.clone());
        found
    }

    /// The results: logits of wanted rows. What else the graph returns must be the cache.
    fn finish(mut self) -> Result<Func, NoDecoder> {
        let mut logits = None;
        let text = |o: &Operand| match o {
            Operand::Value(v) => format!("%{}", self.func.values[v.0 as usize].name),
            Operand::Weight(w) => format!("@{}", self.func.weights[w.0 as usize].name),
        };
        for result in &self.func.results {
            let fail = |why: &str| NoDecoder { at: format!("output {}", text(result)), why: why.to_owned() };
            let Operand::Value(v) = result else { return Err(fail("an output is a weight")) };
            match self.made.get(v) {
                Some(Made::Cached(_)) => {}
                Some(Made::Rows(view)) if view.is_rows() && view.axes.len() == 3 && logits.is_none() => logits = Some(view.clone()),
                Some(Made::Rows(_)) => return Err(fail("an output beside logits [batch, sequence, vocabulary] and the cache")),
                Some(Made::Not(reason)) => return Err(reason.clone()),
                None => return Err(fail("an output that is an input")),
            }
        }
        let fail = |why: String| NoDecoder { at: "outputs".to_owned(), why };
        let logits = logits.ok_or_else(|| fail("no output [batch, sequence, vocabulary]".to_owned()))?;
        let wanted = self.out.op(OpKind::GatherRows, "logits", &[logits.value.into(), self.want.into()], &[]).map_err(fail)?;
        Ok(self.out.finish(&[wanted.into()]))
    }
}

/// The ids of a table look-up, with the symbols of their axes.
fn embedded(func: &Func, inst: &Inst) -> Option<(ValueId, Dim, Dim)> {
    let [Operand::Weight(_), Operand::Value(ids)] = inst.operands[..] else { return None };
    let [batch, seq] = func.values[ids.0 as usize].ty.shape.as_slice() else { return None };
    let symbol = |d: &Dim| d.constant == 0 && matches!(d.terms.as_slice(), [(_, 1)]);
    let fits = inst.op == OpKind::Tensor(T::Gather) && func.params.contains(&ids) && symbol(batch) && symbol(seq);
    fits.then(|| (ids, batch.clone(), seq.clone()))
}

/// Without the cast that only widens: ops take weights of any float.
fn as_stored(recipe: Recipe) -> Recipe {
    match recipe {
        Recipe::Cast(DType::F32, of) if of.ty().is_ok_and(|ty| matches!(ty.dtype, DType::F16 | DType::Bf16)) => *of,
        Recipe::Transpose(of) => Recipe::Transpose(Box::new(as_stored(*of))),
        Recipe::Rows(start, len, of) => Recipe::Rows(start, len, Box::new(as_stored(*of))),
        other => other,
    }
}

/// The last two axes exchanged; twice is nothing.
fn turned(recipe: Recipe) -> Recipe {
    match recipe {
        Recipe::Transpose(of) => *of,
        other => Recipe::Transpose(Box::new(other)),
    }
}
