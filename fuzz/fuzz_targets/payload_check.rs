//! Any bytes as a payload, of every kind, with and without a sender.

#![no_main]

#[path = "../../tests/corpus/payload_oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    oracle::agree(payload);
});
