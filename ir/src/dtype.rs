//! Element types as data: one line of [`DTYPES`] describes a type completely. No arithmetic is here (see `eval`).

/// An element type. Its facts are in [`DTYPES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F16,
    Bf16,
    F8E4m3,
    I64,
    I32,
    I8,
    Bool,
    Q8,
    Q8G32,
    Q4G32,
    Q4G64,
    Q4G128,
    U8,
    Q6G32,
    F64,
    I16,
    U16,
    U32,
    U64,
    F8E5m2,
    F8E4m3fnuz,
    F8E5m2fnuz,
    F4E2m1,
    I4,
    U4,
    I2,
    U2,
    F8E8m0,
}

/// What a [`DType`] is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DTypeInfo {
    /// The type that this line describes.
    pub dtype: DType,
    /// Its name in text.
    pub name: &'static str,
    /// Bits of one element's code, scales not counted.
    pub bits: u32,
    /// Elements along the last axis that share a scale; 0: none do; `u32::MAX`: a whole row.
    pub group: u32,
    /// Type of the scale, for grouped types.
    pub scale: Option<DType>,
    /// Whether the element is a (quantized or plain) real number that a linear map can hold.
    pub real: bool,
}

const fn plain(dtype: DType, name: &'static str, bits: u32, real: bool) -> DTypeInfo {
    DTypeInfo { dtype, name, bits, group: 0, scale: None, real }
}
const fn quantized(dtype: DType, name: &'static str, bits: u32, group: u32, scale: DType) -> DTypeInfo {
    DTypeInfo { dtype, name, bits, group, scale: Some(scale), real: true }
}

/// Every element type, in the order of the enum.
pub const DTYPES: &[DTypeInfo] = &[
    plain(DType::F32, "f32", 32, true),
    plain(DType::F16, "f16", 16, true),
    plain(DType::Bf16, "bf16", 16, true),
    plain(DType::F8E4m3, "f8e4m3", 8, true),
    plain(DType::I64, "i64", 64, false),
    plain(DType::I32, "i32", 32, false),
    plain(DType::I8, "i8", 8, false),
    plain(DType::Bool, "bool", 1, false),
    quantized(DType::Q8, "q8", 8, u32::MAX, DType::F32),
    quantized(DType::Q8G32, "q8g32", 8, 32, DType::F16),
    quantized(DType::Q4G32, "q4g32", 4, 32, DType::F16),
    quantized(DType::Q4G64, "q4g64", 4, 64, DType::F16),
    quantized(DType::Q4G128, "q4g128", 4, 128, DType::F16),
    plain(DType::U8, "u8", 8, false),
    quantized(DType::Q6G32, "q6g32", 6, 32, DType::F16),
    plain(DType::F64, "f64", 64, true),
    plain(DType::I16, "i16", 16, false),
    plain(DType::U16, "u16", 16, false),
    plain(DType::U32, "u32", 32, false),
    plain(DType::U64, "u64", 64, false),
    plain(DType::F8E5m2, "f8e5m2", 8, true),
    plain(DType::F8E4m3fnuz, "f8e4m3fnuz", 8, true),
    plain(DType::F8E5m2fnuz, "f8e5m2fnuz", 8, true),
    plain(DType::F4E2m1, "f4e2m1", 4, true),
    plain(DType::I4, "i4", 4, false),
    plain(DType::U4, "u4", 4, false),
    plain(DType::I2, "i2", 2, false),
    plain(DType::U2, "u2", 2, false),
    plain(DType::F8E8m0, "f8e8m0", 8, true),
];

impl DType {
    /// Its line of [`DTYPES`].
    pub fn info(self) -> &'static DTypeInfo {
        &DTYPES[self as usize]
    }
    /// Its name in text.
    pub fn name(self) -> &'static str {
        self.info().name
    }
    /// Range of a type of integers; bool is not one.
    pub fn range(self) -> Option<(i128, i128)> {
        let signed = match self {
            DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2 => true,
            DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::U2 => false,
            _ => return None,
        };
        let bits = self.info().bits;
        Some(if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) })
    }
    /// The type of that name.
    pub fn from_name(name: &str) -> Option<DType> {
        DTYPES.iter().find(|d| d.name == name).map(|d| d.dtype)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
