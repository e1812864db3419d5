//! Who holds the places of a listener: one program must not be able to shut it by holding connections that say nothing.
//!
//! A new connection always gets a place. Where its peer holds its share already, or all are taken, another one is dropped for it: one
//! that has sent nothing yet before one that has, and an older one before a newer one. Answers come from memory, so whoever has asked
//! has its answer long before it is the oldest.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Open connections of one listener. SDKs ask once in minutes.
const PLACES: usize = 64;
/// Those of one peer.
const SHARE: usize = 16;
/// What one site or host has of IPv6 (RFC 4291 section 2.5.4): its addresses are as many as it likes.
const SITE: u128 = !0 << 64;

/// Whom places are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// A user of this machine, as the kernel says.
    User(u32),
    /// Somebody whose user the kernel does not know: on another machine (or in another pod: the kubelet's probes), or gone.
    At(IpAddr),
}

impl Peer {
    /// Who is at `address`, where its user is not known.
    pub(super) fn at(address: IpAddr) -> Self {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Self::At(Ipv4Addr::LOCALHOST.into());
        }
        Self::At(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & SITE).into(),
        })
    }
}

#[derive(Debug)]
struct Held {
    number: u64,
    peer: Peer,
    spoke: bool,
    out: CancellationToken,
}

/// In the order in which they came.
#[derive(Debug, Default)]
struct Table {
    held: Vec<Held>,
    next: u64,
}

impl Table {
    fn make_room(&mut self, peer: Peer) {
        let mut holds = BTreeMap::<Peer, usize>::new();
        for one in &self.held {
            let count = holds.entry(one.peer).or_default();
            *count = count.saturating_add(1);
        }
        let dropped = if holds.get(&peer).is_some_and(|count| *count >= SHARE) {
            self.oldest(|one| one.peer == peer && !one.spoke)
                .or_else(|| self.oldest(|one| one.peer == peer))
        } else if self.held.len() >= PLACES {
            // Nobody is silent: then it costs whoever holds the most, and never a peer that has little for one that has much.
            let most = holds.into_iter().max_by_key(|(_, count)| *count).map(|(peer, _)| peer);
            self.oldest(|one| !one.spoke).or_else(|| self.oldest(|one| Some(one.peer) == most))
        } else {
            None
        };
        if let Some(at) = dropped {
            self.held.remove(at).out.cancel();
        }
    }

    fn oldest(&self, like: impl FnMut(&Held) -> bool) -> Option<usize> {
        self.held.iter().position(like)
    }
}

/// The places of one listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Table>>);

impl Places {
    /// A place for a connection of `peer`, until it is dropped or [`Place::lost`].
    pub(super) fn take(&self, peer: Peer) -> Place {
        let mut table = self.table();
        table.make_room(peer);
        let (number, out) = (table.next, CancellationToken::new());
        table.next = number.wrapping_add(1);
        table.held.push(Held { number, peer, spoke: false, out: out.clone() });
        Place { number, out, places: self.clone() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    out: CancellationToken,
    places: Places,
}

impl Place {
    /// Its peer has sent something.
    pub(super) fn spoke(&self) {
        let mut table = self.places.table();
        if let Some(held) = table.held.iter_mut().find(|held| held.number == self.number) {
            held.spoke = true;
        }
    }

    /// Ends when the place went to somebody else.
    pub(super) async fn lost(&self) {
        self.out.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table().held.retain(|held| held.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(places: &[Place]) -> Vec<usize> {
        let lost = places.iter().enumerate().filter(|(_, place)| place.out.is_cancelled());
        lost.map(|(at, _)| at).collect()
    }

    #[test]
    fn a_user_that_holds_its_share_in_silence_pays_for_its_next_one_itself() {
        let places = Places::default();
        let ours = places.take(Peer::User(1000));
        let mut theirs: Vec<_> = (0..SHARE).map(|_| places.take(Peer::User(65_533))).collect();
        theirs[0].spoke();
        theirs.push(places.take(Peer::User(65_533)));
        assert_eq!(gone(&theirs), [1], "the oldest that has said nothing");
        theirs.iter().for_each(Place::spoke);
        theirs.push(places.take(Peer::User(65_533)));
        assert_eq!(gone(&theirs), [0, 1]);
        assert!(!ours.out.is_cancelled());
    }

    #[test]
    fn where_all_are_taken_a_newcomer_gets_the_place_of_the_oldest_silent_one() {
        let places = Places::default();
        let many = u32::try_from(PLACES).unwrap();
        let mut all: Vec<_> = (0..many).map(|n| places.take(Peer::User(n / 10))).collect();
        all[0].spoke();
        all.push(places.take(Peer::At(Ipv4Addr::new(10, 0, 0, 1).into())));
        assert_eq!(gone(&all), [1]);
        // A probe gets in where everybody speaks, too, at the cost of a user that holds much.
        all.iter().for_each(Place::spoke);
        let probe = places.take(Peer::At(Ipv4Addr::new(10, 0, 0, 2).into()));
        let lost = gone(&all);
        assert_eq!(lost.len(), 2, "{lost:?}");
        assert!(lost[1] >= 10, "user 0 holds one less than the others: {lost:?}");
        assert!(!probe.out.is_cancelled());
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_is_over() {
        let places = Places::default();
        for _ in 0..3 {
            let all: Vec<_> = (0..SHARE).map(|_| places.take(Peer::User(7))).collect();
            assert_eq!(gone(&all), Vec::<usize>::new());
        }
        assert!(places.table().held.is_empty());
    }

    #[test]
    fn addresses_that_one_peer_has_many_of_are_one_peer() {
        let at = |text: &str| Peer::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("127.0.0.1"), at("127.9.9.9"));
        assert_eq!(at("127.0.0.1"), at("::ffff:127.0.0.1"));
        assert_eq!(at("::1"), at("127.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }
}
