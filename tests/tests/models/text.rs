//! Text in and out of an artifact: its tokenizer gives the reference's ids, and greedy ids decode to the reference's text.

use crate::artifact_for;
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::detok::Detokenizer;
use llamac_runtime::session;
use llamac_runtime::tokenizer::{EncodeOptions, Tokenizer};
use llamac_tests::fixture::{self, Fixture};

fn tokenizer(fixture: &Fixture) -> Tokenizer {
    let artifact = Artifact::open(artifact_for(fixture, "f32", "native"), &OpenOptions::default()).expect("an artifact");
    session::tokenizer(&artifact).expect("a tokenizer")
}

#[test]
fn prompts_encode_to_the_references_ids() {
    let mut compared = 0;
    for fixture in fixture::all() {
        let tokenizer = tokenizer(&fixture);
        for prompt in fixture.prompts() {
            let Some(text) = &prompt.text else { continue };
            // A rendered chat template writes the begin-of-text token itself.
            let written = text.starts_with("<|begin_of_text|>");
            let ids = tokenizer.encode(text, EncodeOptions { parse_special: written, add_bos: !written });
            assert_eq!(ids, prompt.ids, "{} {}", fixture.name, prompt.name);
            compared += 1;
        }
    }
    assert!(compared >= 12, "only {compared} prompts have a text");
}

#[test]
fn greedy_ids_decode_to_the_references_text_at_once_and_token_by_token() {
    for fixture in fixture::all() {
        let tokenizer = tokenizer(&fixture);
        for prompt in fixture.prompts() {
            let Some(expected) = &prompt.greedy_text else { continue };
            let ids: Vec<u32> = prompt.greedy.iter().map(|(id, _)| *id).collect();
            assert_eq!(&tokenizer.decode(&ids, false), expected, "{} {}", fixture.name, prompt.name);
            let mut stream = Detokenizer::default();
            let mut shown: String = ids.iter().map(|&id| stream.push(tokenizer.token_bytes(id))).collect();
            shown.push_str(&stream.flush());
            assert_eq!(&shown, expected, "{} {}: streamed", fixture.name, prompt.name);
        }
    }
}
