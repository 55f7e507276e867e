//! Chat templates: messages to the text that the model was trained on, by the checkpoint's own Jinja template, rendered as transformers
//! renders it. How Python prints and what its methods do is in `python`, JSON in `json`, dates in `date`.

mod date;
mod json;
mod python;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What the template section holds, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TemplateSource {
    /// The template.
    pub template: String,
    /// The one to take instead where there are tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_use: Option<String>,
    /// Text of the checkpoint's named tokens (`bos_token`, `eos_token`, ...), which are variables of the template.
    #[serde(default)]
    pub tokens: BTreeMap<String, String>,
}

/// One message of a conversation. [`Template::render`] takes anything that serializes to such a map; this is the plain one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool` ...
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// How to render a conversation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RenderOptions {
    /// Whether the text ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// Descriptions of tools, a list of JSON schemas.
    pub tools: Option<serde_json::Value>,
    /// Further variables of the template (`date_string`, `builtin_tools`, ...). They win over all others.
    pub variables: BTreeMap<String, serde_json::Value>,
    /// What `strftime_now` takes as the time, in seconds since 1970 UTC; `None` asks the clock.
    pub now: Option<i64>,
}

/// Why a template cannot be used or a conversation cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateError {
    /// The section is not what it should be.
    Damaged {
        /// What the reader says.
        detail: String,
    },
    /// The template does not parse.
    Syntax {
        /// Line of the template.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// The template failed, or refused the conversation.
    Failed {
        /// Line of the template; 0 if none is known.
        line: usize,
        /// What it says.
        detail: String,
    },
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateError::Damaged { detail } => write!(f, "the template section is damaged: {detail}"),
            TemplateError::Syntax { line, detail } => write!(f, "the chat template does not parse: line {line}: {detail}"),
            TemplateError::Failed { line: 0, detail } => write!(f, "{detail}"),
            TemplateError::Failed { line, detail } => write!(f, "{detail} (line {line} of the chat template)"),
        }
    }
}

impl std::error::Error for TemplateError {}

/// A parsed chat template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    tokens: BTreeMap<String, String>,
    has_tool_use: bool,
}

const MAIN: &str = "chat template";
const TOOL_USE: &str = "tool_use";

impl Template {
    /// Reads the bytes of a template section.
    ///
    /// # Errors
    /// Bytes that are no [`TemplateSource`], or a template that does not parse.
    pub fn from_bytes(bytes: &[u8]) -> Result<Template, TemplateError> {
        let source: TemplateSource = serde_json::from_slice(bytes).map_err(|e| TemplateError::Damaged { detail: e.to_string() })?;
        Template::new(source)
    }

    /// Parses a template.
    ///
    /// # Errors
    /// It does not parse.
    pub fn new(source: TemplateSource) -> Result<Template, TemplateError> {
        let mut environment = environment()?;
        let has_tool_use = source.tool_use.is_some();
        environment.add_template_owned(MAIN, source.template).map_err(|e| syntax_error(&e))?;
        if let Some(text) = source.tool_use {
            environment.add_template_owned(TOOL_USE, text).map_err(|e| syntax_error(&e))?;
        }
        Ok(Template { environment, tokens: source.tokens, has_tool_use })
    }

    /// The text of a conversation. It holds the texts of special tokens, BOS included where the template writes it: encode it with
    /// `parse_special` on and `add_bos` off.
    ///
    /// # Errors
    /// The template refuses the conversation, or fails on it.
    pub fn render<M: Serialize>(&self, messages: &[M], options: &RenderOptions) -> Result<String, TemplateError> {
        let now = options.now;
        let value = |v: &serde_json::Value| Value::from(Serde(v));
        let mut variables: BTreeMap<&str, Value> =
            self.tokens.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))).collect();
        variables.insert("messages", Value::from(Serde(messages)));
        variables.insert("tools", options.tools.as_ref().map_or(Value::from(()), value));
        variables.insert("documents", Value::from(()));
        variables.insert("add_generation_prompt", Value::from(options.add_generation_prompt));
        variables
            .insert("strftime_now", Value::from_function(move |format: String| date::strftime(&format, now.unwrap_or_else(date::now))));
        variables.extend(options.variables.iter().map(|(name, v)| (name.as_str(), value(v))));
        let name = if options.tools.is_some() && self.has_tool_use { TOOL_USE } else { MAIN };
        let template = self.environment.get_template(name).map_err(|e| failure(&e))?;
        template.render(Value::from_pairs(variables)).map_err(|e| failure(&e))
    }
}

/// Jinja as transformers sets it up.
fn environment() -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| syntax_error(&e))?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(|out, _, value| python::print(value).and_then(|text| out.write_str(&text).map_err(Error::from)));
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", python::print);
    environment.add_test("iterable", python::is_iterable);
    environment.add_function("raise_exception", |text: String| Err::<(), _>(Error::new(ErrorKind::InvalidOperation, text)));
    Ok(environment)
}

fn syntax_error(error: &Error) -> TemplateError {
    TemplateError::Syntax { line: error.line().unwrap_or(0), detail: detail(error) }
}

fn failure(error: &Error) -> TemplateError {
    TemplateError::Failed { line: error.line().unwrap_or(0), detail: detail(error) }
}

fn detail(error: &Error) -> String {
    match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests;
