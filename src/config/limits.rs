//! Settings that bound what callers may take.

use clap::Args;

use super::values::parse_connections;
use crate::listener::ConnectionLimits;
use crate::proxies::TrustedProxies;
use crate::receivers::body::WriteRates;

/// How much callers may take of what all share.
#[derive(Debug, Clone, Args)]
pub struct LimitsConfig {
    /// Connections on all listeners together at most; 0: as many as the system allows.
    #[arg(
        long = "max-connections",
        env = "XTRACE_MAX_CONNECTIONS",
        default_value = "4096",
        value_parser = parse_connections
    )]
    connections_max: usize,
    /// Connections of one address at most (of a /64 with IPv6); 0 sets no limit. Behind a proxy,
    /// trusted or not, all connections are of its address.
    #[arg(
        long = "max-connections-per-address",
        env = "XTRACE_MAX_CONNECTIONS_PER_ADDRESS",
        default_value = "1024",
        value_parser = parse_connections
    )]
    connections_per_address_max: usize,
    /// Proxies before xtrace, as addresses and networks between commas, or `off`. What they say of a client's
    /// address, host and scheme (`X-Forwarded-*` or `Forwarded`) is believed, and of nobody else.
    #[arg(
        long = "trusted-proxies",
        env = "XTRACE_TRUSTED_PROXIES",
        default_value = "127.0.0.0/8,::1"
    )]
    pub trusted_proxies: TrustedProxies,
    /// Credentials that open nothing, of one address a second, until it is refused for a while; 0 sets no
    /// limit. Guesses at one key are held to a tenth of that.
    #[arg(
        long = "auth-failures-per-second",
        env = "XTRACE_AUTH_FAILURES_PER_SECOND",
        default_value = "10"
    )]
    pub auth_failures_per_second: u32,
    /// Requests a second with bodies that a public key alone may make, which stands in web pages; 0 sets no
    /// limit.
    #[arg(
        long = "public-key-qps",
        env = "XTRACE_PUBLIC_KEY_QPS",
        default_value = "20"
    )]
    public_requests_per_second: u32,
    /// Bytes that one project may write a second, decompressed; 0 sets no limit.
    #[arg(
        long = "max-write-bytes-per-second",
        env = "XTRACE_MAX_WRITE_BYTES_PER_SECOND",
        default_value = "0"
    )]
    write_bytes_per_second: u64,
}

impl LimitsConfig {
    /// How much callers may write.
    pub fn write_rates(&self) -> WriteRates {
        WriteRates {
            bytes_per_second: self.write_bytes_per_second,
            public_requests_per_second: self.public_requests_per_second,
        }
    }

    /// How many connections there may be.
    pub fn connections(&self) -> ConnectionLimits {
        ConnectionLimits {
            all: self.connections_max,
            of_address: self.connections_per_address_max,
        }
    }
}
