//! Keys and values in and out of the engine: what it gives after a prompt is what Hugging Face transformers caches, and what is put into another
//! sequence goes on with the same bits.

use crate::artifact_for;
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::format::KvFormat;
use llamac_runtime::step::{Engine, EngineError, EngineOptions, KvRows};
use llamac_tests::fixture::{self, Fixture};
use llamac_tests::numbers::bits;
use std::ops::Range;

fn engine(fixture: &Fixture, quant: &str) -> Engine {
    let artifact = Artifact::open(artifact_for(fixture, quant, "native"), &OpenOptions::default()).expect("an artifact");
    Engine::new(&artifact, &EngineOptions { threads: Some(2), ..EngineOptions::default() }).expect("an engine")
}

fn feed(engine: &mut Engine, slot: usize, tokens: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    let batch = [SeqInput { slot, tokens, logits: Want::All }];
    engine.step_each(&batch, |_, _, row| logits.extend_from_slice(row)).expect("a step");
    logits
}

/// Keys and values of a layer.
fn read(engine: &Engine, slot: usize, layer: usize, positions: Range<usize>) -> [Vec<f32>; 2] {
    let shape = engine.kv_layer(layer).expect("a layer");
    let mut out = [0, 1].map(|_| vec![f32::NAN; shape.kv_heads * positions.len() * shape.head_dim]);
    let [key, value] = &mut out;
    engine.read_kv(slot, layer, positions, key, value).expect("in the cache");
    out
}

/// Positions `positions` of the last positions of `length`, `[heads, tokens, d]`: transformers forgets the oldest ones of layers with chunks.
fn part(all: &fixture::Tensor, positions: &Range<usize>, length: usize) -> Vec<f32> {
    let [heads, tokens, d] = all.shape[..] else { panic!("{:?}", all.shape) };
    let positions = positions.start - (length - tokens)..positions.end - (length - tokens);
    (0..heads).flat_map(|h| &all.f32[(h * tokens + positions.start) * d..(h * tokens + positions.end) * d]).copied().collect()
}

#[test]
fn the_cache_after_a_prompt_is_that_of_transformers() {
    for fixture in fixture::all() {
        let Some(name) = fixture.reference.keys().find_map(|k| Some(k.strip_prefix("debug_")?.strip_suffix(".kv.layer_0.key")?.to_owned()))
        else {
            continue;
        };
        let ids = fixture.prompt(&name).ids;
        // Rounding to bf16 adds up over the layers; that of int8 is coarser.
        for (quant, most) in [("f32", 1e-4), ("bf16", 0.05), ("bf16 kv8", 0.08)] {
            let mut engine = engine(&fixture, quant);
            feed(&mut engine, 1, &ids);
            for layer in 0..engine.artifact().meta().model.layers {
                // With experts, rounding may send a token elsewhere: then only the first layers are those of the reference.
                if most > 1e-4 && layer > 0 && engine.artifact().meta().model.architecture.contains("Llama4") {
                    break;
                }
                let shape = engine.kv_layer(layer).expect("a layer");
                let kept = engine.kv_kept(1, layer).expect("a slot");
                let first = (ids.len() - 1).checked_div(shape.chunk).map_or(0, |n| n * shape.chunk);
                assert_eq!(kept, first..ids.len(), "{} layer {layer}", fixture.name);
                for (what, found) in ["key", "value"].into_iter().zip(read(&engine, 1, layer, kept.clone())) {
                    let all = &fixture.reference[&format!("debug_{name}.kv.layer_{layer}.{what}")];
                    let expected = part(all, &kept, ids.len());
                    assert_eq!([shape.kv_heads, shape.head_dim], [all.shape[0], all.shape[2]]);
                    let squares = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>();
                    let off = squares(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / squares(&mut expected.iter().copied());
                    assert!(off.sqrt() < most, "{} {quant} layer {layer} {what}: {:.1e}", fixture.name, off.sqrt());
                }
            }
        }
    }
}

#[test]
fn what_was_read_goes_on_in_another_sequence_with_the_same_bits() {
    for fixture in fixture::all() {
        let ids = fixture.prompt("long").ids;
        for quant in ["f32", "bf16", "int4", "bf16 kv8"] {
            let mut engine = engine(&fixture, quant);
            // In the first chunk of layers with chunks, at the edge of one, and behind several.
            for past in [7, 24, 40, ids.len() - 12] {
                feed(&mut engine, 0, &ids[..past]);
                let layers: Vec<[Vec<f32>; 2]> = (0..engine.artifact().meta().model.layers)
                    .map(|layer| {
                        let kept = engine.kv_kept(0, layer).expect("a slot");
                        // What is not kept is not looked at.
                        let shape = engine.kv_layer(layer).expect("a layer");
                        let tail = read(&engine, 0, layer, kept.clone());
                        tail.map(|tail| {
                            let mut whole = vec![f32::NAN; shape.kv_heads * past * shape.head_dim];
                            let each = kept.len() * shape.head_dim;
                            for h in 0..shape.kv_heads {
                                whole[h * past * shape.head_dim..][kept.start * shape.head_dim..past * shape.head_dim]
                                    .copy_from_slice(&tail[h * each..][..each]);
                            }
                            whole
                        })
                    })
                    .collect();
                let rows: Vec<KvRows<'_>> = layers.iter().map(|[key, value]| KvRows { key, value }).collect();
                engine.load_kv(3, past, &rows).expect("fits");
                assert_eq!(engine.kv().len(3), past);
                let exact = engine.kv_layer(0).expect("a layer").format != KvFormat::I8;
                for layer in 0..layers.len() {
                    let kept = engine.kv_kept(3, layer).expect("a slot");
                    for (a, b) in read(&engine, 0, layer, kept.clone()).iter().zip(read(&engine, 3, layer, kept)) {
                        let near = a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs().max(1e-3));
                        assert!(near && (!exact || bits(a) == bits(&b)), "{} {quant} past {past} layer {layer}", fixture.name);
                    }
                }
                let rest = &ids[past..past + 10];
                let expected = feed(&mut engine, 0, rest);
                let found = feed(&mut engine, 3, rest);
                let same = bits(&expected) == bits(&found);
                assert!(same || !exact, "{} {quant} past {past}: other logits", fixture.name);
                engine.truncate(0, 0);
                engine.truncate(3, 0);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let fixture = fixture::load("llama4-scout-like");
    let mut engine = engine(&fixture, "f32");
    feed(&mut engine, 0, &fixture.prompt("long").ids[..30]);
    let layers = engine.artifact().meta().model.layers;
    let shape = engine.kv_layer(0).expect("a layer");
    assert_eq!(shape.chunk, 24);
    let (mut k, mut v) = (vec![0.0; shape.kv_heads * 30 * shape.head_dim], vec![0.0; shape.kv_heads * 30 * shape.head_dim]);
    let code = |e: EngineError| e.code();
    assert!(matches!(engine.read_kv(0, 0, 0..30, &mut k, &mut v), Err(EngineError::NotCached { kept: (24, 30), .. })));
    assert_eq!(engine.read_kv(0, layers, 0..30, &mut k, &mut v).map_err(code), Err("bad-cache"));
    assert_eq!(engine.read_kv(99, 0, 0..30, &mut k, &mut v).map_err(code), Err("bad-batch"));
    assert!(matches!(engine.read_kv(0, 0, 24..30, &mut k, &mut v), Err(EngineError::BadRows { .. })));
    let rows = vec![KvRows { key: &k, value: &v }; layers];
    assert!(matches!(engine.load_kv(1, 29, &rows), Err(EngineError::BadRows { .. })));
    assert!(matches!(engine.load_kv(1, 30, &rows[1..]), Err(EngineError::BadLayer { .. })));
    assert!(matches!(engine.load_kv(0, 1000, &rows), Err(EngineError::ContextFull { length: 30, .. })));
    assert_eq!((engine.kv().len(0), engine.kv().len(1)), (30, 0));
    assert!(engine.load_kv(1, 30, &rows).is_ok());
}

#[test]
fn an_artifact_from_before_says_that_it_is_too_old() {
    let path = llamac_tests::repo::root().join("tests/fixtures/artifacts/v1-llama3-onnx.llx");
    let Ok(artifact) = Artifact::open(path, &OpenOptions::default()) else {
        return eprintln!("skipped: the artifact is for another machine");
    };
    let engine = Engine::new(&artifact, &EngineOptions::default()).expect("an engine");
    let said = engine.kv_layer(0).expect_err("no caches");
    assert_eq!((said.code(), said.help().as_str()), ("too-old", "compile the model again"));
}
