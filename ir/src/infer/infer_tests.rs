//! Types of every op, and what is said about operands and attributes that do not fit.

use super::*;
use crate::build::fill_attrs;
use crate::testing::ty as rows;

const F: DType = DType::F32;

fn vector(n: usize) -> Type {
    Type::fixed(DType::Bf16, &[n])
}
fn matrix(n: usize, k: usize) -> Type {
    Type::fixed(DType::Q4G32, &[n, k])
}
fn ints(symbol: &str) -> Type {
    Type::new(DType::I32, [Dim::sym(symbol)])
}
fn check(op: OpKind, operands: &[Type], attrs: &[(&str, Attr)]) -> Result<Vec<Type>, String> {
    infer(op, operands, &fill_attrs(op, attrs)?)
}
fn int(n: i64) -> Attr {
    Attr::Int(n)
}

/// An op on operands and attributes that fit, and its result.
type Case = (OpKind, Vec<Type>, Vec<(&'static str, Attr)>, Option<Type>);

fn cases() -> Vec<Case> {
    let (x, eps) = (|n| rows(F, "s", n), || ("eps", Attr::float(1e-5)));
    let (pos, seq) = (ints("s"), ints("s"));
    let ids = |k: usize| rows(DType::I32, "s", k);
    let experts = |e: usize, n: usize| Type::new(F, [Dim::sym("s"), e.into(), n.into()]);
    let stack = |e, n, k| Type::fixed(DType::Bf16, &[e, n, k]);
    let head = || ("head_dim", int(4));
    let half = ("layout", Attr::Word("half".into()));
    let attention = vec![
        ("heads", int(4)),
        ("kv_heads", int(2)),
        head(),
        ("scale", Attr::float(0.5)),
        ("chunk", int(16)),
        ("kv", Attr::Word("bf16".into())),
    ];
    vec![
        (OpKind::Embed, vec![ints("s"), matrix(10, 8)], vec![], Some(x(8))),
        (OpKind::Linear, vec![x(8), matrix(6, 8)], vec![], Some(x(6))),
        (OpKind::Linear, vec![x(8), matrix(6, 8), vector(6)], vec![("act", Attr::Word("bf16".into()))], Some(x(6))),
        (OpKind::RmsNorm, vec![x(8), vector(8)], vec![eps()], Some(x(8))),
        (OpKind::RmsUnit, vec![x(8)], vec![eps(), ("group", int(4))], Some(x(8))),
        (OpKind::RopeAngles, vec![pos.clone(), vector(3)], vec![], Some(x(6))),
        (OpKind::Rope, vec![x(8), x(4)], vec![head(), half], Some(x(8))),
        (OpKind::KvWrite, vec![x(8), x(8), pos.clone(), seq.clone()], vec![head()], None),
        (OpKind::Attention, vec![x(16), pos.clone(), seq.clone()], attention, Some(x(16))),
        (OpKind::Silu, vec![x(8)], vec![], Some(x(8))),
        (OpKind::Add, vec![x(8), x(8)], vec![], Some(x(8))),
        (OpKind::Mul, vec![x(8), vector(8)], vec![], Some(x(8))),
        (OpKind::SliceCols, vec![x(8)], vec![("start", int(2)), ("len", int(6))], Some(x(6))),
        (OpKind::GatherRows, vec![x(8), ints("r")], vec![], Some(rows(F, "r", 8))),
        (OpKind::GatherRows, vec![ints("s"), ints("r")], vec![], Some(ints("r"))),
        (OpKind::SwiGlu, vec![x(8), x(8)], vec![], Some(x(8))),
        (OpKind::NormLinear, vec![x(8), vector(8), matrix(6, 8), vector(6)], vec![eps()], Some(x(6))),
        (OpKind::UnitLinear, vec![x(8), matrix(6, 8)], vec![eps()], Some(x(6))),
        (OpKind::NormLinearSwiGlu, vec![x(8), vector(8), matrix(6, 8)], vec![eps()], Some(x(3))),
        (OpKind::UnitLinearSwiGlu, vec![x(8), matrix(6, 8), vector(6)], vec![eps()], Some(x(3))),
        (OpKind::TopGates, vec![x(4)], vec![("top_k", int(2))], Some(x(4))),
        (OpKind::ExpertScale, vec![x(8), x(4)], vec![], Some(experts(4, 8))),
        (OpKind::ExpertLinear, vec![experts(4, 8), stack(4, 6, 8)], vec![], Some(experts(4, 6))),
        (OpKind::ExpertSum, vec![experts(4, 8)], vec![], Some(x(8))),
        (OpKind::RowScale, vec![x(8), x(1)], vec![], Some(x(8))),
        (OpKind::AttnTemperature, vec![pos.clone()], vec![("floor_scale", Attr::float(8.0)), ("attn_scale", Attr::float(0.1))], Some(x(1))),
        (OpKind::MoeLinearSwiGlu, vec![x(8), ids(2), x(2), stack(4, 6, 8)], vec![], Some(experts(2, 3))),
        (OpKind::MoeLinearAdd, vec![experts(2, 3), ids(2), stack(4, 8, 3), x(8)], vec![], Some(x(8))),
        (OpKind::LinearAdd, vec![x(8), matrix(6, 8), x(6), vector(6)], vec![], Some(x(6))),
        (OpKind::RopeKvWrite, vec![x(8), x(8), x(4), pos, seq], vec![head()], None),
    ]
}

#[test]
fn every_op_has_the_type_that_its_documentation_says() {
    let cases = cases();
    for (op, operands, attrs, result) in &cases {
        assert_eq!(check(*op, operands, attrs), Ok(result.iter().cloned().collect()), "{}", op.name());
    }
    for (op, _) in crate::op::OPS {
        assert!(matches!(op, OpKind::Layers | OpKind::Route) || cases.iter().any(|c| c.0 == *op), "`{}` has no case", op.name());
    }
}

#[test]
fn a_route_has_the_experts_and_the_gates_of_each_row() {
    let found = check(OpKind::Route, &[rows(F, "s", 4)], &[("top_k", int(3))]);
    assert_eq!(found, Ok(vec![rows(DType::I32, "s", 3), rows(F, "s", 3)]));
    for wrong in [0, 5, -1] {
        assert!(check(OpKind::Route, &[rows(F, "s", 4)], &[("top_k", int(wrong))]).unwrap_err().contains("top_k"));
        assert!(check(OpKind::TopGates, &[rows(F, "s", 4)], &[("top_k", int(wrong))]).unwrap_err().contains("top_k"));
    }
}

#[test]
fn no_op_takes_an_operand_of_another_shape_or_element_type() {
    for (op, operands, attrs, _) in cases() {
        for i in 0..operands.len() {
            for wrong in [Type::new(DType::Bool, operands[i].shape.clone()), Type::fixed(operands[i].dtype, &[5, 5, 5])] {
                let mut operands = operands.clone();
                operands[i] = wrong;
                // An elementwise op takes any shape; then the other operand does not fit.
                let Err(said) = check(op, &operands, &attrs) else {
                    assert!(
                        matches!(op, OpKind::Silu | OpKind::SliceCols | OpKind::GatherRows | OpKind::ExpertSum),
                        "`{}` takes anything as operand {i}",
                        op.name()
                    );
                    continue;
                };
                assert!(said.contains(op.name()) && said.contains("found") && said.contains("expected"), "{said}");
            }
        }
        let said = check(op, &operands[1..], &attrs);
        assert!(said.is_err(), "`{}` without its first operand gave {said:?}", op.name());
    }
}

#[test]
fn rows_of_all_operands_must_agree() {
    let said = check(OpKind::LinearAdd, &[rows(F, "s", 8), matrix(6, 8), rows(F, "r", 6)], &[]).unwrap_err();
    assert_eq!(said, "`linear_add`: operand `residual`: found f32[r, 6], expected f32[s, 6]");
    let said = check(OpKind::KvWrite, &[rows(F, "s", 8), rows(F, "s", 8), ints("s"), ints("r")], &[("head_dim", int(4))]).unwrap_err();
    assert_eq!(said, "`kv_write`: operand `seq`: found i32[r], expected i32[s]");
}

#[test]
fn attributes_that_do_not_fit_are_named() {
    let x = || rows(F, "s", 8);
    let eps = |e| ("eps", Attr::float(e));
    let refused = |op, operands: &[Type], attrs: &[(&str, Attr)], words: &str| {
        let said = check(op, operands, attrs).unwrap_err();
        assert!(said.contains(words), "{words} is not in: {said}");
    };
    refused(OpKind::RmsUnit, &[x()], &[eps(1e-5), ("group", int(3))], "`group`: found 3, expected 0 or a divisor of 8");
    refused(OpKind::RmsUnit, &[x()], &[eps(-1.0)], "`eps`");
    refused(OpKind::RmsUnit, &[x()], &[eps(f64::NAN)], "finite");
    refused(OpKind::SliceCols, &[x()], &[("start", int(4)), ("len", int(5))], "start + len <= 8");
    refused(OpKind::SliceCols, &[x()], &[("start", int(i64::MAX)), ("len", int(i64::MAX))], "start + len <= 8");
    refused(OpKind::SliceCols, &[x()], &[("start", int(-1)), ("len", int(1))], "not negative");
    refused(OpKind::Rope, &[x(), rows(F, "s", 1)], &[("head_dim", int(1)), ("layout", Attr::Word("half".into()))], "even");
    let heads = |h, k, d| [("heads", int(h)), ("kv_heads", int(k)), ("head_dim", int(d)), ("scale", Attr::float(1.0))];
    let q = [rows(F, "s", 8), ints("s"), ints("s")];
    refused(OpKind::Attention, &q, &heads(4, 3, 2), "`kv_heads`: found 3, expected a divisor of 4");
    refused(OpKind::Attention, &q, &heads(2, 1, 2), "heads * head_dim = 4");
    refused(OpKind::Attention, &q, &heads(i64::MAX, 1, i64::MAX), "smaller");
    refused(OpKind::NormLinearSwiGlu, &[x(), vector(8), matrix(5, 8)], &[eps(0.0)], "gate over up");
    let found = infer(OpKind::Linear, &[x(), matrix(6, 8)], &[int(1)]).unwrap_err();
    assert_eq!(found, "`linear`: attribute `act`: found 1, expected one of f32, bf16, i8");
    assert!(infer(OpKind::Linear, &[x(), matrix(6, 8)], &[]).unwrap_err().contains("number of attributes: found 0"));
}

#[test]
fn layers_are_left_to_the_verifier() {
    assert!(infer(OpKind::Layers, &[rows(F, "s", 8)], &[]).is_err());
}
