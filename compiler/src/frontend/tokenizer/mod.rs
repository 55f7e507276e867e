//! From `tokenizer.json` and its neighbours to the two sections of an artifact that handle text. What they do at run time is in
//! `llamac-runtime` (`tokenizer`, `template`).

mod byte_level;
mod chat;
mod file;
mod parts;
mod vocab;

use crate::diag::{Diag, Result, Warning};
use llamac_runtime::tokenizer::build::{TableSource, build};

/// What the runtime maps.
#[derive(Debug, Clone)]
pub struct TokenizerSections {
    /// Bytes of the tokenizer section.
    pub table: Vec<u8>,
    /// Bytes of the template section, if there is a chat template.
    pub template: Option<Vec<u8>>,
    /// Everything worth telling the user.
    pub warnings: Vec<Warning>,
}

/// Compiles the text of `tokenizer.json`, with that of `tokenizer_config.json` and of `chat_template.jinja` if they exist. `vocab` is the
/// number of logits of the model. Places in diagnostics begin with the name of the file; the caller puts the folder in front.
///
/// # Errors
/// A file that cannot be read, a kind of tokenizer that is not supported, or one that does not fit the vocabulary.
pub fn compile(json: &[u8], config: Option<&[u8]>, jinja: Option<&str>, vocab: usize) -> Result<TokenizerSections> {
    let mut warnings = Vec::new();
    let table = compile_table(json, vocab, &mut warnings).map_err(|e| e.inside("tokenizer.json"))?;
    let template = chat::compile(config, jinja, &mut warnings)?;
    Ok(TokenizerSections { table, template, warnings })
}

fn compile_table(json: &[u8], vocab: usize, warnings: &mut Vec<Warning>) -> Result<Vec<u8>> {
    let file = file::parse(json)?;
    let expression = parts::expression(&file)?;
    let words = vocab::Vocabulary::of(&file, vocab, warnings)?;
    let bos = parts::bos(&file, &words.tokens)?;
    let merges = words.merges(&file.model.merges)?;
    let source = TableSource { tokens: words.tokens, merges, ignore_merges: file.model.ignore_merges, bos, expression };
    build(&source).map_err(|e| bad(e.to_string()))
}

/// A complaint about a tokenizer file.
fn bad(what: impl Into<String>) -> Diag {
    Diag::new("tokenizer", what).help("take the tokenizer files of this checkpoint, as they were published")
}

/// A complaint about something that the format allows and llamac does not.
fn unsupported(what: impl Into<String>) -> Diag {
    Diag::new("tokenizer", what)
        .help("llamac compiles the byte-level BPE tokenizers of Llama 3 and later; convert the tokenizer, or use another checkpoint")
}

#[cfg(test)]
mod tests;
