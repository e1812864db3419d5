//! Whose program the other end of a TCP connection on this machine is: `SO_PEERCRED` exists for Unix sockets alone, but the
//! kernel's table of TCP sockets (proc(5), `/proc/self/net/tcp`) names the user that made each.
//!
//! The user is the one that made the *socket*. A program that hands its socket to another one has decided by itself.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
};

/// The kernel's name of a connection that is open at both ends. A row in any other state may have lost its owner, and then says 0,
/// which is root.
const ESTABLISHED: &str = "01";
/// The tables of IPv4 and IPv6. Not `/proc/net`: where a unit says `ProcSubset=pid`, all of `/proc` but processes is hidden.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// What the kernel says in place of a user that has no number here, where nothing else was set.
const OVERFLOW: u32 = 65_534;

/// The user that the kernel shows for every user that has no number in our user namespace: many users' programs at once, and on most
/// machines `nobody` besides. So it says of nobody who they are.
#[must_use]
pub fn overflow_user() -> u32 {
    // A unit may hide it (`ProcSubset=pid`).
    let set = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
    set.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW)
}

/// A connection, as it is seen from here: the other end, and ours.
pub type Connection = (SocketAddr, SocketAddr);

/// The users that made the sockets at the other ends of `asked`, in the same order; by one reading of the tables, however many are
/// asked for: a table has a row for every socket of the machine.
///
/// An error: no table can be read, or none has such a socket. The other end is gone, or not on this machine.
#[must_use]
pub fn owners_of(asked: &[Connection]) -> Vec<io::Result<u32>> {
    let mut found = BTreeMap::new();
    let mut trouble = None;
    // A socket of IPv6 may speak IPv4 (RFC 4291 section 2.5.5.2); then it stands in the other table.
    for (table, wide) in TABLES.into_iter().zip([false, true]) {
        let missing = asked.iter().filter(|(peer, ours)| {
            (wide || !peer.is_ipv6()) && !found.contains_key(&(*peer, *ours))
        });
        let rows: BTreeMap<Row, Connection> =
            missing.map(|(peer, ours)| (Row::of(*peer, *ours, wide), (*peer, *ours))).collect();
        if rows.is_empty() {
            continue;
        }
        if let Err(error) = read(table, &rows, &mut found) {
            trouble = Some((error.kind(), format!("`{table}`: {error}")));
            break;
        }
    }
    let answer = |connection: &Connection| match (found.get(connection), &trouble) {
        (Some(uid), _) => Ok(*uid),
        (None, Some((kind, why))) => Err(io::Error::new(*kind, why.clone())),
        (None, None) => {
            Err(io::Error::new(io::ErrorKind::NotFound, "the kernel has no such connection"))
        }
    };
    asked.iter().map(answer).collect()
}

fn read(
    table: &str,
    rows: &BTreeMap<Row, Connection>,
    found: &mut BTreeMap<Connection, u32>,
) -> io::Result<()> {
    for line in BufReader::new(File::open(table)?).lines() {
        if let Some((row, uid)) = Row::open(&line?)
            && let Some(connection) = rows.get(&row)
        {
            found.insert(*connection, uid);
        }
    }
    Ok(())
}

/// How a connection is written in the table: local and remote address, as the other end sees them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    local: String,
    remote: String,
}

impl Row {
    fn of(peer: SocketAddr, ours: SocketAddr, mapped: bool) -> Self {
        Self { local: spelled(peer, mapped), remote: spelled(ours, mapped) }
    }

    /// The connection that `line` is of and its owner, where it is open.
    fn open(line: &str) -> Option<(Self, u32)> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        if state != ESTABLISHED {
            return None;
        }
        // Queues, timer, retransmits; then user, timeout, inode. Without an inode it is nobody's any more.
        let mut fields = fields.skip(3);
        let (uid, _timeout, inode) = (fields.next()?, fields.next()?, fields.next()?);
        if inode == "0" {
            return None;
        }
        Some((Self { local: local.to_owned(), remote: remote.to_owned() }, uid.parse().ok()?))
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
            let asked = [(from, server.local_addr().unwrap())];
            assert_eq!(owners_of(&asked)[0].as_ref().ok(), Some(&own), "{at}");
            drop(client);
            assert!(owners_of(&asked)[0].is_err(), "closed is nobody's");
        }
    }

    #[test]
    fn those_who_are_asked_for_together_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.local_addr().unwrap();
        let clients = [(); 3].map(|()| TcpStream::connect(ours).unwrap());
        let mut asked =
            clients.each_ref().map(|client| (client.local_addr().unwrap(), ours)).to_vec();
        // A stranger between them, and one of them twice.
        asked.insert(1, ("127.0.0.1:1".parse().unwrap(), ours));
        asked.push(asked[0]);
        let told: Vec<bool> = owners_of(&asked).iter().map(Result::is_ok).collect();
        assert_eq!(told, [true, false, true, true, true]);
        assert!(owners_of(&[]).is_empty());
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
        assert_eq!(Row::open(&line("01", "4711")), Some((Row::of(peer, ours, false), 1000)));
        // TIME_WAIT, an orphan, the headline.
        assert_eq!(Row::open(&line("06", "4711")), None);
        assert_eq!(Row::open(&line("01", "0")), None);
        assert_eq!(Row::open("  sl  local_address rem_address   st"), None);
        // The other end of the same connection is another row.
        assert_ne!(Row::of(ours, peer, false), row);
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
