//! Tests of `config`: every key that is read, and every value that is refused.

use super::*;
use serde_json::{Value, json};

fn base() -> Value {
    json!({"architectures": ["LlamaForCausalLM"], "hidden_size": 192, "num_hidden_layers": 5, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 528, "vocab_size": 1924, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "eos_token_id": [1, 2]})
}
fn with(key: &str, value: Value) -> Value {
    let mut config = base();
    config[key] = value;
    config
}
fn read(config: &Value) -> Result<LlamaConfig> {
    parse_config(config.to_string().as_bytes())
}
fn refused(config: &Value, words: &[&str]) {
    let said = read(config).unwrap_err().to_string();
    for word in words.iter().chain(&["in:", "found:", "expected:", "help:"]) {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}
fn rope(value: Value) -> Result<Rope> {
    read(&with("rope_scaling", value)).map(|c| c.rope)
}

#[test]
fn all_keys_are_read() {
    let config = read(&base()).unwrap();
    assert_eq!((config.hidden, config.layers, config.heads, config.kv_heads, config.head_dim), (192, 5, 6, 2, 32));
    assert_eq!((config.ffn, config.vocab, config.max_positions, config.eps), (528, 1924, 4096, 1e-5));
    assert_eq!(config.rope, Rope { theta: 5e5, scaling: RopeScaling::None });
    assert_eq!((config.tied, config.attention_bias, config.mlp_bias, config.dtype, config.bos), (None, false, false, None, None));
    assert_eq!(config.eos, [1, 2]);
}

#[test]
fn optional_keys_have_the_defaults_of_transformers() {
    let mut config = base();
    for key in ["num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "eos_token_id"] {
        config.as_object_mut().unwrap().remove(key);
    }
    let read = read(&config).unwrap();
    assert_eq!((read.kv_heads, read.head_dim, read.max_positions, read.eps, read.rope.theta), (6, 32, 2048, 1e-6, 1e4));
    assert!(read.eos.is_empty());
}

#[test]
fn both_names_of_the_element_type_are_read() {
    assert_eq!(read(&with("torch_dtype", json!("bfloat16"))).unwrap().dtype, Some(DType::Bf16));
    assert_eq!(read(&with("dtype", json!("float32"))).unwrap().dtype, Some(DType::F32));
    refused(&with("dtype", json!("int7")), &["int7", "`dtype`"]);
}

#[test]
fn both_styles_of_rope_keys_are_read() {
    let llama3 = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let wanted = RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192.0 };
    assert_eq!(rope(llama3.clone()).unwrap(), Rope { theta: 5e5, scaling: wanted });
    let mut inside = llama3;
    inside["rope_theta"] = json!(1000000);
    assert_eq!(read(&with("rope_parameters", inside)).unwrap().rope, Rope { theta: 1e6, scaling: wanted });
    assert_eq!(rope(json!({"type": "linear", "factor": 2})).unwrap().scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!(rope(json!({"type": "dynamic", "factor": 2.0})).unwrap().scaling, RopeScaling::Dynamic { factor: 2.0 });
    assert_eq!(rope(json!({"rope_type": "default"})).unwrap().scaling, RopeScaling::None);
    assert_eq!(rope(Value::Null).unwrap().scaling, RopeScaling::None);
}

#[test]
fn rope_keys_that_cannot_be_are_named() {
    refused(
        &with("rope_scaling", json!({"rope_type": "mystery"})),
        &["mystery", "rope_scaling.rope_type", "default, linear, dynamic, llama3"],
    );
    refused(&with("rope_scaling", json!({"type": "yarn", "factor": 2})), &["yarn", "rope_scaling.type"]);
    refused(&with("rope_scaling", json!({"type": "linear"})), &["rope_scaling.factor", "nothing"]);
    refused(&with("rope_scaling", json!({"type": "linear", "factor": -1})), &["rope_scaling.factor", "-1"]);
    refused(&with("rope_scaling", json!({"type": "linear", "factor": 0.5})), &["rope_scaling.factor"]);
    refused(&with("rope_scaling", json!("linear")), &["`rope_scaling`", "an object"]);
    let mut scaling =
        json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1, "original_max_position_embeddings": 8192});
    refused(&with("rope_scaling", scaling.clone()), &["rope_scaling.high_freq_factor"]);
    scaling.as_object_mut().unwrap().remove("low_freq_factor");
    refused(&with("rope_scaling", scaling), &["rope_scaling.low_freq_factor"]);
    refused(&with("rope_theta", json!(0)), &["rope_theta"]);
    refused(&with("rope_theta", json!("big")), &["rope_theta"]);
    refused(&with("partial_rotary_factor", json!(0.5)), &["partial_rotary_factor"]);
}

#[test]
fn sizes_that_cannot_be_are_named() {
    for key in [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
    ] {
        for value in [json!(0), json!(-1), json!(1.5), json!("8"), json!([8]), json!(true), json!(u64::MAX), json!(1u64 << 40)] {
            refused(&with(key, value), &[&format!("`{key}`")]);
        }
    }
    for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"] {
        refused(&with(key, Value::Null), &[&format!("`{key}` is missing")]);
    }
}

#[test]
fn sizes_that_do_not_fit_each_other_are_named() {
    refused(&with("num_key_value_heads", json!(4)), &["`num_key_value_heads`", "divisor of num_attention_heads = 6"]);
    refused(&with("head_dim", json!(31)), &["`head_dim`", "even"]);
    let mut config = base();
    config["head_dim"] = Value::Null;
    config["num_attention_heads"] = json!(14);
    refused(&config, &["num_attention_heads", "head_dim"]);
    config["hidden_size"] = json!(14 * 5);
    refused(&config, &["hidden_size", "even"]);
    config["head_dim"] = json!(4096);
    config["num_attention_heads"] = json!(1 << 20);
    refused(&config, &["head_dim", "too wide"]);
}

#[test]
fn other_wrong_values_are_named() {
    refused(&with("hidden_act", json!("gelu")), &["hidden_act", "gelu", "silu"]);
    refused(&with("rms_norm_eps", json!(-1e-5)), &["rms_norm_eps"]);
    refused(&with("rms_norm_eps", json!(2)), &["rms_norm_eps"]);
    refused(&with("tie_word_embeddings", json!("yes")), &["tie_word_embeddings", "true or false"]);
    refused(&with("attention_bias", json!(1)), &["attention_bias"]);
    refused(&with("eos_token_id", json!([1, "x"])), &["eos_token_id"]);
    refused(&with("bos_token_id", json!(-5)), &["bos_token_id"]);
    refused(&with("quantization_config", json!({"quant_method": "gptq"})), &["gptq", "quantization_config"]);
}

#[test]
fn architectures_that_are_not_compiled_say_what_they_lack() {
    refused(&with("architectures", json!(["MllamaForConditionalGeneration"])), &["`text_config` is missing"]);
    refused(&with("architectures", json!(["Llama4ForConditionalGeneration"])), &["`text_config` is missing"]);
    refused(&with("architectures", json!(["GPT2LMHeadModel"])), &["GPT2LMHeadModel", "Llama family"]);
    let mut config = with("architectures", Value::Null);
    let said = read(&config).unwrap_err().to_string();
    assert!(said.contains("architectures"), "{said}");
    config["model_type"] = json!("llama");
    assert!(read(&config).is_ok());
}

fn llama4(change: impl Fn(&mut Value)) -> Result<LlamaConfig> {
    let mut config = base();
    config["architectures"] = json!(["Llama4ForCausalLM"]);
    change(&mut config);
    read(&config)
}

#[test]
fn layers_of_llama_4_come_from_lists_or_from_intervals() {
    let flags = |c: &LlamaConfig, f: fn(Kind) -> bool| (0..c.layers).map(|i| u8::from(f(c.kind(i)))).collect::<Vec<_>>();
    let plain = llama4(|_| {}).unwrap();
    assert_eq!(flags(&plain, |k| k.rope), [1, 1, 1, 0, 1]);
    assert_eq!(flags(&plain, |k| k.chunked), [1, 1, 1, 0, 1]);
    assert_eq!(flags(&plain, |k| k.experts), [1; 5]);
    let l = plain.llama4.as_ref().unwrap();
    assert_eq!((l.chunk, l.qk_norm, l.temperature, l.experts, l.top_k, l.dense_ffn), (8192, true, Some((8192.0, 0.1)), 16, 1, 16384));
    let listed = llama4(|c| {
        c["no_rope_layers"] = json!([1, 0, 1, 0, 1]);
        c["layer_types"] = json!(["chunked_attention", "full_attention", "full_attention", "full_attention", "chunked_attention"]);
        c["moe_layers"] = json!([4, 0]);
    });
    let listed = listed.unwrap();
    assert_eq!(flags(&listed, |k| k.rope), [1, 0, 1, 0, 1]);
    assert_eq!(flags(&listed, |k| k.chunked), [1, 0, 0, 0, 1]);
    assert_eq!(flags(&listed, |k| k.experts), [1, 0, 0, 0, 1]);
    let spaced = llama4(|c| {
        c["no_rope_layers"] = json!([]);
        c["no_rope_layer_interval"] = json!(2);
        c["interleave_moe_layer_step"] = json!(2);
        c["attn_temperature_tuning"] = json!(0);
    });
    let spaced = spaced.unwrap();
    assert_eq!((flags(&spaced, |k| k.rope), flags(&spaced, |k| k.experts)), (vec![1, 0, 1, 0, 1], vec![0, 1, 0, 1, 0]));
    assert_eq!(spaced.llama4.as_ref().unwrap().temperature, None);
    assert!(llama4(|c| c["attn_temperature_tuning"] = json!(4)).unwrap().llama4.unwrap().temperature.is_some());
}

#[test]
fn keys_of_llama_4_that_cannot_be_are_named() {
    for (key, value) in [
        ("no_rope_layers", json!([1, 0])),
        ("no_rope_layers", json!([1, 1, 1, 2, 1])),
        ("layer_types", json!(["full_attention"])),
        ("moe_layers", json!([5])),
        ("num_experts_per_tok", json!(17)),
        ("num_local_experts", json!(0)),
        ("attention_chunk_size", json!(-1)),
        ("floor_scale", json!(0)),
        ("interleave_moe_layer_step", json!(0)),
    ] {
        let said = llama4(|c| c[key] = value.clone()).unwrap_err().to_string();
        assert!(said.contains(key) && said.contains("expected:"), "{key}: {said}");
    }
}

#[test]
fn text_that_is_no_config_is_refused() {
    for text in ["", "{", "[]", "7", "\"x\"", "{{}", "\u{0}", &"[".repeat(10_000)] {
        assert!(parse_config(text.as_bytes()).is_err(), "{text:.10}");
    }
    assert!(parse_config(&[0xff, 0xfe]).is_err());
}

#[test]
fn the_name_is_the_last_part_of_the_path() {
    assert_eq!(read(&with("_name_or_path", json!("meta-llama/Llama-3.2-1B/"))).unwrap().name.as_deref(), Some("Llama-3.2-1B"));
    assert_eq!(read(&with("_name_or_path", json!(""))).unwrap().name, None);
}
