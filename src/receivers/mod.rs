//! Receivers: bytes in, a committed batch, a reply in the sender's own terms.
//!
//! Every receiver does the same four things: read the body within limits ([`body`]), decode its
//! format, turn it into a [`xtrace_model::Batch`], and submit that.

pub(crate) mod aside;
pub mod body;
pub mod langfuse;
pub mod native;
pub mod otlp;
