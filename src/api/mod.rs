//! The native API's reads and service endpoints.

pub mod erasures;
pub mod error;
pub mod logs;
pub mod metrics;
mod parameters;
pub mod service;
