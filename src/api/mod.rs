//! The native API's reads and service endpoints.

pub mod error;
pub mod metrics;
pub mod service;
