//! Rules of the house that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};

use crate::statements::{owned_tables, unowned_in, unowned_mentions};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir` with one of the endings, as its path within the repository and its text.
fn files(dir: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root().join(dir), endings, &mut found);
    assert!(!found.is_empty(), "{dir} has no such files");
    found.sort();
    found
}

fn collect(dir: &Path, endings: &[&str], found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["target", "node_modules", "proptest-regressions"].contains(&name) {
            collect(&path, endings, found);
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            let relative = path
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.push((relative, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn rust(dir: &str) -> Vec<(String, String)> {
    files(dir, &[".rs"])
}

#[test]
fn no_file_frightens() {
    const LINES_MAX: usize = 600;
    for dir in ["model", "store", "compat", "client", "src", "tests"] {
        for (path, text) in rust(dir) {
            let lines = text.lines().count();
            assert!(
                lines <= LINES_MAX,
                "{path} has {lines} lines; split it by what it holds"
            );
            assert!(
                text.starts_with("//!") || path.ends_with("proptest-regressions"),
                "{path} doesn't say what it holds"
            );
        }
    }
}

#[test]
fn nobody_knows_what_they_should_not() {
    let banned = [
        ("model/src", &["sqlx::", "axum::", "prost::"][..]),
        ("compat/src", &["sqlx::"]),
        ("src", &["sqlx::"]),
        ("store/src", &["axum::"]),
        (
            "src/receivers",
            &[
                "crate::api::metrics",
                "crate::api::service",
                "crate::router",
                "crate::server",
            ],
        ),
        (
            "src/api",
            &[
                "crate::receivers::otlp",
                "crate::receivers::native",
                "crate::router",
                "crate::server",
            ],
        ),
    ];
    for (dir, words) in banned {
        for (path, text) in rust(dir) {
            for word in words {
                let used = text
                    .lines()
                    .any(|line| line.contains(word) && !line.trim_start().starts_with("//"));
                assert!(!used, "{path} uses {word}, which {dir} must not know");
            }
        }
    }
}

#[test]
fn paths_are_listed_in_one_place_per_dialect() {
    for dir in ["src", "compat/src"] {
        for (path, text) in rust(dir) {
            let program = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lists = program.contains(".route(");
            assert!(
                !lists || path == "src/router.rs" || path == "compat/src/lib.rs",
                "{path} lists a path"
            );
        }
    }
}

/// Statements that name no project, or not themselves: where, how they begin, and why.
const WITHOUT_PROJECT: &[(&str, &str, &str)] = &[
    // What is filled in is no table.
    ("store/src/usage/fold.rs", "using {fresh} f", "a sub-query"),
    ("store/src/usage/fold.rs", "from {fresh}", "a sub-query"),
    ("store/src/usage/fold.rs", "from {taken}", "a sub-query"),
    (
        "store/src/usage/fold.rs",
        "from {ENTRIES}",
        "usage of a trace's row",
    ),
    (
        "store/src/daily.rs",
        "from {ENTRIES}",
        "usage of a trace's row",
    ),
    (
        "store/src/writer/known.rs",
        "from {}",
        "UNNEST_KEYS joins by the keys' projects",
    ),
    (
        "store/src/private_cluster.rs",
        "from {what}",
        "a catalogue: roles or databases",
    ),
    // Rows that are written have their project among their columns, and those that are replaced are found by
    // it: it is the first of the names.
    ("store/src/writer/insert.rs", "update {} t", "names[0]"),
    (
        "store/src/writer/insert.rs",
        "from {} where t.{}",
        "arrays of values",
    ),
    ("store/src/writer/insert.rs", "into {table}", "names"),
    ("store/src/writer/insert.rs", "copy {table}", "names"),
    (
        "store/src/writer/insert.rs",
        "from {from}",
        "arrays of values",
    ),
    // Rows are found by their project within, and named by their place.
    ("store/src/garbage.rs", "from {table} where ctid", "steps"),
    ("store/src/garbage.rs", "from {table} g where", "steps"),
    // Whole tables: rows beyond everybody's age, rows that move between partitions, and how many there are.
    (
        "store/src/partitions/end.rs",
        "from {default} where",
        "by age",
    ),
    (
        "store/src/partitions/make.rs",
        "from {default} where",
        "by day",
    ),
    ("store/src/partitions/make.rs", "into {name}", "by day"),
    (
        "store/src/pending.rs",
        "from pending_content where",
        "by age",
    ),
    (
        "store/src/metrics/set_aside.rs",
        "from metric_set_aside",
        "a gauge",
    ),
];

#[test]
fn every_statement_names_its_project() {
    let migrations: String = files("migrations", &[".sql"])
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let owned = owned_tables(&migrations);
    assert!(owned.len() >= 32, "{owned:?}");
    let mut excused = vec![false; WITHOUT_PROJECT.len()];
    let mut unnamed = Vec::new();
    let of_rust = rust("store/src")
        .into_iter()
        .map(|(path, text)| (path, unowned_mentions(&text, &owned)));
    let of_sql = files("store/src", &[".sql"])
        .into_iter()
        .map(|(path, text)| (path, unowned_in(&text, "", &owned)));
    for (path, mentions) in of_rust.chain(of_sql) {
        for mention in mentions {
            let known = WITHOUT_PROJECT
                .iter()
                .position(|(file, begin, _)| *file == path && mention.starts_with(begin));
            match known {
                Some(known) => excused[known] = true,
                None => unnamed.push(format!("{path}: {mention}")),
            }
        }
    }
    assert!(
        unnamed.is_empty(),
        "rows are read or changed without naming their project:\n{}",
        unnamed.join("\n")
    );
    for (place, is_used) in excused.iter().enumerate() {
        assert!(
            is_used,
            "no such statement any more: {:?}",
            WITHOUT_PROJECT[place]
        );
    }
}

#[test]
fn who_adds_rows_asks_whether_the_project_takes_any() {
    // Parts of a writer's transaction, which `writer/flush.rs` begins by asking; and what moves rows, or derives
    // them from others, in the transaction that takes those away.
    const WITHIN_ANOTHER: [&str; 13] = [
        "store/src/writer/doubts.rs",
        "store/src/writer/scores.rs",
        "store/src/writer/sessions.rs",
        "store/src/writer/logs.rs",
        "store/src/writer/insert.rs",
        "store/src/metrics/insert.rs",
        "store/src/metrics/series/mod.rs",
        "store/src/metrics/set_aside.rs",
        "store/src/metrics/compact/rows.rs",
        "store/src/usage/fold.rs",
        "store/src/usage/latency.rs",
        "store/src/partitions/make.rs",
        // Of projects, not of what they have.
        "store/src/erasure/",
    ];
    for (path, text) in rust("store/src") {
        if WITHIN_ANOTHER.iter().any(|part| path.starts_with(part)) {
            continue;
        }
        let program = text.split("#[cfg(test)]").next().unwrap_or_default();
        for function in program.split("\n}\n") {
            let adds = function.contains("insert into ")
                && !function.contains("insert into projects ")
                && !function.contains("insert into signing_keys ");
            let asks = function.contains("fence::") || function.contains("p.deleting_at is null");
            assert!(
                !adds || asks,
                "{path} adds rows without asking:\n{function}"
            );
        }
    }
    let flush = fs::read_to_string(root().join("store/src/writer/flush.rs")).unwrap();
    assert!(
        flush.contains("fence::ask(") && flush.contains("&groups, look, projects)"),
        "writers ask"
    );
}

#[test]
fn every_read_of_rows_has_a_limit() {
    // Rows of these are few by what they group by.
    const GROUPED: [&str; 3] = [
        "store/src/daily.rs",
        "store/src/analytics/",
        "store/src/metrics/",
    ];
    for (path, text) in rust("store/src") {
        if GROUPED.iter().any(|grouped| path.starts_with(grouped)) {
            continue;
        }
        for function in text.split("\n}\n") {
            let reads = function.contains(".fetch_all(store.read())")
                || function.contains(".fetch_all(executor)");
            assert!(
                !reads || function.contains(" limit "),
                "{path} reads rows without a limit; use page::all:\n{function}"
            );
        }
    }
}

/// A large body that is decoded where requests are served holds up all of them.
#[test]
fn bodies_are_decoded_aside() {
    // Those who get the bytes of a body; everybody else takes what they made of them.
    const READERS: [&str; 5] = [
        "compat/src/body.rs",
        "compat/src/ingestion/mod.rs",
        "src/receivers/native/metrics.rs",
        "src/receivers/native/traces.rs",
        "src/receivers/otlp/receive.rs",
    ];
    // And those who hand them on.
    const OTHERS: [&str; 2] = ["src/receivers/langfuse.rs", "src/receivers/native/mod.rs"];
    let takes_bytes = |line: &str| {
        let line = line.trim();
        line.contains("Bytes::from_request(")
            || line.contains("Json::from_request(")
            || line.starts_with("body: Bytes")
            || (line.starts_with("Json(") && line.contains("): Json<"))
            || line.contains("body::read(&")
            || line.contains("caller_and_body(request")
    };
    let mut found = Vec::new();
    for (path, text) in rust("compat/src").into_iter().chain(rust("src")) {
        if text.lines().any(takes_bytes) {
            assert!(
                READERS.contains(&path.as_str()) || OTHERS.contains(&path.as_str()),
                "{path} takes the bytes of a body: take a `JsonBody`, or decode them `aside`"
            );
            found.push((path, text));
        }
    }
    for reader in READERS {
        let (_, text) = found.iter().find(|(path, _)| path == reader).unwrap();
        assert!(text.contains("aside("), "{reader} decodes where it serves");
    }
}

/// Postgres bounds the memory of sorts and hashes, but not that of values which are collected into one.
#[test]
fn what_postgres_collects_is_bounded() {
    const LINES_BEFORE: usize = 6;
    let aggregates = [
        "array_agg(",
        "json_agg(",
        "jsonb_agg(",
        "string_agg(",
        "object_agg(",
    ];
    let mut found = 0;
    for (path, text) in rust("store/src") {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !aggregates.iter().any(|aggregate| line.contains(aggregate)) {
                continue;
            }
            found += 1;
            let before = &lines[number.saturating_sub(LINES_BEFORE)..number];
            assert!(
                before.iter().any(|line| line.contains("Collects at most")),
                "{path}:{}: say in a comment that it \"Collects at most\" how much",
                number + 1
            );
        }
    }
    assert!(found > 5, "the aggregates have other names now");
}

#[test]
fn every_invariant_names_a_test_that_exists() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(
        text.lines().count() <= 200,
        "ARCHITECTURE.md has grown beyond 200 lines"
    );
    let tests: String = ["tests/it", "model/src", "src", "compat/src", "store/src"]
        .iter()
        .flat_map(|dir| rust(dir))
        .map(|(_, text)| text)
        .collect();
    let section = text
        .split("## Invariants")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let mut named = 0;
    for quoted in section.split('`').skip(1).step_by(2) {
        if let Some((_, test)) = quoted.rsplit_once("::") {
            assert!(
                tests.contains(&format!("fn {test}(")),
                "no test is called {quoted}"
            );
            named += 1;
        }
    }
    assert!(named >= 10, "only {named} invariants name a test");
}

#[test]
fn nothing_is_left_to_do() {
    for dir in [
        "model",
        "store",
        "compat",
        "client",
        "src",
        "tests",
        "migrations",
    ] {
        for (path, text) in files(dir, &[".rs", ".sql", ".py", ".mjs"]) {
            for (number, line) in text.lines().enumerate() {
                let marked = ["TODO", "FIXME"].iter().any(|mark| line.contains(mark));
                assert!(
                    !marked || path == "tests/it/tidy.rs",
                    "{path}:{} is left to do",
                    number + 1
                );
            }
        }
    }
}
