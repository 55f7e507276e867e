//! `llamac opt`: passes on IR text.

use crate::diag::{Diag, Result};
use crate::frontend::onnx;
use llamac_ir::module::Module;
use llamac_ir::parse::parse;
use llamac_ir::verify::{listed, verify};
use llamac_passes::check::{self, BisectError, Guilty, Inputs, Seeded};
use llamac_passes::pipeline::{self, Options, PipelineError, Precision};
use llamac_passes::registry::{self, PASSES};
use std::io::Read;
use std::path::PathBuf;

/// Run passes on a module in IR text (`.lir`) and print the result.
///
/// An ONNX model (`.onnx`) is imported and raised first: `--print-after import`, `raise` and `raise-decoder` show it on the way.
///
/// Without --passes the whole pipeline runs. `llamac explain MODEL --ir` prints a module to start from, `llamac explain --passes` lists the
/// passes. To find a guilty rule, --bisect evaluates the module and looks for the first application that changes its meaning; --fuel N allows
/// the first N applications only.
#[derive(Debug, clap::Args)]
pub(super) struct OptArgs {
    /// IR text, or an ONNX model; `-` reads IR text from standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Passes to run, in this order.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    passes: Option<Vec<String>>,
    /// Also print the module after these passes; `all`: after each.
    #[arg(long, value_name = "PASS", value_delimiter = ',')]
    print_after: Vec<String>,
    /// Allow only the first N applications of rules.
    #[arg(long, value_name = "N")]
    fuel: Option<usize>,
    /// Find the first application of a rule that changes what the module computes, on seeded weights.
    ///
    /// Exit code 1 if there is one: the rule, and the module with one application less and with it, are printed. Among rewrites of one e-graph it
    /// is the application with which a wrong form is first chosen; the rule that made the form may be an earlier one, see `explain --why`.
    #[arg(long, conflicts_with_all = ["fuel", "print_after", "verify"])]
    bisect: bool,
    /// Seed of the weights for --bisect.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "bisect")]
    seed: u64,
    /// What `choose-precision` chooses.
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = clap::builder::PossibleValuesParser::new(pipeline::PRECISIONS.iter().map(|p| p.name)))]
    quant: String,
    /// Only check the module: parse, verify, print.
    #[arg(long, conflicts_with_all = ["passes", "fuel"])]
    verify: bool,
    /// Print what fired to standard error.
    #[arg(long)]
    report: bool,
}

/// What can be printed after beside single passes: all rewrites together, and the steps from an ONNX graph to a module.
const GROUPS: &[&str] = &["rewrite", "import", "raise", "raise-decoder"];

pub(super) fn main(args: &OptArgs) -> Result<()> {
    for name in args.print_after.iter().filter(|n| n.as_str() != "all") {
        if registry::pass(name).is_none() && !GROUPS.contains(&name.as_str()) {
            return Err(bad_pass(&PipelineError::Unknown(name.clone())));
        }
    }
    let mut observe = |pass: &str, module: &Module| {
        if args.print_after.iter().any(|n| n == pass || n == "all") {
            println!("// after {pass}\n{module}");
        }
    };
    let mut module = match args.file.extension().is_some_and(|e| e == "onnx") {
        true if args.verify => onnx::import(&args.file)?.module,
        true => onnx::raised(&args.file, &mut observe)?.module,
        false => read(args)?,
    };
    if args.verify {
        print!("{module}");
        return Ok(());
    }
    let precision = Precision::from_name(&args.quant).unwrap_or_default();
    let options = Options { precision, fuel: args.fuel, ..Options::default() };
    if args.bisect {
        return find_guilty(args, &module, &options);
    }
    let done = match &args.passes {
        Some(names) => pipeline::run_named(&mut module, &names.iter().map(String::as_str).collect::<Vec<_>>(), &options, &mut observe),
        None => pipeline::run_observed(&mut module, &options, &mut observe),
    };
    let report = done.map_err(|e| bad_pass(&e))?;
    print!("{module}");
    if args.report {
        eprint!("{report}");
    }
    Ok(())
}

/// Says which application of a rule is the first that is wrong.
fn find_guilty(args: &OptArgs, module: &Module, options: &Options) -> Result<()> {
    let names: Option<Vec<&str>> = args.passes.as_ref().map(|names| names.iter().map(String::as_str).collect());
    let (source, inputs) = (Seeded::new(module, args.seed), Inputs::all(module));
    let found = check::bisect(module, names.as_deref(), options, &source, &inputs).map_err(|e| match e {
        BisectError::Pipeline(e) => bad_pass(&e),
        other => Diag::new("bisect", "the module cannot be bisected").found(other).help("the module must run: see `llamac opt --verify`"),
    })?;
    let Some(Guilty { fuel, of, rule, before, after, how }) = found else {
        println!("every rewrite keeps the meaning of the module (weights of seed {})", args.seed);
        return Ok(());
    };
    println!("// with --fuel {}\n{before}", fuel - 1);
    if let Some(after) = after {
        println!("// with --fuel {fuel}\n{after}");
    }
    Err(Diag::new("bisect", format!("application {fuel} of {of} is wrong: {rule}"))
        .place(args.file.display())
        .found(how)
        .help(format!("--fuel {} is the last that is right", fuel - 1)))
}

fn read(args: &OptArgs) -> Result<Module> {
    let place = args.file.display();
    let mut text = String::new();
    let done = match args.file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(&args.file).and_then(|mut f| f.read_to_string(&mut text)),
    };
    done.map_err(|e| Diag::io("cannot read the module", place, &e).help("give a file of IR text, or - for standard input"))?;
    let module = parse(&text).map_err(|e| {
        let diag = Diag::new("ir", e.message.clone()).place(format_args!("{}:{}:{}", args.file.display(), e.line, e.column));
        let diag = if e.expected.is_empty() { diag } else { diag.expected(&e.expected) };
        diag.help("`llamac explain MODEL --ir` prints a module in the right form")
    })?;
    verify(&module, module.stage).map_err(|errors| {
        Diag::new("ir", format!("the module has {} errors", errors.len()))
            .place(args.file.display())
            .found(listed(&errors))
            .help("mend them and run again")
    })?;
    Ok(module)
}

fn bad_pass(error: &PipelineError) -> Diag {
    let names: Vec<&str> = PASSES.iter().map(|p| p.name).collect();
    match error {
        PipelineError::Unknown(name) => Diag::new("pass", "there is no such pass")
            .found(name)
            .expected(names.join(", "))
            .help(format!("did you mean `{}`?", registry::nearest(name))),
        other => {
            Diag::new("internal", "a pass failed; this is a bug of llamac").found(other).help("bisect it with --fuel and report the module")
        }
    }
}
