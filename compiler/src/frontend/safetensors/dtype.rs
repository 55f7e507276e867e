//! Element types of safetensors files as data. What an element means is in `convert`.

use llamac_ir::dtype::DType;

/// An element type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDType {
    /// Its name in the header.
    pub name: &'static str,
    /// Bits of one element.
    pub bits: u32,
    /// The type of the IR that it is, if there is one.
    pub ir: Option<DType>,
}

const fn line(name: &'static str, bits: u32, ir: Option<DType>) -> FileDType {
    FileDType { name, bits, ir }
}

/// Every type that the format knows.
const FILE_DTYPES: &[FileDType] = &[
    line("BOOL", 8, Some(DType::Bool)),
    line("F4", 4, None),
    line("F6_E2M3", 6, None),
    line("F6_E3M2", 6, None),
    line("U8", 8, None),
    line("I8", 8, Some(DType::I8)),
    line("F8_E5M2", 8, None),
    line("F8_E4M3", 8, Some(DType::F8E4m3)),
    line("F8_E8M0", 8, None),
    line("I16", 16, None),
    line("U16", 16, None),
    line("F16", 16, Some(DType::F16)),
    line("BF16", 16, Some(DType::Bf16)),
    line("I32", 32, Some(DType::I32)),
    line("U32", 32, None),
    line("F32", 32, Some(DType::F32)),
    line("C64", 64, None),
    line("F64", 64, None),
    line("I64", 64, Some(DType::I64)),
    line("U64", 64, None),
];

/// The type of that name in a header.
pub fn by_name(name: &str) -> Option<FileDType> {
    FILE_DTYPES.iter().find(|d| d.name == name).copied()
}

/// All names, for messages.
pub(super) fn names() -> String {
    FILE_DTYPES.iter().map(|d| d.name).collect::<Vec<_>>().join(", ")
}
