//! Puts compiled functions behind each other and patches the calls between them. Whatever else would have to be resolved at load is
//! an error, so the blob can be mapped and run as it is.

use std::collections::HashMap;

use cranelift_codegen::Context;
use cranelift_codegen::FinalizedRelocTarget;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{ExtFuncData, ExternalName, FuncRef, Function, UserExternalName};
use cranelift_codegen::isa::OwnedTargetIsa;

use super::{CodegenError, isa};
use crate::target::Arch;

/// A function of the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Symbol {
    /// The entry: always at offset 0.
    Step,
    /// The barrier.
    Barrier,
    /// A function of the step program.
    Function(usize),
    /// A region of a function.
    Region(usize, usize),
}

impl Symbol {
    fn name(self) -> UserExternalName {
        let (namespace, index) = match self {
            Symbol::Step => (0, 0),
            Symbol::Barrier => (0, 1),
            Symbol::Function(f) => (1, f as u32),
            Symbol::Region(f, r) => (2 + f as u32, r as u32),
        };
        UserExternalName { namespace, index }
    }

    /// Declares the symbol in a function that calls it.
    pub(super) fn import(self, func: &mut Function, params: usize) -> FuncRef {
        let name = ExternalName::user(func.declare_imported_user_function(self.name()));
        let signature = func.import_signature(isa::signature(params));
        func.import_function(ExtFuncData { name, signature, colocated: true, patchable: false })
    }
}

/// A function's place in the blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name: `layer.q`.
    pub name: String,
    /// Byte offset.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A call to patch.
struct Call {
    from: String,
    at: usize,
    kind: Reloc,
    to: UserExternalName,
    addend: i64,
}

/// The blob while it grows.
pub(super) struct Linker {
    blob: Vec<u8>,
    places: HashMap<UserExternalName, usize>,
    symbols: Vec<Named>,
    calls: Vec<Call>,
}

impl Linker {
    pub(super) fn new() -> Linker {
        Linker { blob: Vec::new(), places: HashMap::new(), symbols: Vec::new(), calls: Vec::new() }
    }

    /// Compiles a function and puts it behind the others.
    pub(super) fn add(&mut self, name: &str, symbol: Symbol, func: &Function, isa: &OwnedTargetIsa) -> Result<(), CodegenError> {
        let mut context = Context::for_function(func.clone());
        let compiled = context.compile(&**isa, &mut ControlPlane::default()).map_err(|e| CodegenError::Cranelift {
            function: name.to_owned(),
            message: format!("{:?}", e.inner),
        })?;
        // 64 bytes: constants behind the code ask for up to 16, and hot loops like whole cache lines.
        self.blob.resize(self.blob.len().next_multiple_of(64), 0);
        let start = self.blob.len();
        self.blob.extend_from_slice(compiled.code_buffer());
        for reloc in compiled.buffer.relocs() {
            let unresolved = || CodegenError::Unresolved { function: name.to_owned(), what: format!("{:?} to {:?}", reloc.kind, reloc.target) };
            let FinalizedRelocTarget::ExternalName(ExternalName::User(to)) = reloc.target else { return Err(unresolved()) };
            let to = func.params.user_named_funcs().get(to).ok_or_else(unresolved)?.clone();
            self.calls.push(Call { from: name.to_owned(), at: start + reloc.offset as usize, kind: reloc.kind, to, addend: reloc.addend });
        }
        if let Some(trap) = compiled.buffer.traps().first() {
            let what = format!("trap {} at +{}", trap.code, trap.offset);
            return Err(CodegenError::Unresolved { function: name.to_owned(), what });
        }
        self.places.insert(symbol.name(), start);
        self.symbols.push(Named { name: name.to_owned(), offset: start as u64, bytes: (self.blob.len() - start) as u64 });
        Ok(())
    }

    /// Patches every call.
    pub(super) fn finish(mut self, arch: Arch) -> Result<(Vec<u8>, Vec<Named>), CodegenError> {
        for call in &self.calls {
            let unresolved = |what: &str| CodegenError::Unresolved { function: call.from.clone(), what: format!("{:?}: {what}", call.kind) };
            let to = *self.places.get(&call.to).ok_or_else(|| unresolved("to a function that was not emitted"))?;
            let delta = to as i64 + call.addend - call.at as i64;
            match (arch, call.kind) {
                (Arch::X86_64, Reloc::X86CallPCRel4) => {
                    let value = i32::try_from(delta).map_err(|_| unresolved("out of reach"))?;
                    self.blob[call.at..call.at + 4].copy_from_slice(&value.to_le_bytes());
                }
                (Arch::Aarch64, Reloc::Arm64Call) => {
                    if delta % 4 != 0 || !(-(1 << 27)..1 << 27).contains(&delta) {
                        return Err(unresolved("out of reach"));
                    }
                    patch(&mut self.blob, call.at, 0x03ff_ffff, (delta >> 2) as u32);
                }
                (Arch::Riscv64, Reloc::RiscvCallPlt) => {
                    // auipc takes the upper 20 bits, jalr adds the lower 12 as a signed number.
                    let delta = i32::try_from(delta).map_err(|_| unresolved("out of reach"))?;
                    let upper = delta.wrapping_add(0x800) & !0xfff;
                    let lower = delta.wrapping_sub(upper);
                    patch(&mut self.blob, call.at, 0xffff_f000, upper as u32);
                    patch(&mut self.blob, call.at + 4, 0xfff0_0000, (lower as u32) << 20);
                }
                _ => return Err(unresolved("not a call")),
            }
        }
        Ok((self.blob, self.symbols))
    }
}

/// Replaces the bits of `mask` in a little-endian instruction word.
fn patch(blob: &mut [u8], at: usize, mask: u32, bits: u32) {
    let mut word = [0; 4];
    word.copy_from_slice(&blob[at..at + 4]);
    let word = (u32::from_le_bytes(word) & !mask) | (bits & mask);
    blob[at..at + 4].copy_from_slice(&word.to_le_bytes());
}
