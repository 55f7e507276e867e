//! Tests of the emitted code for every architecture: it is self-contained, its calls arrive, every instruction decodes, and the same
//! program gives the same bytes. That it computes the right thing is tested by running models (`llamac-tests`, `tests/run-foreign`).

use super::{Code, compile};
use crate::driver::{self, CompileOptions};
use crate::frontend;
use std::collections::BTreeSet;
use yaxpeax_arch::{Decoder, LengthedInstruction, U8Reader};

const TARGETS: &[&str] = &["x86_64-v2", "x86_64-v3", "x86_64-v4+avx512bf16", "aarch64", "riscv64"];

fn code(model: &str, target: &str, quant: &str) -> Code {
    let config = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(model).join("model/config.json");
    let options = CompileOptions {
        quant: Some(quant.into()),
        target: target.into(),
        max_step: 64,
        max_context: Some(256),
        ..CompileOptions::default()
    };
    let planned = driver::plan(&frontend::load_config(&config).unwrap(), &options).unwrap();
    compile(&planned.program, &planned.target).unwrap()
}

/// Every function with its name, its start and its bytes, constants included.
fn functions(code: &Code) -> impl Iterator<Item = (&str, u64, &[u8])> {
    code.symbols.iter().map(|s| (s.name.as_str(), s.offset, &code.blob[s.offset as usize..(s.offset + s.bytes) as usize]))
}

#[test]
fn the_same_program_gives_the_same_code_for_every_target() {
    for target in TARGETS {
        let (a, b) = (code("tiny-llama3", target, "bf16"), code("tiny-llama3", target, "bf16"));
        assert_eq!(a, b, "{target}");
        assert_eq!((a.entry, a.symbols[0].name.as_str(), a.symbols[0].offset), (0, "step", 0));
        let ends: Vec<u64> = a.symbols.iter().map(|s| s.offset + s.bytes).collect();
        assert!(a.symbols[1..].iter().zip(&ends).all(|(next, end)| next.offset >= *end && next.offset % 64 == 0), "{target}");
    }
}

/// What decoding one instruction tells.
struct Seen {
    bytes: usize,
    /// Whether it never goes on to the next instruction.
    leaves: bool,
    /// Target of a direct call, relative to the instruction.
    call: Option<i64>,
    /// Target of a branch, relative to the instruction.
    branch: Option<i64>,
}

/// Decodes the instruction at an offset of a function.
type Decode = fn(&[u8], usize) -> Result<Seen, String>;

/// Where the direct calls of a function go, found by decoding every instruction that can be reached from its start (constants cannot);
/// fails on one that is no instruction, and on a path that leaves the function otherwise than by a return.
fn calls(decode: Decode, name: &str, start: u64, bytes: &[u8]) -> Vec<u64> {
    let (mut open, mut seen, mut found) = (vec![0usize], BTreeSet::new(), Vec::new());
    while let Some(at) = open.pop() {
        if !seen.insert(at) {
            continue;
        }
        assert!(at < bytes.len(), "{name}: a path leads to {at}, behind its end");
        let this = decode(bytes, at).unwrap_or_else(|e| panic!("{name}+{at}: {e}: {:02x?}", &bytes[at..bytes.len().min(at + 8)]));
        found.extend(this.call.map(|delta| (start + at as u64).wrapping_add_signed(delta)));
        open.extend(this.branch.map(|delta| at.wrapping_add_signed(delta as isize)));
        if !this.leaves {
            open.push(at + this.bytes);
        }
    }
    found
}

fn x86(function: &[u8], at: usize) -> Result<Seen, String> {
    let bytes = &function[at..];
    let decoder = yaxpeax_x86::amd64::InstDecoder::default();
    let instruction = decoder.decode(&mut U8Reader::new(bytes)).map_err(|e| e.to_string())?;
    let length = instruction.len().to_const() as usize;
    let rel32 = |at: usize| Some(i64::from(i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())) + length as i64);
    let (call, branch) = match bytes {
        [0xe8, ..] => (rel32(1), None),
        [0xe9, ..] => (None, rel32(1)),
        [0x0f, 0x80..=0x8f, ..] => (None, rel32(2)),
        [0xeb | 0x70..=0x7f, short, ..] => (None, Some(i64::from(*short as i8) + length as i64)),
        _ => (None, None),
    };
    let leaves = instruction.opcode() == yaxpeax_x86::amd64::Opcode::RETURN || matches!(bytes[0], 0xe9 | 0xeb);
    Ok(Seen { bytes: length, leaves, call, branch })
}

/// Bits `from..from + width` of a word as a signed number.
fn signed(word: u32, from: u32, width: u32) -> i64 {
    i64::from((word << (32 - width - from)) as i32 >> (32 - width))
}

fn arm(function: &[u8], at: usize) -> Result<Seen, String> {
    let bytes = &function[at..];
    let word = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    yaxpeax_arm::armv8::a64::InstDecoder::default().decode(&mut U8Reader::new(bytes)).map_err(|e| e.to_string())?;
    let call = (word >> 26 == 0b100101).then(|| signed(word, 0, 26) * 4);
    let branch = match word >> 24 {
        0x14..=0x17 => Some(signed(word, 0, 26) * 4),
        0x34 | 0x35 | 0x54 | 0xb4 | 0xb5 => Some(signed(word, 5, 19) * 4),
        0x36 | 0x37 | 0xb6 | 0xb7 => Some(signed(word, 5, 14) * 4),
        _ => None,
    };
    Ok(Seen { bytes: 4, leaves: word == 0xd65f_03c0 || word >> 26 == 0b000101, call, branch })
}

/// No decoder knows all of RISC-V's vectors, so only lengths, branches and calls are looked at.
fn riscv(function: &[u8], at: usize) -> Result<Seen, String> {
    let bytes = &function[at..];
    let half = u16::from_le_bytes(bytes[..2].try_into().unwrap());
    // Two low bits of 11 mean 32 bits, unless the next three are 111 (longer formats, which nobody emits).
    if half & 3 != 3 {
        let seen = Seen { bytes: 2, leaves: half == 0x8082, call: None, branch: None };
        return if half == 0 { Err("an illegal instruction".to_owned()) } else { Ok(seen) };
    }
    if half >> 2 & 7 == 7 {
        return Err("an instruction of more than 32 bits".to_owned());
    }
    let word = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap()));
    let (this, next) = (word(0), word(4));
    // auipc with a jalr behind it that links ra.
    let call = (this & 0x7f == 0x17 && next & 0xfff == 0x0e7).then(|| i64::from(this as i32 & !0xfff) + signed(next, 20, 12));
    let branch = match this & 0x7f {
        0x63 => Some(signed(this, 31, 1) << 12 | i64::from((this >> 7 & 1) << 11 | (this >> 25 & 0x3f) << 5 | (this >> 8 & 0xf) << 1)),
        0x6f => Some(signed(this, 31, 1) << 20 | i64::from((this >> 12 & 0xff) << 12 | (this >> 20 & 1) << 11 | (this >> 21 & 0x3ff) << 1)),
        _ => None,
    };
    Ok(Seen { bytes: 4, leaves: this == 0x0000_8067 || this & 0xfff == 0x06f, call, branch })
}

#[test]
fn every_instruction_decodes_and_every_call_arrives_at_a_function() {
    for target in TARGETS {
        for (model, quant) in [("tiny-llama3", "bf16"), ("llama3-untied", "f32")] {
            let code = code(model, target, quant);
            let starts: BTreeSet<u64> = code.symbols.iter().map(|s| s.offset).collect();
            let decode: Decode = match target.split('-').next() {
                Some("aarch64") => arm,
                Some("riscv64") => riscv,
                _ => x86,
            };
            let mut reached = BTreeSet::from([0]);
            for (name, start, bytes) in functions(&code) {
                for to in calls(decode, name, start, bytes) {
                    assert!(starts.contains(&to), "{target}: {name} calls {to:#x}, where no function begins");
                    reached.insert(to);
                }
            }
            let missed: Vec<_> = code.symbols.iter().filter(|s| !reached.contains(&s.offset)).collect();
            assert!(missed.is_empty(), "{target}: nobody calls {missed:?}");
        }
    }
}

#[test]
fn kernels_are_chosen_for_the_target_and_not_for_this_machine() {
    let kernels = |target: &str| code("tiny-llama3", target, "bf16").kernels;
    for target in TARGETS {
        let names = kernels(target);
        let foreign = |isas: &[&str]| names.iter().any(|n| isas.iter().any(|isa| n.ends_with(isa)));
        match *target {
            "x86_64-v2" => assert!(!foreign(&["avx2", "avx512", "avx512bf16", "neon"]), "{names:?}"),
            "x86_64-v3" => assert!(foreign(&["avx2"]) && !foreign(&["avx512", "avx512bf16", "neon"]), "{names:?}"),
            "x86_64-v4+avx512bf16" => assert!(foreign(&["avx512bf16"]) && !foreign(&["neon"]), "{names:?}"),
            "aarch64" => assert!(!foreign(&["avx2", "avx512", "avx512bf16"]), "{names:?}"),
            _ => assert!(!foreign(&["avx2", "avx512", "avx512bf16", "neon"]), "{names:?}"),
        }
    }
}
