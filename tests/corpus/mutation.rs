//! Mutations of samples, from a fixed seed, so that a failure fails again.

use std::{
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

/// Files of `corpus/{folder}` whose names end so, in the order of their names, and the lines of its `hostile.txt`.
pub fn samples(folder: &str, ending: &str) -> [Vec<Vec<u8>>; 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let good = files.iter().filter(|file| file.extension().is_some_and(|kind| kind == ending));
    let hostile = std::fs::read(folder.join("hostile.txt")).unwrap();
    [
        good.map(|file| std::fs::read(file).unwrap()).collect(),
        hostile.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect(),
    ]
}

/// Runs `one`, which says whether what it made was accepted, for `WIGWAG_FUZZ_SECONDS` (5 if it is not set).
pub fn fuzz(what: &str, seed: u64, mut one: impl FnMut(&mut Random, u64) -> bool) {
    let seconds = std::env::var("WIGWAG_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (start, budget) = (Instant::now(), Duration::from_secs(seconds.unwrap_or(5)));
    let mut random = Random(seed);
    let (mut runs, mut accepted) = (0u64, 0u64);
    while start.elapsed() < budget {
        for _ in 0..100 {
            accepted += u64::from(one(&mut random, runs));
            runs += 1;
        }
    }
    println!("{runs} {what}, {accepted} accepted");
    assert!(budget.is_zero() || accepted > runs / 100, "mutations that leave nothing whole test little");
}

/// What one step of a mutation may do.
pub struct Steps<'a> {
    /// What it may put in.
    pub words: &'a [&'a str],
    /// The longest piece that it takes from another sample.
    pub longest: usize,
}

impl Steps<'_> {
    /// One step, within the first `near` bytes of `text`; `other` is whence pieces come.
    pub fn step(&self, random: &mut Random, text: &mut Vec<u8>, near: usize, other: &[u8]) {
        let at = random.range(near, 12);
        let word = |random: &mut Random| self.words[random.below(self.words.len())].bytes();
        match random.below(8) {
            0 if at.start < text.len() => text[at.start] ^= 1 << random.below(8),
            1 if at.start < text.len() => text[at.start] = random.below(256) as u8,
            2 => drop(text.drain(at)),
            3 => {
                let again = text[at.clone()].to_vec();
                text.splice(at.end..at.end, again);
            }
            4 => {
                let piece = random.range(other.len(), self.longest);
                text.splice(at, other[piece].iter().copied());
            }
            5 => text.truncate(at.end),
            6 => drop(text.splice(at.start..at.start, word(random))),
            _ => drop(text.splice(at, word(random))),
        }
    }
}

/// splitmix64
pub struct Random(u64);

impl Random {
    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }

    pub fn range(&mut self, len: usize, longest: usize) -> Range<usize> {
        let start = self.below(len + 1);
        start..start + self.below((len - start).min(longest) + 1)
    }
}
