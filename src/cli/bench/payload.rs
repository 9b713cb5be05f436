//! What is said in a call: JSON of the sizes that browsers make, tagged with its sender, its place in the sender's
//! order, and when it was due.

use std::time::Duration;

/// Bytes of an offer or answer, and of a candidate.
const DESCRIPTION: usize = 3 * 1024;
const CANDIDATE: usize = 200;

/// A user name that fits the template.
pub const USER: usize = 8;

const HEAD: &[u8] = br#"{"username":"________","seq":"__________","at":"________________","#;
const USER_AT: usize = 13;
const SEQ_AT: usize = USER_AT + USER + 9;
const SEQ: usize = 10;
const AT_AT: usize = SEQ_AT + SEQ + 8;
const AT: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Offer,
    Answer,
    Candidate,
}

/// What a payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    pub user: &'a [u8],
    pub seq: u64,
    /// Since the run began.
    pub at: Duration,
}

/// Payloads to be filled in.
pub struct Payloads {
    offer: Vec<u8>,
    answer: Vec<u8>,
    candidate: Vec<u8>,
}

impl Payloads {
    pub fn new() -> Self {
        const CANDIDATE_LINE: &str = "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx";
        Self {
            offer: template(r#""offer":{"type":"offer","sdp":""#, "a=rtpmap:96 VP8/90000\\r\\n", DESCRIPTION),
            answer: template(r#""answer":{"type":"answer","sdp":""#, "a=rtcp-fb:96 nack pli\\r\\n", DESCRIPTION),
            candidate: template(r#""candidate":{"candidate":""#, CANDIDATE_LINE, CANDIDATE),
        }
    }

    /// A payload of `user`, whose name has [`USER`] bytes.
    pub fn fill(&mut self, kind: Kind, user: &str, seq: u64, at: Duration) -> &[u8] {
        let payload = match kind {
            Kind::Offer => &mut self.offer,
            Kind::Answer => &mut self.answer,
            Kind::Candidate => &mut self.candidate,
        };
        payload[USER_AT..USER_AT + USER].copy_from_slice(user.as_bytes());
        put_digits(&mut payload[SEQ_AT..SEQ_AT + SEQ], seq);
        put_digits(&mut payload[AT_AT..AT_AT + AT], at.as_nanos() as u64);
        payload
    }
}

/// What a payload that [`Payloads::fill`] wrote says; `None` for somebody else's.
pub fn parse(payload: &[u8]) -> Option<Said<'_>> {
    if !payload.starts_with(&HEAD[..USER_AT]) {
        return None;
    }
    Some(Said {
        user: payload.get(USER_AT..USER_AT + USER)?,
        seq: digits(payload.get(SEQ_AT..SEQ_AT + SEQ)?)?,
        at: Duration::from_nanos(digits(payload.get(AT_AT..AT_AT + AT)?)?),
    })
}

/// `filler` is repeated up to `length` bytes, and cut where that ends.
fn template(open: &str, filler: &str, length: usize) -> Vec<u8> {
    const CLOSE: &[u8] = br#""}}"#;
    let mut payload = [HEAD, open.as_bytes()].concat();
    // Cut between two bytes of an escape, the filler would swallow the quote that ends it.
    let room = length - CLOSE.len() - payload.len();
    let whole = room / filler.len() * filler.len();
    payload.extend(filler.bytes().cycle().take(whole));
    payload.resize(length - CLOSE.len(), b' ');
    payload.extend_from_slice(CLOSE);
    payload
}

fn put_digits(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn digits(field: &[u8]) -> Option<u64> {
    field.iter().try_fold(0u64, |value, byte| {
        byte.is_ascii_digit().then(|| value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_read_back() {
        let mut payloads = Payloads::new();
        for (kind, length) in [(Kind::Offer, 3072), (Kind::Answer, 3072), (Kind::Candidate, 200)] {
            let at = Duration::from_nanos(1_234_567_890_123);
            let payload = payloads.fill(kind, "a-000042", 77, at);
            assert_eq!(payload.len(), length);
            assert_eq!(parse(payload), Some(Said { user: b"a-000042", seq: 77, at }));
            let json: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
            assert_eq!(json["username"], "a-000042");
        }
        assert_eq!(parse(b"{}"), None);
        assert_eq!(parse(&Payloads::new().offer), None);
    }
}
