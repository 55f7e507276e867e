//! Types of the tensor dialect: broadcasting, axes, shapes. What an op means is in `eval/tensor_*`.

use super::args::{Args, Mismatch, is_plain_float};
use crate::dtype::DType;
use crate::op::TensorOp;
use crate::types::{Dim, Type};

type Result<T> = std::result::Result<T, Mismatch>;

/// Types of the results of a tensor op.
pub(super) fn result_types(op: TensorOp, args: &Args<'_>) -> Result<Vec<Type>> {
    use TensorOp as T;
    let one = |ty: Type| Ok(vec![ty]);
    match op {
        T::Add | T::Sub | T::Mul | T::Div | T::Mod | T::FMod | T::Max | T::Min => {
            numeric(args, 0)?;
            same_dtype(args, 0, 1)?;
            one(Type { dtype: args.ty(0).dtype, shape: broadcast(args, 0, 1)? })
        }
        T::BitAnd | T::BitOr | T::BitXor | T::ShiftLeft | T::ShiftRight => {
            whole(args, 0)?;
            same_dtype(args, 0, 1)?;
            one(Type { dtype: args.ty(0).dtype, shape: broadcast(args, 0, 1)? })
        }
        T::BitNot => {
            whole(args, 0)?;
            one(args.ty(0).clone())
        }
        T::Pow => {
            numeric(args, 0)?;
            numeric(args, 1)?;
            one(Type { dtype: args.ty(0).dtype, shape: broadcast(args, 0, 1)? })
        }
        T::Equal | T::Less | T::LessOrEqual | T::Greater | T::GreaterOrEqual => {
            if op != T::Equal {
                numeric(args, 0)?;
            }
            same_dtype(args, 0, 1)?;
            one(Type { dtype: DType::Bool, shape: broadcast(args, 0, 1)? })
        }
        T::And | T::Or | T::Xor => {
            bools(args, 0)?;
            bools(args, 1)?;
            one(Type { dtype: DType::Bool, shape: broadcast(args, 0, 1)? })
        }
        T::Where => {
            bools(args, 0)?;
            same_dtype(args, 1, 2)?;
            let values = Type { dtype: args.ty(1).dtype, shape: broadcast(args, 1, 2)? };
            let shape = broadcast_shapes(&args.ty(0).shape, &values.shape).ok_or_else(|| args.operand(0, "a shape that broadcasts"))?;
            one(Type { dtype: values.dtype, shape })
        }
        T::Not => {
            bools(args, 0)?;
            one(args.ty(0).clone())
        }
        T::Neg | T::Abs | T::Sign | T::Relu => {
            numeric(args, 0)?;
            one(args.ty(0).clone())
        }
        T::Sqrt
        | T::Reciprocal
        | T::Exp
        | T::Log
        | T::Floor
        | T::Ceil
        | T::Round
        | T::Cos
        | T::Sin
        | T::Tanh
        | T::Sigmoid
        | T::Silu
        | T::Erf
        | T::Tan
        | T::Asin
        | T::Acos
        | T::Atan
        | T::Sinh
        | T::Cosh
        | T::Asinh
        | T::Acosh
        | T::Atanh => {
            floats(args, 0)?;
            one(args.ty(0).clone())
        }
        T::IsNan | T::IsInf => {
            floats(args, 0)?;
            one(Type { dtype: DType::Bool, shape: args.ty(0).shape.clone() })
        }
        T::Cast => one(Type { dtype: named(args, "to")?, shape: args.ty(0).shape.clone() }),
        T::DynamicScale => one(Type { dtype: floats(args, 0)?.dtype, shape: vec![] }),
        T::DynamicZero => {
            floats(args, 0)?;
            one(Type { dtype: DType::U8, shape: vec![] })
        }
        T::Quantize => {
            let ty = floats(args, 0)?;
            args.same(1, &Type { dtype: ty.dtype, shape: vec![] })?;
            if !matches!(args.ty(2).dtype, DType::I8 | DType::U8) || !args.ty(2).shape.is_empty() {
                return Err(args.operand(2, "one number of type i8 or u8"));
            }
            one(Type { dtype: args.ty(2).dtype, shape: ty.shape.clone() })
        }
        T::ReduceMean | T::ReduceSum | T::ReduceMax | T::ReduceMin | T::ReduceProd => {
            numeric(args, 0)?;
            let mut ty = args.ty(0).clone();
            for axis in args.numbers("axes")? {
                let axis = args.axis("axes", axis, ty.shape.len())?;
                ty.shape[axis] = 1.into();
            }
            one(ty)
        }
        T::ArgMax | T::ArgMin => {
            numeric(args, 0)?;
            let mut shape = args.ty(0).shape.clone();
            let axis = args.axis("axis", args.signed("axis")?, shape.len())?;
            shape[axis] = 1.into();
            one(Type { dtype: DType::I64, shape })
        }
        T::CumSum | T::CumProd | T::Softmax => {
            numeric(args, 0)?;
            args.axis("axis", args.signed("axis")?, args.ty(0).shape.len())?;
            one(args.ty(0).clone())
        }
        T::MatMul => matmul(args),
        T::Reshape => {
            let shape = shape(args, "shape")?;
            let count = |s: &[Dim]| s.iter().fold(Dim::int(1), |n, d| n.mul(d));
            if count(&shape) != count(&args.ty(0).shape) {
                return Err(args.operand(0, format!("as many elements as {}", Type { dtype: args.ty(0).dtype, shape })));
            }
            one(Type { dtype: args.ty(0).dtype, shape })
        }
        T::Expand => {
            let wanted = shape(args, "shape")?;
            match broadcast_shapes(&args.ty(0).shape, &wanted) {
                Some(shape) => one(Type { dtype: args.ty(0).dtype, shape }),
                None => Err(args.operand(0, format!("a shape that broadcasts to {}", Type { dtype: args.ty(0).dtype, shape: wanted }))),
            }
        }
        T::Transpose => {
            let ty = args.ty(0);
            let perm = args.numbers("perm")?;
            let mut seen = vec![false; ty.shape.len()];
            for &p in &perm {
                match usize::try_from(p).ok().and_then(|p| seen.get_mut(p)) {
                    Some(flag) if !*flag => *flag = true,
                    _ => return Err(args.attribute("perm", crate::op::Attr::ints(&perm), "every axis once")),
                }
            }
            if perm.len() != ty.shape.len() {
                return Err(args.attribute("perm", crate::op::Attr::ints(&perm), "every axis once"));
            }
            one(Type { dtype: ty.dtype, shape: perm.iter().map(|&p| ty.shape[p as usize].clone()).collect() })
        }
        T::Concat => {
            if args.len() == 0 {
                return Err(args.refuse("`tensor.concat` of nothing"));
            }
            let mut ty = args.ty(0).clone();
            let axis = args.axis("axis", args.signed("axis")?, ty.shape.len())?;
            for i in 1..args.len() {
                let other = args.ty(i);
                let fits = other.dtype == ty.dtype && other.shape.len() == ty.shape.len();
                let fits = fits && (0..ty.shape.len()).all(|a| a == axis || other.shape[a] == ty.shape[a]);
                if !fits {
                    return Err(args.operand(0, format!("what fits {other} along axis {axis}")));
                }
                ty.shape[axis] = ty.shape[axis].add(&other.shape[axis]);
            }
            one(ty)
        }
        T::Slice => {
            let mut ty = args.ty(0).clone();
            let axis = args.axis("axis", args.signed("axis")?, ty.shape.len())?;
            single(args, "start")?;
            ty.shape[axis] = single(args, "len")?.clone();
            if args.signed("step")? == 0 {
                return Err(args.attribute("step", 0, "a step that goes somewhere"));
            }
            one(ty)
        }
        T::Gather => {
            integers(args, 1)?;
            let ty = args.ty(0);
            let axis = args.axis("axis", args.signed("axis")?, ty.shape.len())?;
            let shape = [&ty.shape[..axis], &args.ty(1).shape, &ty.shape[axis + 1..]].concat();
            one(Type { dtype: ty.dtype, shape })
        }
        T::GatherNd => {
            integers(args, 1)?;
            let (ty, indices) = (args.ty(0), args.ty(1));
            let batch = args.int("batch_dims")?;
            let depth = addressed(args, batch)?;
            if batch >= indices.shape.len() || ty.shape[..batch] != indices.shape[..batch] {
                return Err(args.attribute("batch_dims", batch, format!("axes that {ty} and {indices} have both")));
            }
            one(Type { dtype: ty.dtype, shape: [&indices.shape[..indices.shape.len() - 1], &ty.shape[batch + depth..]].concat() })
        }
        T::ScatterNd => {
            integers(args, 1)?;
            let (ty, indices) = (args.ty(0), args.ty(1));
            let depth = addressed(args, 0)?;
            let shape = [&indices.shape[..indices.shape.len() - 1], &ty.shape[depth..]].concat();
            args.same(2, &Type { dtype: ty.dtype, shape })?;
            one(ty.clone())
        }
        T::GatherElements | T::ScatterElements => {
            integers(args, 1)?;
            let (ty, indices) = (args.ty(0), args.ty(1));
            args.axis("axis", args.signed("axis")?, ty.shape.len())?;
            if indices.shape.len() != ty.shape.len() {
                return Err(args.operand(1, format!("as many axes as {ty}")));
            }
            if op == T::GatherElements {
                return one(Type { dtype: ty.dtype, shape: indices.shape.clone() });
            }
            args.same(2, &Type { dtype: ty.dtype, shape: indices.shape.clone() })?;
            one(ty.clone())
        }
        T::Tile => {
            let (mut ty, repeats) = (args.ty(0).clone(), args.dims("repeats")?);
            if repeats.len() != ty.shape.len() {
                return Err(args.attribute("repeats", repeats.len(), format!("a number for each axis of {ty}")));
            }
            ty.shape.iter_mut().zip(repeats).for_each(|(d, r)| *d = d.mul(r));
            one(ty)
        }
        T::TopK => {
            numeric(args, 0)?;
            let mut ty = args.ty(0).clone();
            let axis = args.axis("axis", args.signed("axis")?, ty.shape.len())?;
            let k = args.int("k")?;
            if ty.shape[axis].value().is_some_and(|n| k > n) {
                return Err(args.attribute("k", k, format!("at most {}", ty.shape[axis])));
            }
            ty.shape[axis] = k.into();
            Ok(vec![ty.clone(), Type { dtype: DType::I64, shape: ty.shape }])
        }
        T::Trilu => {
            if args.ty(0).shape.len() < 2 {
                return Err(args.operand(0, "a matrix"));
            }
            one(args.ty(0).clone())
        }
        T::Range => {
            single(args, "start")?;
            one(Type::new(DType::I64, [single(args, "len")?.clone()]))
        }
        T::Fill => one(Type { dtype: named(args, "dtype")?, shape: shape(args, "shape")? }),
        T::Values => {
            let shape = shape(args, "shape")?;
            let count: Option<usize> = shape.iter().map(Dim::value).product();
            if count != Some(args.dims("values")?.len()) {
                return Err(args.attribute("values", args.dims("values")?.len(), "as many as the shape has"));
            }
            one(Type { dtype: DType::I64, shape })
        }
        T::RmsNorm | T::RmsUnit => {
            let ty = floats(args, 0)?;
            let width = ty.shape.last().and_then(Dim::value).filter(|w| *w > 0);
            let width = width.ok_or_else(|| args.operand(0, "a last axis of a fixed length"))?;
            if op == T::RmsNorm {
                args.vector(1, Some(width))?;
            }
            args.epsilon("eps")?;
            one(ty.clone())
        }
        T::Rotary => {
            let ty = floats(args, 0)?;
            let [batch, _, seq, width] = ty.shape.as_slice() else { return Err(args.operand(0, "[batch, heads, seq, head_dim]")) };
            let half = width.value().filter(|w| w % 2 == 0 && *w > 0).ok_or_else(|| args.operand(0, "an even head_dim"))? / 2;
            for i in [1, 2] {
                let shape = broadcast_shapes(&args.ty(i).shape, &[batch.clone(), seq.clone(), half.into()]);
                if args.ty(i).dtype != ty.dtype || shape.is_none_or(|s| s != [batch.clone(), seq.clone(), half.into()]) {
                    return Err(args.operand(i, format!("{}[{batch}, {seq}, {half}]", ty.dtype)));
                }
            }
            one(ty.clone())
        }
        T::Attention => attention(args),
    }
}

/// Shapes as NumPy broadcasts them; a symbol fits itself and 1.
pub(crate) fn broadcast_shapes(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let one = Dim::int(1);
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or(one.clone(), |j| s[j].clone());
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == one => Some(x),
            (x, y) if x == one => Some(y),
            _ => None,
        })
        .collect()
}

fn broadcast(args: &Args<'_>, a: usize, b: usize) -> Result<Vec<Dim>> {
    let found = broadcast_shapes(&args.ty(a).shape, &args.ty(b).shape);
    found.ok_or_else(|| args.operand(b, format!("a shape that broadcasts with {}", args.ty(a))))
}

fn numeric(args: &Args<'_>, i: usize) -> Result<()> {
    let dtype = args.ty(i).dtype;
    let fits = is_plain_float(dtype) || dtype.range().is_some();
    if fits { Ok(()) } else { Err(args.operand(i, "numbers")) }
}

fn floats<'a>(args: &Args<'a>, i: usize) -> Result<&'a Type> {
    if is_plain_float(args.ty(i).dtype) { Ok(args.ty(i)) } else { Err(args.operand(i, "floats")) }
}

fn bools(args: &Args<'_>, i: usize) -> Result<()> {
    if args.ty(i).dtype == DType::Bool { Ok(()) } else { Err(args.operand(i, "bool")) }
}

fn integers(args: &Args<'_>, i: usize) -> Result<()> {
    if matches!(args.ty(i).dtype, DType::I64 | DType::I32) { Ok(()) } else { Err(args.operand(i, "i64 or i32")) }
}

fn whole(args: &Args<'_>, i: usize) -> Result<()> {
    if args.ty(i).dtype.range().is_some() { Ok(()) } else { Err(args.operand(i, "integers")) }
}

/// How many axes of operand 0 behind `batch` the last axis of the indices addresses.
fn addressed(args: &Args<'_>, batch: usize) -> Result<usize> {
    let rank = args.ty(0).shape.len();
    let depth = args.ty(1).shape.last().and_then(Dim::value).filter(|d| batch + *d <= rank);
    depth.ok_or_else(|| args.operand(1, format!("indices of at most {rank} axes")))
}

fn same_dtype(args: &Args<'_>, a: usize, b: usize) -> Result<()> {
    if args.ty(a).dtype == args.ty(b).dtype { Ok(()) } else { Err(args.operand(b, format!("elements of type {}", args.ty(a).dtype))) }
}

fn named(args: &Args<'_>, name: &str) -> Result<DType> {
    let word = args.word(name)?;
    DType::from_name(word).ok_or_else(|| args.attribute(name, word, "an element type"))
}

/// A shape attribute: no negative numbers.
fn shape(args: &Args<'_>, name: &str) -> Result<Vec<Dim>> {
    let shape = args.dims(name)?;
    match shape.iter().find(|d| d.number().is_some_and(|n| n < 0)) {
        Some(bad) => Err(args.attribute(name, bad, "lengths that are not negative")),
        None => Ok(shape.to_vec()),
    }
}

fn single<'a>(args: &Args<'a>, name: &str) -> Result<&'a Dim> {
    match args.dims(name)? {
        [one] => Ok(one),
        list => Err(args.attribute(name, list.len(), "one number")),
    }
}

fn matmul(args: &Args<'_>) -> Result<Vec<Type>> {
    numeric(args, 0)?;
    same_dtype(args, 0, 1)?;
    let (a, b) = (&args.ty(0).shape, &args.ty(1).shape);
    let ([outer_a @ .., m, k], [outer_b @ .., l, n]) = (a.as_slice(), b.as_slice()) else {
        return Err(args.operand(0, "two matrices, at least"));
    };
    if k != l {
        return Err(args.operand(1, format!("{k} rows in the last matrix")));
    }
    let mut shape =
        broadcast_shapes(outer_a, outer_b).ok_or_else(|| args.operand(1, format!("a shape that broadcasts with {}", args.ty(0))))?;
    shape.extend([m.clone(), n.clone()]);
    Ok(vec![Type { dtype: args.ty(0).dtype, shape }])
}

fn attention(args: &Args<'_>) -> Result<Vec<Type>> {
    let q = floats(args, 0)?;
    same_dtype(args, 0, 1)?;
    same_dtype(args, 0, 2)?;
    args.finite("scale")?;
    let ([batch, heads, seq, _], [b, kv_heads, keys, width], [c, v_heads, values, out]) =
        (q.shape.as_slice(), args.ty(1).shape.as_slice(), args.ty(2).shape.as_slice())
    else {
        return Err(args.operand(0, "three tensors [batch, heads, tokens, head_dim]"));
    };
    let groups = heads.value().zip(kv_heads.value()).is_some_and(|(h, k)| k > 0 && h % k == 0);
    if batch != b || batch != c || kv_heads != v_heads || keys != values || Some(width) != q.shape.last() || !groups {
        return Err(args.operand(1, format!("keys and values that fit queries {q}")));
    }
    if args.has(3) {
        let full = [batch.clone(), heads.clone(), seq.clone(), keys.clone()];
        let mask = args.ty(3);
        let fits = broadcast_shapes(&mask.shape, &full).is_some_and(|s| s == full);
        if !fits || (mask.dtype != DType::Bool && mask.dtype != q.dtype) {
            return Err(args.operand(3, format!("a mask that broadcasts to [{batch}, {heads}, {seq}, {keys}]")));
        }
    }
    Ok(vec![Type { dtype: q.dtype, shape: vec![batch.clone(), heads.clone(), seq.clone(), out.clone()] }])
}
