//! A second opinion on the meaning of ops: random graphs in our evaluator and in tract's, which share no code but the messages of the format. What tract
//! does not run is counted, not compared.

use llamac::frontend::onnx::{eager, import};
use llamac_ir::dtype::DType;
use llamac_ir::eval::{Cache, eval_func};
use llamac_tests::random_graphs::{self, Case};
use llamac_tests::tensors::{Named, floats, numbers};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, Tensor, TractResult};

/// Shapes and numbers of all outputs, in tract.
fn tract(case: &Case) -> TractResult<Vec<(Vec<usize>, Vec<f32>)>> {
    let plan = tract_onnx::onnx().model_for_proto_model(&case.graph.model())?.into_typed()?.into_runnable()?;
    let inputs = case.inputs.iter().map(|(_, shape, data)| Ok(Tensor::from_shape(shape, data)?.into_tvalue()));
    let inputs = inputs.collect::<TractResult<Vec<TValue>>>()?;
    let found = plan.run(inputs.into_iter().collect())?;
    found.iter().map(|t| Ok((t.shape().to_vec(), t.to_plain_array_view::<f32>()?.iter().copied().collect()))).collect()
}

#[test]
fn random_graphs_mean_the_same_to_tract() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut compared, mut skipped) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    let mut same = 0;
    for seed in 1..=300 {
        let case = random_graphs::case(seed);
        let file = case.graph.write(folder.path());
        let given: Named = case.inputs.iter().map(|(name, shape, data)| (name.clone(), floats(DType::F32, shape, data))).collect();
        let ours = eager::run(&file, &given).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{:?}", case.ops));
        // As it is imported, too: sizes are numbers here, so nothing is left open.
        let graph = import(&file).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{:?}", case.ops));
        let args: Vec<_> = case.inputs.iter().map(|(name, ..)| given[name].tensor.clone()).collect();
        let imported = eval_func(&graph.module.funcs[0], &graph.weights, None, &args, &mut Cache::default());
        let imported = imported.unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", graph.module));
        for ((name, a), b) in ours.iter().zip(&imported) {
            assert!(a.tensor == *b, "seed {seed}, {name}: node by node and imported\n{}", graph.module);
        }
        // tract panics on some graphs; that is its own affair.
        let theirs = match catch_unwind(AssertUnwindSafe(|| tract(&case))) {
            Ok(Ok(theirs)) => theirs,
            Ok(Err(e)) => {
                let why = e.chain().last().map(ToString::to_string).unwrap_or_default();
                *skipped.entry(why.chars().take(60).collect()).or_default() += 1;
                continue;
            }
            Err(_) => {
                *skipped.entry("a panic".to_owned()).or_default() += 1;
                continue;
            }
        };
        assert_eq!(theirs.len(), ours.len(), "seed {seed}");
        for ((name, value), (shape, expected)) in ours.iter().zip(&theirs) {
            assert_eq!(value.tensor.shape(), shape, "seed {seed}, {name}");
            for (a, b) in numbers(value).iter().zip(expected) {
                let near = (a - b).abs() <= 2e-5 * b.abs().max(1.0) || a.is_nan() && b.is_nan();
                assert!(near, "seed {seed}, {name}: {a}, tract has {b}\n{}", graph.module);
            }
        }
        same += 1;
        case.ops.into_iter().for_each(|op| *compared.entry(op).or_default() += 1);
    }
    eprintln!("{same} graphs the same, ops {compared:?}; not run by tract: {skipped:?}");
    assert!(same >= 200, "{same} compared; not run by tract: {skipped:?}");
    assert!(compared.len() >= 40 && compared.values().all(|n| *n >= 3), "{compared:?}");
}
