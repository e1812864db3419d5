//! Anchors and forks: threats A02, K07; and the duties of `ledger::anchor::Anchor` on the file.

use std::{fs, sync::Arc};

use cambio::{
    clock::Clock as _,
    ledger::{
        Commit as _, CommitError, Committed, Operator,
        anchor::{Anchor, AnchorError, FileAnchor, Fork, check_head},
        checkpoint::{Checkpoint, Checkpointer, anchor_first},
        entry::{Entry, Kind},
        verify::verify,
    },
    secret::Secret,
};

use super::log::{Disk, Log, ORIGIN, grant, key, public};

fn note(size: u64, root: u8, forks: &[(u64, [u8; 32])]) -> String {
    let origin = ORIGIN.to_owned();
    let checkpoint = Checkpoint { origin, size, root: [root; 32], forks: forks.to_vec() };
    key().sign(&checkpoint.to_string())
}

fn file() -> (tempfile::TempDir, FileAnchor) {
    let folder = tempfile::tempdir().unwrap();
    let anchor = FileAnchor::new(&folder.path().join("anchor"), public());
    (folder, anchor)
}

/// The battery of the seam.
async fn holds(anchor: &dyn Anchor) {
    assert_eq!(anchor.newest().await, Ok(None));
    anchor.publish(&note(5, 5, &[])).await.unwrap();
    anchor.publish(&note(9, 9, &[])).await.unwrap();
    assert_eq!(anchor.newest().await.unwrap().unwrap().size, 9, "duty 1");
    anchor.publish(&note(9, 9, &[])).await.unwrap();
    for (size, root) in [(8, 8), (9, 8), (0, 0)] {
        let found = anchor.publish(&note(size, root, &[])).await;
        assert!(
            matches!(found, Err(AnchorError::Backwards { newest: 9, .. })),
            "duty 2: {found:?}"
        );
    }
    let other = anchor.publish(&note(7, 7, &[(9, [8; 32])])).await;
    assert!(matches!(other, Err(AnchorError::Backwards { .. })), "duty 2: another fork");
    anchor.publish(&note(7, 7, &[(9, [9; 32])])).await.unwrap();
    assert_eq!(anchor.newest().await.unwrap().unwrap().size, 7, "duty 2: acknowledged");
    let stranger =
        cambio::ledger::note::LogKey::from_seed(ORIGIN, &Secret::new(vec![1; 32])).unwrap();
    let forged = stranger.sign(&format!("{ORIGIN}\n99\n{}=\n", "B".repeat(43)));
    let found = anchor.publish(&forged).await;
    assert!(matches!(found, Err(AnchorError::Foreign { .. })), "duty 3: {found:?}");
}

#[tokio::test]
async fn the_duties_hold_on_a_file() {
    let (_folder, anchor) = file();
    holds(&anchor).await;
}

#[tokio::test]
async fn a_torn_note_is_passed_over_and_a_foreign_one_is_not() {
    let (folder, anchor) = file();
    let path = folder.path().join("anchor");
    anchor.publish(&note(5, 5, &[])).await.unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{whole}{}", note(6, 6, &[]).split_at(30).0)).unwrap();
    assert_eq!(anchor.newest().await.unwrap().unwrap().size, 5);
    fs::write(&path, whole.replace("\n5\n", "\n6\n")).unwrap();
    let found = anchor.newest().await;
    assert!(matches!(found, Err(AnchorError::Foreign { .. })), "{found:?}");
    fs::write(&path, "something else").unwrap();
    assert!(matches!(anchor.newest().await, Err(AnchorError::Foreign { .. })));
    let nowhere = FileAnchor::new(&folder.path().join("absent/anchor"), public());
    let found = nowhere.publish(&note(5, 5, &[])).await;
    assert!(matches!(found, Err(AnchorError::Failed { .. })), "{found:?}");
}

/// A log of 4 entries, a copy of it, then 8 entries and an anchor that saw them.
async fn restored_from_yesterday() -> (Disk, Arc<dyn Anchor>) {
    let mut log = Log::create();
    log.grants(0, 4).await;
    log.checkpoint();
    let anchor: Arc<dyn Anchor> =
        Arc::new(FileAnchor::new(&log.path.with_extension("anchor"), public()));
    let disk = log.close().await;
    let backup = disk.path.with_extension("backup");
    fs::copy(&disk.path, &backup).unwrap();
    let mut log = Log::open(&disk.path);
    log.grants(4, 4).await;
    anchor.publish(&log.checkpoint()).await.unwrap();
    assert_eq!(check_head(&*log.reader, &[Arc::clone(&anchor)]).await, Ok(()));
    log.close().await;
    for suffix in ["db-wal", "db-shm"] {
        let _ = fs::remove_file(disk.path.with_extension(suffix));
    }
    fs::rename(backup, &disk.path).unwrap();
    (disk, anchor)
}

fn by() -> Operator {
    Operator { who: "uid:0".into(), reason: "restored the backup of 2027-01-14".into() }
}

/// A grant to be used once, of a token issued `seconds` from now.
async fn fenced(log: &Log, number: u64, seconds: u64) -> Option<()> {
    let mut proposal = grant(number);
    let issued = super::log::NOW.seconds().saturating_add(seconds);
    Arc::make_mut(&mut proposal.facts.as_mut()?.claims).insert("iat".to_owned(), issued.into());
    match log.writer.commit(proposal).await {
        Ok(Committed::Durable(_)) => Some(()),
        Ok(Committed::AlreadySpent(_)) => None,
        other => panic!("found {other:?}"),
    }
}

#[tokio::test]
async fn k07_a_head_behind_its_anchor_stops_issuing_until_a_fork_is_recorded() {
    let (disk, anchor) = restored_from_yesterday().await;
    let anchors = [Arc::clone(&anchor)];
    let log = Log::open(&disk.path);
    let forks = check_head(&*log.reader, &anchors).await.expect_err("a log behind its anchor");
    let [fork @ Fork::Behind { size: 4, anchored: (8, root), .. }] = forks.as_slice() else {
        panic!("found {forks:?}");
    };
    log.writer.hold(fork.to_string());
    assert_eq!(log.writer.commit(grant(20)).await, Err(CommitError::Fork(fork.to_string())));
    assert_eq!(log.reader.size().unwrap(), 4);

    log.writer.fork(&[(8, *root)], &by()).await.unwrap();
    let entry = log.reader.newest_of(Kind::Forked).unwrap().unwrap();
    let entry = Entry::decode(&entry.leaf).unwrap();
    assert_eq!(
        (&entry.body["anchored_size"], &entry.body["reason"]),
        (&8.into(), &by().reason.into())
    );
    assert_eq!(fenced(&log, 20, 60).await, None, "perhaps it was spent in the lost history");
    assert_eq!(fenced(&log, 21, 61).await, Some(()), "issued after the fork");
    log.close().await;

    // The next start knows, and the anchor takes the shorter log only because its checkpoint says why.
    let mut log = Log::open(&disk.path);
    assert_eq!(check_head(&*log.reader, &anchors).await, Ok(()));
    assert_eq!(fenced(&log, 22, 60).await, None, "the fence outlives a restart");
    assert!(matches!(anchor.publish(&note(6, 6, &[])).await, Err(AnchorError::Backwards { .. })));
    let note = log.checkpoint();
    assert!(note.contains("\nfork 8 "), "{note}");
    anchor.publish(&note).await.unwrap();
    assert_eq!(check_head(&*log.reader, &anchors).await, Ok(()));
    for number in 30..36 {
        assert_eq!(fenced(&log, number, 61).await, Some(()));
    }
    let note = log.checkpoint();
    assert!(!note.contains("\nfork "), "{note}");
    anchor.publish(&note).await.unwrap();
    let newest = anchor.newest().await.unwrap().unwrap();
    verify(&*log.reader, &public(), &[newest], &mut |_, _| {}).unwrap();
}

#[tokio::test]
async fn k07_another_history_of_the_same_length_is_seen() {
    let (disk, anchor) = restored_from_yesterday().await;
    let log = Log::open(&disk.path);
    log.grants(40, 6).await;
    let forks = check_head(&*log.reader, &[anchor]).await.expect_err("a log beside its anchor");
    assert!(matches!(forks.as_slice(), [Fork::Beside { anchored: (8, _), .. }]), "{forks:?}");
}

#[tokio::test]
async fn k07_an_anchor_that_does_not_answer_is_not_agreement() {
    let log = Log::create();
    let path = log.path.with_extension("anchor");
    fs::create_dir(&path).unwrap();
    let anchor: Arc<dyn Anchor> = Arc::new(FileAnchor::new(&path, public()));
    let forks = check_head(&*log.reader, &[anchor]).await.expect_err("an anchor that is a folder");
    assert!(matches!(forks.as_slice(), [Fork::Unknown(_)]), "{forks:?}");
    assert_eq!(forks[0].anchored(), None);
}

#[tokio::test]
async fn a_log_ahead_of_its_anchor_is_in_order() {
    let mut log = Log::create();
    log.grants(0, 3).await;
    let anchor: Arc<dyn Anchor> =
        Arc::new(FileAnchor::new(&log.path.with_extension("anchor"), public()));
    anchor.publish(&log.checkpoint()).await.unwrap();
    log.grants(3, 5).await;
    assert_eq!(check_head(&*log.reader, &[anchor]).await, Ok(()));
}

#[tokio::test]
async fn the_first_note_appears_whole_or_not_at_all() {
    let (folder, anchor) = file();
    // Who died before the rename left this behind: it is nobody's anchor, and in nobody's way.
    fs::write(folder.path().join("anchor.new"), "log.exam").unwrap();
    assert_eq!(anchor.newest().await, Ok(None));
    anchor.publish(&note(5, 5, &[])).await.unwrap();
    assert_eq!(anchor.newest().await.unwrap().unwrap().size, 5);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["anchor"]);
}

#[tokio::test]
async fn every_anchor_has_a_head_before_the_first_exchange() {
    let log = Log::create();
    log.grants(0, 1).await;
    let anchor: Arc<dyn Anchor> =
        Arc::new(FileAnchor::new(&log.path.with_extension("anchor"), public()));
    let checkpointer =
        Checkpointer::new(key(), Arc::clone(&log.reader), log.writer.clone()).unwrap();
    let now = log.clock.now();
    let checkpointer = anchor_first(checkpointer, &[Arc::clone(&anchor)], now).await.unwrap();
    assert_eq!(anchor.newest().await.unwrap().unwrap().size, 1);
    // An anchor that came later gets the head that stands, though there is nothing new to sign.
    let late: Arc<dyn Anchor> =
        Arc::new(FileAnchor::new(&log.path.with_extension("late"), public()));
    anchor_first(checkpointer, &[Arc::clone(&late)], now).await.unwrap();
    assert_eq!(late.newest().await.unwrap().unwrap().size, 1);
}
