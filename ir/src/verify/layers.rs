//! Checks of `layers`: the callees exist, take the arguments, and pass the carried value on. Only `main` calls, so nothing recurses.

use super::Errors;
use super::func::operand_type;
use crate::module::{Func, Inst, LayerRun, Module};
use crate::op::OpKind;
use crate::print;
use crate::types::Type;

/// Checks every `layers` of a function.
pub(super) fn check(module: &Module, func: &Func, errors: &mut Errors) {
    for inst in func.body.iter().filter(|i| i.op == OpKind::Layers) {
        let at = print::inst(func, inst);
        if func.name != "main" {
            errors.add(&at, "`layers`", format!("a call in @{}", func.name), "calls only in @main");
        }
        let operands: Option<Vec<&Type>> = inst.operands.iter().map(|o| operand_type(func, *o)).collect();
        match (operands.as_deref(), inst.results.as_slice()) {
            (Some([carried, args @ ..]), [result]) => {
                let last = calls(module, inst, &at, (*carried).clone(), args, errors);
                match (last, func.values.get(result.0 as usize)) {
                    (Some(last), Some(value)) if value.ty != last => errors.add(&at, "type of the result", &value.ty, last),
                    _ => {}
                }
            }
            (Some([]), _) => errors.add(&at, "number of operands", 0, "at least one"),
            (Some(_), results) => errors.add(&at, "number of results", results.len(), 1),
            (None, _) => {}
        }
        if !inst.attrs.is_empty() {
            errors.add(&at, "number of attributes", inst.attrs.len(), "none");
        }
    }
}

/// Follows the carried value through the calls; its type behind the last one, if all went well.
fn calls(module: &Module, inst: &Inst, at: &str, mut carried: Type, args: &[&Type], errors: &mut Errors) -> Option<Type> {
    if inst.calls.is_empty() {
        errors.add(at, "calls", "none", "at least one, such as [@layer 0..1]");
    }
    let mut well = true;
    for run in &inst.calls {
        if run.count == 0 || run.first.checked_add(run.count).is_none() {
            errors.add(at, "layers called", run, "a range that is not empty");
        }
        let Some(callee) = module.func(&run.func).filter(|f| f.name != "main") else {
            errors.add(at, "function called", format!("@{}", run.func), "a function of the module, not @main");
            return None;
        };
        match signature(callee) {
            Some((params, result)) => {
                well &= arguments(run, &params, &carried, args, at, errors);
                if run.count > 1 && params.first() != Some(&result) {
                    let expected = params.first().map_or("a parameter".to_owned(), |p| p.to_string());
                    errors.add(at, format!("result of @{}, called several times", run.func), result, expected);
                    well = false;
                }
                carried = result.clone();
            }
            None => {
                errors.add(at, format!("results of @{}", run.func), callee.results.len(), "one value");
                return None;
            }
        }
    }
    well.then_some(carried)
}

fn arguments(run: &LayerRun, params: &[&Type], carried: &Type, args: &[&Type], at: &str, errors: &mut Errors) -> bool {
    if params.len() != args.len() + 1 {
        errors.add(at, format!("number of arguments of @{}", run.func), args.len() + 1, params.len());
        return false;
    }
    let mut well = true;
    for (i, (param, arg)) in params.iter().zip([carried].into_iter().chain(args.iter().copied())).enumerate() {
        if *param != arg {
            errors.add(at, format!("argument {i} of @{}", run.func), arg, param);
            well = false;
        }
    }
    well
}

/// Types of the parameters and of the one result.
fn signature(func: &Func) -> Option<(Vec<&Type>, &Type)> {
    let params = func.params.iter().map(|p| func.values.get(p.0 as usize).map(|v| &v.ty)).collect::<Option<Vec<_>>>()?;
    match func.results.as_slice() {
        [result] => Some((params, operand_type(func, *result)?)),
        _ => None,
    }
}
