//! Listeners: connections of HTTP/1.1 and HTTP/2 (with prior knowledge), held to time and bounds.
//!
//! - `admission`: how many there may be. `connection`: one, from its first byte to its end. `opening`: which
//!   protocol it speaks. `exchange`: one request and its answer. `bodies`, `pace`, `vitals`: how slow a peer
//!   may be.

mod admission;
mod bodies;
mod connection;
mod exchange;
mod opening;
mod pace;
mod vitals;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::seldom::Seldom;
pub(crate) use admission::network;
pub use admission::{ConnectionLimits, Connections};
pub(crate) use bodies::TooSlow;
use exchange::Exchange;
pub use exchange::PeerAddress;
use pace::Allowance;

/// A pause when a connection can't be accepted: mostly there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How slow a peer may be.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// From the connection to the bytes that say which protocol it speaks.
    opening: Duration,
    /// From the first byte of a request's head to its end.
    head: Duration,
    /// From one answer to the next request: longer than exporters keep a connection in their pools (60
    /// to 90 s, mostly used every few), so that a batch rarely meets a reset.
    idle: Duration,
    /// For sending a body. Exporters wait ten seconds in all for an answer.
    body: Allowance,
    /// For taking an answer: somebody may read a large file over a slow line.
    answer: Allowance,
}

const TIMING: Timing = Timing {
    opening: Duration::from_secs(10),
    head: Duration::from_secs(10),
    idle: Duration::from_secs(75),
    body: Allowance {
        grace: Duration::from_secs(10),
        bytes_per_second: 64 << 10,
    },
    answer: Allowance {
        grace: Duration::from_secs(30),
        bytes_per_second: 16 << 10,
    },
};

/// Listens where it may do without: a port that is taken is no reason not to start.
pub async fn bind_optional(
    address: Option<SocketAddr>,
    setting: &'static str,
) -> Option<TcpListener> {
    let address = address?;
    TcpListener::bind(address)
        .await
        .inspect_err(|error| {
            tracing::warn!(
                %error,
                "can't listen on {address} and goes on without; set {setting} to another address or to off"
            );
        })
        .ok()
}

/// Answers connections until it is told to stop; then no new requests, and running ones finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Connections,
    stopped: watch::Receiver<bool>,
) {
    serve_at(TIMING, listener, router, connections, stopped).await;
}

async fn serve_at(
    timing: Timing,
    listener: TcpListener,
    router: Router,
    connections: Connections,
    mut stopped: watch::Receiver<bool>,
) {
    // Closed when the last connection has dropped its end.
    let (open, _) = watch::channel(());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(place) = connections.enter(address.ip()) else {
            turn_away(stream);
            continue;
        };
        let exchange = Exchange {
            router: router.clone(),
            peer: PeerAddress(address.ip()),
            timing,
        };
        let (is_one_of_many, stopped) = (connections.are_many(), stopped.clone());
        let is_open = open.subscribe();
        tokio::spawn(async move {
            let _kept = (place, is_open);
            connection::serve(stream, exchange, is_one_of_many, stopped).await;
        });
    }
    drop(listener);
    open.closed().await;
}

/// Says so where it costs nothing, and closes: a client may come again, here or elsewhere.
fn turn_away(stream: TcpStream) {
    static LOG: Seldom = Seldom::new();
    const ANSWER: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nconnection: close\r\n\
        content-length: 0\r\n\r\n";
    if let Some(others) = LOG.pass() {
        tracing::warn!(
            others,
            "too many connections; new ones are closed (XTRACE_MAX_CONNECTIONS, \
             XTRACE_MAX_CONNECTIONS_PER_ADDRESS)"
        );
    }
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(ANSWER);
    }
}

#[cfg(test)]
mod tests;
