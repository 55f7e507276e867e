//! Llama 4 in sizes that no fixture has: any number of experts and of experts per token, chunks of any length, odd widths and heads, dense layers
//! anywhere. Random checkpoints; the evaluator of the module as the front end writes it is the reference.

use llamac::driver::{self, CompileOptions};
use llamac::frontend;
use llamac::lower::Limits;
use llamac_examples::checkpoint::{self, Options};
use llamac_examples::random::Float;
use llamac_ir::eval::{Evaluator, Tensor};
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::verify;
use llamac_tests::model::Runner;
use llamac_tests::numbers::{bits, difference};
use serde_json::{Value, json};

/// What is changed of [`base`].
fn shapes() -> Vec<(&'static str, Value)> {
    vec![
        (
            "two of five experts, a chunk is one token",
            json!({ "num_experts_per_tok": 2, "num_local_experts": 5, "attention_chunk_size": 1 }),
        ),
        (
            "all of three experts, widths that are no multiple of 4",
            json!({ "num_experts_per_tok": 3, "num_local_experts": 3, "attention_chunk_size": 7, "head_dim": 24, "hidden_size": 50,
                "intermediate_size": 38, "num_attention_heads": 3, "num_key_value_heads": 3 }),
        ),
        ("one expert", json!({ "num_local_experts": 1, "attention_chunk_size": 33, "rope_scaling": null })),
        (
            "four of 33 experts, every second layer dense, no qk norm",
            json!({ "num_experts_per_tok": 4, "num_local_experts": 33, "interleave_moe_layer_step": 2, "use_qk_norm": false,
                "head_dim": 40, "num_attention_heads": 5, "num_key_value_heads": 1, "hidden_size": 72, "attention_chunk_size": 17 }),
        ),
        (
            "128 experts in one layer, no layer rotates",
            json!({ "num_local_experts": 128, "moe_layers": [1], "no_rope_layers": [0, 0, 0], "num_hidden_layers": 3, "floor_scale": 3 }),
        ),
        (
            "every layer rotates and is chunked, tied head, no temperature",
            json!({ "no_rope_layer_interval": 9, "tie_word_embeddings": true, "attn_temperature_tuning": false, "num_hidden_layers": 2,
                "attention_chunk_size": 16, "intermediate_size": 300 }),
        ),
        ("no experts at all", json!({ "moe_layers": [], "intermediate_size_mlp": 90, "attention_chunk_size": 64 })),
    ]
}

fn base() -> Value {
    json!({
        "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 40, "intermediate_size_mlp": 56, "vocab_size": 283, "bos_token_id": 257,
        "eos_token_id": [258], "num_local_experts": 6, "num_experts_per_tok": 1, "attention_chunk_size": 20, "floor_scale": 8, "attn_scale": 0.1,
        "use_qk_norm": true, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": false,
        "rope_scaling": { "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
            "original_max_position_embeddings": 64 }
    })
}

/// Logits of every row as the front end's module means them.
fn meaning(model: &frontend::Model, ids: &[u32]) -> Vec<f32> {
    let limits = Limits { max_step: 128, max_rows: 128, max_batch: 1, max_context: 256 };
    let module = model.module(&limits).expect("a module");
    let ints = |values: Vec<i32>| Tensor::i32(&[values.len()], values);
    let all: Vec<i32> = (0..ids.len() as i32).collect();
    let tokens = ids.iter().map(|id| *id as i32).collect();
    let inputs = [("ids", ints(tokens)), ("pos", ints(all.clone())), ("seq", ints(vec![0; ids.len()])), ("want", ints(all))];
    let results = Evaluator::new(&module, model.checkpoint.as_ref().expect("weights")).run(&inputs).expect("a run");
    results[0].as_f32().expect("logits").to_vec()
}

#[test]
fn any_shape_computes_what_its_module_means_and_the_same_bits_however_it_is_fed() {
    let folder = tempfile::tempdir().expect("a folder");
    for (i, (what, changed)) in shapes().into_iter().enumerate() {
        let (model, mut config) = (folder.path().join(format!("m{i}")), base());
        changed.as_object().expect("an object").iter().for_each(|(key, value)| config[key] = value.clone());
        let file = folder.path().join("config.json");
        std::fs::write(&file, config.to_string()).expect("writable");
        checkpoint::write(&file, &model, &Options { dtype: Float::Bf16, shards: 1 + i % 2, seed: 7 })
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        let read = frontend::load(&model).unwrap_or_else(|e| panic!("{what}: {e}"));
        let ids: Vec<u32> = (0..75u32).map(|t| (t * t * 31 + 7 * t) % 256).collect();
        let expected = meaning(&read, &ids);
        for quant in ["f32", "bf16", "int8", "int4"] {
            let out = folder.path().join(format!("{i}-{quant}.llx"));
            let options = CompileOptions { quant: Some(quant.into()), max_context: Some(256), ..CompileOptions::default() };
            driver::compile(&model, &out, &options, &driver::Silent).unwrap_or_else(|e| panic!("{what} {quant}: {e}"));
            let artifact = Artifact::open(&out, &OpenOptions::default()).expect("an artifact");
            let report = verify::run(&artifact, &artifact.check_vectors().expect("whole").expect("vectors"), Some(2)).expect("a run");
            assert!(report.passed(), "{what} {quant}: {report:?}");

            let mut runner = Runner::open(&out, 2);
            let found = runner.logits(&ids);
            if quant == "f32" {
                let (rms, largest) = difference(&found, &expected);
                eprintln!("{what}: rms {rms:.2e}, largest {largest:.2e}");
                assert!(rms <= 1e-5 && largest <= 3e-4, "{what}: rms {rms:.2e}, largest {largest:.2e}");
            }
            let found = bits(&found);
            for pieces in [1, 13, 20] {
                assert!(bits(&runner.logits_in_pieces(&ids, std::iter::repeat(pieces))) == found, "{what} {quant}: pieces of {pieces}");
            }
            let alone = bits(&Runner::open(&out, 1).logits(&ids));
            assert!(alone == found, "{what} {quant}: one thread");
            let side = runner.logits_side_by_side(&[&ids[5..], &ids, &ids[..9]], |round, i| (3 * round + 5 * i) % 11);
            assert!(bits(&side[1]) == found, "{what} {quant}: in company");
        }
    }
}
