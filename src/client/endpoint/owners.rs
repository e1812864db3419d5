//! Who is at the other end of each connection, asked of the kernel beside the listener: nobody who comes meanwhile waits for it.
//!
//! The kernel's tables ([`peer`]) have a row for each socket of the machine, and on a busy one a reading takes its time. So there is
//! one reading at a time, for all who wait: their number does not make it longer, and a crowd of strangers costs no more than one.

use std::{io, net::SocketAddr};

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::peer::{self, Connection};

/// The most connections whose owner is being found out; the next ones wait in the listener's queue, until a reading is over.
pub(super) const WAITING: usize = 256;

type Asked = (Connection, oneshot::Sender<io::Result<u32>>);

/// Finds them out.
#[derive(Clone, Debug)]
pub(super) struct Owners(mpsc::Sender<Asked>);

impl Owners {
    /// On a task of `tasks`, which ends when this and all its clones are gone.
    pub(super) fn start(tasks: &TaskTracker) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tasks.spawn(answer(receiver, peer::owners_of));
        Self(sender)
    }

    /// The user that made the socket at `peer` which is connected to `ours`.
    ///
    /// # Errors
    /// As [`peer::owners_of`].
    pub(super) async fn of(&self, peer: SocketAddr, ours: SocketAddr) -> io::Result<u32> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(((peer, ours), sender)).await.map_err(io::Error::other)?;
        receiver.await.map_err(io::Error::other)?
    }
}

/// How the tables are read.
type Read = fn(&[Connection]) -> Vec<io::Result<u32>>;

async fn answer(mut receiver: mpsc::Receiver<Asked>, read: Read) {
    let mut waiting = Vec::new();
    while receiver.recv_many(&mut waiting, WAITING).await > 0 {
        let (asked, senders): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
        // The tables are files: they are read where blocking harms nobody.
        let read = tokio::task::spawn_blocking(move || read(&asked)).await;
        // Who hears nothing is told so by the end of its channel.
        for (sender, owner) in senders.into_iter().zip(read.unwrap_or_default()) {
            // Gone meanwhile: there is nobody to tell.
            let _ = sender.send(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says how many it was asked for together, in place of a user.
    fn count(asked: &[Connection]) -> Vec<io::Result<u32>> {
        let many = u32::try_from(asked.len()).unwrap();
        asked.iter().map(|_| Ok(many)).collect()
    }

    #[tokio::test]
    async fn all_who_wait_are_found_by_one_reading() {
        let (sender, receiver) = mpsc::channel(WAITING);
        let owners = Owners(sender);
        let at: SocketAddr = "127.0.0.1:1".parse().unwrap();
        // They all ask before anybody reads.
        let crowd = futures_util::future::join_all((0..100).map(|_| owners.of(at, at)));
        let (told, ()) = tokio::join!(crowd, async {
            let tasks = TaskTracker::new();
            tasks.spawn(answer(receiver, count));
        });
        assert!(told.iter().all(|told| matches!(told, Ok(100))), "{told:?}");
    }

    #[tokio::test]
    async fn who_is_not_told_of_by_a_reading_is_nobody() {
        let (sender, receiver) = mpsc::channel(WAITING);
        let owners = Owners(sender);
        let tasks = TaskTracker::new();
        tasks.spawn(answer(receiver, |_| Vec::new()));
        let at: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert!(owners.of(at, at).await.is_err());
        drop(owners);
        tasks.close();
        tasks.wait().await;
    }
}
