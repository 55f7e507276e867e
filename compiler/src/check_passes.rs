//! `compile --check-passes`: every pass on this model against the reference evaluator, before anything is written. Comparing is in
//! `llamac_passes::check`; here are the choice of what to evaluate and the refusal.

use crate::check_raising;
use crate::diag::{Diag, Result};
use crate::driver::Planned;
use crate::frontend::Model;
use llamac_ir::module::{Func, Module};
use llamac_ir::recipe::Source;
use llamac_passes::check::{Checked, Inputs, each_pass};

/// Up to this many weights several steps are evaluated, above only one.
const SMALL: u64 = 50_000_000;

/// Checks the passes.
///
/// # Errors
/// A pass is farther off than it promises, or a weight cannot be read.
pub(crate) fn check(planned: &Planned, source: &dyn Source, model: &Model) -> Result<Checked> {
    let inputs = if model.parameters() <= SMALL { Inputs::all(&planned.imported) } else { Inputs::short(&planned.imported) };
    let mut checked = each_pass(&planned.imported, &planned.passes, source, &inputs).map_err(|e| {
        Diag::new("passes", "the passes could not be checked")
            .found(e)
            .help("check that the weights can be read; if they can, this is a bug of llamac")
    })?;
    if let Some(graph) = &model.onnx {
        checked.rows.splice(0..0, check_raising::rows(graph)?);
    }
    verdict(&checked, &planned.module)?;
    Ok(checked)
}

/// Refuses passes that broke a promise, and a check of other functions than those that are compiled.
fn verdict(checked: &Checked, compiled: &Module) -> Result<()> {
    if let Some(row) = checked.wrong() {
        let found = row.difference.as_ref().map_or(String::new(), ToString::to_string);
        return Err(Diag::new("passes", format!("the pass `{}` changes what the model computes; no artifact was written", row.pass))
            .found(format!("{found}\n{}", checked.to_string().trim_end()))
            .expected(format!("at most {:.1e}", row.bound))
            .help("this is a bug of llamac: write the module with `llamac explain MODEL --ir=before > m.lir`,\nfind the rule with `llamac opt --bisect m.lir`, and report both"));
    }
    let layers = |m: &Module| m.funcs.iter().filter(|f| f.name != "main").map(Func::to_string).collect::<Vec<_>>();
    if layers(&checked.module) != layers(compiled) {
        return Err(Diag::new("internal", "the functions that were checked are not those that are compiled; this is a bug of llamac")
            .help("please report it with the model's config.json"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use llamac_passes::check::{Difference, Row};
    use llamac_passes::registry::Exactness;

    fn checked(relative: f64) -> Checked {
        let module = llamac_ir::parse::parse("module m stage=imported\nfunc @f(%x: f32[4]) {\n  return %x\n}").expect("a module");
        let difference = Some(Difference { what: "results".into(), relative, same_bits: false });
        let row = |pass: &str, bound| Row { pass: pass.into(), exactness: Exactness::Reassociated, difference: difference.clone(), bound };
        Checked { rows: vec![row("loose-pass", 1.0), row("strict-pass", 1e-6)], calls: (1, 1), module }
    }

    #[test]
    fn a_pass_that_differs_by_more_than_it_promises_is_refused_by_name() {
        let bad = checked(1e-3);
        let said = verdict(&bad, &bad.module).unwrap_err().to_string();
        assert!(said.contains("the pass `strict-pass` changes what the model computes; no artifact was written"), "{said}");
        assert!(said.contains("1.0e-3 in the results") && said.contains("at most 1.0e-6") && said.contains("WRONG"), "{said}");
        assert_eq!(verdict(&checked(1e-7), &bad.module), Ok(()));
    }

    #[test]
    fn a_check_of_other_functions_is_no_check() {
        let good = checked(1e-7);
        let mut other = good.module.clone();
        other.funcs[0].name = "g".into();
        assert!(verdict(&good, &other).unwrap_err().to_string().contains("not those that are compiled"));
    }
}
