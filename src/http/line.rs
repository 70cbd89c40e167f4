//! A connection to the backend whose sending half can be closed from outside, after the request that is under way.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// How far a request has come on the connection.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    /// The sending half is to be closed.
    finish: bool,
    /// It is.
    finished: bool,
    reader: Option<Waker>,
}

/// hyper buffers what it sends. It flushes the connection when nothing is left in its buffers, and the last piece of a
/// request is in them once it was written to the connection at all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// More of the request is to come.
    #[default]
    Open,
    /// hyper has been given all of it.
    Given,
    /// Some of what it had left is written.
    Written,
    /// All of it is.
    Sent,
}

impl Line {
    /// The next request begins.
    pub fn begin(&self) {
        self.state().stage = Stage::Open;
    }

    /// hyper is about to have all of the request.
    pub fn give(&self) {
        let mut state = self.state();
        if state.stage == Stage::Open {
            state.stage = Stage::Given;
        }
    }

    /// Closes the sending half as soon as the request is sent.
    pub fn finish(&self) {
        let mut state = self.state();
        state.finish = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Whether a further request may be sent.
    pub fn is_reusable(&self) -> bool {
        let state = self.state();
        !state.finish && state.stage == Stage::Sent
    }

    fn wrote(&self) {
        let mut state = self.state();
        if state.stage == Stage::Given {
            state.stage = Stage::Written;
        }
    }

    fn flushed(&self) {
        let mut state = self.state();
        if state.stage == Stage::Written {
            state.stage = Stage::Sent;
        }
    }

    /// Whether the sending half is to be closed now. If not, the task is woken to ask again.
    fn is_to_finish(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        let due = state.finish && !state.finished && state.stage == Stage::Sent;
        if due {
            state.finished = true;
        } else if !state.finish {
            match &mut state.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        due
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection itself.
pub(super) struct Backend {
    stream: TcpStream,
    line: Arc<Line>,
}

impl Backend {
    pub fn new(stream: TcpStream, line: Arc<Line>) -> Self {
        Self { stream, line }
    }

    fn finish_if_due(&mut self, cx: &mut Context<'_>) {
        if self.line.is_to_finish(cx) {
            // Closing a half of a TCP socket never waits, and if it fails the reader will see why.
            let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
        }
    }
}

impl AsyncRead for Backend {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.finish_if_due(cx);
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Backend {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.line.wrote();
        Poll::Ready(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.line.flushed();
        self.finish_if_due(cx);
        Poll::Ready(flushed)
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
        let wrote = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        self.line.wrote();
        Poll::Ready(wrote)
    }
}
