//! `config.json` and `generation_config.json`: any bytes give checked data or a diagnostic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llamac::frontend::hf::config::parse_config;
use llamac::frontend::hf::generation::parse_generation;

fuzz_target!(|data: &[u8]| {
    // Two files in one input, separated by a zero byte.
    let (config, generation) = match data.iter().position(|b| *b == 0) {
        Some(at) => (&data[..at], Some(&data[at + 1..])),
        None => (data, None),
    };
    if let Ok(config) = parse_config(config) {
        let _ = parse_generation(generation, &config);
    }
});
