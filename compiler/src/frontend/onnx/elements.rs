//! Bytes of tensors to the evaluator's values and back, exactly, for every element type. Where bytes stand in a file is in `weights`.

use half::{bf16, f16};
use llamac_ir::dtype::DType;
use llamac_ir::eval::Tensor;
use llamac_ir::eval::quant::minifloat;

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
