//! xtrace, the program. The map:
//!
//! - [`router`]: every path of every dialect, on one screen.
//! - [`server`]: the composition root: database, writer, router, listener, drain.
//! - [`config`]: flags and environment; nothing else reads either.
//! - [`receivers`]: bytes in, a committed batch, a reply: OTLP and the native formats.
//! - [`api`]: native reads and service endpoints. (Langfuse's API is the crate `xtrace-compat`.)
//! - [`auth`], [`browsers`], [`limits`], [`patience`], [`proxies`], [`reads`], [`request_id`]: what happens to every request on its way.
//! - [`embedded_postgres`]: the private Postgres; yields a database URL, nothing else knows.
//! - [`self_metrics`]: what xtrace says of itself.
//! - [`exit`]: exit codes. [`privileges`]: root is left before anything listens. [`health`]: whether requests
//!   will be served.
//! - [`secrets`]: credentials that nobody configured, made on first start.

mod account;
pub mod api;
pub mod auth;
pub mod browsers;
pub mod commands;
pub mod config;
pub mod cors;
pub mod dialect;
pub mod embedded_postgres;
pub mod exit;
pub mod gateway;
pub mod health;
pub mod limits;
pub mod listener;
pub mod patience;
pub mod privileges;
pub mod proxies;
pub mod reads;
pub mod receivers;
pub mod request_id;
pub mod retry;
pub mod router;
pub mod secrets;
pub(crate) mod seldom;
pub mod self_metrics;
pub mod server;
pub mod telemetry;
