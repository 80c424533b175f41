//! Every route that the routers list, for tables that must leave none out.

use std::fs;

/// A method and a path that the program answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    /// In capitals.
    pub method: String,
    /// With its parameters in braces.
    pub path: String,
}

impl Route {
    /// The path with `x` for each parameter.
    pub(crate) fn example(&self) -> String {
        let parts = self.path.split('/');
        let example = parts.map(|part| if part.starts_with('{') { "x" } else { part });
        example.collect::<Vec<_>>().join("/")
    }

    /// As tables write it: `GET /path/{id}`.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// Routes of the listener that answers every dialect, read from the sources of the routers.
pub(crate) fn routes() -> Vec<Route> {
    let mut found: Vec<Route> = ["src/router.rs", "compat/src/lib.rs"]
        .iter()
        .flat_map(|file| routes_of(&source(file)))
        .collect();
    found.sort();
    found.dedup();
    assert!(found.len() > 90, "only {} routes were found", found.len());
    found
}

fn source(file: &str) -> String {
    fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn routes_of(text: &str) -> Vec<Route> {
    text.split(".route(")
        .skip(1)
        .flat_map(|rest| {
            let (path, handlers) = split(arguments(rest));
            let mounts = if path.starts_with("{mount}") {
                vec!["", "/api/public/otel"]
            } else {
                vec![""]
            };
            let paths: Vec<String> = mounts
                .into_iter()
                .map(|mount| path.replace("{mount}", mount))
                .collect();
            methods(handlers)
                .into_iter()
                .flat_map(move |method| {
                    paths.clone().into_iter().map(move |path| Route {
                        method: method.clone(),
                        path,
                    })
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The text up to the parenthesis that closes the call.
fn arguments(rest: &str) -> &str {
    let mut depth = 1;
    let end = rest.find(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    &rest[..end.expect("a call is closed")]
}

/// The path, and what follows it.
fn split(arguments: &str) -> (&str, &str) {
    let mut parts = arguments.splitn(3, '"').skip(1);
    (parts.next().unwrap(), parts.next().unwrap())
}

fn methods(handlers: &str) -> Vec<String> {
    let calls = ["get", "post", "put", "patch", "delete"];
    let words = handlers.split(|character: char| {
        !character.is_alphanumeric() && character != '(' && character != '_'
    });
    let called = words.flat_map(|word| word.match_indices('(').map(move |(end, _)| &word[..end]));
    called
        .filter(|word| calls.contains(word))
        .map(str::to_uppercase)
        .collect()
}

#[test]
fn routes_are_read_from_the_routers() {
    let found: Vec<String> = routes().iter().map(Route::name).collect();
    for expected in [
        "POST /v1/traces",
        "POST /api/public/otel/v1/traces",
        "PATCH /api/public/spans",
        "DELETE /api/public/traces",
        "GET /api/public/media/{media_id}",
        "PUT /api/public/media/upload/{token}",
        "GET /healthz",
        "POST /opentelemetry.proto.collector.trace.v1.TraceService/Export",
    ] {
        assert!(
            found.iter().any(|name| name == expected),
            "{expected} is missing: {found:#?}"
        );
    }
}
