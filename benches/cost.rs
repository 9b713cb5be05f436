//! What `tests/cost.rs` runs under callgrind: one workload, whose broker works inside of [`wigwag_works`] only.
//!
//!     cost WORKLOAD STEPS
//!
//! prints how many deliveries or connections the steps were that were counted.

mod support;
#[path = "support/workloads.rs"]
mod workloads;

use support::World;
use workloads::{NAMES, Workload};

/// Counted by its name.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn wigwag_works(world: &World) {
    world.settle();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, steps] = arguments.as_slice() else {
        // `cargo bench` runs every benchmark without arguments of its own.
        return eprintln!("cost WORKLOAD STEPS, run by tests/cost.rs; workloads: {}", NAMES.join(", "));
    };
    let Some(mut workload) = Workload::new(name) else { return eprintln!("workloads: {}", NAMES.join(", ")) };
    let steps: usize = steps.parse().unwrap_or(0);
    workload.warm_up();
    let counted: usize = (0..steps).map(|_| workload.step(wigwag_works)).sum();
    println!("{counted}");
}
