//! What keeps a browser from being used against its reader: forms of other sites are refused, and
//! answers are neither guessed at, kept, nor a reason to ask for a password.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::dialect::Dialect;

const FETCH_SITE: &str = "sec-fetch-site";
const FETCH_MODE: &str = "sec-fetch-mode";
/// Types that a page may send to any site without asking that site first.
const SIMPLE_TYPES: [&str; 3] = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
];
/// Where a form that got through would do most: keys of projects, and what applications say.
const JSON_ONLY: [&str; 4] = [
    "/api/public/projects",
    "/api/public/organizations",
    "/api/public/prompts",
    "/api/public/v2/prompts",
];

/// Middleware: refuses writes that a page of another site could make with the user name and password
/// that its reader's browser keeps for us. A browser asks before a script may send other types or set
/// `Authorization` itself, and it never keeps a Bearer token.
pub async fn refuse_foreign_forms(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if request.method().is_safe() {
        return next.run(request).await;
    }
    if is_basic(headers) && is_simple(headers) && is_foreign(headers) {
        let message = "a page of another site sent this with a password that the browser keeps; \
                       send application/json from a script that sets Authorization itself";
        return Dialect::of(&request).refuse(StatusCode::FORBIDDEN, message);
    }
    let takes_json_only = JSON_ONLY
        .iter()
        .any(|prefix| request.uri().path().starts_with(prefix));
    if takes_json_only && *request.method() != Method::DELETE && !is_json(headers) {
        let message = "Content-Type must be application/json";
        return Dialect::of(&request).refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    }
    next.run(request).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_basic(headers: &HeaderMap) -> bool {
    let value = text(headers, header::AUTHORIZATION.as_str()).unwrap_or_default();
    let scheme = value.trim_start().get(..5);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = text(headers, header::CONTENT_TYPE.as_str())?;
    Some(value.split(';').next().unwrap_or_default().trim())
}

fn is_simple(headers: &HeaderMap) -> bool {
    media_type(headers).is_none_or(|sent| {
        SIMPLE_TYPES
            .iter()
            .any(|simple| simple.eq_ignore_ascii_case(sent))
    })
}

/// A request without a type has no body that a form could have made; what is missing, its handler says.
fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_none_or(|sent| sent.eq_ignore_ascii_case("application/json"))
}

/// Whether a browser says that a page of another origin sent it. Programs send neither header.
fn is_foreign(headers: &HeaderMap) -> bool {
    match text(headers, FETCH_SITE) {
        Some(site) => !matches!(site, "same-origin" | "none"),
        None => headers.get(header::ORIGIN).is_some_and(|origin| {
            let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
            let origin = origin.to_str().unwrap_or_default();
            let of_origin = origin.split_once("://").map(|(_, host)| host.as_bytes());
            of_origin.is_none() || of_origin != host
        }),
    }
}

/// Middleware: answers are what their type says and are not kept, unless they say otherwise; and a
/// browser is not told to ask its reader for a password, which it would then send from any page.
pub async fn guard_answers(request: Request, next: Next) -> Response {
    const GUARDS: [(HeaderName, HeaderValue); 2] = [
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let is_browser = request.headers().contains_key(FETCH_MODE);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in GUARDS {
        headers.entry(name).or_insert(value);
    }
    if is_browser {
        headers.remove(header::WWW_AUTHENTICATE);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(sent: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = sent.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    #[test]
    fn other_origins_are_foreign() {
        let check = |sent: &[(&'static str, &'static str)], expected: bool| {
            assert_eq!(is_foreign(&headers(sent)), expected, "{sent:?}");
        };
        check(&[], false);
        check(&[("host", "x.example")], false);
        check(&[("sec-fetch-site", "same-origin")], false);
        check(&[("sec-fetch-site", "none")], false);
        check(&[("sec-fetch-site", "cross-site")], true);
        check(&[("sec-fetch-site", "same-site")], true);
        check(
            &[("host", "x.example"), ("origin", "https://x.example")],
            false,
        );
        check(
            &[("host", "x.example"), ("origin", "https://y.example")],
            true,
        );
        check(
            &[("host", "x.example:8742"), ("origin", "http://x.example")],
            true,
        );
        check(&[("host", "x.example"), ("origin", "null")], true);
    }

    #[test]
    fn what_needs_no_preflight_is_simple() {
        let check = |content_type: &'static str, expected: bool| {
            let sent = headers(&[("content-type", content_type)]);
            assert_eq!(is_simple(&sent), expected, "{content_type}");
        };
        check("text/plain;charset=UTF-8", true);
        check("Text/Plain", true);
        check("multipart/form-data; boundary=x", true);
        check("application/json", false);
        check("application/x-protobuf", false);
        assert!(is_simple(&HeaderMap::new()));
    }
}
