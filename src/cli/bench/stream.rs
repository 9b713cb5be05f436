//! What the bytes of a client go through: a socket, or TLS over one.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Result, Write};

use mio::net::TcpStream;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio_rustls::rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use tokio_rustls::rustls::{ClientConnection, HandshakeKind, NamedGroup, StreamOwned};

/// See the module. Non-blocking, like the socket below.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// Whether a read that did not fill its buffer has read all there is: TLS gives one record at a time.
    pub fn reads_all(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Whether TLS, if there is any, has begun to carry what the client says.
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Tls(stream) if stream.conn.is_handshaking())
    }

    /// Whether the handshake was spared its signature by an earlier one; `None` without TLS, or while it lasts.
    pub fn resumed(&self) -> Option<bool> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.conn.handshake_kind().map(|kind| kind == HandshakeKind::Resumed),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            // A peer that hangs up without close_notify has hung up all the same.
            Self::Tls(stream) => match stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    /// Pushes out what TLS has taken and the socket has not.
    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => match stream.flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                flushed => flushed,
            },
        }
    }
}

/// Sessions that clients resume, the oldest first: whoever comes back has been away while others came, so a server that
/// remembers few of them is found out.
#[derive(Debug, Default)]
pub struct Sessions {
    tickets: Mutex<VecDeque<Tls13ClientSessionValue>>,
    tls12: Mutex<Option<Tls12ClientSessionValue>>,
    group: Mutex<Option<NamedGroup>>,
}

impl Sessions {
    const MOST: usize = 1000;
}

/// All clients of a run speak to one server.
impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        *self.group.lock() = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        *self.group.lock()
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        *self.tls12.lock() = Some(session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.tls12.lock().clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        *self.tls12.lock() = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.tickets.lock();
        if tickets.len() == Self::MOST {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tickets.lock().pop_front()
    }
}
