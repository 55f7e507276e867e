//! Text goes to a module and back, errors have a place and say what may stand there, and no text makes the reader panic.

use super::*;
use crate::dtype::{DTYPES, DType};
use crate::module::{Func, Inst, LayerRun, Operand, ValueId, ValueInfo, Weight, WeightId};
use crate::op::tensor::TENSOR_OPS;
use crate::op::{Attr, AttrKind, OPS, OpKind};
use crate::recipe::Recipe;
use crate::testing::{self, Rng};
use crate::types::{Dim, Type};
use crate::verify::verify;

const SMALL: &str = r#"module small-model stage=imported
dim s = 1..16
dim r = 1..4

func @layer(%x: f32[s, 8], %angles: f32[s, 4], %pos: i32[s], %seq: i32[s]) {
  weight @norm: f32[8] = "{layer}.norm": f32[8]
  weight @q: f32[8, 8] = "{layer}.q": f32[8, 8]
  weight @k: f32[4, 8] = "{layer}.k": f32[4, 8]
  weight @v: f32[4, 8] = "{layer}.v": f32[4, 8]
  weight @o: f32[8, 8] = "{layer}.o": f32[8, 8]
  %n = rms_norm %x, @norm, eps=1e-5                                             : f32[s, 8]
  %q = linear %n, @q                                                            : f32[s, 8]
  %k = linear %n, @k                                                            : f32[s, 4]
  %v = linear %n, @v                                                            : f32[s, 4]
  %qr = rope %q, %angles, head_dim=4, layout=half                               : f32[s, 8]
  %kr = rope %k, %angles, head_dim=4, layout=half                               : f32[s, 4]
  kv_write %kr, %v, %pos, %seq, head_dim=4
  %a = attention %qr, %pos, %seq, heads=2, kv_heads=1, head_dim=4, scale=0.5    : f32[s, 8]
  %o = linear %a, @o                                                            : f32[s, 8]
  %y = add %x, %o                                                               : f32[s, 8]
  return %y
}

func @main(%ids: i32[s], %pos: i32[s], %seq: i32[s], %want: i32[r]) {
  weight @embed: f32[11, 8] = "embed": f32[11, 8]
  weight @inv_freq: f32[2] = literal([2], 1.0, 0.01)
  %x = embed %ids, @embed                                  : f32[s, 8]
  %angles = rope_angles %pos, @inv_freq                    : f32[s, 4]
  %y = layers %x, %angles, %pos, %seq [@layer 0..2]        : f32[s, 8]
  %rows = gather_rows %y, %want                            : f32[r, 8]
  %logits = linear %rows, @embed                           : f32[r, 11]
  return %logits
}
"#;

fn squeezed(text: &str) -> String {
    text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn a_model_prints_as_people_write_it_and_reads_back_equal() {
    let (module, _) = testing::model();
    let text = module.to_string();
    assert_eq!(squeezed(&text), squeezed(SMALL), "printed:\n{text}");
    assert_eq!(parse(&text).unwrap(), module);
    assert_eq!(parse(SMALL).unwrap(), module);
    verify(&module, module.stage).unwrap();
}

#[test]
fn types_that_can_be_worked_out_may_be_left_out() {
    let bare: String = SMALL
        .lines()
        .map(|l| if l.contains(" layers ") { l } else { l.split("  : ").next().unwrap().trim_end() }.to_owned() + "\n")
        .collect();
    let bare = bare.replace("weight @q: f32[8, 8] =", "weight @q =");
    assert!(!bare.contains("linear %n, @q  "), "the test text has no type left out:\n{bare}");
    assert_eq!(parse(&bare).unwrap(), testing::model().0);
}

#[test]
fn comments_and_blanks_may_stand_anywhere() {
    let loose = SMALL.replace(", ", " , // and\n ").replace('=', " = ");
    assert_eq!(parse(&loose).unwrap(), testing::model().0);
}

#[track_caller]
fn refused(change: (&str, &str), place: (usize, usize), words: &[&str]) {
    assert!(SMALL.contains(change.0), "the text has no `{}`", change.0);
    let error = parse(&SMALL.replacen(change.0, change.1, 1)).unwrap_err();
    let said = error.to_string();
    assert!(words.iter().all(|w| said.contains(w)), "{words:?} not all in: {said}");
    assert_eq!((error.line, error.column), place, "{said}");
}

#[test]
fn errors_have_a_place_and_say_what_may_stand_there() {
    refused(("module", "modul"), (1, 1), &["`modul`", "`module NAME stage=STAGE`"]);
    refused(("imported", "importd"), (1, 26), &["`importd`", "imported, canonical"]);
    refused(("1..16", "1...16"), (2, 12), &["`.16`", "an integer"]);
    refused(("1..16", "-1..16"), (2, 9), &["-1", "not negative"]);
    refused(("func @layer", "fun @layer"), (5, 1), &["`fun`", "`dim` or `func`"]);
    refused(("%x: f32[s", "%x: f31[s"), (5, 17), &["`f31`", "f32, bf16"]);
    refused(("rms_norm", "rmsnorm"), (11, 8), &["`rmsnorm`", "an op"]);
    refused(("rms_norm %x", "rms_norm %z"), (11, 17), &["%z", "defined above"]);
    refused(("@norm, eps", "@gamma, eps"), (11, 21), &["@gamma", "a weight of the function"]);
    refused(("eps=1e-5", "epsilon=1e-5"), (11, 28), &["`epsilon`", "one of eps"]);
    refused(("eps=1e-5", "eps=small"), (11, 32), &["`small`", "a number"]);
    refused((", eps=1e-5", ""), (11, 3), &["`rms_norm` needs the attribute `eps`"]);
    refused(("layout=half", "layout=quarter"), (15, 3), &["quarter", "half, interleaved"]);
    refused(("head_dim=4, layout", "head_dim=9999999999999999999, layout"), (15, 36), &["integer of 64 bits"]);
    refused(("%q = linear", "%n = linear"), (12, 3), &["%n is defined twice"]);
    refused(("weight @q", "weight @norm"), (7, 10), &["@norm is defined twice"]);
    refused(("return %y\n}", "return %y\n"), (24, 1), &["`func`", "`}`"]);
    refused(("[@layer 0..2]", "[@layer 2..0]"), (29, 47), &["2..0", "goes up"]);
    refused(("= \"embed\"", "= \"embed"), (25, 31), &["does not end"]);
    refused(("literal(", "litral("), (26, 30), &["`litral`", "`literal`"]);
    refused(("        : f32[s, 8]\n  %rows", "\n  %rows"), (29, 3), &["typed by the functions"]);
}

/// Reads `recipe` as the recipe of a weight.
fn recipe_of(recipe: &str) -> std::result::Result<Recipe, ParseError> {
    let text = format!("module m stage=imported\nfunc @f() {{ weight @w: f32[1] = {recipe} return }}");
    parse(&text).map(|m| m.funcs[0].weights[0].recipe.clone())
}

#[test]
fn every_float_reads_back_to_the_same_bits() {
    let mut rng = Rng(11);
    let mut floats = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::MIN_POSITIVE, 1e-45, f32::MAX, 0.1];
    floats.extend((0..2000).map(|_| f32::from_bits(rng.next() as u32)));
    let recipe = Recipe::Literal { shape: vec![floats.len()], data: floats.clone().into() };
    let Recipe::Literal { data, .. } = recipe_of(&recipe.to_string()).unwrap() else { panic!("not a literal") };
    assert!(floats.iter().zip(data.iter()).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn deep_nesting_and_large_numbers_are_errors() {
    let nested = |n: usize| format!("{}\"a\": f32[1]{}", "transpose(".repeat(n), ")".repeat(n));
    assert!(recipe_of(&nested(64)).is_ok());
    assert!(recipe_of(&nested(65)).unwrap_err().message.contains("nested 64 deep"));
    assert!(recipe_of(&"transpose(".repeat(200_000)).unwrap_err().message.contains("nested"));
    for dim in ["9999999999999999999", "999999999999999999", "s*2", "2*", "", "-", "281474976710656+1", &"s+".repeat(40)] {
        assert!(recipe_of(&format!("\"a\": f32[1, {dim}]")).is_err(), "{dim}");
    }
}

#[test]
fn random_modules_read_back_equal() {
    for seed in 1..=300 {
        let module = random_module(&mut Rng(seed * 0x9e37_79b9));
        let text = module.to_string();
        assert_eq!(parse(&text).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}")), module, "seed {seed}:\n{text}");
    }
}

#[test]
fn a_function_in_any_numbering_reads_back_as_its_renumbered_self() {
    let (mut module, _) = testing::model();
    let renumbered = module.clone();
    for func in &mut module.funcs {
        // Turn the numbering round and leave a value that nothing defines.
        let last = func.values.len() as u32;
        func.values.reverse();
        func.values.push(ValueInfo { name: "stale".into(), ty: Type::fixed(DType::F32, &[1]) });
        let turn = |v: &mut ValueId| v.0 = last - 1 - v.0;
        let turn_operand = |o: &mut Operand| {
            if let Operand::Value(v) = o {
                turn(v)
            }
        };
        func.params.iter_mut().for_each(turn);
        func.results.iter_mut().for_each(turn_operand);
        for inst in &mut func.body {
            inst.operands.iter_mut().for_each(turn_operand);
            inst.results.iter_mut().for_each(turn);
        }
    }
    assert_ne!(module, renumbered);
    assert_eq!(parse(&module.to_string()).unwrap(), renumbered);
    module.funcs.iter_mut().for_each(Func::renumber);
    assert_eq!(module, renumbered);
}

#[test]
fn no_mutated_text_makes_the_reader_or_the_verifier_panic() {
    let mut rng = Rng(99);
    let pieces = [
        "%x", "@w", ",", "(", ")", "[", "]", "{", "}", "..", "=", "\"", "\\", "9", "-", "*", "s", "nan(", "é", "weight ", "linear ", "0",
        "//",
    ];
    let mut read = 0;
    for _ in 0..20_000 {
        let mut text: Vec<char> = SMALL.chars().collect();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(text.len());
            let end = (at + rng.below(6)).min(text.len());
            let piece: Vec<char> = rng.pick(&pieces).chars().collect();
            let new = if rng.below(3) == 0 { vec![] } else { piece };
            text.splice(at..end, new);
        }
        if let Ok(module) = parse(&text.iter().collect::<String>()) {
            read += 1;
            let _ = verify(&module, module.stage);
            assert_eq!(parse(&module.to_string()).unwrap(), module);
        }
    }
    assert!(read > 100, "only {read} texts could be read: the test changes too much");
}

const NAMES: &[&str] = &["x", "layer.0-y", "with space", "quote\"back\\slash", "", "été", "new\nline", "return"];

fn random_module(rng: &mut Rng) -> Module {
    let stage = rng.pick(Stage::ALL).0;
    let dims = (0..rng.below(3)).map(|i| (format!("d{i}"), rng.below(9), rng.below(99))).collect();
    let funcs = (0..rng.below(3)).map(|_| random_func(rng)).collect();
    Module { name: (*rng.pick(NAMES)).to_owned(), stage, dims, funcs }
}

fn random_func(rng: &mut Rng) -> Func {
    let mut func =
        Func { name: (*rng.pick(NAMES)).to_owned(), values: vec![], params: vec![], weights: vec![], body: vec![], results: vec![] };
    for _ in 0..1 + rng.below(3) {
        let id = random_value(rng, &mut func);
        func.params.push(id);
    }
    for i in 0..1 + rng.below(4) {
        let name = format!("{}{i}", rng.pick(NAMES));
        func.weights.push(Weight { name, ty: random_type(rng), recipe: random_recipe(rng, 3) });
    }
    for _ in 0..rng.below(8) {
        let plain = OPS.iter().map(|(op, info)| (*op, info));
        let all: Vec<_> = plain.chain(TENSOR_OPS.iter().map(|(op, info)| (OpKind::Tensor(*op), info))).collect();
        let (op, info) = rng.pick(&all);
        let operands = (0..1 + rng.below(4)).map(|_| random_operand(rng, &func)).collect();
        let attrs = info.attrs.iter().map(|(_, kind)| random_attr(rng, *kind)).collect();
        let results = (0..info.results).map(|_| random_value(rng, &mut func)).collect();
        let run = |rng: &mut Rng| LayerRun { func: (*rng.pick(NAMES)).to_owned(), first: rng.below(9), count: rng.below(9) };
        let calls = (0..rng.below(3)).map(|_| run(rng)).collect();
        func.body.push(Inst { op: *op, operands, attrs, results, calls });
    }
    func.results = (0..rng.below(3)).map(|_| random_operand(rng, &func)).collect();
    func
}

fn random_value(rng: &mut Rng, func: &mut Func) -> ValueId {
    let name = format!("{}{}", rng.pick(NAMES), func.values.len());
    func.values.push(ValueInfo { name, ty: random_type(rng) });
    ValueId(func.values.len() as u32 - 1)
}

fn random_operand(rng: &mut Rng, func: &Func) -> Operand {
    if rng.below(2) == 0 {
        ValueId(rng.below(func.values.len()) as u32).into()
    } else {
        WeightId(rng.below(func.weights.len()) as u32).into()
    }
}

fn random_attr(rng: &mut Rng, kind: AttrKind) -> Attr {
    match kind {
        AttrKind::Int(default) => Attr::Int(*rng.pick(&[default.unwrap_or(3), 7, i64::MIN, i64::MAX])),
        AttrKind::Float(_) => {
            Attr::Float(*rng.pick(&[rng.0, 1e-5f64.to_bits(), f64::INFINITY.to_bits(), f64::NAN.to_bits(), 3f64.to_bits()]))
        }
        AttrKind::Word(words, _) => Attr::Word((*rng.pick(words)).to_owned()),
        AttrKind::Dims => Attr::Dims((0..rng.below(4)).map(|_| random_dim(rng)).collect()),
    }
}

fn random_type(rng: &mut Rng) -> Type {
    let dtype = rng.pick(DTYPES).dtype;
    Type::new(dtype, (0..rng.below(4)).map(|_| random_dim(rng)).collect::<Vec<_>>())
}

fn random_dim(rng: &mut Rng) -> Dim {
    let mut dim = Dim { constant: rng.below(200) as i64 - 100, terms: vec![] };
    for symbol in ["a", "s", "t_1"] {
        let factor = rng.below(5) as i64 - 2;
        if rng.below(2) == 0 && factor != 0 {
            dim.terms.push((symbol.to_owned(), factor));
        }
    }
    dim
}

fn random_recipe(rng: &mut Rng, depth: usize) -> Recipe {
    let kind = if depth == 0 { rng.below(2) } else { rng.below(8) };
    let part = |rng: &mut Rng| Box::new(random_recipe(rng, depth.saturating_sub(1)));
    match kind {
        0 => Recipe::Source { name: (*rng.pick(NAMES)).to_owned(), ty: random_type(rng) },
        1 => {
            let n = rng.below(4);
            Recipe::Literal { shape: vec![n, 1], data: rng.floats(n).into() }
        }
        2 => Recipe::Cast(rng.pick(DTYPES).dtype, part(rng)),
        3 => Recipe::Concat((0..1 + rng.below(3)).map(|_| *part(rng)).collect()),
        4 => Recipe::Transpose(part(rng)),
        5 => Recipe::PermuteRope(rng.below(9), part(rng)),
        6 => Recipe::ScaleColumns(part(rng), part(rng)),
        _ => Recipe::ScaleRows(part(rng), part(rng)),
    }
}
