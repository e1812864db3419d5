//! The dull loop around the schedule: ask, act, journal, sleep; and what operators do with keys.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    KeyJournal, KeyRecord, KeysError, Phase, Purpose, Replaced, Signed, Stored,
    authority::{self, AuthorityKey},
    keyring::Keyring,
    ring::{Key, Ring},
    schedule::{Announcement, Schedule, Step, in_phase},
    schedules::Schedules,
    signing::SigningKey,
};
use crate::{
    clock::Clock,
    grant::TargetName,
    ledger::Event,
    protector::{self, KeyContext, KeyProtector, ProtectError},
    subject::{Algorithm, MAXIMUM_LEEWAY},
};

/// How often an operation begins anew because another node was faster.
const TRIES: usize = 8;

/// Changes the ring: by the schedule, or as an operator says. Every change is durable, with its entry, before it serves.
#[derive(Debug)]
pub struct Rotator {
    keyring: Arc<Keyring>,
    journal: Arc<dyn KeyJournal>,
    protector: Arc<dyn KeyProtector>,
    clock: Arc<dyn Clock>,
    // One change at a time in this process; between processes the journal's compare-and-swap decides.
    turning: Mutex<()>,
    trouble: ArcSwapOption<String>,
}

/// What a withdrawal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// Who signs with the algorithm now; none means that issuing with it is paused until a successor was announced.
    pub successor: Option<String>,
    /// Every token that the key signed, as the ledger knows them (threat K06).
    pub signed: Vec<Signed>,
}

impl Rotator {
    /// Opens the ring that the journal holds, or founds one, and takes every step that is due.
    ///
    /// # Errors
    /// The ring does not open (threat K03), or it is not the newest one that the ledger knows (threat K07). The broker does
    /// not start.
    pub async fn start(
        (name, environment): (&str, &str),
        schedules: impl Into<Schedules>,
        journal: Arc<dyn KeyJournal>,
        protector: Arc<dyn KeyProtector>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KeysError> {
        let empty = Ring::found(name, environment)?;
        let ring = newer(&empty, journal.load().await?, &*protector).await?.unwrap_or(empty);
        let rotator = Self {
            keyring: Arc::new(Keyring::of(ring, schedules)?),
            journal,
            protector,
            clock,
            turning: Mutex::new(()),
            trouble: ArcSwapOption::empty(),
        };
        while rotator.turn().await?.is_some() {}
        Ok(rotator)
    }

    /// What serves.
    #[must_use]
    pub const fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Why the last turn failed, if it did: for readiness and `cambio doctor`.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<String>> {
        self.trouble.load_full()
    }

    /// Runs on `tracker` until `cancelled`; a turn that has begun is finished.
    pub fn run(self: Arc<Self>, tracker: &TaskTracker, cancelled: CancellationToken) {
        tracker.spawn(async move {
            loop {
                let turned = self.turn().await;
                self.tell(&turned);
                let pause = match turned {
                    Ok(Some(_)) => Duration::ZERO,
                    Ok(None) | Err(_) => {
                        self.keyring.schedule().replica_delay().max(Duration::from_secs(1))
                    }
                };
                tokio::select! {
                    () = cancelled.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Follows what other nodes did, then takes the next step, if one is due. `Some` means: ask again.
    ///
    /// # Errors
    /// Nothing was changed here; the ring in use goes on serving (threat K03).
    pub async fn turn(&self) -> Result<Option<Step>, KeysError> {
        let _turn = self.turning.lock().await;
        let ring = self.follow().await?;
        let next = self.keyring.schedules().next_step(ring.records(), self.clock.now());
        let Some((schedule, step)) = next else { return Ok(None) };
        self.take(&ring, &schedule, &step).await?;
        Ok(Some(step))
    }

    /// Lets the prepared key of `algorithm` sign now, and names it.
    ///
    /// # Errors
    /// [`KeysError::NotAnnounced`]: verifiers may not have it yet, and it was not forced.
    pub async fn rotate_now(&self, algorithm: Algorithm, force: bool) -> Result<String, KeysError> {
        let _turn = self.turning.lock().await;
        self.promote(self.keyring.schedule(), algorithm, force).await
    }

    /// Lets the prepared CA key of `target` sign now, and names it.
    ///
    /// # Errors
    /// [`KeysError::NoAuthority`]: the target has none. [`KeysError::NotAnnounced`]: servers may not have it in their bundle
    /// yet, and it was not forced.
    pub async fn rotate_authority_now(
        &self,
        target: &TargetName,
        force: bool,
    ) -> Result<String, KeysError> {
        let _turn = self.turning.lock().await;
        let schedules = self.keyring.schedules();
        let none = || KeysError::NoAuthority(target.clone());
        let schedule = schedules.certificates().get(target).ok_or_else(none)?;
        self.promote(schedule, authority::ALGORITHM, force).await
    }

    /// Removes a leaked key at once. If it is the one that signs, an announced successor takes over first, so that issuing
    /// does not pause; without one it pauses, unless forced. Saying it again lists, and with force ends the pause.
    ///
    /// # Errors
    /// No such key; or it could not be recorded, and nothing changed.
    pub async fn withdraw(&self, kid: &str, force: bool) -> Result<Withdrawal, KeysError> {
        let _turn = self.turning.lock().await;
        let mut epoch = 0;
        for _ in 0..TRIES {
            let ring = self.follow().await?;
            epoch = ring.epoch();
            let record = ring.record(kid).ok_or_else(|| KeysError::NoSuchKey(kid.to_owned()))?;
            let schedule = self.keyring.schedules().find(&record.purpose);
            if record.phase == Phase::Withdrawn {
                let algorithm = record.algorithm;
                let purpose = &record.purpose;
                let successor = in_phase(ring.records(), purpose, algorithm, Phase::Active);
                let mut successor = successor.map(|record| record.kid.clone());
                // Said again with force, it ends the pause that the first withdrawal left.
                if successor.is_none() && force {
                    successor = Some(self.promote(&schedule, algorithm, true).await?);
                }
                let signed = self.journal.signed_by(kid).await?;
                return Ok(Withdrawal { successor, signed });
            }
            if record.phase == Phase::Active {
                match self.promote(&schedule, record.algorithm, force).await {
                    // The one that signed is retired now, and is withdrawn below. A target that is no longer there gets none.
                    Ok(_) | Err(KeysError::NoKey(_)) => {}
                    Err(KeysError::NotAnnounced { until, .. }) => {
                        warn!(
                            key.id = kid,
                            "issuing with {} pauses until {until}", record.algorithm
                        );
                    }
                    Err(error) => return Err(error),
                }
            }
            let ring = self.keyring.ring();
            self.take(&ring, &schedule, &Step::Withdraw(kid.to_owned())).await?;
        }
        Err(KeysError::Contended(epoch))
    }

    /// The ring, sealed by another protector: a backup that needs no KEK of this machine. It opens for restoring only while
    /// its epoch is the ledger's newest.
    ///
    /// # Errors
    /// The protector does not close it.
    pub async fn export(&self, protector: &dyn KeyProtector) -> Result<String, KeysError> {
        self.keyring.ring().seal(protector).await
    }

    async fn promote(
        &self,
        schedule: &Schedule,
        algorithm: Algorithm,
        force: bool,
    ) -> Result<String, KeysError> {
        if !schedule.algorithms().contains(&algorithm) {
            return Err(KeysError::NoKey(algorithm));
        }
        let mut epoch = 0;
        for _ in 0..TRIES {
            let ring = self.follow().await?;
            epoch = ring.epoch();
            let step =
                match in_phase(ring.records(), schedule.purpose(), algorithm, Phase::Prepared) {
                    None => Step::Prepare(algorithm),
                    Some(next) => {
                        let kid = next.kid.clone();
                        let announcement = self.announcement(&ring, schedule, next, force)?;
                        Step::Promote { kid, announcement }
                    }
                };
            let done = self.take(&ring, schedule, &step).await?;
            if let (true, Step::Promote { kid, .. }) = (done, step) {
                return Ok(kid);
            }
        }
        Err(KeysError::Contended(epoch))
    }

    fn announcement(
        &self,
        ring: &Ring,
        schedule: &Schedule,
        next: &KeyRecord,
        force: bool,
    ) -> Result<Announcement, KeysError> {
        let until = schedule.announced_at(next);
        let active = in_phase(ring.records(), &next.purpose, next.algorithm, Phase::Active);
        let paused = active.is_none();
        if until <= self.clock.now() {
            Ok(Announcement::Kept)
        } else if next.first && paused {
            Ok(Announcement::First)
        } else if force {
            Ok(Announcement::Forced)
        } else {
            Err(KeysError::NotAnnounced { kid: next.kid.clone(), until })
        }
    }

    /// Journals `step` and lets its outcome serve. `false`: another node was faster, ask again.
    async fn take(&self, ring: &Ring, schedule: &Schedule, step: &Step) -> Result<bool, KeysError> {
        let fresh = match step {
            Step::Prepare(algorithm) => Some(self.generate(schedule, *algorithm).await?),
            Step::Promote { .. }
            | Step::Retire(_)
            | Step::Widen(_)
            | Step::Prune(_)
            | Step::Withdraw(_) => None,
        };
        // Read after the key was made: the announcement begins when the key is published, not when we began to make it.
        let now = self.clock.now();
        let event = event(ring, schedule, step, fresh.as_ref());
        let next = ring.apply(step, fresh, schedule, now)?;
        let sealed = next.seal(&*self.protector).await?;
        match self.journal.replace(ring.epoch(), next.epoch(), sealed, event).await? {
            Replaced::Durable => {
                self.keyring.serve(next)?;
                info!(keys.epoch = self.keyring.epoch(), "key ring changed: {}", step.label());
                if let Step::Promote { announcement: Announcement::Forced, kid } = step {
                    warn!(key.id = %kid, "signs before every verifier can have it");
                }
                Ok(true)
            }
            Replaced::Stale { .. } => Ok(false),
        }
    }

    async fn generate(&self, schedule: &Schedule, algorithm: Algorithm) -> Result<Key, KeysError> {
        match schedule.purpose() {
            Purpose::Tokens => Ok(Key::Token(Arc::new(generate(algorithm).await?))),
            Purpose::Certificates(_) => {
                let now = self.clock.now();
                // A server whose clock is behind ours can believe it at once.
                let between = (now.minus(MAXIMUM_LEEWAY), schedule.certified_until(now));
                Ok(Key::Authority(Arc::new(AuthorityKey::generate(between)?)))
            }
        }
    }

    /// Serves what the journal holds, if that is newer, and says what serves.
    async fn follow(&self) -> Result<Ring, KeysError> {
        let own = self.keyring.ring();
        let Some(ring) = newer(&own, self.journal.load().await?, &*self.protector).await? else {
            return Ok(own);
        };
        self.keyring.serve(ring.clone())?;
        Ok(ring)
    }

    fn tell(&self, turned: &Result<Option<Step>, KeysError>) {
        let trouble = turned.as_ref().err().map(ToString::to_string);
        let before = self.trouble.load_full();
        if trouble.as_ref() == before.as_deref() {
            return;
        }
        if let Some(trouble) = &trouble {
            warn!("keys are not rotated, the present ones go on: {trouble}");
        } else {
            info!("keys are rotated again");
        }
        self.trouble.store(trouble.map(Arc::new));
    }
}

/// The ring of an export ([`Rotator::export`]) that `opener` opens, if it is the one that stands: the ring of the ledger called `name`
/// at its newest key entry. Any other would revive withdrawn keys (threat K07), and of an empty store it would be another log's.
///
/// # Errors
/// It is another one, or does not open.
pub async fn reopen(
    (name, environment): (&str, &str),
    exported: &str,
    opener: &dyn KeyProtector,
    journal: &dyn KeyJournal,
) -> Result<Ring, KeysError> {
    let stored = journal.load().await?;
    let found = stored.ring.map_or(0, |(epoch, _)| epoch);
    if found != stored.witnessed {
        return Err(KeysError::RolledBack { found, witnessed: stored.witnessed });
    }
    let (ring, environment) = (name.to_owned(), environment.to_owned());
    let context = KeyContext { ring, epoch: found, environment };
    let of_the_export = |error| match error {
        ProtectError::DoesNotOpen(why) => KeysError::Export(why),
        other @ (ProtectError::NoKek(_) | ProtectError::DoesNotClose(_)) => {
            KeysError::Protect(other)
        }
    };
    // Better words than "does not open" for what will not: opening asks for the same epoch, in the header that is authenticated.
    let epoch = protector::unverified_epoch(exported).map_err(of_the_export)?;
    if epoch != found {
        return Err(KeysError::OtherExport { found: epoch, stands: found });
    }
    match Ring::open(exported, &context, opener).await {
        Err(KeysError::Protect(error)) => Err(of_the_export(error)),
        done @ (Ok(_) | Err(_)) => done,
    }
}

/// Puts `ring`, reopened, in the place of what stands, under `protector`. Its new epoch.
///
/// # Errors
/// It can't be sealed or recorded, or another one stands by now.
pub async fn restore(
    ring: &Ring,
    protector: &dyn KeyProtector,
    journal: &dyn KeyJournal,
) -> Result<u64, KeysError> {
    let next = ring.again();
    let (kid, algorithm) = (String::new(), String::new());
    let event = Event::Keys { step: "restore", kid, algorithm, epoch: next.epoch() };
    let sealed = next.seal(protector).await?;
    match journal.replace(ring.epoch(), next.epoch(), sealed, event).await? {
        Replaced::Durable => Ok(next.epoch()),
        Replaced::Stale { found } => Err(KeysError::Contended(found)),
    }
}

/// The stored ring, if it is newer than `own`.
///
/// INVARIANT(closed-by-absence): a ring that is gone, or that is not the one of the ledger's newest key entry, is no ring: a
/// restored one could revive a withdrawn key (threat K07).
async fn newer(
    own: &Ring,
    stored: Stored,
    protector: &dyn KeyProtector,
) -> Result<Option<Ring>, KeysError> {
    let found = stored.ring.as_ref().map_or(0, |(epoch, _)| *epoch);
    if found != stored.witnessed {
        return Err(KeysError::RolledBack { found, witnessed: stored.witnessed });
    }
    if found < own.epoch() {
        return Err(KeysError::RolledBack { found, witnessed: own.epoch() });
    }
    match stored.ring {
        Some((epoch, sealed)) if epoch > own.epoch() => {
            let context = KeyContext { epoch, ..own.context() };
            Ring::open(&sealed, &context, protector).await.map(Some)
        }
        Some(_) | None => Ok(None),
    }
}

async fn generate(algorithm: Algorithm) -> Result<SigningKey, KeysError> {
    let made = tokio::task::spawn_blocking(move || SigningKey::generate(algorithm)).await;
    made.map_err(|_| KeysError::Key { algorithm, reason: "the thread that makes it ended" })?
}

fn event(ring: &Ring, schedule: &Schedule, step: &Step, fresh: Option<&Key>) -> Event {
    let (kid, algorithm) = match step {
        Step::Prepare(algorithm) => (fresh.map(Key::key_id).unwrap_or_default(), Some(*algorithm)),
        Step::Promote { kid, .. }
        | Step::Retire(kid)
        | Step::Widen(kid)
        | Step::Prune(kid)
        | Step::Withdraw(kid) => (kid.as_str(), ring.record(kid).map(|record| record.algorithm)),
    };
    Event::Keys {
        step: step.label(),
        kid: kid.to_owned(),
        algorithm: algorithm.map_or_else(String::new, |it| schedule.purpose().label(it)),
        epoch: ring.epoch().saturating_add(1),
    }
}
