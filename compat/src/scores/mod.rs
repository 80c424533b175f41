//! Scores: written by `POST /scores` and in batches, read in three versions.

pub(crate) mod create;
mod list;
pub(crate) mod v3;
pub(crate) mod view;

pub(crate) use create::create;
pub(crate) use list::{delete, find_v1, find_v2, list_v1, list_v2};
pub(crate) use v3::list_v3;
