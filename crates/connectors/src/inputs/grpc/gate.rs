//! The end of a connection must not overtake what came before it.
//!
//! A client that sends its last event and exits closes its end at once, and what we still write to it is answered by a
//! reset. HTTP/2 has three ways to lose what was received whole in that moment: it looks at its writes before its
//! reads; it drops calls that it has read and not yet handed out when the end is in the same read; and it takes an
//! error for the end of everything. So writes to a client that is gone succeed into nothing, errors of reading are an
//! end like any other, and the end is shown only after all calls were handed out.

use h2::RecvStream;
use h2::server::{Connection, Handshake, SendResponse};
use http::Request;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Opens the gate of one connection. It is used by the task that polls the connection, and by no other.
pub(super) struct Gate(Arc<State>);

#[derive(Default)]
struct State {
    /// The client has sent its last byte.
    is_at_end: AtomicBool,
    /// HTTP/2 may know.
    is_open: AtomicBool,
}

/// A stream of bytes behind a gate.
pub(super) struct Gated<I> {
    io: I,
    state: Arc<State>,
    nobody_reads: bool,
}

pub(super) fn gated<I>(io: I) -> (Gated<I>, Gate) {
    let state = Arc::<State>::default();
    (Gated { io, state: Arc::clone(&state), nobody_reads: false }, Gate(state))
}

type Call = (Request<RecvStream>, SendResponse<bytes::Bytes>);

impl Gate {
    /// Waits for the preface of HTTP/2.
    pub(super) async fn handshake<I>(
        &self,
        mut handshake: Handshake<Gated<I>, bytes::Bytes>,
    ) -> Result<Connection<Gated<I>, bytes::Bytes>, h2::Error>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = poll_fn(|cx| self.through(cx, |cx| Pin::new(&mut handshake).poll(cx))).await;
        // What came with it is handed out before its end.
        self.0.is_open.store(false, Ordering::Relaxed);
        connection
    }

    /// The next call of the connection; `None` at its end. Cancel safe.
    pub(super) async fn accept<I>(
        &self,
        connection: &mut Connection<Gated<I>, bytes::Bytes>,
    ) -> Option<Result<Call, h2::Error>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        poll_fn(|cx| self.through(cx, |cx| connection.poll_accept(cx))).await
    }

    /// Once there is nothing more to hand out, it is the end's turn, if there is one.
    fn through<T>(&self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let polled = poll(cx);
        let is_due = polled.is_pending()
            && self.0.is_at_end.load(Ordering::Relaxed)
            && !self.0.is_open.swap(true, Ordering::Relaxed);
        if is_due { poll(cx) } else { polled }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Gated<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.state.is_at_end.load(Ordering::Relaxed) {
            let before = buf.filled().len();
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
            if read.is_ok() && buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            self.state.is_at_end.store(true, Ordering::Relaxed);
        }
        // Whoever opens it polls again.
        if self.state.is_open.load(Ordering::Relaxed) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl<I> Gated<I> {
    /// Bytes for a client that is gone are written, as far as HTTP/2 is told.
    fn written<T>(&mut self, result: Poll<io::Result<T>>, otherwise: T) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Err(_)) => {
                self.nobody_reads = true;
                Poll::Ready(Ok(otherwise))
            }
            other => other,
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Gated<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.nobody_reads {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(result, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bufs.iter().map(|buf| buf.len()).sum();
        if self.nobody_reads {
            return Poll::Ready(Ok(all));
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(result, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.nobody_reads {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.written(result, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.nobody_reads {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.written(result, ())
    }
}
