//! Media: announced, uploaded through signed links, deduplicated, downloaded, streamed both ways.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{event, ingest};
use crate::harness::{PUBLIC_KEY, SECRET_KEY, SeparateXtrace, Xtrace, answer};

const PATH: &str = "/api/public/media";

fn hash(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(Sha256::digest(bytes))
}

fn announcement(bytes: &[u8]) -> Value {
    json!({"contentType": "image/png", "contentLength": bytes.len(), "sha256Hash": hash(bytes),
        "traceId": "t", "observationId": null, "field": "input"})
}

async fn announce(xtrace: &Xtrace, body: &Value) -> (String, Option<String>) {
    let (status, answer) = xtrace.post(PATH, body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let id = answer["mediaId"].as_str().unwrap().to_owned();
    (id, answer["uploadUrl"].as_str().map(str::to_owned))
}

/// As SDKs do it: without credentials, with the checksum.
async fn put(xtrace: &Xtrace, url: &str, bytes: &[u8]) -> Response {
    let request = xtrace.http.put(url).header("content-type", "image/png");
    let request = request.header("x-amz-checksum-sha256", hash(bytes));
    request
        .header("x-ms-blob-type", "BlockBlob")
        .body(bytes.to_vec())
        .send()
        .await
        .unwrap()
}

async fn report(xtrace: &Xtrace, id: &str, status: u16) -> (StatusCode, Value) {
    let body = json!({"uploadedAt": "2026-01-15T10:00:00.123456Z", "uploadHttpStatus": status,
        "uploadHttpError": if status == 200 { "" } else { "denied" }, "uploadTimeMs": 5});
    answer(
        xtrace
            .request(Method::PATCH, &format!("{PATH}/{id}"))
            .json(&body),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_in_once_and_comes_out_as_it_was() {
    let xtrace = Xtrace::start().await;
    // Several pieces, and one that is not full.
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let body = announcement(&bytes);
    let (id, url) = announce(&xtrace, &body).await;
    let digest = Sha256::digest(&bytes);
    assert_eq!(id, BASE64_URL_SAFE_NO_PAD.encode(digest)[..22]);
    let url = url.unwrap();
    assert!(
        url.starts_with(&format!("{}/api/public/media/upload/", xtrace.url)),
        "{url}"
    );

    let (status, missing) = xtrace.get(&format!("{PATH}/{id}")).await;
    assert_eq!(
        (status, &missing["message"]),
        (StatusCode::NOT_FOUND, &json!("Media not yet uploaded"))
    );
    // Announced again before it was uploaded, it still wants its bytes.
    assert!(announce(&xtrace, &body).await.1.is_some());

    assert_eq!(put(&xtrace, &url, &bytes).await.status(), StatusCode::OK);
    assert_eq!(
        report(&xtrace, &id, 200).await,
        (StatusCode::OK, json!({"message": "OK"}))
    );
    let (status, found) = xtrace.get(&format!("{PATH}/{id}")).await;
    assert_eq!(status, StatusCode::OK, "{found}");
    assert_eq!(
        (
            &found["contentType"],
            &found["contentLength"],
            &found["uploadedAt"]
        ),
        (
            &json!("image/png"),
            &json!(300_000),
            &json!("2026-01-15T10:00:00.123Z")
        )
    );
    assert!(found["urlExpiry"].is_string());
    let download = xtrace
        .http
        .get(found["url"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(download.status(), StatusCode::OK);
    let header = |name: &str| download.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(
        (header("content-type"), header("content-length")),
        ("image/png".into(), "300000".into())
    );
    assert!(header("content-security-policy").contains("sandbox"));
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(download.bytes().await.unwrap(), bytes);

    // It is here: nobody uploads it again, whatever it belongs to.
    let mut other = body.clone();
    other["observationId"] = json!("o");
    assert_eq!(announce(&xtrace, &other).await, (id.clone(), None));
    // As another type it comes anew.
    other["contentType"] = json!("image/jpeg");
    assert!(announce(&xtrace, &other).await.1.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_failed_can_be_tried_again() {
    let xtrace = Xtrace::start().await;
    let (id, url) = announce(&xtrace, &announcement(b"abc")).await;
    let url = url.unwrap();
    assert_eq!(report(&xtrace, &id, 403).await.0, StatusCode::OK);
    let (status, body) = xtrace.get(&format!("{PATH}/{id}")).await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("Media upload failed with status 403: denied")
        )
    );
    // Another length, type or checksum than announced.
    assert_eq!(
        put(&xtrace, &url, b"abcd").await.status(),
        StatusCode::FORBIDDEN
    );
    let odd = xtrace
        .http
        .put(&url)
        .header("content-type", "text/plain")
        .body("abc");
    assert_eq!(odd.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let odd = xtrace
        .http
        .put(&url)
        .header("x-amz-checksum-sha256", hash(b"x"))
        .body("abc");
    assert_eq!(odd.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    // Other bytes of the same length.
    let odd = xtrace
        .http
        .put(&url)
        .header("x-amz-checksum-sha256", hash(b"abc"))
        .body("xyz");
    let odd = odd.send().await.unwrap();
    assert_eq!(odd.status(), StatusCode::BAD_REQUEST);
    assert!(odd.text().await.unwrap().contains("ChecksumMismatch"));
    // Chunked, without a length, and too short.
    let odd = xtrace
        .http
        .put(&url)
        .header("transfer-encoding", "chunked")
        .body("ab");
    assert_eq!(odd.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let mut sql = xtrace.sql().await;
    let pieces: i64 = sqlx::query_scalar("select count(*) from media_chunks")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(pieces, 0, "what came to nothing leaves nothing behind");
    // Then well, without any report.
    assert_eq!(put(&xtrace, &url, b"abc").await.status(), StatusCode::OK);
    assert_eq!(xtrace.get(&format!("{PATH}/{id}")).await.0, StatusCode::OK);
    let (status, body) = report(&xtrace, "nope", 200).await;
    assert_eq!(
        (status, &body["message"]),
        (
            StatusCode::NOT_FOUND,
            &json!("Media asset nope not found in project default")
        )
    );
    let (status, body) = xtrace.get(&format!("{PATH}/nope")).await;
    assert_eq!(
        (status, &body["message"]),
        (StatusCode::NOT_FOUND, &json!("Media asset not found"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_bytes_that_are_here_can_not_be_spoilt() {
    let xtrace = Xtrace::start().await;
    let bytes = vec![7_u8; 50_000];
    let body = announcement(&bytes);
    let (id, url) = announce(&xtrace, &body).await;
    // A report without bytes is no upload, and stops none.
    assert_eq!(report(&xtrace, &id, 200).await.0, StatusCode::OK);
    let (status, answer) = xtrace.get(&format!("{PATH}/{id}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["message"], "Media not yet uploaded");
    assert!(announce(&xtrace, &body).await.1.is_some());
    assert_eq!(
        put(&xtrace, &url.unwrap(), &bytes).await.status(),
        StatusCode::OK
    );
    // Another length and type, and a report of a failure.
    let mut other = body.clone();
    other["contentLength"] = json!(10);
    assert_eq!(announce(&xtrace, &other).await.1, None);
    other["contentType"] = json!("text/html");
    assert!(announce(&xtrace, &other).await.1.is_some());
    assert_eq!(report(&xtrace, &id, 500).await.0, StatusCode::OK);
    let (status, found) = xtrace.get(&format!("{PATH}/{id}")).await;
    assert_eq!(status, StatusCode::OK, "{found}");
    assert_eq!(
        (&found["contentType"], &found["contentLength"]),
        (&json!("image/png"), &json!(50_000))
    );
    let download = xtrace
        .http
        .get(found["url"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    let header = |name: &str| download.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-disposition"), "inline");
    assert_eq!(header("cross-origin-resource-policy"), "same-site");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(download.bytes().await.unwrap(), bytes);
    // Bytes that come as another type are of that type, and pages are saved, not shown.
    other["contentLength"] = json!(bytes.len());
    let (_, url) = announce(&xtrace, &other).await;
    let request = xtrace
        .http
        .put(url.unwrap())
        .header("content-type", "text/html");
    let uploaded = request.body(bytes).send().await.unwrap();
    assert_eq!(uploaded.status(), StatusCode::OK);
    let (_, found) = xtrace.get(&format!("{PATH}/{id}")).await;
    let download = xtrace
        .http
        .get(found["url"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    let header = |name: &str| download.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(
        (header("content-type"), header("content-disposition")),
        ("text/html".into(), "attachment".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn links_open_what_they_were_made_for() {
    let xtrace =
        Xtrace::start_with(&["--xtrace-public-url", "https://traces.example.com/x/"]).await;
    let (id, url) = announce(&xtrace, &announcement(b"abc")).await;
    let url = url.unwrap();
    let local = |url: &str| url.replace("https://traces.example.com/x", &xtrace.url);
    assert!(
        url.starts_with("https://traces.example.com/x/api/public/media/upload/"),
        "{url}"
    );
    let url = local(&url);
    // Credentials beside the link change nothing.
    let request = xtrace
        .http
        .put(&url)
        .basic_auth(PUBLIC_KEY, Some(SECRET_KEY))
        .body("abc");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    let (_, found) = xtrace.get(&format!("{PATH}/{id}")).await;
    let download = local(found["url"].as_str().unwrap());
    // A link to read is none to write, and the other way round; nor is a changed one any.
    let as_upload = download.replace("/download/", "/upload/");
    assert_eq!(
        put(&xtrace, &as_upload, b"abc").await.status(),
        StatusCode::FORBIDDEN
    );
    for bad in [
        url.replace("/upload/", "/download/"),
        format!("{download}x"),
        download.replace("/download/", "/download/e30."),
    ] {
        assert_eq!(
            xtrace.http.get(&bad).send().await.unwrap().status(),
            StatusCode::FORBIDDEN,
            "{bad}"
        );
    }
    assert_eq!(
        xtrace.http.post(&url).send().await.unwrap().status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    // Another project does not see it, and has its own.
    let other = xtrace.project("other").await;
    let path = format!("{PATH}/{id}");
    assert_eq!(
        answer(xtrace.request_as(&other, Method::GET, &path))
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    let patch = xtrace.request_as(&other, Method::PATCH, &path);
    let patch = patch.json(&json!({"uploadedAt": "2026-01-15T10:00:00Z", "uploadHttpStatus": 500}));
    assert_eq!(answer(patch).await.0, StatusCode::NOT_FOUND);
    let theirs = xtrace
        .request_as(&other, Method::POST, PATH)
        .json(&announcement(b"abc"));
    let (status, body) = answer(theirs).await;
    assert_eq!(
        (status, body["uploadUrl"].is_string()),
        (StatusCode::CREATED, true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn announcements_that_can_not_be_are_refused() {
    let xtrace = Xtrace::start_with(&["--max-media-bytes", "1000"]).await;
    let with = |name: &str, value: Value| {
        let mut body = announcement(b"abc");
        body[name] = value;
        body
    };
    let mut item = with("datasetId", json!("d"));
    item["traceId"] = Value::Null;
    for (body, words) in [
        (
            with("contentType", json!("application/x-msdownload")),
            "Invalid option",
        ),
        (with("contentLength", json!(0)), "Too small"),
        (with("contentLength", json!("3")), "expected number"),
        (
            with("contentLength", json!(1001)),
            "File size must be less than",
        ),
        (with("sha256Hash", json!("abc")), "sha256Hash"),
        (with("sha256Hash", json!("/".repeat(44))), "sha256Hash"),
        (with("field", json!("expectedOutput")), "Invalid option"),
        (with("field", Value::Null), "Invalid option"),
        (with("traceId", Value::Null), "Provide either"),
        (with("datasetId", json!("d")), "Provide either"),
        (item, "Provide either"),
        (json!([]), "expected object"),
    ] {
        let (status, answer) = xtrace.post(PATH, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        assert!(answer.to_string().contains(words), "{body}: {answer}");
    }
    let item = json!({"contentType": "image/png", "contentLength": 3, "sha256Hash": hash(b"abc"),
        "datasetId": "d", "datasetItemId": "i", "field": "expectedOutput", "traceId": null});
    announce(&xtrace, &item).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_refers_to_goes_in_the_end() {
    let xtrace = Xtrace::start().await;
    ingest(
        &xtrace,
        json!([event("1", 1, "trace-create", json!({"id": "t"}))]),
    )
    .await;
    for bytes in [b"kept", b"gone"] {
        let mut body = announcement(bytes);
        body["traceId"] = json!(if bytes == b"kept" { "t" } else { "deleted" });
        let (_, url) = announce(&xtrace, &body).await;
        assert_eq!(
            put(&xtrace, &url.unwrap(), bytes).await.status(),
            StatusCode::OK
        );
    }
    // Two days later.
    let mut sql = xtrace.sql().await;
    for table in ["media_chunks", "media_links", "media"] {
        let column = if table == "media" {
            "updated_at"
        } else {
            "created_at"
        };
        let later = format!("update {table} set {column} = {column} - interval '2 days'");
        sqlx::query(sqlx::AssertSqlSafe(later))
            .execute(&mut sql)
            .await
            .unwrap();
    }
    let retention = xtrace_store::Retention::default();
    xtrace_store::maintenance::once(&xtrace.store, retention)
        .await
        .unwrap();
    let left: Vec<Vec<u8>> = sqlx::query_scalar("select bytes from media_chunks")
        .fetch_all(&mut sql)
        .await
        .unwrap();
    assert_eq!(left, [b"kept".to_vec()]);
    let (media, links): (i64, i64) =
        sqlx::query_as("select (select count(*) from media), (select count(*) from media_links)")
            .fetch_one(&mut sql)
            .await
            .unwrap();
    assert_eq!((media, links), (1, 1));
    // The links of a trace go with it.
    answer(xtrace.request(Method::DELETE, "/api/public/traces/t")).await;
    let links: i64 = sqlx::query_scalar("select count(*) from media_links")
        .fetch_one(&mut sql)
        .await
        .unwrap();
    assert_eq!(links, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_stream_through() {
    let xtrace = SeparateXtrace::start().await;
    // The first files open connections.
    for _ in 0..4 {
        through(&xtrace, 1_000_000).await;
    }
    let before = xtrace.peak_mib();
    through(&xtrace, 50_000_000).await;
    let grown = xtrace.peak_mib() - before;
    assert!(
        grown < 4,
        "50 MB went through, and memory grew by {grown} MiB"
    );
}

/// Uploads and downloads a file.
async fn through(xtrace: &SeparateXtrace, length: usize) {
    let bytes: Vec<u8> = (0..length)
        .map(|n| u8::try_from(n * 31 % 253).unwrap())
        .collect();
    let post = xtrace.http.post(format!("{}{PATH}", xtrace.url));
    let post = post.basic_auth(PUBLIC_KEY, Some(SECRET_KEY));
    let mut body = announcement(&bytes);
    body["contentType"] = json!("application/octet-stream");
    let (_, made) = answer(post.json(&body)).await;
    if let Some(url) = made["uploadUrl"].as_str() {
        let put = xtrace.http.put(url).body(bytes.clone());
        assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    }
    let path = format!("{}{PATH}/{}", xtrace.url, made["mediaId"].as_str().unwrap());
    let get = xtrace
        .http
        .get(path)
        .basic_auth(PUBLIC_KEY, Some(SECRET_KEY));
    let (_, found) = answer(get).await;
    let download = xtrace.http.get(found["url"].as_str().unwrap());
    let download = download.send().await.unwrap().bytes().await.unwrap();
    assert!(download == bytes, "the bytes differ");
}
