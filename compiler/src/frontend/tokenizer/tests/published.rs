//! The published tokenizers of Llama 3 and Llama 4, whose licence keeps them out of this repository: `LLAMAC_FIXTURES` says where they are.

use super::*;
use std::process::Command;
use std::time::Instant;

fn fixtures() -> Option<PathBuf> {
    let folder = std::env::var_os("LLAMAC_FIXTURES").map(|f| Path::new(&f).join("tokenizer"));
    if folder.is_none() {
        eprintln!("skipped: the published tokenizers are not in this repository; set LLAMAC_FIXTURES to test them");
    }
    folder
}

#[test]
fn published_tokenizers_encode_decode_and_stream_as_recorded() {
    let Some(folder) = fixtures() else {
        return;
    };
    for name in ["llama3", "llama4"] {
        let packed = folder.join(name).join("tokenizer.json.gz");
        let unpacked = Command::new("gzip").arg("-dc").arg(&packed).output().unwrap();
        assert!(unpacked.status.success(), "{}", packed.display());
        let cases: Value = serde_json::from_slice(&std::fs::read(folder.join(format!("{name}_cases.json"))).unwrap()).unwrap();
        let vocab = cases["vocab_total"].as_u64().unwrap() as usize;

        let start = Instant::now();
        let sections = compile(&unpacked.stdout, None, None, vocab).unwrap();
        let compile_time = start.elapsed();
        assert_eq!(sections.warnings.len(), 0);
        let table_bytes = sections.table.len();
        let start = Instant::now();
        let tokenizer = Tokenizer::from_bytes(sections.table).unwrap();
        let open_time = start.elapsed();
        assert_eq!((tokenizer.vocab_len(), tokenizer.bos().map(u64::from)), (vocab, cases["bos_id"].as_u64()));

        let ids = |v: &Value| v.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect::<Vec<u32>>();
        let list = cases["cases"].as_array().unwrap();
        assert!(list.len() >= 50);
        for case in list {
            let text = case["text"].as_str().unwrap();
            let options = if case["special_tokens_parsed"] == true { PLAIN } else { AS_TEXT };
            let encoded = tokenizer.encode(text, options);
            assert_eq!(encoded, ids(&case["ids"]), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&encoded, false), case["decoded"].as_str().unwrap(), "{name}");
        }

        let stream = &cases["streaming"];
        let pieces =
            ids(&stream["ids"]).into_iter().map(|id| tokenizer.token_bytes(id).iter().map(|b| format!("{b:02x}")).collect::<String>());
        assert_eq!(
            pieces.collect::<Vec<_>>(),
            stream["piece_bytes_hex"].as_array().unwrap().iter().map(|h| h.as_str().unwrap()).collect::<Vec<_>>()
        );

        let text = std::fs::read_to_string(folder.join("../text/train.txt")).unwrap();
        let start = Instant::now();
        let encoded = tokenizer.encode(&text, PLAIN);
        let encode_time = start.elapsed();
        assert_eq!(tokenizer.decode(&encoded, false), text);
        eprintln!(
            "{name}: compiled in {compile_time:.0?}, {table_bytes} bytes, opened in {open_time:.0?}, {:.1} MB/s ({} tokens)",
            text.len() as f64 / 1e6 / encode_time.as_secs_f64(),
            encoded.len()
        );
    }
}
