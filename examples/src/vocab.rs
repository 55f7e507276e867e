//! The small files of a random checkpoint: a tokenizer of 256 bytes and the special tokens, its configuration, generation defaults.

use serde_json::{Map, Value, json};

/// The split expression of Llama 3's tokenizer.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>\
{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

/// Special tokens: name and distance from the begin-of-text token, as in the published vocabularies.
const SPECIAL: &[(&str, u64)] = &[
    ("<|begin_of_text|>", 0),
    ("<|end_of_text|>", 1),
    ("<|start_header_id|>", 6),
    ("<|end_header_id|>", 7),
    ("<|eom_id|>", 8),
    ("<|eot_id|>", 9),
];

/// Files by name, for a model with this config.
///
/// # Errors
/// The vocabulary is too small for 256 bytes and the special tokens.
pub fn files(config: &Value) -> Result<Vec<(&'static str, Value)>, String> {
    let vocab = config["vocab_size"].as_u64().unwrap_or(0);
    let bos = config["bos_token_id"].as_u64().unwrap_or(vocab.saturating_sub(10));
    if bos < 256 || bos + 10 > vocab {
        return Err(format!(
            "config.json: `bos_token_id` is {bos}; 256 bytes must fit before it and 10 special tokens in `vocab_size`, {vocab}"
        ));
    }
    let special: Vec<(&str, u64)> = SPECIAL.iter().map(|&(name, at)| (name, bos + at)).collect();
    let mut entries: Map<String, Value> = (0..=255u8).map(|b| (byte_character(b).to_string(), json!(b))).collect();
    entries.extend(special.iter().map(|&(name, id)| (name.to_owned(), json!(id))));
    let added: Vec<Value> = special
        .iter()
        .map(|(name, id)| json!({ "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }))
        .collect();
    let begin = SPECIAL[0].0;
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        ] },
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": begin, "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { begin: { "id": begin, "ids": [bos], "tokens": [begin] } } },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": true, "vocab": entries, "merges": [] },
    });
    let end = |name: &str| special.iter().find(|(n, _)| *n == name).map(|(_, id)| *id);
    let generation = json!({
        "bos_token_id": bos, "eos_token_id": [end("<|end_of_text|>"), end("<|eom_id|>"), end("<|eot_id|>")],
        "do_sample": true, "temperature": 0.6, "top_p": 0.9,
    });
    let tokenizer_config = json!({
        "bos_token": begin, "eos_token": "<|eot_id|>", "chat_template": TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast",
    });
    Ok(vec![("tokenizer.json", tokenizer), ("tokenizer_config.json", tokenizer_config), ("generation_config.json", generation)])
}

/// The character that stands for a byte in byte-level vocabularies: itself if it prints, else one from U+0100 on.
fn byte_character(byte: u8) -> char {
    let prints = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !prints(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_characters_of_byte_level_vocabularies() {
        assert_eq!([b' ', b'\n', b'A', 0x7f, 0xad].map(byte_character), ['Ġ', 'Ċ', 'A', 'ġ', 'Ń']);
        let all: std::collections::BTreeSet<char> = (0..=255).map(byte_character).collect();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn special_tokens_stay_inside_the_vocabulary() {
        assert!(files(&json!({ "vocab_size": 266 })).is_ok());
        assert!(files(&json!({ "vocab_size": 265 })).is_err());
        assert!(files(&json!({ "vocab_size": 300, "bos_token_id": 295 })).is_err());
    }
}
