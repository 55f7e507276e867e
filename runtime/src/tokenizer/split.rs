//! Splitting a text into the pieces that are encoded each by itself: by a scanner where the expression is well known, otherwise by
//! the expression engine.

use super::TokenizerError;
use super::scan::{Dialect, Scanner};
use super::table::Table;

/// How texts are split.
#[derive(Debug)]
pub(super) enum Split {
    /// By a scanner.
    Known(Dialect),
    /// By the engine.
    Expression(Box<fancy_regex::Regex>),
}

impl Split {
    /// The way to split by an expression.
    pub(super) fn of(expression: &str) -> Result<Split, TokenizerError> {
        if let Some(dialect) = Dialect::of(expression) {
            return Ok(Split::Known(dialect));
        }
        let compiled = fancy_regex::Regex::new(expression).map_err(|e| TokenizerError::Expression { detail: e.to_string() })?;
        Ok(Split::Expression(Box::new(compiled)))
    }

    /// Calls `each` for every piece in order; together they are the text. Where the engine gives up (an expression that backtracks
    /// without end), the rest of the text is one piece.
    pub(super) fn pieces<'t>(&self, text: &'t str, table: &Table<'_>, mut each: impl FnMut(&'t str)) {
        let mut piece = |start: usize, end: usize| {
            if start < end {
                each(&text[start..end]);
            }
            end
        };
        let mut done = 0;
        match self {
            Split::Known(dialect) => {
                let scanner = Scanner::new(text, table, *dialect);
                while done < text.len() {
                    done = piece(done, scanner.end(done));
                }
            }
            Split::Expression(expression) => {
                for found in expression.find_iter(text).map_while(Result::ok) {
                    done = piece(done, found.start());
                    done = piece(done, found.end());
                }
                piece(done, text.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{TableSource, build};
    use super::super::scan::{LLAMA3, LLAMA4};
    use super::super::table::Layout;
    use super::*;

    /// Characters that the expressions treat differently, and their neighbours.
    const ALPHABET: &str = "aAbZsStTdDmMlLrRvVeE'’ſKK019½Ⅷ٣ \t\r\n\u{b}\u{85}\u{a0}\u{2003}\u{3000}\u{200b}.,/-_<|>ßñÑǅʰªº語あअคé\u{301}\u{93f}\u{1f3fb}😀\u{200d}\u{e000}\u{10ffff}\0";

    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 16) as usize
    }

    fn text(state: &mut u64) -> String {
        let alphabet: Vec<char> = ALPHABET.chars().collect();
        let length = random(state) % 24;
        // Few different characters in a text make long runs and near misses.
        let some: Vec<char> = (0..1 + random(state) % 6).map(|_| alphabet[random(state) % alphabet.len()]).collect();
        let any = |state: &mut u64| char::from_u32((random(state) % 0x11_0000) as u32).unwrap_or('x');
        (0..length).map(|_| if random(state).is_multiple_of(40) { any(state) } else { some[random(state) % some.len()] }).collect()
    }

    #[test]
    fn the_scanners_split_as_the_expression_engine_does() {
        let bytes = build(&TableSource { expression: LLAMA3.to_owned(), ..TableSource::default() }).unwrap();
        let layout = Layout::parse(&bytes).unwrap();
        let table = Table::new(&bytes, &layout).unwrap();
        for expression in [LLAMA3, LLAMA4] {
            let scanner = Split::of(expression).unwrap();
            assert!(matches!(scanner, Split::Known(_)));
            let engine = Split::Expression(Box::new(fancy_regex::Regex::new(expression).unwrap()));
            let mut state = 0x1234_5678_9abc_def1;
            for _ in 0..60_000 {
                let text = text(&mut state);
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                scanner.pieces(&text, &table, |p| ours.push(p));
                engine.pieces(&text, &table, |p| theirs.push(p));
                assert_eq!(ours, theirs, "{text:?}");
                assert_eq!(ours.concat(), text);
            }
        }
    }
}
