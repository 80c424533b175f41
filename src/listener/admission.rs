//! How many connections there may be: in all, and of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Connections at most; 0 sets no limit.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// On all listeners together.
    pub all: usize,
    /// Of one address, or of one network of 64 bits with IPv6.
    pub of_address: usize,
}

/// Descriptors that are left for everything but connections: files, Postgres, listeners.
const DESCRIPTORS_KEPT: u64 = 256;
/// From so many on, each connection gets less memory.
const MANY: usize = 256;

/// All connections that are open; clones count together.
#[derive(Debug, Clone)]
pub struct Connections {
    limits: ConnectionLimits,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    of_address: HashMap<IpAddr, usize>,
}

impl Connections {
    /// None yet. Lets the process open as many files as the system allows it, and stays below that: once
    /// there are no descriptors left, nobody gets in, and Postgres is out of reach.
    pub fn new(limits: ConnectionLimits) -> Self {
        let room = descriptors().saturating_sub(DESCRIPTORS_KEPT).max(16);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let all = match limits.all {
            0 => room,
            all => all.min(room),
        };
        if limits.all > all {
            tracing::warn!(
                "the system allows {all} connections, not {}; raise its limit of open files (ulimit -n)",
                limits.all
            );
        }
        Self {
            limits: ConnectionLimits { all, ..limits },
            open: Arc::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are so many that each gets less.
    pub(super) fn are_many(&self) -> bool {
        self.open().all > MANY
    }

    /// A place for one more connection of that address, until it is dropped; none if there are too many.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut open = self.open();
        let of_address = open.of_address.get(&network).copied().unwrap_or_default();
        let limit = self.limits.of_address;
        let cause = if open.all >= self.limits.all {
            "all"
        } else if limit > 0 && of_address >= limit {
            "address"
        } else {
            open.all += 1;
            open.of_address.insert(network, of_address + 1);
            gauge!("xtrace_connections").set(open.all as f64);
            return Some(Place {
                connections: self.clone(),
                network,
            });
        };
        counter!("xtrace_connections_refused_total", "limit" => cause).increment(1);
        None
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.all -= 1;
        gauge!("xtrace_connections").set(open.all as f64);
        if let Some(count) = open.of_address.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.of_address.remove(&self.network);
            }
        }
    }
}

/// Whom an address belongs to: with IPv6 everybody has a network of 64 bits to choose from.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// How many files the process may open, after asking for as many as it may have.
fn descriptors() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = limit.maximum.map(|maximum| maximum.min(1 << 20));
        let raised = rustix::process::Rlimit {
            current: wanted.or(Some(1 << 20)),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(all: usize, of_address: usize) -> Connections {
        Connections::new(ConnectionLimits { all, of_address })
    }

    #[test]
    fn places_are_counted_by_address_and_in_all() {
        let connections = connections(3, 2);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = connections.enter(address("2001:db8::1")).unwrap();
        let second = connections.enter(address("2001:db8::2")).unwrap();
        assert!(connections.enter(address("2001:db8::3")).is_none());
        let third = connections.enter(address("10.0.0.1")).unwrap();
        assert!(connections.enter(address("10.0.0.2")).is_none());
        drop(first);
        assert!(connections.enter(address("2001:db8::3")).is_some());
        drop((second, third));
        let open = connections.open();
        assert_eq!((open.all, open.of_address.len()), (0, 0));
    }

    #[test]
    fn addresses_of_ipv4_stay_whole() {
        let address: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(network(address).to_string(), "10.1.2.3");
    }
}
