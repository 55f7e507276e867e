//! Every target that this CPU can run computes the model, and says the same bits however it is fed; the others compile.

use crate::accuracy::{demand_f32_logits, rows};
use crate::artifact_for;
use llamac::target::Target;
use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_tests::fixture;
use llamac_tests::model::Runner;
use llamac_tests::numbers::{bits, divergence, median};

#[test]
fn every_target_that_runs_here_computes_the_references_logits_and_the_others_compile() {
    let fixture = fixture::load("llama3-untied");
    let prompts = [fixture.prompt("chat"), fixture.prompt("text2")];
    let most = fixture.noise("bf16_vs_f32_median_kl");
    let dotted = Target::parse("x86_64-v4+avx512bf16").expect("a target");
    for target in Target::all().into_iter().chain([dotted]) {
        let missing = target.missing_here();
        if !missing.is_empty() {
            eprintln!("skipped: running {} (this CPU has no {})", target.name, missing.join(" "));
            for quant in ["f32", "bf16"] {
                let path = artifact_for(&fixture, quant, &target.name);
                let looked_at = Artifact::open(&path, &OpenOptions { verify_code: true, check_target: false }).expect("an artifact");
                assert_eq!(looked_at.meta().target.arch, target.arch.name());
            }
            continue;
        }
        let mut runner = Runner::open(&artifact_for(&fixture, "f32", &target.name), 2);
        demand_f32_logits(&target.name, &mut runner, &prompts);
        let mut runner = Runner::open(&artifact_for(&fixture, "bf16", &target.name), 2);
        for prompt in &prompts {
            let (found, vocab) = rows(&mut runner, prompt);
            let kl = median(found.chunks(vocab).zip(prompt.logits.chunks(vocab)).map(|(f, e)| divergence(f, e)).collect());
            assert!(kl <= 2.0 * most, "{} {}: median KL {kl:.2e}", target.name, prompt.name);
            let single = runner.logits_in_pieces(&prompt.ids, std::iter::repeat(1));
            assert!(bits(&runner.logits(&prompt.ids)) == bits(&single), "{}: token by token", target.name);
        }
    }
}
