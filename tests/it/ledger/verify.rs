//! `verify` finds every change, proofs prove, and what strangers chose can't hurt who reads it: threats A01, A02, A03, A08.

use std::{collections::BTreeSet, fs, sync::Arc};

use cambio::{
    ledger::{
        Commit as _, Event, Hash,
        checkpoint::Checkpoint,
        entry::{Entry, hex},
        reader::{LedgerReader, ReadError},
        receipt::{ProofError, ProveError, check_proof, prove},
        show::{export, show},
        tile::TileName,
        tree::{self, leaf_hash},
        verify::{Fault, Report, verify},
    },
    store::Store,
};

use super::log::{Log, NOW, ORIGIN, durable, grant, public, refusal};

fn check(reader: &dyn LedgerReader, outside: &[Checkpoint]) -> Result<Report, Fault> {
    verify(reader, &public(), outside, &mut |_, _| {})
}

/// 40 entries, checkpoints over 10, 25 and 38, and the head over 40 that an anchor keeps.
async fn of_forty() -> (Log, Checkpoint) {
    let mut log = Log::create();
    log.grants(0, 10).await;
    log.checkpoint();
    log.grants(10, 14).await;
    log.writer.note(refusal(900));
    log.grants(24, 1).await;
    log.checkpoint();
    log.grants(25, 14).await;
    log.checkpoint();
    let size = log.reader.size().unwrap();
    let root = log.writer.head().root;
    (log, Checkpoint { origin: ORIGIN.to_owned(), size, root, forks: Vec::new() })
}

#[tokio::test]
async fn an_untouched_log_verifies_with_and_without_an_anchor() {
    let (log, head) = of_forty().await;
    let mut told = Vec::new();
    let report =
        verify(&*log.reader, &public(), &[], &mut |done, all| told.push((done, all))).unwrap();
    assert_eq!(told, [(40, 40)]);
    let expected = Report {
        origin: ORIGIN.to_owned(),
        size: 40,
        root: head.root,
        checkpoints: 3,
        unsigned: 0,
        facts: 39,
        erased: 0,
        anchored: 0,
    };
    assert_eq!(report, expected);
    assert_eq!(check(&*log.reader, &[head]), Ok(Report { anchored: 1, ..expected.clone() }));
    log.tamper("DELETE FROM facts WHERE idx < 7");
    assert_eq!(check(&*log.reader, &[]), Ok(Report { facts: 32, erased: 7, ..expected }));
}

/// The row of `index` with another leaf, its hash and all tile roots made to agree.
fn consistent_edit(log: &Log, index: u64, leaf: &[u8]) {
    let (leaf, hash) = (hex(leaf), hex(&leaf_hash(leaf)));
    log.tamper(&format!("UPDATE entry SET leaf = x'{leaf}', hash = x'{hash}' WHERE idx = {index}"));
}

#[tokio::test]
async fn a03_a_flipped_bit_anywhere_names_its_entry() {
    let (log, head) = of_forty().await;
    for index in [0, 1, 9, 10, 24, 25, 38, 39] {
        let stored = log.reader.entry(index).unwrap().unwrap();
        for byte in (0..stored.leaf.len()).step_by(17) {
            let mut leaf = stored.leaf.clone();
            leaf[byte] ^= 1 << (byte % 8);
            log.tamper(&format!("UPDATE entry SET leaf = x'{}' WHERE idx = {index}", hex(&leaf)));
            let found = check(&*log.reader, &[]);
            assert!(
                matches!(found, Err(Fault::Entry { index: at, .. }) if at == index),
                "{found:?}"
            );
            // A careful hand changes the hash too. Then a signature or the anchor tells.
            consistent_edit(&log, index, &leaf);
            assert!(
                check(&*log.reader, std::slice::from_ref(&head)).is_err(),
                "{index}, byte {byte}"
            );
        }
        consistent_edit(&log, index, &stored.leaf);
        assert!(check(&*log.reader, std::slice::from_ref(&head)).is_ok(), "put back");
    }
}

#[tokio::test]
async fn a03_facts_time_copies_and_checkpoints_are_checked() {
    let cases = [
        (
            "UPDATE facts SET json = replace(json, 'acme', 'evil') WHERE idx = 12",
            "entry 12: its facts",
        ),
        ("UPDATE facts SET salt = zeroblob(16) WHERE idx = 3", "entry 3: its facts"),
        (
            "INSERT INTO facts SELECT 24, salt, json FROM facts WHERE idx = 3",
            "entry 24: found facts",
        ),
        ("UPDATE entry SET time = time + 1 WHERE idx = 7", "entry 7: the row tells another time"),
        (
            "UPDATE checkpoint SET note = replace(note, ' ', '  ') WHERE size = 26",
            "checkpoint over 26",
        ),
        ("UPDATE checkpoint SET size = 27 WHERE size = 26", "checkpoint over 27"),
        ("UPDATE entry SET idx = 99 WHERE idx = 39", "entry 39: it is missing"),
    ];
    for (sql, expected) in cases {
        let (log, _) = of_forty().await;
        log.tamper(
            &sql.replace("json = replace(json", "json = CAST(replace(json")
                .replace("'evil')", "'evil') AS BLOB)"),
        );
        let found = check(&*log.reader, &[]).expect_err(sql).to_string();
        assert!(found.starts_with(expected), "{sql}: {found}");
    }
}

#[tokio::test]
async fn a03_swapped_inserted_and_deleted_entries_are_found() {
    // Each with hashes that agree, because the rows are moved as they are.
    let renumber_down = "UPDATE entry SET idx = -idx WHERE idx > 12; UPDATE entry SET idx = -idx - 1 WHERE idx < 0;";
    let renumber_up = "UPDATE entry SET idx = -idx WHERE idx >= 12; UPDATE entry SET idx = -idx + 1 WHERE idx < 0;";
    let cases = [
        (
            "UPDATE entry SET idx = 1000 WHERE idx = 5; UPDATE entry SET idx = 5 WHERE idx = 6; \
          UPDATE entry SET idx = 6 WHERE idx = 1000;"
                .to_owned(),
            5,
        ),
        ("DELETE FROM entry WHERE idx = 12".to_owned(), 12),
        (format!("DELETE FROM entry WHERE idx = 12; {renumber_down}"), 12),
        (
            format!(
                "{renumber_up} INSERT INTO entry SELECT 12, kind, time, hash, leaf, exchange FROM entry WHERE idx = 3;"
            ),
            12,
        ),
        ("DELETE FROM entry WHERE idx = 0".to_owned(), 0),
    ];
    for (sql, index) in cases {
        let (log, _) = of_forty().await;
        log.tamper(&sql);
        let found = check(&*log.reader, &[]);
        assert!(
            matches!(found, Err(Fault::Entry { index: at, .. }) if at == index),
            "{sql}: {found:?}"
        );
    }
}

#[tokio::test]
async fn a02_a_cut_tail_ends_cleanly_and_only_an_outside_head_tells() {
    for keep in [0, 1, 10, 25, 30, 39] {
        let (log, head) = of_forty().await;
        log.tamper(&format!(
            "DELETE FROM entry WHERE idx >= {keep}; DELETE FROM facts WHERE idx >= {keep}; \
             DELETE FROM checkpoint WHERE size > {keep};"
        ));
        assert!(check(&*log.reader, &[]).is_ok(), "a chain alone can't show it");
        let found = check(&*log.reader, &[head]);
        assert!(matches!(found, Err(Fault::Outside { size: 40, .. })), "{found:?}");
    }
    let (log, _) = of_forty().await;
    log.tamper("DELETE FROM entry WHERE idx >= 39");
    let found = check(&*log.reader, &[]);
    assert!(matches!(found, Err(Fault::Checkpoint { size: 40, from: 26, .. })), "{found:?}");
}

#[tokio::test]
async fn a02_an_older_copy_is_found() {
    let log = Log::create();
    log.grants(0, 5).await;
    let disk = log.close().await;
    let copy = disk.path.with_extension("old");
    fs::copy(&disk.path, &copy).unwrap();
    let log = Log::open(&disk.path);
    log.grants(5, 5).await;
    let head = Checkpoint {
        origin: ORIGIN.to_owned(),
        size: 10,
        root: log.writer.head().root,
        forks: Vec::new(),
    };
    let old = Store::read(&copy).unwrap();
    assert!(check(&*old, &[]).is_ok());
    assert!(matches!(check(&*old, &[head]), Err(Fault::Outside { size: 10, .. })));
}

#[tokio::test]
async fn a12_a_checkpoint_by_another_key_is_no_checkpoint() {
    let (log, _) = of_forty().await;
    let other =
        cambio::ledger::note::LogKey::from_seed(ORIGIN, &vec![1; 32].try_into_secret()).unwrap();
    let found = verify(&*log.reader, other.public(), &[], &mut |_, _| {});
    assert!(matches!(found, Err(Fault::Checkpoint { size: 10, from: 0, .. })), "{found:?}");
}

trait TryIntoSecret {
    fn try_into_secret(self) -> cambio::secret::Secret;
}

impl TryIntoSecret for Vec<u8> {
    fn try_into_secret(self) -> cambio::secret::Secret {
        cambio::secret::Secret::new(self)
    }
}

#[tokio::test]
async fn every_entry_has_a_proof_and_no_other_leaf_passes() {
    let mut log = Log::create();
    let mut leaves = Vec::new();
    for number in 0..270 {
        leaves.push(durable(log.writer.commit(grant(number)).await).leaf());
        if number % 41 == 0 {
            log.checkpoint();
        }
    }
    log.checkpoint();
    for (index, leaf) in (0_u64..).zip(&leaves) {
        let text = prove(&*log.reader, index).unwrap();
        let (found, checkpoint) = check_proof(&text, leaf, &public()).unwrap();
        assert!(found == index && checkpoint.size > index);
        assert_eq!(check_proof(&text, &[0; 32], &public()), Err(ProofError::NotIncluded));
        let elsewhere =
            text.replace(&format!("index {index}\n"), &format!("index {}\n", index ^ 1));
        assert!(check_proof(&elsewhere, leaf, &public()).is_err() || checkpoint.size == 1);
    }
    let absent = prove(&*log.reader, 270);
    assert_eq!(absent, Err(ProveError::Read(ReadError::Absent(270))));
    log.grants(270, 1).await;
    assert_eq!(prove(&*log.reader, 270), Err(ProveError::NotYet(270)));
    let text = prove(&*log.reader, 7).unwrap();
    let extra = text.replacen("\nindex", "\nextra eA==\nindex", 1);
    assert!(check_proof(&extra, &leaves[7], &public()).is_ok());
    for broken in [
        text.replace("tlog-proof@v1", "tlog-proof@v2"),
        text.replace("index 7", "index 07"),
        text.split_at(90).0.to_owned(),
    ] {
        assert!(
            matches!(check_proof(&broken, &leaves[7], &public()), Err(ProofError::Malformed(_))),
            "{broken}"
        );
    }
}

#[tokio::test]
async fn tiles_hold_the_hashes_and_lead_to_the_root() {
    let log = Log::create();
    for number in 0..300 {
        log.writer.note(refusal(number));
    }
    durable(log.writer.commit(grant(1)).await);
    let render = |name: &str| name.parse::<TileName>().unwrap().render(&*log.reader).unwrap();
    let full = render("0/000").unwrap();
    assert_eq!(full.len(), 256 * 32);
    assert_eq!(render("0/001.p/45").unwrap().len(), 45 * 32);
    assert_eq!(render("0/001.p/46"), None);
    assert_eq!(render("0/001"), None);
    let above: Hash = render("1/000.p/1").unwrap().try_into().unwrap();
    let mut level: Vec<Hash> = full.chunks(32).map(|hash| hash.try_into().unwrap()).collect();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| tree::node_hash(&pair[0], &pair[1])).collect();
    }
    assert_eq!(level, [above]);
}

const NASTY: &str =
    "a\nb\u{1b}[2J\u{2028}\u{202e}\",\"index\":99,\"x\":\"\u{0}\u{e0041}\u{7f}\u{9b}";

#[tokio::test]
async fn a01_what_a_stranger_chose_stays_inside_its_line_and_its_field() {
    let log = Log::create();
    let mut proposal = grant(1);
    if let Event::Granted(granted) = &mut proposal.event {
        granted.subject = NASTY.to_owned();
    }
    Arc::make_mut(&mut proposal.facts.as_mut().unwrap().claims)
        .insert(NASTY.to_owned(), NASTY.into());
    durable(log.writer.commit(proposal).await);
    let mut lines = Vec::new();
    let count = export(&*log.reader, 0, true, &mut |line| {
        lines.push(line.to_owned());
        Ok::<_, ReadError>(())
    });
    assert_eq!(count, Ok(1));
    let [line] = lines.as_slice() else { panic!("found {} lines", lines.len()) };
    assert!(line.chars().all(|c| (' '..='~').contains(&c)), "{line}");
    let object: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(object["index"], 0);
    assert_eq!(object["event"]["subject"], NASTY);
    assert_eq!(object["facts"]["claims"][NASTY], NASTY);
    let text = show(&log.reader.entry(0).unwrap().unwrap(), true).unwrap();
    assert!(text.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("index: ")).count(), 1);
}

#[tokio::test]
async fn a_shown_entry_reads_like_this() {
    let log = Log::create();
    durable(log.writer.commit(refusal(1)).await);
    let text = show(&log.reader.entry(0).unwrap().unwrap(), true).unwrap();
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with("leaf_hash: ")).collect();
    let boot = text[3];
    assert!(boot.starts_with("boot: ") && boot.len() == 38, "{boot}");
    insta::assert_snapshot!(text.join("\n").replace(boot, "boot: …"), @r"
    index: 0
    kind: refused
    time: 2027-01-15T08:00:00Z
    boot: …
    counter: 0
    broker: 0.1.0
    event:
      exchange_id: ex_01a3185c50007838a5822a6f9e62da21
      issuer: github
      subject: github:repository_id:1296269
      token: 0505050505050505050505050505050505050505050505050505050505050505
      reason: denied
      policy: 0303030303030303030303030303030303030303030303030303030303030303
    ");
    assert_eq!(NOW.to_string(), "2027-01-15T08:00:00Z");
}

#[tokio::test]
async fn a_grant_by_a_hundred_rules_has_an_entry_that_commits_to_all_of_them() {
    let log = Log::create();
    let rules = |last: &str| -> Vec<cambio::grant::RuleId> {
        let ids = (0..100).map(|number| format!("platform-team/deploy-production-{number:03}"));
        ids.chain([last.to_owned()]).map(|id| id.as_str().into()).collect()
    };
    for (number, last) in [(1, "site/deploy"), (2, "site/other")] {
        let mut proposal = grant(number);
        let Event::Granted(granted) = &mut proposal.event else { panic!("no grant") };
        granted.rules = rules(last);
        durable(log.writer.commit(proposal).await);
    }
    let told = |index| {
        let entry = Entry::decode(&log.reader.entry(index).unwrap().unwrap().leaf).unwrap();
        entry.body["rules"].as_array().unwrap().clone()
    };
    let (one, other) = (told(0), told(1));
    assert_eq!(one.len(), 30);
    assert_eq!(one[..29], other[..29]);
    assert_eq!(one[0], "platform-team/deploy-production-000");
    assert!(one[29].as_str().unwrap().starts_with("… and 72 more, sha256:"), "{}", one[29]);
    assert_ne!(one[29], other[29]);
}

#[tokio::test]
async fn texts_too_long_are_shortened_and_stay_different() {
    let log = Log::create();
    let mut shown = BTreeSet::new();
    for number in 0..2_u64 {
        let mut proposal = refusal(number);
        if let Event::Refused(refused) = &mut proposal.event {
            refused.subject = format!("{}{number}", "ü".repeat(3_000));
        }
        durable(log.writer.commit(proposal).await);
        let stored = log.reader.entry(number).unwrap().unwrap();
        assert!(stored.leaf.len() < 1_024);
        shown.insert(
            show(&stored, false)
                .unwrap()
                .lines()
                .find(|l| l.contains("subject"))
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(shown.len(), 2);
}

#[tokio::test]
async fn a08_a_leaf_holds_names_and_hashes_and_no_claim() {
    let log = Log::create();
    let mut proposal = grant(1);
    let claims = Arc::make_mut(&mut proposal.facts.as_mut().unwrap().claims);
    claims.insert("email".to_owned(), "canary@example.com".into());
    durable(log.writer.commit(proposal).await);
    let stored = log.reader.entry(0).unwrap().unwrap();
    let contains = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"canary");
    assert!(!contains(&stored.leaf), "claims stand in the facts, which can be erased");
    assert!(contains(&stored.facts.unwrap().json));
}
