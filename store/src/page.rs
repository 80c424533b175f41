//! A page of a list.

use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Postgres, QueryBuilder};

use crate::reading::{Bound, ROWS_MAX};
use crate::{Store, StoreError};

/// Which page a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Counted from 1.
    pub number: i64,
    /// Rows on a page, 1 to 100.
    pub limit: i64,
}

impl Page {
    /// Rows before this page.
    pub fn offset(self) -> i64 {
        (self.number - 1).saturating_mul(self.limit)
    }
}

/// Rows of one page, and how many there are on all of them.
#[derive(Debug, Clone)]
pub struct Paged<T> {
    /// The page's rows.
    pub rows: Vec<T>,
    /// Rows on all pages: exact up to [`EXACT_MAX`]; beyond it an estimate, but always more than were
    /// seen so far while there may be another page, so that whoever turns pages sees them all.
    pub total: i64,
}

/// Up to here rows are counted,
pub const EXACT_MAX: i64 = 10_000;
/// unless the statistics know of so many that there is no doubt.
const SURELY_MANY: i64 = 2 * EXACT_MAX;

impl<T> Paged<T> {
    /// A page of a list whose rows were counted, or estimated, ahead.
    pub(crate) fn of(rows: Vec<T>, page: Page, total: i64) -> Self {
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let seen = page.offset().saturating_add(count);
        let total = match count {
            _ if total <= EXACT_MAX => total,
            0 => total,
            full if full == page.limit => total.max(seen + 1),
            _ => seen,
        };
        Self { rows, total }
    }
}

/// A part of a list that goes on after its last row, for callers with cursors.
#[derive(Debug)]
pub struct Part<T> {
    /// The part's rows.
    pub rows: Vec<T>,
    /// Whether others follow.
    pub more: bool,
}

impl<T> Part<T> {
    /// The row that the next part begins after, if there is one.
    pub fn last(&self) -> Option<&T> {
        self.rows.last().filter(|_| self.more)
    }
}

/// A part ends with the row that makes it so large: who turns pages finds the rest on the next one.
const PART_BYTES_MAX: usize = 32_000_000;

/// Reads a part of what a statement without a limit yields.
pub(crate) async fn part<T>(
    store: &Store,
    mut sql: QueryBuilder<Postgres>,
    limit: i64,
) -> Result<Part<T>, StoreError>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    sql.push(" limit ").push_bind(limit + 1);
    let rows_max = usize::try_from(limit).unwrap_or_default();
    let reading = store.current_reading();
    let before = reading.bytes();
    let is_full = || reading.bytes() - before > PART_BYTES_MAX;
    let read = async {
        let (mut rows, mut more) = (Vec::new(), false);
        let mut found = sql.build_query_as().fetch(store.read());
        loop {
            match found.try_next().await {
                Ok(Some(_)) if rows.len() == rows_max => more = true,
                Ok(Some(row)) => {
                    rows.push(row);
                    more = is_full() && rows.len() < rows_max;
                    if more {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) if !rows.is_empty() && Bound::of(&error) == Some(Bound::Bytes) => {
                    more = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Part { rows, more })
    };
    reading.scope(read).await
}

/// Reads all rows of what a statement without a limit yields.
pub(crate) async fn all<T>(
    store: &Store,
    mut sql: QueryBuilder<Postgres>,
) -> Result<Vec<T>, StoreError>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    sql.push(format_args!(" limit {ROWS_MAX}"));
    Ok(sql.build_query_as().fetch_all(store.read()).await?)
}

/// Reads one page: `columns` of what a query's `from` clause and conditions, which `push` appends, yield.
pub(crate) async fn read<T>(
    store: &Store,
    columns: &str,
    push: impl Fn(&mut QueryBuilder<Postgres>),
    order: &'static str,
    page: Page,
) -> Result<Paged<T>, StoreError>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let total = count(store, &push).await?;
    if total <= page.offset() && total <= EXACT_MAX {
        return Ok(Paged::of(Vec::new(), page, total));
    }
    let mut rows = QueryBuilder::new("select ");
    rows.push(columns);
    push(&mut rows);
    rows.push(" order by ").push(order);
    rows.push(" limit ").push_bind(page.limit);
    rows.push(" offset ").push_bind(page.offset());
    let rows = rows.build_query_as().fetch_all(store.read()).await?;
    Ok(Paged::of(rows, page, total))
}

/// Counts the rows that a query's `from` clause and conditions, which `push` appends, yield.
pub(crate) async fn count(
    store: &Store,
    push: impl Fn(&mut QueryBuilder<Postgres>),
) -> Result<i64, StoreError> {
    let mut sql = QueryBuilder::new("explain (format json) select 1");
    push(&mut sql);
    let plan: Json<Value> = sql.build_query_scalar().fetch_one(store.read()).await?;
    let estimate = plan.0.pointer("/0/Plan/Plan Rows").and_then(Value::as_i64);
    let estimate = estimate.unwrap_or_default();
    if estimate > SURELY_MANY {
        return Ok(estimate);
    }
    let mut sql = QueryBuilder::new("select count(*) from (select 1");
    push(&mut sql);
    sql.push(" limit ")
        .push_bind(EXACT_MAX + 1)
        .push(") counted");
    let counted: i64 = sql.build_query_scalar().fetch_one(store.read()).await?;
    Ok(if counted > EXACT_MAX {
        counted.max(estimate)
    } else {
        counted
    })
}
