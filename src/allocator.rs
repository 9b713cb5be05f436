//! The allocator of the command (the library leaves that choice to its application): jemalloc, which gives back to the
//! system within seconds what is not used any more. glibc keeps what a crowd needed for as long as something small lies
//! above it. docs/performance.md has the figures.

use tikv_jemalloc_ctl::{Access, AsName};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Free pages are kept for this long, in case they are needed again.
const DECAY_MS: isize = 1000;

/// Has a thread of the allocator's own give pages back, also while nobody allocates. Call before other threads begin.
pub fn give_back_soon() {
    // Where a system has no such thread, memory comes back when something is allocated.
    let _ = b"background_thread\0".name().write(true);
    // The arena that this thread has already, and those to come; refused values leave jemalloc's own.
    let _ = b"arena.0.dirty_decay_ms\0".name().write(DECAY_MS);
    let _ = b"arenas.dirty_decay_ms\0".name().write(DECAY_MS);
}
