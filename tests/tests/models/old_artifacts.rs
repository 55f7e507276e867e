//! Artifacts that earlier versions wrote: each must open, be whole and compute what it did, for ever.

use llamac_runtime::artifact::{Artifact, ArtifactError, OpenOptions};
use llamac_runtime::verify;
use llamac_tests::repo;

#[test]
fn artifacts_of_every_format_version_open_and_compute_what_they_did() {
    let folder = repo::root().join("tests/fixtures/artifacts");
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("the folder").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let artifact = match Artifact::open(&path, &OpenOptions::default()) {
            Err(ArtifactError::WrongTarget { machine, .. }) => {
                eprintln!("skipped: running {} ({machine} cannot)", path.display());
                Artifact::open(&path, &OpenOptions { verify_code: true, check_target: false }).expect("an artifact to look at");
                continue;
            }
            opened => opened.unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        };
        artifact.verify_hashes(|_, _| {}).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let vectors = artifact.check_vectors().expect("readable").expect("check vectors");
        let report = verify::run(&artifact, &vectors, Some(2)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(report.passed() && report.rms < 1e-5, "{}: {report:?}", path.display());
    }
}
