//! Reading recipes: `"source": bf16[64]`, `concat(.., ..)` and so on.

use super::scan::{Result, Scanner};
use crate::recipe::Recipe;

/// How deep recipes may be nested: far above what passes make, far below what a stack holds.
const MAX_DEPTH: usize = 64;

/// A recipe.
pub(super) fn recipe(scan: &mut Scanner<'_>) -> Result<Recipe> {
    nested(scan, MAX_DEPTH)
}

fn nested(scan: &mut Scanner<'_>, depth: usize) -> Result<Recipe> {
    const EXPECTED: &str =
        "a source in quotes, `literal`, `cast`, `concat`, `stack`, `transpose`, `permute_rope`, `rows`, `scale_columns` or `scale_rows`";
    if scan.peek("\"") {
        let name = scan.string()?;
        scan.expect(":")?;
        return Ok(Recipe::Source { name, ty: scan.ty()? });
    }
    let start = scan.place();
    let word = scan.word(EXPECTED)?;
    let Some(depth) = depth.checked_sub(1) else {
        return Err(scan.error_at(start, format!("found recipes nested {MAX_DEPTH} deep"), "fewer"));
    };
    scan.expect("(")?;
    let recipe = match word {
        "literal" => literal(scan)?,
        "cast" => {
            let dtype = scan.dtype()?;
            scan.expect(",")?;
            Recipe::Cast(dtype, Box::new(nested(scan, depth)?))
        }
        "concat" => Recipe::Concat(parts(scan, depth)?),
        "stack" => Recipe::Stack(parts(scan, depth)?),
        "transpose" => Recipe::Transpose(Box::new(nested(scan, depth)?)),
        "permute_rope" => {
            let head = scan.size()?;
            scan.expect(",")?;
            Recipe::PermuteRope(head, Box::new(nested(scan, depth)?))
        }
        "rows" => {
            let start = scan.size()?;
            scan.expect(",")?;
            let len = scan.size()?;
            scan.expect(",")?;
            Recipe::Rows(start, len, Box::new(nested(scan, depth)?))
        }
        "scale_columns" => {
            let (of, by) = pair(scan, depth)?;
            Recipe::ScaleColumns(of, by)
        }
        "scale_rows" => {
            let (of, by) = pair(scan, depth)?;
            Recipe::ScaleRows(of, by)
        }
        _ => return Err(scan.error_at(start, format!("found `{word}`"), EXPECTED)),
    };
    scan.expect(")")?;
    Ok(recipe)
}

/// One recipe or several with commas between them.
fn parts(scan: &mut Scanner<'_>, depth: usize) -> Result<Vec<Recipe>> {
    let mut parts = vec![nested(scan, depth)?];
    while scan.eat(",") {
        parts.push(nested(scan, depth)?);
    }
    Ok(parts)
}

fn pair(scan: &mut Scanner<'_>, depth: usize) -> Result<(Box<Recipe>, Box<Recipe>)> {
    let of = nested(scan, depth)?;
    scan.expect(",")?;
    Ok((Box::new(of), Box::new(nested(scan, depth)?)))
}

/// `[2, 3], 1.0, ...`, with the bracket opened.
fn literal(scan: &mut Scanner<'_>) -> Result<Recipe> {
    scan.expect("[")?;
    let mut shape = Vec::new();
    while !scan.peek("]") {
        shape.push(scan.size()?);
        if !scan.eat(",") {
            break;
        }
    }
    scan.expect("]")?;
    let mut data = Vec::new();
    while scan.eat(",") {
        data.push(scan.float32()?);
    }
    Ok(Recipe::Literal { shape, data: data.into() })
}
