//! Has cargo compile the pages in again when they have changed.
//!
//! It notices by itself when a file changes that the binary contains; what it would miss is the first one, built after
//! a binary without pages. Only a release contains them: what is built for development reads them when it is asked.

use std::path::Path;

fn main() {
    let release = std::env::var_os("PROFILE").is_some_and(|profile| profile == "release");
    let watched = ["web/dist", "web"].into_iter().find(|path| release && Path::new(path).exists());
    println!("cargo::rerun-if-changed={}", watched.unwrap_or("build.rs"));
}
