//! Which addresses we may connect to (threat D06). A name is resolved once, every address of the answer is checked, and the
//! connection goes to a checked address: there is no second look-up that a rebinding name server could answer otherwise.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use url::{Host, Url};

/// How near to us a configured origin may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of the public internet alone.
    Public,
    /// Those, and RFC 1918, shared (CGNAT) and unique local addresses: the issuer's configuration says `private`.
    Private,
    /// Loopback alone: what `cambio dev`'s sandbox issuer has. `serve` never has it.
    DangerouslyLoopback,
}

/// An address, or a name's answer, that we do not connect to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GuardError {
    /// One address of the answer is out of reach; the whole answer is refused.
    #[error("`{host}` has the address {address}, which is {what}: not allowed here")]
    Refused {
        /// The host, as configured.
        host: String,
        /// The first bad address.
        address: IpAddr,
        /// What kind of address it is.
        what: &'static str,
    },
    /// No address at all.
    #[error("`{host}` has no address")]
    Nothing {
        /// The host, as configured.
        host: String,
    },
}

/// Finds a name's addresses. The seam for tests; the system's resolver everywhere else.
#[async_trait]
pub trait Lookup: fmt::Debug + Send + Sync {
    /// All addresses of `host`.
    ///
    /// # Errors
    /// The resolver could not be asked, or knows no such name.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// The resolver of the bounded client.
#[derive(Clone, Debug)]
pub struct Guard {
    reach: Reach,
    lookup: Arc<dyn Lookup>,
}

impl Guard {
    /// A guard that lets through what `reach` says.
    #[must_use]
    pub fn new(reach: Reach, lookup: Arc<dyn Lookup>) -> Self {
        Self { reach, lookup }
    }

    /// Checks a host that is an address already: the HTTP client asks no resolver for those.
    ///
    /// # Errors
    /// The address is out of reach.
    pub fn check_literal(&self, url: &Url) -> Result<(), GuardError> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) => return Ok(()),
            None => return Err(GuardError::Nothing { host: url.to_string() }),
        };
        self.check(url.host_str().unwrap_or_default(), &[address])
    }

    /// Checks a whole answer: one bad address spoils it, because whoever mixes them chose to.
    ///
    /// # Errors
    /// The answer is empty, or an address of it is out of reach.
    pub fn check(&self, host: &str, addresses: &[IpAddr]) -> Result<(), GuardError> {
        if addresses.is_empty() {
            return Err(GuardError::Nothing { host: host.to_owned() });
        }
        let bad = addresses.iter().find_map(|address| {
            let what = kind_of(*address);
            (!self.reaches(what)).then_some((*address, what.as_str()))
        });
        match bad {
            Some((address, what)) => {
                Err(GuardError::Refused { host: host.to_owned(), address, what })
            }
            None => Ok(()),
        }
    }

    const fn reaches(&self, kind: Kind) -> bool {
        match self.reach {
            Reach::Public => matches!(kind, Kind::Global),
            Reach::Private => matches!(kind, Kind::Global | Kind::Private),
            Reach::DangerouslyLoopback => matches!(kind, Kind::Loopback),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = guard.lookup.lookup(name.as_str()).await?;
            guard.check(name.as_str(), &addresses)?;
            // Port 0: the client puts the URL's own port in.
            let checked = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(checked) as Addrs)
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Global,
    Private,
    Loopback,
    Metadata,
    Special,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "public",
            Self::Private => "private",
            Self::Loopback => "loopback",
            Self::Metadata => "a cloud's metadata service",
            Self::Special => "link-local, reserved, multicast or wraps an IPv4 address",
        }
    }
}

/// Metadata services that do not live in link-local space: Alibaba's, Azure's wire server, and AWS over IPv6. Never an issuer,
/// not even a private one.
const METADATA_V4: [Ipv4Addr; 2] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

const fn kind_of(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_of_v4(address),
        IpAddr::V6(address) => kind_of_v6(address),
    }
}

/// After the IANA `IPv4` special-purpose registry (RFC 6890): what is not plainly public is not public.
const fn kind_of_v4(address: Ipv4Addr) -> Kind {
    let octets = address.octets();
    match octets {
        _ if same_v4(octets, METADATA_V4[0].octets()) => Kind::Metadata,
        _ if same_v4(octets, METADATA_V4[1].octets()) => Kind::Metadata,
        [169, 254, 169, 254] => Kind::Metadata,
        [127, ..] => Kind::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Kind::Private,
        [0 | 224..=255, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Kind::Special,
        _ => Kind::Global,
    }
}

const fn same_v4(left: [u8; 4], right: [u8; 4]) -> bool {
    u32::from_be_bytes(left) == u32::from_be_bytes(right)
}

/// Public `IPv6` is `2000::/3` and nothing else; inside it the IANA special-purpose registry takes out protocol assignments (Teredo
/// among them), documentation and 6to4. So v4-mapped, NAT64, link-local, multicast and unspecified fall out by not being in it.
const fn kind_of_v6(address: Ipv6Addr) -> Kind {
    let segments = address.segments();
    match segments {
        _ if address.to_bits() == METADATA_V6.to_bits() => Kind::Metadata,
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Loopback,
        [0xfc00..=0xfdff, ..] => Kind::Private,
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Special,
        [0x2000..=0x3fff, ..] => Kind::Global,
        _ => Kind::Special,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d06_only_public_addresses_are_public() {
        let public = ["1.1.1.1", "140.82.112.3", "192.0.1.1", "198.20.0.1", "2606:4700::1111"];
        let not_public = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:1.1.1.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ];
        let guard = Guard::new(Reach::Public, Arc::new(SystemLookup));
        let verdict = |text: &str| {
            guard.check("issuer.example", &[text.parse().expect("an address")]).is_ok()
        };
        assert_eq!(public.iter().find(|text| !verdict(text)), None);
        assert_eq!(not_public.iter().find(|text| verdict(text)), None);
    }

    #[test]
    fn d06_a_private_origin_reaches_private_networks_but_never_a_metadata_service() {
        let guard = Guard::new(Reach::Private, Arc::new(SystemLookup));
        let verdict = |text: &str| {
            guard.check("issuer.internal", &[text.parse().expect("an address")]).is_ok()
        };
        for text in ["10.0.0.1", "172.20.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "1.1.1.1"] {
            assert!(verdict(text), "{text}");
        }
        let never = [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fd00:ec2::254",
            "100.100.100.200",
            "fe80::1",
            "::ffff:10.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "64:ff9b::a00:1",
        ];
        assert_eq!(never.iter().find(|text| verdict(text)), None);
    }

    #[test]
    fn d06_one_bad_address_spoils_the_answer() {
        let guard = Guard::new(Reach::Public, Arc::new(SystemLookup));
        let mixed = ["1.1.1.1".parse().expect("v4"), "::1".parse().expect("v6")];
        assert_eq!(
            guard.check("issuer.example", &mixed).expect_err("mixed").to_string(),
            "`issuer.example` has the address ::1, which is loopback: not allowed here"
        );
        assert_eq!(
            guard.check("issuer.example", &[]).expect_err("empty").to_string(),
            "`issuer.example` has no address"
        );
    }
}
