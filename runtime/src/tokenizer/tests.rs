//! The tokenizer over a small table made by hand. The real tokenizers are tested where `tokenizer.json` is read, in the compiler.

use super::build::{Added, MergeSource, TableSource, TokenSource, build};
use super::*;

const PLAIN: EncodeOptions = EncodeOptions { parse_special: true, add_bos: false };

/// All bytes, then merges named by their text, then added tokens.
fn source(merges: &[(&str, &str)], added: &[(&str, Added)]) -> TableSource {
    let mut texts: Vec<Vec<u8>> = (0..=255).map(|b| vec![b]).collect();
    let mut list: Vec<MergeSource> = Vec::new();
    for (left, right) in merges {
        let id = |texts: &[Vec<u8>], text: &str| texts.iter().position(|t| t == text.as_bytes()).expect("a known token") as u32;
        let (left_id, right_id) = (id(&texts, left), id(&texts, right));
        let merged = format!("{left}{right}").into_bytes();
        let known = texts.iter().position(|t| *t == merged);
        let new = known.unwrap_or_else(|| {
            texts.push(merged);
            texts.len() - 1
        });
        list.push([left_id, right_id, new as u32]);
    }
    let mut tokens: Vec<TokenSource> = texts.into_iter().map(|bytes| TokenSource { bytes, merged: true, added: None }).collect();
    tokens.extend(added.iter().map(|(text, added)| TokenSource { bytes: text.as_bytes().to_vec(), merged: false, added: Some(*added) }));
    TableSource { tokens, merges: list, expression: scan::LLAMA3.to_owned(), ..TableSource::default() }
}

fn tokenizer(source: &TableSource) -> Tokenizer {
    Tokenizer::from_bytes(build(source).unwrap()).unwrap()
}

/// Texts of the tokens of a text.
fn texts(tokenizer: &Tokenizer, text: &str, options: EncodeOptions) -> Vec<String> {
    tokenizer.encode(text, options).into_iter().map(|id| tokenizer.decode(&[id], false)).collect()
}

const SPECIAL: Added = Added { special: true, normalized: false };
const TEXT: Added = Added { special: false, normalized: false };
const LATER: Added = Added { special: false, normalized: true };

#[test]
fn merges_go_by_rank_and_then_from_the_left() {
    let t = tokenizer(&source(&[("b", "c"), ("a", "b"), ("a", "a"), ("aa", "a")], &[]));
    assert_eq!(texts(&t, "abc", PLAIN), ["a", "bc"]);
    assert_eq!(texts(&t, "abab", PLAIN), ["ab", "ab"]);
    assert_eq!(texts(&t, "aaa", PLAIN), ["aaa"]);
    assert_eq!(texts(&t, "aaaaa", PLAIN), ["aa", "aaa"]);
}

#[test]
fn a_piece_that_is_a_token_needs_no_merges_if_the_table_says_so() {
    let mut s = source(&[("b", "c"), ("a", "b")], &[]);
    s.tokens.push(TokenSource { bytes: b"abc".to_vec(), merged: true, added: None });
    assert_eq!(texts(&tokenizer(&s), "abc abc", PLAIN), ["a", "bc", " ", "a", "bc"]);
    s.ignore_merges = true;
    assert_eq!(texts(&tokenizer(&s), "abc abc", PLAIN), ["abc", " ", "a", "bc"]);
}

#[test]
fn of_added_tokens_the_leftmost_and_longest_is_cut_out() {
    let t = tokenizer(&source(&[], &[("<x>", SPECIAL), ("<x>>", SPECIAL), ("<", TEXT), ("语", TEXT)]));
    assert_eq!(texts(&t, "a<x>><x><x语", PLAIN), ["a", "<x>>", "<x>", "<", "x", "语"]);
    let unparsed = EncodeOptions { parse_special: false, ..PLAIN };
    assert_eq!(texts(&t, "<x><", unparsed), ["<", "x", ">", "<"], "the special token keeps its place, but is text");
}

#[test]
fn normalized_added_tokens_are_looked_for_in_what_the_others_leave() {
    let t = tokenizer(&source(&[], &[("ab<", LATER), ("<x>", SPECIAL)]));
    assert_eq!(texts(&t, "ab<x>ab<", PLAIN), ["a", "b", "<x>", "ab<"]);
}

#[test]
fn ids_texts_and_bytes_belong_together() {
    let mut s = source(&[("a", "b")], &[("<s>", SPECIAL), ("yes", TEXT)]);
    s.bos = Some(257);
    let t = tokenizer(&s);
    assert_eq!(
        (t.vocab_len(), t.bos(), t.token_id("<s>"), t.token_id("ab"), t.token_id("yes"), t.token_id("ba")),
        (259, Some(257), Some(257), Some(256), Some(258), None)
    );
    assert_eq!(
        (t.token_bytes(256), t.token_bytes(0xe9), t.token_bytes(257), t.token_bytes(259)),
        (&b"ab"[..], &[0xe9][..], &b"<s>"[..], &[][..])
    );
    assert!(t.is_special(257) && !t.is_special(258) && !t.is_special(u32::MAX));
    assert_eq!(t.encode("é<s>", EncodeOptions { parse_special: true, add_bos: true }), [257, 0xc3, 0xa9, 257]);
    assert_eq!((t.decode(&[257, 0xc3, 0xa9, 9999], false).as_str(), t.decode(&[257, 0xc3, 258], true).as_str()), ("<s>é", "\u{fffd}yes"));
    assert_eq!(t.encode("", PLAIN), [0u32; 0]);
}

#[test]
fn an_expression_that_is_not_well_known_goes_to_the_engine() {
    let mut s = source(&[("a", "b"), ("b", "a")], &[]);
    s.expression = r"(?<=a)b+".to_owned();
    assert_eq!(texts(&tokenizer(&s), "abab", PLAIN), ["a", "b", "a", "b"]);
    s.expression = "(".to_owned();
    assert!(matches!(build(&s), Err(TokenizerError::Expression { .. })));
}

#[test]
fn a_long_word_is_encoded_in_a_moment() {
    let t = tokenizer(&source(&[("a", "a"), ("aa", "aa"), ("aaaa", "aaaa")], &[]));
    let ids = t.encode(&"a".repeat(400_001), PLAIN);
    assert_eq!((ids.len(), t.token_bytes(ids[0])), (50_001, &b"aaaaaaaa"[..]));
}

#[test]
fn the_same_source_gives_the_same_bytes() {
    let s = source(&[("b", "c"), ("a", "b")], &[("<x>", SPECIAL)]);
    assert_eq!(build(&s), build(&s));
}

#[test]
fn damaged_bytes_give_an_error_or_wrong_tokens_but_never_a_panic() {
    let mut s = source(&[("b", "c"), ("a", "b"), ("a", "a")], &[("<x>", SPECIAL), ("é", LATER)]);
    s.ignore_merges = true;
    let good = build(&s).unwrap();
    let text = "aabc <x> é 語 <x\n\n 123 don't";
    let mut used = 0;
    let mut attempt = |bytes: Vec<u8>| {
        if let Ok(t) = Tokenizer::from_bytes(bytes) {
            let ids = t.encode(text, EncodeOptions { parse_special: true, add_bos: true });
            t.decode(&ids, true);
            t.token_id("<x>");
            used += 1;
        }
    };
    for length in 0..400 {
        attempt(good[..length].to_vec());
    }
    // Every byte of the header and the small parts, and some of the class table that follows.
    for at in (0..good.len()).filter(|&at| at < 6000 || at % 97 == 0) {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            attempt(bytes);
        }
    }
    assert!(used > 1000, "only {used} damaged tables were used");
    assert_eq!(Tokenizer::from_bytes(b"not a table".to_vec()).unwrap_err(), TokenizerError::NotATable);
}
