//! Graphs that are no decoders and have their data in other files: the artifact has all of it, and needs the files no more.

use llamac::graph;
use llamac_ir::dtype::DType;
use llamac_runtime::artifact::layout::Layout;
use llamac_runtime::artifact::{ArtifactWriter, SectionKind};
use llamac_tests::fuzz::Rng;
use llamac_tests::graph::{Attr, DataType, Graph, spread};
use llamac_tests::random_graphs;
use llamac_tests::tensors::{Named, floats, infer, numbers};
use std::path::Path;

/// `reshape(x w, shape) + b`, all of it stored.
fn product() -> Graph {
    let mut g = Graph::new(18);
    let mut rng = Rng::new(5);
    g.input("x", DataType::Float, &["n", "300"]);
    let w = g.floats("w", DataType::Float16, &[300, 8], &spread(&mut rng, 2400, 1.0));
    let wide = g.op("Cast", &[&w], &[("to", Attr::Int(DataType::Float as i64))]);
    let y = g.op("MatMul", &["x", &wide], &[]);
    let shape = g.ints("shape", &[3], &[-1, 2, 4]);
    let y = g.op("Reshape", &[&y, &shape], &[]);
    let b = g.floats("b", DataType::Float, &[4], &spread(&mut rng, 4, 1.0));
    g.node("", "Add", &[&y, &b], &["y"], &[]);
    g.output("y", DataType::Float, &["n", "2", "4"]);
    g
}

fn given(rows: usize) -> Named {
    let data = spread(&mut Rng::new(6), rows * 300, 1.0);
    Named::from([("x".to_owned(), floats(DType::F32, &[rows, 300], &data))])
}

fn store(model: &Path, out: &Path) {
    graph::store(model, out).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
}

#[test]
fn an_artifact_has_the_data_that_stood_in_other_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = product().write(&folder.path().join("inside"));
    let apart = product().write_apart(&folder.path().join("apart"));
    let [a, b, again] = ["a.llx", "b.llx", "again.llx"].map(|n| folder.path().join(n));
    store(&inside, &a);
    store(&apart, &b);
    store(&apart, &again);
    assert!(std::fs::read(&b).expect("bytes") == std::fs::read(&again).expect("bytes"), "another artifact the second time");
    let expected = infer(&inside, &given(3)).expect("runs");
    assert_eq!(numbers(&expected["y"]).len(), 24);
    std::fs::remove_dir_all(folder.path().join("apart")).expect("gone");
    for artifact in [&a, &b] {
        let found = infer(artifact, &given(3)).expect("runs");
        assert!(numbers(&found["y"]) == numbers(&expected["y"]), "{}", artifact.display());
        let shown = graph::described(artifact).expect("reads").expect("a graph");
        assert!(shown.contains("a graph of 4 nodes") && shown.contains("`x`: f32[n, 300]"), "{shown}");
    }
}

#[test]
fn random_graphs_with_their_data_apart_compute_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    for seed in 1000..1012 {
        let case = random_graphs::case(seed);
        let given: Named = case.inputs.iter().map(|(name, shape, data)| (name.clone(), floats(DType::F32, shape, data))).collect();
        let inside = infer(&case.graph.write(&folder.path().join("inside")), &given).unwrap_or_else(|e| panic!("{seed}: {e}"));
        let artifact = folder.path().join("apart.llx");
        store(&case.graph.write_apart(&folder.path().join("apart")), &artifact);
        let apart = infer(&artifact, &given).unwrap_or_else(|e| panic!("{seed}: {e}"));
        assert!(inside.iter().zip(&apart).all(|(a, b)| a.0 == b.0 && a.1.tensor == b.1.tensor), "{seed}");
    }
}

#[test]
fn data_that_is_damaged_or_not_there_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let apart = product().write_apart(folder.path());
    let artifact = folder.path().join("a.llx");
    store(&apart, &artifact);
    let whole = std::fs::read(&artifact).expect("bytes");
    let layout = Layout::decode(&whole).expect("a layout");
    let entry = layout.find(SectionKind::GraphData).expect("a section");
    let mut bent = whole.clone();
    bent[(entry.offset + entry.bytes - 1) as usize] ^= 1;
    let other = folder.path().join("b.llx");
    std::fs::write(&other, &bent).expect("a file");
    let said = infer(&other, &given(1)).expect_err("damaged");
    assert!(said.contains("graph-data") && said.contains("blake3"), "{said}");

    // As an artifact of before: the graph alone, even if the file of its data is beside it.
    let mut writer = ArtifactWriter::create(&other).expect("a file");
    writer.put(SectionKind::Graph, &std::fs::read(&apart).expect("a model")).expect("a section");
    writer.finish().expect("a file");
    let said = infer(&other, &given(1)).expect_err("no data");
    assert!(
        said.contains("does not have the data") && said.contains("`weights.bin`") && said.contains("compile the graph again"),
        "{said}"
    );

    std::fs::write(folder.path().join("weights.bin"), [0; 10]).expect("a file");
    let said = graph::store(&apart, &other).expect_err("a short file").to_string();
    assert!(said.contains("ends behind the file") && said.contains("weights.bin"), "{said}");
}
