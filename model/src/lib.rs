//! The nouns of xtrace and their rules; no I/O, no wire format.
//!
//! - [`ids`]: project, trace and observation ids, parsed once.
//! - [`register`]: values that know which version wrote them, so that merging is free of order.
//! - [`stamps`]: the stamps of a document, as they are stored.
//! - [`tree`]: a JSON object merged leaf by leaf with the same law.
//! - [`trace`], [`observation`]: the two documents that arrive in parts.
//! - [`usage`], [`price`]: token counts, costs, and the price list that turns one into the other.
//! - [`score`]: a judgement of one of them.
//! - [`metric`]: a point of a time series and the identity of its series.
//! - [`batch`]: what one request contributes; the currency of the write path.
//! - [`text`]: which text Postgres can hold, and how other text is repaired.
//! - [`json`]: JSON values that Postgres can hold.
//! - `split`: large batches in parts.
//! - `repair`: documents in a form that Postgres can hold.
//! - [`capped`]: lists that are refused beyond a length while they are read.
//! - [`pieces`]: JSON that is made piece by piece.
//! - [`environment`]: how environments are normalised.
//! - [`time`]: microseconds since the epoch.
//! - [`credentials`], [`caller`]: an `Authorization` header, parsed, and what came of it.

pub mod batch;
pub mod caller;
pub mod capped;
pub mod credentials;
pub mod environment;
pub mod ids;
pub mod json;
pub mod log;
pub mod metric;
pub mod observation;
pub mod pieces;
pub mod price;
pub mod register;
mod repair;
pub mod score;
mod split;
pub mod stamps;
pub mod text;
pub mod time;
pub mod trace;
pub mod tree;
pub mod usage;

pub use batch::Batch;
pub use caller::{AuthFailure, Authentication, Caller};
pub use ids::{ObservationId, ProjectId, ScoreId, TraceId};
pub use log::LogRecord;
pub use metric::MetricPoint;
pub use observation::Observation;
pub use pieces::Pieces;
pub use register::{Register, Stamp};
pub use score::Score;
pub use stamps::Stamps;
pub use time::Micros;
pub use trace::Trace;
pub use tree::Tree;
