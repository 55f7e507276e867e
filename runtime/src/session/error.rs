//! Why a session refuses a request. Facts and advice; the command line renders them.

use crate::artifact::ArtifactError;
use crate::step::EngineError;
use crate::template::TemplateError;
use crate::tokenizer::TokenizerError;
use std::fmt;

/// Why text was not generated. What the session has cached stays valid.
#[derive(Debug)]
pub enum SessionError {
    /// The artifact cannot be used, or a step was refused.
    Engine(EngineError),
    /// The artifact's tokenizer cannot be used.
    Tokenizer(TokenizerError),
    /// The artifact's chat template cannot be used, or it refuses the conversation.
    Template(TemplateError),
    /// The model comes without a chat template.
    NoTemplate,
    /// A sampling setting that means nothing.
    BadSampling {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        found: f32,
        /// What is possible.
        expected: &'static str,
    },
    /// There are no tokens to continue.
    NoPrompt,
    /// The prompt leaves no room for an answer.
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that a sequence may have.
        max: usize,
    },
}

impl SessionError {
    /// Short code for diagnostics, stable.
    pub fn code(&self) -> &'static str {
        match self {
            SessionError::Engine(e) => e.code(),
            SessionError::Tokenizer(_) => "tokenizer",
            SessionError::Template(_) | SessionError::NoTemplate => "template",
            SessionError::BadSampling { .. } => "bad-option",
            SessionError::NoPrompt => "no-prompt",
            SessionError::PromptTooLong { .. } => "context-full",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        let help = match self {
            SessionError::Engine(e) => return e.help(),
            SessionError::Tokenizer(_) => "copy the file again, or compile the model again",
            SessionError::Template(_) => "change the messages, or write the prompt yourself and continue it as plain text",
            SessionError::NoTemplate => "this is probably a base model: give it a text to continue",
            SessionError::BadSampling { expected, .. } => return format!("possible values: {expected}"),
            SessionError::NoPrompt => "give a text to continue",
            SessionError::PromptTooLong { .. } => "shorten the text, or compile with a larger --max-context",
        };
        help.to_owned()
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::Engine(e) => write!(f, "{e}"),
            SessionError::Tokenizer(e) => write!(f, "{e}"),
            SessionError::Template(e) => write!(f, "{e}"),
            SessionError::NoTemplate => write!(f, "the model has no chat template"),
            SessionError::BadSampling { name, found, .. } => write!(f, "{name} cannot be {found}"),
            SessionError::NoPrompt => write!(f, "the prompt has no tokens"),
            SessionError::PromptTooLong { tokens, max } => {
                write!(f, "the prompt has {tokens} tokens and leaves no room for an answer: the limit is {max} tokens")
            }
        }
    }
}

impl std::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SessionError::Engine(e) => Some(e),
            SessionError::Tokenizer(e) => Some(e),
            SessionError::Template(e) => Some(e),
            _ => None,
        }
    }
}

impl From<EngineError> for SessionError {
    fn from(error: EngineError) -> SessionError {
        SessionError::Engine(error)
    }
}

impl From<ArtifactError> for SessionError {
    fn from(error: ArtifactError) -> SessionError {
        SessionError::Engine(EngineError::Artifact(error))
    }
}

impl From<TokenizerError> for SessionError {
    fn from(error: TokenizerError) -> SessionError {
        SessionError::Tokenizer(error)
    }
}

impl From<TemplateError> for SessionError {
    fn from(error: TemplateError) -> SessionError {
        SessionError::Template(error)
    }
}
