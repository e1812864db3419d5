//! Where a request comes from: the peer of the connection, or what a configured proxy says of it (threat H08).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::request::Parts;
use ipnet::IpNet;

/// The other end of the connection. The listener puts it into every request; nothing in a request can.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The networks whose `X-Forwarded-For` is believed. Empty means that nobody's is.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// The proxies at `networks`.
    #[must_use]
    pub fn of(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    pub(super) fn vouch_for(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// What stands for an address in rate limits and connection caps: IPv4 whole, IPv6 by its /64, which one host can fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressKey(IpAddr);

impl AddressKey {
    /// The key of `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(six) => {
                let network = u128::from(six) & (u128::MAX << 64);
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
            IpAddr::V4(four) => Self(IpAddr::V4(four)),
        }
    }
}

/// The caller's address. `None` if the listener did not say who connected: then nobody is served.
///
/// Read from the right, because each proxy appends whom it saw: the first address that is no proxy of ours is the last
/// that one of them vouches for. What stands further left was written by the caller.
pub(super) fn of(parts: &Parts, proxies: &Proxies) -> Option<IpAddr> {
    let mut address = parts.extensions.get::<Peer>()?.0.ip().to_canonical();
    let lines = parts.headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    for hop in hops {
        if !proxies.vouch_for(address) {
            return Some(address);
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(next) => address = next.to_canonical(),
            // Unreadable: the proxy that wrote it is as far as anyone vouches.
            Err(_) => return Some(address),
        }
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen_from(peer: &str, forwarded: &[&str]) -> Option<IpAddr> {
        let mut request = axum::http::Request::builder();
        for line in forwarded {
            request = request.header("x-forwarded-for", *line);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(Peer(SocketAddr::new(peer.parse().unwrap(), 4711)));
        of(&parts, &Proxies::of(["10.0.0.0/8".parse().unwrap()]))
    }

    #[test]
    fn h08_forwarded_for_counts_only_as_far_as_configured_proxies_vouch() {
        for (peer, forwarded, expected) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["192.0.2.66, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["192.0.2.66", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["192.0.2.66, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(
                seen_from(peer, forwarded),
                Some(expected.parse().unwrap()),
                "{forwarded:?}"
            );
        }
    }

    #[test]
    fn one_ipv6_host_has_one_key_however_many_addresses_it_takes() {
        let key = |text: &str| AddressKey::of(text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }
}
