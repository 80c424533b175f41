//! Values of flags and variables, and what is said of those that can't be.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use axum::http::HeaderValue;
use xtrace_model::ProjectId;

pub(super) fn parse_database_url(text: &str) -> Result<String, String> {
    let known = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    let fault = "takes a URL such as postgres://user:password@host/database";
    if known {
        Ok(text.to_owned())
    } else {
        Err(fault.to_owned())
    }
}

pub(super) fn parse_bind_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "BIND_ADDR takes an address and a port such as 127.0.0.1:8742".to_owned())
}

pub(super) fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let origin = text.trim().trim_end_matches('/');
    let is_origin =
        origin == "*" || origin.starts_with("https://") || origin.starts_with("http://");
    let value = HeaderValue::from_str(origin).ok().filter(|_| is_origin);
    value.ok_or_else(|| "takes origins such as https://app.example.com, or *".to_owned())
}

pub(super) fn parse_public_url(text: &str) -> Result<String, String> {
    let url = text.trim().trim_end_matches('/');
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(url.to_owned());
    }
    Err("XTRACE_PUBLIC_URL takes a URL such as https://traces.example.com".to_owned())
}

/// What people may have chosen before there was a rule: a shorter one is no secret at all. Fewer than
/// [`crate::secrets::SECRET_CHARS`] are taken with a warning, for clients hold them already.
const SECRET_CHARS_MIN: usize = 8;

fn long_enough(text: &str, chars_min: usize) -> Result<String, String> {
    if text.len() < chars_min {
        return Err(format!(
            "takes {chars_min} characters or more; `openssl rand -hex 32` makes a good one"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn parse_token(text: &str) -> Result<String, String> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("takes visible ASCII characters without spaces".to_owned());
    }
    long_enough(text, SECRET_CHARS_MIN)
}

/// Nobody has a shorter one from before.
pub(super) fn parse_admin_token(text: &str) -> Result<String, String> {
    parse_token(text)?;
    long_enough(text, crate::secrets::SECRET_CHARS)
}

pub(super) fn parse_secret_key(text: &str) -> Result<String, String> {
    let fits = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b':');
    if !fits {
        return Err("takes visible ASCII characters without spaces and colons".to_owned());
    }
    long_enough(text, SECRET_CHARS_MIN)
}

pub(super) fn parse_key(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b':');
    if fits {
        return Ok(text.to_owned());
    }
    Err("a PUBLIC_KEY takes visible ASCII characters without spaces and colons".to_owned())
}

pub(super) fn parse_project(text: &str) -> Result<ProjectId, String> {
    let fits = text.len() <= 200;
    ProjectId::parse(text)
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| "DEFAULT_PROJECT_ID takes 1 to 200 bytes of text".to_owned())
}

fn parse_number<T: FromStr>(text: &str, variable: &str, takes: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{variable} takes {takes}"))
}

pub(super) fn parse_qps(text: &str) -> Result<u32, String> {
    parse_number(
        text,
        "RATE_LIMIT_QPS",
        "a whole number; 0 turns limiting off",
    )
}

pub(super) fn parse_connections(text: &str) -> Result<usize, String> {
    parse_number(
        text,
        "XTRACE_MAX_CONNECTIONS",
        "a whole number; 0 sets no limit",
    )
}

pub(super) fn parse_burst(text: &str) -> Result<NonZeroU32, String> {
    parse_number(text, "RATE_LIMIT_BURST", "a whole number from 1")
}

pub(super) fn parse_delay(text: &str) -> Result<Duration, String> {
    const SECONDS_MAX: u64 = 600;
    let seconds = text.parse().ok().filter(|seconds| *seconds <= SECONDS_MAX);
    let fault = || format!("XTRACE_SHUTDOWN_DELAY takes 0 to {SECONDS_MAX} seconds");
    seconds.map(Duration::from_secs).ok_or_else(fault)
}

fn parse_days(text: &str, variable: &str) -> Result<u32, String> {
    const DAYS_MAX: u32 = 36_500;
    let days = parse_number(text, variable, "a number of days; 0 keeps all")?;
    if days <= DAYS_MAX {
        Ok(days)
    } else {
        Err(format!("{variable} takes at most {DAYS_MAX} days"))
    }
}

pub(super) fn parse_metrics_days(text: &str) -> Result<u32, String> {
    parse_days(text, "METRICS_RETENTION_DAYS")
}

pub(super) fn parse_traces_days(text: &str) -> Result<u32, String> {
    parse_days(text, "TRACES_RETENTION_DAYS")
}

pub(super) fn parse_body_bytes(text: &str) -> Result<usize, String> {
    const RANGE: std::ops::RangeInclusive<usize> = 1024..=1 << 30;
    let bytes = text.parse().ok().filter(|bytes| RANGE.contains(bytes));
    bytes.ok_or_else(|| "XTRACE_MAX_REQUEST_BODY_BYTES takes 1024 to 1073741824 bytes".to_owned())
}
