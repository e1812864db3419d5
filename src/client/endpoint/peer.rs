//! Whose program the other end of a TCP connection on this machine is: `SO_PEERCRED` exists for Unix sockets alone, but the
//! kernel's table of TCP sockets (proc(5), `/proc/self/net/tcp`) names the user that made each.
//!
//! The user is the one that made the *socket*. A program that hands its socket to another one has decided by itself.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
};

/// The kernel's name of a connection that is open at both ends. A row in any other state may have lost its owner, and then says 0,
/// which is root.
const ESTABLISHED: &str = "01";
/// The tables of IPv4 and IPv6. Not `/proc/net`: where a unit says `ProcSubset=pid`, all of `/proc` but processes is hidden.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// The user that made the socket at `peer` which is connected to `ours`.
///
/// # Errors
/// No table can be read, or none has such a socket: the other end is gone, or not on this machine.
pub fn owner_of(peer: SocketAddr, ours: SocketAddr) -> io::Result<u32> {
    // A socket of IPv6 may speak IPv4 (RFC 4291 section 2.5.5.2); then it stands in the other table.
    for (table, wide) in TABLES.into_iter().zip([false, true]) {
        if peer.is_ipv6() && !wide {
            continue;
        }
        let row = Row::of(peer, ours, wide);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("`{table}`: {error}"));
        for line in BufReader::new(File::open(table).map_err(named)?).lines() {
            if let Some(uid) = row.owner(&line?) {
                return Ok(uid);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the kernel has no such connection"))
}

/// How a connection is written in the table: local and remote address, as the other end sees them.
struct Row {
    local: String,
    remote: String,
}

impl Row {
    fn of(peer: SocketAddr, ours: SocketAddr, mapped: bool) -> Self {
        Self { local: spelled(peer, mapped), remote: spelled(ours, mapped) }
    }

    /// The owner, where `line` is this connection and open.
    fn owner(&self, line: &str) -> Option<u32> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        if local != self.local || remote != self.remote || state != ESTABLISHED {
            return None;
        }
        // Queues, timer, retransmits; then user, timeout, inode. Without an inode it is nobody's any more.
        let mut fields = fields.skip(3);
        let (uid, _timeout, inode) = (fields.next()?, fields.next()?, fields.next()?);
        if inode == "0" { None } else { uid.parse().ok() }
    }
}

/// Four bytes at a time, as a number of this machine's byte order; the port as a number.
fn spelled(address: SocketAddr, mapped: bool) -> String {
    let octets = match address.ip() {
        IpAddr::V4(four) if mapped => four.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|four| {
        let four: [u8; 4] = four.try_into().unwrap_or_default();
        format!("{:08X}", u32::from_ne_bytes(four))
    });
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_names_the_owner_of_the_other_end_in_both_families() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(at) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, from) = listener.accept().unwrap();
            let own = rustix::process::geteuid().as_raw();
            assert_eq!(owner_of(from, server.local_addr().unwrap()).ok(), Some(own), "{at}");
            // The wrong way round it is our own end: also ours, but another row.
            drop(client);
            assert!(owner_of(from, server.local_addr().unwrap()).is_err(), "closed is nobody's");
        }
    }

    /// With `ProcSubset=pid`, there is no `/proc/net`.
    #[test]
    fn the_tables_are_those_that_a_process_finds_below_its_own_name() {
        assert!(TABLES.iter().all(|table| table.starts_with("/proc/self/")));
    }

    #[test]
    fn only_an_open_connection_with_an_owner_counts() {
        let [peer, ours] = ["127.0.0.1:50000", "127.0.0.1:9981"].map(|text| text.parse().unwrap());
        let row = Row::of(peer, ours, false);
        let line = |state: &str, inode: &str| {
            let (local, remote) = (&row.local, &row.remote);
            format!(
                "  7: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  1000 0 {inode} 1"
            )
        };
        assert_eq!(row.owner(&line("01", "4711")), Some(1000));
        // TIME_WAIT, an orphan, somebody else's, the headline.
        assert_eq!(row.owner(&line("06", "4711")), None);
        assert_eq!(row.owner(&line("01", "0")), None);
        assert_eq!(Row::of(ours, peer, false).owner(&line("01", "4711")), None);
        assert_eq!(row.owner("  sl  local_address rem_address   st"), None);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_are_spelled_as_the_kernel_does() {
        assert_eq!(spelled("127.0.0.1:80".parse().unwrap(), false), "0100007F:0050");
        assert_eq!(
            spelled("127.0.0.1:80".parse().unwrap(), true),
            "0000000000000000FFFF00000100007F:0050"
        );
        assert_eq!(
            spelled("[::1]:80".parse().unwrap(), true),
            "00000000000000000000000001000000:0050"
        );
    }
}
