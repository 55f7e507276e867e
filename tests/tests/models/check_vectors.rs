//! Check vectors: they pass on every fixture, of all layers and of few (as large models have them), and fail where code or weights are not right.

use llamac::driver::{self, Check, CompileOptions};
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::step::EngineError;
use llamac_runtime::verify;
use llamac_tests::{fixture, repo};

/// Vectors of all layers are what other tests of whole models come down to: two formats of them will do.
const FORMATS: [(&str, Check); 6] = [
    ("f32", Check::Few),
    ("bf16", Check::Few),
    ("int8", Check::Few),
    ("int4", Check::Few),
    ("bf16", Check::Fitting),
    ("int4", Check::Fitting),
];

#[test]
fn vectors_of_all_layers_and_of_few_pass_in_every_kind_of_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("x.llx");
    for fixture in fixture::all() {
        for (quant, check) in FORMATS {
            let options = CompileOptions { quant: Some(quant.into()), check, ..CompileOptions::default() };
            driver::compile(&fixture.model, &out, &options, &driver::Silent).expect("an artifact");
            let artifact = Artifact::open(&out, &OpenOptions::default()).expect("opens");
            let vectors = artifact.check_vectors().expect("readable").expect("there are some");
            let layers = artifact.meta().schedule.len();
            assert_eq!(vectors.head.schedule.is_empty(), check == Check::Fitting);
            assert!(vectors.head.schedule.len() < layers, "{} runs all of {layers} layers", fixture.name);
            for threads in [1, 2] {
                let report = verify::run(&artifact, &vectors, Some(threads)).expect("runs");
                assert!(report.passed(), "{} {quant} {check:?}: {report:?}", fixture.name);
            }
        }
    }
}

/// The vectors of few layers are of these layers: with another layer, or one more, they do not pass.
#[test]
fn other_layers_do_not_pass() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("x.llx");
    let fixture = fixture::load("tiny-llama3");
    let options = CompileOptions { quant: Some("f32".into()), check: Check::Few, ..CompileOptions::default() };
    driver::compile(&fixture.model, &out, &options, &driver::Silent).expect("an artifact");
    let artifact = Artifact::open(&out, &OpenOptions::default()).expect("opens");
    let mut vectors = artifact.check_vectors().expect("readable").expect("there are some");
    assert_eq!(vectors.head.schedule, [0, 4]);
    for other in [vec![1, 4], vec![0, 1, 4], vec![4], vec![]] {
        vectors.head.schedule = other.clone();
        let report = verify::run(&artifact, &vectors, None).expect("runs");
        assert!(!report.passed(), "{other:?}: {report:?}");
    }
}

/// Code of ABI 1 counts its calls, so a shorter schedule would send it beyond the end.
#[test]
fn an_artifact_that_cannot_pass_over_layers_says_so() {
    let path = repo::root().join("tests/fixtures/artifacts/v1-llama3-onnx.llx");
    let artifact = Artifact::open(&path, &OpenOptions { verify_code: true, check_target: false }).expect("opens");
    let mut vectors = artifact.check_vectors().expect("readable").expect("there are some");
    vectors.head.schedule = vec![0];
    assert!(matches!(verify::run(&artifact, &vectors, None), Err(EngineError::TooOld { abi: 1, needs: 3 })));
}
