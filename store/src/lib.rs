//! What xtrace remembers: the only crate that speaks SQL.
//!
//! - [`Store`]: a cheap handle on the database: connect, migrate, ping.
//! - [`writer`]: takes batches, commits them, and only then says so.
//! - [`traces`], [`observations`], [`sessions`], [`scores`], [`daily`], [`metrics`], [`logs`], [`experiments`],
//!   [`recent`]:
//!   reads, one entity each. [`projects`], [`keys`], [`prompts`], [`score_configs`], [`comments`],
//!   [`annotation_queues`], [`media`], [`models`], [`price_book`], [`datasets`], [`dataset_runs`]: small things, read and written. [`pending`]: log records that wait for their span. [`homeless`]:
//!   observations that wait for their trace.
//! - [`erasure`]: the end of projects.
//! - [`Reading`]: what one request may read, of connections and of bytes.
//! - [`filter`]: conditions that callers name by enum and that become SQL here and nowhere else.
//! - [`analytics`]: numbers about many rows, by dimensions and over time.
//! - [`background`]: loops, and how they are. [`usage`]: sums by hour, kept up to date. `partitions`,
//!   [`maintenance`]: day partitions ahead of time, and `retention` behind it.

pub mod analytics;
pub mod annotation_queues;
pub mod background;
pub mod comments;
pub mod configured_keys;
mod connect;
pub mod daily;
mod database;
pub mod dataset_runs;
pub mod datasets;
pub mod deletion;
pub mod erasure;
mod error;
pub mod experiments;
mod facts;
pub mod filter;
mod garbage;
pub mod homeless;
pub mod keys;
mod line;
pub mod logs;
pub mod maintenance;
pub mod media;
pub mod metrics;
pub mod models;
pub mod observations;
mod pace;
pub mod page;
mod partitions;
pub mod pending;
mod pooler;
pub mod price_book;
pub mod private_cluster;
pub mod projects;
pub mod prompts;
mod reading;
pub mod recent;
mod retention;
mod schema;
pub mod score_configs;
pub mod scores;
pub mod sessions;
mod statistics;
mod stored;
pub mod traces;
mod unusable;
pub mod usage;
pub mod writer;

pub use database::{Options, Readiness, Store, built_in_models, prices};
pub use error::StoreError;
pub use page::Page;
pub use price_book::PriceBook;
pub use reading::{ANSWER_BYTES_MAX, Reading};
pub use retention::Retention;
pub use unusable::Unusable;
pub use writer::{Committed, Health, Method, QueueState, Writer, WriterLimits};
