//! The tensors that the config.json of a Llama 3 or Llama 4 text model implies, with scales that keep activations near one. No values and no files here.

use serde_json::Value;

/// One tensor of the checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name in Hugging Face checkpoints.
    pub name: String,
    /// `[rows, columns]`, or `[length]`.
    pub shape: Vec<u64>,
    /// Mean of its values.
    pub mean: f32,
    /// Standard deviation of its values.
    pub std: f32,
}

impl Tensor {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Every tensor of the checkpoint, in the order of the model. Of a `Llama4ForConditionalGeneration` the text half.
///
/// # Errors
/// A key that is missing or is not a positive integer; an architecture whose tensors are not known here.
pub fn tensors(config: &Value) -> Result<Vec<Tensor>, String> {
    let (config, prefix) = match config.get("text_config") {
        Some(text) if config["model_type"] == "llama4" => (text, "language_model."),
        Some(_) => return Err(format!("config.json: no random checkpoint can be made of `model_type` {}", config["model_type"])),
        None => (config, ""),
    };
    let number = |key: &str| match config[key].as_u64() {
        Some(n) if n > 0 => Ok(n),
        _ => Err(format!("config.json: `{key}` must be a positive integer, found {}", config[key])),
    };
    let flag = |key: &str| config[key].as_bool().unwrap_or(false);
    let (hidden, layers, heads) = (number("hidden_size")?, number("num_hidden_layers")?, number("num_attention_heads")?);
    let kv_heads = number("num_key_value_heads").unwrap_or(heads);
    let head_dim = number("head_dim").unwrap_or(hidden / heads);
    let (inner, vocab) = (number("intermediate_size")?, number("vocab_size")?);
    let experts = number("num_local_experts").unwrap_or(0);
    let dense = if experts > 0 { number("intermediate_size_mlp")? } else { inner };

    // Logits of deviation 2.5 behind the last norm. What a layer adds is as large as what it adds to only after all layers together.
    let embed = 2.5 / (hidden as f32).sqrt();
    let added = embed / (2.0 * layers as f32).sqrt();
    let mut all = Vec::new();
    let mut push = |name: String, shape: &[u64], mean: f32, std: f32| {
        all.push(Tensor { name: format!("{prefix}{name}"), shape: shape.to_vec(), mean, std })
    };
    let scaled = |out: f32, columns: u64| out / (columns as f32).sqrt();
    push("model.embed_tokens.weight".into(), &[vocab, hidden], 0.0, embed);
    for i in 0..layers {
        let in_layer = |part: &str| format!("model.layers.{i}.{part}");
        push(in_layer("input_layernorm.weight"), &[hidden], 1.0, 0.1);
        push(in_layer("post_attention_layernorm.weight"), &[hidden], 1.0, 0.1);
        let mixture = experts > 0 && is_mixture(config, i);
        let (feed_forward, width) = match (experts, mixture) {
            (0, _) => ("mlp", inner),
            (_, false) => ("feed_forward", dense),
            (_, true) => ("feed_forward.shared_expert", inner),
        };
        let (attention_bias, mlp_bias) = (flag("attention_bias"), flag("mlp_bias"));
        let linears = [
            ("self_attn.q_proj".to_owned(), heads * head_dim, hidden, 1.0, attention_bias),
            ("self_attn.k_proj".to_owned(), kv_heads * head_dim, hidden, 1.0, attention_bias),
            ("self_attn.v_proj".to_owned(), kv_heads * head_dim, hidden, 1.0, attention_bias),
            ("self_attn.o_proj".to_owned(), hidden, heads * head_dim, added, attention_bias),
            (format!("{feed_forward}.gate_proj"), width, hidden, 1.0, mlp_bias),
            (format!("{feed_forward}.up_proj"), width, hidden, 1.0, mlp_bias),
            (format!("{feed_forward}.down_proj"), hidden, width, added, mlp_bias),
        ];
        for (part, rows, columns, out, bias) in linears {
            push(in_layer(&format!("{part}.weight")), &[rows, columns], 0.0, scaled(out, columns));
            if bias {
                push(in_layer(&format!("{part}.bias")), &[rows], 0.0, 0.1 * out);
            }
        }
        if mixture {
            // Router logits of deviation 2: gates between a half and one, and no expert that is never chosen.
            push(in_layer("feed_forward.router.weight"), &[experts, hidden], 0.0, scaled(2.0, hidden));
            push(in_layer("feed_forward.experts.gate_up_proj"), &[experts, hidden, 2 * inner], 0.0, scaled(1.0, hidden));
            push(in_layer("feed_forward.experts.down_proj"), &[experts, inner, hidden], 0.0, scaled(added, inner));
        }
    }
    push("model.norm.weight".into(), &[hidden], 1.0, 0.1);
    if !flag("tie_word_embeddings") {
        push("lm_head.weight".into(), &[vocab, hidden], 0.0, embed);
    }
    Ok(all)
}

/// Whether layer `i` of a Llama 4 model has experts: listed in `moe_layers`, else every `interleave_moe_layer_step`-th.
fn is_mixture(config: &Value, i: u64) -> bool {
    match config["moe_layers"].as_array() {
        Some(listed) => listed.iter().any(|l| l.as_u64() == Some(i)),
        None => (i + 1).is_multiple_of(config["interleave_moe_layer_step"].as_u64().unwrap_or(1).max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_1b_shape_has_the_parameters_of_the_published_model() {
        let config = json!({
            "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
            "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": true
        });
        let total: u64 = tensors(&config).expect("a config").iter().map(Tensor::elements).sum();
        assert_eq!(total, 1_235_814_400);
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = tensors(&json!({ "hidden_size": 64 })).expect_err("incomplete");
        assert!(error.contains("num_hidden_layers"), "{error}");
    }

    /// The names and shapes are those of a real checkpoint of that architecture.
    #[test]
    fn a_llama_4_config_implies_the_tensors_of_the_fixture() {
        for (model, files) in [("scout", 1), ("maverick", 2)] {
            let folder = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/fixtures/llama4-{model}-like/model"));
            let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).expect("a config")).expect("JSON");
            let mut expected = Vec::new();
            let mut read = 0;
            for entry in std::fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|e| e == "safetensors") {
                    let bytes = std::fs::read(&path).expect("a file");
                    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a valid file");
                    expected.extend(file.iter().map(|(n, t)| (n.to_owned(), t.shape().iter().map(|&d| d as u64).collect::<Vec<_>>())));
                    read += 1;
                }
            }
            let mut found: Vec<_> = tensors(&config).expect("tensors").into_iter().map(|t| (t.name, t.shape)).collect();
            expected.sort();
            found.sort();
            assert_eq!((read, &found), (files, &expected), "{model}");
        }
    }

    #[test]
    fn the_text_half_of_a_vision_model_has_its_prefix() {
        let folder = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/configs");
        let read = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(folder.join(name).join("config.json")).expect("a config")).expect("JSON")
        };
        let scout = tensors(&read("llama-4-scout-17b-16e")).expect("tensors");
        assert!(scout.iter().all(|t| t.name.starts_with("language_model.")));
        assert_eq!(scout.iter().map(Tensor::elements).sum::<u64>(), 107_769_861_120);
        assert!(tensors(&read("llama-3.2-11b-vision")).is_err_and(|e| e.contains("mllama")));
    }
}
