//! Which weights a token of a mixture of experts reads, counted page by page from the marks that the processor leaves in the page tables: the
//! chosen experts and no other. That the numbers are right is elsewhere.

use llamac::driver::{self, CompileOptions};
use llamac_examples::checkpoint;
use llamac_examples::random::Float;
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::batch::{SeqInput, Want};
use llamac_runtime::memory::LoadMode;
use llamac_runtime::pages;
use llamac_runtime::step::{Engine, EngineOptions};
use llamac_tests::repo;
use serde_json::{Value, json};

/// The first and last page of every range, and small sections of the file: an expert has six times as much.
const SLACK: u64 = 1 << 20;

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

    // In huge pages the count would be as coarse as they are.
    // SAFETY: the call takes whole numbers; it changes how this process is mapped from now on, not what lies there.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) }, 0);
    let artifact = Artifact::open(&out, &OpenOptions::default()).unwrap();
    let plan = artifact.meta().plan.clone();
    assert!(plan.weight_bytes > plan.decode_bytes + 16 * SLACK, "the test's model is too small to tell: {plan:?}");
    let mut engine = Engine::new(&artifact, &EngineOptions { load: LoadMode::Mmap, ..EngineOptions::default() }).unwrap();
    let mut accessed = |tokens: &[u32]| {
        // Once before, so that every page is there and only reading counts.
        for _ in 0..2 {
            pages::forget_accesses().unwrap();
            engine.truncate(0, 0);
            engine.step(&[SeqInput { slot: 0, tokens, logits: Want::Last }]).unwrap();
        }
        let mapped = pages::mapped(&out).unwrap();
        assert_eq!(mapped.huge, 0);
        mapped.accessed
    };
    let token = accessed(&[7]);
    let planned = plan.decode_bytes;
    assert!((planned..planned + SLACK).contains(&token), "read {token}, planned {planned}");
    // Nothing of the token before is left in the count, and a prompt that chooses several experts reads more.
    let other = accessed(&[8]);
    assert!((planned..planned + SLACK).contains(&other), "read {other}, planned {planned}");
    let prompt = accessed(&(0..64).collect::<Vec<u32>>());
    assert!(prompt > planned + 8 * SLACK, "a prompt read {prompt}, a token {token}");
}
