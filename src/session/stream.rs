//! The two halves of a connection's byte stream. The read half belongs to the connection's task; the write half to
//! the session, so that whoever has a message for it can write at once, from any thread, without waking that task.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Any byte stream that MQTT can run on: a TLS stream, an upgraded HTTP connection, a pipe in a test.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection's byte stream before it is split.
pub enum Stream {
    Tcp(TcpStream),
    Other(Box<dyn Io>),
}

pub enum ReadHalf {
    Tcp(OwnedReadHalf),
    Other(Arc<Mutex<Box<dyn Io>>>),
}

pub enum WriteHalf {
    Tcp(OwnedWriteHalf),
    Other {
        stream: Arc<Mutex<Box<dyn Io>>>,
        /// The stream took bytes that it has not passed on yet.
        unflushed: bool,
    },
}

impl Stream {
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Other(stream) => {
                let shared = Arc::new(Mutex::new(stream));
                (ReadHalf::Other(Arc::clone(&shared)), WriteHalf::Other { stream: shared, unflushed: false })
            }
        }
    }
}

impl ReadHalf {
    /// Reads into `buf`; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let polled = match self {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, &mut buf),
            Self::Other(stream) => Pin::new(&mut *stream.lock()).poll_read(cx, &mut buf),
        };
        polled.map_ok(|()| buf.filled().len())
    }
}

impl WriteHalf {
    /// Writes what the stream takes now. `WouldBlock` has arranged for `waker` to be woken when it takes more.
    pub fn write(&mut self, slices: &[IoSlice<'_>], waker: &Waker) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => loop {
                // For one slice the system has a shorter way.
                let written = match slices {
                    [one] => half.try_write(one),
                    slices => half.try_write_vectored(slices),
                };
                match written {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready(half.as_ref().poll_write_ready(&mut Context::from_waker(waker)))?;
                    }
                    result => return result,
                }
            },
            Self::Other { stream, unflushed } => {
                let mut stream = stream.lock();
                let written = ready(poll(waker, |cx| Pin::new(&mut *stream).poll_write_vectored(cx, slices)))?;
                *unflushed = poll(waker, |cx| Pin::new(&mut *stream).poll_flush(cx))?.is_pending();
                Ok(written)
            }
        }
    }

    /// Pushes out what a TLS layer still holds. `WouldBlock` as for `write`.
    pub fn flush(&mut self, waker: &Waker) -> io::Result<()> {
        match self {
            Self::Other { stream, unflushed } if *unflushed => {
                let mut stream = stream.lock();
                ready(poll(waker, |cx| Pin::new(&mut *stream).poll_flush(cx)))?;
                *unflushed = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether the stream holds bytes that `flush` has to push.
    pub fn unflushed(&self) -> bool {
        matches!(self, Self::Other { unflushed: true, .. })
    }

    /// Ends the sending direction, so that the peer sees an orderly end after the last byte.
    pub fn shutdown(&mut self, waker: &Waker) {
        let cx = &mut Context::from_waker(waker);
        // What cannot be shut down is closed when it is dropped.
        let _ = match self {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Other { stream, .. } => Pin::new(&mut *stream.lock()).poll_shutdown(cx),
        };
    }
}

/// Polls a stream outside of the budget that tokio gives a task for each turn: the task which happens to write is
/// another connection's, has a bound of its own for that, and would find every stream full once it had used it up.
fn poll<T>(waker: &Waker, poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    let unconstrained = tokio::task::coop::unconstrained(std::future::poll_fn(poll));
    pin!(unconstrained).poll(&mut Context::from_waker(waker))
}

fn ready<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
