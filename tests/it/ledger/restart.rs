//! What a start accepts and refuses: threats A06, A07, K07, K09, V08.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cambio::{
    clock::{Clock as _, ManualClock},
    id::LeaseId,
    ledger::{
        Commit as _, Committed, LeaseIntent, Proposal, Share, entry::Entry, reader::Leases,
        verify::verify, writer::StartError,
    },
    store::{Store, StoreError},
};

use super::log::{Disk, Log, NOW, ORIGIN, durable, grant, public, start, tamper};

fn refused(path: &Path) -> StoreError {
    Store::open(path).expect_err("a store that must not open")
}

fn damage(path: &Path) -> StartError {
    let clock = Arc::new(ManualClock::at(NOW));
    start(Store::open(path).unwrap(), &clock).expect_err("a log that must not start")
}

async fn of_ten() -> Disk {
    let mut log = Log::create();
    log.grants(0, 6).await;
    log.checkpoint();
    log.grants(6, 4).await;
    log.close().await
}

#[tokio::test]
async fn a_restart_goes_on_where_the_log_ended() {
    let disk = of_ten().await;
    let log = Log::open(&disk.path);
    assert_eq!(log.writer.head().time, NOW, "ledger time is known after a restart");
    let receipt = durable(log.writer.commit(grant(10)).await);
    assert_eq!(receipt.index(), 10);
    let spent = log.writer.commit(grant(3)).await;
    assert!(matches!(spent, Ok(cambio::ledger::Committed::AlreadySpent(_))), "{spent:?}");
    let entries = log.reader.entries(9..11).unwrap();
    let entries: Vec<_> = entries.iter().map(|it| Entry::decode(&it.leaf).unwrap()).collect();
    assert_eq!((entries[0].counter, entries[1].counter), (9, 0), "a run of its own");
    verify(&*log.reader, &public(), &[], &mut |_, _| {}).unwrap();
}

#[tokio::test]
async fn a06_a_changed_entry_after_the_last_checkpoint_refuses_the_start() {
    for (sql, index) in [
        ("UPDATE entry SET leaf = CAST(leaf || x'00' AS BLOB) WHERE idx = 8", 8),
        ("UPDATE entry SET hash = zeroblob(32) WHERE idx = 7", 7),
        ("DELETE FROM entry WHERE idx = 8", 8),
        ("DELETE FROM entry WHERE idx = 6", 6),
    ] {
        let disk = of_ten().await;
        tamper(&disk.path, sql);
        let found = damage(&disk.path);
        assert!(
            matches!(found, StartError::Damaged { index: at, .. } if at == index),
            "{sql}: {found}"
        );
    }
}

#[tokio::test]
async fn a06_entries_and_checkpoints_that_disagree_refuse_the_start() {
    for sql in [
        "DELETE FROM entry WHERE idx >= 5",
        "UPDATE entry SET hash = zeroblob(32) WHERE idx = 2",
        "UPDATE checkpoint SET note = replace(note, 'log.example', 'lag.example')",
        "UPDATE checkpoint SET size = 5",
    ] {
        let disk = of_ten().await;
        tamper(&disk.path, sql);
        let found = damage(&disk.path);
        assert!(
            matches!(found, StartError::Damaged { .. } | StartError::Read(_)),
            "{sql}: {found}"
        );
    }
}

#[tokio::test]
async fn a06_a_torn_unacknowledged_tail_is_cut_and_damage_before_it_refuses_the_start() {
    let log = Log::create();
    for number in 0..5 {
        durable(log.writer.commit(grant(number)).await);
    }
    // A crash: the files as they are, with the writer still running.
    let copy = |name: &str| {
        let folder = log.path.parent().unwrap().join(name);
        fs::create_dir(&folder).unwrap();
        let to = folder.join("cambio.db");
        fs::copy(&log.path, &to).unwrap();
        fs::copy(wal(&log.path), wal(&to)).unwrap();
        to
    };
    let whole = copy("whole");
    assert_eq!(Log::open(&whole).reader.size().unwrap(), 5, "nothing acknowledged is lost");

    let torn = copy("torn");
    let bytes = fs::read(wal(&torn)).unwrap();
    fs::write(wal(&torn), &bytes[..bytes.len() - 100]).unwrap();
    assert_eq!(Log::open(&torn).reader.size().unwrap(), 4, "the torn commit is cut");

    // One changed byte in each part of the log: SQLite alone would drop all that follows, and start.
    let frames = (bytes.len() - 32) / (4_096 + 24);
    for frame in 0..frames / 2 {
        let path = copy(&format!("damaged-{frame}"));
        let mut bytes = bytes.clone();
        bytes[32 + frame * (4_096 + 24) + 24 + 2_000] ^= 0x10;
        fs::write(wal(&path), bytes).unwrap();
        let found = refused(&path);
        assert!(matches!(found, StoreError::Damaged(_)), "frame {frame}: {found}");
    }
}

/// What the torn end of a log held is lost, with what was spent in it: whoever shows such a token again is not told that it is new.
#[tokio::test]
async fn a06_after_a_torn_end_no_token_from_before_is_taken_that_may_be_used_once() {
    let log = Log::create();
    log.grants(0, 3).await;
    let path = log.path.parent().unwrap().join("torn.db");
    fs::copy(&log.path, &path).unwrap();
    let mut bytes = fs::read(wal(&log.path)).unwrap();
    // The last commit's last frame; it was flushed, but nobody can tell.
    let place = bytes.len() - 2_000;
    bytes[place] ^= 0x10;
    fs::write(wal(&path), bytes).unwrap();
    for restart in 0..2 {
        let log = Log::open(&path);
        assert_eq!(log.reader.size().unwrap(), 2 + restart * 2, "the third is gone");
        let again = log.writer.commit(grant(2)).await;
        assert!(matches!(again, Ok(cambio::ledger::Committed::AlreadySpent(_))), "{again:?}");
        let mut fresh = grant(10 + restart);
        let facts = fresh.facts.as_mut().unwrap();
        let issued = NOW.plus(cambio::subject::MAXIMUM_LEEWAY).seconds() + 1;
        Arc::make_mut(&mut facts.claims).insert("iat".to_owned(), issued.into());
        durable(log.writer.commit(fresh).await);
        log.close().await;
    }
}

fn wal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

#[tokio::test]
async fn a06_a_damaged_page_refuses_the_start() {
    let disk = of_ten().await;
    tamper(&disk.path, "PRAGMA wal_checkpoint(TRUNCATE);");
    let mut bytes = fs::read(&disk.path).unwrap();
    // The second page's header: the type of a b-tree page.
    bytes[8_192] = 0xff;
    fs::write(&disk.path, bytes).unwrap();
    let found = refused(&disk.path);
    assert!(matches!(found, StoreError::Damaged(_)), "{found}");
}

/// What is damaged is left as it was, for whoever examines it, with the version that wrote it.
#[tokio::test]
async fn v08_a_damaged_store_of_an_older_version_is_not_brought_up() {
    let disk = of_ten().await;
    tamper(
        &disk.path,
        "DROP TABLE intent; DROP INDEX lease_held; ALTER TABLE lease DROP COLUMN holder; \
         PRAGMA user_version = 1; PRAGMA wal_checkpoint(TRUNCATE)",
    );
    let mut bytes = fs::read(&disk.path).unwrap();
    bytes[8_192] = 0xff;
    fs::write(&disk.path, &bytes).unwrap();
    let found = refused(&disk.path);
    assert!(matches!(found, StoreError::Damaged(_)), "{found}");
    let connection = rusqlite::Connection::open(&disk.path).unwrap();
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
}

#[tokio::test]
async fn a07_a_second_process_is_kept_out_and_readers_are_not() {
    let log = Log::create();
    assert_eq!(refused(&log.path), StoreError::Locked(log.path.clone()));
    log.grants(0, 1).await;
    assert_eq!(
        Store::read(&log.path).unwrap().size().unwrap(),
        1,
        "the CLI reads beside the broker"
    );
    let disk = log.close().await;
    Store::open(&disk.path).unwrap();
}

#[tokio::test]
async fn k09_the_store_is_made_once_by_name_and_belongs_to_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cambio.db");
    assert_eq!(refused(&path), StoreError::Absent(path.clone()));
    assert!(!path.exists(), "a typo does not start a log");
    drop(Store::create(&path, ORIGIN).unwrap());
    let again = Store::create(&path, ORIGIN).expect_err("made twice");
    assert_eq!(again, StoreError::Exists(path.clone()));
    let mode = |name: PathBuf| fs::metadata(name).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.clone()), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!((mode(path.clone()), store.reader.origin()), (0o600, ORIGIN));
    for origin in ["", "a b", "a+b"] {
        let nameless = Store::create(&folder.path().join("other.db"), origin);
        assert!(matches!(nameless, Err(StoreError::Origin(_))), "{origin:?}");
    }
}

#[tokio::test]
async fn k09_the_writer_flushes_fully_in_wal_mode_and_the_library_is_new_enough() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    let log = Log::create();
    log.grants(0, 1).await;
    assert!(wal(&log.path).exists());
    let mode: String = rusqlite::Connection::open(&log.path)
        .unwrap()
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
}

/// A store of the first schema, with a live lease in it: brought up to date by whoever opens it for writing, and by nobody else.
#[tokio::test]
async fn v08_an_older_store_is_brought_up_to_date_and_loses_nothing() {
    let log = Log::create();
    let lease = |number: u8, share| LeaseIntent {
        id: LeaseId::from_bytes([number; 16]),
        target: "postgres/orders".into(),
        object: format!("cambio_{number}"),
        mint_deadline: NOW.plus(Duration::from_secs(10)),
        worst_end: NOW.plus(Duration::from_mins(15)),
        token: [number; 32],
        share,
    };
    let opening = |number: u8, share| cambio::ledger::Proposal {
        lease: Some(lease(number, share)),
        ..grant(u64::from(number))
    };
    durable(log.writer.commit(opening(1, None)).await);
    let disk = log.close().await;
    tamper(
        &disk.path,
        "DROP TABLE intent; DROP INDEX lease_held; ALTER TABLE lease DROP COLUMN holder; \
         PRAGMA user_version = 1",
    );
    let read = Store::read(&disk.path).err();
    assert_eq!(read, Some(StoreError::Older { found: 1, known: 3 }), "a reader changes nothing");
    let log = Log::open(&disk.path);
    assert_eq!(log.reader.leases(Leases::All, 9).unwrap()[0].object, "cambio_1");
    let share = Share { holder: [1; 32], of_holder: 1, of_all: Some(2) };
    durable(log.writer.commit(opening(2, Some(share))).await);
    let other = Share { holder: [2; 32], ..share };
    let full = log.writer.commit(opening(3, Some(other))).await;
    assert!(matches!(full, Ok(Committed::NoRoom(..))), "an old lease counts among all: {full:?}");
    assert_eq!(log.reader.unknown_outcomes().unwrap(), []);
    let intent = super::log::intent(20, None);
    durable(log.writer.commit(Proposal { intent: Some(intent), ..grant(20) }).await);
    assert_eq!(log.reader.intents_due(NOW, 9, 9).unwrap().len(), 1);
    verify(&*log.reader, &public(), &[], &mut |_, _| {}).unwrap();
}

#[tokio::test]
async fn v08_a_newer_schema_is_refused() {
    let disk = of_ten().await;
    tamper(&disk.path, "PRAGMA user_version = 4;");
    assert_eq!(refused(&disk.path), StoreError::Newer { found: 4, known: 3 });
    tamper(&disk.path, "PRAGMA user_version = 3; PRAGMA application_id = 7;");
    assert!(matches!(refused(&disk.path), StoreError::Damaged(_)));
}

#[tokio::test]
async fn the_log_key_is_kept_once() {
    let log = Log::create();
    let again = Store::keep_log_key(&log.path, "another", &public());
    assert_eq!(again, Err(StoreError::KeyExists));
    let (sealed, verifier) = log.reader.log_key().unwrap().unwrap();
    assert_eq!((sealed.as_str(), verifier), ("sealed elsewhere", public().to_string()));
    assert_eq!(log.clock.now(), NOW);
}

#[tokio::test]
async fn a_clock_far_behind_the_newest_entry_stops_issuing_after_a_restart_too() {
    let disk = of_ten().await;
    let log = Log::open(&disk.path);
    log.clock.set(NOW.minus(std::time::Duration::from_secs(61)));
    let outcome = log.writer.commit(grant(20)).await;
    assert!(matches!(outcome, Err(cambio::ledger::CommitError::ClockBehind(_))), "{outcome:?}");
}
