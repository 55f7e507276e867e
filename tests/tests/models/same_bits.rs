//! The determinism contract: the logits of a row have the same bits however its sequence is fed, on any number of threads, in any company.

use crate::{artifact_for, run};
use llamac_tests::fixture::{self, Fixture};
use llamac_tests::model::Runner;
use llamac_tests::numbers::bits;

/// The longest prompt of a fixture and its logits, fed in one call.
fn long(fixture: &Fixture, quant: &str) -> (Vec<u32>, Vec<u32>) {
    let ids = fixture.prompt("long").ids;
    let expected = bits(&run(fixture, quant).logits(&ids));
    (ids, expected)
}

/// Lengths from 1 to 40 in an order that a seed decides; mostly short ones.
fn lengths(mut seed: u64) -> impl Iterator<Item = usize> {
    std::iter::repeat_with(move || {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let draw = (seed >> 33) as usize;
        1 + (draw % 40) * (draw / 64 % 40) / 40
    })
}

/// Runs a test on every fixture in every kind of weight format.
fn everywhere(test: impl Fn(&Fixture, &str)) {
    for fixture in fixture::all() {
        ["f32", "bf16", "int8", "int4 kv8"].iter().for_each(|quant| test(&fixture, quant));
    }
}

/// Tokens of the next piece of a prompt, from the number of the piece and the tokens that are left.
type Pieces = fn(usize, usize) -> usize;

#[test]
fn a_prompt_in_one_call_token_by_token_and_in_random_pieces_gives_the_same_bits() {
    everywhere(|fixture, quant| {
        let (ids, expected) = long(fixture, quant);
        let mut runner = run(fixture, quant);
        let single = runner.logits_in_pieces(&ids, std::iter::repeat(1));
        assert!(bits(&single) == expected, "{} {quant}: token by token", fixture.name);
        for seed in 0..6 {
            let found = runner.logits_in_pieces(&ids, lengths(seed));
            assert!(bits(&found) == expected, "{} {quant}: pieces of {:?}...", fixture.name, lengths(seed).take(9).collect::<Vec<_>>());
        }
    });
}

#[test]
fn one_two_and_three_threads_give_the_same_bits() {
    everywhere(|fixture, quant| {
        let (ids, expected) = long(fixture, quant);
        for threads in [1, 3] {
            let mut runner = Runner::open(&artifact_for(fixture, quant, "native"), threads);
            assert!(bits(&runner.logits(&ids)) == expected, "{} {quant}: {threads} threads", fixture.name);
            // One row at a time splits every region another way.
            let single = runner.logits_in_pieces(&ids[..20], std::iter::repeat(1));
            assert!(bits(&single) == expected[..single.len()], "{} {quant}: {threads} threads, token by token", fixture.name);
        }
    });
}

#[test]
fn a_sequence_in_a_batch_of_seven_gives_the_same_bits_as_alone() {
    everywhere(|fixture, quant| {
        let prompts: Vec<Vec<u32>> = fixture.prompts().into_iter().map(|p| p.ids).collect();
        let sequences: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).cycle().take(7).collect();
        let mut runner = run(fixture, quant);
        let alone: Vec<Vec<u32>> = sequences.iter().map(|ids| bits(&runner.logits(ids))).collect();
        // All at once; ragged pieces with pauses; one token of each.
        let feeds: [(&str, Pieces); 3] =
            [("whole", |_, _| usize::MAX / 2), ("ragged", |round, i| (round * 7 + i * 5) % 23), ("single", |_, _| 1)];
        for (how, feed) in feeds {
            for (i, found) in runner.logits_side_by_side(&sequences, feed).iter().enumerate() {
                assert!(bits(found) == alone[i], "{} {quant}: sequence {i}, {how}", fixture.name);
            }
        }
    });
}

#[test]
fn a_context_of_many_pages_gives_the_same_bits_in_pieces() {
    let fixture = fixture::load("tiny-llama3");
    let ids: Vec<u32> = fixture.ids("ppl.input_ids").into_iter().take(1000).collect();
    for quant in ["f32", "bf16", "int8 kv8", "q4g128"] {
        let mut runner = run(&fixture, quant);
        let whole = runner.logits(&ids);
        let pieces = runner.logits_in_pieces(&ids, lengths(11).map(|n| 3 * n));
        assert!(bits(&whole) == bits(&pieces), "{quant}");
    }
}

#[test]
fn threads_that_share_the_keys_of_a_row_give_the_same_bits() {
    let fixture = fixture::load("tiny-llama3");
    let ids: Vec<u32> = fixture.ids("ppl.input_ids").into_iter().take(1000).collect();
    for quant in ["f32", "bf16", "int8 kv8"] {
        let whole = bits(&run(&fixture, quant).logits(&ids));
        // Two heads: three and five threads take parts of their keys, in one row and in a batch.
        for threads in [3, 5] {
            let mut runner = Runner::open(&artifact_for(&fixture, quant, "native"), threads);
            let single = runner.logits_in_pieces(&ids, [960].into_iter().chain(std::iter::repeat(1)));
            assert!(bits(&single) == whole, "{quant}, {threads} threads");
        }
        let mut runner = Runner::open(&artifact_for(&fixture, quant, "native"), 7);
        let pair = runner.logits_side_by_side(&[&ids, &ids[..700]], |round, i| if round == 0 { 970 - 300 * i } else { 1 });
        assert!(
            bits(&pair[0]) == whole && pair[1].len() * 10 == whole.len() * 7 && bits(&pair[1]) == whole[..pair[1].len()],
            "{quant}, two"
        );
    }
}
