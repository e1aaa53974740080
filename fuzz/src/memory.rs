//! How much memory one input takes.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Does `work`, which may hold so many bytes at a time, beside those that were held before.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let done = work();
    let held = MEMORY.peak_usage().saturating_sub(before);
    assert!(
        held <= bytes,
        "{held} bytes of memory were held at a time; at most {bytes} are allowed"
    );
    done
}
