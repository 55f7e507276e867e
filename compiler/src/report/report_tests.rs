//! The page is well-formed, needs nothing from elsewhere, and has every section, for dense models and experts. How it looks is for eyes.

use super::page;
use crate::driver::{self, CompileOptions};
use crate::frontend;
use std::path::Path;

fn made(name: &str, quant: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let family = fixtures.join("configs").join(name).join("config.json");
    let config = if family.exists() { family } else { fixtures.join(name).join("model/config.json") };
    let model = frontend::load_config(&config).unwrap();
    let options = CompileOptions { quant: Some(quant.into()), target: "x86_64-v3".into(), ..CompileOptions::default() };
    let planned = driver::plan(&model, &options).unwrap();
    page(&planned, &planned.meta(&model, None))
}

/// Tags that have no end.
const VOID: &[&str] = &["meta", "wbr", "br", "hr", "img", "link"];

/// Checks that every tag is ended where it was begun, that attributes are quoted, and that `&` stands for something.
fn well_formed(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        assert!(open.last() == Some(&"style") || !text.contains('>'), "a loose `>` in {text:?}");
        for (i, _) in text.match_indices('&') {
            let name = &text[i + 1..(i + 8).min(text.len())];
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|n| name.starts_with(n)), "a loose `&` in {text:?}");
        }
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        match tag {
            _ if tag.starts_with('!') => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "</{name}> ends something else"),
            _ if tag.ends_with('/') || VOID.contains(&name) => {}
            _ => open.push(name),
        }
        assert!(tag.matches('"').count().is_multiple_of(2), "quotes in <{tag}>");
    }
    assert!(open.is_empty(), "never ended: {open:?}");
}

#[test]
fn the_page_is_well_formed_self_contained_and_has_every_section() {
    for (name, quant) in [("tiny-llama3", "f32"), ("llama-3.2-1b", "int4"), ("llama4-maverick-like", "int8"), ("llama-3.1-405b", "bf16")] {
        let html = made(name, quant);
        well_formed(&html);
        for outside in ["http://", "https://", "<script", "<link", "<img", "@import", "url(", "src="] {
            assert!(!html.contains(outside), "{name}: `{outside}` in the page");
        }
        for section in ["rewrites", "graphs", "roofline", "weights", "buffers"] {
            assert!(
                html.contains(&format!("<section id=\"{section}\">")) && html.contains(&format!("href=\"#{section}\"")),
                "{name}: {section}"
            );
        }
        for part in [
            "merge-qkv/readers",
            "aria-label=\"@main before\"",
            "aria-label=\"@main after\"",
            "Buffers over one step",
            "bound by",
            "prefers-color-scheme",
        ] {
            assert!(html.contains(part), "{name}: `{part}` is missing");
        }
        assert!(html.len() < 400_000, "{name}: {} bytes", html.len());
        let number = |word: &str| html.contains(word);
        assert!(!number("NaN") && !number("\"inf"), "{name}: a number that is none");
    }
}

#[test]
fn a_name_that_looks_like_html_stays_text() {
    assert_eq!(super::page::escape("<b>&\"x\"</b>"), "&lt;b&gt;&amp;&quot;x&quot;&lt;/b&gt;");
}

#[test]
fn the_page_does_not_grow_with_depth() {
    let (small, large) = (made("llama-3.2-1b", "bf16").len(), made("llama-3.1-405b", "bf16").len());
    assert!(large < small * 3 / 2, "{small} and {large} bytes");
}
