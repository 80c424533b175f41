//! Who asks, and at which address: as the connection has it, or as a trusted proxy says.
//!
//! Anybody can send the headers in which proxies tell that. They count from configured addresses alone, and no
//! handler gets to see them otherwise.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;

use crate::gateway::Gateway;
use crate::listener::PeerAddress;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// What is left of them all: `https` if the client reached a trusted proxy by it.
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Where the client is, behind all proxies that are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Networks whose word is taken for where a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text.eq_ignore_ascii_case("off") {
            return Ok(Self(Arc::default()));
        }
        let network = |text: &str| {
            let text = text.trim();
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| text.parse::<IpNet>())
        };
        let networks: Result<Arc<[IpNet]>, _> = text.split(',').map(network).collect();
        networks.map(Self).map_err(|_| {
            "takes addresses and networks between commas, such as 10.0.0.0/8,fd00::1, or off"
                .to_owned()
        })
    }
}

impl TrustedProxies {
    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The first address that is not a trusted proxy's, from the connection's on. Each proxy adds whom it
    /// was asked by; what stands before that may be anybody's invention.
    fn client<'a>(&self, peer: IpAddr, said: impl Iterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        for said in said {
            let Some(before) = address(said).filter(|_| self.trusts(client)) else {
                break;
            };
            client = before.to_canonical();
        }
        client
    }
}

/// Middleware: finds the client, sets `Host` to what it asked for, and takes all else out of the request that
/// proxies, or somebody who plays one, wrote into it.
pub async fn find_client(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Response {
    find(&gateway.proxies, &mut request);
    next.run(request).await
}

fn find(proxies: &TrustedProxies, request: &mut Request) {
    // Requests of HTTP/2 name the host in their URI.
    let named = request.uri().authority().map(Authority::as_str);
    let named = named.and_then(|named| HeaderValue::from_str(named).ok());
    let peer = request.extensions().get::<PeerAddress>().copied();
    let headers = request.headers_mut();
    if let Some(named) = named {
        headers.entry(header::HOST).or_insert(named);
    }
    let Some(PeerAddress(peer)) = peer else {
        forget(headers);
        return;
    };
    let mut client = peer.to_canonical();
    let mut said = Said::default();
    if proxies.trusts(peer) {
        said = Said::of(headers);
        client = proxies.client(peer, said.addresses.iter().map(String::as_str));
    }
    forget(headers);
    if let Some(host) = said.authority() {
        headers.insert(header::HOST, host);
    }
    if said.is_https() {
        headers.insert(PROTO, HeaderValue::from_static("https"));
    }
    request.extensions_mut().insert(ClientAddress(client));
}

fn forget(headers: &mut HeaderMap) {
    for name in [FOR, HOST, PORT, PROTO, header::FORWARDED] {
        headers.remove(name);
    }
}

/// What a proxy tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Whom each proxy was asked by, the nearest first.
    addresses: Vec<String>,
    /// What the nearest one was asked for.
    host: Option<String>,
    port: Option<String>,
    proto: Option<String>,
}

impl Said {
    /// A proxy sets the one kind of headers or the other, and lets the kind that it does not know pass: the older
    /// and common one goes first. Source: RFC 7239 for `Forwarded`.
    fn of(headers: &HeaderMap) -> Self {
        if [FOR, HOST, PORT, PROTO]
            .iter()
            .any(|name| headers.contains_key(name))
        {
            let last = |name: HeaderName| backwards(headers, &name).into_iter().next();
            return Self {
                addresses: backwards(headers, &FOR),
                host: last(HOST),
                port: last(PORT),
                proto: last(PROTO),
            };
        }
        let elements = backwards(headers, &header::FORWARDED);
        let nearest = elements.first().map(String::as_str).unwrap_or_default();
        Self {
            addresses: elements
                .iter()
                .map(|element| member(element, "for").unwrap_or_default())
                .collect(),
            host: member(nearest, "host"),
            port: None,
            proto: member(nearest, "proto"),
        }
    }

    fn is_https(&self) -> bool {
        let proto = self.proto.as_deref();
        proto.is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
    }

    /// Host and port, unless they are none.
    fn authority(&self) -> Option<HeaderValue> {
        let host: Authority = self.host.as_deref()?.parse().ok()?;
        if host.as_str().contains('@') {
            return None;
        }
        let port = self
            .port
            .as_deref()
            .and_then(|port| port.parse::<u16>().ok());
        let usual = if self.is_https() { 443 } else { 80 };
        let port = port.filter(|port| *port != usual && host.port().is_none());
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        HeaderValue::from_str(&format!("{host}{port}")).ok()
    }
}

/// The values of a list that may stand in several headers, the last first.
fn backwards(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let all = headers.get_all(name).iter();
    let texts: Vec<&str> = all.filter_map(|value| value.to_str().ok()).collect();
    let values = texts.iter().flat_map(|text| text.split(','));
    let values: Vec<String> = values.map(|value| value.trim().to_owned()).collect();
    values.into_iter().rev().collect()
}

/// A member of an element of `Forwarded`.
fn member(element: &str, name: &str) -> Option<String> {
    let members = element
        .split(';')
        .filter_map(|member| member.split_once('='));
    let mut named = members.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    let (_, value) = named.next()?;
    Some(value.trim().trim_matches('"').to_owned())
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    const PROXY: &str = "10.0.0.1";
    const TRUSTED: &str = "10.0.0.0/8, fd00::/64";
    const INSIDE: &str = "http://inside:8742";
    const FULL: [(&str, &str); 3] = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "traces.example.com"),
        ("x-forwarded-proto", "https"),
    ];
    const STANDARD: [(&str, &str); 1] = [(
        "forwarded",
        "for=203.0.113.9;proto=https;host=traces.example.com",
    )];

    /// Client and origin, as they are seen after a peer sent these headers.
    fn seen(trusted: &str, peer: &str, headers: &[(&str, &str)]) -> (String, String) {
        let mut request = Request::get("/").header(header::HOST, "inside:8742");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let peer = PeerAddress(peer.parse().unwrap());
        request.extensions_mut().insert(peer);
        find(&trusted.parse().unwrap(), &mut request);
        let ClientAddress(client) = request.extensions().get().copied().unwrap();
        let headers = request.headers();
        for name in [FOR, HOST, PORT, header::FORWARDED] {
            assert!(!headers.contains_key(&name), "{name} is left");
        }
        let host = headers[header::HOST].to_str().unwrap();
        let scheme = headers
            .get(PROTO)
            .map_or("http", |proto| proto.to_str().unwrap());
        (client.to_string(), format!("{scheme}://{host}"))
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        for headers in [&FULL[..], &STANDARD] {
            for (trusted, peer) in [
                ("off", PROXY),
                ("", PROXY),
                ("10.0.0.2", PROXY),
                (TRUSTED, "192.0.2.1"),
            ] {
                let (client, origin) = seen(trusted, peer, headers);
                assert_eq!(
                    (client.as_str(), origin.as_str()),
                    (peer, INSIDE),
                    "{trusted}"
                );
            }
            for peer in [PROXY, "::ffff:10.0.0.1", "fd00::7"] {
                let (client, origin) = seen(TRUSTED, peer, headers);
                assert_eq!(client, "203.0.113.9", "{peer}");
                assert_eq!(origin, "https://traces.example.com", "{peer}");
            }
        }
    }

    #[test]
    fn the_client_is_whom_the_outermost_trusted_proxy_names() {
        let outside = "203.0.113.9";
        let cases = [
            // What a client invented stands before what a proxy added.
            (
                "x-forwarded-for",
                "127.0.0.1, 198.51.100.1, 203.0.113.9",
                outside,
            ),
            ("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.3.3.3", outside),
            (
                "forwarded",
                "for=1.1.1.1, for=203.0.113.9, for=10.3.3.3",
                outside,
            ),
            ("x-forwarded-for", "203.0.113.9:51", outside),
            ("x-forwarded-for", "[2001:db8::9]:51", "2001:db8::9"),
            ("forwarded", "For=\"[2001:db8::9]:51\";by=x", "2001:db8::9"),
            ("forwarded", "for=unknown", PROXY),
            ("x-forwarded-for", "203.0.113.9, unknown", PROXY),
            ("x-forwarded-for", "10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ];
        for (name, value, client) in cases {
            let found = seen(TRUSTED, PROXY, &[(name, value)]);
            assert_eq!(found, (client.to_owned(), INSIDE.to_owned()), "{value}");
        }
        // The kind that a proxy does not know passes it, as the client sent it.
        let both = [FULL[0], ("forwarded", "for=1.1.1.1;host=evil.example")];
        let found = seen(TRUSTED, PROXY, &both);
        assert_eq!(found, (outside.to_owned(), INSIDE.to_owned()));
    }

    #[test]
    fn the_origin_is_what_the_nearest_proxy_was_asked_for() {
        let (host, proto) = ("x-forwarded-host", "x-forwarded-proto");
        let port = "x-forwarded-port";
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[(host, "a.example")], "http://a.example"),
            (
                &[(host, "evil.example"), (host, "a.example")],
                "http://a.example",
            ),
            (
                &[(host, "a.example"), (proto, "https"), (port, "443")],
                "https://a.example",
            ),
            (
                &[(host, "a.example"), (proto, "https"), (port, "8443")],
                "https://a.example:8443",
            ),
            (
                &[(host, "a.example:8000"), (port, "8443")],
                "http://a.example:8000",
            ),
            (&[(host, "user@evil.example")], INSIDE),
            (&[(host, "a/b c")], INSIDE),
            (&[(proto, "gopher")], INSIDE),
        ];
        for (headers, origin) in cases {
            assert_eq!(seen(TRUSTED, PROXY, headers).1, origin, "{headers:?}");
        }
    }

    #[test]
    fn lists_of_proxies_are_addresses_and_networks() {
        for text in ["10.0.0.0/33", "proxy.example", "10.0.0.1,,10.0.0.2", "*"] {
            assert!(text.parse::<TrustedProxies>().is_err(), "{text}");
        }
        let loopback: TrustedProxies = "127.0.0.0/8,::1".parse().unwrap();
        assert!(loopback.trusts("127.0.0.9".parse().unwrap()));
        assert!(!loopback.trusts("10.0.0.1".parse().unwrap()));
    }
}
