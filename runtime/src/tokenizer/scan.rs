//! Hand-written scanners for the split expressions of Llama 3 and Llama 4. Each is proved against the expression engine on random text
//! by a test; any other expression goes to the engine itself (`split`).

use super::classes::{LETTER, LOWER, NUMBER, SPACE, UPPER};
use super::table::Table;

/// What differs between the two expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Contractions are pieces, words are letters.
    Llama3,
    /// Contractions end a word, a word is upper case then lower case, slashes follow punctuation.
    Llama4,
}

impl Dialect {
    /// The dialect of an expression, if it is one of the two.
    pub(super) fn of(expression: &str) -> Option<Dialect> {
        match expression {
            LLAMA3 => Some(Dialect::Llama3),
            LLAMA4 => Some(Dialect::Llama4),
            _ => None,
        }
    }
}

/// The expression of Llama 3.
pub(super) const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The expression of Llama 4.
pub(super) const LLAMA4: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// A position in a text. Positions are byte offsets at the edges of characters.
#[derive(Clone, Copy)]
pub(super) struct Scanner<'t> {
    text: &'t str,
    table: &'t Table<'t>,
    dialect: Dialect,
}

impl<'t> Scanner<'t> {
    pub(super) fn new(text: &'t str, table: &'t Table<'t>, dialect: Dialect) -> Scanner<'t> {
        Scanner { text, table, dialect }
    }

    /// End of the piece that starts at `start`, which is before the end of the text.
    pub(super) fn end(&self, start: usize) -> usize {
        let Some(c) = self.at(start) else {
            return self.text.len();
        };
        let after = start + c.len_utf8();
        let word = match self.dialect {
            Dialect::Llama3 => self.contraction(start).or_else(|| self.word(start, c, Self::letters)),
            Dialect::Llama4 => {
                let word = self.word(start, c, Self::lower_word).or_else(|| self.word(start, c, Self::upper_word));
                word.map(|end| self.contraction(end).unwrap_or(end))
            }
        };
        word.or_else(|| self.digits(start))
            .or_else(|| self.marks(start, c))
            .or_else(|| self.lines(start))
            .unwrap_or_else(|| self.blanks(start, after))
    }

    fn at(&self, at: usize) -> Option<char> {
        // ASCII first: decoding is the greater part of the work.
        match self.text.as_bytes().get(at) {
            Some(&byte) if byte < 128 => Some(byte.into()),
            _ => self.text.get(at..)?.chars().next(),
        }
    }

    fn is(&self, c: char, classes: u8) -> bool {
        self.table.classes(c) & classes != 0
    }

    /// End of the run of characters from `at` that `wanted` says yes to.
    fn run(&self, mut at: usize, wanted: impl Fn(char) -> bool) -> usize {
        while let Some(c) = self.at(at).filter(|&c| wanted(c)) {
            at += c.len_utf8();
        }
        at
    }

    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
    fn contraction(&self, at: usize) -> Option<usize> {
        let rest = self.text.get(at..)?.strip_prefix('\'')?;
        let mut chars = rest.chars();
        let first = chars.next()?;
        let second = chars.next().unwrap_or(' ').to_ascii_lowercase();
        match first.to_ascii_lowercase() {
            // The long s is an s where case does not count.
            's' | 't' | 'm' | 'd' | 'ſ' => Some(at + 1 + first.len_utf8()),
            'r' | 'v' if second == 'e' => Some(at + 3),
            'l' if second == 'l' => Some(at + 3),
            _ => None,
        }
    }

    /// `[^\r\n\p{L}\p{N}]?` and then a body; without the first if the body needs it.
    fn word(&self, start: usize, c: char, body: impl Fn(&Self, usize) -> Option<usize>) -> Option<usize> {
        let prefix = !matches!(c, '\r' | '\n') && !self.is(c, LETTER | NUMBER);
        let with = if prefix { body(self, start + c.len_utf8()) } else { None };
        with.or_else(|| body(self, start))
    }

    /// `\p{L}+`
    fn letters(&self, at: usize) -> Option<usize> {
        let end = self.run(at, |c| self.is(c, LETTER));
        (end > at).then_some(end)
    }

    /// `[upper]*[lower]+`, where some characters are both.
    fn lower_word(&self, at: usize) -> Option<usize> {
        let upper = self.run(at, |c| self.is(c, UPPER));
        let end = self.run(upper, |c| self.is(c, LOWER));
        if end > upper {
            return Some(end);
        }
        // The upper part gives back characters until one is lower as well.
        let (i, last) = self.text[at..upper].char_indices().rfind(|&(_, c)| self.is(c, LOWER))?;
        Some(at + i + last.len_utf8())
    }

    /// `[upper]+[lower]*`
    fn upper_word(&self, at: usize) -> Option<usize> {
        let upper = self.run(at, |c| self.is(c, UPPER));
        (upper > at).then(|| self.run(upper, |c| self.is(c, LOWER)))
    }

    /// `\p{N}{1,3}`
    fn digits(&self, start: usize) -> Option<usize> {
        let mut at = start;
        for _ in 0..3 {
            match self.at(at).filter(|&c| self.is(c, NUMBER)) {
                Some(c) => at += c.len_utf8(),
                None => break,
            }
        }
        (at > start).then_some(at)
    }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`, in Llama 4 with slashes at the end.
    fn marks(&self, start: usize, c: char) -> Option<usize> {
        let from = if c == ' ' { start + 1 } else { start };
        let end = self.run(from, |c| !self.is(c, SPACE | LETTER | NUMBER));
        let slash = self.dialect == Dialect::Llama4;
        (end > from).then(|| self.run(end, |c| matches!(c, '\r' | '\n') || (slash && c == '/')))
    }

    /// `\s*[\r\n]+`
    fn lines(&self, start: usize) -> Option<usize> {
        let end = self.run(start, |c| self.is(c, SPACE));
        self.text[start..end].rfind(['\r', '\n']).map(|i| start + i + 1)
    }

    /// `\s+(?!\S)|\s+`: all but the last blank before a word. What no alternative takes is a piece by itself.
    fn blanks(&self, start: usize, after: usize) -> usize {
        let end = self.run(start, |c| self.is(c, SPACE));
        let last = self.text[start..end].char_indices().next_back().map_or(start, |(i, _)| start + i);
        if end == self.text.len() || last == start { end.max(after) } else { last }
    }
}
