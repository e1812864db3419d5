//! The battery of `KeyJournal`.

use std::{collections::BTreeSet, sync::Arc};

use cambio::{
    keys::{KeyJournal, Replaced, Stored},
    ledger::Event,
};

use crate::keys::bench::MemoryJournal;

fn entry(epoch: u64) -> Event {
    let (kid, algorithm) = ("k".to_owned(), "ES256".to_owned());
    Event::Keys { step: "prepare", kid, algorithm, epoch }
}

/// `journal` must be empty.
pub(crate) async fn holds(journal: Arc<dyn KeyJournal>) {
    assert_eq!(journal.load().await, Ok(Stored::default()));
    let replace = async |from, to, text: &str| {
        journal.replace(from, to, text.to_owned(), entry(to)).await.unwrap()
    };
    assert_eq!(replace(0, 1, "one").await, Replaced::Durable);
    let stands = Stored { ring: Some((1, "one".to_owned())), witnessed: 1 };
    assert_eq!(journal.load().await, Ok(stands.clone()), "duty 2: ring and entry, both");
    assert_eq!(replace(0, 1, "other").await, Replaced::Stale { found: 1 }, "duty 1");
    assert_eq!(replace(2, 3, "other").await, Replaced::Stale { found: 1 }, "duty 1");
    assert_eq!(journal.load().await, Ok(stands), "duty 2: neither ring nor entry");
    for epoch in 1..20 {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let journal = Arc::clone(&journal);
                let race = async move {
                    let text = format!("ring {epoch} of {racer}");
                    (
                        racer,
                        journal.replace(epoch, epoch + 1, text, entry(epoch + 1)).await.unwrap(),
                    )
                };
                tokio_util::task::TaskTracker::new().spawn(race)
            })
            .collect();
        let mut winners = BTreeSet::new();
        for racer in racers {
            let (racer, ended) = racer.await.unwrap();
            if ended == Replaced::Durable {
                winners.insert(racer);
            } else {
                assert_eq!(ended, Replaced::Stale { found: epoch + 1 }, "duty 1");
            }
        }
        assert_eq!(winners.len(), 1, "duty 1: one of eight");
        let stored = journal.load().await.unwrap();
        let text = format!("ring {epoch} of {}", winners.first().unwrap());
        assert_eq!(stored, Stored { ring: Some((epoch + 1, text)), witnessed: epoch + 1 });
    }
    assert_eq!(journal.signed_by("nobody").await, Ok(Vec::new()), "duty 4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k04_a_journal_in_memory_lets_one_node_win() {
    holds(Arc::new(MemoryJournal::default())).await;
}

#[tokio::test]
async fn a_journal_in_memory_lists_what_a_key_signed_and_reads_the_epoch_from_its_entries() {
    let journal = MemoryJournal::default();
    let signed = [journal.granted("k", "jti-1"), journal.granted("k", "jti-2")];
    journal.granted("other", "jti-3");
    assert_eq!(journal.signed_by("k").await, Ok(signed.to_vec()), "duty 4");
    journal.replace(0, 1, "one".to_owned(), entry(1)).await.unwrap();
    journal.restore_row(None);
    assert_eq!(journal.load().await, Ok(Stored { ring: None, witnessed: 1 }), "duty 3");
}
