//! Settings that bound what callers may take.

use clap::Args;

use super::values::parse_connections;
use crate::listener::ConnectionLimits;

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
    /// Connections of one address at most (of a /64 with IPv6); 0 sets no limit. Behind a proxy all
    /// connections are of its address.
    #[arg(
        long = "max-connections-per-address",
        env = "XTRACE_MAX_CONNECTIONS_PER_ADDRESS",
        default_value = "1024",
        value_parser = parse_connections
    )]
    connections_per_address_max: usize,
}

impl LimitsConfig {
    /// How many connections there may be.
    pub fn connections(&self) -> ConnectionLimits {
        ConnectionLimits {
            all: self.connections_max,
            of_address: self.connections_per_address_max,
        }
    }
}
