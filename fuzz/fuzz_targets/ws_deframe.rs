//! Any bytes as frames: the first byte chooses the role and the size of the pieces, the rest is the stream. It has to
//! come out of pieces as it comes out whole.

#![no_main]

#[allow(dead_code, reason = "the packets are for the other target")]
#[path = "../../tests/corpus/checks.rs"]
mod checks;

use libfuzzer_sys::fuzz_target;
use wigwag::wire::ws::{Limits, Role};

const LIMITS: Limits = Limits { frame: 1000, message: 2000 };

fuzz_target!(|input: &[u8]| {
    let Some((choice, stream)) = input.split_first() else { return };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let whole = checks::ws([stream], role, LIMITS);
    let pieces = stream.chunks(usize::from(choice >> 1) + 1);
    assert_eq!(checks::ws(pieces, role, LIMITS), whole);
});
