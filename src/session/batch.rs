//! Many packets, one system call: what goes to one connection next, laid out for a single vectored write.
//!
//! Headers and small payloads are written into one buffer of the thread, larger payloads are referred to where they
//! lie, and over WebSocket the whole batch is one binary frame, since packets may share a frame [MQTT-6.0.0-2].

#[cfg(test)]
mod tests;

use std::{io::IoSlice, sync::Arc, time::Instant};

use super::outbound::Delivery;
use crate::{hub::Message, policy::ClassTag, wire::ws::FrameHeader};

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
    /// Of what, and when it was received, for each message that went into batches since somebody asked.
    handed: Vec<(ClassTag, Instant)>,
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

    /// Notes that a message goes out in this batch, if its way here is of interest.
    pub fn note(&mut self, delivery: &Delivery) {
        self.handed
            .extend(delivery.message.class().filter(|_| delivery.live).map(|of| (of, delivery.message.received())));
    }

    /// Takes the notes.
    pub fn take_notes(&mut self) -> impl Iterator<Item = (ClassTag, Instant)> {
        self.handed.drain(..)
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
        let (mut count, mut start) = (0, self.frame_start);
        for (at, message) in &self.shared {
            slices[count] = IoSlice::new(&self.head[start..*at]);
            slices[count + 1] = IoSlice::new(message.payload());
            (count, start) = (count + 2, *at);
        }
        slices[count] = IoSlice::new(&self.head[start..]);
        let slices = &slices[..=count];
        let written = write(slices)?;
        let mut skip = written;
        for slice in slices {
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
}
