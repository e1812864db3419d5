//! All of a broker but its listeners, in this process.

use std::sync::Arc;

use cambio::{
    app::{
        Existing, Mode,
        books::{self, Books},
        scene::{self, Means},
        targets,
    },
    chance::{Chance, SystemChance},
    clock::{Clock, Instant, SystemClock},
    config::Config,
    exchange::Scene,
    grant::{Grant, TargetName},
    id::ExchangeId,
    keys::Signer,
    ledger::{Event, Granted, Proposal, entry::Draft, facts::Facts},
    mint::{Behind, Minter},
    policy::{Decision, Wants},
    subject::{
        Algorithm, UnverifiedToken, VerifiedSubject,
        key_source::{discovered::KnownKeys, fetch::Outbound},
    },
};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::fixture::{self, Issuer, Signs};

pub struct Stage {
    pub scene: Scene,
    pub books: Books,
    pub clock: Arc<dyn Clock>,
    pub minter: Arc<dyn Minter>,
    pub wants: Wants,
    pub folder: TempDir,
    chance: Arc<dyn Chance>,
    signer: Arc<dyn Signer>,
    issuer: Issuer,
    repository: u64,
}

impl Stage {
    /// With `rules` rules and `issuers` issuers, and an empty ledger.
    pub async fn set(rules: usize, issuers: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let issuer = Issuer::generate();
        fixture::configuration(folder.path(), &issuer, rules, issuers);
        let (config, _) = Config::read(&folder.path().join("cambio.yaml"))
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let chance: Arc<dyn Chance> = Arc::new(SystemChance);
        let books = books::open(&config, Existing::Created, &clock, &chance).await.expect("books");
        let keyring = Arc::clone(books.rotator.keyring());
        let signer = Arc::clone(keyring.active(Algorithm::ES256).expect("a key").signer());
        let means = Means {
            clock: Arc::clone(&clock),
            chance: Arc::clone(&chance),
            keyring,
            tasks: TaskTracker::new(),
            outbound: Arc::new(Outbound::default()),
            mode: Mode::Serve,
            known: KnownKeys::default(),
            held: Arc::default(),
            reviews: Arc::new(scene::Unwatched),
        };
        let adopted = scene::policies(&config, clock.now()).expect("policies");
        let makers = targets::makers(&config, &means).await.expect("targets");
        let scene = scene::scene(&config, &means, adopted.set, makers.minters).expect("a scene");
        let minter = scene.minters.find(&TargetName::from("jwt/orders")).expect("a minter");
        Self {
            minter: Arc::clone(minter),
            scene,
            books,
            clock,
            wants: Wants {
                targets: vec!["https://orders.test".to_owned()],
                scope: vec!["reader".to_owned()],
                lifetime: None,
            },
            folder,
            chance,
            signer,
            issuer,
            repository: fixture::last_repository(rules),
        }
    }

    pub fn token(&self, signs: Signs) -> UnverifiedToken {
        UnverifiedToken::new(self.issuer.token(signs, self.repository))
    }

    pub async fn subject(&self, token: &UnverifiedToken) -> VerifiedSubject {
        self.scene.verifier.verify(token).await.expect("a good token")
    }

    pub fn decide(&self, subject: &VerifiedSubject) -> Decision {
        self.scene.policies.decide(subject, &self.wants, self.clock.now())
    }

    pub fn grant(&self, subject: &VerifiedSubject) -> Grant {
        match self.decide(subject) {
            Decision::Permit(permit) => permit.grant,
            other @ (Decision::Ambiguous(_) | Decision::Deny(_)) => {
                panic!("expected a permit, found {other:?}")
            }
        }
    }

    pub fn behind<'a>(&self, subject: &'a VerifiedSubject, now: Instant) -> Behind<'a> {
        let exchange_id = ExchangeId::make(now, &*self.chance).expect("chance");
        let subject = subject.unasked().expect("an issuer that is not asked");
        Behind { exchange_id, subject, actor: None, now, csr: None }
    }

    pub async fn sign(&self, input: &[u8]) -> Vec<u8> {
        self.signer.sign(input).await.expect("a signature")
    }

    pub fn draft(&self, subject: &VerifiedSubject) -> Draft {
        let proposal = self.proposal(subject);
        Draft::of(&proposal.event, proposal.facts.as_ref(), &*self.chance).expect("a draft")
    }

    /// What an exchange of `subject` commits: entry and facts, about 2 KB.
    pub fn proposal(&self, subject: &VerifiedSubject) -> Proposal {
        let now = self.clock.now();
        let grant = self.grant(subject);
        let behind = self.behind(subject, now);
        let prepared = self.minter.prepare(&grant, behind).expect("prepared");
        let cambio::mint::Plan::Jwt(plan) = prepared.plan else { unreachable!("a JWT") };
        let profile = subject.profile();
        let event = Event::Granted(Granted {
            exchange_id: behind.exchange_id,
            issuer: profile.issuer.clone(),
            subject: profile.our_subject(),
            token: subject.digest().0,
            target: grant.target,
            role: grant.role,
            rules: grant.rules,
            policy: grant.policy_digest,
            expires_at: prepared.expires_at,
            credential: prepared.credential,
            signing_input: Some(plan.digest),
            kid: Some(plan.kid),
        });
        let facts = Facts {
            version: 1,
            exchange_id: behind.exchange_id.to_string(),
            issuer: profile.issuer.to_string(),
            claims: profile.claims.clone(),
            actor: None,
            actor_issuer: None,
            wants: self.wants.clone(),
            narrowing: None,
            now: now.milliseconds(),
            source: "127.0.0.1".to_owned(),
            policy: cambio::ledger::entry::hex(&grant.policy_digest),
            shadow: Vec::new(),
            detail: None,
        };
        Proposal { facts: Some(facts), ..Proposal::of(event) }
    }
}
