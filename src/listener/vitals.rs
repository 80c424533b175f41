//! What a connection's or a stream's task knows of the peer that it serves, and until when it waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Timing;
use super::pace::Pace;

tokio::task_local! {
    /// Of the connection (HTTP/1.1) or the stream (HTTP/2) that this task serves.
    pub(super) static VITALS: Arc<Vitals>;
}

/// Shared by what reads, answers and waits.
#[derive(Debug)]
pub(super) struct Vitals {
    timing: Timing,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    answer: Pace,
    /// No request is being served: when the next head, or the next byte, must be there.
    until: Option<Instant>,
    /// Whether a byte of the next head is there.
    has_begun: bool,
    /// Whether a body stays unread: then the connection ends, and its peer may still be writing.
    is_unread: bool,
}

impl Vitals {
    /// Of a peer whose first bytes are there.
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            timing,
            state: Mutex::new(State {
                answer: Pace::new(timing.answer),
                until: Some(Instant::now() + timing.head),
                has_begun: true,
                is_unread: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes arrived.
    pub(super) fn read(&self) {
        let mut state = self.state();
        if state.until.is_some() && !state.has_begun {
            state.has_begun = true;
            state.until = Some(Instant::now() + self.timing.head);
        }
    }

    /// A request begins to be served.
    pub(super) fn serve(&self) {
        let mut state = self.state();
        state.until = None;
        state.answer = Pace::new(self.timing.answer);
    }

    /// The peer has taken a piece of the answer.
    pub(super) fn taken(&self, bytes: usize) {
        self.state().answer.progress(Instant::now(), bytes);
    }

    /// The peer has a piece of the answer to take.
    pub(super) fn offered(&self) {
        self.state().answer.wait(Instant::now());
    }

    /// The answer was handed over, or given up.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        state.answer = Pace::new(self.timing.answer);
        state.has_begun = false;
        state.until = Some(Instant::now() + self.timing.idle);
    }

    pub(super) fn leave_unread(&self) {
        self.state().is_unread = true;
    }

    pub(super) fn is_unread(&self) -> bool {
        self.state().is_unread
    }

    /// Until when a connection of HTTP/1.1 is waited for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        state.until.or(state.answer.deadline())
    }

    /// Until when a stream of HTTP/2 is waited for.
    pub(super) fn answer_deadline(&self) -> Option<Instant> {
        self.state().answer.deadline()
    }
}

/// How many streams a connection of HTTP/2 has, and since when it has none.
#[derive(Debug)]
pub(super) struct Streams(Mutex<(usize, Instant)>);

impl Streams {
    pub(super) fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn count(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> OpenStream {
        self.count().0 += 1;
        OpenStream(Arc::clone(self))
    }

    /// When the connection will have been idle for so long. With open streams that is to be asked again.
    pub(super) fn idle_at(&self, idle: Duration) -> Instant {
        match *self.count() {
            (0, since) => since + idle,
            _ => Instant::now() + idle,
        }
    }
}

/// A stream of HTTP/2.
#[derive(Debug)]
pub(super) struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut count = self.0.count();
        *count = (count.0 - 1, Instant::now());
    }
}
