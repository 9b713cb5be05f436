//! Any mix of headers and payloads, over streams that take any part of them.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    session::testing::message,
    wire::ws::{self, Opcode},
};

#[derive(Debug, Clone)]
enum Piece {
    Head(usize),
    Payload(usize),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        (1..40usize).prop_map(Piece::Head),
        (0..40usize).prop_map(Piece::Payload),
        (COPIED - 1..COPIED + 3).prop_map(Piece::Payload),
        (COPIED..4 * COPIED).prop_map(Piece::Payload),
    ];
    vec(piece, 0..100)
}

/// Lays the pieces out, as many as fit, and says what the peer is to receive.
fn laid_out(pieces: &[Piece], websocket: bool) -> (Batch, Vec<u8>) {
    let (mut batch, mut packets) = (Batch::default(), Vec::new());
    batch.start(websocket);
    for (index, piece) in pieces.iter().enumerate() {
        if batch.full() {
            break;
        }
        match *piece {
            Piece::Head(length) => {
                let bytes = vec![index as u8; length];
                batch.head().extend_from_slice(&bytes);
                packets.extend_from_slice(&bytes);
            }
            Piece::Payload(length) => {
                let payload = vec![!index as u8; length];
                batch.payload(&message("topic", &payload));
                packets.extend_from_slice(&payload);
            }
        }
    }
    assert_eq!((batch.len(), batch.is_empty()), (packets.len(), packets.is_empty()));
    batch.seal();
    let mut whole = Vec::new();
    match websocket {
        true => ws::frame(&mut whole, Opcode::Binary, &packets, None), // [MQTT-6.0.0-2]
        false => whole = packets,
    }
    (batch, whole)
}

proptest! {
    #[test]
    fn what_was_written_and_what_is_left_are_the_whole(
        pieces in pieces(),
        websocket: bool,
        part in 0.0..1.1f64,
        waiting in vec(any::<u8>(), 0..3),
    ) {
        let (batch, whole) = laid_out(&pieces, websocket);
        let taken = whole.len().min((whole.len() as f64 * part) as usize);
        let (mut written, mut rest) = (Vec::new(), waiting.clone());
        let result = batch.write_to(&mut rest, |slices| {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
            written.extend(bytes.take(taken));
            Ok(taken)
        });
        prop_assert_eq!(result.unwrap(), taken);
        prop_assert_eq!([&written[..], &rest[waiting.len()..]].concat(), whole);
        prop_assert_eq!(&rest[..waiting.len()], &waiting[..], "what waited before stays in front");
    }
}

#[test]
fn it_is_full_before_it_runs_out_of_slices_or_of_bytes() {
    let pieces = |piece: Piece| vec![piece; 2 * BYTES];
    for (piece, most) in [
        (Piece::Payload(COPIED + 1), (SLICES / 2 - 1) * (COPIED + 1)),
        (Piece::Payload(1), BYTES),
        (Piece::Head(1), BYTES),
        (Piece::Payload(4 * BYTES), 4 * BYTES),
    ] {
        let (batch, whole) = laid_out(&pieces(piece), false);
        assert!(batch.full());
        assert_eq!(whole.len(), most);
    }
}

#[test]
fn small_payloads_are_copied_and_large_ones_are_referred_to_until_it_is_cleared() {
    let (small, large) = (message("t", &[1; COPIED]), message("t", &[2; COPIED + 1]));
    let mut batch = Batch::default();
    batch.start(false);
    batch.payload(&small);
    batch.payload(&large);
    assert_eq!((Arc::strong_count(&small), Arc::strong_count(&large)), (1, 2));
    batch.clear();
    assert_eq!(Arc::strong_count(&large), 1, "nothing is pinned between uses");
}

#[test]
fn a_buffer_that_grew_shrinks_again() {
    let mut batch = Batch::default();
    batch.start(false);
    batch.head().resize(100 * BYTES, 0);
    batch.clear();
    assert!(batch.head.capacity() <= 4 * BYTES);
}

#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let (batch, _) = laid_out(&[Piece::Head(5)], true);
    let mut rest = Vec::new();
    let failed = batch.write_to(&mut rest, |_| Err(std::io::ErrorKind::BrokenPipe.into()));
    assert!(failed.is_err() && rest.is_empty());
}
