//! Added tokens: texts that are cut out before anything else. The longest one at the leftmost place wins.

use super::table::{SPECIAL, Table};

/// A part of a text.
pub(super) enum Part<'t> {
    /// An added token stood here.
    Token(u32),
    /// What stood between.
    Text(&'t str),
}

/// Which bytes begin an added token, for each of the two lists.
#[derive(Debug)]
pub(super) struct Starts([[bool; 256]; 2]);

impl Starts {
    pub(super) fn of(table: &Table<'_>) -> Starts {
        let of = |list: &[[u8; 4]]| {
            let mut starts = [false; 256];
            list.iter().filter_map(|id| token(table, id).first()).for_each(|&byte| starts[usize::from(byte)] = true);
            starts
        };
        Starts([of(table.added_first), of(table.added_then)])
    }
}

fn token<'a>(table: &Table<'a>, id: &[u8; 4]) -> &'a [u8] {
    table.token(u32::from_le_bytes(*id))
}

/// Cuts a text. With `parse_special` off, special tokens are left in the text; other added tokens are found all the same.
pub(super) fn split<'t>(table: &Table<'_>, starts: &Starts, text: &'t str, parse_special: bool, each: &mut dyn FnMut(Part<'t>)) {
    let Starts([first, then]) = starts;
    cut(table, table.added_first, first, text, parse_special, &mut |part| match part {
        Part::Text(text) => cut(table, table.added_then, then, text, parse_special, each),
        token => each(token),
    });
}

fn cut<'t>(table: &Table<'_>, list: &[[u8; 4]], starts: &[bool; 256], text: &'t str, parse_special: bool, each: &mut dyn FnMut(Part<'t>)) {
    let bytes = text.as_bytes();
    let (mut done, mut at) = (0, 0);
    while let Some(skip) = bytes[at..].iter().position(|&b| starts[usize::from(b)]) {
        at += skip;
        let Some((id, length)) = longest(table, list, &bytes[at..]) else {
            at += 1;
            continue;
        };
        // What starts and ends like UTF-8 text is at a character's edge; only a damaged table has other tokens.
        let edges = text.is_char_boundary(at) && text.is_char_boundary(at + length);
        if edges && (parse_special || table.flags(id) & SPECIAL == 0) {
            if done < at {
                each(Part::Text(&text[done..at]));
            }
            each(Part::Token(id));
            done = at + length;
        }
        at += length;
    }
    if done < text.len() {
        each(Part::Text(&text[done..]));
    }
}

/// The longest token of a sorted list that `bytes` starts with, and its length.
fn longest(table: &Table<'_>, list: &[[u8; 4]], bytes: &[u8]) -> Option<(u32, usize)> {
    let (mut range, mut best) = (list, None);
    for (depth, byte) in bytes.iter().enumerate() {
        // Tokens that end before `depth` sort in front.
        let start = range.partition_point(|id| token(table, id).get(depth) < Some(byte));
        let length = range[start..].partition_point(|id| token(table, id).get(depth) == Some(byte));
        range = &range[start..start + length];
        let Some(first) = range.first() else {
            break;
        };
        if token(table, first).len() == depth + 1 {
            best = Some((u32::from_le_bytes(*first), depth + 1));
        }
    }
    best
}

/// The added token that is exactly this text.
pub(super) fn exact(table: &Table<'_>, text: &[u8]) -> Option<u32> {
    [table.added_first, table.added_then].into_iter().find_map(|list| {
        let found = list.binary_search_by(|id| token(table, id).cmp(text)).ok()?;
        list.get(found).map(|id| u32::from_le_bytes(*id))
    })
}
