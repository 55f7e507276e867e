//! Bad input at the command line: each case gives a diagnostic that names the thing, exit code 1, no panic and no file.

mod common;

use common::{copy_model, diagnostic, text};
use std::fs;
use std::path::Path;

/// Damages a copy of tiny-llama3, compiles it, and demands a diagnostic with all of these words and no output file.
fn refused(damage: impl Fn(&Path), words: &[&str]) {
    let folder = copy_model("tiny-llama3");
    damage(folder.path());
    let out = folder.path().join("out.llx");
    let said = diagnostic(&["compile", text(folder.path()), "-o", text(&out)]);
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
    assert!(said.contains("help:"), "no next step in: {said}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|n| n.ends_with(".json") || n.ends_with(".safetensors")), "something was left behind: {left:?}");
}

/// Replaces text in a JSON file of the model; the text must be there.
fn replace(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let before = fs::read_to_string(&path).unwrap();
    assert!(before.contains(from), "`{from}` is not in {file}");
    fs::write(path, before.replacen(from, to, 1)).unwrap();
}

/// Rewrites the header of the weights; returns nothing, keeps the data.
fn rewrite_header(folder: &Path, change: impl Fn(&str) -> String) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = change(std::str::from_utf8(&bytes[8..8 + length]).unwrap());
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&bytes[8 + length..]);
    fs::write(path, out).unwrap();
}

#[test]
fn a_truncated_checkpoint_is_named_with_its_sizes() {
    refused(
        |m| {
            let path = m.join("model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        },
        &["model.safetensors", "found", "expected"],
    );
}

#[test]
fn an_oversized_header_length_is_refused() {
    refused(
        |m| {
            let path = m.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
            fs::write(&path, bytes).unwrap();
        },
        &["model.safetensors", "header"],
    );
}

#[test]
fn overlapping_tensors_are_refused() {
    refused(
        |m| {
            rewrite_header(m, |h| {
                let mut json: serde_json::Value = serde_json::from_str(h).unwrap();
                json["model.layers.1.mlp.up_proj.weight"]["data_offsets"] =
                    json["model.layers.0.mlp.up_proj.weight"]["data_offsets"].clone();
                json.to_string()
            });
        },
        &["model.safetensors", "up_proj"],
    );
}

#[test]
fn a_header_that_lies_about_a_shape_is_refused() {
    refused(
        |m| {
            rewrite_header(m, |h| {
                let mut json: serde_json::Value = serde_json::from_str(h).unwrap();
                json["model.norm.weight"]["shape"] = serde_json::json!([u64::MAX, 3]);
                json.to_string()
            });
        },
        &["model.norm.weight"],
    );
}

#[test]
fn a_missing_tensor_is_named() {
    refused(
        |m| rewrite_header(m, |h| h.replace("model.layers.3.self_attn.k_proj.weight", "model.layers.3.self_attn.kk.weight")),
        &["model.layers.3.self_attn.k_proj.weight"],
    );
}

#[test]
fn a_config_that_disagrees_with_the_weights_names_tensor_and_key() {
    refused(
        |m| replace(m, "config.json", "\"intermediate_size\": 528", "\"intermediate_size\": 512"),
        &["proj", "intermediate_size", "528", "512"],
    );
    refused(|m| replace(m, "config.json", "\"num_hidden_layers\": 5", "\"num_hidden_layers\": 6"), &["model.layers.5"]);
}

#[test]
fn an_unknown_rope_type_lists_the_known_ones() {
    refused(|m| replace(m, "config.json", "\"rope_type\": \"llama3\"", "\"rope_type\": \"mystery\""), &["mystery", "llama3", "linear"]);
}

#[test]
fn impossible_dimensions_are_refused() {
    refused(|m| replace(m, "config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4"), &["num_key_value_heads"]);
    refused(|m| replace(m, "config.json", "\"hidden_size\": 192", "\"hidden_size\": 0"), &["hidden_size"]);
    refused(|m| replace(m, "config.json", "\"hidden_size\": 192", "\"hidden_size\": \"big\""), &["hidden_size"]);
    refused(|m| replace(m, "config.json", "{", "{{"), &["config.json"]);
}

#[test]
fn a_tokenizer_that_disagrees_with_the_vocabulary_is_refused() {
    refused(
        |m| {
            let other = common::fixtures().join("llama3-untied/model");
            assert!(other.exists());
            replace(m, "tokenizer.json", "\"id\": 1900", "\"id\": 9999999");
        },
        &["tokenizer.json"],
    );
}

#[test]
fn a_model_that_is_not_there_says_what_was_looked_for() {
    let said = diagnostic(&["compile", "no/such/folder", "-o", "out.llx"]);
    assert!(said.contains("no/such/folder") && said.contains("help:"), "{said}");
    assert!(!Path::new("out.llx").exists());
}

#[test]
fn an_output_folder_that_is_not_there_is_refused_before_any_work() {
    let model = common::fixtures().join("tiny-llama3/model");
    let said = diagnostic(&["compile", text(&model), "-o", "no/such/folder/out.llx"]);
    assert!(said.contains("no/such/folder"), "{said}");
}

#[test]
fn a_cache_format_for_an_f32_artifact_is_refused_with_a_way_out() {
    let folder = copy_model("tiny-llama3");
    let said = diagnostic(&["plan", text(folder.path()), "--quant", "f32", "--kv", "int8"]);
    for word in ["--kv int8", "--quant f32", "help:", "--quant bf16"] {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}
