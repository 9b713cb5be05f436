//! WebSocket frames (RFC 6455) around MQTT: bytes in, the payload stream and control frames out, and back.
//!
//! MQTT neither sees nor cares where messages begin and end ([MQTT-6.0.0-2]), so [`Deframer`] yields one stream of
//! payload bytes, unmasked and moved together within the buffer they came in. What the RFC forbids ends the
//! connection with the close code it names; what frames announce allocates nothing. Only a control frame that has
//! not arrived whole is kept aside (125 bytes at most).

use std::ops::Deref;

/// Which end reads: a server wants every frame masked, a client none (5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// The largest data a peer may announce, in payload bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one frame.
    pub frame: u32,
    /// Of all frames of one message together.
    pub message: u32,
}

/// Frame types (5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Opcode> {
        match bits {
            0 => Some(Opcode::Continuation),
            1 => Some(Opcode::Text),
            2 => Some(Opcode::Binary),
            8 => Some(Opcode::Close),
            9 => Some(Opcode::Ping),
            10 => Some(Opcode::Pong),
            _ => None,
        }
    }

    const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Why frames cannot be read on: the connection ends with a close frame of this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WsError {
    /// 1002, 1003, 1007 or 1009 (7.4.1).
    pub code: u16,
    /// The section of RFC 6455, or the clause of MQTT, that was broken.
    pub clause: &'static str,
    /// One line for a human, and for the close frame's reason.
    pub what: &'static str,
}

impl std::fmt::Display for WsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.what, self.clause)
    }
}

impl std::error::Error for WsError {}

type Result<T> = std::result::Result<T, WsError>;

const fn protocol(clause: &'static str, what: &'static str) -> WsError {
    WsError { code: 1002, clause, what }
}

/// The payload of a control frame: at most 125 bytes (5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlPayload {
    bytes: [u8; 125],
    len: u8,
}

impl ControlPayload {
    const EMPTY: Self = Self { bytes: [0; 125], len: 0 };
}

impl Deref for ControlPayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

/// What stands between the payload: a control frame, whole and checked, or the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// To be answered with a pong of the same payload (5.5.2). Boxed: it is rare, and far larger than the others.
    Ping(Box<ControlPayload>),
    Pong,
    /// To be answered with a close frame, unless one was sent already (5.5.1); `None` where the peer gave no code.
    /// Whatever follows is discarded.
    Close(Option<u16>),
    /// The connection is to be ended with a close frame. Whatever follows is discarded.
    Failed(WsError),
}

/// How far [`Deframer::deframe`] has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where the raw bytes begin that are still to be read: `end`, unless there is an event.
    pub start: usize,
    /// Where the payload ends now.
    pub write: usize,
    pub event: Option<Event>,
}

/// Reads the frames of one direction of a connection.
#[derive(Debug)]
pub struct Deframer {
    state: State,
    /// Payload bytes of the message so far, while it is unfinished.
    message: Option<u32>,
    role: Role,
}

#[derive(Debug)]
enum State {
    /// Before a header, or within one.
    Header(Partial),
    /// Within the payload of a data frame.
    Data { remaining: u32, mask: [u8; 4] },
    /// Within the payload of a control frame.
    Control(Box<Control>),
    /// After a close frame.
    Closed,
}

const BEFORE_HEADER: State = State::Header(Partial { bytes: [0; 14], len: 0 });

/// The bytes of a header that have arrived.
#[derive(Debug, Clone, Copy)]
struct Partial {
    bytes: [u8; 14],
    len: u8,
}

impl Partial {
    fn push(&mut self, byte: u8) -> &[u8] {
        self.bytes[usize::from(self.len)] = byte;
        self.len += 1;
        &self.bytes[..self.len.into()]
    }
}

/// A whole header (5.2); its length fits the limits.
struct Header {
    fin: bool,
    opcode: Opcode,
    len: u32,
    mask: [u8; 4],
}

impl Deframer {
    /// At the start of a connection, after the handshake.
    pub const fn new(role: Role) -> Self {
        Self { state: BEFORE_HEADER, message: None, role }
    }

    /// Reads the raw bytes `buf[start..end]` and appends the payload they carry at `buf[write..]`, in place.
    ///
    /// Stops at an event, to be called again with the `start` and `write` it returned; without one, all bytes are
    /// read and need not be kept. What breaks RFC 6455, is text ([MQTT-6.0.0-1]) or announces more than `limits` is
    /// [`Event::Failed`]: payload that came before it still counts (a DISCONNECT, say, in front of a bad close frame).
    ///
    /// # Panics
    /// Unless `write <= start <= end <= buf.len()`.
    pub fn deframe(&mut self, buf: &mut [u8], start: usize, end: usize, write: usize, limits: &Limits) -> Progress {
        assert!(write <= start && start <= end && end <= buf.len());
        let mut progress = Progress { start, write, event: None };
        while progress.start < end && progress.event.is_none() {
            if self.whole(buf, &mut progress, end, limits) {
                continue;
            }
            progress.event =
                self.step(buf, &mut progress, end, limits).unwrap_or_else(|error| Some(Event::Failed(error)));
        }
        if let Some(Event::Close(_) | Event::Failed(_)) = progress.event {
            self.state = State::Closed;
        }
        progress
    }

    /// Takes a data frame that is there from its first byte to its last, as nearly every one is: the short way for what
    /// [`Deframer::step`] does with any. Says whether there was one.
    fn whole(&mut self, buf: &mut [u8], at: &mut Progress, end: usize, limits: &Limits) -> bool {
        let State::Header(Partial { len: 0, .. }) = self.state else { return false };
        let Ok(Some((header, rest))) = self.parse(&buf[at.start..end], limits) else { return false };
        let (len, from) = (header.len as usize, end - rest.len());
        if header.opcode.is_control() || rest.len() < len {
            return false;
        }
        buf.copy_within(from..from + len, at.write);
        unmask(&mut buf[at.write..at.write + len], header.mask);
        self.count(&header);
        (at.start, at.write) = (from + len, at.write + len);
        true
    }

    /// Counts a data frame as part of its message.
    fn count(&mut self, header: &Header) {
        self.message = (!header.fin).then(|| self.message.unwrap_or(0) + header.len);
    }

    /// Reads on to the end of a header, of a payload or of the bytes.
    fn step(&mut self, buf: &mut [u8], at: &mut Progress, end: usize, limits: &Limits) -> Result<Option<Event>> {
        match &mut self.state {
            State::Header(_) => {
                let (header, read) = self.header(&buf[at.start..end], limits)?;
                at.start += read;
                let Some(header) = header else { return Ok(None) };
                let (read, whole) = self.enter(header, &buf[at.start..end]);
                at.start += read;
                whole.as_ref().map(Control::event).transpose()
            }
            State::Data { remaining, mask } => {
                let len = (end - at.start).min(*remaining as usize);
                buf.copy_within(at.start..at.start + len, at.write);
                *mask = unmask(&mut buf[at.write..at.write + len], *mask);
                *remaining -= len as u32;
                if *remaining == 0 {
                    self.state = BEFORE_HEADER;
                }
                (at.start, at.write) = (at.start + len, at.write + len);
                Ok(None)
            }
            State::Control(control) => {
                at.start += control.feed(&buf[at.start..end]);
                if control.remaining > 0 {
                    return Ok(None);
                }
                let event = control.event();
                self.state = BEFORE_HEADER;
                event.map(Some)
            }
            State::Closed => {
                at.start = end;
                Ok(None)
            }
        }
    }

    /// The header that `raw` begins or goes on with, if it is whole now, and the bytes read.
    fn header(&mut self, raw: &[u8], limits: &Limits) -> Result<(Option<Header>, usize)> {
        let State::Header(mut partial) = self.state else { return Ok((None, 0)) };
        if partial.len == 0
            && let Some((header, rest)) = self.parse(raw, limits)?
        {
            return Ok((Some(header), raw.len() - rest.len()));
        }
        for (index, &byte) in raw.iter().enumerate() {
            if let Some((header, _)) = self.parse(partial.push(byte), limits)? {
                self.state = BEFORE_HEADER;
                return Ok((Some(header), index + 1));
            }
        }
        self.state = State::Header(partial);
        Ok((None, raw.len()))
    }

    /// The header at the start of `bytes`, and what is behind it; `None` while it is incomplete. What is wrong with a
    /// header shows as early as the byte that is wrong.
    fn parse<'b>(&self, bytes: &'b [u8], limits: &Limits) -> Result<Option<(Header, &'b [u8])>> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let (fin, opcode) = self.first_byte(first)?;
        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        if (second & 0x80 != 0) != (self.role == Role::Server) {
            return Err(match self.role {
                Role::Server => protocol("RFC 6455 5.1", "a frame without a mask"),
                Role::Client => protocol("RFC 6455 5.1", "a frame with a mask from a server"),
            });
        }
        if opcode.is_control() && second & 0x7F > 125 {
            return Err(protocol("RFC 6455 5.5", "a control frame of more than 125 bytes"));
        }
        let Some((len, rest)) = payload_len(second & 0x7F, rest)? else { return Ok(None) };
        let len = self.within(limits, opcode, len)?;
        let (mask, rest) = match self.role {
            Role::Client => ([0; 4], rest),
            Role::Server => match rest.split_first_chunk() {
                Some((&mask, rest)) => (mask, rest),
                None => return Ok(None),
            },
        };
        Ok(Some((Header { fin, opcode, len, mask }, rest)))
    }

    /// FIN and the opcode, which must suit the frames before.
    fn first_byte(&self, first: u8) -> Result<(bool, Opcode)> {
        let fin = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err(protocol("RFC 6455 5.2", "a reserved bit is set and no extension was agreed on"));
        }
        let Some(opcode) = Opcode::from_bits(first & 0x0F) else {
            return Err(protocol("RFC 6455 5.2", "a reserved opcode"));
        };
        match opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong if !fin => {
                Err(protocol("RFC 6455 5.5", "a fragmented control frame"))
            }
            Opcode::Continuation if self.message.is_none() => {
                Err(protocol("RFC 6455 5.4", "a continuation of nothing"))
            }
            Opcode::Text | Opcode::Binary if self.message.is_some() => {
                Err(protocol("RFC 6455 5.4", "a new message inside a fragmented one"))
            }
            Opcode::Text => Err(WsError { code: 1003, clause: "MQTT-6.0.0-1", what: "a text frame" }),
            _ => Ok((fin, opcode)),
        }
    }

    fn within(&self, limits: &Limits, opcode: Opcode, len: u64) -> Result<u32> {
        let message = u64::from(self.message.unwrap_or(0)).saturating_add(len);
        let fits = len <= limits.frame.into() && message <= limits.message.into();
        match u32::try_from(len) {
            Ok(len) if fits || opcode.is_control() => Ok(len),
            _ => Err(WsError { code: 1009, clause: "RFC 6455 7.4.1", what: "a message larger than allowed" }),
        }
    }

    /// Behind a header. A control frame that is there in `raw` as a whole is returned with the bytes it took.
    fn enter(&mut self, header: Header, raw: &[u8]) -> (usize, Option<Control>) {
        let Header { opcode, len, mask, .. } = header;
        if opcode.is_control() {
            let mut control = Control { opcode, remaining: len as u8, mask, payload: ControlPayload::EMPTY };
            let read = control.feed(raw);
            if control.remaining == 0 {
                return (read, Some(control));
            }
            self.state = State::Control(Box::new(control));
            return (read, None);
        }
        self.count(&header);
        if len > 0 {
            self.state = State::Data { remaining: len, mask };
        }
        (0, None)
    }
}

/// The payload length (5.2) whose first seven bits are `short`, and what is behind it.
fn payload_len(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>> {
    let long = || protocol("RFC 6455 5.2", "a payload length in more bytes than it takes");
    match short {
        126 => match rest.split_first_chunk() {
            None => Ok(None),
            Some((&len, rest)) => match u16::from_be_bytes(len) {
                0..126 => Err(long()),
                len => Ok(Some((len.into(), rest))),
            },
        },
        127 => match rest.split_first_chunk() {
            None => Ok(None),
            Some((&len, rest)) => match u64::from_be_bytes(len) {
                0..0x1_0000 => Err(long()),
                0x8000_0000_0000_0000.. => Err(protocol("RFC 6455 5.2", "a payload length with its highest bit set")),
                len => Ok(Some((len, rest))),
            },
        },
        len => Ok(Some((len.into(), rest))),
    }
}

/// A control frame whose payload has arrived in part.
#[derive(Debug)]
struct Control {
    opcode: Opcode,
    remaining: u8,
    mask: [u8; 4],
    payload: ControlPayload,
}

impl Control {
    /// Takes what belongs to the frame off the start of `raw`.
    fn feed(&mut self, raw: &[u8]) -> usize {
        let len = raw.len().min(self.remaining.into());
        let at = usize::from(self.payload.len);
        let new = &mut self.payload.bytes[at..at + len];
        new.copy_from_slice(&raw[..len]);
        self.mask = unmask(new, self.mask);
        self.payload.len += len as u8;
        self.remaining -= len as u8;
        len
    }

    /// What the whole frame says.
    fn event(&self) -> Result<Event> {
        match self.opcode {
            Opcode::Ping => Ok(Event::Ping(Box::new(self.payload))),
            Opcode::Close => close_code(&self.payload).map(Event::Close),
            _ => Ok(Event::Pong),
        }
    }
}

/// The code in the payload of a close frame (5.5.1, 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(protocol("RFC 6455 5.5.1", "a close frame of one byte")),
        };
    };
    let code = u16::from_be_bytes(code);
    // 1012 to 1014 were registered after the RFC.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol("RFC 6455 7.4", "a close code that is not sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(WsError { code: 1007, clause: "RFC 6455 5.5.1", what: "a close reason that is not UTF-8" }),
    }
}

/// Applies a masking key (5.3) in place, which also takes it off; returns the key for the bytes that follow.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    if mask == [0; 4] {
        return mask;
    }
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    let mut next = mask;
    next.rotate_left(rest.len() % 4);
    next
}

/// The header of a frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    bytes: [u8; 14],
    len: u8,
}

impl FrameHeader {
    /// Of an unfragmented frame; a client's has a mask, which the payload then takes by [`unmask`].
    pub fn new(opcode: Opcode, payload_len: usize, mask: Option<[u8; 4]>) -> Self {
        let mut header = Self { bytes: [0; 14], len: 0 };
        let masked = u8::from(mask.is_some()) << 7;
        header.put(&[0x80 | opcode as u8]);
        match payload_len {
            0..126 => header.put(&[masked | payload_len as u8]),
            126..0x1_0000 => {
                header.put(&[masked | 126]);
                header.put(&(payload_len as u16).to_be_bytes());
            }
            _ => {
                header.put(&[masked | 127]);
                header.put(&(payload_len as u64).to_be_bytes());
            }
        }
        mask.iter().for_each(|mask| header.put(mask));
        header
    }

    /// Of a server's frame of MQTT ([MQTT-6.0.0-1]).
    pub fn binary(payload_len: usize) -> Self {
        Self::new(Opcode::Binary, payload_len, None)
    }

    fn put(&mut self, more: &[u8]) {
        let len = usize::from(self.len);
        self.bytes[len..len + more.len()].copy_from_slice(more);
        self.len += more.len() as u8;
    }
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

/// Appends a whole frame with its payload.
pub fn frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    out.extend_from_slice(&FrameHeader::new(opcode, payload.len(), mask));
    let at = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[at..], mask.unwrap_or_default());
}

/// Appends a server's ping; of a payload of more than 125 bytes, the first 125.
pub fn ping_frame(out: &mut Vec<u8>, payload: &[u8]) {
    frame(out, Opcode::Ping, &payload[..payload.len().min(125)], None);
}

/// Appends a server's answer to [`Event::Ping`] (5.5.3).
pub fn pong_frame(out: &mut Vec<u8>, payload: &ControlPayload) {
    frame(out, Opcode::Pong, payload, None);
}

/// Appends a server's close frame (5.5.1); a reason of more than 123 bytes is cut at a character boundary.
pub fn close_frame(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(123)];
    out.extend_from_slice(&FrameHeader::new(Opcode::Close, 2 + reason.len(), None));
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason);
}

#[cfg(test)]
mod tests;
