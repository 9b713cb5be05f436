//! Any bytes as a control packet: the first byte chooses the version, the rest is the packet.

#![no_main]

#[allow(dead_code, reason = "the frames are for the other target")]
#[path = "../../tests/corpus/checks.rs"]
mod checks;

use libfuzzer_sys::fuzz_target;
use wigwag::wire::mqtt::Version;

fuzz_target!(|input: &[u8]| {
    let Some((version, bytes)) = input.split_first() else { return };
    let version = if version & 1 == 0 { Version::V311 } else { Version::V5 };
    let _ = checks::mqtt(bytes, version, 1_000_000);
});
