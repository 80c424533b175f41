//! A page of a list.

mod count;

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Postgres, QueryBuilder};

use crate::reading::{Bound, ROWS_MAX};
use crate::{Store, StoreError};

pub use count::EXACT_MAX;
pub(crate) use count::{Count, Estimates, count};

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
    /// Rows on all pages: exact up to [`EXACT_MAX`] unless they could not be counted in time; beyond it an
    /// estimate, but always more than were seen so far while there may be another page, so that turning pages
    /// leads through all of them.
    pub total: i64,
}

impl<T> Paged<T> {
    /// A page of a list whose rows were counted ahead.
    pub(crate) fn of(rows: Vec<T>, page: Page, count: Count) -> Self {
        let found = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let seen = page.offset().saturating_add(found);
        let total = match (count, found) {
            (Count::Exact(total), _) => total,
            (Count::About(total), 0) => total.min(seen),
            (Count::About(total), full) if full == page.limit => total.max(seen + 1),
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

/// How a page is sorted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// The keys; the first is an expression without spaces and commas.
    pub by: &'static str,
    /// Whether an index holds what matches in this order, so that few rows are visited for a page.
    pub is_indexed: bool,
}

impl Order {
    /// Where Postgres' choice is right: there are no conditions but those that an index is for.
    pub(crate) fn indexed(by: &'static str) -> Self {
        Self {
            by,
            is_indexed: true,
        }
    }

    /// Appends the keys. If few rows match, but no index knows which, the first key is made one that no index
    /// has: walking an index in the order of the list would visit all rows one by one until the page is full.
    fn push(self, sql: &mut QueryBuilder<Postgres>, count: Count) {
        if self.is_indexed || !count.is_few() {
            sql.push(self.by);
            return;
        }
        let end = self.by.find([' ', ',']).unwrap_or(self.by.len());
        let (first, rest) = self.by.split_at(end);
        sql.push(format_args!("coalesce({first}, {first}){rest}"));
    }
}

/// Reads one page: `columns` of what a query's `from` clause and conditions, which `push` appends, yield.
pub(crate) async fn read<T>(
    store: &Store,
    columns: &str,
    push: impl Fn(&mut QueryBuilder<Postgres>),
    order: Order,
    page: Page,
) -> Result<Paged<T>, StoreError>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let count = count(store, &push).await?;
    if count.ends_before(page) {
        return Ok(Paged::of(Vec::new(), page, count));
    }
    let mut rows = QueryBuilder::new("select ");
    rows.push(columns);
    push(&mut rows);
    rows.push(" order by ");
    order.push(&mut rows, count);
    rows.push(" limit ").push_bind(page.limit);
    rows.push(" offset ").push_bind(page.offset());
    let rows = rows.build_query_as().fetch_all(store.read()).await?;
    Ok(Paged::of(rows, page, count))
}
