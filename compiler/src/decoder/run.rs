//! A batch of tensors through the engine: the past goes in (`load`), then tokens, chunk by chunk where layers forget. What tensors mean is in `given`,
//! what comes out as tensors in `made`.

use super::given::{Batch, Given};
use super::made::Made;
use crate::cli::run::{engine_error, open_error};
use crate::diag::{Diag, Result};
use crate::frontend::onnx::eager::Value;
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::step::{Engine, EngineError, EngineOptions, KvLayer, KvRows};
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
        max_batch: Some(batch.rows.len().clamp(1, meta.plan.max_batch.max(1))),
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(&artifact, &options).map_err(|e| engine_error(file, &e))?;
    let layers = 0..batch.pasts.len().max(meta.schedule.len());
    let shapes = layers.map(|l| engine.kv_layer(l)).collect::<std::result::Result<Vec<_>, _>>().map_err(|e| engine_error(file, &e))?;
    batch.past_fits(&shapes, input)?;
    let made = batch.run(&mut engine, &shapes).map_err(|e| engine_error(file, &e))?;
    signature.outputs.iter().map(|port| Ok((port.name.clone(), made.output(port, &batch)?))).collect()
}

impl Batch {
    /// Whether the past has the heads of the layers: a graph may leave their number and size open.
    fn past_fits(&self, layers: &[KvLayer], input: &Path) -> Result<()> {
        for (at, (layer, past)) in layers.iter().zip(&self.pasts).enumerate() {
            let expected = [self.rows.len(), layer.kv_heads, self.past, layer.head_dim];
            if let Some(other) = past.iter().find(|p| p.shape() != expected) {
                return Err(Diag::new("tensors", "the past has other heads than the layer")
                    .place(format_args!("{}: layer {at}", input.display()))
                    .found(format_args!("{:?}", other.shape()))
                    .expected(format_args!("{expected:?}")));
            }
        }
        Ok(())
    }

    /// Runs as many sequences at a time as the engine has slots.
    fn run(&self, engine: &mut Engine, shapes: &[KvLayer]) -> std::result::Result<Made, EngineError> {
        let vocab = engine.artifact().meta().model.vocab;
        let total = self.past + self.new;
        let blank = |s: &KvLayer| {
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
    fn load(&self, engine: &mut Engine, slot: usize, b: usize, made: &mut Made) -> std::result::Result<(), EngineError> {
        let row = &self.rows[b];
        if row.past.is_empty() {
            return Ok(());
        }
        let mut parts = Vec::new();
        for (layer, past) in self.pasts.iter().enumerate() {
            let [heads, d] = made.present[layer].1;
            let part = past.each_ref().map(|all| {
                let all = all.as_f32().unwrap_or_default();
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
