//! Any bytes as a token, as they are and signed with the server's secret.

#![no_main]

#[path = "../../tests/corpus/token_oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|token: &[u8]| {
    oracle::agree(token);
});
