//! A whole broker: every real part, a clock that is pushed, and no sockets.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::Router;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    app::{
        Existing, Mode, books,
        scene::{self, Means, SceneError},
        seams,
        targets::{self, Makers},
    },
    chance::{Chance, SystemChance},
    clock::{Clock, Instant, ManualClock},
    config::Config,
    edge::{self, OurIssuer, Proxies, RateLimit, Surface},
    exchange::{Exchange, Scene},
    keys::rotator::Rotator,
    lease::{Revoker, ending::Ending, reaper::Reaper},
    ledger::{
        Change, Commit, Committed, Event, Operator, Proposal,
        checkpoint::Checkpointer,
        entry::{Entry, Kind},
        facts::Facts,
        reader::LedgerReader,
        rollup::Rollup,
        writer::Writer,
    },
    mint::{Minter, Minters, examine::Finding},
    policy::PolicySet,
    subject::key_source::{KnownKeys, fetch::Outbound},
    telemetry::Metrics,
};
use serde_json::Value;
use tokio_util::task::TaskTracker;

use super::{
    site::{ORDERS, Site},
    token::NOW,
};
use crate::edge::surface::{Answered, post, read};

/// An entry as the tests look at it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) event: Value,
    pub(crate) facts: Option<Facts>,
}

impl Line {
    pub(crate) fn text(&self, name: &str) -> &str {
        self.event[name].as_str().unwrap_or_default()
    }
}

/// What stands in a ledger, in order.
pub(crate) fn lines(reader: &dyn LedgerReader) -> Vec<Line> {
    let stored = reader.entries(0..reader.size().unwrap()).unwrap();
    let line = |stored: &cambio::ledger::reader::StoredEntry| {
        let entry = Entry::decode(&stored.leaf).unwrap();
        let facts = stored.facts.as_ref().map(|facts| {
            let text = std::str::from_utf8(&facts.json).unwrap();
            serde_json::from_str(text).unwrap()
        });
        Line { kind: entry.kind, event: Value::Object(entry.body), facts }
    };
    stored.iter().map(line).collect()
}

/// What stands between the exchange and the writer in a test.
pub(crate) type Wrap<'a> = &'a dyn Fn(Arc<dyn Commit>) -> Arc<dyn Commit>;

/// Every real part in one process, without sockets; time is pushed.
pub(crate) struct Broker {
    pub(crate) site: Site,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) router: Router,
    pub(crate) rotator: Arc<Rotator>,
    pub(crate) writer: Writer,
    pub(crate) reader: Arc<dyn LedgerReader>,
    pub(crate) rollup: Arc<Rollup>,
    pub(crate) metrics: Arc<Metrics>,
    /// Runs only where a test lets it.
    pub(crate) reaper: Arc<Reaper>,
    checkpointer: Checkpointer,
    config: Config,
    means: Means,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("site", &self.site).finish_non_exhaustive()
    }
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::start_at(Site::new(), |_| {}).await
    }

    /// A new broker at `site`, whose configuration `change` has touched.
    pub(crate) async fn start_at(site: Site, change: impl FnOnce(&mut Config)) -> Self {
        let clock = Arc::new(ManualClock::at(Instant::from_seconds(NOW)));
        let mut config = site.config();
        change(&mut config);
        Self::assemble(site, config, clock, Existing::Created, &|ledger| ledger).await
    }

    /// A new broker whose exchanges commit through `wrap`.
    pub(crate) async fn start_behind(wrap: Wrap<'_>) -> Self {
        let site = Site::new();
        let clock = Arc::new(ManualClock::at(Instant::from_seconds(NOW)));
        let config = site.config();
        Self::assemble(site, config, clock, Existing::Created, wrap).await
    }

    /// A new broker at `site`, whose clock shows `now`: for servers that have a clock of their own.
    pub(crate) async fn start_when(site: Site, now: Instant) -> Self {
        let config = site.config();
        let clock = Arc::new(ManualClock::at(now));
        Self::assemble(site, config, clock, Existing::Created, &|ledger| ledger).await
    }

    /// Stops, and starts again over the same disk, with the configuration that lies there now.
    pub(crate) async fn restart_configured(mut self) -> Self {
        self.config = self.site.config();
        self.restart().await
    }

    /// Stops, and starts again over the same disk.
    pub(crate) async fn restart(self) -> Self {
        self.writer.close();
        self.writer.wait_until_ended().await;
        let Self { site, clock, config, .. } = self;
        Self::assemble(site, config, clock, Existing::Required, &|ledger| ledger).await
    }

    async fn assemble(
        site: Site,
        config: Config,
        manual: Arc<ManualClock>,
        existing: Existing,
        wrap: Wrap<'_>,
    ) -> Self {
        let clock = Arc::clone(&manual) as Arc<dyn Clock>;
        let chance: Arc<dyn Chance> = Arc::new(SystemChance);
        let books = books::open(&config, existing, &clock, &chance).await.unwrap();
        let tasks = TaskTracker::new();
        let metrics = Arc::new(Metrics::new());
        let means = Means {
            clock: Arc::clone(&clock),
            chance: Arc::clone(&chance),
            keyring: Arc::clone(books.rotator.keyring()),
            tasks: tasks.clone(),
            outbound: Arc::new(Outbound::default()),
            known: KnownKeys::default(),
            held: Arc::default(),
            reviews: Arc::new(seams::ReviewMetrics(Arc::clone(&metrics))),
            mode: Mode::Serve,
        };
        let adopted = scene::policies(&config, clock.now()).unwrap();
        let makers = targets::makers(&config, &means).await.unwrap();
        let scene = scene::scene(&config, &means, adopted.set, makers.minters).unwrap();
        let rollup = Arc::new(Rollup::default());
        let limits = &config.limits;
        let exchange = Arc::new(Exchange {
            scene: ArcSwap::from_pointee(scene),
            ledger: wrap(Arc::new(books.writer.clone())),
            rollup: Arc::clone(&rollup),
            per_subject: RateLimit::of(limits.per_subject.per_second, limits.per_subject.burst),
            clock: Arc::clone(&clock),
            tasks,
        });
        let ledger: Arc<dyn Commit> = Arc::new(books.writer.clone());
        let reaper = Arc::new(Reaper::of(
            Arc::clone(&books.reader),
            Arc::clone(&ledger),
            makers.revokers,
            (Arc::clone(&clock), Arc::clone(&chance)),
            Arc::new(seams::LeaseMetrics(Arc::clone(&metrics))),
        ));
        let ending = Arc::new(Ending::of((Arc::clone(&books.reader), ledger), reaper));
        let surface = Surface {
            exchanges: Arc::clone(&exchange) as Arc<dyn edge::Exchanges>,
            published: Arc::new(seams::Keys(Arc::clone(&means.keyring), books.writer.clone())),
            log: Arc::new(seams::PublicLog(Arc::clone(&books.reader))),
            introspect: Arc::new(seams::OwnTokens::of(
                config.issuer.clone(),
                Arc::clone(&means.keyring),
            )),
            revocations: Arc::new(seams::LeaseRevocations {
                tokens: seams::OwnTokens::of(config.issuer.clone(), Arc::clone(&means.keyring)),
                ending: Arc::clone(&ending),
            }),
            clock,
            chance,
            metrics: Arc::clone(&metrics),
            our_issuer: OurIssuer::of(config.issuer.as_str()).unwrap(),
            proxies: Proxies::default(),
            per_address: RateLimit::of(limits.per_address.per_second, limits.per_address.burst),
            in_flight: usize::try_from(limits.in_flight).unwrap(),
            body_timeout: limits.body_timeout,
        };
        let broker = Self {
            site,
            clock: manual,
            exchange,
            router: edge::router(surface),
            rotator: books.rotator,
            writer: books.writer,
            reader: books.reader,
            rollup,
            metrics,
            reaper: Arc::clone(ending.reaper()),
            checkpointer: books.checkpointer,
            config,
            means,
        };
        broker.put_in_force().await;
        broker
    }

    /// Records the policy set in force with its sources, as a start and a reload do.
    async fn put_in_force(&self) {
        let set = Arc::clone(&self.exchange.scene.load().policies);
        let digest = set.digest();
        let rules = set.rule_count() as u64;
        let change = Some(Change::PolicySet { digest, sources: scene::sources_json(&set) });
        let event = Event::Policy { digest, rules, commit: None };
        let committed = self.writer.commit(Proposal { change, ..Proposal::of(event) }).await;
        assert!(matches!(committed, Ok(Committed::Durable(_))), "{committed:?}");
    }

    /// The rules of `orders`, in the place of those in force.
    pub(crate) async fn adopt(&self, orders: &str) -> Arc<PolicySet> {
        self.site.write("policies/orders.yaml", orders);
        let set = scene::policies(&self.config, self.clock.now()).unwrap().set;
        let minters = targets::makers(&self.config, &self.means).await.unwrap().minters;
        let scene = scene::scene(&self.config, &self.means, Arc::clone(&set), minters).unwrap();
        self.exchange.scene.store(Arc::new(scene));
        self.put_in_force().await;
        set
    }

    /// What a reload would make of the configuration that lies there now.
    pub(crate) async fn makers(&self) -> Result<Makers, SceneError> {
        targets::makers(&self.site.config(), &self.means).await
    }

    /// What ends leases, as a reload makes it: over what the process still holds.
    pub(crate) async fn revoker(&self, target: &str) -> Arc<dyn Revoker> {
        let makers = targets::makers(&self.config, &self.means).await.unwrap();
        Arc::clone(makers.revokers.find(&target.into()).unwrap())
    }

    /// What `cambio doctor` finds at a target.
    pub(crate) async fn examine(&self, target: &str) -> Vec<Finding> {
        let (clock, chance) = (&self.means.clock, &self.means.chance);
        let examiners = targets::examiners(&self.config, clock, chance).await.unwrap();
        let found = examiners.into_iter().find(|(name, _)| name.as_str() == target);
        found.unwrap().1.examine().await
    }

    /// Puts another minter before that of `jwt/orders`.
    pub(crate) fn mint_with(&self, wrap: impl Fn(Arc<dyn Minter>) -> Arc<dyn Minter>) {
        let scene = self.exchange.scene.load_full();
        let all = ["jwt/orders", "jwt/billing", "cambio"].map(|name| {
            let minter = Arc::clone(scene.minters.find(&name.into()).unwrap());
            let minter = if name == "jwt/orders" { wrap(minter) } else { minter };
            (name.into(), minter)
        });
        self.exchange.scene.store(Arc::new(Scene {
            verifier: Arc::clone(&scene.verifier),
            policies: Arc::clone(&scene.policies),
            minters: Minters::of(all),
        }));
    }

    /// `POST /token` with this body.
    pub(crate) async fn post_token(&self, form: &str) -> Answered {
        post(&self.router, form).await
    }

    /// Exchanges `token` for role `read` of `jwt/orders`.
    pub(crate) async fn exchange(&self, token: &str) -> Answered {
        self.ask(token, "scope=read").await
    }

    /// Exchanges `token` for what `wants` says of `jwt/orders`.
    pub(crate) async fn ask(&self, token: &str, wants: &str) -> Answered {
        self.post_token(&form(token, &format!("audience={ORDERS}&{wants}"))).await
    }

    pub(crate) async fn read(&self, path: &str) -> Answered {
        read(&self.router, path).await
    }

    /// Everything in the ledger, refusals that nobody waited for included.
    pub(crate) async fn lines(&self) -> Vec<Line> {
        self.flush().await;
        let mut lines = lines(&*self.reader);
        lines.retain(|line| line.text("action") != "flush");
        lines
    }

    /// The entries of grants and refusals.
    pub(crate) async fn exchanges(&self) -> Vec<Line> {
        let mut lines = self.lines().await;
        lines.retain(|line| matches!(line.kind, Kind::Granted | Kind::Refused));
        lines
    }

    /// The queue is in order: when this entry is durable, what was noted before is.
    async fn flush(&self) {
        let event = Event::Admin { action: "flush".to_owned(), by: operator() };
        let committed = self.writer.commit(Proposal::of(event)).await;
        assert!(matches!(committed, Ok(Committed::Durable(_))), "{committed:?}");
    }

    /// Signs the head.
    pub(crate) fn checkpoint(&mut self) -> Option<String> {
        let now = self.clock.now();
        let checkpointer = &mut self.checkpointer;
        let signed =
            std::thread::scope(|scope| scope.spawn(|| checkpointer.checkpoint_now(now)).join());
        signed.unwrap().unwrap()
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.pass(Duration::from_secs(seconds));
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }
}

/// The body of a token exchange for `token`, and further parameters.
pub(crate) fn form(token: &str, more: &str) -> String {
    format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={token}\
         &subject_token_type=urn:ietf:params:oauth:token-type:jwt&{more}"
    )
}

pub(crate) fn operator() -> Operator {
    Operator { who: "uid:0".to_owned(), reason: "drill".to_owned() }
}

/// Header and claims of a token, unverified.
pub(crate) fn parts(token: &str) -> (Value, Value) {
    let part = |place: usize| {
        let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(place).unwrap()).unwrap();
        serde_json::from_str(std::str::from_utf8(&bytes).unwrap()).unwrap()
    };
    (part(0), part(1))
}

/// The issued token of an answer.
#[track_caller]
pub(crate) fn issued(answer: &Answered) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

/// `data` and everything below it as one heap of bytes: to search for what must not be there.
pub(crate) fn bytes_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(bytes_below(&path));
        } else if path.is_file() {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}
