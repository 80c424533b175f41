//! Rows to write, and the ways to send them.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};
use xtrace_model::{Micros, time};

use super::copy;
use crate::StoreError;

/// How new rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A `COPY` stream: the least work for Postgres. It ends with a small message of its own, which
    /// over TCP waits for the server's delayed acknowledgement: 40 ms a statement, since sqlx leaves
    /// Nagle's algorithm on.
    Copy,
    /// One `INSERT … SELECT FROM unnest` with an array a column: one message.
    Insert,
    /// An `INSERT` a row. Nobody should: benchmarks compare the others with it.
    InsertEach,
}

/// How much of a `COPY` stream is sent at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Rows of one table, in the form that they are sent in.
pub(super) struct Rows {
    table: &'static str,
    names: &'static [&'static str],
    values: Values,
    count: usize,
}

enum Values {
    /// A stream in the binary format of `COPY`.
    Stream(Vec<u8>),
    /// By column; `at` is the column whose value is next.
    Columns {
        columns: Vec<Column>,
        at: usize,
        each: bool,
    },
}

/// The values of one column.
enum Column {
    Text(Vec<Option<String>>),
    /// JSON text.
    Jsonb(Vec<Option<String>>),
    /// JSON text of an array of texts.
    TextArray(Vec<Option<String>>),
    Time(Vec<Option<DateTime<Utc>>>),
    Int8(Vec<Option<i64>>),
    Int4(Vec<Option<i32>>),
    Float8(Vec<Option<f64>>),
    Bool(Vec<Option<bool>>),
}

/// Appends a value: to the stream, or to the column that is next, which every row must give the
/// same type.
macro_rules! put {
    ($rows:ident, $kind:ident, $value:expr, $encode:expr) => {{
        match &mut $rows.values {
            Values::Stream(stream) => $encode(stream),
            Values::Columns { columns, at, .. } => {
                if columns.len() == *at {
                    columns.push(Column::$kind(Vec::new()));
                }
                match &mut columns[*at] {
                    Column::$kind(values) => values.push($value),
                    _ => unreachable!("a column has the same type in every row"),
                }
                *at += 1;
            }
        }
        $rows
    }};
}

impl Rows {
    /// No rows yet. `names` are the table's columns in the order that every row gives them in.
    pub(super) fn new(table: &'static str, names: &'static [&'static str], method: Method) -> Self {
        // Rows are written with their project, and replaced by it.
        debug_assert_eq!(names.first(), Some(&"project_id"));
        let values = match method {
            Method::Copy => Values::Stream(copy::header()),
            Method::Insert | Method::InsertEach => Values::Columns {
                columns: Vec::new(),
                at: 0,
                each: method == Method::InsertEach,
            },
        };
        Self {
            table,
            names,
            values,
            count: 0,
        }
    }

    /// Makes room for so many bytes of a stream at once.
    pub(super) fn reserve(&mut self, bytes: usize) {
        if let Values::Stream(stream) = &mut self.values {
            stream.reserve(bytes);
        }
    }

    /// Begins a row.
    pub(super) fn row(&mut self) -> &mut Self {
        self.count += 1;
        match &mut self.values {
            Values::Stream(stream) => copy::put_row(stream, self.names.len()),
            Values::Columns { at, .. } => *at = 0,
        }
        self
    }

    pub(super) fn text(&mut self, value: Option<&str>) -> &mut Self {
        put!(self, Text, value.map(str::to_owned), |stream| copy::put(
            stream,
            value.map(str::as_bytes)
        ))
    }

    pub(super) fn jsonb(&mut self, value: Option<String>) -> &mut Self {
        put!(self, Jsonb, value, |stream| copy::put_jsonb(
            stream,
            value.as_deref()
        ))
    }

    pub(super) fn text_array<'a>(&mut self, values: impl Iterator<Item = &'a str>) -> &mut Self {
        let values: Vec<&str> = values.collect();
        put!(
            self,
            TextArray,
            Some(serde_json::Value::from(values).to_string()),
            |stream| {
                copy::put_texts(stream, &values);
            }
        )
    }

    pub(super) fn time(&mut self, value: Option<Micros>) -> &mut Self {
        put!(
            self,
            Time,
            value.map(time::to_utc),
            |stream| copy::put_time(stream, value)
        )
    }

    pub(super) fn int8(&mut self, value: Option<i64>) -> &mut Self {
        put!(self, Int8, value, |stream| copy::put_fixed(
            stream,
            value.map(i64::to_be_bytes)
        ))
    }

    pub(super) fn int4(&mut self, value: Option<i32>) -> &mut Self {
        put!(self, Int4, value, |stream| copy::put_fixed(
            stream,
            value.map(i32::to_be_bytes)
        ))
    }

    pub(super) fn float8(&mut self, value: Option<f64>) -> &mut Self {
        put!(self, Float8, value, |stream| copy::put_fixed(
            stream,
            value.map(f64::to_be_bytes)
        ))
    }

    pub(super) fn bool(&mut self, value: Option<bool>) -> &mut Self {
        put!(self, Bool, value, |stream| copy::put_fixed(
            stream,
            value.map(|truth| [u8::from(truth)])
        ))
    }

    /// Bytes of the stream so far.
    pub(super) fn bytes(&self) -> usize {
        match &self.values {
            Values::Stream(stream) => stream.len(),
            Values::Columns { .. } => 0,
        }
    }

    /// Inserts all rows.
    pub(super) async fn insert(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.count == 0 {
            return Ok(());
        }
        let names = self.names.join(", ");
        match self.values {
            Values::Stream(stream) => send_stream(connection, self.table, &names, stream).await,
            Values::Columns {
                columns,
                each: false,
                ..
            } => {
                let sql = insert_statement(self.table, &names, &columns);
                bind_columns(&sql, columns).execute(connection).await?;
                Ok(())
            }
            Values::Columns {
                columns,
                each: true,
                ..
            } => insert_each(connection, self.table, &names, &columns, self.count).await,
        }
    }

    /// Inserts the rows whose keys are not there yet; how many those are.
    pub(super) async fn insert_new(self, connection: &mut PgConnection) -> Result<u64, StoreError> {
        let Values::Columns { columns, .. } = self.values else {
            unreachable!("rows that may be there already are gathered by column")
        };
        if self.count == 0 {
            return Ok(0);
        }
        let insert = insert_statement(self.table, &self.names.join(", "), &columns);
        let sql = format!("{insert} on conflict do nothing");
        let inserted = bind_columns(&sql, columns).execute(connection).await?;
        Ok(inserted.rows_affected())
    }

    /// Replaces the rows of the same key that still have the version that the last value of a row
    /// tells; how many those are. The first two columns are the key.
    pub(super) async fn replace(self, connection: &mut PgConnection) -> Result<u64, StoreError> {
        let Values::Columns { columns, .. } = self.values else {
            unreachable!("rows to replace others are gathered by column")
        };
        if self.count == 0 {
            return Ok(0);
        }
        let version = columns.len();
        let sql = format!(
            "update {} t set ({}) = row({}) from {}
              where t.{} = c1 and t.{} = c2 and t.xmin::text = c{version}",
            self.table,
            self.names.join(", "),
            expressions(&columns[..version - 1]),
            from_unnest(&columns),
            self.names[0],
            self.names[1],
        );
        Ok(bind_columns(&sql, columns)
            .execute(connection)
            .await?
            .rows_affected())
    }
}

fn insert_statement(table: &str, names: &str, columns: &[Column]) -> String {
    let (values, from) = (expressions(columns), from_unnest(columns));
    format!("insert into {table} ({names}) select {values} from {from}")
}

async fn send_stream(
    connection: &mut PgConnection,
    table: &str,
    names: &str,
    mut stream: Vec<u8>,
) -> Result<(), StoreError> {
    copy::put_trailer(&mut stream);
    let statement = format!("copy {table} ({names}) from stdin (format binary)");
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

/// `unnest($1::text[], …) u(c1, …)`: the same text for every batch of a table, so that Postgres
/// parses it once a connection.
fn from_unnest(columns: &[Column]) -> String {
    let numbered = || (1..).zip(columns);
    let arrays = numbered().map(|(number, column)| {
        let array = match column {
            Column::Text(_) | Column::Jsonb(_) | Column::TextArray(_) => "text[]",
            Column::Time(_) => "timestamptz[]",
            Column::Int8(_) => "bigint[]",
            Column::Int4(_) => "int[]",
            Column::Float8(_) => "float8[]",
            Column::Bool(_) => "boolean[]",
        };
        format!("${number}::{array}")
    });
    let arrays: Vec<String> = arrays.collect();
    let names: Vec<String> = numbered().map(|(number, _)| format!("c{number}")).collect();
    format!("unnest({}) u({})", arrays.join(", "), names.join(", "))
}

/// The columns of `unnest` as the table's types.
fn expressions(columns: &[Column]) -> String {
    let expressions = (1..).zip(columns).map(|(number, column)| match column {
        Column::Jsonb(_) => format!("c{number}::jsonb"),
        Column::TextArray(_) => {
            format!("array(select jsonb_array_elements_text(c{number}::jsonb))")
        }
        _ => format!("c{number}"),
    });
    expressions.collect::<Vec<_>>().join(", ")
}

fn bind_columns(sql: &str, columns: Vec<Column>) -> Query<'_, Postgres, PgArguments> {
    let query = sqlx::query(AssertSqlSafe(sql));
    columns
        .into_iter()
        .fold(query, |query, column| match column {
            Column::Text(values) | Column::Jsonb(values) | Column::TextArray(values) => {
                query.bind(values)
            }
            Column::Time(values) => query.bind(values),
            Column::Int8(values) => query.bind(values),
            Column::Int4(values) => query.bind(values),
            Column::Float8(values) => query.bind(values),
            Column::Bool(values) => query.bind(values),
        })
}

async fn insert_each(
    connection: &mut PgConnection,
    table: &str,
    names: &str,
    columns: &[Column],
    count: usize,
) -> Result<(), StoreError> {
    let values = (1..).zip(columns).map(|(number, column)| match column {
        Column::Jsonb(_) => format!("${number}::text::jsonb"),
        Column::TextArray(_) => {
            format!("array(select jsonb_array_elements_text(${number}::text::jsonb))")
        }
        _ => format!("${number}"),
    });
    let values: Vec<String> = values.collect();
    let sql = format!(
        "insert into {table} ({names}) values ({})",
        values.join(", ")
    );
    for row in 0..count {
        let query = sqlx::query(AssertSqlSafe(sql.as_str()));
        let query = columns.iter().fold(query, |query, column| match column {
            Column::Text(values) | Column::Jsonb(values) | Column::TextArray(values) => {
                query.bind(values[row].as_deref())
            }
            Column::Time(values) => query.bind(values[row]),
            Column::Int8(values) => query.bind(values[row]),
            Column::Int4(values) => query.bind(values[row]),
            Column::Float8(values) => query.bind(values[row]),
            Column::Bool(values) => query.bind(values[row]),
        });
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
