//! Ctrl-C in a chat: it stops the answer, not the program. Between answers, or a second time, it ends the program as usual.

use std::sync::atomic::{AtomicBool, Ordering};

/// An answer is being written: the next Ctrl-C is for it.
static ANSWERING: AtomicBool = AtomicBool::new(false);
/// Ctrl-C came while an answer was being written.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Exit code of a program that Ctrl-C ended, as shells give it.
const EXIT_INTERRUPTED: i32 = 130;

extern "C" fn on_interrupt(_signal: libc::c_int) {
    if !ANSWERING.swap(false, Ordering::SeqCst) {
        // SAFETY: one of the few calls that a signal handler may make.
        unsafe { libc::_exit(EXIT_INTERRUPTED) };
    }
    STOPPED.store(true, Ordering::SeqCst);
}

/// From now on Ctrl-C stops answers.
pub(super) fn install() {
    let handler = on_interrupt as extern "C" fn(libc::c_int);
    // SAFETY: the handler touches two atomics and calls `_exit`: nothing that is unsafe in a signal handler.
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
}

/// An answer begins.
pub(super) fn begin() {
    STOPPED.store(false, Ordering::SeqCst);
    ANSWERING.store(true, Ordering::SeqCst);
}

/// The answer has ended.
pub(super) fn end() {
    ANSWERING.store(false, Ordering::SeqCst);
}

/// Whether the answer is to stop.
pub(super) fn stopped() -> bool {
    STOPPED.load(Ordering::SeqCst)
}
