//! Values of the evaluator: a shape and f32, f64, i32 or i64 elements; bool and all other integers of the tensor dialect are held as i64 (u64 by its bits), small floats as f32. What ops do with them is in the files beside this one.

use crate::dtype::DType;
use crate::recipe::Prepared;

/// A value: row-major elements of a shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

#[derive(Debug, Clone, PartialEq)]
enum Data {
    F32(Vec<f32>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Tensor {
    /// A tensor of f32.
    ///
    /// # Panics
    /// If the shape does not have as many elements as `data`: a bug of the caller.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of {shape:?}");
        Tensor { shape: shape.to_vec(), data: Data::F32(data) }
    }
    /// A tensor of i32.
    ///
    /// # Panics
    /// If the shape does not have as many elements as `data`: a bug of the caller.
    pub fn i32(shape: &[usize], data: Vec<i32>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of {shape:?}");
        Tensor { shape: shape.to_vec(), data: Data::I32(data) }
    }
    /// A tensor of f64.
    ///
    /// # Panics
    /// If the shape does not have as many elements as `data`: a bug of the caller.
    pub fn f64(shape: &[usize], data: Vec<f64>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of {shape:?}");
        Tensor { shape: shape.to_vec(), data: Data::F64(data) }
    }
    /// Elements, if they are f64.
    pub fn as_f64(&self) -> Option<&[f64]> {
        if let Data::F64(data) = &self.data { Some(data) } else { None }
    }
    /// A tensor of i64, or of bool or other integers as i64, u64 by its bits.
    ///
    /// # Panics
    /// If the shape does not have as many elements as `data`: a bug of the caller.
    pub fn i64(shape: &[usize], data: Vec<i64>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of {shape:?}");
        Tensor { shape: shape.to_vec(), data: Data::I64(data) }
    }
    /// Elements, if they are i64.
    pub fn as_i64(&self) -> Option<&[i64]> {
        if let Data::I64(data) = &self.data { Some(data) } else { None }
    }
    /// The elements as f64; integers beyond 2^53 are rounded.
    pub(super) fn reals(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(data) => data.iter().map(|x| f64::from(*x)).collect(),
            Data::F64(data) => data.clone(),
            Data::I32(data) => data.iter().map(|x| f64::from(*x)).collect(),
            Data::I64(data) => data.iter().map(|x| *x as f64).collect(),
        }
    }
    /// The elements as integers, exactly; `unsigned`: i64 are the bits of u64.
    pub(super) fn integers(&self, unsigned: bool) -> Vec<i128> {
        match &self.data {
            Data::F32(data) => data.iter().map(|x| *x as i128).collect(),
            Data::F64(data) => data.iter().map(|x| *x as i128).collect(),
            Data::I32(data) => data.iter().map(|x| i128::from(*x)).collect(),
            Data::I64(data) if unsigned => data.iter().map(|x| i128::from(*x as u64)).collect(),
            Data::I64(data) => data.iter().map(|x| i128::from(*x)).collect(),
        }
    }
    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// Elements, if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(data) => Some(data),
            _ => None,
        }
    }
    /// Elements, if they are i32.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.data {
            Data::I32(data) => Some(data),
            _ => None,
        }
    }
    /// Element type: f32, f64, i32 or i64.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::I32(_) => DType::I32,
            Data::I64(_) => DType::I64,
            Data::F64(_) => DType::F64,
        }
    }

    /// The elements as f32.
    pub(super) fn floats(&self) -> Result<&[f32], String> {
        self.as_f32().ok_or_else(|| format!("found {} of {:?}, expected f32", self.dtype(), self.shape))
    }
    /// The elements as i32.
    pub(super) fn ints(&self) -> Result<&[i32], String> {
        self.as_i32().ok_or_else(|| format!("found {} of {:?}, expected i32", self.dtype(), self.shape))
    }
    /// Length of the last axis.
    pub(super) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
    /// The tensor with its elements replaced and its last axis as long as they say.
    pub(super) fn with_rows(&self, width: usize, data: Vec<f32>) -> Tensor {
        let mut shape = self.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = width;
        }
        Tensor::f32(&shape, data)
    }
    /// Rows of the first axis, in the given order.
    pub(super) fn gather(&self, rows: &[i32]) -> Result<Tensor, String> {
        let (count, len) = (self.shape.first().copied().unwrap_or(1), self.shape.iter().skip(1).product::<usize>());
        let mut picked = Vec::with_capacity(rows.len());
        for &row in rows {
            picked.push(usize::try_from(row).ok().filter(|r| *r < count).ok_or_else(|| format!("found row {row}, expected 0..{count}"))?);
        }
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = rows.len();
        }
        Ok(match &self.data {
            Data::F32(data) => Tensor::f32(&shape, picked.iter().flat_map(|r| &data[r * len..][..len]).copied().collect()),
            Data::I32(data) => Tensor::i32(&shape, picked.iter().flat_map(|r| &data[r * len..][..len]).copied().collect()),
            Data::F64(data) => Tensor::f64(&shape, picked.iter().flat_map(|r| &data[r * len..][..len]).copied().collect()),
            Data::I64(data) => Tensor::i64(&shape, picked.iter().flat_map(|r| &data[r * len..][..len]).copied().collect()),
        })
    }
}

/// What an op reads: a value that is there, or a weight that is read row by row.
pub(super) enum Arg<'a> {
    Value(&'a Tensor),
    Weight(Prepared<'a>, Vec<usize>),
}

impl Arg<'_> {
    /// All of it.
    pub(super) fn tensor(&self) -> Result<Tensor, String> {
        match self {
            Arg::Value(tensor) => Ok((*tensor).clone()),
            Arg::Weight(weight, shape) => Ok(Tensor::f32(shape, weight.read_all()?)),
        }
    }
    /// Rows when seen as `[product, last]`.
    pub(super) fn rows(&self) -> usize {
        match self {
            Arg::Value(tensor) => tensor.shape.iter().rev().skip(1).product(),
            Arg::Weight(weight, _) => weight.rows(),
        }
    }
    /// Length of the last axis but one.
    pub(super) fn features(&self) -> Result<usize, String> {
        let shape = match self {
            Arg::Value(tensor) => tensor.shape(),
            Arg::Weight(_, shape) => shape,
        };
        shape.iter().rev().nth(1).copied().ok_or_else(|| format!("found {shape:?}, expected at least two axes"))
    }
    /// Elements of a row.
    pub(super) fn columns(&self) -> usize {
        match self {
            Arg::Value(tensor) => tensor.width(),
            Arg::Weight(weight, _) => weight.columns(),
        }
    }
    /// Copies rows `first .. first + count` to `out`, one after the other.
    pub(super) fn band(&self, first: usize, count: usize, out: &mut [f32]) -> Result<(), String> {
        match self {
            Arg::Weight(weight, _) => weight.band(first, count, out, weight.columns()),
            Arg::Value(_) => out.chunks_exact_mut(self.columns()).take(count).zip(first..).try_for_each(|(out, row)| self.row(row, out)),
        }
    }
    /// Copies row `row` to `out`.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) -> Result<(), String> {
        match self {
            Arg::Value(tensor) => {
                let width = tensor.width();
                out.copy_from_slice(tensor.floats()?.get(row * width..(row + 1) * width).ok_or("no such row")?);
                Ok(())
            }
            Arg::Weight(weight, _) => weight.row(row, out),
        }
    }
}
