//! Classes of characters as the split expressions use them, and the two-level table of them. The sets come from the expression
//! engine's own Unicode data, so that hand-written scanners and the engine cannot disagree.

use regex_syntax::hir::{Class, HirKind};

/// `\p{L}`
pub(super) const LETTER: u8 = 1;
/// `\p{N}`
pub(super) const NUMBER: u8 = 2;
/// `\s`
pub(super) const SPACE: u8 = 4;
/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
pub(super) const UPPER: u8 = 8;
/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
pub(super) const LOWER: u8 = 16;

const CLASSES: [(u8, &str); 5] = [
    (LETTER, r"\p{L}"),
    (NUMBER, r"\p{N}"),
    (SPACE, r"\s"),
    (UPPER, r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"),
    (LOWER, r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"),
];

/// The classes of every character: `index[c >> 7]` is a block, `blocks[block << 7 | c & 127]` the classes of `c`.
pub(super) fn table() -> (Vec<u16>, Vec<u8>) {
    let mut flat = vec![0u8; 0x11_0000];
    for (bit, expression) in CLASSES {
        for (start, end) in ranges(expression) {
            flat[start as usize..=end as usize].iter_mut().for_each(|c| *c |= bit);
        }
    }
    let mut blocks: Vec<&[u8]> = Vec::new();
    let index = flat.chunks(128).map(|chunk| {
        let found = blocks.iter().position(|b| *b == chunk);
        found.unwrap_or_else(|| {
            blocks.push(chunk);
            blocks.len() - 1
        }) as u16
    });
    (index.collect(), blocks.concat())
}

fn ranges(expression: &str) -> Vec<(char, char)> {
    match regex_syntax::parse(expression).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class.ranges().iter().map(|r| (r.start(), r.end())).collect(),
        // The expressions are constants; `every_class_has_characters` fails if one of them is not a class.
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_characters() {
        let (index, blocks) = table();
        let of = |c: char| blocks[(usize::from(index[c as usize >> 7]) << 7) | (c as usize & 127)];
        assert_eq!(of('A'), LETTER | UPPER);
        assert_eq!(of('ß'), LETTER | LOWER);
        assert_eq!(of('語'), LETTER | UPPER | LOWER);
        assert_eq!(of('\u{301}'), UPPER | LOWER);
        assert_eq!((of('7'), of('½'), of('\u{3000}'), of('\n'), of('_'), of('😀')), (NUMBER, NUMBER, SPACE, SPACE, 0, 0));
        assert!(blocks.len() < 1 << 16, "{} bytes", blocks.len());
    }
}
