//! The stream from which lapin reads: what the broker says is mended (`mend`) on its way.
//!
//! lapin takes the stream that belongs to its runtime. So it gets a runtime that is tokio's in all
//! but that.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio, TokioRuntime};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite, IoSlice};
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPUri};

use super::mend::mend;
use super::tls::Connector;
use crate::crypto::tls_trouble;

/// A broker's frames have 128 KiB unless its administrator says otherwise.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Kind, channel and length of the payload.
const HEAD_BYTES: usize = 7;
const CONTENT_HEADER: u8 = 2;

pub(super) type Kit = RuntimeParts<Tokio, Mending>;

/// tokio's reactor, but for its stream.
#[derive(Clone, Debug)]
pub(super) struct Mending(Tokio);

/// What leads to the broker, with TLS where the address says so.
type Inner = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// A stream of AMQP's frames, mended or as it is.
pub(super) struct Mended {
    inner: Inner,
    /// `None`: nothing is mended.
    frames: Option<Frames>,
}

/// What was read of the broker's frames.
struct Frames {
    bytes: Vec<u8>,
    /// How many of them were handed on.
    given: usize,
    /// How many are whole frames.
    whole: usize,
    /// How many have come: what is behind them is room.
    come: usize,
}

pub(super) fn runtime() -> Runtime<Kit> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Mending(tokio)))
}

/// Connects to a broker, with TLS if there is a connector. What it says is mended if it `mends`.
pub(super) async fn connect(
    uri: &AMQPUri,
    tls: Option<&Connector>,
    mends: bool,
) -> io::Result<AsyncTcpStream<Mended>> {
    let runtime = TokioRuntime::tokio_current();
    let AMQPAuthority { host, port, .. } = &uri.authority;
    let address = runtime.to_socket_addrs((host.clone(), *port));
    let plain = AsyncTcpStream::connect(&runtime, address).await?;
    let inner = match tls {
        #[cfg(feature = "amqps")]
        Some(connector) => plain.into_rustls(connector, host).await?,
        #[cfg(not(feature = "amqps"))]
        Some(none) => match *none {},
        None => plain,
    };
    Ok(AsyncTcpStream::Plain(Mended {
        inner,
        frames: mends.then(Frames::new),
    }))
}

// === impl Mending ===

impl Reactor for Mending {
    type TcpStream = Mended;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    #[expect(clippy::disallowed_types, reason = "the trait says so")]
    fn interval(
        &self,
        period: Duration,
    ) -> impl Stream<Item = std::time::Instant> + Send + 'static {
        self.0.interval(period)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Mended>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move {
            Ok(Mended {
                inner: AsyncTcpStream::Plain(connecting.await?),
                frames: Some(Frames::new()),
            })
        }
    }
}

// === impl Mended ===

impl Mended {
    /// A broker that does not take our certificate says so and hangs up. Whoever writes finds that it
    /// has hung up; what it said before still stands to be read.
    fn last_words(&mut self, cx: &mut Context<'_>, found: io::Error) -> io::Error {
        let mut rest = [0; 64];
        match Pin::new(&mut self.inner).poll_read(cx, &mut rest) {
            Poll::Ready(Err(said)) if tls_trouble(&said).is_some() => said,
            Poll::Ready(_) | Poll::Pending => found,
        }
    }
}

impl AsyncRead for Mended {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(frames) = &mut this.frames else {
            return Pin::new(&mut this.inner).poll_read(cx, into);
        };
        loop {
            let given = frames.give(into);
            if given > 0 || into.is_empty() {
                return Poll::Ready(Ok(given));
            }
            let count = ready!(Pin::new(&mut this.inner).poll_read(cx, frames.space()))?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            frames.have_come(count)?;
        }
    }
}

impl AsyncWrite for Mended {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes));
        Poll::Ready(written.map_err(|error| this.last_words(cx, error)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, slices));
        Poll::Ready(written.map_err(|error| this.last_words(cx, error)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = ready!(Pin::new(&mut this.inner).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| this.last_words(cx, error)))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}

// === impl Frames ===

impl Frames {
    fn new() -> Self {
        Self {
            bytes: vec![0; READ_BYTES],
            given: 0,
            whole: 0,
            come: 0,
        }
    }

    /// Hands on what is whole, as far as there is room.
    fn give(&mut self, into: &mut [u8]) -> usize {
        let whole = self.bytes.get(self.given..self.whole).unwrap_or_default();
        let count = whole.len().min(into.len());
        if let (Some(from), Some(into)) = (whole.get(..count), into.get_mut(..count)) {
            into.copy_from_slice(from);
        }
        self.given += count;
        count
    }

    /// Room for what comes next, behind what is not whole yet. Everything whole was handed on.
    fn space(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.given..self.come, 0);
        self.come -= self.given;
        (self.given, self.whole) = (0, 0);
        if self.come == self.bytes.len() {
            self.bytes.resize(self.come * 2, 0);
        }
        self.bytes.get_mut(self.come..).unwrap_or_default()
    }

    /// So many bytes have come into that room: mends each frame that is whole now.
    fn have_come(&mut self, count: usize) -> io::Result<()> {
        self.come += count;
        while let Some(rest) = self.bytes.get_mut(self.whole..self.come)
            && let Some((&mut [kind, _, _, a, b, c, d], rest)) =
                rest.split_first_chunk_mut::<HEAD_BYTES>()
        {
            // With the octet that ends a frame.
            let length = u32::from_be_bytes([a, b, c, d]) as usize + 1;
            if length > FRAME_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let Some(payload) = rest.get_mut(..length) else {
                break;
            };
            if kind == CONTENT_HEADER {
                mend(payload);
            }
            self.whole += HEAD_BYTES + length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &length[..], payload, &[0xCE]].concat()
    }

    /// Lets bytes through that come in parts of this size, and are asked for in parts of that.
    fn through(bytes: &[u8], part: usize, asked: usize) -> io::Result<Vec<u8>> {
        let (mut frames, mut out) = (Frames::new(), Vec::new());
        for part in bytes.chunks(part) {
            let mut part = part;
            while !part.is_empty() {
                let count = part.len().min(frames.space().len());
                frames.space()[..count].copy_from_slice(&part[..count]);
                frames.have_come(count)?;
                part = &part[count..];
            }
            let mut into = vec![0; asked];
            loop {
                match frames.give(&mut into) {
                    0 => break,
                    count => out.extend(&into[..count]),
                }
            }
        }
        Ok(out)
    }

    #[test]
    fn frames_come_through_whole_and_mended_in_whatever_parts() {
        // Class, weight, size; message_id alone, which is no text.
        let header = [&[0; 12][..], &0x0080_u16.to_be_bytes(), b"\x02a\xff"].concat();
        let mended = [&[0; 12][..], &0x0080_u16.to_be_bytes(), b"\x02a\x1a"].concat();
        let others = [frame(1, b"method"), frame(3, &[0xff; 9_000]), frame(8, b"")].concat();
        let came = [others.clone(), frame(2, &header), others.clone()].concat();
        let given = [others.clone(), frame(2, &mended), others].concat();
        for (part, asked) in [(1, 1), (7, 100), (1_000, 3), (60_000, 60_000)] {
            assert_eq!(
                through(&came, part, asked).unwrap(),
                given,
                "{part} {asked}"
            );
        }
        let half = &came[..came.len() - 1];
        let whole = given.len() - frame(8, b"").len();
        assert_eq!(through(half, 100, 100).unwrap(), given[..whole]);
    }

    #[test]
    fn a_frame_of_more_than_any_broker_allows_is_refused() {
        let error = through(b"\x01\0\0\xff\xff\xff\xff", 100, 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
