//! Tokenizers: any tokenizer.json compiles or is refused; any table is refused, or encodes and decodes any text without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llamac::frontend::tokenizer;
use llamac_runtime::tokenizer::{EncodeOptions, Tokenizer};

fuzz_target!(|data: &[u8]| {
    // The first byte says what the rest is; the last bytes are the text.
    let Some((&kind, rest)) = data.split_first() else { return };
    let (file, text) = rest.split_at(rest.len() - rest.len() / 8);
    let text = String::from_utf8_lossy(text);
    if kind % 2 == 0 {
        if let Ok(sections) = tokenizer::compile(rest, None, None, 4096) {
            let tokenizer = Tokenizer::from_bytes(sections.table).expect("what was compiled is valid");
            encode(&tokenizer, &text);
        }
    } else if let Ok(tokenizer) = Tokenizer::from_bytes(file.to_vec()) {
        encode(&tokenizer, &text);
    }
});

fn encode(tokenizer: &Tokenizer, text: &str) {
    for parse_special in [false, true] {
        let ids = tokenizer.encode(text, EncodeOptions { parse_special, add_bos: true });
        let _ = tokenizer.decode(&ids, true);
    }
}
