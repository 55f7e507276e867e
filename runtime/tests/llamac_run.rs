//! The program `llamac-run` over an artifact whose code is three instructions: what it prints, where, and how it ends. That real models
//! give the right text is tested with the compiler.

#![cfg(target_arch = "x86_64")]

use llamac_runtime::artifact::meta::{GenerationMeta, KvMeta, Meta, ModelMeta, PlanMeta, TargetMeta};
use llamac_runtime::artifact::{ArtifactWriter, SectionKind};
use llamac_runtime::template::TemplateSource;
use llamac_runtime::tokenizer::build::{TableSource, TokenSource, build};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Every token that this model says is an `a`: `arena[97] = 1.0`.
const CODE: [u8; 15] = [0x48, 0x8b, 0x47, 0x10, 0xc7, 0x80, 0x84, 0x01, 0, 0, 0, 0, 0x80, 0x3f, 0xc3];
const VOCAB: usize = 256;

/// A file in the temporary folder; removed when dropped.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn artifact(name: &str, template: Option<&str>) -> File {
    let meta = Meta {
        compiler: "test".into(),
        target: TargetMeta { arch: "x86_64".into(), features: vec![], abi: 1 },
        model: ModelMeta {
            name: "a".into(),
            architecture: "A".into(),
            layers: 1,
            vocab: VOCAB,
            max_context: 100_000,
            parameters: 1,
            quant: "f32".into(),
        },
        plan: PlanMeta {
            max_step: 64,
            max_rows: 1,
            max_batch: 1,
            arena_bytes: VOCAB as u64 * 4,
            logits_offset: 0,
            logits_stride: VOCAB as u64 * 4,
            weight_bytes: 4,
            decode_bytes: 4,
            decode_macs: 1,
            token_macs: 1,
            buffers: vec![],
            kv: vec![KvMeta { layers: 1, format: "f32".into(), kv_heads: 1, head_dim: 16, page_bytes: 8192, chunk: 0 }],
        },
        kernels: vec![],
        schedule: vec![],
        entry: 0,
        generation: GenerationMeta::default(),
    };
    let tokens = (0..=255).map(|b| TokenSource { bytes: vec![b], merged: true, added: None }).collect();
    let table = build(&TableSource { tokens, expression: "(?s).+".into(), ..TableSource::default() }).expect("a table");
    let path = std::env::temp_dir().join(format!("llamac-run-{name}-{}.llx", std::process::id()));
    let mut writer = ArtifactWriter::create(&path).expect("create");
    writer.put(SectionKind::Meta, &serde_json::to_vec(&meta).expect("json")).expect("meta");
    writer.put(SectionKind::Code, &CODE).expect("code");
    writer.put(SectionKind::Weights, &[0; 4]).expect("weights");
    writer.put(SectionKind::Tokenizer, &table).expect("tokenizer");
    if let Some(template) = template {
        let source = TemplateSource { template: template.into(), ..TemplateSource::default() };
        writer.put(SectionKind::Template, &serde_json::to_vec(&source).expect("json")).expect("template");
    }
    writer.finish().expect("finish");
    File(path)
}

fn run(file: &File, args: &[&str], stdin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamac-run"));
    command.arg(&file.0).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // A program that reads no input may have closed it already.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn text_goes_to_standard_output_and_all_else_to_standard_error() {
    let file = artifact("plain", None);
    let done = run(&file, &["-p", "x", "-n", "5"], "");
    let said = text(&done.stderr);
    assert_eq!((text(&done.stdout), done.status.code()), ("aaaaa\n", Some(0)), "{said}");
    assert!(said.contains("prompt 1 token at") && said.contains("generated 5 tokens at") && said.contains("GB/s"), "{said}");
    assert!(said.contains("most tokens asked for"), "{said}");
    let done = run(&file, &["-p", "x", "-n", "5", "--quiet"], "");
    assert_eq!((text(&done.stdout), text(&done.stderr)), ("aaaaa\n", ""));
}

#[test]
fn a_prompt_comes_from_a_pipe_or_a_file_too() {
    let file = artifact("pipe", None);
    for args in [&["-n", "2", "-"][..], &["-n", "2"]] {
        let done = run(&file, args, "four");
        assert!(text(&done.stderr).contains("prompt 4 tokens"), "{}", text(&done.stderr));
    }
    let prompt = File(std::env::temp_dir().join(format!("llamac-run-prompt-{}", std::process::id())));
    std::fs::write(&prompt.0, "sixsix").expect("write");
    let done = run(&file, &["-n", "2", "-f", prompt.0.to_str().expect("UTF-8")], "");
    assert!(text(&done.stderr).contains("prompt 6 tokens"), "{}", text(&done.stderr));
}

#[test]
fn a_chat_from_a_pipe_answers_every_line_and_reuses_its_cache() {
    let file = artifact("chat", Some("{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}a:"));
    let done = run(&file, &["--chat", "-n", "3", "--system", "S"], "hi\n\nyo\n/quit\nnever\n");
    let said = text(&done.stderr);
    assert_eq!(text(&done.stdout), "aaa\naaa\n", "{said}");
    // `s:S;u:hi;a:` has 11 tokens; `s:S;u:hi;a:aaa;u:yo;a:` has 22, of which the third `a` was never run.
    assert!(said.contains("prompt 33 tokens (13 from the cache)"), "{said}");
    let done = run(&file, &["--chat", "-n", "1", "-p", "one question"], "not read\n");
    assert_eq!(text(&done.stdout), "a\n");
}

#[test]
fn timings_name_the_steps_of_the_start() {
    let done = run(&artifact("timings", None), &["-p", "x", "-n", "3", "--timings"], "");
    let said = text(&done.stderr);
    for name in ["main", "artifact open", "tokenizer", "session ready", "first prefill instruction", "first token", "GB/s that"] {
        assert!(said.contains(name), "no {name}: {said}");
    }
}

#[test]
fn what_goes_wrong_has_a_code_and_advice() {
    let file = artifact("wrong", None);
    let done = run(&file, &["--chat"], "");
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("error[template]: the model has no chat template"), "{}", text(&done.stderr));
    let done = run(&file, &["--warp", "9"], "");
    assert_eq!(done.status.code(), Some(2));
    assert!(text(&done.stderr).contains("--warp"), "{}", text(&done.stderr));
    let done = run(&file, &["-p", ""], "");
    assert!(text(&done.stderr).contains("error[no-prompt]"), "{}", text(&done.stderr));
    std::fs::write(&file.0, "not a model").expect("write");
    let done = run(&file, &["-p", "x"], "");
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("error[not-an-artifact]"), "{}", text(&done.stderr));
}

#[test]
fn a_reader_that_leaves_ends_the_run_quietly() {
    let file = artifact("pipe-closed", None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamac-run"));
    command.arg(&file.0).args(["-p", "x", "-n", "90000"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut first = [0; 3];
    let mut out = child.stdout.take().expect("a pipe");
    out.read_exact(&mut first).expect("some text");
    drop(out);
    let done = child.wait_with_output().expect("it ends");
    assert_eq!((&first, done.status.code(), text(&done.stderr)), (b"aaa", Some(0), ""));
}
