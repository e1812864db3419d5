//! The ledger alone: append, prove, start, verify, and the bytes it takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cambio::{
    app::books::Books,
    id::ExchangeId,
    ledger::{
        Commit as _, Event, Proposal, checkpoint::Checkpointer, note::LogKey, reader::LedgerReader,
        receipt, verify::verify, writer::Writer,
    },
    store::Store,
};
use tokio::task::JoinSet;

use super::{fixture::Signs, stage::Stage};

/// What appending saw.
pub struct Appended {
    pub per_second: f64,
    latencies: Vec<Duration>,
}

impl Appended {
    /// In milliseconds.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a list"
        )]
        let at = (part * last as f64).round() as usize;
        self.latencies.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }
}

/// `waiters` tasks append for `during`, each waiting for durability before its next.
pub async fn append(stage: &Stage, waiters: usize, during: Duration) -> Appended {
    let subject = stage.subject(&stage.token(Signs::Rs256)).await;
    let proposal = stage.proposal(&subject);
    let end = Instant::now() + during;
    let seen = fill(&stage.books.writer, &proposal, waiters, move |_| Instant::now() < end).await;
    Appended { per_second: seen.len() as f64 / during.as_secs_f64(), latencies: seen }
}

/// Appends with `waiters` tasks while `more` says so; all latencies, sorted.
async fn fill(
    writer: &Writer,
    proposal: &Proposal,
    waiters: usize,
    more: impl Fn(u64) -> bool + Clone + Send + 'static,
) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    for _ in 0..waiters {
        let (writer, proposal, more) = (writer.clone(), proposal.clone(), more.clone());
        tasks.spawn(async move {
            let (mut seen, mut count) = (Vec::new(), 0_u64);
            while more(count) {
                // Ids must differ, or the index over them would be measured at its best.
                let proposal = renamed(proposal.clone());
                let begun = Instant::now();
                writer.commit(proposal).await.expect("a commit");
                seen.push(begun.elapsed());
                count += 1;
            }
            seen
        });
    }
    let mut all = tasks.join_all().await.concat();
    all.sort_unstable();
    all
}

/// Under an id of its own. As with a `UUIDv7`, what is newer is greater.
fn renamed(mut proposal: Proposal) -> Proposal {
    static NEWEST: AtomicU64 = AtomicU64::new(0);
    if let Event::Granted(granted) = &mut proposal.event {
        let newest = NEWEST.fetch_add(1, Ordering::Relaxed);
        granted.exchange_id = ExchangeId::from_bytes(u128::from(newest).to_be_bytes());
    }
    proposal
}

/// From 10⁴ entries on in steps of ten up to `most`.
pub async fn growth(most: u64) {
    const WAITERS: u32 = 1_024;
    println!("\nentries     append us  proof us  open ms  verify/s  bytes each");
    let stage = Stage::set(10, 1).await;
    let subject = stage.subject(&stage.token(Signs::Rs256)).await;
    let proposal = stage.proposal(&subject);
    let path = stage.folder.path().join("state/cambio.db");
    let Stage { books, clock, folder, .. } = stage;
    let Books { mut writer, mut reader, mut checkpointer, rotator, .. } = books;
    let seed = rotator.keyring().log_seed();
    let key = || LogKey::from_seed("cambio.test/bench", &seed).expect("a key");
    drop(rotator);
    let mut size = (most / 100).max(100);
    while size <= most {
        let missing = size.saturating_sub(reader.size().expect("a size"));
        let each = missing / u64::from(WAITERS) + 1;
        fill(&writer, &proposal, WAITERS as usize, move |count| count < each).await;
        // Alone on the machine and one at a time: what a lone exchange waits for.
        let begun = Instant::now();
        let alone = fill(&writer, &proposal, 1, move |count| count < 500).await;
        let appended = begun.elapsed() / u32::try_from(alone.len()).expect("few");
        tokio::task::block_in_place(|| checkpointer.checkpoint_now(clock.now()))
            .expect("a checkpoint");
        let entries = reader.size().expect("a size");
        let proved = prove(&*reader, entries);
        writer.close();
        writer.wait_until_ended().await;
        drop((writer, reader, checkpointer));
        let bytes = std::fs::metadata(&path).expect("the store").len();
        let begun = Instant::now();
        let store = Store::open(&path).expect("opened");
        reader = store.reader;
        let chance = Arc::new(cambio::chance::SystemChance);
        writer = Writer::start(store.journal, &*reader, Arc::clone(&clock), chance, 8_192)
            .expect("started");
        let opened = begun.elapsed();
        let opened_again = Checkpointer::new(key(), Arc::clone(&reader), writer.clone());
        checkpointer = opened_again.expect("a checkpointer");
        let begun = Instant::now();
        let report = verify(&*reader, key().public(), &[], &mut |_, _| {}).expect("a good ledger");
        let per_second = report.size as f64 / begun.elapsed().as_secs_f64();
        println!(
            "{entries:<10}  {:>9.0}  {:>8.1}  {:>7.1}  {per_second:>8.0}  {:>10}",
            appended.as_secs_f64() * 1e6,
            proved.as_secs_f64() * 1e6,
            opened.as_secs_f64() * 1e3,
            bytes / entries
        );
        size *= 10;
    }
    writer.close();
    drop(folder);
}

/// One inclusion proof, over places all along the log.
fn prove(reader: &dyn LedgerReader, entries: u64) -> Duration {
    const PROOFS: u32 = 200;
    let begun = Instant::now();
    for n in 0..PROOFS {
        let index = entries / u64::from(PROOFS) * u64::from(n);
        receipt::prove(reader, index).expect("a proof");
    }
    begun.elapsed() / PROOFS
}
