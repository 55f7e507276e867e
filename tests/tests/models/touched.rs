//! Which weights a token of a mixture of experts touches, counted in the page tables of this process: the chosen experts and no other. That
//! the numbers are right is elsewhere.

use llamac::driver::{self, CompileOptions};
use llamac_examples::checkpoint;
use llamac_examples::random::Float;
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::pages;
use llamac_runtime::step::{Engine, EngineOptions};
use llamac_tests::repo;
use serde_json::{Value, json};

/// Pages that faults bring in beside what is read, and small things: far less than the experts that are not chosen.
const SLACK: u64 = 24 << 20;

#[test]
fn a_token_touches_the_chosen_experts_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let scout = std::fs::read(repo::root().join("tests/fixtures/configs/llama-4-scout-17b-16e/config.json")).unwrap();
    let mut config: Value = serde_json::from_slice::<Value>(&scout).unwrap()["text_config"].take();
    let changes = [
        ("architectures", json!(["Llama4ForCausalLM"])),
        ("model_type", json!("llama4_text")),
        ("hidden_size", json!(512)),
        ("intermediate_size", json!(2048)),
        ("intermediate_size_mlp", json!(2048)),
        ("num_hidden_layers", json!(2)),
        ("num_attention_heads", json!(8)),
        ("num_key_value_heads", json!(2)),
        ("head_dim", json!(64)),
        ("num_local_experts", json!(16)),
        ("moe_layers", json!([0, 1])),
        ("no_rope_layers", json!([1, 0])),
        ("vocab_size", json!(1024)),
        ("bos_token_id", json!(1000)),
        ("eos_token_id", json!([1001])),
        ("pad_token_id", json!(1002)),
    ];
    changes.into_iter().for_each(|(key, value)| config[key] = value);
    config.as_object_mut().unwrap().remove("layer_types");
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let model = folder.path().join("model");
    checkpoint::write(&path, &model, &checkpoint::Options { dtype: Float::Bf16, shards: 1, seed: 1 }).unwrap();
    let out = folder.path().join("experts.llx");
    driver::compile(&model, &out, &CompileOptions { quant: Some("bf16".into()), ..CompileOptions::default() }, &driver::Silent).unwrap();

    let artifact = Artifact::open(&out, &OpenOptions::default()).unwrap();
    let plan = artifact.meta().plan.clone();
    assert!(plan.weight_bytes > plan.decode_bytes + 4 * SLACK, "the test's model is too small to tell: {plan:?}");
    let mut engine = Engine::new(&artifact, &EngineOptions::default()).unwrap();
    let resident = || pages::mapped(&out).map_or(0, |(resident, _)| resident);
    let before = resident();
    engine.step(&[SeqInput { slot: 0, tokens: &[7], logits: Want::Last }]).unwrap();
    let touched = resident() - before;
    assert!(touched >= plan.decode_bytes * 9 / 10, "touched {touched}, planned {}", plan.decode_bytes);
    assert!(touched <= plan.decode_bytes + SLACK, "touched {touched}, planned {}", plan.decode_bytes);

    // The count would show other experts: a prompt that chooses several touches more.
    let prompt: Vec<u32> = (0..64).collect();
    engine.truncate(0, 0);
    engine.step(&[SeqInput { slot: 0, tokens: &prompt, logits: Want::Last }]).unwrap();
    assert!(resident() - before > touched + SLACK, "{} after a prompt, {touched} after a token", resident() - before);
}
