//! Many packets, one system call: what goes to one connection next, laid out for a single vectored write.
//!
//! Headers and small payloads are written into one buffer of the thread, larger payloads are referred to where they
//! lie, and over WebSocket the whole batch is one binary frame, since packets may share a frame [MQTT-6.0.0-2].

#[cfg(test)]
mod tests;

use std::{io::IoSlice, ops::Range, sync::Arc};

use crate::{hub::Message, wire::ws::FrameHeader};

/// Payloads up to here are cheaper to copy than to hand to the kernel as a slice of their own.
const COPIED: usize = 1024;
/// Most slices of one write, and about the most bytes: what the socket refuses of it has to be kept.
const SLICES: usize = 64;
const BYTES: usize = 64 * 1024;

/// Room in front of the first byte for the longest header of a server's frame (RFC 6455 5.2).
const FRAME_HEADER: usize = 10;

/// See the module. Reused by its thread; empty between uses.
#[derive(Default)]
pub struct Batch {
    head: Vec<u8>,
    /// Payloads that follow `head` up to the index given.
    shared: Vec<(usize, Arc<Message>)>,
    shared_bytes: usize,
    websocket: bool,
    frame_start: usize,
}

impl Batch {
    pub fn start(&mut self, websocket: bool) {
        self.head.clear();
        self.head.resize(FRAME_HEADER, 0);
        self.shared.clear();
        self.shared_bytes = 0;
        self.websocket = websocket;
        self.frame_start = FRAME_HEADER;
    }

    /// Where to append encoded packets.
    pub fn head(&mut self) -> &mut Vec<u8> {
        &mut self.head
    }

    /// Appends a message's payload behind what `head` holds now.
    pub fn payload(&mut self, message: &Arc<Message>) {
        let payload = message.payload();
        if payload.len() <= COPIED {
            self.head.extend_from_slice(payload);
        } else {
            self.shared_bytes += payload.len();
            self.shared.push((self.head.len(), Arc::clone(message)));
        }
    }

    /// Whether another packet had better wait for the next write.
    pub fn full(&self) -> bool {
        self.len() >= BYTES || 2 * self.shared.len() + 2 >= SLICES
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// MQTT bytes, without the frame header.
    fn len(&self) -> usize {
        self.head.len() - FRAME_HEADER + self.shared_bytes
    }

    /// Puts the frame header in place; nothing may be appended after.
    pub fn seal(&mut self) {
        if self.websocket {
            let header = FrameHeader::binary(self.len());
            self.frame_start = FRAME_HEADER - header.len();
            self.head[self.frame_start..FRAME_HEADER].copy_from_slice(&header);
        }
    }

    /// Calls `write` with everything and, if it took less, appends what is left to `rest`. Returns what `write` did.
    pub fn write_to(
        &self,
        rest: &mut Vec<u8>,
        write: impl FnOnce(&[IoSlice<'_>]) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for slice in self.slices() {
            slices[count] = IoSlice::new(slice);
            count += 1;
        }
        let written = write(&slices[..count])?;
        let mut skip = written;
        for slice in self.slices() {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            rest.extend_from_slice(&slice[skipped..]);
        }
        Ok(written)
    }

    /// Drops the messages that were referred to and gives back a buffer that grew beyond its usual size.
    pub fn clear(&mut self) {
        self.shared.clear();
        self.head.clear();
        self.head.shrink_to(4 * BYTES);
    }

    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let range = |index: usize| -> Range<usize> {
            let start = if index == 0 { self.frame_start } else { self.shared[index - 1].0 };
            let end = self.shared.get(index).map_or(self.head.len(), |(at, _)| *at);
            start..end
        };
        (0..=self.shared.len()).flat_map(move |index| {
            let payload = self.shared.get(index).map(|(_, message)| message.payload());
            [&self.head[range(index)], payload.unwrap_or(&[])]
        })
    }
}
