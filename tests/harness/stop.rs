use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag that stops a test's threads, even if the test fails. Create it inside of the scope that waits for the threads: otherwise a
/// failure waits for them without end.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
