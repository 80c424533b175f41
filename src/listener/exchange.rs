//! One request and its answer: between the protocol and the router.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Version, header};
use hyper::body::{Body as _, Incoming};
use tower::ServiceExt;

use super::Timing;
use super::bodies::{Answer, Paced, Rest, forget};
use super::vitals::{VITALS, Vitals};

/// What is read of a body that nobody wants, so that its sender gets to see the answer and the
/// connection can go on.
const FORGOTTEN_BYTES_MAX: usize = 256 << 10;
const FORGET_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a request comes from, as the connection has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerAddress(pub IpAddr);

/// Serves the requests of one connection.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) router: Router,
    pub(super) peer: PeerAddress,
    pub(super) timing: Timing,
}

impl hyper::service::Service<Request<Incoming>> for Exchange {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let exchange = self.clone();
        Box::pin(async move {
            let vitals = VITALS.try_with(Arc::clone);
            let vitals = vitals.unwrap_or_else(|_| Arc::new(Vitals::new(exchange.timing)));
            Ok(exchange.answer(request, vitals).await)
        })
    }
}

impl Exchange {
    async fn answer(self, request: Request<Incoming>, vitals: Arc<Vitals>) -> Response<Answer> {
        vitals.serve();
        let is_http1 = request.version() < Version::HTTP_2;
        let waits_for_consent = request.headers().contains_key(header::EXPECT);
        let rest = Rest::default();
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                Body::empty()
            } else {
                Body::new(Paced::new(body, self.timing.body, rest.clone()))
            }
        });
        request.extensions_mut().insert(self.peer);
        let Ok(mut response) = self.router.oneshot(request).await;
        if let Some(body) = rest.take() {
            let forget = forget(body, FORGOTTEN_BYTES_MAX);
            // Who asks before it sends, and is refused, sends nothing.
            let is_read = !waits_for_consent
                && tokio::time::timeout(FORGET_TIMEOUT, forget).await == Ok(true);
            if is_http1 && !is_read {
                vitals.leave_unread();
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
        }
        response.map(|body| Answer::new(body, vitals))
    }
}
