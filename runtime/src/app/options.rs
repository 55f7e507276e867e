//! What a run is asked to do, however the command line was parsed. Plain data.

use crate::memory::LoadMode;
use crate::sampler::Sampling;
use crate::session::{GenerateOptions, SessionOptions};
use std::path::PathBuf;

/// Tokens of a plain continuation when nobody says; a chat has no such limit.
pub const DEFAULT_MAX_TOKENS: usize = 512;

/// A run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunOptions {
    /// Where the text comes from; `None`: from the keyboard, or from a pipe.
    pub source: Option<Source>,
    /// The text is a message that the chat template puts into words, and without a source there are many of them.
    pub chat: bool,
    /// Instructions before a chat's first message; they make it a chat.
    pub system: Option<String>,
    /// Never use the chat template: a text is continued as it stands, also one that is typed.
    pub raw: bool,
    /// Settings that differ from the model's own.
    pub sampling: SamplingFlags,
    /// Tokens to generate at most.
    pub max_tokens: Option<usize>,
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// Go on behind the model's end-of-text tokens.
    pub ignore_eos: bool,
    /// Threads; `None`: one per physical core.
    pub threads: Option<usize>,
    /// How weights come into memory.
    pub load: LoadMode,
    /// Report the times of the start and the share of the memory roof.
    pub timings: bool,
    /// Print nothing but text and errors.
    pub quiet: bool,
}

/// Where a text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Text(String),
    /// A file.
    File(PathBuf),
    /// Standard input, to its end.
    Stdin,
}

/// Sampling settings of the command line; `None`: as the model's own settings say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SamplingFlags {
    /// See [`Sampling::temperature`].
    pub temperature: Option<f32>,
    /// See [`Sampling::top_k`].
    pub top_k: Option<usize>,
    /// See [`Sampling::top_p`].
    pub top_p: Option<f32>,
    /// See [`Sampling::min_p`].
    pub min_p: Option<f32>,
    /// See [`Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// See [`Sampling::frequency_penalty`].
    pub frequency_penalty: Option<f32>,
    /// See [`Sampling::presence_penalty`].
    pub presence_penalty: Option<f32>,
    /// See [`Sampling::seed`].
    pub seed: Option<u64>,
}

impl SamplingFlags {
    /// The model's settings with these in their place.
    pub fn over(&self, model: &Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(model.temperature),
            top_k: self.top_k.unwrap_or(model.top_k),
            top_p: self.top_p.unwrap_or(model.top_p),
            min_p: self.min_p.unwrap_or(model.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(model.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(model.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(model.presence_penalty),
            seed: self.seed.or(model.seed),
        }
    }
}

impl RunOptions {
    /// For the session.
    pub(super) fn session(&self) -> SessionOptions {
        SessionOptions { threads: self.threads, load: self.load, max_context: None }
    }

    /// Whether messages are answered, not a text continued.
    pub(super) fn is_chat(&self) -> bool {
        self.chat || self.system.is_some()
    }

    /// For one text or answer. A chat's next answer has the next seed: the same one would favour the same words again.
    pub(super) fn generate(&self, model: &Sampling, answer: u64) -> GenerateOptions {
        let mut sampling = self.sampling.over(model);
        sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(answer));
        let max_tokens = self.max_tokens.or((!self.is_chat()).then_some(DEFAULT_MAX_TOKENS));
        GenerateOptions { sampling: Some(sampling), max_tokens, stop: self.stop.clone(), ignore_eos: self.ignore_eos }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_replace_the_models_settings_one_by_one() {
        let model = Sampling { temperature: 0.6, top_p: 0.9, ..Sampling::default() };
        let flags = SamplingFlags { temperature: Some(0.0), seed: Some(7), ..SamplingFlags::default() };
        assert_eq!(flags.over(&model), Sampling { temperature: 0.0, seed: Some(7), ..model });
    }

    #[test]
    fn only_a_plain_text_has_a_limit_of_its_own_and_answers_have_different_seeds() {
        let mut options = RunOptions { sampling: SamplingFlags { seed: Some(5), ..SamplingFlags::default() }, ..RunOptions::default() };
        let seed = |o: &RunOptions, answer| o.generate(&Sampling::default(), answer).sampling.and_then(|s| s.seed);
        assert_eq!(options.generate(&Sampling::default(), 0).max_tokens, Some(DEFAULT_MAX_TOKENS));
        assert_eq!((seed(&options, 0), seed(&options, 2)), (Some(5), Some(7)));
        options.chat = true;
        assert_eq!(options.generate(&Sampling::default(), 0).max_tokens, None);
    }
}
