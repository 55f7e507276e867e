//! The tensors that a Llama 3 config.json implies, with scales that keep activations near one. No values and no files here.

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

/// Every tensor of the checkpoint, in the order of the model.
///
/// # Errors
/// A key that is missing or is not a positive integer.
pub fn tensors(config: &Value) -> Result<Vec<Tensor>, String> {
    let number = |key: &str| match config[key].as_u64() {
        Some(n) if n > 0 => Ok(n),
        _ => Err(format!("config.json: `{key}` must be a positive integer, found {}", config[key])),
    };
    let flag = |key: &str| config[key].as_bool().unwrap_or(false);
    let (hidden, layers, heads) = (number("hidden_size")?, number("num_hidden_layers")?, number("num_attention_heads")?);
    let kv_heads = number("num_key_value_heads").unwrap_or(heads);
    let head_dim = number("head_dim").unwrap_or(hidden / heads);
    let (inner, vocab) = (number("intermediate_size")?, number("vocab_size")?);

    // Logits of deviation 2.5 behind the last norm. What a layer adds is as large as what it adds to only after all layers together.
    let embed = 2.5 / (hidden as f32).sqrt();
    let added = embed / (2.0 * layers as f32).sqrt();
    let mut all = Vec::new();
    let mut push = |name: String, shape: &[u64], mean: f32, std: f32| all.push(Tensor { name, shape: shape.to_vec(), mean, std });
    push("model.embed_tokens.weight".into(), &[vocab, hidden], 0.0, embed);
    for i in 0..layers {
        let norm = |part: &str| format!("model.layers.{i}.{part}.weight");
        push(norm("input_layernorm"), &[hidden], 1.0, 0.1);
        push(norm("post_attention_layernorm"), &[hidden], 1.0, 0.1);
        let linears = [
            ("self_attn.q_proj", heads * head_dim, hidden, 1.0, flag("attention_bias")),
            ("self_attn.k_proj", kv_heads * head_dim, hidden, 1.0, flag("attention_bias")),
            ("self_attn.v_proj", kv_heads * head_dim, hidden, 1.0, flag("attention_bias")),
            ("self_attn.o_proj", hidden, heads * head_dim, added, flag("attention_bias")),
            ("mlp.gate_proj", inner, hidden, 1.0, flag("mlp_bias")),
            ("mlp.up_proj", inner, hidden, 1.0, flag("mlp_bias")),
            ("mlp.down_proj", hidden, inner, added, flag("mlp_bias")),
        ];
        for (part, rows, columns, out, bias) in linears {
            push(format!("model.layers.{i}.{part}.weight"), &[rows, columns], 0.0, out / (columns as f32).sqrt());
            if bias {
                push(format!("model.layers.{i}.{part}.bias"), &[rows], 0.0, 0.1 * out);
            }
        }
    }
    push("model.norm.weight".into(), &[hidden], 1.0, 0.1);
    if !flag("tie_word_embeddings") {
        push("lm_head.weight".into(), &[vocab, hidden], 0.0, embed);
    }
    Ok(all)
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
}
