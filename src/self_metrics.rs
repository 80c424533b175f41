//! What xtrace says of itself: `GET /metrics` in Prometheus' text format.
//!
//! Counters and histograms are kept where things happen, through the `metrics` facade; gauges are
//! read when somebody asks.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use xtrace_model::{AuthFailure, Authentication};

use crate::api::error::ApiError;
use crate::gateway::Gateway;

const SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
const ROWS: [f64; 8] = [1.0, 10.0, 50.0, 200.0, 1000.0, 5000.0, 20_000.0, 100_000.0];

/// The process's recorder; servers in one process share it.
fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_rows".to_owned()), &ROWS))
            .expect("the lists of buckets are not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Another recorder can only have been installed by a program that embeds this one.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        keep_up(handle.clone());
        handle
    })
}

/// How often recorded values are sorted into their buckets, whether or not anybody asks for them.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Every value of a histogram takes 16 bytes until it is sorted into its bucket. A thread does that: it
/// belongs to the process, as the recorder does, and outlives the runtime of any one server.
fn keep_up(handle: PrometheusHandle) {
    let work = move || {
        loop {
            std::thread::sleep(UPKEEP_INTERVAL);
            handle.run_upkeep();
        }
    };
    let thread = std::thread::Builder::new().name("metrics".to_owned());
    if let Err(error) = thread.spawn(work) {
        tracing::error!(%error, "no thread for metrics: their memory grows unless GET /metrics is asked");
    }
}

/// Begins to record.
pub fn install() {
    recorder();
}

/// What is so now, with what it means.
const GAUGES: &[(&str, &str)] = &[
    (
        "xtrace_metric_shards_failing",
        "Shards of metric points that the last round could not move",
    ),
    (
        "xtrace_metric_rows_set_aside",
        "Blocks and chunks that can't be read and are kept",
    ),
    ("xtrace_erasures", "Projects that are being deleted"),
    ("xtrace_connections", "Connections that are open"),
    ("xtrace_queue_bytes", "Bytes that wait or are being written"),
    ("xtrace_queue_rows", "Rows that wait or are being written"),
    (
        "xtrace_queue_age_seconds",
        "Age of the oldest batch in the queue",
    ),
    (
        "xtrace_pool_connections",
        "Connections to Postgres, by pool and state",
    ),
    ("xtrace_partitions", "Day partitions, by table"),
    (
        "xtrace_usage_dirty_hours",
        "Hours with changes of usage that the sums don't hold yet",
    ),
    (
        "xtrace_usage_dirty_oldest_seconds",
        "Age of the oldest change of usage that the sums don't hold yet",
    ),
    (
        "xtrace_usage_unknown_days",
        "Days of projects that are to be summed up from their traces",
    ),
    (
        "xtrace_usage_failing",
        "Hours and days of projects whose usage can't be summed up, by which",
    ),
    (
        "xtrace_metric_shards_due",
        "Shards whose metric points are to be moved into chunks",
    ),
    (
        "xtrace_background_last_success_timestamp_seconds",
        "When work in the background last succeeded, by loop",
    ),
    ("xtrace_build_info", "1, with the version"),
];

/// What happened so far, with what it means.
const COUNTERS: &[(&str, &str)] = &[
    ("xtrace_accepted_total", "Items acknowledged, by signal"),
    (
        "xtrace_refused_total",
        "Requests and items refused, by cause",
    ),
    (
        "xtrace_reads_refused_total",
        "Reads that found no connection, no memory, or too many bytes",
    ),
    (
        "xtrace_database_silences_total",
        "Connections to Postgres that gave no sign of life in time",
    ),
    (
        "xtrace_repaired_total",
        "Values stored otherwise than they were sent, by what was done",
    ),
    (
        "xtrace_connections_refused_total",
        "Connections closed for their number, by the limit that they met",
    ),
    ("xtrace_committed_rows_total", "Rows committed, by table"),
    (
        "xtrace_unchanged_transactions_total",
        "Transactions that had nothing to write",
    ),
    (
        "xtrace_writer_panics_total",
        "Writers that panicked and were started again",
    ),
    (
        "xtrace_unreadable_states_total",
        "Stored rows that nothing could be merged with",
    ),
    (
        "xtrace_conflicts_total",
        "Transactions that another writer was faster than",
    ),
    (
        "xtrace_dropped_total",
        "Partitions that were dropped, and rows that were deleted a few at a time, by which",
    ),
    (
        "xtrace_background_restarts_total",
        "Ends of loops that should not end, by loop: panics, and loops that hung",
    ),
    (
        "xtrace_background_failures_total",
        "Rounds of work in the background that failed, by loop",
    ),
    (
        "xtrace_retention_refused_total",
        "Rounds of retention that deleted nothing, since a clock is not to be believed",
    ),
    (
        "xtrace_moved_points_total",
        "Metric points written into chunks",
    ),
    (
        "xtrace_metric_rows_unread_total",
        "Blocks and chunks that a question could not read, by kind and cause",
    ),
    (
        "xtrace_metric_rows_damaged_total",
        "Blocks and chunks that can't be read and were set aside, by kind",
    ),
];

fn describe() {
    for (name, text) in COUNTERS {
        describe_counter!(*name, *text);
    }
    let seconds = [
        (
            "xtrace_request_seconds",
            "Time to answer, by route and status",
        ),
        (
            "xtrace_queue_seconds",
            "Time that a batch waited for its transaction",
        ),
        (
            "xtrace_commit_seconds",
            "Time of a transaction, from reading to commit",
        ),
    ];
    for (name, text) in seconds {
        describe_histogram!(name, Unit::Seconds, text);
    }
    describe_histogram!("xtrace_transaction_rows", "Rows of a transaction");
    for (name, text) in GAUGES {
        describe_gauge!(*name, *text);
    }
}

/// `GET /metrics` among the other paths, for administrators: it shows the traffic of all projects.
pub async fn show(
    State(gateway): State<Gateway>,
    caller: axum::Extension<Authentication>,
) -> Result<Response, ApiError> {
    if !caller.0.map_err(ApiError::Auth)?.scopes.admin {
        return Err(ApiError::Auth(AuthFailure::Insufficient));
    }
    Ok(show_open(State(gateway)).await)
}

/// `GET /metrics` on a listener of its own, for whoever reaches it.
pub async fn show_open(State(gateway): State<Gateway>) -> Response {
    set_gauges(&gateway);
    recorder().run_upkeep();
    let content_type = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, recorder().render()).into_response()
}

fn set_gauges(gateway: &Gateway) {
    let queue = gateway.writer.queue();
    gauge!("xtrace_queue_bytes").set(queue.bytes as f64);
    gauge!("xtrace_queue_rows").set(queue.rows as f64);
    gauge!("xtrace_queue_age_seconds").set(queue.age.as_secs_f64());
    for (pool, used, idle) in gateway.store.connections() {
        gauge!("xtrace_pool_connections", "pool" => pool, "state" => "used").set(f64::from(used));
        gauge!("xtrace_pool_connections", "pool" => pool, "state" => "idle").set(f64::from(idle));
    }
    gauge!("xtrace_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Middleware: how long each route takes.
pub async fn time_requests(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let method = method_name(request.method());
    let began = Instant::now();
    let response = next.run(request).await;
    // Paths that are none would make as many series as somebody likes.
    let route = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let status = response.status().as_str().to_owned();
    histogram!("xtrace_request_seconds", "method" => method, "route" => route, "status" => status)
        .record(began.elapsed().as_secs_f64());
    response
}

/// The name of a method for labels and logs. Any token is a method, so names of callers' own would make as
/// many series as they like, each as long as they like.
pub(crate) fn method_name(method: &Method) -> &'static str {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    const NAMES: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE",
    ];
    let place = KNOWN.iter().position(|known| known == method);
    place.map_or("other", |place| NAMES[place])
}

/// Counts a refusal.
pub(crate) fn refused(cause: &'static str, count: usize) {
    counter!("xtrace_refused_total", "cause" => cause).increment(count as u64);
}
