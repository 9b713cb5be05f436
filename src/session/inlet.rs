//! The receiving side of one connection: bytes from the stream, WebSocket frames taken off, packet after packet out.
//!
//! A connection owns no read buffer. Bytes are read into a buffer of the thread and handled there; only an incomplete
//! packet is kept, in memory that grows by the bytes that came and never by a length that was announced; and, where
//! the handler stops before the end, what was read behind that.

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    io,
    task::{Context, Poll},
    time::Duration,
};

use super::{Close, ReadHalf};
use crate::wire::{
    mqtt::{DecodeError, Packet, Version, decode},
    ws::{self, Deframer, Event, Role},
};

/// The close code of an end that is nobody's fault (RFC 6455 7.4.1).
pub const NORMAL_CLOSE: u16 = 1000;
/// Bytes read at once, and about the most that is handled before other connections of the thread have their turn.
const BUFFER: usize = 64 * 1024;
/// An incomplete packet up to here is moved in front of what comes, a longer one has it appended.
const MOVED: usize = BUFFER / 2;

/// See the module.
pub struct Inlet {
    half: ReadHalf,
    frames: Option<Box<Frames>>,
    /// MQTT bytes of a packet that is not complete, or what a handler has left for later.
    tail: Vec<u8>,
    /// The handler has stopped: the next one goes on in `tail` before anything is read.
    stopped: bool,
}

/// The WebSocket around the packets.
struct Frames {
    deframer: Deframer,
    /// How the frames ended, behind packets that are still to be handled.
    end: Option<FrameEnd>,
}

/// Bounds of what is read.
#[derive(Debug, Clone, Copy)]
pub struct InletLimits {
    /// Bytes of the largest packet.
    pub packet: usize,
    /// Of WebSocket frames.
    pub frames: ws::Limits,
}

/// What a read came to.
#[derive(Debug)]
pub enum Read {
    /// Bytes were handled.
    More,
    /// The peer ended the stream.
    End,
}

/// Why nothing more is read.
#[derive(Debug)]
pub enum ReadError {
    Io(io::Error),
    /// Not MQTT.
    Packet(DecodeError),
    /// A close frame, or what is not WebSocket: what the close frame in answer says (RFC 6455 7.4.1).
    Frame(FrameEnd),
    /// A packet was handled, and that was the end.
    Handled(Stop),
}

/// How the frames of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEnd {
    /// Close code.
    pub code: u16,
    pub what: &'static str,
}

/// A handler's word that no further packet is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The client said goodbye.
    Goodbye,
    /// The server ends the connection.
    Close(Close),
    /// The session is another connection's by now.
    Replaced,
    /// The first packet has been taken; the rest is for somebody else.
    Taken,
    /// That is enough for one turn; the rest is for the next.
    Pause,
    /// This packet is not to be handled before so much time has passed, nor what is behind it.
    Later(Duration),
}

impl From<Close> for Stop {
    fn from(close: Close) -> Self {
        Self::Close(close)
    }
}

/// What a reader does with what it reads.
pub trait Handler {
    /// The version in which packets are read.
    fn version(&self) -> Version;
    /// The next packet and the bytes it was read from.
    fn packet(&mut self, packet: Packet<'_>, bytes: &[u8]) -> Result<(), Stop>;
    /// Bytes that are no packet.
    fn malformed(&mut self, _bytes: &[u8]) {}
    /// A WebSocket ping has come.
    fn ping(&mut self, payload: &ws::ControlPayload);
    /// A WebSocket pong has come.
    fn pong(&mut self) {}
}

impl Inlet {
    pub fn new(half: ReadHalf, websocket: bool) -> Self {
        let frames = || Box::new(Frames { deframer: Deframer::new(Role::Server), end: None });
        Self { half, frames: websocket.then(frames), tail: Vec::new(), stopped: false }
    }

    /// Reads once and hands every complete packet to `handler`; or, where the last one stopped, what that has left.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        limits: InletLimits,
        handler: &mut impl Handler,
    ) -> Poll<Result<Read, ReadError>> {
        if self.stopped {
            return Poll::Ready(self.feed(&[], limits, handler).map(|()| Read::More));
        }
        thread_local!(static SHARED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        SHARED.with_borrow_mut(|buffer| {
            buffer.resize(BUFFER, 0);
            let kept = self.tail.len();
            let moved = kept <= MOVED;
            let read = match std::task::ready!(self.half.poll_read(cx, &mut buffer[if moved { kept } else { 0 }..])) {
                Err(error) => return Poll::Ready(Err(ReadError::Io(error))),
                Ok(0) => return Poll::Ready(Ok(Read::End)),
                Ok(read) => read,
            };
            if moved {
                buffer[..kept].copy_from_slice(&self.tail);
                let left = self.handle(&mut buffer[..kept + read], kept, limits, handler)?;
                keep(&mut self.tail, &buffer[left]);
            } else {
                self.handle_behind_tail(&buffer[..read], limits, handler)?;
            }
            Poll::Ready(Ok(Read::More))
        })
    }

    /// Handles what has come behind a long incomplete packet, in that one's memory.
    fn handle_behind_tail(
        &mut self,
        read: &[u8],
        limits: InletLimits,
        handler: &mut impl Handler,
    ) -> Result<(), ReadError> {
        let mut buffer = std::mem::take(&mut self.tail);
        let kept = buffer.len();
        buffer.extend_from_slice(read);
        let left = self.handle(&mut buffer, kept, limits, handler)?;
        if left.start == 0 {
            buffer.truncate(left.end);
            self.tail = buffer;
        } else {
            keep(&mut self.tail, &buffer[left]);
        }
        Ok(())
    }

    /// Bytes that were read by somebody else before this connection was one: those behind an HTTP upgrade.
    pub fn feed(&mut self, bytes: &[u8], limits: InletLimits, handler: &mut impl Handler) -> Result<(), ReadError> {
        self.stopped = false;
        let mut buffer = std::mem::take(&mut self.tail);
        let kept = buffer.len();
        buffer.extend_from_slice(bytes);
        let left = self.handle(&mut buffer, kept, limits, handler)?;
        keep(&mut self.tail, &buffer[left]);
        Ok(())
    }

    /// Reads and forgets until the peer ends the stream, for a moment at most.
    pub async fn linger(mut self) {
        const MOMENT: std::time::Duration = std::time::Duration::from_secs(1);
        const MOST: usize = 4 * 1024 * 1024;
        let mut read = 0;
        let drain = std::future::poll_fn(|cx| {
            let mut forgotten = [0; 1024];
            loop {
                match std::task::ready!(self.half.poll_read(cx, &mut forgotten)) {
                    Ok(1..) if read < MOST => read += forgotten.len(),
                    _ => return Poll::Ready(()),
                }
            }
        });
        // The time is up or the peer is gone: either way nobody reads any more.
        let _ = tokio::time::timeout(MOMENT, drain).await;
    }

    /// Handles `buffer`, in which what follows `kept` bytes of MQTT has just come from the stream. Returns where an
    /// incomplete packet lies.
    fn handle(
        &mut self,
        buffer: &mut [u8],
        kept: usize,
        limits: InletLimits,
        handler: &mut impl Handler,
    ) -> Result<std::ops::Range<usize>, ReadError> {
        let end = match &mut self.frames {
            Some(frames) => frames.take_off(buffer, kept, &limits.frames, handler),
            None => buffer.len(),
        };
        let mut start = 0;
        while start < end {
            let bytes = &buffer[start..end];
            match decode(bytes, handler.version(), limits.packet) {
                Ok(None) => break,
                Ok(Some((packet, length))) => {
                    let handled = handler.packet(packet, &bytes[..length]);
                    if !matches!(handled, Err(Stop::Later(_))) {
                        start += length;
                    }
                    if let Err(stop) = handled {
                        keep(&mut self.tail, &buffer[start..end]);
                        self.stopped = true;
                        return Err(ReadError::Handled(stop));
                    }
                }
                Err(error) => {
                    handler.malformed(bytes);
                    return Err(ReadError::Packet(error));
                }
            }
        }
        match self.frames.as_ref().and_then(|frames| frames.end) {
            Some(end) => Err(ReadError::Frame(end)),
            None => Ok(start..end),
        }
    }
}

impl Frames {
    /// Turns the frames behind `kept` bytes into their payload, in place. Returns where that ends.
    fn take_off(&mut self, buffer: &mut [u8], kept: usize, limits: &ws::Limits, handler: &mut impl Handler) -> usize {
        let (mut raw, mut payload_end) = (kept, kept);
        while self.end.is_none() {
            let progress = self.deframer.deframe(buffer, raw, buffer.len(), payload_end, limits);
            (raw, payload_end) = (progress.start, progress.write);
            match progress.event {
                None => break,
                Some(Event::Ping(payload)) => handler.ping(&payload),
                Some(Event::Pong) => handler.pong(),
                // The answer repeats the code; a close without one is answered by a plain goodbye (5.5.1).
                Some(Event::Close(code)) => {
                    self.end = Some(FrameEnd { code: code.unwrap_or(NORMAL_CLOSE), what: "" });
                }
                Some(Event::Failed(error)) => self.end = Some(FrameEnd { code: error.code, what: error.what }),
            }
        }
        payload_end
    }
}

/// Keeps `bytes` in exactly as much memory as they need.
fn keep(tail: &mut Vec<u8>, bytes: &[u8]) {
    *tail = bytes.to_vec();
}

/// The reason that an error of the codec gives to a 5.0 client.
impl From<DecodeError> for Close {
    fn from(error: DecodeError) -> Self {
        Self { reason: error.reason, what: error.what }
    }
}
