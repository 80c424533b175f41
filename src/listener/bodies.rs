//! Bodies on their way in and out, each at a pace.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::pace::{Alarm, Allowance, Pace};
use super::vitals::Vitals;

/// The peer did not send its body at the least rate.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body arrives too slowly")]
pub(crate) struct TooSlow;

/// What is left of a request's body when its handler is done with it.
#[derive(Clone, Default)]
pub(super) struct Rest(Arc<Mutex<Option<Incoming>>>);

impl Rest {
    /// The body, if it was not read to its end.
    pub(super) fn take(&self) -> Option<Incoming> {
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rest.take()
    }
}

/// A request's body that must arrive at a pace.
pub(super) struct Paced {
    body: Option<Incoming>,
    pace: Pace,
    alarm: Alarm,
    rest: Rest,
}

impl Paced {
    pub(super) fn new(body: Incoming, allowance: Allowance, rest: Rest) -> Self {
        Self {
            body: Some(body),
            pace: Pace::new(allowance),
            alarm: Alarm::default(),
            rest,
        }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.pace.progress(Instant::now(), bytes);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => {
                this.body = None;
                Poll::Ready(other.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                this.pace.wait(Instant::now());
                if this.alarm.rings(this.pace.deadline(), context) {
                    return Poll::Ready(Some(Err(TooSlow.into())));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        let rest = self.body.take().filter(|body| !body.is_end_stream());
        *self.rest.0.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }
}

/// Reads and forgets a body, up to some bytes; whether that was all of it.
pub(super) async fn forget(mut body: Incoming, bytes_max: usize) -> bool {
    let mut bytes = 0;
    while bytes <= bytes_max {
        match body.frame().await {
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return false,
            None => return true,
        }
    }
    false
}

/// Bytes of an answer that the peer must take before it gets more: while it doesn't, that shows here, for
/// the protocols below keep to themselves how they do with what they were given.
const PIECE_BYTES: usize = 64 << 10;

/// An answer's body that must be taken at a pace.
pub(super) struct Answer {
    body: Body,
    left: Bytes,
    offered: usize,
    vitals: Arc<Vitals>,
}

impl Answer {
    pub(super) fn new(body: Body, vitals: Arc<Vitals>) -> Self {
        Self {
            body,
            left: Bytes::new(),
            offered: 0,
            vitals,
        }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let length = self.left.len().min(PIECE_BYTES);
        Frame::data(self.left.split_to(length))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        // Who asks for more has taken what it was given.
        this.vitals.taken(std::mem::take(&mut this.offered));
        let frame = if this.left.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        this.left = data;
                        this.piece()
                    }
                    Err(trailers) => trailers,
                },
                end => return Poll::Ready(end),
            }
        } else {
            this.piece()
        };
        this.offered = frame.data_ref().map_or(0, Bytes::len);
        this.vitals.offered();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.left.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + left);
        }
        hint.set_lower(hint.lower() + left);
        hint
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.vitals.answered();
    }
}
