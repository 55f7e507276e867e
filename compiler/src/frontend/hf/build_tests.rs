//! Tests of the module that is built from a config.

use super::super::config::parse_config;
use super::super::tensors::parameters;
use super::*;
use llamac_ir::verify::verify;

fn config(extra: &str) -> LlamaConfig {
    let text = format!(
        r#"{{"model_type":"llama","hidden_size":12,"num_hidden_layers":3,"num_attention_heads":6,"num_key_value_heads":2,"head_dim":4,
        "intermediate_size":20,"vocab_size":50,"rms_norm_eps":1e-5{extra}}}"#
    );
    parse_config(text.as_bytes()).unwrap()
}

fn built(config: &LlamaConfig, tied: bool) -> Module {
    let dtype = |_: &str| DType::Bf16;
    module(&Build { config, tied, names: Names::default(), name: "m", dtype: &dtype, max_step: 64, max_rows: 8, max_context: 128 }).unwrap()
}

#[test]
fn the_module_verifies_in_every_shape_and_prints_the_same_for_any_depth() {
    for extra in ["", r#","attention_bias":true"#, r#","mlp_bias":true,"num_key_value_heads":6"#] {
        let config = config(extra);
        for tied in [false, true] {
            let module = built(&config, tied);
            verify(&module, Stage::Imported).unwrap_or_else(|e| panic!("{e:?}"));
            assert_eq!(llamac_ir::parse::parse(&module.to_string()).unwrap(), module);
            let weights = |f: &Func| f.weights.len();
            let biases = 4 * usize::from(config.attention_bias) + 3 * usize::from(config.mlp_bias);
            assert_eq!(module.funcs.iter().map(weights).collect::<Vec<_>>(), [9 + biases, if tied { 3 } else { 4 }]);
        }
    }
    let deep = LlamaConfig { layers: 126, ..config("") };
    assert_eq!(built(&deep, true).to_string().lines().count(), built(&config(""), true).to_string().lines().count());
}

#[test]
fn parameters_are_counted_from_the_shapes() {
    // Embedding 600, last norm 12; per layer: norms 24, q and o 2 * 24 * 12, k and v 2 * 8 * 12, MLP 3 * 20 * 12.
    assert_eq!(parameters(&config(""), true), 612 + 3 * (24 + 576 + 192 + 720));
    assert_eq!(parameters(&config(""), false), 1212 + 3 * (24 + 576 + 192 + 720));
    assert_eq!(parameters(&config(r#","attention_bias":true"#), true), 612 + 3 * (1512 + 24 + 16 + 12));
}
