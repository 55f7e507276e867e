//! A batch of tensors through the engine, and its outputs as tensors.

use super::rows::{Row, Told};
use crate::cli::run::{engine_error, open_error};
use crate::diag::{Diag, Result};
use crate::frontend::onnx::eager::{Value, decode};
use crate::graph::stored_as;
use llamac_ir::dtype::DType;
use llamac_ir::eval::Tensor;
use llamac_runtime::artifact::signature::{Port, Role, Signature};
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::step::{Engine, EngineOptions, KvRows};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::Path;

/// Runs the compiled decoder in `file` on the tensors of `input`; outputs come in the order of the graph.
///
/// # Errors
/// The artifact cannot be opened or has no signature; tensors that it does not take; a batch that compiled code cannot run.
pub(crate) fn infer(file: &Path, input: &Path) -> Result<Vec<(String, Value)>> {
    let artifact = Artifact::open(file, &OpenOptions::default()).map_err(|e| open_error(file, &e))?;
    let signature = artifact.meta().signature.clone().ok_or_else(|| {
        Diag::new("too-old", "the artifact does not say which tensors it takes and gives")
            .place(file.display())
            .found(format_args!("an artifact of llamac {}", artifact.meta().compiler))
            .expected("one that keeps the signature of its graph")
            .help("compile the model again; `llamac logits` runs this artifact on token ids")
    })?;
    let given = Given::read(&signature, input)?;
    let batch = given.batch()?;
    let needed = batch.rows.iter().map(|r| r.past.len() + r.new.len()).max().unwrap_or(0);
    let meta = artifact.meta();
    if needed > meta.model.max_context {
        return Err(Diag::new("context-full", "a sequence is longer than the artifact's context")
            .place(input.display())
            .found(format_args!("{needed} past and new tokens"))
            .expected(format_args!("at most {}", meta.model.max_context))
            .help(format_args!("compile with --max-context {needed}")));
    }
    let options = EngineOptions {
        max_context: Some(needed.max(1)),
        max_batch: Some(batch.rows.len().clamp(1, meta.plan.max_batch)),
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(&artifact, &options).map_err(|e| engine_error(file, &e))?;
    let made = batch.run(&mut engine).map_err(|e| engine_error(file, &e))?;
    signature.outputs.iter().map(|port| Ok((port.name.clone(), made.output(port, &batch)?))).collect()
}

/// Tensors by what they are.
struct Given<'a> {
    signature: &'a Signature,
    input: &'a Path,
    tensors: BTreeMap<&'a str, (&'a Port, Tensor)>,
}

/// A batch whose rows are understood.
struct Batch {
    rows: Vec<Row>,
    past: usize,
    new: usize,
    ids: Vec<Vec<u32>>,
    /// Past keys and values of each layer, `[batch, heads, past, d]`; empty: there is no past.
    pasts: Vec<[Vec<f32>; 2]>,
}

/// What came out.
struct Made {
    vocab: usize,
    logits: Vec<f32>,
    /// Keys and values of each layer, `[batch, heads, past + new, d]`, and heads and d.
    present: Vec<([Vec<f32>; 2], [usize; 2])>,
}

impl<'a> Given<'a> {
    fn read(signature: &'a Signature, input: &'a Path) -> Result<Given<'a>> {
        let bytes = std::fs::read(input).map_err(|e| Diag::io("cannot read the input tensors", input.display(), &e))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| Diag::new("tensors", "the input is not a safetensors file").place(input.display()).found(e))?;
        let show = |p: &Port| format!("`{}`: {}[{}]", p.name, p.dtype, p.shape.join(", "));
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let wrong = |what: &str| Diag::new("tensors", what).place(format_args!("{}: `{name}`", input.display()));
            let Some(port) = signature.inputs.iter().find(|p| p.name == name) else {
                let names: Vec<String> = signature.inputs.iter().map(show).collect();
                return Err(wrong("the graph has no input of that name").found(format_args!("`{name}`")).expected(names.join(", ")));
            };
            let dtype = DType::from_name(&port.dtype).ok_or_else(|| wrong("an input of an unknown element type").found(&port.dtype))?;
            if view.dtype() != stored_as(dtype) {
                return Err(wrong("an input has another element type").found(format_args!("{:?}", view.dtype())).expected(format_args!(
                    "{:?} for {}",
                    stored_as(dtype),
                    show(port)
                )));
            }
            let fixed = port.shape.iter().zip(view.shape()).all(|(want, have)| want.parse::<usize>().map_or(true, |n| n == *have));
            if port.shape.len() != view.shape().len() || !fixed {
                return Err(wrong("an input has another shape").found(format_args!("{:?}", view.shape())).expected(show(port)));
            }
            let tensor = decode(dtype, view.shape(), view.data());
            let tensor =
                tensor.ok_or_else(|| wrong("the data is not as long as its shape says").found(format_args!("{:?}", view.shape())))?;
            tensors.insert(port.name.as_str(), (port, tensor));
        }
        if let Some(missing) = signature.inputs.iter().find(|p| !p.optional && !tensors.contains_key(p.name.as_str())) {
            return Err(Diag::new("tensors", "an input is missing").place(input.display()).expected(show(missing)));
        }
        Ok(Given { signature, input, tensors })
    }

    fn find(&self, role: impl Fn(Role) -> bool) -> Option<(&str, &Tensor)> {
        self.tensors.iter().find(|(_, (port, _))| role(port.role)).map(|(name, (_, tensor))| (*name, tensor))
    }

    fn wrong(&self, name: &str, what: &str) -> Diag {
        Diag::new("tensors", what).place(format_args!("{}: `{name}`", self.input.display()))
    }

    /// Whole numbers of that shape.
    fn whole(&self, role: impl Fn(Role) -> bool, shape: &[usize]) -> Result<Option<(&str, Vec<i64>)>> {
        let Some((name, tensor)) = self.find(role) else { return Ok(None) };
        if tensor.shape().iter().product::<usize>() != shape.iter().product::<usize>()
            || tensor.shape().first() != shape.first() && shape.len() > 1
        {
            let found = format!("{:?}", tensor.shape());
            return Err(self.wrong(name, "an input does not fit the ids and the past").found(found).expected(format_args!("{shape:?}")));
        }
        Ok(Some((name, integers(tensor))))
    }

    fn batch(&self) -> Result<Batch> {
        let (name, ids) = self.find(|r| r == Role::Ids).ok_or_else(|| Diag::new("tensors", "there are no token ids"))?;
        let &[batch, new] = ids.shape() else { return Err(self.wrong(name, "token ids are no matrix").expected("[batch, sequence]")) };
        if let Some((other, _)) = self.find(|r| r == Role::Other) {
            return Err(self
                .wrong(other, "what the graph does with this input is not known to the compiled code")
                .help("`llamac infer` of the ONNX file itself interprets it"));
        }
        let layers = self.signature.outputs.iter().chain(&self.signature.inputs).filter(|p| matches!(p.role, Role::Key(_)));
        let layers = layers.map(|p| if let Role::Key(n) = p.role { n + 1 } else { 0 }).max().unwrap_or(0);
        let past = self.find(|r| matches!(r, Role::Key(_) | Role::Value(_))).map_or(0, |(_, t)| t.shape()[2]);
        let mut pasts = Vec::new();
        for layer in (0..layers).filter(|_| past > 0) {
            let one = |role: Role| -> Result<Vec<f32>> {
                let (name, tensor) = self.find(|r| r == role).ok_or_else(|| {
                    Diag::new("tensors", "the past of a layer is missing").place(self.input.display()).expected(format_args!("{role:?}"))
                })?;
                let shape = tensor.shape();
                if shape.len() != 4 || shape[0] != batch || shape[2] != past {
                    return Err(self
                        .wrong(name, "the past does not fit the others")
                        .found(format_args!("{shape:?}"))
                        .expected(format_args!("a batch of {batch} and {past} tokens")));
                }
                Ok(tensor.as_f32().unwrap_or_default().to_vec())
            };
            pasts.push([one(Role::Key(layer))?, one(Role::Value(layer))?]);
        }
        let total = past + new;
        let mask = self.whole(|r| matches!(r, Role::Mask { .. }), &[batch, total])?;
        let padding = self.signature.inputs.iter().any(|p| p.role == Role::Mask { padding: true });
        let (last, positions) = (self.whole(|r| r == Role::Last, &[batch])?, self.whole(|r| r == Role::Positions, &[batch, new])?);
        if let Some((name, found)) = self.whole(|r| r == Role::Total, &[1])?
            && found[0] != total as i64
        {
            return Err(self.wrong(name, "the number of past and new tokens is another").found(found[0]).expected(total));
        }
        // Without positions as an input a graph counts its columns; ours, of a checkpoint, counts tokens.
        let known = self.signature.inputs.iter().any(|p| p.role == Role::Positions);
        let told = Told {
            batch,
            past,
            new,
            mask: mask.as_ref().map(|(name, m)| (*name, m.as_slice(), padding && known)),
            last: last.as_ref().map(|(name, l)| (*name, l.as_slice())),
            positions: positions.as_ref().map(|(name, p)| (*name, p.as_slice())),
            counts: self.signature.counts,
        };
        let rows = told.rows().map_err(|d| d.inside(self.input.display()))?;
        let all = integers(ids);
        let of_row = |(b, row): (usize, &Row)| -> Result<Vec<u32>> {
            let tokens = &all[b * new..(b + 1) * new][row.new.clone()];
            let token = |t: &i64| u32::try_from(*t).map_err(|_| self.wrong(name, "a token id is not in the vocabulary").found(*t));
            tokens.iter().map(token).collect()
        };
        let ids = rows.iter().enumerate().map(of_row).collect::<Result<_>>()?;
        Ok(Batch { rows, past, new, ids, pasts })
    }
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    let narrow = || tensor.as_i32().map(|v| v.iter().map(|x| i64::from(*x)).collect());
    tensor.as_i64().map(<[i64]>::to_vec).or_else(narrow).unwrap_or_default()
}

impl Batch {
    /// Runs as many sequences at a time as the engine has slots.
    fn run(&self, engine: &mut Engine) -> std::result::Result<Made, llamac_runtime::step::EngineError> {
        let meta = engine.artifact().meta();
        let (vocab, layers) = (meta.model.vocab, meta.schedule.len());
        let total = self.past + self.new;
        let shapes = (0..layers).map(|l| engine.kv_layer(l)).collect::<std::result::Result<Vec<_>, _>>()?;
        let blank = |s: &llamac_runtime::step::KvLayer| {
            let all = vec![0.0; self.rows.len() * s.kv_heads * total * s.head_dim];
            ([all.clone(), all], [s.kv_heads, s.head_dim])
        };
        let mut made = Made { vocab, logits: vec![0.0; self.rows.len() * self.new * vocab], present: shapes.iter().map(blank).collect() };
        // A layer with chunks forgets them: what a chunk has is read before the next one begins.
        let chunk = shapes.iter().map(|s| s.chunk).filter(|c| *c > 0).min().unwrap_or(usize::MAX);
        let slots = engine.kv().slots();
        for first in (0..self.rows.len()).step_by(slots) {
            let group: Vec<usize> = (first..self.rows.len().min(first + slots)).collect();
            for (slot, &b) in group.iter().enumerate() {
                self.load(engine, slot, b, &mut made)?;
            }
            let mut fed = vec![0; group.len()];
            loop {
                let piece = |(slot, &b): (usize, &usize)| {
                    let at = self.rows[b].past.len() + fed[slot];
                    let most = chunk - at % chunk;
                    (slot, fed[slot]..self.ids[b].len().min(fed[slot].saturating_add(most)))
                };
                let pieces: Vec<_> = group.iter().enumerate().map(piece).filter(|(_, p)| !p.is_empty()).collect();
                if pieces.is_empty() {
                    break;
                }
                let inputs: Vec<SeqInput<'_>> = pieces
                    .iter()
                    .map(|(slot, p)| SeqInput { slot: *slot, tokens: &self.ids[group[*slot]][p.clone()], logits: Want::All })
                    .collect();
                engine.step_each(&inputs, |input, row, logits| {
                    let (slot, piece) = &pieces[input];
                    let b = group[*slot];
                    let column = self.rows[b].new.start + piece.start + row;
                    made.logits[(b * self.new + column) * vocab..][..vocab].copy_from_slice(logits);
                })?;
                for (slot, piece) in pieces {
                    let row = &self.rows[group[slot]];
                    let from = row.past.len() + piece.start;
                    for (layer, shape) in shapes.iter().enumerate() {
                        let mut read = [0, 1].map(|_| vec![0.0; shape.kv_heads * piece.len() * shape.head_dim]);
                        let [key, value] = &mut read;
                        engine.read_kv(slot, layer, from..from + piece.len(), key, value)?;
                        made.put(layer, group[slot], total, row.new_at + piece.start, &read);
                    }
                    fed[slot] = piece.end;
                }
            }
            (0..group.len()).for_each(|slot| {
                engine.truncate(slot, 0);
            });
        }
        Ok(made)
    }

    /// Gives a sequence its past, and the result's cache, too.
    fn load(
        &self,
        engine: &mut Engine,
        slot: usize,
        b: usize,
        made: &mut Made,
    ) -> std::result::Result<(), llamac_runtime::step::EngineError> {
        let row = &self.rows[b];
        if row.past.is_empty() {
            return Ok(());
        }
        let mut parts = Vec::new();
        for (layer, past) in self.pasts.iter().enumerate() {
            let [heads, d] = made.present[layer].1;
            let part = past.each_ref().map(|all| {
                let head = |h: usize| ((b * heads + h) * self.past + row.past.start) * d..((b * heads + h) * self.past + row.past.end) * d;
                (0..heads).flat_map(|h| all.get(head(h)).unwrap_or_default()).copied().collect::<Vec<f32>>()
            });
            made.put(layer, b, self.past + self.new, row.past_at, &part);
            parts.push(part);
        }
        let rows: Vec<KvRows<'_>> = parts.iter().map(|[key, value]| KvRows { key, value }).collect();
        engine.load_kv(slot, row.past.len(), &rows)
    }
}

impl Made {
    /// Puts `[heads, tokens, d]` of a sequence into the columns from `column` on.
    fn put(&mut self, layer: usize, b: usize, total: usize, column: usize, part: &[Vec<f32>; 2]) {
        let (present, [heads, d]) = &mut self.present[layer];
        let (heads, d) = (*heads, *d);
        for (to, from) in present.iter_mut().zip(part) {
            let each = from.len() / heads.max(1);
            for (h, rows) in from.chunks_exact(each.max(1)).enumerate() {
                to[((b * heads + h) * total + column) * d..][..each].copy_from_slice(rows);
            }
        }
    }

    fn output(&self, port: &Port, batch: &Batch) -> Result<Value> {
        let unknown = |what: &str| Diag::new("tensors", what).place(format_args!("output `{}`", port.name));
        let dtype = DType::from_name(&port.dtype).ok_or_else(|| unknown("an output of an unknown element type"))?;
        let rows = batch.rows.len();
        let cache = |layer: usize, which: usize| {
            let (present, [heads, d]) = self.present.get(layer).ok_or_else(|| unknown("an output of a layer that is not there"))?;
            Ok(Tensor::f32(&[rows, *heads, batch.past + batch.new, *d], present[which].clone()))
        };
        let tensor = match port.role {
            Role::Logits => Tensor::f32(&[rows, batch.new, self.vocab], self.logits.clone()),
            Role::Key(layer) => cache(layer, 0)?,
            Role::Value(layer) => cache(layer, 1)?,
            _ => return Err(unknown("an output that is neither logits nor cache")),
        };
        Ok(Value { dtype, tensor })
    }
}
