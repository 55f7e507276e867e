//! Tests of lowering over the fixture and family configs: the printed step program, and properties of the plan that are worked out here a
//! second time, from the regions alone.

use super::program::{Body, BufferId, Program, Sink, Step};
use crate::driver::{self, CompileOptions};
use crate::frontend;
use std::path::PathBuf;

fn config(name: &str) -> PathBuf {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let family = fixtures.join("configs").join(name).join("config.json");
    if family.exists() { family } else { fixtures.join(name).join("model/config.json") }
}

fn program(name: &str, quant: &str) -> Program {
    let options = CompileOptions {
        quant: Some(quant.into()),
        target: "x86_64-v3".into(),
        max_step: 64,
        max_context: Some(256),
        ..CompileOptions::default()
    };
    let model = frontend::load_config(&config(name)).unwrap();
    driver::plan(&model, &options).unwrap().program
}

const ALL: &[(&str, &str)] = &[
    ("tiny-llama3", "f32"),
    ("tiny-llama3", "bf16"),
    ("llama3-untied", "f32"),
    ("llama3-untied", "bf16"),
    ("llama3-onnx", "bf16"),
    ("llama-3.2-1b", "bf16"),
    ("llama-3.1-405b", "bf16"),
];

/// Regions in the order in which a step runs them, layers unrolled.
fn trace(program: &Program) -> Vec<&Body> {
    let run = |f: usize| program.functions[f].regions.iter().map(|r| &r.body);
    let mut all = Vec::new();
    for step in &program.steps {
        match *step {
            Step::Run(f) => all.extend(run(f)),
            Step::Layers { first, count } => {
                program.schedule[first..first + count].iter().for_each(|e| all.extend(run(e.function as usize)))
            }
        }
    }
    all
}

#[test]
fn the_step_program_of_a_small_model_reads_well() {
    insta::assert_snapshot!("tiny_llama3_bf16", program("tiny-llama3", "bf16").to_string());
    insta::assert_snapshot!("llama3_untied_f32", program("llama3-untied", "f32").to_string());
}

#[test]
fn a_buffer_is_never_overwritten_while_somebody_still_reads_it() {
    for (name, quant) in ALL {
        let program = program(name, quant);
        let place = |b: BufferId| {
            let buffer = program.buffer(b);
            (buffer.offset, buffer.offset + buffer.bytes(&program.limits))
        };
        // Which buffer each byte range was last written as.
        let mut held: Vec<BufferId> = Vec::new();
        for (i, body) in trace(&program).into_iter().enumerate() {
            for b in body.reads().0 {
                assert!(held.contains(&b), "{name} {quant}: region {i} reads {}, which something has overwritten", program.buffer(b).name);
            }
            for b in body.writes().0 {
                held.retain(|h| *h == b || place(*h).1 <= place(b).0 || place(b).1 <= place(*h).0);
                if !held.contains(&b) {
                    held.push(b);
                }
            }
        }
        assert!(held.contains(&program.logits), "{name} {quant}: the logits do not survive");
    }
}

#[test]
fn every_dependence_between_regions_has_a_barrier_between_them() {
    for (name, quant) in ALL {
        let program = program(name, quant);
        let ranges = |ids: Vec<BufferId>| -> Vec<(u64, u64)> {
            ids.iter().map(|b| (program.buffer(*b).offset, program.buffer(*b).offset + program.buffer(*b).bytes(&program.limits))).collect()
        };
        let meet = |a: &[(u64, u64)], b: &[(u64, u64)]| a.iter().any(|x| b.iter().any(|y| x.0 < y.1 && y.0 < x.1));
        for function in &program.functions {
            for (i, late) in function.regions.iter().enumerate() {
                for (j, early) in function.regions[..i].iter().enumerate() {
                    let ((er, erc), (ew, ewc)) = (early.body.reads(), early.body.writes());
                    let ((lr, lrc), (lw, lwc)) = (late.body.reads(), late.body.writes());
                    let (er, ew, lr, lw) = (ranges(er), ranges(ew), ranges(lr), ranges(lw));
                    let depends = meet(&ew, &lr) || meet(&er, &lw) || meet(&ew, &lw) || (ewc && lrc) || (erc && lwc);
                    let waits = function.regions[j + 1..=i].iter().any(|r| r.barrier);
                    assert!(!depends || waits, "{name} {quant}: {} does not wait for {} in {}", late.name, early.name, function.name);
                }
            }
        }
    }
}

#[test]
fn segments_cover_every_row_of_a_matrix_once() {
    for (name, quant) in ALL {
        let program = program(name, quant);
        for function in &program.functions {
            for region in &function.regions {
                let Body::Dot { weight, segments, .. } = &region.body else { continue };
                let placed = &program.areas[function.area].weights[*weight];
                let super::program::WeightForm::Matrix { rows, n, .. } = placed.form else { panic!("a dot with a vector") };
                let mut at = 0;
                for s in segments {
                    assert_eq!(s.first, at, "{name} {quant}: a gap in {}", region.name);
                    at += s.blocks * s.lanes;
                    if let Sink::Store(b) = s.sink {
                        assert_eq!(program.buffer(b).padded(), s.blocks * 16);
                    }
                }
                assert_eq!(at * 16, rows.padded(n), "{name} {quant}: {}", region.name);
            }
        }
    }
}

#[test]
fn attention_is_counted_for_every_key_that_a_query_sees() {
    let plan = program("llama-3.2-1b", "bf16").plan_meta();
    // 16 layers of 32 heads of 64, scores and values; in the last one the last token alone has queries.
    let macs = 2 * 32 * 64;
    assert_eq!(plan.attention_macs(0, 3), macs * (15 * (1 + 2 + 3) + 3));
    assert_eq!(plan.attention_macs(10, 1), macs * 16 * 11);
    assert_eq!(plan.attention_macs(10, 0), 0);
}

#[test]
fn depth_does_not_change_the_code_and_offsets_of_layers_do_not_overlap() {
    let (small, large) = (program("llama-3.2-1b", "bf16"), program("llama-3.1-405b", "bf16"));
    assert_eq!(small.functions.len(), large.functions.len());
    assert_eq!(large.schedule.len(), 126);
    for pair in large.schedule.windows(2) {
        let area = &large.areas[large.functions[pair[0].function as usize].area];
        assert!(pair[0].weights + area.bytes <= pair[1].weights && pair[0].kv < pair[1].kv);
    }
}
