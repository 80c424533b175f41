//! What xtrace is compared with. At best: the rows that it stored, sent again as bare binary `COPY`
//! into the same tables with the same indexes, with nothing else running. At worst: its own receivers
//! over a store that sends an `INSERT` a row.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::postgres::PgPoolCopyExt;
use sqlx::{Connection, PgConnection, PgPool};
use xtrace::config::{Cli, Command};
use xtrace::server::Server;
use xtrace_store::{Method, Options, Store};

use crate::machine::Postgres;

/// Rows of one transaction, and connections: the best of the measurements on two cores.
const CHUNK: i64 = 2000;
const CONNECTIONS: usize = 2;

pub(crate) struct Copied {
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    pub(crate) postgres: Duration,
}

/// Copies the observations and traces of one database into a new one.
pub(crate) async fn copy(postgres: &Postgres, from: &str, to: &str) -> Copied {
    let source = PgPool::connect(from).await.unwrap();
    let chunks = read(&source).await;
    source.close().await;
    let store = Store::new(&Options::new(to)).unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    let rows = chunks.iter().map(|(_, rows)| rows).sum();
    let mut shares: Vec<Vec<(&'static str, Vec<u8>)>> =
        (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (number, (chunk, _)) in chunks.into_iter().enumerate() {
        shares[number % CONNECTIONS].extend(chunk);
    }
    let cpu = postgres.cpu();
    let began = Instant::now();
    let tasks: Vec<_> = shares
        .into_iter()
        .map(|share| tokio::spawn(write(to.to_owned(), share)))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    Copied {
        rows,
        seconds: began.elapsed().as_secs_f64(),
        postgres: postgres.cpu() - cpu,
    }
}

/// Streams of a few thousand observations each and of their traces, in the order they were written.
async fn read(source: &PgPool) -> Vec<(Vec<(&'static str, Vec<u8>)>, u64)> {
    let numbered = [
        "create unlogged table bench_traces as select row_number() over () as n, t.* from traces t",
        "create unlogged table bench_rows as select b.n, row_number() over (order by b.n) as at, o.*
           from bench_traces b join observations o on o.project_id = b.project_id and o.trace_id = b.id",
        "create index on bench_rows (at)",
        "create index on bench_traces (n)",
    ];
    for statement in numbered {
        sqlx::query(statement).execute(source).await.unwrap();
    }
    let all: i64 = sqlx::query_scalar("select count(*) from bench_rows")
        .fetch_one(source)
        .await
        .unwrap();
    let mut chunks = Vec::new();
    let (mut at, mut trace) = (1, 1);
    while at <= all {
        let last: i64 =
            sqlx::query_scalar("select max(n) from bench_rows where at between $1 and $2")
                .bind(at)
                .bind(at + CHUNK - 1)
                .fetch_one(source)
                .await
                .unwrap();
        let mut chunk = Vec::new();
        for (table, query) in [
            (
                "observations",
                format!(
                    "select * from bench_rows where at between {at} and {}",
                    at + CHUNK - 1
                ),
            ),
            (
                "traces",
                format!("select * from bench_traces where n between {trace} and {last}"),
            ),
        ] {
            let columns = columns(source, table).await;
            let query = query.replacen('*', &columns, 1);
            let statement = format!("copy ({query}) to stdout (format binary)");
            let stream = source.copy_out_raw(&statement).await.unwrap();
            let parts: Vec<_> = stream.try_collect().await.unwrap();
            chunk.push((table, parts.concat()));
        }
        chunks.push((chunk, u64::try_from(CHUNK.min(all - at + 1)).unwrap()));
        (at, trace) = (at + CHUNK, last + 1);
    }
    chunks
}

async fn columns(source: &PgPool, table: &str) -> String {
    sqlx::query_scalar(
        "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
          where attrelid = to_regclass($1) and attnum > 0 and not attisdropped and attgenerated = ''",
    )
    .bind(table)
    .fetch_one(source)
    .await
    .unwrap()
}

async fn write(url: String, share: Vec<(&'static str, Vec<u8>)>) {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for pair in share.chunks(2) {
        let mut transaction = connection.begin().await.unwrap();
        for (table, stream) in pair {
            let statement = format!("copy {table} from stdin (format binary)");
            let mut copy = transaction.copy_in_raw(&statement).await.unwrap();
            for piece in stream.chunks(256 << 10) {
                copy.send(piece).await.unwrap();
            }
            copy.finish().await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

/// Serves until it is killed.
pub(crate) async fn serve_row_by_row(flags: &[String]) {
    let line = ["xtrace", "serve"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let Command::Serve(config) = Cli::try_from_arguments(line).unwrap().command else {
        unreachable!("the command is given")
    };
    let url = flags
        .iter()
        .skip_while(|flag| *flag != "--database-url")
        .nth(1)
        .unwrap();
    let options = Options {
        method: Some(Method::InsertEach),
        ..Options::new(url)
    };
    let _server = Server::start_on(config, &options).await.unwrap();
    std::future::pending::<()>().await;
}
