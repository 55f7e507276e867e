//! The parts of a tokenizer beside its vocabulary: what is supported, by name.

use super::file::File;
use super::{bad, unsupported};
use crate::diag::{Diag, Result};
use llamac_runtime::tokenizer::build::TokenSource;
use serde_json::Value;

/// How GPT-2 splits a text, which a `ByteLevel` part does by itself if it is not told otherwise.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Type of a part; nothing if there is none.
fn kind(part: &Value) -> &str {
    part["type"].as_str().unwrap_or_default()
}

fn no_part(key: &str, part: &Value, expected: &str) -> Diag {
    let name = if part.is_null() { "nothing" } else { part["type"].as_str().unwrap_or("a part without a type") };
    unsupported(format!("`{key}` is {name}, which is not supported")).place(format_args!("`{key}`")).found(name).expected(expected)
}

fn no_setting(key: &str, setting: &str, part: &Value, expected: &str) -> Diag {
    let what = format!("`{setting}` of {} is not supported with this value", kind(part));
    unsupported(what).place(format_args!("`{key}`: `{setting}`")).found(&part[setting]).expected(expected)
}

/// The split expression. Checks every part that changes what tokens a text has.
pub(super) fn expression(file: &File) -> Result<String> {
    if !file.normalizer.is_null() {
        return Err(no_part("normalizer", &file.normalizer, "none"));
    }
    if kind(&file.decoder) != "ByteLevel" {
        return Err(no_part("decoder", &file.decoder, "ByteLevel"));
    }
    let model = &file.model;
    let texts = [("continuing_subword_prefix", &model.continuing_subword_prefix), ("end_of_word_suffix", &model.end_of_word_suffix)];
    for (key, text) in texts {
        if let Some(text) = text.as_deref().filter(|t| !t.is_empty()) {
            return Err(unsupported(format!("`model.{key}` is not supported"))
                .place(format_args!("`model.{key}`"))
                .found(text)
                .expected("nothing"));
        }
    }
    if let Some(dropout) = model.dropout.filter(|&d| d != 0.0) {
        return Err(unsupported("`model.dropout` gives a text other tokens each time")
            .place("`model.dropout`")
            .found(dropout)
            .expected("null"));
    }
    let part = &file.pre_tokenizer;
    match (kind(part), part["pretokenizers"].as_array().map(Vec::as_slice)) {
        ("ByteLevel", _) => byte_level(part, true).map(|()| GPT2.to_owned()),
        ("Sequence", Some([first, second])) if kind(first) == "Split" => {
            byte_level(second, false)?;
            split(first)
        }
        ("Sequence", Some(several)) => {
            let names: Vec<&str> = several.iter().map(kind).collect();
            let what = format!("a pre-tokenizer of {} is not supported", names.join(", "));
            Err(unsupported(what).place("`pre_tokenizer`").found(names.join(", ")).expected("Split, ByteLevel"))
        }
        _ => Err(no_part("pre_tokenizer", part, "ByteLevel, or a Sequence of Split and ByteLevel")),
    }
}

/// Checks a `ByteLevel` part, which must or must not split by itself.
fn byte_level(part: &Value, splits: bool) -> Result<()> {
    let key = "pre_tokenizer";
    if kind(part) != "ByteLevel" {
        return Err(no_part(key, part, "ByteLevel"));
    }
    // What is left out is true.
    let setting = |name: &str| part[name].as_bool().unwrap_or(true);
    if setting("add_prefix_space") {
        return Err(no_setting(key, "add_prefix_space", part, "false"));
    }
    if setting("use_regex") != splits {
        return Err(no_setting(key, "use_regex", part, if splits { "true" } else { "false behind a Split" }));
    }
    Ok(())
}

fn split(part: &Value) -> Result<String> {
    if part["behavior"] != "Isolated" {
        return Err(no_setting("pre_tokenizer", "behavior", part, "Isolated"));
    }
    if part["invert"] == true {
        return Err(no_setting("pre_tokenizer", "invert", part, "false"));
    }
    let expression = part["pattern"]["Regex"].as_str().map(str::to_owned);
    expression.ok_or_else(|| no_setting("pre_tokenizer", "pattern", part, "a Regex"))
}

/// The token that the post-processor puts in front of a text.
pub(super) fn bos(file: &File, tokens: &[TokenSource]) -> Result<Option<u32>> {
    let part = &file.post_processor;
    let list = match part["processors"].as_array() {
        Some(several) if kind(part) == "Sequence" => several.iter().collect(),
        _ => vec![part],
    };
    let mut bos = None;
    for part in list.into_iter().filter(|part| !part.is_null()) {
        match kind(part) {
            // It changes offsets only.
            "ByteLevel" => {}
            "TemplateProcessing" => bos = template(part, tokens)?.or(bos),
            _ => return Err(no_part("post_processor", part, "ByteLevel or TemplateProcessing")),
        }
    }
    Ok(bos)
}

fn template(part: &Value, tokens: &[TokenSource]) -> Result<Option<u32>> {
    let place = "`post_processor`: `single`";
    let pieces = part["single"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = match pieces {
        [text] if text.get("Sequence").is_some() => return Ok(None),
        [token, text] if text.get("Sequence").is_some() => token["SpecialToken"]["id"].as_str(),
        _ => None,
    };
    let what = "the post-processor does more than put one token in front of a text";
    let name = name.ok_or_else(|| unsupported(what).place(place).found(&part["single"]).expected("a SpecialToken and a Sequence"))?;
    let ids = part["special_tokens"][name]["ids"].as_array().map(Vec::as_slice).unwrap_or_default();
    let id = match ids {
        [id] => id.as_u64().and_then(|id| u32::try_from(id).ok()),
        _ => None,
    };
    let known = id.filter(|&id| tokens.get(id as usize).is_some_and(|t| t.added.is_some() && t.bytes == name.as_bytes()));
    let found = part["special_tokens"][name]["ids"].to_string();
    known
        .map(Some)
        .ok_or_else(|| bad(format!("the token {name} of the post-processor is not that token of the vocabulary")).place(place).found(found))
}
