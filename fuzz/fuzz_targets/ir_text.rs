//! IR text: any text gives a module or an error; a module prints as text that gives it again, and the verifier takes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llamac_ir::{parse, verify};

fuzz_target!(|text: &str| {
    let Ok(module) = parse::parse(text) else { return };
    let printed = module.to_string();
    let again = parse::parse(&printed).expect("what was printed parses");
    assert_eq!(again.to_string(), printed);
    let _ = verify::verify(&module, module.stage);
});
