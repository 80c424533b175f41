//! One transaction: lock, read what is stored, merge, write what changed, commit, answer.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::{Acquire, PgConnection};
use xtrace_model::{Batch, time};

use super::combine::Documents;
use super::points::{self, KnownSeries};
use super::{Method, Request, rows};
use crate::partitions::{self, Partitioned};
use crate::{Store, StoreError};

/// Writes a group of requests and answers each. If the group fails for its data, every request is
/// tried alone, so that only the one with the poison fails.
pub(super) async fn group(store: &Store, series: &mut KnownSeries, requests: Vec<Request>) {
    let batches: Vec<&Batch> = requests.iter().map(|request| &request.batch).collect();
    let outcome = write(store, series, &batches).await;
    match outcome {
        Ok(()) => requests
            .into_iter()
            .for_each(|request| answer(request, Ok(()))),
        Err(StoreError::Refused(_) | StoreError::Internal(_)) if requests.len() > 1 => {
            for request in requests {
                let outcome = write(store, series, &[&request.batch]).await;
                answer(request, outcome);
            }
        }
        Err(error) => refuse(requests, error),
    }
}

/// Answers all requests with one failure; its cause is logged here, once.
fn refuse(requests: Vec<Request>, error: StoreError) {
    let cause = std::error::Error::source(&error);
    tracing::warn!(%error, ?cause, requests = requests.len(), "a write failed; nothing of it was taken");
    let mut requests = requests.into_iter();
    let first = requests.next();
    for request in requests {
        answer(request, Err(error.for_another()));
    }
    if let Some(request) = first {
        answer(request, Err(error));
    }
}

fn answer(request: Request, outcome: Result<(), StoreError>) {
    let Request {
        room, committed, ..
    } = request;
    drop(room);
    // A caller that went away doesn't matter: its rows are committed, and sending them again
    // would change nothing.
    let _ = committed.send(outcome);
}

async fn write(
    store: &Store,
    series: &mut KnownSeries,
    batches: &[&Batch],
) -> Result<(), StoreError> {
    let now = Utc::now();
    let documents = Documents::of(batches.iter().copied());
    let points = points::latest(batches);
    let mut connection = store.write().acquire().await?;
    make_partitions(&mut connection, &documents, &points, now).await?;
    let mut transaction = connection.begin().await?;
    if !documents.traces.is_empty() {
        write_documents(&mut transaction, store.method(), documents, now).await?;
    }
    let new_series = points::write(&mut transaction, series, &points, now).await?;
    transaction.commit().await?;
    series.remember(new_series);
    Ok(())
}

async fn make_partitions(
    connection: &mut PgConnection,
    documents: &Documents,
    points: &points::Latest<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let today = time::day_of(time::from_utc(now));
    // Today and the days after it are made ahead of time.
    let old = |days: BTreeSet<i64>| days.into_iter().filter(move |day| *day < today - 1);
    for (table, days) in [
        (Partitioned::Observations, documents.days()),
        (Partitioned::MetricPoints, points::days(points)),
    ] {
        let days = partitions::worthy(old(days), now);
        if !days.is_empty() {
            partitions::make(connection, table, &days).await?;
        }
    }
    Ok(())
}

async fn write_documents(
    connection: &mut PgConnection,
    method: Method,
    mut documents: Documents,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    rows::lock(connection, documents.traces.keys()).await?;
    let stored_traces = rows::stored_traces(connection, documents.traces.keys()).await?;
    let stored_observations =
        rows::stored_observations(connection, &stored_traces, documents.observations.keys())
            .await?;
    rows::replace_observations(connection, method, &mut documents, stored_observations, now)
        .await?;
    documents.add_extents();
    rows::replace_traces(connection, method, &mut documents, stored_traces, now).await
}
