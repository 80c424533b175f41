//! A `tracing` layer that turns events and spans into metric points.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use uuid::Uuid;

use crate::{Client, MetricPoint};

/// The metric that holds how long spans took, in seconds.
pub const SPAN_DURATION_METRIC: &str = "span_duration";

/// Fields of spans and events that become labels.
const LABEL_FIELDS: [&str; 8] = [
    "session_id",
    "task_id",
    "model",
    "model_name",
    "provider",
    "agent_role",
    "tool_name",
    "status",
];
/// Points that wait at most; more are dropped rather than held against the application.
const QUEUE_POINTS_MAX: usize = 10_000;
const BATCH_POINTS_MAX: usize = 500;
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// Pushes metric points in the background.
///
/// - Events with `metric` and `value` become a point; label fields become its labels.
/// - Spans become a point of [`SPAN_DURATION_METRIC`] with the label `span_name`.
/// - Root spans get a trace id (or keep the one in their field `trace_id`), which their children
///   inherit and which every point has as the label `trace_id`.
///
/// Must be made within a tokio runtime.
#[derive(Debug, Clone)]
pub struct XtraceLayer {
    points: mpsc::Sender<MetricPoint>,
}

/// What the layer keeps on a span.
struct SpanState {
    began: Instant,
    trace_id: String,
    labels: BTreeMap<String, String>,
}

thread_local! {
    /// Trace ids of the spans that this thread is in, innermost last.
    static ENTERED: RefCell<Vec<(Id, String)>> = const { RefCell::new(Vec::new()) };
}

/// The trace id of the current span; none outside of spans or without [`XtraceLayer`].
pub fn current_trace_id() -> Option<String> {
    ENTERED.with_borrow(|entered| entered.last().map(|(_, trace_id)| trace_id.clone()))
}

impl XtraceLayer {
    /// A layer that pushes through `client`.
    pub fn new(client: Client) -> Self {
        let (points, queue) = mpsc::channel(QUEUE_POINTS_MAX);
        tokio::spawn(push(client, queue));
        Self { points }
    }

    fn send(&self, name: String, value: f64, labels: BTreeMap<String, String>) {
        let point = MetricPoint {
            name,
            labels,
            value,
            timestamp: Utc::now(),
        };
        // A full queue drops the point: metrics must not hold up the application.
        let _ = self.points.try_send(point);
    }
}

/// Sends what waits, twice a second or as soon as a batch is full.
async fn push(client: Client, mut queue: mpsc::Receiver<MetricPoint>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_POINTS_MAX).await > 0 {
        if batch.len() < BATCH_POINTS_MAX {
            tokio::time::sleep(FLUSH_INTERVAL).await;
            while let Ok(point) = queue.try_recv() {
                batch.push(point);
            }
        }
        // A batch that the server refuses is lost; the next one may get through.
        let _ = client.push_metrics(&batch).await;
        batch.clear();
    }
}

impl<S> Layer<S> for XtraceLayer
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let inherited = span.parent().and_then(|parent| trace_id(&parent));
        let trace_id = fields
            .trace_id
            .or(inherited)
            .unwrap_or_else(|| Uuid::new_v4().to_string());
        let state = SpanState {
            began: Instant::now(),
            trace_id,
            labels: fields.labels,
        };
        span.extensions_mut().insert(state);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(trace_id) = context.span(id).as_ref().and_then(trace_id) {
            ENTERED.with_borrow_mut(|entered| entered.push((id.clone(), trace_id)));
        }
    }

    fn on_exit(&self, id: &Id, _context: Context<'_, S>) {
        ENTERED.with_borrow_mut(|entered| {
            if let Some(position) = entered.iter().rposition(|(known, _)| known == id) {
                entered.remove(position);
            }
        });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (Some(metric), Some(value)) = (fields.metric, fields.value) else {
            return;
        };
        let mut labels = BTreeMap::new();
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(state) = span.extensions().get::<SpanState>() {
                    labels.extend(state.labels.clone());
                    labels.insert("trace_id".to_owned(), state.trace_id.clone());
                }
            }
        }
        labels.extend(fields.labels);
        self.send(metric, value, labels);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else {
            return;
        };
        let Some(state) = span.extensions_mut().remove::<SpanState>() else {
            return;
        };
        let mut labels = state.labels;
        labels.insert("span_name".to_owned(), span.name().to_owned());
        labels.insert("trace_id".to_owned(), state.trace_id);
        let duration_s = state.began.elapsed().as_secs_f64();
        self.send(SPAN_DURATION_METRIC.to_owned(), duration_s, labels);
    }
}

fn trace_id<S: for<'lookup> LookupSpan<'lookup>>(span: &SpanRef<'_, S>) -> Option<String> {
    span.extensions()
        .get::<SpanState>()
        .map(|state| state.trace_id.clone())
}

/// The fields that the layer looks at.
#[derive(Default)]
struct Fields {
    metric: Option<String>,
    value: Option<f64>,
    trace_id: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Fields {
    fn text(&mut self, field: &Field, text: String) {
        match field.name() {
            "metric" => self.metric = Some(text),
            "trace_id" => self.trace_id = Some(text),
            name if LABEL_FIELDS.contains(&name) => {
                self.labels.insert(name.to_owned(), text);
            }
            _ => {}
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match field.name() {
            "value" => self.value = Some(value),
            _ => self.text(field, value.to_string()),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        match field.name() {
            "value" => self.value = Some(value as f64),
            _ => self.text(field, value.to_string()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "value" => self.value = Some(value as f64),
            _ => self.text(field, value.to_string()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }
}
