//! The chat template and the named tokens that it uses, from `tokenizer_config.json` and `chat_template.jinja`.

use super::bad;
use crate::diag::{Diag, Result, Warning};
use llamac_runtime::template::{Template, TemplateError, TemplateSource};
use serde_json::{Map, Value};

const CONFIG: &str = "tokenizer_config.json";
const FILE: &str = "chat_template.jinja";
const KEY: &str = "`chat_template`";

/// The template section; `None` if there is no template, or none that parses, which is a warning.
pub(super) fn compile(config: Option<&[u8]>, jinja: Option<&str>, warnings: &mut Vec<Warning>) -> Result<Option<Vec<u8>>> {
    let config = config.map(parse).transpose().map_err(|e| e.inside(CONFIG))?.unwrap_or_default();
    let mut source = source(&config).map_err(|e| e.inside(CONFIG))?;
    let mut place = CONFIG;
    if let Some(text) = jinja {
        // The file is the newer way, and wins in transformers too.
        place = FILE;
        source.get_or_insert_default().template = text.to_owned();
    }
    let Some(mut source) = source else {
        return Ok(None);
    };
    source.tokens =
        config.iter().filter(|(key, _)| key.ends_with("_token")).filter_map(|(key, v)| Some((key.clone(), token(v)?))).collect();
    if let Err(error) = Template::new(source.clone()) {
        warnings.push(Warning(unusable(&error, place)));
        return Ok(None);
    }
    let json = serde_json::to_vec(&source).map_err(|e| bad("the chat template cannot be stored").found(e).inside(place))?;
    Ok(Some(json))
}

fn unusable(error: &TemplateError, place: &str) -> Diag {
    let help = "the artifact is written without a chat template: prompts are taken as they are";
    Diag::new("template", "the chat template cannot be used").place(place).found(error).help(help)
}

fn parse(config: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(config).map_err(|e| bad("the file is not JSON").found(e).expected("a JSON object"))
}

/// `chat_template`: one, or several with names.
fn source(config: &Map<String, Value>) -> Result<Option<TemplateSource>> {
    let list = match config.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(TemplateSource { template: text.clone(), ..TemplateSource::default() })),
        Some(Value::Array(list)) => list,
        Some(_) => {
            return Err(bad("`chat_template` has a value that cannot be").place(KEY).expected("a string, or a list of named templates"));
        }
    };
    let named = |name: &str| list.iter().find(|t| t["name"] == name).and_then(|t| t["template"].as_str()).map(str::to_owned);
    let template =
        named("default").ok_or_else(|| bad("`chat_template` has no template named `default`").place(KEY).expected("one with that name"))?;
    Ok(Some(TemplateSource { template, tool_use: named("tool_use"), ..TemplateSource::default() }))
}

/// A named token: its text, or an object that has the text.
fn token(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}
