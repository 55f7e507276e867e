//! Tests that every pass must pass: names, and the example in its header.

use super::*;
use crate::testing;

#[test]
fn names_follow_the_files_and_the_passes() {
    for pass in PASSES {
        let shown = pass.name.replace('-', "_");
        assert!(pass.source.contains(&format!("name: \"{}\"", pass.name)), "{}: its source is of another file", pass.name);
        assert!(!shown.is_empty() && pass.name.contains('-'), "{}: not verb-noun", pass.name);
        if let Kind::Rewrite(rules) = pass.kind {
            for rule in rules {
                assert!(rule.name.starts_with(&format!("{}/", pass.name)), "{} does not belong to {}", rule.name, pass.name);
            }
        }
    }
}

#[test]
fn the_example_of_every_header_is_true() {
    for pass in PASSES {
        let doc = pass.doc();
        let blocks: Vec<&str> = doc.split("```").filter_map(|b| b.strip_prefix("text\n")).collect();
        let [before, after] = blocks[..] else { panic!("{}: {} blocks of text in its header", pass.name, blocks.len()) };
        let expected = testing::text(&testing::module(after));
        assert_eq!(testing::check(pass.name, before), expected, "{}", pass.name);
    }
}
