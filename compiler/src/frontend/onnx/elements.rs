//! Bytes of tensors to the evaluator's values and back, exactly, for every element type. Where bytes stand in a file is in `weights`.

use super::bad;
use crate::diag::Result;
use half::{bf16, f16};
use llamac_ir::dtype::DType;
use llamac_ir::eval::Tensor;
use llamac_ir::eval::quant::minifloat;
use tract_onnx::pb::{TensorProto, tensor_proto};

/// Bytes that an element has in a file of tensors; what has less than 8 bits takes one byte.
pub(super) fn width(dtype: DType) -> usize {
    dtype.info().bits.max(8) as usize / 8
}

/// Little-endian elements, one after the other; `None` if there are not as many as the shape says.
pub fn decode(dtype: DType, shape: &[usize], bytes: &[u8]) -> Option<Tensor> {
    let count: usize = shape.iter().product();
    if bytes.len() != count.checked_mul(width(dtype))? {
        return None;
    }
    let words = bytes.chunks_exact(width(dtype));
    if dtype.info().real {
        let wide = |b: &[u8]| match (dtype, b) {
            (DType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (DType::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            (DType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (_, b) => minifloat::decode(dtype, b[0]) as f32,
        };
        return Some(match dtype {
            DType::F64 => Tensor::f64(shape, bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
            _ => Tensor::f32(shape, words.map(wide).collect()),
        });
    }
    let signed = dtype.range().is_some_and(|(low, _)| low < 0);
    let whole = |b: &[u8]| {
        let mut all = [if signed && b[b.len() - 1] & 0x80 != 0 { 0xff } else { 0 }; 8];
        all[..b.len()].copy_from_slice(b);
        i64::from_le_bytes(all)
    };
    Some(match dtype {
        DType::I32 => Tensor::i32(shape, words.map(|b| whole(b) as i32).collect()),
        DType::Bool => Tensor::i64(shape, words.map(|b| i64::from(b[0] != 0)).collect()),
        _ => Tensor::i64(shape, words.map(whole).collect()),
    })
}

/// Elements of 4 bits, two in a byte, low ones first.
pub(super) fn unpacked(dtype: DType, count: usize, bytes: &[u8]) -> Vec<u8> {
    let signed = dtype == DType::I4;
    let nibble = |n: usize| (bytes.get(n / 2).copied().unwrap_or(0) >> (n % 2 * 4)) & 15;
    (0..count).map(|n| if signed { ((nibble(n) << 4) as i8 >> 4) as u8 } else { nibble(n) }).collect()
}

/// The bytes of a value of this type.
pub fn encode(dtype: DType, tensor: &Tensor) -> Vec<u8> {
    if let Some(data) = tensor.as_f64() {
        return data.iter().flat_map(|x| x.to_le_bytes()).collect();
    }
    if let Some(data) = tensor.as_f32() {
        return match dtype {
            DType::F16 => data.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            DType::Bf16 => data.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            DType::F32 => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ => data.iter().map(|x| minifloat::encode(dtype, f64::from(*x))).collect(),
        };
    }
    if let Some(data) = tensor.as_i32() {
        return data.iter().flat_map(|x| x.to_le_bytes()).collect();
    }
    let size = width(dtype);
    tensor.as_i64().unwrap_or_default().iter().flat_map(|x| x.to_le_bytes().into_iter().take(size)).collect()
}

/// One little-endian element, if it is exact in f64.
pub(super) fn element(dtype: DType, b: &[u8]) -> Option<f64> {
    Some(match (dtype, b) {
        (DType::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
        (DType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f64(),
        (DType::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f64(),
        (DType::F64, b) => f64::from_le_bytes(b.try_into().ok()?),
        (DType::I16, &[a, b]) => f64::from(i16::from_le_bytes([a, b])),
        (DType::U16, &[a, b]) => f64::from(u16::from_le_bytes([a, b])),
        (DType::U32, &[a, b, c, d]) => f64::from(u32::from_le_bytes([a, b, c, d])),
        (DType::U64, b) => u64::from_le_bytes(b.try_into().ok()?) as f64,
        (DType::F8E4m3 | DType::F8E5m2 | DType::F8E4m3fnuz | DType::F8E5m2fnuz | DType::F8E8m0, &[a]) => minifloat::decode(dtype, a),
        (DType::I64, b) => i64::from_le_bytes(b.try_into().ok()?) as f64,
        (DType::I32, &[a, b, c, d]) => f64::from(i32::from_le_bytes([a, b, c, d])),
        (DType::I8, &[a]) => f64::from(a as i8),
        (DType::U8 | DType::Bool, &[a]) => f64::from(a),
        _ => return None,
    })
}

/// Numbers of types that came after the messages' own list.
const FLOAT4E2M1: i32 = 23;
const FLOAT8E8M0: i32 = 24;
const UINT2: i32 = 25;
const INT2: i32 = 26;

/// The element type of an ONNX number.
///
/// # Errors
/// One that is not compiled, by its name.
pub(super) fn dtype_of(number: i32) -> Result<DType> {
    use tensor_proto::DataType as D;
    let name = D::try_from(number).map_or_else(|_| format!("number {number}"), |d| format!("{d:?}").to_lowercase());
    Ok(match D::try_from(number) {
        Ok(D::Float) => DType::F32,
        Ok(D::Float16) => DType::F16,
        Ok(D::Bfloat16) => DType::Bf16,
        Ok(D::Int64) => DType::I64,
        Ok(D::Int32) => DType::I32,
        Ok(D::Int8) => DType::I8,
        Ok(D::Uint8) => DType::U8,
        Ok(D::Bool) => DType::Bool,
        Ok(D::Double) => DType::F64,
        Ok(D::Int16) => DType::I16,
        Ok(D::Uint16) => DType::U16,
        Ok(D::Uint32) => DType::U32,
        Ok(D::Uint64) => DType::U64,
        Ok(D::Float8e4m3fn) => DType::F8E4m3,
        Ok(D::Float8e5m2) => DType::F8E5m2,
        Ok(D::Float8e4m3fnuz) => DType::F8E4m3fnuz,
        Ok(D::Float8e5m2fnuz) => DType::F8E5m2fnuz,
        Ok(D::Int4) => DType::I4,
        Ok(D::Uint4) => DType::U4,
        _ if number == FLOAT4E2M1 => DType::F4E2m1,
        _ if number == FLOAT8E8M0 => DType::F8E8m0,
        _ if number == UINT2 => DType::U2,
        _ if number == INT2 => DType::I2,
        _ => {
            return Err(bad("an element type is not compiled")
                .found(name)
                .expected("float, float16, bfloat16, double, integers, bool or float8")
                .help("export the model in float32, float16 or bfloat16"));
        }
    })
}

/// Data in the fields of its type.
pub(super) fn typed(tensor: &TensorProto, dtype: DType) -> Result<Vec<u8>> {
    let words = || tensor.int32_data.iter();
    Ok(match dtype {
        DType::F32 => tensor.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => tensor.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U32 => tensor.uint64_data.iter().flat_map(|x| (*x as u32).to_le_bytes()).collect(),
        DType::U64 => tensor.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I64 => tensor.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I32 => words().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 | DType::Bf16 | DType::I16 | DType::U16 => words().flat_map(|x| (*x as u16).to_le_bytes()).collect(),
        dtype if dtype.info().bits <= 8 => words().map(|x| *x as u8).collect(),
        other => return Err(bad("data of this type stands in a field that is not read").found(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_type_come_back_as_they_were() {
        use DType::{Bf16, Bool, F8E4m3, F8E5m2, F16, F32, F64, I4, I8, I16, I32, I64, U8, U16, U32, U64};
        for dtype in [F64, F32, F16, Bf16, F8E4m3, F8E5m2, I64, I32, I16, I8, U64, U32, U16, U8, Bool, I4] {
            let bytes: Vec<u8> = match dtype {
                Bool => vec![1, 0, 1],
                I4 => vec![7, 0xf8, 0xff],
                _ => (0..3 * width(dtype)).map(|n| (n * 37 + 131) as u8 & 0xbd).collect(),
            };
            let tensor = decode(dtype, &[3], &bytes).unwrap();
            assert_eq!(encode(dtype, &tensor), bytes, "{dtype}");
            assert!(decode(dtype, &[4], &bytes).is_none());
        }
        assert_eq!(decode(I8, &[2], &[0xff, 1]).unwrap().as_i64(), Some(&[-1, 1][..]));
        assert_eq!(decode(U64, &[1], &[0xff; 8]).unwrap().as_i64(), Some(&[-1][..]));
        assert_eq!(unpacked(I4, 3, &[0x7f, 0x08]), [0xff, 7, 0xf8]);
        assert_eq!(unpacked(DType::U4, 3, &[0x7f, 0x08]), [15, 7, 8]);
    }
}
