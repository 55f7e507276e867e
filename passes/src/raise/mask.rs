//! What a mask lets a query see, found by evaluating it: constants, `where`, triangles and chunks all come to the same numbers. The graph's mask is
//! computed for sequences without padding at a number of places, and must be causal at all of them, or causal within chunks of one length.

use llamac_ir::dtype::DType;
use llamac_ir::eval::{Cache, Tensor, eval_func};
use llamac_ir::module::{Func, Inst, Operand, ValueId, ValueInfo};
use llamac_ir::recipe::Source;
use llamac_ir::types::{Dim, Type};
use std::collections::BTreeSet;

/// Longest context that is searched for the edge of a chunk.
const LONGEST: usize = 1 << 17;

/// The same in graphs without a past, whose mask must be computed whole.
pub const LONGEST_ALONE: usize = 1 << 11;

/// Added to a score, this and anything below hides a key.
const HIDES: f64 = -1e4;

/// The part of a graph that computes a mask, with the symbols of the graph.
pub(super) struct Mask<'a> {
    pub(super) func: &'a Func,
    pub(super) mask: ValueId,
    pub(super) source: &'a dyn Source,
    pub(super) batch: &'a str,
    pub(super) seq: &'a str,
    /// Empty: the graph has no past.
    pub(super) past: &'a str,
    /// Parameters that are positions.
    pub(super) positions: &'a BTreeSet<ValueId>,
    pub(super) ids: ValueId,
}

/// Sequences on which a mask is evaluated.
#[derive(Clone, Copy)]
struct Place {
    batch: usize,
    seq: usize,
    past: usize,
    /// Columns of the first sequence, from the left, that are padding.
    padded: usize,
}

/// What is seen: for each sequence and head the rows of queries, for each query the keys.
struct Seen {
    keys: usize,
    /// Rows of one sequence; all sequences are alike if there is one only.
    rows: usize,
    seen: Vec<bool>,
}

impl Mask<'_> {
    /// Length of the chunks in which it is causal; 0: it is causal in the whole sequence.
    ///
    /// # Errors
    /// It is something else; the place where that was seen.
    pub(super) fn chunk(&self) -> Result<usize, String> {
        let part = self.part();
        let mut chunk = 0;
        let mut past = 1;
        let longest = if self.past.is_empty() { LONGEST_ALONE } else { LONGEST };
        while past < longest && chunk == 0 {
            let seen = self.seen(&part, Place { batch: 1, seq: 1, past, padded: 0 })?.seen;
            chunk = seen.iter().position(|s| *s).ok_or_else(|| format!("the query at position {past} sees nothing"))?;
            past *= 2;
        }
        let near = |c: usize| [(1, c + 2, 0), (1, 1, c - 1), (2, 1, c), (1, 5, c.saturating_sub(2)), (1, 1, 2 * c + 1), (1, 3, 3 * c - 1)];
        let mut places = vec![(1, 1, 0), (2, 6, 0), (1, 1, 7), (2, 3, 4), (1, 33, 31)];
        places.extend(near(chunk.max(8)).into_iter().filter(|(_, s, _)| *s < 512));
        for (batch, seq, past) in places {
            let seen = self.seen(&part, Place { batch, seq, past, padded: 0 })?.seen;
            for (i, seen) in seen.iter().enumerate() {
                let (query, key) = (past + i / (past + seq) % seq, i % (past + seq));
                let first = query.checked_div(chunk).map_or(0, |n| n * chunk);
                if *seen != (first..=query).contains(&key) {
                    let word = if *seen { "sees" } else { "does not see" };
                    return Err(format!("the query at position {query} {word} the key at {key}"));
                }
            }
        }
        Ok(chunk)
    }

    /// Whether sequences that are padded on their left see what they would see without the padding: chunks begin behind it, too.
    pub(super) fn padding(&self, chunk: usize) -> bool {
        let part = self.part();
        let mut places = vec![(6, 0, 2), (3, 4, 2), (3, 2, 4)];
        if chunk > 0 && chunk < 256 {
            places.extend([(chunk + 4, 0, 3), (2, chunk, 1)]);
        }
        let known = |e: &(usize, usize, usize)| !self.past.is_empty() || e.1 == 0;
        places.into_iter().filter(known).all(|(seq, past, padded)| {
            let Ok(found) = self.seen(&part, Place { batch: 2, seq, past, padded }) else { return false };
            let heads = found.rows / seq;
            (0..2 * heads * seq).all(|i| {
                let (sequence, column) = (i / (heads * seq), past + i % seq);
                let skipped = if sequence == 0 { padded } else { 0 };
                let Some(query) = column.checked_sub(skipped) else { return true };
                let first = query.checked_div(chunk).map_or(0, |n| n * chunk);
                let row = found.seen.chunks_exact(found.keys).nth(i % (found.seen.len() / found.keys));
                row.is_some_and(|row| {
                    row.iter()
                        .enumerate()
                        .all(|(key, seen)| *seen == key.checked_sub(skipped).is_some_and(|k| (first..=query).contains(&k)))
                })
            })
        })
    }

    /// Parameters that the mask reads and that are neither ids nor positions.
    pub(super) fn tells(&self) -> impl Iterator<Item = ValueId> {
        let params = self.part().params;
        params.into_iter().skip(1).filter(|p| *p != self.ids && !self.positions.contains(p))
    }

    /// The graph cut down to what the mask reads.
    fn part(&self) -> Func {
        let mut needed: BTreeSet<ValueId> = BTreeSet::from([self.mask]);
        let mut body: Vec<Inst> = Vec::new();
        for inst in self.func.body.iter().rev().filter(|i| i.op.info().results > 0) {
            if inst.results.iter().any(|r| needed.contains(r)) {
                needed.extend(inst.operands.iter().filter_map(|o| if let Operand::Value(v) = o { Some(*v) } else { None }));
                body.push(inst.clone());
            }
        }
        body.reverse();
        let mut part = Func { body, results: vec![Operand::Value(self.mask)], ..self.func.clone() };
        // A parameter that nobody reads tells the sizes of all symbols.
        let sizes = Type::new(DType::Bool, [self.batch, self.seq, self.past].map(Dim::sym));
        part.values.push(ValueInfo { name: "sizes of symbols".to_owned(), ty: sizes });
        part.params = vec![ValueId(part.values.len() as u32 - 1)];
        part.params.extend(self.func.params.iter().filter(|p| needed.contains(p)));
        part
    }

    /// What each query sees. Without a past the sequence is computed whole, and its last queries are taken.
    fn seen(&self, part: &Func, place: Place) -> Result<Seen, String> {
        let wanted = place.seq;
        let place = match self.past {
            "" => Place { seq: place.past + place.seq, past: 0, ..place },
            _ => place,
        };
        let Place { batch, seq, past, padded } = place;
        let size = |symbol: &str| match symbol {
            s if s == self.batch => Some(batch),
            s if s == self.seq => Some(seq),
            s if s == self.past => Some(past),
            // The one length that is left is that of the attention mask.
            _ => Some(past + seq),
        };
        let mut args = Vec::new();
        for p in &part.params {
            let info = &part.values[p.0 as usize];
            let shape: Option<Vec<usize>> = info.ty.shape.iter().map(|d: &Dim| d.eval(&size)).collect();
            let shape = shape.ok_or_else(|| format!("the size of %{} is not known", info.name))?;
            let (count, columns) = (shape.iter().product::<usize>(), shape.last().copied().unwrap_or(1).max(1));
            // Position ids have the length of the new tokens, an attention mask that of all.
            let position = self.positions.contains(p) || info.ty.dtype == DType::I64 && columns == seq && past > 0;
            let one = |i: usize| {
                let (sequence, column) = (i / columns, i % columns);
                match (position, if sequence == 0 { padded } else { 0 }) {
                    (true, skipped) => (past + column).saturating_sub(skipped) as i64,
                    (false, skipped) => i64::from(column >= skipped),
                }
            };
            let values = (0..count).map(one);
            args.push(match info.ty.dtype {
                DType::I64 | DType::Bool => Tensor::i64(&shape, values.collect()),
                DType::I32 => Tensor::i32(&shape, values.map(|x| x as i32).collect()),
                _ => return Err(format!("it depends on %{}: {}", info.name, info.ty)),
            });
        }
        let found = eval_func(part, self.source, None, &args, &mut Cache::default()).map_err(|e| e.to_string())?;
        let mask = found.first().ok_or("it has no value")?;
        let dtype = part.ty(Operand::Value(self.mask)).dtype;
        let expected = [seq, past + seq];
        let rank = mask.shape().len();
        if rank < 2 || mask.shape()[rank - 2..] != expected {
            return Err(format!("its shape is {:?}, expected {expected:?} at the end", mask.shape()));
        }
        let one = |x: &f32| match f64::from(*x) {
            0.0 => Ok(true),
            x if x <= HIDES => Ok(false),
            x => Err(format!("it adds {x} to a score")),
        };
        let all: Vec<bool> = match dtype {
            DType::Bool => mask.as_i64().unwrap_or(&[]).iter().map(|b| *b != 0).collect(),
            _ => mask.as_f32().unwrap_or(&[]).iter().map(one).collect::<Result<_, _>>()?,
        };
        let keys = past + seq;
        let last = all.chunks_exact(seq * keys).flat_map(|one| &one[(seq - wanted) * keys..]).copied().collect();
        let heads = if rank == 4 { mask.shape()[1] } else { 1 };
        Ok(Seen { keys, rows: heads * wanted, seen: last })
    }
}
