//! Tensor ops on integers, exactly: numbers are i128 while an op works on them and wrap once to the element type of the result.

use super::tensor_ops::{Nd, zip};
use crate::dtype::DType;
use crate::op::TensorOp as T;

/// Whether [`eval`] has the op; `b` is the second operand of those that have one.
pub(super) fn binary(op: T) -> bool {
    use T::{Add, BitAnd, BitOr, BitXor, Div, FMod, Max, Min, Mod, Mul, Pow, ShiftLeft, ShiftRight, Sub};
    use T::{And, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Or, Xor};
    matches!(op, Add | Sub | Mul | Div | Mod | FMod | Pow | Max | Min | BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight)
        || matches!(op, And | Or | Xor | Equal | Less | LessOrEqual | Greater | GreaterOrEqual)
}

/// As [`binary`], of one operand.
pub(super) fn unary(op: T) -> bool {
    matches!(op, T::Not | T::Neg | T::Abs | T::Sign | T::Relu | T::BitNot)
}

/// One operand.
pub(super) fn eval1(op: T, x: Nd<i128>) -> Nd<i128> {
    let f = |x: i128| match op {
        T::Not => i128::from(x == 0),
        T::Neg => -x,
        T::Abs => x.abs(),
        T::Sign => x.signum(),
        T::Relu => x.max(0),
        _ => !x,
    };
    Nd { shape: x.shape, data: x.data.into_iter().map(f).collect() }
}

/// Two operands of type `dtype`.
pub(super) fn eval2(op: T, dtype: DType, a: &Nd<i128>, b: &Nd<i128>) -> Result<Nd<i128>, String> {
    if matches!(op, T::Div | T::Mod | T::FMod) && b.data.contains(&0) {
        return Err("an integer is divided by 0".to_owned());
    }
    if op == T::Pow && b.data.iter().any(|n| *n < 0) {
        return Err("an integer to the power of a negative one is no integer".to_owned());
    }
    let bits = dtype.info().bits as i128;
    let truth = i128::from;
    zip(a, b, |a, b| match op {
        T::Add => a + b,
        T::Sub => a - b,
        // Two numbers of 64 bits have a product of 128.
        T::Mul => a.wrapping_mul(b),
        T::Div => a / b,
        T::Mod => a - div_floor(a, b) * b,
        T::FMod => a % b,
        T::Pow => power(a, b),
        T::Max => a.max(b),
        T::Min => a.min(b),
        T::BitAnd => a & b,
        T::BitOr => a | b,
        T::BitXor => a ^ b,
        T::ShiftLeft if (0..bits).contains(&b) => a << b,
        T::ShiftLeft => 0,
        T::ShiftRight => a >> if (0..bits).contains(&b) { b } else { 127 },
        T::And => truth(a != 0 && b != 0),
        T::Or => truth(a != 0 || b != 0),
        T::Xor => truth((a != 0) != (b != 0)),
        T::Equal => truth(a == b),
        T::Less => truth(a < b),
        T::LessOrEqual => truth(a <= b),
        T::Greater => truth(a > b),
        _ => truth(a >= b),
    })
}

fn div_floor(a: i128, b: i128) -> i128 {
    a.div_euclid(b) - i128::from(b < 0 && a.rem_euclid(b) != 0)
}

/// What is lost at the top is a multiple of 2^128: it does not change the result modulo 2^64.
fn power(mut base: i128, mut exponent: i128) -> i128 {
    let mut out = 1i128;
    while exponent > 0 {
        if exponent & 1 == 1 {
            out = out.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(op: T, a: i128, b: i128) -> i128 {
        let one = |x| Nd { shape: vec![], data: vec![x] };
        eval2(op, DType::I64, &one(a), &one(b)).unwrap().data[0]
    }

    #[test]
    fn quotients_and_remainders_have_the_signs_they_should() {
        for (a, b, quotient, floored, dividend) in
            [(7, 3, 2, 1, 1), (-7, 3, -2, 2, -1), (7, -3, -2, -2, 1), (-7, -3, 2, -1, -1), (-6, 3, -2, 0, 0)]
        {
            assert_eq!((two(T::Div, a, b), two(T::Mod, a, b), two(T::FMod, a, b)), (quotient, floored, dividend), "{a} by {b}");
        }
    }

    #[test]
    fn large_integers_are_exact() {
        let large = i128::from(u64::MAX);
        assert_eq!(two(T::Sub, large, 1), large - 1);
        assert_eq!(two(T::ShiftRight, large, 63), 1);
        assert_eq!((two(T::ShiftLeft, 1, 64), two(T::ShiftLeft, 1, -1)), (0, 0));
        assert_eq!((two(T::ShiftRight, -8, -1), two(T::ShiftRight, 4, 70)), (-1, 0));
        assert_eq!(two(T::Pow, 3, 40), 12_157_665_459_056_928_801);
        assert_eq!(two(T::Less, large - 1, large), 1);
    }
}
