//! The byte stream under a connection: a TCP socket, or the binary frames of a WebSocket.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::{PATIENCE, hang_up};
use wigwag::wire::ws::{self, Deframer, Event, Opcode, Role};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    WebSocket,
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There are more bytes in [`Socket::inbox`].
    Bytes,
    /// The peer has ended the stream, or it was reset.
    End,
    /// Nothing came in time.
    Silence,
}

pub struct Socket {
    pub stream: TcpStream,
    frames: Option<Deframer>,
    /// MQTT bytes that have come and were not taken yet.
    pub inbox: Vec<u8>,
    /// Pings that have come and were answered, and pongs.
    pub pings: usize,
    pub pongs: usize,
    /// What the close frame said; `Some(None)` for one without a code.
    pub closed: Option<Option<u16>>,
}

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

impl Socket {
    pub fn open(address: SocketAddr, transport: Transport) -> Self {
        Self::open_with(address, transport, "")
    }

    /// With more lines in the header of the WebSocket handshake.
    pub fn open_with(address: SocketAddr, transport: Transport, headers: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut socket = Self { stream, frames: None, inbox: Vec::new(), pings: 0, pongs: 0, closed: None };
        if transport == Transport::WebSocket {
            socket.handshake(address, headers);
        }
        socket
    }

    /// RFC 6455 4.1, with the sub-protocol of MQTT [MQTT-6.0.0-3].
    fn handshake(&mut self, address: SocketAddr, headers: &str) {
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n{headers}\r\n"
        );
        self.send_raw(request.as_bytes());
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
            self.stream.read_exact(&mut byte).expect("an answer to the WebSocket handshake");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "[MQTT-6.0.0-4] {head}");
        assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        self.frames = Some(Deframer::new(Role::Client));
    }

    pub fn is_websocket(&self) -> bool {
        self.frames.is_some()
    }

    /// Sends bytes of MQTT; over WebSocket, in one binary frame.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.frames {
            Some(_) => self.send_frame(Opcode::Binary, bytes),
            None => self.send_raw(bytes),
        }
    }

    /// Sends one masked frame.
    pub fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        ws::frame(&mut frame, opcode, payload, Some(MASK));
        self.send_raw(&frame);
    }

    /// Sends bytes as they are, whatever the transport.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        // A broker that has closed the connection answers a write with a reset; the reads show why.
        let _ = self.stream.write_all(bytes);
    }

    /// Reads once, for at most `timeout`.
    pub fn read(&mut self, timeout: Duration) -> Progress {
        let deadline = Instant::now() + timeout;
        let mut buffer = [0; 16 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).expect("not zero");
            let read = match self.stream.read(&mut buffer) {
                Ok(0) => return Progress::End,
                Ok(read) => read,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Progress::Silence,
                    ErrorKind::Interrupted => continue,
                    _ => return Progress::End,
                },
            };
            let before = self.inbox.len();
            self.take(&mut buffer[..read]);
            if self.inbox.len() > before {
                return Progress::Bytes;
            }
        }
    }

    fn take(&mut self, raw: &mut [u8]) {
        let Some(frames) = &mut self.frames else {
            self.inbox.extend_from_slice(raw);
            return;
        };
        let no_limits = ws::Limits { frame: u32::MAX, message: u32::MAX };
        let (mut start, mut write, end) = (0, 0, raw.len());
        loop {
            let progress = frames.deframe(raw, start, end, write, &no_limits);
            (start, write) = (progress.start, progress.write);
            match progress.event {
                None => break,
                Some(Event::Ping(payload)) => {
                    self.pings += 1;
                    let mut pong = Vec::new();
                    ws::frame(&mut pong, Opcode::Pong, &payload, Some(MASK));
                    let _ = self.stream.write_all(&pong);
                }
                Some(Event::Pong) => self.pongs += 1,
                Some(Event::Close(code)) => self.closed = Some(code),
                Some(Event::Failed(error)) => panic!("the broker's frames are wrong: {error}"),
            }
        }
        self.inbox.extend_from_slice(&raw[..write]);
    }

    /// Another one to send on, for a second thread.
    pub fn to_send_on(&self) -> Self {
        Self {
            stream: self.stream.try_clone().expect("a TCP socket"),
            frames: self.frames.as_ref().map(|_| Deframer::new(Role::Client)),
            inbox: Vec::new(),
            pings: 0,
            pongs: 0,
            closed: None,
        }
    }

    pub fn hang_up(&self) {
        hang_up(&self.stream);
    }
}
