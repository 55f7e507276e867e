//! What a caller may ask of a session: how to run, what to continue, when to stop. Plain data.

use crate::memory::LoadMode;
use crate::sampler::Sampling;
use crate::step::EngineOptions;

/// How to run an artifact in a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionOptions {
    /// Threads, the caller's included; `None`: one per physical core that the process may use. The text does not depend on it.
    pub threads: Option<usize>,
    /// Tokens that the conversation may have; `None`: what the artifact was compiled for, which is also the most.
    pub max_context: Option<usize>,
    /// How weights come into memory.
    pub load: LoadMode,
}

impl SessionOptions {
    pub(crate) fn engine(&self) -> EngineOptions {
        let SessionOptions { threads, max_context, load } = *self;
        EngineOptions { threads, max_context, load, max_batch: Some(1), ..EngineOptions::default() }
    }
}

/// How to continue a prompt. The default: as the model's own settings ask for, until it ends its text or the context is full.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerateOptions {
    /// How to choose tokens; `None`: as the model's own settings say ([`super::Session::default_sampling`]).
    pub sampling: Option<Sampling>,
    /// Tokens to generate at most; `None`: until the context is full.
    pub max_tokens: Option<usize>,
    /// Strings that end the text. They are not part of it, and no beginning of one is ever shown.
    pub stop: Vec<String>,
    /// Go on behind the model's end-of-text tokens.
    pub ignore_eos: bool,
}

/// What to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt<'p> {
    /// Text. Special tokens may be written in it (`<|eot_id|>`); a begin-of-sequence token is put in front unless the text has it.
    Text(&'p str),
    /// Token ids, as they are.
    Tokens(&'p [u32]),
}

impl<'p> From<&'p str> for Prompt<'p> {
    fn from(text: &'p str) -> Prompt<'p> {
        Prompt::Text(text)
    }
}

impl<'p> From<&'p String> for Prompt<'p> {
    fn from(text: &'p String) -> Prompt<'p> {
        Prompt::Text(text)
    }
}

impl<'p> From<&'p [u32]> for Prompt<'p> {
    fn from(tokens: &'p [u32]) -> Prompt<'p> {
        Prompt::Tokens(tokens)
    }
}

impl<'p> From<&'p Vec<u32>> for Prompt<'p> {
    fn from(tokens: &'p Vec<u32>) -> Prompt<'p> {
        Prompt::Tokens(tokens)
    }
}
