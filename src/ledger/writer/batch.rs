//! One batch: judge each proposal, give it its place, write all of them, answer.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use crate::{
    clock::{Clock, Instant},
    id::BlockId,
    ledger::{
        Block, Change, CommitError, Committed, Event, Granted, Proposal, Receipt, Refused,
        entry::{Draft, Stamp},
        journal::{Batch, Claim, Flush, Journal, Row, Verdict},
        tree::{Frontier, leaf_hash},
        writer::{Answer, CLOCK_TOLERANCE, Head, Job, Shared, Until, blocks::Blocks},
    },
    subject::MAXIMUM_LEEWAY,
};

/// What the writer's thread owns.
pub(super) struct Scribe {
    journal: Box<dyn Journal>,
    clock: Arc<dyn Clock>,
    frontier: Frontier,
    newest: Instant,
    boot: [u8; 16],
    counter: u64,
    blocks: Blocks,
    /// Tokens issued up to here may have been spent in a history that is lost.
    fence: Option<Instant>,
    /// The last batch waits for its flush.
    unflushed: bool,
}

/// A proposal on its way through a batch.
struct Judged {
    draft: Draft,
    proposal: Box<Proposal>,
    answer: Option<Answer>,
    until: Until,
    fate: Fate,
}

enum Fate {
    /// It becomes durable as proposed.
    Stands,
    /// The same, but its lease or its intent does not take the step.
    Overtaken,
    /// It becomes a refusal's entry.
    Spent,
    /// It becomes a refusal's entry.
    Blocked(BlockId),
    /// It becomes a refusal's entry: no room before this instant.
    NoRoom(Instant),
    /// It leaves no entry.
    Out(Result<Committed, CommitError>),
}

impl Scribe {
    pub(super) fn new(
        journal: Box<dyn Journal>,
        clock: Arc<dyn Clock>,
        frontier: Frontier,
        newest: Instant,
        boot: [u8; 16],
        blocks: Vec<(BlockId, Block)>,
        lost: Option<Instant>,
    ) -> Self {
        let fence = lost.map(fence_of);
        Self {
            fence,
            journal,
            clock,
            frontier,
            newest,
            boot,
            counter: 0,
            unflushed: false,
            blocks: Blocks::of(blocks),
        }
    }

    /// Writes a batch and answers it; or gives the jobs back with the reason to stop.
    pub(super) fn write(
        &mut self,
        jobs: Vec<Job>,
        shared: &Shared,
    ) -> Result<(), (Vec<Job>, String)> {
        let now = self.clock.now();
        // INVARIANT(ledger-time): time never runs behind the newest entry.
        let behind = self.newest.since(now);
        let time = now.max(self.newest);
        let mut batch = Batch::default();
        let (mut judged, mut keeps) = (Vec::with_capacity(jobs.len()), Vec::new());
        let mut settled = Vec::new();
        for job in jobs {
            match job {
                Job::Propose { draft, proposal, answer, until } => {
                    let fate = if behind > CLOCK_TOLERANCE {
                        Fate::Out(Err(CommitError::ClockBehind(behind)))
                    } else {
                        self.fate_of(&proposal, time)
                    };
                    judged.push(Judged { draft, proposal, answer, until, fate });
                }
                Job::Keep { checkpoint, answer } => {
                    batch.checkpoints.push(checkpoint);
                    keeps.push(answer);
                }
                Job::Settle { answer } => settled.push(answer),
            }
        }
        // One batch waits for its flush, never two: what a start takes for the torn end of a log stays short (threat A06).
        let may_wait = !self.unflushed
            && keeps.is_empty()
            && settled.is_empty()
            && judged.iter().all(|it| it.until == Until::Written);
        let flush = if may_wait { Flush::WithNext } else { Flush::Now };
        let written = self
            .commit(&mut judged, &mut batch, time, flush)
            .and_then(|()| if settled.is_empty() { Ok(()) } else { self.flush() });
        match written {
            Ok(()) => {
                self.publish(&batch, shared, time);
                answer(judged, &mut batch, shared);
                for keep in keeps {
                    let _ = keep.send(Ok(()));
                }
                for waiting in settled {
                    let _ = waiting.send(());
                }
                self.journal.tidy().map_err(|error| (Vec::new(), error.to_string()))
            }
            Err(reason) => {
                let mut jobs: Vec<_> = judged
                    .into_iter()
                    .map(|it| Job::Propose {
                        draft: it.draft,
                        proposal: it.proposal,
                        answer: it.answer,
                        until: it.until,
                    })
                    .collect();
                jobs.extend(
                    batch
                        .checkpoints
                        .into_iter()
                        .zip(keeps)
                        .map(|(checkpoint, answer)| Job::Keep { checkpoint, answer }),
                );
                Err((jobs, reason))
            }
        }
    }

    /// What memory can tell: blocks, and windows that are over. Blocks take effect in the order of the batch.
    fn fate_of(&mut self, proposal: &Proposal, time: Instant) -> Fate {
        match &proposal.change {
            Some(Change::BlockSet { id, block }) => self.blocks.set(*id, block.clone()),
            Some(Change::BlockLifted { id }) => self.blocks.lift(*id),
            Some(Change::KeyRing { .. } | Change::PolicySet { .. } | Change::Concluded { .. })
            | None => {}
        }
        let Event::Granted(granted) = &proposal.event else { return Fate::Stands };
        if let Some(id) = self.blocks.hits(granted, proposal.facts.as_ref(), time) {
            return Fate::Blocked(id);
        }
        let Some(spend) = &proposal.spend else { return Fate::Stands };
        // INVARIANT(replay-window): a spend that nobody would remember is as good as spent.
        let over = spend.forget_at.plus(CLOCK_TOLERANCE) <= time;
        if over || !self.is_after_fork(proposal) { Fate::Spent } else { Fate::Stands }
    }

    /// INVARIANT(replay-window): spends between a backup and its restoration are lost with it, and so are those of a torn end, so a
    /// token that may only be used once must be younger than the newest of both (threats K07, A06).
    fn is_after_fork(&self, proposal: &Proposal) -> bool {
        let Some(fence) = self.fence else { return true };
        let claims = proposal.facts.as_ref().map(|facts| &facts.claims);
        let issued =
            claims.and_then(|claims| claims.get("iat")).and_then(serde_json::Value::as_u64);
        issued.is_some_and(|issued| Instant::from_seconds(issued) > fence)
    }

    fn commit(
        &mut self,
        judged: &mut [Judged],
        batch: &mut Batch,
        time: Instant,
        flush: Flush,
    ) -> Result<(), String> {
        let nothing =
            batch.checkpoints.is_empty() && judged.iter().all(|it| matches!(it.fate, Fate::Out(_)));
        if nothing {
            return Ok(());
        }
        self.claim(judged, time, flush)?;
        let mut frontier = self.frontier.clone();
        let mut counter = self.counter;
        for it in judged.iter_mut().filter(|it| !matches!(it.fate, Fate::Out(_))) {
            let stamp = Stamp { index: frontier.size(), time, boot: self.boot, counter };
            let Some(row) = row(it, &stamp) else { continue };
            frontier.push(row.hash, &mut batch.tile_roots);
            counter = counter.saturating_add(1);
            batch.rows.push(row);
        }
        // A wall clock within the tolerance behind us still accepts such a token: forget it only after that, too.
        batch.forget_before = Some(time.minus(CLOCK_TOLERANCE));
        self.journal.commit(batch).map_err(|error| error.to_string())?;
        // A transaction that wrote nothing flushed nothing either.
        if !(batch.rows.is_empty() && batch.checkpoints.is_empty()) {
            self.unflushed = flush == Flush::WithNext;
        }
        self.frontier = frontier;
        self.counter = counter;
        if !batch.rows.is_empty() {
            self.newest = time;
        }
        if batch.rows.iter().any(|row| row.fork.is_some()) {
            self.fence = Some(fence_of(time));
        }
        Ok(())
    }

    /// Whoever settles wants all of it durable, and may have come with nothing to commit.
    fn flush(&mut self) -> Result<(), String> {
        if self.unflushed {
            self.journal.flush().map_err(|error| error.to_string())?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// What only the store can tell: spends, the epoch of the key ring, room for leases.
    fn claim(&mut self, judged: &mut [Judged], now: Instant, flush: Flush) -> Result<(), String> {
        let claims: Vec<_> = judged.iter().map(Judged::claim).collect();
        let verdicts =
            self.journal.claim(&claims, now, flush).map_err(|error| error.to_string())?;
        if verdicts.len() != judged.len() {
            return Err(format!("found {} verdicts, expected {}", verdicts.len(), judged.len()));
        }
        for (it, verdict) in judged.iter_mut().zip(verdicts) {
            match verdict {
                Verdict::Holds => {}
                Verdict::Overtaken => it.fate = Fate::Overtaken,
                Verdict::AlreadySpent => it.fate = Fate::Spent,
                Verdict::NoRoom(until) => it.fate = Fate::NoRoom(until),
                Verdict::Stale { found } => it.fate = Fate::Out(Ok(Committed::Stale { found })),
            }
        }
        Ok(())
    }

    fn publish(&self, batch: &Batch, shared: &Shared, time: Instant) {
        if !batch.rows.is_empty() {
            let head = Head { size: self.frontier.size(), root: self.frontier.root(), time };
            *shared.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
        }
    }
}

impl Judged {
    /// Only a proposal that stands may use anything up.
    fn claim(&self) -> Claim<'_> {
        if !matches!(self.fate, Fate::Stands) {
            return Claim::default();
        }
        let epoch = match &self.proposal.change {
            Some(Change::KeyRing { from, to, .. }) => Some((*from, *to)),
            _ => None,
        };
        let lease = match (&self.proposal.change, &self.proposal.event) {
            (Some(Change::Concluded { lease, .. }), _) => *lease,
            (_, Event::Lease { id, step, .. }) => Some((*id, *step)),
            _ => None,
        };
        let intent = match (&self.proposal.change, &self.proposal.event) {
            (
                Some(Change::Concluded { intent: Some(step), .. }),
                Event::Concluded { exchange_id, .. },
            ) => Some((*exchange_id, *step)),
            _ => None,
        };
        let (spend, opens) = (self.proposal.spend.as_ref(), self.proposal.lease.as_ref());
        Claim { spend, epoch, lease, opens, intent }
    }
}

/// An issuer's clock may be ahead of ours by the leeway: a token spent before the fork can say that it is younger than that.
fn fence_of(fork: Instant) -> Instant {
    fork.plus(MAXIMUM_LEEWAY)
}

/// The row of a proposal, with its effects if it stands and without them if it became a refusal.
fn row(it: &mut Judged, stamp: &Stamp) -> Option<Row> {
    let reason = match it.fate {
        Fate::Stands | Fate::Overtaken => None,
        Fate::Spent => Some("already_spent"),
        Fate::Blocked(_) => Some("blocked"),
        Fate::NoRoom(_) => Some("no_room"),
        Fate::Out(_) => return None,
    };
    if let (Some(reason), Event::Granted(granted)) = (reason, &it.proposal.event) {
        let refused = Event::Refused(refusal_of(granted, reason));
        // A refusal has fewer fields than the grant that it replaces: it fits.
        match it.draft.clone().become_event(&refused) {
            Ok(draft) => it.draft = draft,
            Err(error) => {
                it.fate = Fate::Out(Err(CommitError::Stopped(error.to_string())));
                return None;
            }
        }
    }
    let leaf = it.draft.leaf(stamp);
    let mut row = Row {
        index: stamp.index,
        kind: it.draft.kind,
        time: stamp.time,
        hash: leaf_hash(&leaf),
        leaf,
        exchange: it.draft.exchange,
        facts: it.draft.facts.take(),
        lease: None,
        intent: None,
        change: None,
        lease_step: None,
        policy: None,
        fork: None,
    };
    if reason.is_none() {
        row.lease = it.proposal.lease.take();
        row.intent = it.proposal.intent.take();
        row.change = it.proposal.change.take();
        effects_of(&it.proposal.event, &mut row);
    }
    Some(row)
}

/// What an event means for the state beside the log.
fn effects_of(event: &Event, row: &mut Row) {
    match event {
        Event::Lease { id, step, .. } => row.lease_step = Some((*id, *step)),
        Event::Policy { digest, .. } => row.policy = Some(*digest),
        Event::Forked { anchored, .. } => row.fork = Some(*anchored),
        Event::Granted(_)
        | Event::Refused(_)
        | Event::Concluded { .. }
        | Event::RolledUp { .. }
        | Event::Keys { .. }
        | Event::Blocked { .. }
        | Event::Orphan { .. }
        | Event::Admin { .. } => {}
    }
}

fn refusal_of(granted: &Granted, reason: &str) -> Refused {
    Refused {
        exchange_id: granted.exchange_id,
        issuer: granted.issuer.clone(),
        subject: granted.subject.clone(),
        token: granted.token,
        reason: reason.to_owned(),
        policy: granted.policy,
    }
}

/// Wakes the waiters: only now, after the flush of all who want one.
fn answer(judged: Vec<Judged>, batch: &mut Batch, shared: &Shared) {
    let mut rows = batch.rows.iter_mut();
    // What nobody waits for is freed when all are awake.
    let mut done = Vec::new();
    for mut it in judged {
        let receipt = match it.fate {
            Fate::Out(_) => None,
            Fate::Stands | Fate::Overtaken | Fate::Spent | Fate::Blocked(_) | Fate::NoRoom(_) => {
                rows.next().map(|row| {
                    it.draft.facts = row.facts.take();
                    receipt_of(row)
                })
            }
        };
        let outcome = match (it.fate, receipt) {
            (Fate::Out(outcome), _) => outcome,
            (Fate::Stands, Some(receipt)) => Ok(Committed::Durable(receipt)),
            (Fate::Overtaken, Some(receipt)) => Ok(Committed::Overtaken(receipt)),
            (Fate::Spent, Some(receipt)) => Ok(Committed::AlreadySpent(receipt)),
            (Fate::Blocked(id), Some(receipt)) => Ok(Committed::Blocked(receipt, id)),
            (Fate::NoRoom(until), Some(receipt)) => Ok(Committed::NoRoom(receipt, until)),
            (
                Fate::Stands | Fate::Overtaken | Fate::Spent | Fate::Blocked(_) | Fate::NoRoom(_),
                None,
            ) => Err(CommitError::Stopped("an entry is missing".to_owned())),
        };
        if let Some(answer) = it.answer {
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
            let _ = answer.send((outcome, Some((it.draft, it.proposal))));
        } else {
            if outcome.is_err() {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
            done.push((it.draft, it.proposal));
        }
    }
}

const fn receipt_of(row: &Row) -> Receipt {
    Receipt::durable(row.index, row.hash, row.time)
}
