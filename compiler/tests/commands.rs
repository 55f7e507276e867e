//! Every command of `llamac` on a small real model: what it prints, writes and returns. Bad input is in `bad_input` and `bad_artifact`.

mod common;

use common::{fixtures, llamac, llamac_with_input, ok, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn model() -> PathBuf {
    fixtures().join("tiny-llama3/model")
}

/// tiny-llama3 in f32, compiled once by the command itself.
fn artifact() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commands.llx");
        ok(&["compile", text(&model()), "-o", text(&out), "--quant", "f32", "--max-context", "1024", "--quiet"]);
        out
    })
}

fn json(args: &[&str]) -> Value {
    let said = ok(args);
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("llamac {args:?} printed no JSON ({e}): {said}"))
}

/// Prompt and greedy continuation of the reference.
fn reference() -> (String, String) {
    let manifest = fs::read(fixtures().join("tiny-llama3/reference/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let prompt = manifest["prompts"].as_array().unwrap().iter().find(|p| p["name"] == "text0").unwrap();
    (prompt["text"].as_str().unwrap().to_owned(), prompt["greedy_text"].as_str().unwrap().to_owned())
}

const GREEDY: [&str; 6] = ["--temp", "0", "--max-tokens", "72", "--ignore-eos", "--quiet"];

#[test]
fn compile_says_what_it_made_and_names_it_after_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_llamac")).args(args).current_dir(folder.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let model = model().canonicalize().unwrap();
    let said = run(&["compile", text(&model)]);
    assert!(said.contains("tiny-llama3.llx") && folder.path().join("tiny-llama3.llx").exists(), "{said}");
    let summary: Value = serde_json::from_str(&run(&["compile", text(&model), "-o", "b.llx", "--json"])).unwrap();
    assert_eq!(summary["file_bytes"].as_u64().unwrap(), fs::metadata(folder.path().join("b.llx")).unwrap().len());
    assert_eq!(summary["model"]["parameters"], 2_383_680);
    assert_eq!(run(&["compile", text(&model), "-o", "c.llx", "--quiet"]), "");
    let same = fs::read(folder.path().join("b.llx")).unwrap() == fs::read(folder.path().join("c.llx")).unwrap();
    assert!(same, "the same input gave other bytes");
}

#[test]
fn run_streams_the_references_text_from_an_argument_a_file_and_a_pipe() {
    let (prompt, expected) = reference();
    let path = text(artifact());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prompt.txt");
    fs::write(&file, &prompt).unwrap();
    let argument = ok(&[&["run", path, "-p", &prompt], &GREEDY[..]].concat());
    assert_eq!(argument.trim_end(), expected.trim_end());
    assert_eq!(ok(&[&["run", path, "-f", text(&file)], &GREEDY[..]].concat()), argument);
    let piped = llamac_with_input(&[&["run", path], &GREEDY[..]].concat(), &prompt);
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), argument);
}

#[test]
fn run_compiles_a_model_directory_first_and_says_so() {
    let (prompt, expected) = reference();
    let model = model();
    let args = ["run", text(&model), "--prompt", &prompt, "--temp", "0", "--max-tokens", "72", "--ignore-eos", "--quant", "f32"];
    let done = llamac(&args);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim_end(), expected.trim_end());
    assert!(said.contains("llamac compile") && said.contains("tok"), "{said}");
}

#[test]
fn run_answers_a_message_and_ends_at_a_stop_string() {
    let path = text(artifact());
    let chat = ["run", path, "--chat", "--system", "You are a player.", "-p", "Speak, I charge you.", "--temp", "0", "-n", "48", "--quiet"];
    let answer = ok(&chat);
    assert!(answer.starts_with("DUKE VINCENTIO:\nI do not know the king."), "{answer}");
    let stopped = ok(&[&chat[..], &["--stop", " the king"]].concat());
    assert_eq!(stopped.trim_end(), "DUKE VINCENTIO:\nI do not know");
}

#[test]
fn run_repeats_itself_with_a_seed() {
    let path = text(artifact());
    let with = |seed: &str| ok(&["run", path, "-p", "ROMEO:", "--temp", "1", "-n", "24", "--seed", seed, "--quiet"]);
    assert_eq!(with("5"), with("5"));
    assert_ne!(with("5"), with("6"));
}

#[test]
fn run_shows_the_times_of_the_start() {
    let done = llamac(&["run", text(artifact()), "-p", "ROMEO:", "-n", "4", "--timings"]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("first prefill instruction"), "{said}");
}

#[test]
fn plan_needs_nothing_but_a_config() {
    let config = fixtures().join("configs/llama-3.1-405b/config.json");
    let planned = json(&["plan", text(&config), "--json"]);
    assert_eq!(planned["model"]["parameters"], 405_853_388_800u64);
    assert_eq!(planned["kv_bytes_per_token"], 516_096);
    let page = ok(&["plan", text(&config), "--summary"]);
    assert!(page.contains("405 853 388 800") && page.contains("llama-3.1-405b") || page.contains("@layer"), "{page}");
}

#[test]
fn plan_shows_scouts_cache_at_ten_million_tokens_and_what_a_machine_would_do() {
    let config = fixtures().join("configs/llama-4-scout-17b-16e/config.json");
    let args = ["plan", text(&config), "--quant", "bf16", "--max-context", "10485760", "--machine", "64,400,512"];
    let page = ok(&args);
    let line = |start: &str| page.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("no `{start}` in {page}"));
    assert!(line("KV cache per token").contains(" 49 152 "));
    assert!(line("KV ring of a sequence, 36 layers of chunk 8192").contains(" 1 207 959 552 "));
    // 49 152 for each of the tokens, and the rings.
    assert!(line("KV cache of a sequence of 10485760").contains(" 516 604 035 072 "));
    // 400 GB/s over the 32.3 GB that a token reads, not over the 216 GB of all experts.
    assert!(line("decode, empty cache").contains("12.3"), "{page}");
    assert!(line("fits, with a sequence of 10485760").contains("no:"), "{page}");
}

#[test]
fn plan_is_what_the_artifact_takes() {
    let model = model();
    let planned = json(&["plan", text(&model), "--quant", "f32", "--max-context", "1024", "--json"]);
    let inspected = json(&["inspect", text(artifact()), "--json"]);
    assert_eq!(planned["plan"], inspected["meta"]["plan"]);
}

#[test]
fn inspect_shows_sections_plan_and_kernels_and_the_module() {
    let path = text(artifact());
    let page = ok(&["inspect", path, "--buffers"]);
    for word in ["weights", "code", "tokenizer", "template", "check", "kernels:", "KV cache per token", "buffer"] {
        assert!(page.contains(word), "`{word}` is not in: {page}");
    }
    let facts = json(&["inspect", path, "--json"]);
    assert_eq!(facts["file_bytes"].as_u64().unwrap(), fs::metadata(artifact()).unwrap().len());
    assert!(ok(&["inspect", path, "--ir"]).contains("func @main"));
}

#[test]
fn explain_says_what_was_fused_what_it_costs_and_what_lost() {
    let model = model();
    let page = ok(&["explain", text(&model)]);
    for word in ["@layer", "merge-qkv", "saturated"] {
        assert!(page.contains(word), "`{word}` is not in: {page}");
    }
    assert!(ok(&["explain", text(&model), "--step"]).contains("barrier"));
}

#[test]
fn opt_runs_the_pipeline_or_named_passes_on_ir_text_and_stops_when_fuel_is_used_up() {
    let imported = ok(&["explain", text(&model()), "--quant", "f32", "--ir"]);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("module.lir");
    fs::write(&file, imported).unwrap();
    let path = text(&file);

    let placed = ok(&["opt", path, "--quant", "f32"]);
    assert_eq!(placed, ok(&["inspect", text(artifact()), "--ir"]));
    let fuelled: Vec<String> = ["0", "3", "100000"].iter().map(|fuel| ok(&["opt", path, "--fuel", fuel])).collect();
    assert!(!fuelled[0].contains("linear_add") && fuelled[0] != fuelled[1] && fuelled[1] != fuelled[2]);
    assert_eq!(fuelled[2], placed);

    let one = ok(&["opt", path, "--passes", "choose-precision,merge-gate-up", "--print-after=choose-precision"]);
    let (before, after) = one.split_once("stage=quantized").unwrap().1.split_once("module ").unwrap();
    assert!(one.starts_with("// after choose-precision\n") && !before.contains("wgate_wup") && after.contains("wgate_wup"), "{one}");
    let wrong = common::diagnostic(&["opt", path, "--passes", "no-such-pass"]);
    assert!(wrong.contains("no-such-pass") && wrong.contains("remove-dead"), "{wrong}");
}

#[test]
fn opt_points_at_the_place_of_a_mistake() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong.lir");
    fs::write(&file, "module m stage=imported\nfunc @main(%x: f32[s, 4]) {\n  %y = no_such_op %x : f32[s, 4]\n  return %y\n}\n").unwrap();
    let said = common::diagnostic(&["opt", text(&file)]);
    assert!(said.contains("no_such_op") && said.contains('3'), "{said}");
}

#[test]
fn bench_measures_prefill_and_decode() {
    let args = ["bench", text(artifact()), "--prefill", "16", "--decode", "4", "--depth", "0", "--batch", "1,2", "--reps", "2", "--json"];
    let measured = json(&args);
    assert!(measured.to_string().contains("prefill") && measured.to_string().contains("decode"), "{measured}");
}

#[test]
fn eval_gives_the_perplexity_of_a_text() {
    let text_file = fixtures().join("text/valid.txt");
    let result = json(&["eval", text(artifact()), "--text", text(&text_file), "--windows", "24", "--json"]);
    let perplexity = result["perplexity"].as_f64().unwrap();
    // The reference's windows are taken from all over the text, these from its beginning.
    assert!((35.0..60.0).contains(&perplexity), "{perplexity}");
    assert_eq!(result["tokens"], 24 * 256);
}

#[test]
fn logits_are_the_references_and_the_same_bits_in_every_mode() {
    let input = fixtures().join("tiny-llama3/reference/reference.safetensors");
    let out = |name: &str| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let run = |name: &str, more: &[&str]| {
        let path = out(name);
        ok(&[&["logits", text(artifact()), "--input", text(&input), "--output", text(&path), "--greedy", "48"], more].concat());
        fs::read(path).unwrap()
    };
    let plain = run("plain.safetensors", &[]);
    for (name, more) in [
        ("chunk.safetensors", &["--chunk", "7"][..]),
        ("batch.safetensors", &["--batch", "5", "--chunk", "11"]),
        ("threads.safetensors", &["--threads", "1"]),
    ] {
        assert!(run(name, more) == plain, "{more:?} gave other bits");
    }
    let expected = fs::read(&input).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&expected).unwrap();
    let found = safetensors::SafeTensors::deserialize(&plain).unwrap();
    let data = |file: &safetensors::SafeTensors<'_>, name: &str| file.tensor(name).unwrap().data().to_vec();
    assert_eq!(data(&found, "text1.greedy_ids"), data(&expected, "text1.greedy_ids"));
    assert_eq!(found.tensor("text1.logits").unwrap().shape(), [27, 1924]);
    assert_eq!(found.tensor("ppl.nll").unwrap().shape(), [24, 256]);
    for name in ["text1.logits", "random_ids.logits", "ppl.nll"] {
        let floats = |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
        let (found, expected) = (floats(data(&found, name)), floats(data(&expected, name)));
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 3e-4), "{name}");
    }
}

#[test]
fn verify_checks_hashes_and_then_numbers() {
    let path = text(artifact());
    assert!(ok(&["verify", path]).contains("check vectors: "));
    let result = json(&["verify", path, "--json"]);
    assert_eq!(result["check"]["passed"], true);
    let hashes = json(&["verify", path, "--hashes-only", "--json"]);
    assert_eq!(hashes["hashes"], "ok");
}

#[test]
fn targets_lists_what_code_can_be_made_for_and_what_runs_here() {
    let list = json(&["targets", "--json"]);
    let named = |name: &str| list.as_array().unwrap().iter().find(|t| t["name"] == name).cloned();
    assert_eq!(named("native").unwrap()["missing_here"], serde_json::json!([]));
    for name in ["x86_64-v2", "x86_64-v3", "x86_64-v4", "aarch64", "riscv64"] {
        assert!(named(name).is_some(), "{name}");
    }
    assert!(ok(&["targets"]).contains("runs here"));
}

#[test]
fn completions_are_scripts_for_the_shell() {
    assert!(ok(&["completions", "bash"]).contains("_llamac()"));
    assert!(ok(&["completions", "zsh"]).contains("#compdef llamac"));
}

#[test]
fn help_teaches_and_a_wrong_command_line_has_its_own_exit_code() {
    let help = ok(&["--help"]);
    for command in ["compile", "run", "plan", "inspect", "explain", "opt", "bench", "eval", "logits", "verify", "targets", "completions"] {
        assert!(help.contains(command), "`{command}` is not in: {help}");
        assert!(ok(&[command, "--help"]).contains("Usage:"));
    }
    assert_eq!(llamac(&["compile", "--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn a_rope_that_is_stretched_for_the_whole_context_is_said() {
    let folder = common::copy_model("tiny-llama3");
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["rope_scaling"] = serde_json::json!({ "rope_type": "dynamic", "factor": 2.0 });
    config["max_position_embeddings"] = 256.into();
    fs::write(&path, config.to_string()).unwrap();
    let out = folder.path().join("out.llx");
    let said = |context| {
        let args = ["compile", text(folder.path()), "-o", text(&out), "--max-context", context];
        let done = Command::new(env!("CARGO_BIN_EXE_llamac")).args(args).output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stderr).unwrap()
    };
    assert!(said("512").contains("fixed for sequences of 512"));
    assert!(!said("256").contains("fixed for"));
}
