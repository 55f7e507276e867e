//! Types of recipes. Evaluation is in `prepared`.

use super::Recipe;
use crate::dtype::DType;
use crate::types::Type;

impl Recipe {
    /// The type of the weight that it makes: a fixed shape without zeros. Scaling gives f32, casting the type cast to, all else the type
    /// of its parts.
    ///
    /// # Errors
    /// A sentence: which constructor, found, expected.
    pub fn ty(&self) -> Result<Type, String> {
        let (dtype, shape) = self.fixed_ty()?;
        Ok(Type::fixed(dtype, &shape))
    }

    /// As [`Recipe::ty`], with the shape as numbers.
    pub(super) fn fixed_ty(&self) -> Result<(DType, Vec<usize>), String> {
        let (dtype, shape) = match self {
            Recipe::Source { name, ty } => {
                let shape = ty.sizes().ok_or_else(|| format!("source \"{name}\": found {ty}, expected a fixed shape"))?;
                (ty.dtype, shape)
            }
            Recipe::Literal { shape, data } => {
                if elements(shape) != Some(data.len()) {
                    return Err(format!("`literal`: found {} elements, expected as many as {shape:?} has", data.len()));
                }
                (DType::F32, shape.clone())
            }
            Recipe::Cast(to, of) => {
                let (from, shape) = of.fixed_ty()?;
                let widens = matches!(from, DType::I8 | DType::U8) && to.info().scale.is_none();
                if !to.info().real || !(from.info().real || widens) {
                    return Err(format!("`cast`: found {from} to {to}, expected types of real numbers, or from i8 or u8 to floats"));
                }
                (*to, shape)
            }
            Recipe::Concat(parts) => concat(parts)?,
            Recipe::Stack(parts) => stack(parts)?,
            Recipe::Transpose(of) => match of.fixed_ty()? {
                (dtype, mut shape) if shape.len() >= 2 && dtype.info().scale.is_none() => {
                    let last = shape.len() - 1;
                    shape.swap(last - 1, last);
                    (dtype, shape)
                }
                (dtype, shape) => return Err(format!("`transpose`: found {}, expected a matrix", Type::fixed(dtype, &shape))),
            },
            Recipe::PermuteRope(head, of) => {
                let (dtype, shape) = of.fixed_ty()?;
                let fits = matches!(shape.len(), 1 | 2) && *head > 0 && head % 2 == 0 && shape[0] % head == 0;
                if !fits {
                    let found = Type::fixed(dtype, &shape);
                    return Err(format!("`permute_rope`: found heads of {head} in {found}, expected an even divisor of its rows"));
                }
                (dtype, shape)
            }
            Recipe::Rows(start, len, of) => {
                let (dtype, mut shape) = of.fixed_ty()?;
                let rows = shape.first().copied().filter(|rows| start.checked_add(*len).is_some_and(|end| end <= *rows));
                if rows.is_none() {
                    return Err(format!("`rows`: found {start} and {len} of {}, expected rows that are there", Type::fixed(dtype, &shape)));
                }
                shape[0] = *len;
                (dtype, shape)
            }
            Recipe::ScaleColumns(of, by) => scaled("scale_columns", of, by, |shape| shape.last().copied())?,
            Recipe::ScaleRows(of, by) => {
                scaled("scale_rows", of, by, |shape| if shape.len() <= 2 { shape.first().copied() } else { None })?
            }
        };
        match elements(&shape) {
            Some(n) if n > 0 => Ok((dtype, shape)),
            _ => Err(format!("found {}, expected a shape without zeros and of a size that fits in memory", Type::fixed(dtype, &shape))),
        }
    }
}

/// Number of elements of a shape; `None` if it is too large for any tensor.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|n| *n <= i64::MAX as usize / 16)
}

fn concat(parts: &[Recipe]) -> Result<(DType, Vec<usize>), String> {
    let Some((first, rest)) = parts.split_first() else { return Err("`concat`: found no parts, expected at least one".to_owned()) };
    let (dtype, mut shape) = first.fixed_ty()?;
    if shape.is_empty() {
        return Err("`concat`: found a scalar, expected at least one axis".to_owned());
    }
    for part in rest {
        let (d, s) = part.fixed_ty()?;
        if d != dtype || s.get(1..) != Some(&shape[1..]) {
            let (found, like) = (Type::fixed(d, &s), Type::fixed(dtype, &shape));
            return Err(format!("`concat`: found {found} after {like}, expected the same element type and columns"));
        }
        shape[0] = shape[0].checked_add(s[0]).ok_or("`concat`: too many rows")?;
    }
    Ok((dtype, shape))
}

fn stack(parts: &[Recipe]) -> Result<(DType, Vec<usize>), String> {
    let Some((first, rest)) = parts.split_first() else { return Err("`stack`: found no parts, expected at least one".to_owned()) };
    let (dtype, mut shape) = first.fixed_ty()?;
    for part in rest {
        let (d, s) = part.fixed_ty()?;
        if d != dtype || s != shape {
            let (found, like) = (Type::fixed(d, &s), Type::fixed(dtype, &shape));
            return Err(format!("`stack`: found {found} after {like}, expected parts of one type"));
        }
    }
    shape.insert(0, parts.len());
    Ok((dtype, shape))
}

fn scaled(what: &str, of: &Recipe, by: &Recipe, len: impl Fn(&[usize]) -> Option<usize>) -> Result<(DType, Vec<usize>), String> {
    let ((dtype, shape), (by_dtype, by_shape)) = (of.fixed_ty()?, by.fixed_ty()?);
    match len(&shape) {
        Some(n) if by_shape == [n] && dtype.info().real && by_dtype.info().real => Ok((DType::F32, shape)),
        _ => {
            let (of, by) = (Type::fixed(dtype, &shape), Type::fixed(by_dtype, &by_shape));
            Err(format!("`{what}`: found {of} and {by}, expected real numbers and a vector with one factor for each"))
        }
    }
}
