//! One connection, from its first byte to its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Timing;
use super::exchange::Exchange;
use super::opening::Opened;
use super::pace::Alarm;
use super::vitals::{Streams, VITALS, Vitals};

/// Bytes of a request's head at most, over HTTP/1.1 and HTTP/2.
const HEAD_BYTES_MAX: u32 = 32 << 10;
/// What a connection of HTTP/1.1 reads at once, and holds of a head that is not whole.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How often the other side of HTTP/2 is asked for a sign of life, and how long it may take: a frame
/// that is begun and not ended lets no answer through.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at once on one connection of HTTP/2.
const STREAMS_MAX: u32 = 128;
/// What a peer may send over HTTP/2 before anybody reads it: of a stream and of a connection.
const WINDOWS: (u32, u32) = (256 << 10, 512 << 10);
/// The same once there are many connections.
const WINDOWS_OF_MANY: (u32, u32) = (64 << 10, 64 << 10);
/// How long an idle peer has to go after it was asked to.
const FAREWELL: Duration = Duration::from_secs(5);
/// What is read of a peer that still sends after it was answered, so that it gets to see the answer.
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a connection until either side ends it.
pub(super) async fn serve(
    stream: TcpStream,
    exchange: Exchange,
    is_one_of_many: bool,
    mut stopped: watch::Receiver<bool>,
) {
    // Small answers must not wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let timing = exchange.timing;
    let opened = tokio::select! {
        opened = timeout(timing.opening, Opened::read(stream)) => opened,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    // A client that breaks the protocol or goes away is its own business.
    let Ok(Ok(Some(opened))) = opened else {
        return;
    };
    if opened.is_http2 {
        over_http2(opened, exchange, is_one_of_many, stopped).await;
    } else {
        over_http1(opened, exchange, stopped).await;
    }
}

async fn over_http1(opened: Opened, exchange: Exchange, mut stopped: watch::Receiver<bool>) {
    let vitals = Arc::new(Vitals::new(exchange.timing));
    let io = TokioIo::new(opened.watched_by(Arc::clone(&vitals)));
    let mut connection = http1::Builder::new()
        // Vitals know when a head must be there, and how long a connection may be idle.
        .header_read_timeout(None)
        .max_header_size(HEAD_BYTES_MAX as usize)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(io, exchange);
    let mut alarm = Alarm::default();
    let drive = async {
        let mut is_stopping = false;
        loop {
            let driven = poll_fn(|context| {
                if let Poll::Ready(done) = Pin::new(&mut connection).poll(context) {
                    return Poll::Ready(Some(done));
                }
                if alarm.rings(vitals.deadline(), context) {
                    return Poll::Ready(None);
                }
                Poll::Pending
            });
            tokio::select! {
                done = driven => return done,
                _ = stopped.wait_for(|stopped| *stopped), if !is_stopping => {
                    is_stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    };
    let done = VITALS.scope(Arc::clone(&vitals), drive).await;
    let still_sends = match done {
        Some(Ok(())) => vitals.is_unread(),
        Some(Err(error)) => error.is_parse(),
        None => false,
    };
    if still_sends {
        linger(connection.into_parts().io.into_inner().stream).await;
    }
}

/// Reads and forgets what a peer still sends: closing now would reset the connection, and the peer would
/// see that instead of the answer.
async fn linger(mut stream: TcpStream) {
    let forget = async {
        let _ = stream.shutdown().await;
        let mut buffer = vec![0; 16 << 10];
        let mut bytes = 0;
        while bytes < LINGER_BYTES_MAX {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(more) => bytes += more,
            }
        }
    };
    let _ = timeout(LINGER_TIMEOUT, forget).await;
}

async fn over_http2(
    opened: Opened,
    exchange: Exchange,
    is_one_of_many: bool,
    mut stopped: watch::Receiver<bool>,
) {
    let timing = exchange.timing;
    let streams = Arc::new(Streams::new());
    let spawn = SpawnStreams {
        streams: Arc::clone(&streams),
        timing,
    };
    let (of_stream, of_connection) = if is_one_of_many {
        WINDOWS_OF_MANY
    } else {
        WINDOWS
    };
    let connection = http2::Builder::new(spawn)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(of_stream)
        .initial_connection_window_size(of_connection)
        .serve_connection(TokioIo::new(opened), exchange);
    let mut connection = pin!(connection);
    let mut alarm = Alarm::default();
    let (mut is_stopping, mut farewell) = (false, None::<Instant>);
    loop {
        let driven = poll_fn(|context| {
            if connection.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            let deadline = farewell.unwrap_or_else(|| streams.idle_at(timing.idle));
            if alarm.rings(Some(deadline), context) {
                return Poll::Ready(false);
            }
            Poll::Pending
        });
        tokio::select! {
            is_done = driven => {
                if is_done || farewell.is_some() {
                    return;
                }
                farewell = Some(Instant::now() + FAREWELL);
                connection.as_mut().graceful_shutdown();
            }
            _ = stopped.wait_for(|stopped| *stopped), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Serves each stream of a connection of HTTP/2 in a task of its own; one whose answer is not taken is
/// reset, and the connection's other streams go on.
#[derive(Clone)]
struct SpawnStreams {
    streams: Arc<Streams>,
    timing: Timing,
}

impl<F> Executor<F> for SpawnStreams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = self.streams.enter();
        let vitals = Arc::new(Vitals::new(self.timing));
        let serve = {
            let vitals = Arc::clone(&vitals);
            async move {
                let _open = open;
                let mut stream = pin!(stream);
                let mut alarm = Alarm::default();
                poll_fn(|context| {
                    let is_over = stream.as_mut().poll(context).is_ready()
                        || alarm.rings(vitals.answer_deadline(), context);
                    if is_over {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            }
        };
        tokio::spawn(VITALS.scope(vitals, serve));
    }
}
