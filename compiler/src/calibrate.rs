//! Calibration: runs a model over a text and keeps, for every matrix of its layers, the second moments of what it is multiplied with. The
//! quantizer makes the error of products small with them (`llamac_ir::eval::quant`). The model runs in the reference evaluator, layer by
//! layer, so that the result does not depend on threads, and on the CPU only as far as the C library's `exp`, `sin` and `cos` do.

use crate::diag::{Diag, Result};
use crate::driver::{self, CompileOptions};
use crate::frontend::Model;
use crate::frontend::safetensors::Checkpoint;
use llamac_ir::dtype::DType;
use llamac_ir::eval::quant::{MomentSums, Moments};
use llamac_ir::eval::{Evaluator, Tensor};
use llamac_ir::module::{Func, Inst, Operand};
use llamac_ir::recipe::Source;
use llamac_runtime::tokenizer::{EncodeOptions, Tokenizer};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What a model is calibrated on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// Prose, dialogue, code and lists in several languages, part of the compiler.
    Default,
    /// A file, UTF-8.
    File(PathBuf),
}

const DEFAULT_TEXT: &str = include_str!("calibrate/default.txt");

/// Tokens of a window: each is a sequence of its own.
const WINDOW: usize = 256;

/// Windows that are run. More of them change little: on tiny-llama3 two thirds of the gain over plain rounding are there with two.
const WINDOWS: usize = 8;

/// Windows that the evaluator runs at a time: what bounds its memory.
const AT_A_TIME: usize = 2;

/// Sequences of tokens.
type Windows = Vec<Vec<u32>>;

/// A checkpoint, and what the model multiplies its tensors with.
pub(crate) struct Calibrated<'a> {
    checkpoint: &'a Checkpoint,
    moments: BTreeMap<String, Arc<Moments>>,
}

impl Source for Calibrated<'_> {
    fn row(&self, name: &str, row: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        self.checkpoint.row(name, row, out)
    }
    fn part(&self, name: &str, row: usize, columns: usize, start: usize, out: &mut [f32]) -> std::result::Result<(), String> {
        self.checkpoint.part(name, row, columns, start, out)
    }
    fn patch(
        &self,
        name: &str,
        row: usize,
        columns: usize,
        start: usize,
        width: usize,
        out: &mut [f32],
    ) -> std::result::Result<(), String> {
        self.checkpoint.patch(name, row, columns, start, width, out)
    }
    fn stored(&self, name: &str, row: usize) -> Option<(DType, &[u8])> {
        self.checkpoint.stored(name, row)
    }
    fn moments(&self, name: &str) -> Option<Arc<Moments>> {
        self.moments.get(name).cloned()
    }
}

/// Windows of tokens of the text, each behind a begin-of-sequence token if the model has one.
///
/// # Errors
/// The text cannot be read, or has less than two tokens.
pub(crate) fn windows(model: &Model, text: &Text, most: usize) -> Result<Windows> {
    let (text, place) = match text {
        Text::Default => (DEFAULT_TEXT.to_owned(), "the default text".to_owned()),
        Text::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Diag::io("cannot read the calibration text", path.display(), &e).help("give a UTF-8 file, or `--calibrate default`")
            })?;
            (text, path.display().to_string())
        }
    };
    let sections = model.tokenizer.as_ref().map(|t| t.table.clone()).unwrap_or_default();
    let tokenizer = Tokenizer::from_bytes(sections).map_err(|e| Diag::new("internal", "the tokenizer cannot be read back").found(e))?;
    let ids = tokenizer.encode(&text, EncodeOptions { parse_special: false, add_bos: false });
    let bos = model.generation.bos;
    let window = WINDOW.min(model.config.max_positions.saturating_sub(usize::from(bos.is_some())).max(1));
    let windows: Vec<Vec<u32>> = ids.chunks(window).take(most).map(|w| bos.into_iter().chain(w.iter().copied()).collect()).collect();
    if ids.len() < 2 {
        return Err(Diag::new("text", "the calibration text is too short")
            .place(place)
            .found(format!("{} tokens", ids.len()))
            .expected("two or more; some thousand are better")
            .help("give a longer text, or `--calibrate default`"));
    }
    Ok(windows)
}

/// Windows to calibrate on, and windows that are held out to measure on: the last fifth. A text of one window serves for both.
fn parts(model: &Model, text: &Text) -> Result<(Windows, Windows)> {
    let mut all = windows(model, text, WINDOWS + WINDOWS / 4)?;
    let held = (all.len() / 5).max(1);
    let rest = all.split_off(all.len() - held);
    Ok(if all.is_empty() { (rest.clone(), rest) } else { (all, rest) })
}

/// Windows of the text that [`run`] has not seen if told so; for a large model the beginning of one, because it is run many times.
///
/// # Errors
/// As [`windows`].
pub(crate) fn held_out(model: &Model, text: &Text) -> Result<Windows> {
    let mut held = parts(model, text)?.1;
    if model.parameters() > LARGE {
        held.truncate(1);
        held.iter_mut().for_each(|w| w.truncate(SHORT));
    }
    Ok(held)
}

/// Parameters of a large model.
const LARGE: u64 = 200_000_000;

/// Tokens that a large model is measured on.
const SHORT: usize = 96;

/// Runs the model over the text; `hold_out` leaves a part for [`held_out`].
///
/// # Errors
/// As [`windows`], or a tensor cannot be read.
pub(crate) fn run<'a>(model: &Model, checkpoint: &'a Checkpoint, text: &Text, hold_out: bool) -> Result<Calibrated<'a>> {
    let windows = match hold_out {
        true => parts(model, text)?.0,
        false => windows(model, text, WINDOWS)?,
    };
    let exact = driver::plan(model, &CompileOptions { quant: Some("f32".into()), ..CompileOptions::default() })?.quantized;
    let mut sums: BTreeMap<Key, (MomentSums, Vec<String>)> = BTreeMap::new();
    for windows in windows.chunks(AT_A_TIME) {
        let mut observe = |func: &Func, layer: Option<usize>, inst: &Inst, x: &Tensor| observe(&mut sums, func, layer, inst, x);
        Evaluator::new(&exact, checkpoint)
            .run_observed(&inputs(windows), &mut observe)
            .map_err(|e| Diag::new("calibrate", "the reference evaluator could not run the calibration text").found(e))?;
    }
    let mut moments = BTreeMap::new();
    for (sums, names) in sums.into_values() {
        let shared = Arc::new(sums.finish());
        moments.extend(names.into_iter().map(|name| (name, shared.clone())));
    }
    Ok(Calibrated { checkpoint, moments })
}

/// Function, layer, and the value that is multiplied: matrices with the same input share its moments.
type Key = (String, Option<usize>, u32);

fn observe(sums: &mut BTreeMap<Key, (MomentSums, Vec<String>)>, func: &Func, layer: Option<usize>, inst: &Inst, x: &Tensor) {
    let ([Operand::Value(value), Operand::Weight(weight), ..], Some(layer), Some(data)) = (&inst.operands[..], layer, x.as_f32()) else {
        return;
    };
    let (columns, experts) = match *x.shape() {
        [_, columns] => (columns, 1),
        [_, experts, columns] => (columns, experts),
        _ => return,
    };
    let key = (func.name.clone(), Some(layer), value.0);
    let new = || (MomentSums::new(columns, experts), Vec::new());
    let (sums, names) = sums.entry(key).or_insert_with(new);
    let first = names.is_empty();
    let mut more = Vec::new();
    func.weights[weight.0 as usize].recipe.for_layer(layer).sources(&mut |name| more.push(name.to_owned()));
    // Each step comes by once for each matrix; the input is added for the first of them.
    if first || names.first() == more.first() {
        sums.add(data);
    }
    more.retain(|name| !names.contains(name));
    names.extend(more);
}

/// Windows as sequences of one step; the logits of the very last token are computed.
pub(crate) fn inputs(windows: &[Vec<u32>]) -> [(&'static str, Tensor); 4] {
    let ints = |values: Vec<i32>| Tensor::i32(&[values.len()], values);
    let ids: Vec<i32> = windows.iter().flatten().map(|t| *t as i32).collect();
    let last = ids.len() as i32 - 1;
    [
        ("pos", ints(windows.iter().flat_map(|w| 0..w.len() as i32).collect())),
        ("seq", ints(windows.iter().enumerate().flat_map(|(s, w)| w.iter().map(move |_| s as i32)).collect())),
        ("want", ints(vec![last])),
        ("ids", ints(ids)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Check;
    use crate::frontend;
    use std::fs;

    fn fixture() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llama4-scout-like/model")
    }

    #[test]
    fn every_matrix_of_the_layers_but_no_other_tensor_has_moments() {
        let model = frontend::load(&fixture()).unwrap();
        let checkpoint = model.checkpoint.as_ref().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short.txt");
        fs::write(&path, "To be, or not to be, that is the question.").unwrap();
        let calibrated = run(&model, checkpoint, &Text::File(path), false).unwrap();
        let mut matrices = 0;
        for name in checkpoint.names() {
            let tensor = checkpoint.tensor(name).unwrap();
            let expected = name.contains("layers.") && tensor.shape.len() > 1;
            assert_eq!(calibrated.moments(name).is_some(), expected, "{name}");
            let Some(moments) = calibrated.moments(name) else { continue };
            matrices += 1;
            assert_eq!(moments.experts(), if tensor.shape.len() == 3 { tensor.shape[0] } else { 1 }, "{name}");
            assert!((0..moments.experts()).all(|e| moments.squares(e).all(|x| x > 0.0)), "{name}");
        }
        assert!(matrices > 20, "{matrices}");
        let of = |name: &str| calibrated.moments(&format!("model.layers.1.self_attn.{name}_proj.weight")).unwrap();
        assert!(Arc::ptr_eq(&of("q"), &of("v")) && !Arc::ptr_eq(&of("q"), &of("o")));
    }

    #[test]
    fn two_compiles_write_the_same_bytes_and_others_than_without_calibration() {
        let folder = tempfile::tempdir().unwrap();
        let compile = |name: &str, calibrate: Option<Text>| {
            let out = folder.path().join(name);
            let options = CompileOptions { quant: Some("int4".into()), calibrate, check: Check::None, ..CompileOptions::default() };
            driver::compile(&fixture(), &out, &options, &driver::Silent).unwrap();
            fs::read(out).unwrap()
        };
        let path = folder.path().join("short.txt");
        fs::write(&path, "All the world's a stage, and all the men and women merely players.").unwrap();
        let text = || Some(Text::File(path.clone()));
        let first = compile("a", text());
        assert!(first == compile("b", text()), "two compiles differ");
        assert!(first != compile("c", None), "calibration changes nothing");
    }

    #[test]
    fn a_text_that_cannot_be_used_and_a_format_without_scales_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let said = |quant: &str, text: Text| {
            let options =
                CompileOptions { quant: Some(quant.into()), calibrate: Some(text), check: Check::None, ..CompileOptions::default() };
            driver::compile(&fixture(), &folder.path().join("x"), &options, &driver::Silent).unwrap_err().to_string()
        };
        let empty = folder.path().join("empty.txt");
        fs::write(&empty, "").unwrap();
        let cases = [
            (said("int4", Text::File(empty)), "too short"),
            (said("int4", Text::File(folder.path().join("none.txt"))), "none.txt"),
            (said("bf16", Text::Default), "--quant bf16"),
        ];
        cases.iter().for_each(|(said, word)| assert!(said.contains(word) && said.contains("help:"), "`{word}` not in: {said}"));
    }

    #[test]
    fn the_default_text_fills_six_windows() {
        // A token of a large vocabulary is about four characters of prose.
        assert!(DEFAULT_TEXT.len() / 4 >= 6 * WINDOW, "{}", DEFAULT_TEXT.len());
    }
}
