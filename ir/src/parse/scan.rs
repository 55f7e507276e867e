//! Reading tokens from text: names, numbers, strings, each asked for by who expects it. Types are in `ty`, the grammar is in the
//! parent module.

use super::ParseError;
use crate::print;

pub(super) type Result<T> = std::result::Result<T, ParseError>;

/// A text and a place in it, never inside a character.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
    /// Skips white space and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.text.len() - rest.len();
            if !rest.starts_with("//") {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }
    /// Where the next token begins.
    pub(super) fn place(&mut self) -> usize {
        self.skip();
        self.at
    }
    pub(super) fn at_end(&mut self) -> bool {
        self.place() == self.text.len()
    }

    /// What stands at the next token, for messages.
    fn found(&mut self) -> String {
        self.skip();
        let rest = self.rest();
        let word: String = rest.chars().take_while(|c| print::is_name_char(*c) || matches!(c, '%' | '@')).take(40).collect();
        match rest.chars().next() {
            None => "the end of the text".to_owned(),
            Some(c) if word.is_empty() => format!("`{c}`"),
            Some(_) => format!("`{word}`"),
        }
    }
    /// An error at the next token.
    pub(super) fn error(&mut self, expected: impl Into<String>) -> ParseError {
        let message = format!("found {}", self.found());
        self.error_at(self.at, message, expected)
    }
    /// An error at a place.
    pub(super) fn error_at(&self, at: usize, message: impl Into<String>, expected: impl Into<String>) -> ParseError {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        ParseError { line, column, message: message.into(), expected: expected.into() }
    }

    /// Takes a punctuation mark if it is next.
    pub(super) fn eat(&mut self, mark: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(mark);
        self.at += if found { mark.len() } else { 0 };
        found
    }
    pub(super) fn expect(&mut self, mark: &str) -> Result<()> {
        if self.eat(mark) { Ok(()) } else { Err(self.error(format!("`{mark}`"))) }
    }
    /// Whether this mark is next.
    pub(super) fn peek(&mut self, mark: &str) -> bool {
        self.skip();
        self.rest().starts_with(mark)
    }
    /// Characters up to the first that does not fit, without going on.
    pub(super) fn run(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        self.skip();
        let rest = self.rest();
        &rest[..rest.find(|c| !fits(c)).unwrap_or(rest.len())]
    }
    /// Takes a keyword if it is next and ends there.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.run(print::is_name_char) == word;
        self.at += if found { word.len() } else { 0 };
        found
    }
    /// A word of letters, digits and `_`.
    pub(super) fn word(&mut self, expected: &str) -> Result<&'a str> {
        let word = self.run(|c| c.is_ascii_alphanumeric() || c == '_');
        if word.is_empty() {
            return Err(self.error(expected));
        }
        self.at += word.len();
        Ok(word)
    }
    /// A name: plain, or in quotes.
    pub(super) fn name(&mut self, expected: &str) -> Result<String> {
        if self.peek("\"") {
            return self.string();
        }
        let name = self.run(print::is_name_char);
        if name.is_empty() {
            return Err(self.error(expected));
        }
        self.at += name.len();
        Ok(name.to_owned())
    }
    /// `mark` and the name that touches it.
    pub(super) fn marked(&mut self, mark: &str, expected: &str) -> Result<String> {
        if !self.eat(mark) || self.rest().starts_with(char::is_whitespace) {
            return Err(self.error(expected));
        }
        self.name(expected)
    }

    /// A text in double quotes.
    pub(super) fn string(&mut self) -> Result<String> {
        let start = self.place();
        self.expect("\"")?;
        let mut out = String::new();
        loop {
            let mut chars = self.rest().chars();
            match chars.next() {
                None => return Err(self.error_at(start, "the text in quotes does not end", "`\"`")),
                Some('"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some('\\') => {
                    let (c, len) = escape(chars.as_str())
                        .ok_or_else(|| self.error_at(self.at, "found a backslash and something else", "`\\\\`, `\\\"` or `\\u{..}`"))?;
                    out.push(c);
                    self.at += 1 + len;
                }
                Some(c) => {
                    out.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
    }

    /// An integer, with a sign if it is negative.
    pub(super) fn integer(&mut self) -> Result<i64> {
        let start = self.place();
        let sign = if self.eat("-") { "-" } else { "" };
        let digits = self.run(|c| c.is_ascii_digit());
        let number = format!("{sign}{digits}").parse().ok();
        self.at = if number.is_some() { self.at + digits.len() } else { start };
        number.ok_or_else(|| self.error("an integer of 64 bits"))
    }
    /// An integer that is not negative.
    pub(super) fn size(&mut self) -> Result<usize> {
        let start = self.place();
        let number = self.integer()?;
        usize::try_from(number).map_err(|_| self.error_at(start, format!("found {number}"), "an integer that is not negative"))
    }
    /// `low..high`
    pub(super) fn range(&mut self) -> Result<(usize, usize)> {
        let low = self.size()?;
        self.expect("..")?;
        Ok((low, self.size()?))
    }
    /// A number as the bits of an f32 or f64, by `read` and, for `nan(bits)`, `bits`.
    fn float<T>(&mut self, read: impl Fn(&str) -> Option<T>, bits: impl Fn(u64) -> Option<T>) -> Result<T> {
        let text = self.run(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'));
        let start = self.at;
        self.at += text.len();
        let number = if text == "nan" && self.eat("(") {
            let hex = self.word("the bits of a NaN")?;
            self.expect(")")?;
            u64::from_str_radix(hex, 16).ok().and_then(bits)
        } else if text.starts_with(|c: char| c.is_ascii_digit()) || matches!(text, "inf" | "-inf" | "nan") || text.starts_with('-') {
            read(text)
        } else {
            None
        };
        self.at = if number.is_none() { start } else { self.at };
        number.ok_or_else(|| self.error("a number"))
    }
    pub(super) fn float64(&mut self) -> Result<f64> {
        self.float(|t| t.parse().ok(), |bits| Some(f64::from_bits(bits)).filter(|x| x.is_nan()))
    }
    pub(super) fn float32(&mut self) -> Result<f32> {
        self.float(|t| t.parse().ok(), |bits| u32::try_from(bits).ok().map(f32::from_bits).filter(|x| x.is_nan()))
    }
}

/// The character that stands behind a backslash, and how many bytes it takes.
fn escape(text: &str) -> Option<(char, usize)> {
    match text.chars().next()? {
        c @ ('"' | '\\') => Some((c, 1)),
        'u' => {
            let (hex, _) = text.strip_prefix("u{")?.split_once('}')?;
            let c = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32)?;
            Some((c, hex.len() + 3))
        }
        _ => None,
    }
}
