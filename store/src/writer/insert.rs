//! Rows to insert, by column, and the two ways to send them.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};
use xtrace_model::{Micros, time};

use super::copy;
use crate::StoreError;

/// How rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// A `COPY` stream: the least work for Postgres. It ends with a small message of its own, which
    /// over TCP waits for the server's delayed acknowledgement: 40 ms a statement, since sqlx leaves
    /// Nagle's algorithm on.
    Copy,
    /// One `INSERT … SELECT FROM unnest` with an array a column: one message.
    Insert,
}

/// How much of a `COPY` stream is sent at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// The values of one column.
pub(super) enum Column {
    Text(Vec<Option<String>>),
    /// JSON text.
    Jsonb(Vec<Option<String>>),
    TextArray(Vec<Vec<String>>),
    Time(Vec<Option<DateTime<Utc>>>),
    Int8(Vec<Option<i64>>),
    Int4(Vec<Option<i32>>),
    Float8(Vec<Option<f64>>),
    Bool(Vec<Option<bool>>),
}

/// Rows of one table. Values are given in the order of the table's columns.
#[derive(Default)]
pub(super) struct Rows {
    columns: Vec<Column>,
    at: usize,
    count: usize,
}

/// Appends a value to the column that is next, which every row must give the same type.
macro_rules! put {
    ($rows:ident, $kind:ident, $value:expr) => {{
        if $rows.columns.len() == $rows.at {
            $rows.columns.push(Column::$kind(Vec::new()));
        }
        match &mut $rows.columns[$rows.at] {
            Column::$kind(values) => values.push($value),
            _ => unreachable!("a column has the same type in every row"),
        }
        $rows.at += 1;
        $rows
    }};
}

impl Rows {
    /// Begins a row.
    pub(super) fn row(&mut self) -> &mut Self {
        self.at = 0;
        self.count += 1;
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn text(&mut self, value: Option<&str>) -> &mut Self {
        put!(self, Text, value.map(str::to_owned))
    }

    pub(super) fn jsonb(&mut self, value: Option<String>) -> &mut Self {
        put!(self, Jsonb, value)
    }

    pub(super) fn text_array<'a>(&mut self, values: impl Iterator<Item = &'a str>) -> &mut Self {
        put!(self, TextArray, values.map(str::to_owned).collect())
    }

    pub(super) fn time(&mut self, value: Option<Micros>) -> &mut Self {
        put!(self, Time, value.map(time::to_utc))
    }

    pub(super) fn int8(&mut self, value: Option<i64>) -> &mut Self {
        put!(self, Int8, value)
    }

    pub(super) fn int4(&mut self, value: Option<i32>) -> &mut Self {
        put!(self, Int4, value)
    }

    pub(super) fn float8(&mut self, value: Option<f64>) -> &mut Self {
        put!(self, Float8, value)
    }

    pub(super) fn bool(&mut self, value: Option<bool>) -> &mut Self {
        put!(self, Bool, value)
    }

    /// Inserts all rows; `names` are the table's columns in the order of the values.
    pub(super) async fn insert(
        self,
        connection: &mut PgConnection,
        method: Method,
        table: &'static str,
        names: &'static str,
    ) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        match method {
            Method::Copy => self.copy(connection, table, names).await,
            Method::Insert => self.unnest(connection, table, names).await,
        }
    }

    async fn copy(
        self,
        connection: &mut PgConnection,
        table: &'static str,
        names: &'static str,
    ) -> Result<(), StoreError> {
        let statement = format!("copy {table} ({names}) from stdin (format binary)");
        let stream = copy::stream(&self.columns, self.count);
        let mut copy = connection.copy_in_raw(&statement).await?;
        for chunk in stream.chunks(CHUNK_BYTES) {
            if let Err(error) = copy.send(chunk).await {
                // Left unfinished, it would poison the connection.
                copy.abort("the stream broke").await?;
                return Err(error.into());
            }
        }
        copy.finish().await?;
        Ok(())
    }

    async fn unnest(
        self,
        connection: &mut PgConnection,
        table: &'static str,
        names: &'static str,
    ) -> Result<(), StoreError> {
        let statement = statement(table, names, &self.columns);
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for column in self.columns {
            query = match column {
                Column::Text(values) | Column::Jsonb(values) => query.bind(values),
                Column::TextArray(values) => {
                    let texts = values
                        .into_iter()
                        .map(|texts| serde_json::Value::from(texts).to_string());
                    query.bind(texts.collect::<Vec<_>>())
                }
                Column::Time(values) => query.bind(values),
                Column::Int8(values) => query.bind(values),
                Column::Int4(values) => query.bind(values),
                Column::Float8(values) => query.bind(values),
                Column::Bool(values) => query.bind(values),
            };
        }
        query.execute(connection).await?;
        Ok(())
    }
}

/// The same text for every batch of a table, so that Postgres parses it once a connection.
fn statement(table: &str, names: &str, columns: &[Column]) -> String {
    let numbered = || {
        columns
            .iter()
            .enumerate()
            .map(|(index, column)| (index + 1, column))
    };
    let arrays: Vec<String> = numbered()
        .map(|(number, column)| {
            let array = match column {
                Column::Text(_) | Column::Jsonb(_) | Column::TextArray(_) => "text[]",
                Column::Time(_) => "timestamptz[]",
                Column::Int8(_) => "bigint[]",
                Column::Int4(_) => "int[]",
                Column::Float8(_) => "float8[]",
                Column::Bool(_) => "boolean[]",
            };
            format!("${number}::{array}")
        })
        .collect();
    let values: Vec<String> = numbered()
        .map(|(number, column)| match column {
            Column::Jsonb(_) => format!("c{number}::jsonb"),
            Column::TextArray(_) => {
                format!("array(select jsonb_array_elements_text(c{number}::jsonb))")
            }
            _ => format!("c{number}"),
        })
        .collect();
    let aliases: Vec<String> = numbered().map(|(number, _)| format!("c{number}")).collect();
    format!(
        "insert into {table} ({names}) select {} from unnest({}) u({})",
        values.join(", "),
        arrays.join(", "),
        aliases.join(", ")
    )
}
