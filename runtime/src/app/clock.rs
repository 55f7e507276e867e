//! Times of a start, from the start of the process. Taking them only; the report is in `report`.

use std::time::{Duration, Instant};

/// Marks along the way from the start of the process to the first token.
#[derive(Debug, Clone)]
pub struct Clock {
    main: Instant,
    /// What the process had computed when `main` began: loading and linking itself.
    before: Duration,
    marks: Vec<(&'static str, Duration)>,
}

impl Clock {
    /// To be called first in `main`. The system keeps the start of a process in hundredths of a second only; its CPU time is exact, and
    /// before `main` a process does little but compute.
    pub fn start() -> Clock {
        let before = cpu_time();
        Clock { main: Instant::now(), before, marks: vec![("main", before)] }
    }

    /// Notes that something is done now.
    pub fn mark(&mut self, what: &'static str) {
        self.mark_at(what, Instant::now());
    }

    /// Notes that something was done at a time; only the first time counts.
    pub fn mark_at(&mut self, what: &'static str, at: Instant) {
        if self.marks.iter().all(|(name, _)| *name != what) {
            self.marks.push((what, self.before + at.saturating_duration_since(self.main)));
        }
    }

    /// Names and times from the start of the process, in the order of the calls.
    pub fn marks(&self) -> &[(&'static str, Duration)] {
        &self.marks
    }
}

/// CPU time of this process so far; zero where the system does not tell.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the call has no other effect.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    if done != 0 {
        return Duration::ZERO;
    }
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_from_the_start_of_the_process_and_the_first_of_a_name_counts() {
        let mut clock = Clock::start();
        assert!(clock.before > Duration::ZERO);
        clock.mark("open");
        let open = clock.marks()[1].1;
        clock.mark("open");
        clock.mark_at("early", clock.main - Duration::from_secs(1));
        assert_eq!(clock.marks(), [("main", clock.before), ("open", open), ("early", clock.before)]);
        assert!(open >= clock.before);
    }
}
