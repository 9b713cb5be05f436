//! An allocator that counts: what this thread has asked for, and the bytes that all of them hold.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicIsize, Ordering},
};

pub struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

static HELD: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends may still allocate when its counter is gone.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        HELD.fetch_add(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.dealloc(block, layout) }
    }
}

/// Bytes that the process holds.
#[allow(dead_code)]
pub fn held() -> isize {
    HELD.load(Ordering::Relaxed)
}

/// Allocations that `act` makes in this thread.
pub fn allocations<T>(act: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.get();
    let done = act();
    (ALLOCATIONS.get() - before, done)
}
