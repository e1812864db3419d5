//! `listen` and `tls`: where we are reached, and what speaks TLS there.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{
    files::Need,
    reader::{Reader, text, texts},
};
use crate::yaml::{Field, Fields, Node, Shape};

/// The listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// Where callers come.
    pub public: SocketAddr,
    /// Metrics and health; nothing that has power.
    pub operations: SocketAddr,
    /// The break-glass socket, mode 0600.
    pub admin_socket: PathBuf,
    /// Whose `X-Forwarded-For` is believed (threat H08).
    pub proxies: Vec<IpNet>,
}

/// What speaks TLS on the public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsConfig {
    /// Somebody else, in front of us: `tls: none`.
    None,
    /// We do.
    Files {
        /// The certificate chain (PEM).
        certificate_file: PathBuf,
        /// Its private key (PEM).
        key_file: PathBuf,
    },
}

pub(super) static LISTEN: Fields = Fields {
    what: "the listeners",
    fields: &[
        Field::required("public", "Where callers come: address and port", Shape::Text),
        Field::optional(
            "operations",
            "Metrics and health, nothing that has power: address and port. Default: `127.0.0.1:9090`",
            Shape::Text,
        ),
        Field::optional(
            "admin_socket",
            "The break-glass Unix socket, mode 0600. Default: `admin.sock` in `data`",
            Shape::Text,
        ),
        Field::optional(
            "proxies",
            "Addresses or networks whose `X-Forwarded-For` is believed. Default: nobody's",
            Shape::List(&Shape::Text, 0),
        ),
    ],
};

static FILES: Fields = Fields {
    what: "the TLS files",
    fields: &[
        Field::required("certificate_file", "The certificate chain (PEM)", Shape::Text),
        Field::required(
            "key_file",
            "Its private key (PEM), in a file of mode 0600 or 0400",
            Shape::Secret,
        ),
    ],
};

pub(super) static TLS: Shape = Shape::Either(&[
    Shape::Choice(&[("none", "plain http: a proxy in front of us speaks TLS")]),
    Shape::Map(&FILES),
]);

/// The longest path that a Unix socket can have, with its final NUL (`sun_path`).
const LONGEST_SOCKET_PATH: usize = 107;

pub(super) fn read(reader: &mut Reader<'_>, data: Option<&Path>) -> Option<ListenConfig> {
    let map = reader.section("listen")?;
    let public = address(reader, map, "public");
    let operations = match map.find("operations") {
        Some(_) => address(reader, map, "operations"),
        None => Some(SocketAddr::from(([127, 0, 0, 1], 9090))),
    };
    if let (Some(public), Some(operations)) = (public, operations)
        && public.port() == operations.port()
        && public.port() != 0
    {
        let place = map.find("operations").map_or(map.place, |at| at.place);
        reader.refuse(
            place,
            format!("`operations` has the port of `public`, {}", public.port()),
            "metrics are not for callers: give them a port of their own",
        );
    }
    let named = reader.path(map, "admin_socket", Need::Made);
    let admin_socket = named.or_else(|| data.map(|data| data.join("admin.sock")));
    if let Some(path) = &admin_socket
        && path.as_os_str().len() > LONGEST_SOCKET_PATH
    {
        let place = map.find("admin_socket").map_or(map.place, |at| at.place);
        let message = format!(
            "the path of `admin_socket` has {} bytes, expected at most {LONGEST_SOCKET_PATH}",
            path.as_os_str().len()
        );
        reader.refuse(place, message, "choose a shorter one, such as below /run");
    }
    let proxies = proxies(reader, map);
    Some(ListenConfig {
        public: public?,
        operations: operations?,
        admin_socket: admin_socket?,
        proxies,
    })
}

pub(super) fn tls(reader: &mut Reader<'_>, listen: Option<&ListenConfig>) -> Option<TlsConfig> {
    let node = reader.section("tls")?;
    if node.text() == Some("none") {
        if let Some(listen) = listen
            && !listen.public.ip().is_loopback()
            && listen.proxies.is_empty()
        {
            let message = format!("plain http on `{}`, and no proxy is named", listen.public);
            reader.warn(
                node.place,
                message,
                "name the proxy that speaks TLS for us in `listen.proxies`",
            );
        }
        return Some(TlsConfig::None);
    }
    let certificate_file = reader.path(node, "certificate_file", Need::File);
    let key_file = reader.path(node, "key_file", Need::Secret);
    Some(TlsConfig::Files { certificate_file: certificate_file?, key_file: key_file? })
}

fn address(reader: &mut Reader<'_>, map: &Node, key: &str) -> Option<SocketAddr> {
    let (found, at) = text(map, key)?;
    let address: Option<SocketAddr> = found.parse().ok();
    if address.is_none() {
        let message =
            format!("`{key}` is `{}`, expected an address and a port", found.escape_debug());
        reader.refuse(at.place, message, "such as `0.0.0.0:8443` or `[::]:8443`: no host names");
    }
    address
}

fn proxies(reader: &mut Reader<'_>, map: &Node) -> Vec<IpNet> {
    let mut proxies = Vec::new();
    for (found, at) in texts(map, "proxies") {
        match network(found) {
            Ok(network) => proxies.push(network),
            Err(reason) => {
                let message = format!("`proxies` names `{}`: {reason}", found.escape_debug());
                reader.refuse(at.place, message, "such as `10.0.0.7` or `10.0.0.0/8`");
            }
        }
    }
    proxies
}

/// An address, or a network in CIDR notation (RFC 4632 section 3.1) that is narrower than everybody.
fn network(text: &str) -> Result<IpNet, &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| "expected an address or a network")?;
    if network.prefix_len() == 0 {
        return Err("everybody is no proxy");
    }
    if network.trunc() != network {
        return Err("bits after the prefix are set");
    }
    Ok(network)
}
