//! THE DATA PATH: verify → decide → prepare → commit → mint → conclude. One function, no branch skips a step.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use crate::{
    clock::{Clock, Instant},
    grant::{Grant, Narrowing, Replay},
    id::{ExchangeId, LeaseId},
    ledger::{
        self, Change, Commit, Committed, Event, Granted, IntentStep, LeaseState, NotRecorded,
        Proposal, Receipt, Refused, Spend, Written,
        facts::Facts,
        rollup::{Rollup, Stranger},
    },
    mint::{Behind, Credential, MintError, Minter, Minters, Prepared},
    policy::{Decision, Permit, PolicySet, Wants},
    refusal::Refusal,
    subject::{
        ConfirmedSubject, MAXIMUM_LEEWAY, UnverifiedToken, VerifiedSubject, verify::Verifier,
    },
};

pub mod actor;
pub mod limits;
mod outliving;
pub mod resolver;
pub mod token_type;

pub use limits::RateLimit;
use outliving::Outliving;
pub use token_type::TokenType;

/// What the edge made of a request: parsed, bounded, nothing verified.
#[derive(Debug)]
pub struct ExchangeRequest {
    /// Names the exchange, from the first byte on.
    pub exchange_id: ExchangeId,
    /// RFC 8693 `subject_token`, or RFC 7523 `assertion`.
    pub subject_token: UnverifiedToken,
    /// RFC 8693 `subject_token_type`; [`TokenType::Jwt`] for RFC 7523.
    pub subject_token_type: TokenType,
    /// RFC 8693 `actor_token`, with its type.
    pub actor_token: Option<(UnverifiedToken, TokenType)>,
    /// RFC 8693 `requested_token_type`.
    pub requested_token_type: Option<TokenType>,
    /// `audience`, `resource`, `scope`, `requested_lifetime`.
    pub wants: Wants,
    /// What the caller wants the credential narrowed to, where its protocol can say so.
    pub narrowing: Option<Narrowing>,
    /// `csr`: a certificate request, for targets that take one; not read yet.
    pub csr: Option<String>,
    /// The caller's address, behind configured proxies the one that they vouch for.
    pub source: IpAddr,
}

/// A granted exchange.
#[derive(Debug)]
pub struct Issued {
    /// What leaves.
    pub credential: Credential,
    /// Where the entry stands.
    pub receipt: Receipt,
    /// The kind of the target, for metrics.
    pub kind: &'static str,
}

/// What one exchange decides by: taken once at its start, so that a reload in between changes nothing (threat X11).
#[derive(Debug)]
pub struct Scene {
    /// Step 2.
    pub verifier: Arc<Verifier>,
    /// Step 3.
    pub policies: Arc<PolicySet>,
    /// Steps 4 and 6.
    pub minters: Minters,
}

/// The data path and everything it needs.
#[derive(Debug)]
pub struct Exchange {
    /// Swapped whole by a reload.
    pub scene: ArcSwap<Scene>,
    /// Step 5.
    pub ledger: Arc<dyn Commit>,
    /// Where refusals of strangers are counted.
    pub rollup: Arc<Rollup>,
    /// How often one subject may come.
    pub per_subject: RateLimit<String>,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// What must have ended before the process may.
    pub tasks: TaskTracker,
}

impl Exchange {
    /// Runs one exchange.
    ///
    /// # Errors
    /// It was refused; the refusal is already recorded or rolled up.
    pub async fn exchange(&self, request: ExchangeRequest) -> Result<Issued, Refusal> {
        let _in_flight = self.ledger.enter();
        let scene = self.scene.load_full();
        let now = self.clock.now();
        let subject = match scene.verifier.verify(&request.subject_token).await {
            Ok(subject) => subject,
            Err(rejection) => {
                let refusal = Refusal::SubjectToken(rejection);
                self.count(request.exchange_id, &refusal, now);
                return Err(refusal);
            }
        };
        let ended = self.proceed(&scene, &request, &subject, now).await;
        if let Err(refusal) = &ended {
            self.note_refusal(&scene, &request, &subject, refusal, now);
        }
        ended
    }

    /// From a verified subject to its credential.
    async fn proceed(
        &self,
        scene: &Scene,
        request: &ExchangeRequest,
        subject: &VerifiedSubject,
        now: Instant,
    ) -> Result<Issued, Refusal> {
        request.subject_token_type.must_fit(subject)?;
        self.admit(subject)?;
        let actor = match &request.actor_token {
            Some((token, kind)) => {
                let actor = scene.verifier.verify(token).await.map_err(Refusal::ActorToken)?;
                kind.must_fit(&actor)?;
                Some(actor)
            }
            None => None,
        };
        actor::check(subject, actor.as_ref())?;
        let permit = permitted(scene.policies.decide(subject, &request.wants, now))?;
        let minter = minter_of(scene, &permit.grant)?;
        let csr = request.csr.as_deref();
        if csr.is_some() && !minter.takes_csr() {
            return Err(Refusal::BadRequest("`csr` is for targets of kind `x509`".to_owned()));
        }
        // Threat C16. Last, so that nobody who is refused anyway makes us call out; and not left out, because nothing is minted
        // for less than a confirmed subject. Nothing is committed yet: after an outage the token is unspent.
        let confirmed = subject.confirm().await.map_err(Refusal::SubjectToken)?;
        let confirmed_actor = match &actor {
            Some(actor) => Some(actor.confirm().await.map_err(Refusal::ActorToken)?),
            None => None,
        };
        let behind = Behind {
            exchange_id: request.exchange_id,
            subject: confirmed,
            actor: confirmed_actor,
            now,
            csr,
        };
        let prepared = minter.prepare(&permit.grant, behind).and_then(|mut prepared| {
            let narrowing = request.narrowing.as_ref();
            narrowing.map_or(Ok(()), |narrowing| prepared.plan.narrow(narrowing))?;
            Ok(prepared)
        });
        let prepared = prepared.map_err(|error| not_prepared(error, &permit.grant))?;
        token_type::must_issue(request.requested_token_type, &prepared.plan)?;
        let proposal = proposal(request, &permit, behind, &prepared);
        self.carry_out(minter, permit.grant, request.exchange_id, proposal, prepared).await
    }

    /// Commit, mint, conclude: this outlives the caller's connection, and drain waits for it.
    async fn carry_out(
        &self,
        minter: Arc<dyn Minter>,
        grant: Grant,
        exchange_id: ExchangeId,
        proposal: Proposal,
        prepared: Prepared,
    ) -> Result<Issued, Refusal> {
        let (ledger, clock) = (Arc::clone(&self.ledger), Arc::clone(&self.clock));
        let work = Outliving::of(&self.tasks, async move {
            let (outside, kind) = (prepared.plan.is_outside(), prepared.plan.kind());
            let opened = Opened {
                spend: proposal.spend.clone(),
                lease: proposal.lease.as_ref().map(|lease| lease.id),
                intent: proposal.intent.is_some(),
            };
            let recorded = match ledger::record(ledger.as_ref(), proposal, prepared).await {
                Ok(recorded) => recorded,
                Err(reason) => return Err(not_recorded(reason, grant, clock.now())),
            };
            let receipt = recorded.receipt();
            let made = minter.mint(recorded).await;
            // A grant without outside effects that was minted needs no further word.
            let overtaken = if outside || made.is_err() {
                conclude(ledger.as_ref(), exchange_id, outcome_of(&made), opened).await?
            } else {
                false
            };
            match made {
                Ok(_) if overtaken => {
                    let reason =
                        "its lease was revoked, or it was given up, while it was made".to_owned();
                    Err(not_minted(MintError::Unknown(reason), grant, overtaken))
                }
                Ok(credential) => Ok(Issued { credential, receipt, kind }),
                Err(error) => Err(not_minted(error, grant, overtaken)),
            }
        });
        work.await.unwrap_or_else(|| Err(Refusal::Internal("the exchange died".to_owned())))
    }

    /// The limit is counted after the token is verified, so that nobody can use up another's share.
    fn admit(&self, subject: &VerifiedSubject) -> Result<(), Refusal> {
        let wait = self.per_subject.check(&subject.profile().our_subject());
        wait.map_err(|retry_after| Refusal::TooMany { scope: "subject", retry_after })
    }

    fn count(&self, exchange_id: ExchangeId, refusal: &Refusal, at: Instant) {
        let (reason, detail) = (refusal.reason(), refusal.to_string());
        self.rollup.count(Stranger { exchange_id, at, reason, detail });
    }

    /// INVARIANT(no-answer-without-entry) holds for grants; refusals are written down without being waited for.
    fn note_refusal(
        &self,
        scene: &Scene,
        request: &ExchangeRequest,
        subject: &VerifiedSubject,
        refusal: &Refusal,
        now: Instant,
    ) {
        // The writer has already made the entry of these.
        if matches!(
            refusal,
            Refusal::AlreadySpent { .. } | Refusal::Blocked(_) | Refusal::NoRoom { .. }
        ) {
            return;
        }
        // Threat A11: anyone on a public platform can get a validly signed token for our audience, and a known tenant can come
        // too often. Strangers, and whoever is over its limit, are only counted.
        let too_many = matches!(refusal, Refusal::TooMany { .. });
        if too_many || !scene.policies.knows_tenant(subject.profile()) {
            self.count(request.exchange_id, refusal, now);
            return;
        }
        let event = Event::Refused(Refused {
            exchange_id: request.exchange_id,
            issuer: subject.profile().issuer.clone(),
            subject: subject.profile().our_subject(),
            token: subject.digest().0,
            reason: refusal.reason().to_owned(),
            policy: scene.policies.digest(),
        });
        let mut facts = facts_of(request, subject, None, scene.policies.digest(), now);
        facts.detail = Some(refusal.to_string());
        if let Refusal::Denied(denial) = refusal {
            facts.shadow = denial.shadow.iter().map(ToString::to_string).collect();
        }
        self.ledger.note(Proposal { facts: Some(facts), ..Proposal::of(event) });
    }
}

fn permitted(decision: Decision) -> Result<Permit, Refusal> {
    match decision {
        Decision::Permit(permit) => Ok(*permit),
        Decision::Ambiguous(choices) => Err(Refusal::Ambiguous(choices)),
        Decision::Deny(denial) => Err(Refusal::Denied(denial)),
    }
}

fn minter_of(scene: &Scene, grant: &Grant) -> Result<Arc<dyn Minter>, Refusal> {
    scene.minters.find(&grant.target).cloned().ok_or_else(|| Refusal::Mint {
        target: grant.target.clone(),
        error: MintError::Internal("no minter serves this target".to_owned()),
        unspent: true,
    })
}

/// Everything that becomes durable together before the credential is made.
fn proposal(
    request: &ExchangeRequest,
    permit: &Permit,
    behind: Behind<'_>,
    prepared: &Prepared,
) -> Proposal {
    let (grant, subject) = (&permit.grant, behind.subject);
    let signed = prepared.plan.signed();
    let event = Event::Granted(Granted {
        exchange_id: request.exchange_id,
        issuer: subject.profile().issuer.clone(),
        subject: subject.profile().our_subject(),
        token: subject.digest().0,
        target: grant.target.clone(),
        role: grant.role.clone(),
        rules: grant.rules.clone(),
        policy: grant.policy_digest,
        expires_at: prepared.expires_at,
        credential: prepared.credential.clone(),
        signing_input: signed.map(|(digest, _)| digest),
        kid: signed.map(|(_, kid)| kid.to_owned()),
    });
    let spend = (grant.replay == Replay::Once).then(|| Spend {
        issuer: subject.profile().issuer.clone(),
        token: subject.digest().0,
        target: grant.target.clone(),
        role: grant.role.clone(),
        // INVARIANT(replay-window): the token may verify until `exp` + leeway, so forgetting must not come sooner.
        forget_at: subject.expires_at().plus(MAXIMUM_LEEWAY).plus(Duration::from_secs(1)),
    });
    let actor = behind.actor.map(ConfirmedSubject::verified);
    let mut facts = facts_of(request, &subject, actor, grant.policy_digest, behind.now);
    facts.shadow = permit.shadow.iter().map(ToString::to_string).collect();
    Proposal {
        event,
        facts: Some(facts),
        spend,
        lease: prepared.lease.clone(),
        intent: prepared.intent(behind.now),
        change: None,
    }
}

fn facts_of(
    request: &ExchangeRequest,
    subject: &VerifiedSubject,
    actor: Option<&VerifiedSubject>,
    policy: ledger::Hash,
    now: Instant,
) -> Facts {
    Facts {
        version: 1,
        exchange_id: request.exchange_id.to_string(),
        issuer: subject.profile().issuer.to_string(),
        claims: Arc::clone(&subject.profile().claims),
        actor: actor.map(|actor| Arc::clone(&actor.profile().claims)),
        actor_issuer: actor.map(|actor| actor.profile().issuer.to_string()),
        wants: request.wants.clone(),
        narrowing: request.narrowing.clone(),
        now: now.milliseconds(),
        source: request.source.to_string(),
        policy: ledger::entry::hex(&policy),
        shadow: Vec::new(),
        detail: None,
    }
}

/// How often the reaper looks for what it could not end, at most.
const OVERDUE: Duration = Duration::from_secs(15);

fn not_recorded(reason: NotRecorded, grant: Grant, now: Instant) -> Refusal {
    match reason {
        NotRecorded::AlreadySpent => {
            Refusal::AlreadySpent { target: grant.target, role: grant.role }
        }
        NotRecorded::Blocked(id) => Refusal::Blocked(id.to_string()),
        NotRecorded::NoRoom(until) => Refusal::NoRoom {
            target: grant.target,
            retry_after: match until.since(now) {
                // It is over, and not gone yet: its server is looked at again in so long.
                Duration::ZERO => OVERDUE,
                wait => wait.max(Duration::from_secs(1)),
            },
        },
        NotRecorded::Failed(error) => Refusal::Ledger(error),
    }
}

/// What the caller sent is told back in our words; everything else is the target's.
fn not_prepared(error: MintError, grant: &Grant) -> Refusal {
    if let MintError::Request(words) = error {
        return Refusal::BadRequest(words);
    }
    Refusal::Mint { target: grant.target.clone(), error, unspent: true }
}

/// A conclusion that was `overtaken` released nothing: what was told before it stands, and the token is spent.
fn not_minted(error: MintError, grant: Grant, overtaken: bool) -> Refusal {
    let released = is_certain(&error) && !overtaken;
    let unspent = grant.replay == Replay::Reusable || released;
    Refusal::Mint { target: grant.target, error, unspent }
}

/// Whether nothing exists and nothing will: then the conclusion has released the spend.
const fn is_certain(error: &MintError) -> bool {
    match error {
        MintError::NoLifetime(_)
        | MintError::Actors(_)
        | MintError::NoKey(_)
        | MintError::Unsuited(..)
        | MintError::NoName(_)
        | MintError::Request(_)
        | MintError::Busy(_)
        | MintError::Refused(_) => true,
        MintError::Unknown(_) | MintError::Internal(_) => false,
    }
}

/// What the commit opened, and the conclusion closes.
struct Opened {
    spend: Option<Spend>,
    lease: Option<LeaseId>,
    intent: bool,
}

fn outcome_of(made: &Result<Credential, MintError>) -> (&'static str, LeaseState) {
    match made {
        Ok(_) => ("minted", LeaseState::Active),
        Err(error) if is_certain(error) => ("void", LeaseState::Void),
        Err(_) => ("unknown", LeaseState::Unknown),
    }
}

/// Writes down how a grant ended. One that is void releases its spend and its lease in the same transaction. A credential whose
/// conclusion can't be written is withheld. `true`: the lease was revoked meanwhile, or another outcome was told.
async fn conclude(
    ledger: &dyn Commit,
    exchange_id: ExchangeId,
    (outcome, state): (&'static str, LeaseState),
    opened: Opened,
) -> Result<bool, Refusal> {
    let event = Event::Concluded { exchange_id, outcome };
    let change = Change::Concluded {
        release: opened.spend.filter(|_| state == LeaseState::Void),
        lease: opened.lease.map(|id| (id, state)),
        // A lease tells of what may exist; where there is none, the intent goes on doing so.
        intent: opened.intent.then_some(match (state, opened.lease) {
            (LeaseState::Unknown, None) => IntentStep::Unknown,
            (_, _) => IntentStep::Settled,
        }),
    };
    let proposal = Proposal { change: Some(change), ..Proposal::of(event) };
    if state == LeaseState::Active {
        // INVARIANT(no-answer-without-entry): the grant's entry is durable and covers this credential, so this word need not be
        // before it leaves. A power cut that loses it leaves a lease that never became active, which ends at its mint deadline, or an
        // intent of unknown outcome.
        let written = ledger.write(proposal).await.map_err(Refusal::Ledger)?;
        return Ok(written == Written::Overtaken);
    }
    // Whoever is told that the token is unspent must find it so, whatever happens.
    let concluded = ledger.commit(proposal).await.map_err(Refusal::Ledger)?;
    Ok(matches!(concluded, Committed::Overtaken(_)))
}
