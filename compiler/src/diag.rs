//! Diagnostics: what a user reads when something is wrong with the input. Plain data and its text; printing and exit codes are in `cli`.

use std::fmt;

/// Result of everything in this crate that reads user input.
pub type Result<T> = std::result::Result<T, Diag>;

/// One error, as data. Built in one expression: `Diag::new("config", "..").place(file).found(x).expected(y).help("..")`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diag {
    /// A word that scripts can match: `config`, `safetensors`, `weights`, `io`, ...
    pub code: &'static str,
    /// One sentence without a full stop: what is wrong.
    pub what: String,
    /// File, and key or tensor in it.
    pub place: Option<Box<str>>,
    /// What is there.
    pub found: Option<Box<str>>,
    /// What should be there.
    pub expected: Option<Box<str>>,
    /// What to do next.
    pub help: Option<Box<str>>,
}

fn boxed(text: impl fmt::Display) -> Option<Box<str>> {
    Some(text.to_string().into_boxed_str())
}

impl Diag {
    /// An error with nothing but its sentence.
    pub fn new(code: &'static str, what: impl Into<String>) -> Diag {
        Diag { code, what: what.into(), place: None, found: None, expected: None, help: None }
    }
    /// Says where.
    #[must_use]
    pub fn place(mut self, place: impl fmt::Display) -> Diag {
        self.place = boxed(place);
        self
    }
    /// Says what is there.
    #[must_use]
    pub fn found(mut self, found: impl fmt::Display) -> Diag {
        self.found = boxed(found);
        self
    }
    /// Says what should be there.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display) -> Diag {
        self.expected = boxed(expected);
        self
    }
    /// Says what to do next.
    #[must_use]
    pub fn help(mut self, help: impl fmt::Display) -> Diag {
        self.help = boxed(help);
        self
    }
    /// Puts a file in front of the place (`config.json` before `rope_scaling.factor`).
    #[must_use]
    pub fn inside(mut self, file: impl fmt::Display) -> Diag {
        self.place = match self.place {
            Some(place) => boxed(format_args!("{file}: {place}")),
            None => boxed(file),
        };
        self
    }
    /// A file that could not be opened, read or written.
    pub fn io(what: impl Into<String>, file: impl fmt::Display, error: &std::io::Error) -> Diag {
        Diag::new("io", what).place(file).found(error)
    }

    fn render(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        write!(f, "{kind}[{}]: {}", self.code, self.what)?;
        let lines = [("in", &self.place), ("found", &self.found), ("expected", &self.expected), ("help", &self.help)];
        for (label, text) in lines {
            if let Some(text) = text {
                // Continuation lines stand under the first one, so that the labels stay easy to find.
                let text = text.replace('\n', "\n            ");
                write!(f, "\n  {:<10}{text}", format!("{label}:"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render(f, "error")
    }
}

impl std::error::Error for Diag {}

/// Something to tell the user that does not stop the work. Same parts as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub Diag);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.render(f, "warning")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_shows_its_parts_under_each_other() {
        let diag = Diag::new("config", "`hidden_size` must be positive")
            .place("`hidden_size`")
            .found(0)
            .expected("a positive integer")
            .help("take the config.json\nof the checkpoint")
            .inside("m/config.json");
        assert_eq!(
            diag.to_string(),
            "error[config]: `hidden_size` must be positive\n  in:       m/config.json: `hidden_size`\n  found:    0\n  \
             expected: a positive integer\n  help:     take the config.json\n            of the checkpoint"
        );
        assert_eq!(Warning(Diag::new("weights", "extra")).to_string(), "warning[weights]: extra");
    }

    #[test]
    fn a_result_stays_small_enough_to_return_by_value() {
        assert!(size_of::<Diag>() <= 120);
    }
}
