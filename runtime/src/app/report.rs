//! What a run says about itself at its end: tokens per second, bytes per second, share of the memory roof, times of the start. One line, or
//! a table with `--timings`.

use super::clock::Clock;
use super::stream::Outcome;
use crate::pages::Mapped;
use crate::session::{End, Stats};
use std::fmt::Write;

/// Reading faster than this share of the roof is not reading memory; up to it, the roof was measured in a worse moment.
const FROM_CACHE: f64 = 1.3;

/// One line: what the text cost. `roof`: bytes per second that this machine reads at best, if that was measured.
pub(super) fn cost(stats: &Stats, roof: Option<f64>) -> String {
    let mut line = format!("prompt {}", tokens(stats.prompt_tokens));
    if stats.reused_tokens > 0 {
        let _ = write!(line, " ({} from the cache)", stats.reused_tokens);
    }
    let _ = write!(line, " at {} tok/s; generated {}", rate(stats.prefill_rate()), tokens(stats.generated_tokens));
    if stats.decode_steps > 0 {
        let read = stats.bytes_per_second();
        let _ = write!(line, " at {} tok/s, {} GB/s", rate(stats.decode_rate()), rate(read / 1e9));
        if let Some(roof) = roof.filter(|r| *r > 0.0) {
            let _ = match read / roof {
                share if share < FROM_CACHE => {
                    write!(line, " = {:.0} % of the {} GB/s that this machine reads", share * 100.0, rate(roof / 1e9))
                }
                _ => write!(line, ", more than the {} GB/s that memory gives: the weights lie in the cache", rate(roof / 1e9)),
            };
        }
    }
    line
}

/// Why the text ended, where that is not what a reader expects.
pub(super) fn ended(outcome: &Outcome) -> Option<String> {
    match &outcome.end {
        Some(End::Eos(_) | End::Stop(_)) => None,
        Some(End::MaxTokens) => Some("ended after the most tokens asked for (-n)".to_owned()),
        Some(End::ContextFull) => Some("ended because the context is full; compile with a larger --max-context".to_owned()),
        None => Some("stopped".to_owned()),
    }
}

/// The start, step by step.
pub(super) fn start(clock: &Clock) -> String {
    let mut text = "milliseconds from the start of the process (its CPU time before main, then the clock):".to_owned();
    let mut marks = clock.marks().to_vec();
    marks.sort_by_key(|(_, at)| *at);
    for (name, at) in marks {
        let _ = write!(text, "\n  {:>9.2}  {name}", at.as_secs_f64() * 1e3);
    }
    text
}

/// Less than this lies in caches anyhow.
const WORTH_COPYING: u64 = 256 << 20;

/// How the artifact is mapped: bytes in memory, and of these in huge pages.
pub(super) fn pages(Mapped { resident, huge, .. }: Mapped) -> String {
    let advice = if resident > WORTH_COPYING && huge * 2 < resident { "; --load huge may decode faster" } else { "" };
    format!("mapped from the artifact: {} MB, {} MB of it in huge pages{advice}", resident / 1_000_000, huge / 1_000_000)
}

fn tokens(n: usize) -> String {
    format!("{n} token{}", if n == 1 { "" } else { "s" })
}

/// Three significant digits.
fn rate(x: f64) -> String {
    match x {
        x if x >= 99.95 => format!("{x:.0}"),
        x if x >= 9.995 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_says_what_was_measured_and_nothing_else() {
        let mut stats =
            Stats { prompt_tokens: 30, reused_tokens: 10, generated_tokens: 1, prefill: Duration::from_millis(100), ..Stats::default() };
        assert_eq!(cost(&stats, Some(40e9)), "prompt 30 tokens (10 from the cache) at 200 tok/s; generated 1 token");
        stats = Stats {
            reused_tokens: 0,
            generated_tokens: 5,
            decode_steps: 4,
            decode: Duration::from_secs(1),
            decode_bytes: 30_000_000_000,
            ..stats
        };
        let line = "prompt 30 tokens at 300 tok/s; generated 5 tokens at 4.00 tok/s, 30.0 GB/s";
        assert_eq!(cost(&stats, None), line);
        assert_eq!(cost(&stats, Some(40e9)), format!("{line} = 75 % of the 40.0 GB/s that this machine reads"));
        assert_eq!(cost(&stats, Some(10e9)), format!("{line}, more than the 10.0 GB/s that memory gives: the weights lie in the cache"));
    }
}
