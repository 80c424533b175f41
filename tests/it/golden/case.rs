//! One case: a folder of `fixtures/<format>/`.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{compare, protobuf, rows};
use crate::harness::{Keys, Xtrace};
use crate::official;

/// A request of a case.
#[derive(Clone)]
struct Request {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

pub(super) struct Case {
    name: String,
    dir: PathBuf,
    requests: Vec<Request>,
    /// Reads after the requests, by the name of the file that holds them.
    reads: Vec<(String, Request)>,
}

impl Case {
    /// All cases of a format, by name; requests go to `path` unless their head says otherwise.
    pub(super) fn all(format: &str, path: &str) -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures")
            .join(format);
        let mut dirs: Vec<PathBuf> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        dirs.sort();
        dirs.retain(|dir| dir.is_dir());
        dirs.into_iter().map(|dir| Self::load(dir, path)).collect()
    }

    fn load(dir: PathBuf, path: &str) -> Self {
        let mut files: Vec<PathBuf> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let name_of = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
        let head = fs::read_to_string(dir.join("head.txt")).unwrap_or_default();
        let sent = files
            .iter()
            .filter(|file| name_of(file).starts_with("request"));
        let requests = sent.map(|file| Request::load(file, &head, path)).collect();
        let reads = files
            .iter()
            .filter(|file| file.extension().is_some_and(|ending| ending == "http"));
        let reads = reads
            .map(|file| (name_of(file), Request::read(file)))
            .collect();
        Self {
            name: name_of(&dir),
            dir,
            requests,
            reads,
        }
    }

    /// Runs the case as it is, in protobuf where it is OTLP in JSON, and, if it is
    /// OTLP or Langfuse's batches, twice and in reverse order. Returns what went wrong.
    pub(super) async fn run(&self, xtrace: &Xtrace) -> Vec<String> {
        let mut runs = vec![(self.name.clone(), self.requests.clone())];
        let as_protobuf: Option<Vec<Request>> =
            self.requests.iter().map(Request::to_protobuf).collect();
        if let Some(requests) = as_protobuf.filter(|requests| !requests.is_empty()) {
            runs.push((format!("{}-protobuf", self.name), requests));
        }
        // Native requests have no event time: there the order of arrival is the point.
        let any_order = self.requests.iter().all(|request| {
            protobuf::signal(&request.path).is_some() || request.path == "/api/public/ingestion"
        });
        if any_order {
            let backwards: Vec<Request> = self.requests.iter().rev().cloned().collect();
            let twice = [backwards.clone(), self.requests.clone()].concat();
            runs.push((format!("{}-twice", self.name), twice));
            if self.requests.len() > 1 {
                runs.push((format!("{}-backwards", self.name), backwards));
            }
        }
        let mut failures = Vec::new();
        for (run, requests) in runs {
            let found = self.observe(xtrace, &run, &requests).await;
            failures.extend(self.judge(&run, found));
        }
        failures
    }

    async fn observe(&self, xtrace: &Xtrace, run: &str, requests: &[Request]) -> Value {
        let keys = xtrace.project(run).await;
        let mut found = Map::new();
        for request in requests {
            found.insert("response".to_owned(), request.send(xtrace, &keys).await);
        }
        for (name, read) in &self.reads {
            let answer = read.send(xtrace, &keys).await;
            let text = answer
                .to_string()
                .replace(&format!("\"{run}\""), "\"<project>\"");
            let text = text.replace(&format!("/project/{run}/"), "/project/<project>/");
            found.insert(name.clone(), serde_json::from_str(&text).unwrap());
        }
        found.extend(rows::dump(xtrace, run).await);
        Value::Object(found)
    }

    fn judge(&self, run: &str, found: Value) -> Option<String> {
        let file = self.dir.join("expected.json");
        let expected: Option<Value> = fs::read(&file)
            .ok()
            .map(|text| serde_json::from_slice(&text).unwrap());
        // Cases with rules were written by hand, from the specification.
        let by_hand = expected
            .as_ref()
            .is_some_and(|expected| expected.get("rules").is_some());
        if std::env::var_os("UPDATE_FIXTURES").is_some() && !by_hand && run == self.name {
            let found = compare::without_clock(found);
            fs::write(&file, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
            return None;
        }
        let expected = expected.unwrap_or_else(|| json!({}));
        let differences = compare::differences(&expected, &compare::without_clock(found));
        (!differences.is_empty()).then(|| format!("{run}:\n  {}", differences.join("\n  ")))
    }
}

impl Request {
    fn load(file: &Path, head: &str, path: &str) -> Self {
        let content_type = match file.extension().and_then(|extension| extension.to_str()) {
            Some("pb") => "application/x-protobuf",
            _ => "application/json",
        };
        // `request.1.traces.json` is one of spans, whatever the others are.
        let name = file.file_name().and_then(|name| name.to_str());
        let signal = name.and_then(|name| name.rsplit('.').nth(1));
        let path = match signal {
            Some("traces") => "/v1/traces",
            Some("logs") => "/v1/logs",
            _ => path,
        };
        let mut request = Self {
            method: Method::POST,
            path: path.to_owned(),
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: fs::read(file).unwrap(),
        };
        request.apply(head);
        request
    }

    /// A `.http` file: the request line, then headers.
    fn read(file: &Path) -> Self {
        let mut request = Self {
            method: Method::GET,
            path: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        request.apply(&fs::read_to_string(file).unwrap());
        request
    }

    /// Lines are `METHOD /path` or `name: value`; a header replaces the one of its name.
    fn apply(&mut self, head: &str) {
        for line in head.lines().filter(|line| !line.trim().is_empty()) {
            if let Some((name, value)) = line.split_once(':').filter(|_| !line.contains(" /")) {
                self.headers.retain(|(known, _)| known != name);
                self.headers
                    .push((name.to_owned(), value.trim().to_owned()));
            } else {
                let (method, path) = line.split_once(' ').unwrap();
                self.method = method.parse().unwrap();
                path.clone_into(&mut self.path);
            }
        }
    }

    fn to_protobuf(&self) -> Option<Self> {
        let plain_json =
            self.headers == [("content-type".to_owned(), "application/json".to_owned())];
        let signal = protobuf::signal(&self.path)?;
        let body = protobuf::from_json(signal, &serde_json::from_slice(&self.body).ok()?)?;
        let headers = vec![(
            "content-type".to_owned(),
            "application/x-protobuf".to_owned(),
        )];
        plain_json.then(|| Self {
            headers,
            body,
            ..self.clone()
        })
    }

    /// Sends it with the case's own credentials, unless the head has others.
    async fn send(&self, xtrace: &Xtrace, keys: &Keys) -> Value {
        let own = self.headers.iter().any(|(name, _)| name == "authorization");
        let url = format!("{}{}", xtrace.url, self.path);
        let mut request = xtrace
            .http
            .request(self.method.clone(), url)
            .body(self.body.clone());
        for (name, value) in self.headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        if !own {
            request = request.basic_auth(&keys.public, Some(&keys.secret));
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let (content_type, retry_after) = (header("content-type"), header("retry-after"));
        let bytes = response.bytes().await.unwrap();
        let body = match content_type.as_deref() {
            Some("application/x-protobuf") => {
                protobuf::answer_to_json(&self.path, status.as_u16(), &bytes)
            }
            _ => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        };
        let path = self.path.split('?').next().unwrap_or_default();
        official::check(&self.method, path, status, &body);
        let mut answer = json!({"status": status.as_u16(), "body": body});
        if let Some(seconds) = retry_after {
            answer["retryAfter"] = seconds.into();
        }
        answer
    }
}
