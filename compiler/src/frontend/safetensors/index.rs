//! Which files a checkpoint consists of, and the text of a shard index. No tensor is looked at here.

use super::json::Entries;
use crate::diag::{Diag, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// The file of a checkpoint in one piece.
pub const SINGLE_FILE: &str = "model.safetensors";

/// The index of a checkpoint in shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: Entries<String>,
}

/// Reads an index: file name by tensor name.
///
/// # Errors
/// Text that is no index, and file names that lead out of the folder.
pub fn parse_index(text: &[u8]) -> Result<BTreeMap<String, String>> {
    let index: Index = serde_json::from_slice(text).map_err(|e| {
        Diag::new("safetensors", "the shard index cannot be read")
            .found(e)
            .expected("a JSON object with `weight_map`: file name by tensor name")
            .help("download the index again")
    })?;
    for (tensor, file) in &index.weight_map.0 {
        let mut parts = Path::new(file).components();
        // HF caches link to files elsewhere, so links are followed; but a name must not lead out of the folder by itself.
        if !parts.clone().all(|c| matches!(c, Component::Normal(_))) || parts.next().is_none() || file.contains('\0') {
            return Err(Diag::new("safetensors", "the shard index names a file outside the folder of the model")
                .place(format_args!("`weight_map`, tensor `{tensor}`"))
                .found(format_args!("`{}`", file.escape_default()))
                .expected("the name of a file in the same folder")
                .help("do not use this checkpoint unless you know who made it"));
        }
    }
    Ok(index.weight_map.0)
}

/// What to say about a folder that has neither file: other formats are named, with the way to convert them.
pub(super) fn nothing_to_read(folder: &Path) -> Diag {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let ends = |ending: &str| names.iter().find(|n| n.ends_with(ending));
    let help = if let Some(name) = ends(".gguf") {
        format!("`{name}` is GGUF; llamac reads the safetensors files of the original checkpoint")
    } else if let Some(name) = ends(".pth").or(ends(".bin")) {
        format!(
            "`{name}` is a PyTorch pickle; convert it with transformers: `AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)`"
        )
    } else if let Some(name) = ends(".safetensors") {
        format!("`{name}` is there but no index; rename it to `{SINGLE_FILE}` if it is the whole model, else download `{INDEX_FILE}`")
    } else {
        "download the weights of the checkpoint, or use `llamac plan` which needs only config.json".to_owned()
    };
    Diag::new("weights", "no weights in this folder")
        .place(folder.display())
        .expected(format_args!("`{SINGLE_FILE}` or `{INDEX_FILE}`"))
        .help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_and_damage_is_refused() {
        let map = parse_index(br#"{"metadata":{"total_size":1},"weight_map":{"a":"x.safetensors"}}"#).unwrap();
        assert_eq!(map["a"], "x.safetensors");
        for text in ["", "{}", "[]", r#"{"weight_map":{"a":1}}"#, r#"{"weight_map":{"a":"x","a":"y"}}"#] {
            assert!(parse_index(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn file_names_that_leave_the_folder_are_refused() {
        for name in ["../x", "/etc/passwd", "a/../../b", "", ".", "./x/.."] {
            let said = parse_index(format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#).as_bytes());
            assert!(said.is_err_and(|d| d.to_string().contains("outside the folder")), "{name}");
        }
    }
}
