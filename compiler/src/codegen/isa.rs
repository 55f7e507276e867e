//! Cranelift for a target: the instruction set, its flags, and signatures. Nothing is emitted here.

use std::str::FromStr;

use cranelift_codegen::ir::{AbiParam, Signature, types::I64};
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use target_lexicon::Triple;

use super::CodegenError;
use crate::target::{Arch, Target};

/// Cranelift's flag for each feature that it can use.
const FLAGS: &[(Arch, &str, &str)] = &[
    (Arch::X86_64, "sse3", "has_sse3"),
    (Arch::X86_64, "ssse3", "has_ssse3"),
    (Arch::X86_64, "sse4.1", "has_sse41"),
    (Arch::X86_64, "sse4.2", "has_sse42"),
    (Arch::X86_64, "popcnt", "has_popcnt"),
    (Arch::X86_64, "cmpxchg16b", "has_cmpxchg16b"),
    (Arch::X86_64, "avx", "has_avx"),
    (Arch::X86_64, "avx2", "has_avx2"),
    (Arch::X86_64, "fma", "has_fma"),
    (Arch::X86_64, "bmi1", "has_bmi1"),
    (Arch::X86_64, "bmi2", "has_bmi2"),
    (Arch::X86_64, "lzcnt", "has_lzcnt"),
    (Arch::Aarch64, "lse", "has_lse"),
    (Arch::Riscv64, "m", "has_m"),
    (Arch::Riscv64, "a", "has_a"),
    (Arch::Riscv64, "f", "has_f"),
    (Arch::Riscv64, "d", "has_d"),
    (Arch::Riscv64, "v", "has_v"),
    (Arch::Riscv64, "v", "has_zvl128b"),
    (Arch::Riscv64, "zba", "has_zba"),
    (Arch::Riscv64, "zbb", "has_zbb"),
    (Arch::Riscv64, "zbs", "has_zbs"),
];

/// Every target has the C calling convention of Linux.
pub(super) const CALL: CallConv = CallConv::SystemV;

/// Cranelift's instruction set for a target.
pub(super) fn build(target: &Target) -> Result<OwnedTargetIsa, CodegenError> {
    let failed = |message: String| CodegenError::Cranelift { function: format!("target {}", target.name), message };
    let mut shared = settings::builder();
    // Nothing unwinds through step code, and its frames are far below a page.
    let values = [("opt_level", "speed"), ("unwind_info", "false"), ("enable_probestack", "false"), ("preserve_frame_pointers", "true")];
    for (name, value) in values {
        shared.set(name, value).map_err(|e| failed(e.to_string()))?;
    }
    let triple = format!("{}-unknown-linux-gnu", if target.arch == Arch::Riscv64 { "riscv64gc" } else { target.arch.name() });
    let triple = Triple::from_str(&triple).map_err(|e| failed(e.to_string()))?;
    let mut builder = isa::lookup(triple).map_err(|e| failed(e.to_string()))?;
    for (_, _, flag) in FLAGS.iter().filter(|(arch, feature, _)| *arch == target.arch && target.has(feature)) {
        builder.enable(flag).map_err(|e| failed(format!("{flag}: {e}")))?;
    }
    builder.finish(settings::Flags::new(shared)).map_err(|e| failed(e.to_string()))
}

/// A function of `n` 64-bit integers that returns nothing.
pub(super) fn signature(n: usize) -> Signature {
    let mut signature = Signature::new(CALL);
    signature.params.extend((0..n).map(|_| AbiParam::new(I64)));
    signature
}
