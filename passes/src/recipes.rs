//! Making recipes in one normal form, so that two ways to the same weight give the same recipe: casts outside, scaling inside
//! concatenation, no nested concatenation. Every step is exact for every element type.

use llamac_ir::dtype::DType;
use llamac_ir::recipe::Recipe;
use llamac_ir::types::Type;

/// Rounded to an element type; nothing if it is of that type already.
pub(crate) fn cast(to: DType, recipe: Recipe) -> Recipe {
    match recipe.ty() {
        Ok(ty) if ty.dtype == to => recipe,
        _ => Recipe::Cast(to, Box::new(recipe)),
    }
}

/// Rows one after the other.
pub(crate) fn concat(parts: Vec<Recipe>) -> Recipe {
    // Rounding looks at single rows, so it can be done after all rows are together.
    if let Some(to) = same_cast(&parts) {
        let inside = parts.into_iter().map(|p| if let Recipe::Cast(_, of) = p { *of } else { p }).collect();
        return cast(to, concat(inside));
    }
    let mut flat = Vec::new();
    for part in parts {
        match part {
            Recipe::Concat(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    match flat.len() {
        1 => flat.remove(0),
        _ => Recipe::Concat(flat),
    }
}

/// The same elements in another shape, if the source sees its tensors as flat sequences, as that of an ONNX model does.
pub(crate) fn reshaped(recipe: &Recipe, shape: &[usize]) -> Option<Recipe> {
    let count: usize = recipe.ty().ok()?.sizes()?.iter().product();
    if shape.iter().product::<usize>() != count {
        return None;
    }
    match recipe {
        Recipe::Source { name, ty } => Some(Recipe::Source { name: name.clone(), ty: Type::fixed(ty.dtype, shape) }),
        Recipe::Literal { data, .. } => Some(Recipe::Literal { shape: shape.to_vec(), data: data.clone() }),
        Recipe::Cast(to, of) if to.info().scale.is_none() => Some(Recipe::Cast(*to, Box::new(reshaped(of, shape)?))),
        _ => None,
    }
}

/// The type that all parts are cast to, if the parts inside are of one type, too.
fn same_cast(parts: &[Recipe]) -> Option<DType> {
    let mut casts = parts.iter().map(|p| match p {
        Recipe::Cast(to, of) => of.ty().ok().map(|ty| (*to, ty.dtype)),
        _ => None,
    });
    let first = casts.next()??;
    casts.all(|c| c == Some(first)).then_some(first.0)
}

/// Rows of each head from half-split to interleaved order.
pub(crate) fn permute_rope(head_dim: usize, recipe: Recipe) -> Recipe {
    match recipe {
        Recipe::Cast(to, of) => cast(to, permute_rope(head_dim, *of)),
        other => Recipe::PermuteRope(head_dim, Box::new(other)),
    }
}

/// `len` rows from `start` on; inside casts, which look at single rows.
pub(crate) fn rows(start: usize, len: usize, recipe: Recipe) -> Recipe {
    match recipe {
        Recipe::Cast(to, of) => cast(to, rows(start, len, *of)),
        Recipe::Rows(first, _, of) => Recipe::Rows(first + start, len, of),
        other => Recipe::Rows(start, len, Box::new(other)),
    }
}

/// Each column times a factor, in f32. `recipe` must be of f32 for this to round once.
pub(crate) fn scale_columns(recipe: Recipe, by: &Recipe) -> Recipe {
    match recipe {
        // Widening is exact, and scaling widens by itself.
        Recipe::Cast(DType::F32, of) => scale_columns(*of, by),
        Recipe::Concat(parts) => concat(parts.into_iter().map(|p| scale_columns(p, by)).collect()),
        other => {
            let by = if let Recipe::Cast(DType::F32, of) = by { of } else { by };
            Recipe::ScaleColumns(Box::new(other), Box::new(by.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llamac_ir::types::Type;

    fn source(name: &str) -> Recipe {
        Recipe::Source { name: name.into(), ty: Type::fixed(DType::F32, &[4, 4]) }
    }
    fn vector() -> Recipe {
        Recipe::Source { name: "g".into(), ty: Type::fixed(DType::F32, &[4]) }
    }

    #[test]
    fn casts_end_up_outside() {
        let narrow = |n| cast(DType::Bf16, source(n));
        let expected = cast(DType::Bf16, Recipe::Concat(vec![Recipe::PermuteRope(2, Box::new(source("a"))), source("b")]));
        assert_eq!(concat(vec![permute_rope(2, narrow("a")), narrow("b")]), expected);
    }

    #[test]
    fn scaling_before_and_after_merging_is_one_recipe() {
        let merged = scale_columns(concat(vec![source("a"), source("b")]), &vector());
        assert_eq!(merged, concat(vec![scale_columns(source("a"), &vector()), scale_columns(source("b"), &vector())]));
    }

    #[test]
    fn a_cast_of_one_part_stays_inside() {
        let mixed = concat(vec![cast(DType::Bf16, source("a")), source("b")]);
        assert!(matches!(mixed, Recipe::Concat(_)));
    }
}
