//! Tokenizers of checkpoints: what is refused and how, and that what is compiled encodes and decodes as the `tokenizers` crate does.

use super::*;
use llamac_runtime::template::{Message, RenderOptions, Template};
use llamac_runtime::tokenizer::{EncodeOptions, Tokenizer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

mod oracle;
mod published;

const PLAIN: EncodeOptions = EncodeOptions { parse_special: true, add_bos: false };
const AS_TEXT: EncodeOptions = EncodeOptions { parse_special: false, add_bos: false };

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name).join("model")
}

/// `tokenizer.json` of a fixture.
fn json_of(name: &str) -> Value {
    let path = model(name).join("tokenizer.json");
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// A tokenizer of the 256 bytes, a merge and a special token, as JSON that tests then damage.
fn small() -> Value {
    let visible: Vec<char> = (0..=0x143).filter_map(char::from_u32).filter(|c| byte_level::bytes(&c.to_string()).is_some()).collect();
    let mut vocab: serde_json::Map<String, Value> = (0..).zip(&visible).map(|(id, c)| (c.to_string(), json!(id))).collect();
    vocab.insert("ab".into(), json!(256));
    json!({
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": { "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [257], "tokens": ["<s>"] } } },
        "decoder": { "type": "ByteLevel" },
        "model": { "type": "BPE", "vocab": vocab, "merges": ["a b"] },
        "added_tokens": [{ "id": 257, "content": "<s>", "special": true }],
    })
}

fn compiled(json: &Value, vocab: usize) -> Result<Tokenizer> {
    let sections = compile(json.to_string().as_bytes(), None, None, vocab)?;
    Ok(Tokenizer::from_bytes(sections.table).unwrap())
}

/// Damages the small tokenizer; the diagnostic must have all of these words.
fn refused(damage: impl Fn(&mut Value), words: &[&str]) {
    let mut json = small();
    damage(&mut json);
    let said = compiled(&json, 258).expect_err("a damaged tokenizer is refused").to_string();
    for word in ["tokenizer.json", "help:"].iter().chain(words) {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[test]
fn a_small_tokenizer_compiles() {
    let t = compiled(&small(), 258).unwrap();
    assert_eq!((t.vocab_len(), t.bos(), t.token_id("ab")), (258, Some(257), Some(256)));
    assert_eq!(t.decode(&t.encode("ab <s>c", EncodeOptions { parse_special: true, add_bos: true }), false), "<s>ab <s>c");
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    for text in ["", "{", "[]", "{}", r#"{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}"#] {
        let said = compile(text.as_bytes(), None, None, 10).expect_err(text).to_string();
        assert!(said.contains("tokenizer.json") && said.contains("help:"), "{said}");
    }
}

#[test]
fn kinds_of_tokenizers_that_are_not_supported_are_named() {
    refused(|t| t["model"] = json!({ "type": "Unigram", "vocab": [["a", -1.0]] }), &["Unigram", "BPE"]);
    refused(|t| t["normalizer"] = json!({ "type": "NFC" }), &["NFC", "`normalizer`"]);
    refused(|t| t["decoder"] = json!({ "type": "Metaspace" }), &["Metaspace", "`decoder`"]);
    refused(|t| t["decoder"] = Value::Null, &["nothing", "`decoder`"]);
    refused(|t| t["pre_tokenizer"] = json!({ "type": "Whitespace" }), &["Whitespace", "`pre_tokenizer`"]);
    refused(|t| t["pre_tokenizer"]["add_prefix_space"] = json!(true), &["add_prefix_space", "found:    true"]);
    refused(
        |t| t["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [{ "type": "Digits" }, { "type": "ByteLevel" }] }),
        &["Digits, ByteLevel"],
    );
    let split = |behavior: &str, pattern: Value| {
        let part = json!({ "type": "Split", "pattern": pattern, "behavior": behavior, "invert": false });
        json!({ "type": "Sequence", "pretokenizers": [part, { "type": "ByteLevel", "add_prefix_space": false, "use_regex": false }] })
    };
    refused(|t| t["pre_tokenizer"] = split("Removed", json!({ "Regex": "a" })), &["behavior", "Removed", "Isolated"]);
    refused(|t| t["pre_tokenizer"] = split("Isolated", json!({ "String": " " })), &["pattern", "a Regex"]);
    refused(|t| t["pre_tokenizer"] = split("Isolated", json!({ "Regex": "(" })), &["expression"]);
    refused(|t| t["post_processor"] = json!({ "type": "BertProcessing" }), &["BertProcessing"]);
    refused(|t| t["post_processor"]["single"].as_array_mut().unwrap().reverse(), &["post_processor"]);
    refused(|t| t["model"]["dropout"] = json!(0.1), &["dropout"]);
    refused(|t| t["model"]["end_of_word_suffix"] = json!("</w>"), &["</w>"]);
    refused(|t| t["added_tokens"][0]["lstrip"] = json!(true), &["lstrip", "<s>"]);
}

#[test]
fn parts_that_disagree_are_named() {
    refused(
        |t| t["added_tokens"][0]["id"] = json!(9_999_999_999_u64),
        &["disagrees with the vocabulary", "9999999999", "<s>", "below 258"],
    );
    refused(|t| t["model"]["vocab"]["ab"] = json!(258), &["disagrees with the vocabulary", "258", "`model.vocab`"]);
    refused(|t| t["model"]["vocab"]["ab"] = json!(7), &["same id", "\"ab\"", "id 7"]);
    refused(|t| t["added_tokens"][0]["id"] = json!(256), &["same id", "\"<s>\"", "\"ab\""]);
    refused(|t| t["model"]["vocab"]["<s>"] = json!(255), &["same id"]);
    refused(|t| t["model"]["merges"] = json!(["a b", "a c"]), &["merges[1]", "\"ac\""]);
    refused(|t| t["model"]["merges"] = json!([["x", "yz"]]), &["merges[0]", "\"yz\""]);
    refused(|t| t["model"]["merges"] = json!(["abc"]), &["merges[0]", "not two tokens"]);
    refused(|t| t["post_processor"]["special_tokens"]["<s>"]["ids"] = json!([3]), &["<s>", "[3]"]);
    refused(|t| drop(t["model"]["vocab"].as_object_mut().unwrap().remove("z")), &["byte-level", "0x7a"]);
}

#[test]
fn a_vocabulary_that_is_much_too_small_is_told() {
    let json = small().to_string();
    let warnings = |vocab| compile(json.as_bytes(), None, None, vocab).unwrap().warnings;
    assert_eq!(warnings(320).len(), 0);
    assert!(warnings(32_000)[0].to_string().contains("31742"));
}

#[test]
fn templates_are_found_in_each_place_and_form() {
    let json = small().to_string();
    let template = |config: Value, jinja: Option<&str>| {
        let sections = compile(json.as_bytes(), Some(config.to_string().as_bytes()), jinja, 258)?;
        let told = sections.warnings.iter().map(ToString::to_string).collect::<String>();
        let text = sections
            .template
            .map(|t| Template::from_bytes(&t).unwrap().render(&[Message::new("user", "hi")], &RenderOptions::default()).unwrap());
        Ok::<_, Diag>(text.unwrap_or(told))
    };
    let config = json!({ "chat_template": "{{ bos_token }}{{ eos_token }}", "bos_token": "<s>", "eos_token": { "content": "</s>", "special": true }, "pad_token": null });
    assert_eq!(template(config.clone(), None).unwrap(), "<s></s>");
    assert_eq!(template(config.clone(), Some("file {{ bos_token }}")).unwrap(), "file <s>");
    let list = json!([{ "name": "tool_use", "template": "tools" }, { "name": "default", "template": "plain" }]);
    assert_eq!(template(json!({ "chat_template": list }), None).unwrap(), "plain");
    assert_eq!(template(json!({}), None).unwrap(), "");
    assert_eq!(template(json!({}), Some("alone")).unwrap(), "alone");
    assert!(template(json!({ "chat_template": "{% if %}" }), None).unwrap().contains("cannot be used"));
    for (config, word) in [(json!([]), "JSON"), (json!({ "chat_template": 3 }), "cannot be"), (json!({ "chat_template": [] }), "default")] {
        let said = template(config, None).unwrap_err().to_string();
        assert!(said.contains("tokenizer_config.json") && said.contains(word) && said.contains("help:"), "{said}");
    }
}

#[test]
fn the_template_of_a_checkpoint_renders() {
    let folder = model("tiny-llama3");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let sections = compile(&read("tokenizer.json"), Some(&read("tokenizer_config.json")), None, 1924).unwrap();
    let template = Template::from_bytes(&sections.template.unwrap()).unwrap();
    let text =
        template.render(&[Message::new("user", "Hi")], &RenderOptions { add_generation_prompt: true, ..RenderOptions::default() }).unwrap();
    let tokenizer = Tokenizer::from_bytes(sections.table).unwrap();
    let ids = tokenizer.encode(&text, PLAIN);
    assert_eq!(ids[0], tokenizer.bos().unwrap());
    assert!(ids.len() < text.len() / 3, "special tokens of the template are tokens: {text:?}");
    assert!(text.contains("Hi") && text.ends_with("\n\n"), "{text:?}");
}

#[test]
fn the_same_file_gives_the_same_bytes() {
    let json = json_of("tiny-llama3").to_string();
    let table = || compile(json.as_bytes(), None, None, 1924).unwrap().table;
    assert_eq!(table(), table());
}
