//! Tests of sessions over a fake step: its next token is scripted by position, or else depends on every token before, so that a wrong
//! cache shows in the text.

use super::*;
use crate::abi::StepContext;
use crate::artifact::ArtifactWriter;
use crate::artifact::meta::{GenerationMeta, KvMeta, Meta, ModelMeta, PlanMeta, TargetMeta};
use crate::artifact::target::ARCH;
use crate::memory::Region;
use crate::template::{Message, TemplateSource};
use crate::tokenizer::build::{Added, TableSource, TokenSource, build};

const CONTEXT: usize = 48;
/// Bytes, and behind them begin and end of text.
const VOCAB: usize = 258;
const BOS: u32 = 256;
const EOS: u32 = 257;
const ROW: usize = VOCAB * 4;
const MAX_ROWS: usize = 2;
/// Tokens that the fake step has seen, by position, stand behind the logits.
const HISTORY: usize = ROW * MAX_ROWS;

unsafe extern "C" fn fake(ctx: *const StepContext, thread: u64) {
    if thread > 0 {
        return;
    }
    // SAFETY: the engine's promise: pointers are valid for what `meta` says below; the script has an entry for every position.
    unsafe {
        let ctx = &*ctx;
        let history = ctx.arena.add(HISTORY).cast::<u32>();
        for i in 0..ctx.rows[0].n as usize {
            *history.add(*ctx.rows[0].pos.add(i) as usize) = *ctx.tokens.add(i);
        }
        for i in 0..ctx.rows[1].n as usize {
            let pos = *ctx.rows[1].pos.add(i) as usize;
            let logits = std::slice::from_raw_parts_mut(ctx.arena.add(i * ROW).cast::<f32>(), VOCAB);
            logits.fill(0.0);
            let scripted = *ctx.weights.cast::<u32>().add(pos + 1);
            let before = (0..=pos).fold(7u32, |sum, p| sum.wrapping_mul(31).wrapping_add(*history.add(p)));
            let next = if scripted > 0 { scripted } else { u32::from(b'a') + before % 26 };
            logits[next as usize] = 1.0;
        }
    }
}

fn meta() -> Meta {
    Meta {
        compiler: "test".into(),
        target: TargetMeta { arch: ARCH.into(), features: vec![], abi: crate::abi::ABI_VERSION },
        model: ModelMeta {
            name: "fake".into(),
            architecture: "Fake".into(),
            layers: 1,
            vocab: VOCAB,
            max_context: CONTEXT,
            parameters: 1,
            quant: "f32".into(),
        },
        plan: PlanMeta {
            max_step: 3,
            max_rows: MAX_ROWS,
            max_batch: 2,
            arena_bytes: (HISTORY + CONTEXT * 4) as u64,
            logits_offset: 0,
            logits_stride: ROW as u64,
            weight_bytes: (CONTEXT as u64 + 1) * 4,
            decode_bytes: 1000,
            decode_macs: 1,
            token_macs: 1,
            buffers: vec![],
            kv: vec![KvMeta { layers: 1, format: "f32".into(), kv_heads: 1, head_dim: 16, page_bytes: 8192, chunk: 0 }],
            attention: vec![],
            caches: vec![],
        },
        kernels: vec![],
        schedule: vec![],
        entry: 0,
        generation: GenerationMeta { bos: Some(BOS), eos: vec![EOS], ..GenerationMeta::default() },
        signature: None,
    }
}

fn tokenizer_table() -> Vec<u8> {
    let byte = |b: u8| TokenSource { bytes: vec![b], merged: true, added: None };
    let special = |text: &str| TokenSource {
        bytes: text.as_bytes().to_vec(),
        merged: false,
        added: Some(Added { special: true, normalized: false }),
    };
    let tokens = (0..=255).map(byte).chain([special("<|begin|>"), special("<|end|>")]).collect();
    build(&TableSource { tokens, bos: Some(BOS), expression: "(?s).+".into(), ..TableSource::default() }).expect("a table")
}

/// A session whose model continues with `script` behind `at` tokens.
fn session(at: usize, script: &[u32]) -> Session {
    session_with(at, script, None)
}

fn session_with(at: usize, script: &[u32], template: Option<&str>) -> Session {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("llamac-session-{}-{}.llx", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let mut positions = [0u32; CONTEXT + 1];
    positions[at..at + script.len()].copy_from_slice(script);
    let weights: Vec<u8> = positions.iter().flat_map(|t| t.to_le_bytes()).collect();
    let mut writer = ArtifactWriter::create(&path).expect("create");
    writer.put(SectionKind::Meta, &serde_json::to_vec(&meta()).expect("json")).expect("meta");
    writer.put(SectionKind::Code, &[0xc3]).expect("code");
    writer.put(SectionKind::Weights, &weights).expect("weights");
    writer.put(SectionKind::Tokenizer, &tokenizer_table()).expect("tokenizer");
    if let Some(template) = template {
        let source = TemplateSource { template: template.to_owned(), ..TemplateSource::default() };
        writer.put(SectionKind::Template, &serde_json::to_vec(&source).expect("json")).expect("template");
    }
    writer.finish().expect("finish");
    let artifact = Artifact::open(&path, &OpenOptions::default()).expect("open");
    std::fs::remove_file(&path).expect("remove");
    let options = SessionOptions { threads: Some(2), ..SessionOptions::default() };
    let engine = Engine::with_step(&artifact, &options.engine(), fake, Region::anonymous(0).expect("empty")).expect("engine");
    Session::with_engine(engine, tokenizer(&artifact).expect("tokenizer")).expect("session")
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn most(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max_tokens), ..GenerateOptions::default() }
}

/// Texts of all pieces, and why they end.
fn pieces(session: &mut Session, prompt: &str, options: &GenerateOptions) -> (Vec<String>, Option<End>) {
    let mut generation = session.generate(prompt, options).expect("a generation");
    let texts = generation.by_ref().map(|p| p.expect("a piece").text).collect();
    let end = generation.end().cloned();
    (texts, end)
}

#[test]
fn pieces_stream_one_for_each_token_with_what_it_cost() {
    let mut s = session(3, &bytes("hey"));
    let mut generation = s.generate("ab", &most(3)).expect("a generation");
    assert_eq!((generation.stats().generated_tokens, generation.end()), (0, None));
    let first = generation.next().expect("one").expect("fine");
    assert_eq!(first, Piece { text: "h".into(), token: u32::from(b'h') });
    assert_eq!(generation.by_ref().map(|p| p.expect("fine").text).collect::<String>(), "ey");
    let stats = generation.stats();
    assert_eq!((stats.prompt_tokens, stats.reused_tokens, stats.generated_tokens, stats.decode_steps), (3, 0, 3, 2));
    // Two steps over 1000 bytes of weights, at 4 and 5 tokens of 128 bytes.
    assert_eq!((stats.decode_bytes, stats.bytes_per_token()), (2000 + 9 * 128, 1576));
    assert!(stats.prefill_rate() > 0.0 && stats.decode_rate() > 0.0);
    assert!(generation.next().is_none());
    assert_eq!(generation.end(), Some(&End::MaxTokens));
}

#[test]
fn the_models_end_of_text_ends_it_and_is_not_shown() {
    let mut s = session(2, &[u32::from(b'x'), EOS, u32::from(b'y')]);
    assert_eq!(pieces(&mut s, "a", &most(9)), (vec!["x".into(), String::new()], Some(End::Eos(EOS))));
    let ignoring = GenerateOptions { ignore_eos: true, ..most(3) };
    assert_eq!(pieces(&mut s, "a", &ignoring), (vec!["x".into(), String::new(), "y".into()], Some(End::MaxTokens)));
}

#[test]
fn a_stop_string_is_never_shown_not_even_its_beginning() {
    let script = bytes("one\nUser two");
    let stop = GenerateOptions { stop: vec!["zzz".into(), "\nUser".into()], ..most(20) };
    let (texts, end) = pieces(&mut session(2, &script), "a", &stop);
    assert_eq!((texts.concat().as_str(), end), ("one", Some(End::Stop("\nUser".into()))));
    assert_eq!(texts.len(), 8);
    // Held back, but no stop string after all.
    let (texts, end) = pieces(&mut session(2, &script), "a", &GenerateOptions { max_tokens: Some(6), ..stop });
    assert_eq!((texts.as_slice(), end), (["o", "n", "e", "", "", "\nUs"].map(str::to_owned).as_slice(), Some(End::MaxTokens)));
}

#[test]
fn a_character_is_shown_when_it_is_whole() {
    let (texts, _) = pieces(&mut session(2, &bytes("é€")), "a", &most(5));
    assert_eq!(texts, ["", "é", "", "", "€"]);
    let (texts, _) = pieces(&mut session(2, &bytes("é€")), "a", &most(4));
    assert_eq!(texts, ["", "é", "", "\u{fffd}"]);
}

#[test]
fn the_text_ends_where_the_context_is_full() {
    let mut s = session(0, &[]);
    let prompt = "p".repeat(CONTEXT - 3);
    let (texts, end) = pieces(&mut s, &prompt, &GenerateOptions::default());
    assert_eq!((texts.len(), end), (3, Some(End::ContextFull)));
    assert_eq!(s.cached().len(), CONTEXT);
    let long = "p".repeat(CONTEXT);
    let error = s.generate(&long, &GenerateOptions::default()).map(|_| ()).expect_err("too long");
    assert!(matches!(error, SessionError::PromptTooLong { tokens, max: CONTEXT } if tokens == CONTEXT + 1), "{error}");
}

#[test]
fn what_is_in_the_cache_is_not_computed_again_and_does_not_show() {
    let fresh = |prompt: &str| pieces(&mut session(0, &[]), prompt, &most(4)).0.concat();
    let mut s = session(0, &[]);
    let first = pieces(&mut s, "tell me", &most(4)).0.concat();
    assert_eq!(first, fresh("tell me"));
    // The last token was chosen, but never run.
    assert_eq!(s.cached().len(), 8 + 3);

    let second = format!("tell me{first} more");
    let mut generation = s.generate(&second, &most(4)).expect("a generation");
    let text: String = generation.by_ref().map(|p| p.expect("fine").text).collect();
    assert_eq!((generation.stats().reused_tokens, generation.stats().prompt_tokens), (11, 8 + 4 + 5));
    assert_eq!(text, fresh(&second));

    // Another history: only what both have in common stays.
    let mut generation = s.generate("tell us", &most(4)).expect("a generation");
    let text: String = generation.by_ref().map(|p| p.expect("fine").text).collect();
    assert_eq!((generation.stats().reused_tokens, text), (6, fresh("tell us")));

    // The same prompt once more: its last token is run for its logits.
    let generation = s.generate("tell us", &most(4)).expect("a generation");
    assert_eq!(generation.stats().reused_tokens, 7);
    drop(generation);
    s.clear();
    assert!(s.cached().is_empty() && s.engine().kv().is_empty(0));
}

#[test]
fn a_dropped_generation_leaves_a_good_cache() {
    let mut s = session(0, &[]);
    let mut generation = s.generate("abc", &GenerateOptions::default()).expect("a generation");
    let shown: String = generation.by_ref().take(5).map(|p| p.expect("fine").text).collect();
    drop(generation);
    assert_eq!(s.engine().kv().len(0), s.cached().len());
    assert_eq!(pieces(&mut s, "abc", &most(5)).0.concat(), shown);
}

#[test]
fn a_begin_token_stands_in_front_of_a_text_once() {
    let mut s = session(0, &[]);
    for prompt in ["ab", "<|begin|>ab"] {
        drop(s.generate(prompt, &most(1)).expect("a generation").into_text());
        assert_eq!(s.cached(), [BOS, u32::from(b'a'), u32::from(b'b')]);
    }
    drop(s.generate(&bytes("ab"), &most(1)).expect("a generation").into_text());
    assert_eq!(s.cached(), [u32::from(b'a'), u32::from(b'b')]);
}

#[test]
fn what_cannot_be_continued_is_refused_before_anything_runs() {
    let mut s = session(0, &[]);
    let none: &[u32] = &[];
    assert!(matches!(s.generate(none, &most(1)), Err(SessionError::NoPrompt)));
    let unknown: &[u32] = &[VOCAB as u32];
    assert!(matches!(s.generate(unknown, &most(1)), Err(SessionError::Engine(crate::step::EngineError::BadToken { .. }))));
    let bad = GenerateOptions { sampling: Some(Sampling { top_p: 2.0, ..Sampling::default() }), ..most(1) };
    assert!(matches!(s.generate("a", &bad), Err(SessionError::BadSampling { name: "top-p", .. })));
    let message = [Message::new("user", "hi")];
    assert!(matches!(s.chat(&message, &most(1)), Err(SessionError::NoTemplate)));
    assert!(s.cached().is_empty());
    assert_eq!(pieces(&mut s, "a", &most(0)), (vec![], Some(End::MaxTokens)));
}

#[test]
fn a_chat_goes_on_where_the_cache_ends() {
    let template = "<|begin|>{% for m in messages %}{{ m.role[0] }}:{{ m.content }}<|end|>{% endfor %}a:";
    // Behind `<begin>u:hi<end>a:` the model says `yo` and ends.
    let script = [bytes("yo"), vec![EOS]].concat();
    let mut s = session_with(8, &script, Some(template));
    let mut messages = vec![Message::new("user", "hi")];
    let answer = s.chat(&messages, &most(9)).expect("a chat").into_text().expect("an answer");
    assert_eq!(answer, "yo");
    messages.extend([Message::new("assistant", &answer), Message::new("user", "ok")]);
    let mut generation = s.chat(&messages, &most(1)).expect("a chat");
    assert!(generation.next().is_some());
    // All but the end of the answer, the second message and the beginning of an answer: `<end>u:ok<end>a:`.
    assert_eq!((generation.stats().prompt_tokens, generation.stats().reused_tokens), (18, 10));
}
