//! One test for each kind of error: change one thing of a good module, and that is what is said.

use super::*;
use crate::module::{LayerRun, Operand, ValueId, ValueInfo, WeightId};
use crate::op::{Attr, OpKind};
use crate::parse::parse;
use crate::recipe::Recipe;
use crate::testing;
use crate::types::Type;

/// The errors of the small model after a change.
fn after(change: impl FnOnce(&mut Module)) -> Vec<String> {
    let (mut module, _) = testing::model();
    change(&mut module);
    verify(&module, Stage::Imported).err().unwrap_or_default().iter().map(VerifyError::to_string).collect()
}
fn layer(module: &mut Module) -> &mut Func {
    &mut module.funcs[0]
}
fn main_func(module: &mut Module) -> &mut Func {
    &mut module.funcs[1]
}
fn calls(module: &mut Module) -> &mut Vec<LayerRun> {
    &mut main_func(module).body[2].calls
}
fn run(func: &str, first: usize, count: usize) -> LayerRun {
    LayerRun { func: func.into(), first, count }
}
/// The change gives exactly this error.
#[track_caller]
fn only(change: impl FnOnce(&mut Module), error: &str) {
    assert_eq!(after(change), [error]);
}
/// The change gives, among others, this error.
#[track_caller]
fn among(change: impl FnOnce(&mut Module), error: &str) {
    let errors = after(change);
    assert!(errors.iter().any(|e| e == error), "{error}\nis not among\n{}", errors.join("\n"));
}

#[test]
fn a_good_module_has_no_errors() {
    assert_eq!(after(|_| {}), [""; 0]);
    let (module, _) = testing::model();
    verify_func(&module.funcs[0]).unwrap();
}

#[test]
fn all_errors_are_listed_not_only_the_first() {
    let errors = after(|m| {
        m.dims.pop();
        layer(m).body[0].attrs.clear();
        main_func(m).results.clear();
    });
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].starts_with("@layer: `%n = rms_norm %x, @norm`") && errors[1].starts_with("@main: `%want`: symbol"), "{errors:?}");
    assert!(errors[2].starts_with("@main: `return`"), "{errors:?}");
}

#[test]
fn ids_out_of_range_are_errors() {
    among(
        |m| layer(m).body[0].operands[0] = ValueId(99).into(),
        "@layer: `%n = rms_norm %?99, @norm, eps=1e-5`: value read: found number 99, expected less than 13",
    );
    among(
        |m| layer(m).body[0].operands[1] = WeightId(u32::MAX).into(),
        "@layer: `%n = rms_norm %x, @?4294967295, eps=1e-5`: weight read: found number 4294967295, expected less than 5",
    );
    among(
        |m| layer(m).body[0].results[0] = ValueId(77),
        "@layer: `%?77 = rms_norm %x, @norm, eps=1e-5`: value defined: found number 77, expected less than 13",
    );
    among(|m| layer(m).params[0] = ValueId(77), "@layer: `parameters`: value defined: found number 77, expected less than 13");
    among(|m| layer(m).results[0] = ValueId(77).into(), "@layer: `return`: value read: found number 77, expected less than 13");
    among(
        |m| main_func(m).body[2].operands[1] = ValueId(77).into(),
        "@main: `%y = layers %x, %?77, %pos, %seq [@layer 0..2]`: value read: found number 77, expected less than 9",
    );
}

#[test]
fn a_value_must_be_defined_once_and_above() {
    only(|m| layer(m).body.swap(8, 9), "@layer: `%y = add %x, %o`: value read: found %o, expected a value that is defined above");
    among(
        |m| layer(m).body[8].results[0] = ValueId(0),
        "@layer: `%x = linear %a, @o`: value defined: found %x a second time, expected one definition",
    );
}

#[test]
fn names_are_unique() {
    only(
        |m| layer(m).values[5].name = "n".into(),
        "@layer: `%n = linear %n, @q`: name of a value: found %n a second time, expected one value of each name",
    );
    only(
        |m| layer(m).weights[1].name = "norm".into(),
        "@layer: `weight @norm`: name of a weight: found a second one of that name, expected one weight of each name",
    );
    only(
        |m| m.funcs.push(m.funcs[0].clone()),
        "@layer: name of a function: found a second function of that name, expected one function of each name",
    );
    only(
        |m| m.dims.push(m.dims[0].clone()),
        "`dim s`: name of a dimension: found a second one of that name, expected one dimension of each name",
    );
}

#[test]
fn types_must_be_those_that_follow_from_the_operands() {
    among(
        |m| layer(m).values[4].ty = Type::fixed(DType::F32, &[2, 8]),
        "@layer: `%n = rms_norm %x, @norm, eps=1e-5`: type of the result: found f32[2, 8], expected f32[s, 8]",
    );
    among(|m| layer(m).body[0].results.clear(), "@layer: `rms_norm %x, @norm, eps=1e-5`: number of results: found 0, expected 1");
    only(
        |m| layer(m).body[0].operands.truncate(1),
        "@layer: `%n = rms_norm %x, eps=1e-5`: `rms_norm`: number of operands: found 1, expected x, gamma",
    );
}

#[test]
fn attributes_are_complete_and_of_the_right_kind() {
    only(|m| layer(m).body[0].attrs.clear(), "@layer: `%n = rms_norm %x, @norm`: `rms_norm`: number of attributes: found 0, expected eps");
    only(
        |m| layer(m).body[0].attrs[0] = Attr::Int(1),
        "@layer: `%n = rms_norm %x, @norm, eps=1`: `rms_norm`: attribute `eps`: found 1, expected a number",
    );
    only(
        |m| layer(m).body[1].attrs[0] = Attr::Word("f16".into()),
        "@layer: `%q = linear %n, @q, act=f16`: `linear`: attribute `act`: found f16, expected one of f32, bf16, i8",
    );
}

#[test]
fn an_op_must_be_allowed_at_the_stage() {
    let fused = |m: &mut Module| {
        let add = &mut layer(m).body[9];
        add.op = OpKind::SwiGlu;
    };
    only(fused, "@layer: `%y = swiglu %x, %o`: stage of `swiglu`: found imported, expected fused or later");
    let (mut module, _) = testing::model();
    fused(&mut module);
    verify(&module, Stage::Fused).unwrap();
}

#[test]
fn weights_have_the_type_of_their_recipes() {
    only(
        |m| layer(m).weights[0].recipe = Recipe::Concat(vec![]),
        "@layer: `weight @norm`: recipe: found `concat`: found no parts, expected at least one, expected one that has a type",
    );
    only(
        |m| layer(m).weights[0].recipe = testing::source("{layer}.norm", &[4]),
        "@layer: `weight @norm`: type of the weight: found f32[8], expected f32[4], as the recipe has",
    );
}

#[test]
fn the_number_of_the_layer_stands_only_in_layer_functions() {
    only(
        |m| main_func(m).weights[0].recipe = testing::source("embed.{layer}", &[11, 8]),
        "@main: `weight @embed`: source: found \"embed.{layer}\", expected no {layer} outside layer functions",
    );
}

#[test]
fn symbols_are_declared_with_bounds_that_go_up() {
    only(|m| m.dims[1].0 = "rows".into(), "@main: `%want`: symbol: found `r`, expected a dimension declared by `dim`");
    only(|m| m.dims[0].1 = 17, "`dim s`: bounds: found 17..16, expected bounds that go up");
    only(
        |m| m.dims.push(("a b".into(), 1, 2)),
        "`dim a b`: name of a dimension: found `a b`, expected letters, digits and `_`, no digit first",
    );
}

#[test]
fn the_entry_has_its_parameters_and_one_result() {
    among(|m| main_func(m).name = "start".into(), "@main: entry: found no such function, expected a function called `main`");
    only(
        |m| main_func(m).values[0].name = "tokens".into(),
        "@main: parameters: found tokens, pos, seq, want, expected ids, pos, seq, want",
    );
    among(
        |m| main_func(m).values[0].ty.dtype = DType::F32,
        "@main: `%ids`: type of a parameter: found f32[s], expected i32[s] with a symbol",
    );
    among(
        |m| main_func(m).values[3].ty = main_func(m).values[0].ty.clone(),
        "@main: sizes of the parameters: found s, s, s, s, expected one symbol for ids, pos and seq, another for want",
    );
    only(|m| main_func(m).results.clear(), "@main: `return`: number of results: found 0, expected 1");
    only(|m| main_func(m).results[0] = ValueId(0).into(), "@main: `return`: type of the result: found i32[s], expected f32");
}

#[test]
fn layers_call_functions_that_exist_and_fit() {
    const CALL: &str = "@main: `%y = layers %x, %angles, %pos, %seq ";
    let at = |calls: &str, rest: &str| format!("{CALL}[{calls}]`: {rest}");
    only(
        |m| calls(m)[0].func = "none".into(),
        &at("@none 0..2", "function called: found @none, expected a function of the module, not @main"),
    );
    only(
        |m| calls(m)[0].func = "main".into(),
        &at("@main 0..2", "function called: found @main, expected a function of the module, not @main"),
    );
    only(|m| calls(m)[0].count = 0, &at("@layer 0..0", "layers called: found @layer 0..0, expected a range that is not empty"));
    only(
        |m| calls(m)[0] = run("layer", usize::MAX, 1),
        &at(
            "@layer 18446744073709551615..18446744073709551615",
            "layers called: found @layer 18446744073709551615..18446744073709551615, expected a range that is not empty",
        ),
    );
    among(
        |m| calls(m).clear(),
        "@main: `%y = layers %x, %angles, %pos, %seq`: calls: found none, expected at least one, such as [@layer 0..1]",
    );
    among(
        |m| {
            main_func(m).body[2].operands.swap(1, 2);
        },
        "@main: `%y = layers %x, %pos, %angles, %seq [@layer 0..2]`: argument 1 of @layer: found i32[s], expected f32[s, 4]",
    );
    among(
        |m| {
            main_func(m).body[2].operands.pop();
        },
        "@main: `%y = layers %x, %angles, %pos [@layer 0..2]`: number of arguments of @layer: found 3, expected 4",
    );
    among(|m| layer(m).results.clear(), &at("@layer 0..2", "results of @layer: found 0, expected one value"));
    among(
        |m| main_func(m).values[6].ty = testing::ty(DType::F32, "s", 9),
        &at("@layer 0..2", "type of the result: found f32[s, 9], expected f32[s, 8]"),
    );
}

#[test]
fn the_carried_value_has_one_type_along_the_calls() {
    // The last layer gives keys instead of the stream: four columns.
    let wrong = |m: &mut Module| {
        let mut last = m.funcs[0].clone();
        last.name = "last".into();
        last.results = vec![Operand::Value(ValueId(9))];
        m.funcs.push(last);
    };
    let errors = after(|m| {
        wrong(m);
        *calls(m) = vec![run("last", 0, 1), run("layer", 1, 1)];
    });
    assert!(errors.iter().any(|e| e.ends_with("argument 0 of @layer: found f32[s, 4], expected f32[s, 8]")), "{errors:?}");
    let errors = after(|m| {
        wrong(m);
        *calls(m) = vec![run("last", 0, 2)];
    });
    assert!(errors.iter().any(|e| e.ends_with("result of @last, called several times: found f32[s, 4], expected f32[s, 8]")), "{errors:?}");
    let errors = after(|m| {
        wrong(m);
        *calls(m) = vec![run("layer", 0, 1), run("last", 1, 1)];
    });
    assert!(errors.iter().any(|e| e.ends_with("type of the result: found f32[s, 8], expected f32[s, 4]")), "{errors:?}");
}

#[test]
fn only_main_calls() {
    let errors = after(|m| {
        let inst = main_func(m).body[2].clone();
        let func = layer(m);
        func.values.push(ValueInfo { name: "again".into(), ty: testing::ty(DType::F32, "s", 8) });
        let (new, old) = (ValueId(func.values.len() as u32 - 1), &func.params);
        let operands = old.iter().map(|p| Operand::Value(*p)).collect();
        func.body.push(crate::module::Inst { operands, results: vec![new], ..inst });
    });
    assert_eq!(
        errors,
        ["@layer: `%again = layers %x, %angles, %pos, %seq [@layer 0..2]`: `layers`: found a call in @layer, expected calls only in @main"]
    );
    only(
        |m| layer(m).body[9].calls.push(run("layer", 0, 1)),
        "@layer: `%y = add %x, %o [@layer 0..1]`: calls of functions: found 1, expected none: only `layers` calls",
    );
}

#[test]
fn one_function_has_one_cache() {
    only(
        |m| layer(m).body[6].attrs[1] = Attr::Word("bf16".into()),
        "@layer: `%a = attention %qr, %pos, %seq, heads=2, kv_heads=1, head_dim=4, scale=0.5`: format of the cache: found f32, expected bf16, as above",
    );
    let text = "module m stage=imported\ndim s = 1..2\nfunc @f(%k: f32[s, 8], %p: i32[s]) {
        kv_write %k, %k, %p, %p, head_dim=4
        %a = attention %k, %p, %p, heads=2, kv_heads=1, head_dim=4, scale=1.0
        return %a }";
    let errors = verify_func(&parse(text).unwrap().funcs[0]).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].what.as_str(), errors[0].found.as_str(), errors[0].expected.as_str()), ("elements of a key", "4", "8, as above"));
}
