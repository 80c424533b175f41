//! Every integration test, in one program: real HTTP, a real Postgres.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod golden;
mod harness;
