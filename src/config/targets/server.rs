//! How a target with a server of its own is reached: shared by the kinds `postgres`, `mysql` and `redis`.

use std::{net::IpAddr, path::PathBuf};

use crate::{
    config::{
        files::Need,
        reader::{Reader, number, text},
    },
    yaml::{Field, Fields, Node, Shape},
};

/// A server, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The name that clients use, and that its certificate must carry.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// How the connection is protected.
    pub tls: ServerTls,
    /// Our user there.
    pub user: String,
    /// Our password there.
    pub password_file: PathBuf,
    /// How much of it may be taken up.
    pub bounds: Bounds,
}

/// How much of a server may be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many connections of ours at once.
    pub connections: u32,
    /// How many logins one subject may hold at once.
    pub per_subject: u32,
    /// How many logins all subjects together may hold at once.
    pub in_all: Option<u32>,
}

/// How the connection to a server is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTls {
    /// The chain is verified up to these roots, and the name in the certificate is the host's (`verify-full`).
    VerifyFull {
        /// The roots; none means those of the machine.
        ca_file: Option<PathBuf>,
    },
    /// Not at all.
    DangerouslyPlain,
}

static CA: Fields = Fields {
    what: "the server's certificate",
    fields: &[Field::required(
        "ca_file",
        "The roots that its chain must lead to, as PEM, in place of the machine's",
        Shape::Text,
    )],
};

static TLS_SHAPES: [Shape; 2] = [
    Shape::Map(&CA),
    Shape::Choice(&[("dangerously_plain", "no TLS: only for a server on this machine")]),
];

pub(super) const HOST: Field = Field::required(
    "host",
    "The server's name, as clients use it and as its certificate carries it",
    Shape::Text,
);
pub(super) const PORT: Field =
    Field::optional("port", "Its TCP port. Default: the usual one", Shape::Integer(1, 65_535));
pub(super) const TLS: Field = Field::optional(
    "tls",
    "`{ ca_file: … }` for a private CA, or `dangerously_plain`. Default: TLS up to the machine's roots; chain and name are always verified",
    Shape::Either(&TLS_SHAPES),
);
pub(super) const USER: Field = Field::required(
    "user",
    "Our user there: see the page of the target kind for its rights",
    Shape::Text,
);
pub(super) const PASSWORD_FILE: Field = Field::required(
    "password_file",
    "Our password there, in a file of mode 0600 or 0400",
    Shape::Secret,
);
pub(super) const CONNECTIONS: Field = Field::optional(
    "connections",
    "How many connections at once, for making and ending logins together. Default: 4",
    Shape::Integer(1, 64),
);

pub(super) const PER_SUBJECT: Field = Field::optional(
    "logins_per_subject",
    "How many logins one subject may hold at once: times what a login may have of sessions, it should stay well below what the server takes. Default: 20",
    Shape::Integer(1, 10_000),
);

pub(super) const IN_ALL: Field = Field::optional(
    "logins_in_all",
    "How many logins all subjects together may hold at once. Default: no bound but that of each subject",
    Shape::Integer(1, 10_000),
);

/// The server of the target `node`; `port` is the usual one of its kind.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, port: u16) -> Option<ServerConfig> {
    let password_file = reader.path(node, "password_file", Need::Secret);
    let tls = tls(reader, node);
    let found = number(Some(node), "port", u32::from(port));
    let bounds = bounds(reader, node);
    Some(ServerConfig {
        host: text(node, "host")?.0.to_owned(),
        port: u16::try_from(found).unwrap_or(port),
        tls: tls?,
        user: text(node, "user")?.0.to_owned(),
        password_file: password_file?,
        bounds,
    })
}

fn bounds(reader: &mut Reader<'_>, node: &Node) -> Bounds {
    let per_subject = number(Some(node), "logins_per_subject", 20);
    let in_all = node.find("logins_in_all").map(|found| {
        let in_all = number(Some(node), "logins_in_all", 1);
        if in_all <= per_subject {
            let message = format!(
                "`logins_in_all` is {in_all}, and one subject alone may hold {per_subject}: it can keep all others out"
            );
            let hint = "raise it, or set a lower `logins_per_subject`";
            reader.warn(found.place, message, hint);
        }
        in_all
    });
    Bounds { connections: number(Some(node), "connections", 4), per_subject, in_all }
}

fn tls(reader: &mut Reader<'_>, node: &Node) -> Option<ServerTls> {
    let Some(tls) = node.find("tls") else { return Some(ServerTls::VerifyFull { ca_file: None }) };
    if tls.text().is_none() {
        let ca_file = Some(reader.path(tls, "ca_file", Need::File)?);
        return Some(ServerTls::VerifyFull { ca_file });
    }
    let host = text(node, "host").map(|(host, _)| host).unwrap_or_default();
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !here {
        reader.refuse(
            tls.place,
            format!("`{}` would be reached without TLS", host.escape_debug()),
            "`dangerously_plain` is for a server on this machine: give the server a certificate, and its CA as `ca_file`",
        );
    }
    Some(ServerTls::DangerouslyPlain)
}
