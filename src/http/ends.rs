//! The client's end of a connection.
//!
//! A client that has closed its sending half may have hung up, or may be waiting for its answer: TCP does not tell. So we do
//! not decide either. While a request is being answered, the end is kept from hyper, which would drop the answer, and passed
//! on to the backend instead ([`Line::finish`]): what that does with it is what it would do if the client were its own.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::line::Line;

/// What is known of the client's sending half.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The client sends nothing any more.
    ended: bool,
    /// A request is being answered.
    answering: bool,
    /// Where it is being answered.
    line: Option<Arc<Line>>,
    /// Whoever waits for more of the connection.
    reader: Option<Waker>,
    /// Whoever waits for more of the request's body.
    body: Option<Waker>,
}

impl Ends {
    /// A request has arrived. It is being answered until what this returns is dropped.
    pub fn begin(self: &Arc<Self>) -> Answering {
        self.state().answering = true;
        Answering(Arc::clone(self))
    }

    /// The request goes over this line.
    pub fn goes_over(&self, line: &Arc<Line>) {
        let mut state = self.state();
        state.line = Some(Arc::clone(line));
        if state.ended {
            line.finish();
        }
    }

    /// Whether the client sends nothing any more: most likely it has hung up.
    pub fn is_ended(&self) -> bool {
        self.state().ended
    }

    /// Whether the client has ended. Otherwise the task is woken when it has, once.
    pub fn has_ended(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        if !state.ended {
            state.body = Some(cx.waker().clone());
        }
        state.ended
    }

    /// The client has ended. Says whether hyper may know.
    fn end(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        if !state.ended {
            state.ended = true;
            if let Some(line) = &state.line {
                line.finish();
            }
            if let Some(body) = state.body.take() {
                body.wake();
            }
        }
        if state.answering {
            state.reader = Some(cx.waker().clone());
        }
        !state.answering
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request is being answered.
#[derive(Debug)]
pub(super) struct Answering(Arc<Ends>);

impl Answering {
    /// Whether the client sends nothing any more: most likely it has hung up.
    pub fn is_ended(&self) -> bool {
        self.0.is_ended()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.answering = false;
        state.line = None;
        state.body = None;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

/// A client's connection whose end is seen by hyper only between requests.
pub(super) struct Client {
    stream: TcpStream,
    ends: Arc<Ends>,
}

impl Client {
    pub fn new(stream: TcpStream, ends: Arc<Ends>) -> Self {
        Self { stream, ends }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let has_ended = matches!(read, Poll::Ready(Ok(())))
            && buf.filled().len() == before
            && buf.remaining() > 0;
        if has_ended && !self.ends.end(cx) {
            return Poll::Pending;
        }
        read
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
