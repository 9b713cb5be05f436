//! Bytes on their way to one socket, in WebSocket frames where it has them.

use std::io::{ErrorKind, Result, Write};

use wigwag::wire::ws::{FrameHeader, Opcode, unmask};

/// The longest header of a frame.
const HEADER: usize = 14;
/// What an empty buffer may keep, in bytes.
const USUAL: usize = 64 * 1024;

/// See the module.
#[derive(Default)]
pub struct Outbox {
    pub bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    /// Begins a frame: what is appended to `bytes` until [`Outbox::finish`] is its payload.
    pub fn begin(&mut self) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        start
    }

    /// Puts the frame's header in place, masks the payload, and closes the gap between them.
    pub fn finish(&mut self, start: usize, mask: Option<[u8; 4]>) {
        let payload = start + HEADER;
        let header = FrameHeader::new(Opcode::Binary, self.bytes.len() - payload, mask);
        unmask(&mut self.bytes[payload..], mask.unwrap_or_default());
        self.bytes[start..start + header.len()].copy_from_slice(&header);
        self.bytes.copy_within(payload.., start + header.len());
        self.bytes.truncate(self.bytes.len() - (HEADER - header.len()));
    }

    /// Writes what the socket takes; the rest waits for the next call.
    pub fn flush(&mut self, mut stream: impl Write) -> Result<()> {
        while self.written < self.bytes.len() {
            match stream.write(&self.bytes[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(USUAL);
        self.written = 0;
        Ok(())
    }
}
