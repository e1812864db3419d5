//! The battery of `Logins`, for every kind of server, and what makes logins for tests.

use std::{
    process::Child,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cambio::{
    chance::{Chance, SystemChance},
    clock::Clock,
    grant::{Grant, RuleId, TargetName},
    id::ExchangeId,
    lease::Gone,
    ledger::{Commit, Event, Granted, Proposal, Recorded, record},
    mint::{
        Behind, Credential, MintError, Minter as _, Plan, Prepared,
        login::{Access, Login, LoginError, LoginMinter, LoginTarget, Logins},
        name::Names,
    },
    subject::VerifiedSubject,
    target::Expiry,
};
use serde_json::Value;

use crate::keys::minting::{self, Mint};

/// What the battery asks of a server from outside: by its own client, as the holder or as the superuser. All of it blocks.
pub(crate) trait House {
    /// The role of which logins are made; it may run `allowed`, and not `forbidden`.
    fn role(&self) -> &'static str;
    fn allowed(&self) -> &'static str;
    fn forbidden(&self) -> &'static str;

    /// Logs in, runs `statement`, leaves; else what the client says.
    fn run(&self, holder: &Holder, statement: &str) -> Result<String, String>;

    /// Logs in and stays for a minute, if it is let.
    fn stay(&self, holder: &Holder) -> Stay;

    /// How many sessions of `user` the superuser sees.
    fn sessions(&self, user: &str) -> usize;

    /// Whether the server knows `user`.
    fn knows(&self, user: &str) -> bool;
}

/// Who got a login.
#[derive(Clone)]
pub(crate) struct Holder {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: Option<String>,
}

impl Holder {
    pub(crate) fn of(login: &Login, access: &Access) -> Self {
        Self {
            user: login.name.clone(),
            password: login.password.reveal_text().unwrap().to_owned(),
            database: access.database.clone(),
        }
    }

    /// Reads what a workload gets.
    pub(crate) fn reading(credential: &Credential) -> Self {
        let read: Value = serde_json::from_str(minting::text(credential)).unwrap();
        let text = |key: &str| read[key].as_str().map(str::to_owned);
        Self {
            user: text("user").unwrap(),
            password: text("password").unwrap(),
            database: text("database"),
        }
    }
}

/// A client with an open session; ended when dropped.
pub(crate) struct Stay(pub(crate) Child);

impl Stay {
    /// Whether the client has noticed within some seconds that its session is over.
    pub(crate) fn is_cut(&mut self) -> bool {
        soon(|| self.0.try_wait().unwrap().is_some())
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits for `what`, ten seconds at most: another process has its own clock.
pub(crate) fn soon(mut what: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if what() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// A target with a real ledger in front and a real server behind it. The broker's clock stands where tests happen, months
/// from the server's: only lengths may be told (threat B08).
pub(crate) struct Bench {
    pub(crate) mint: Mint,
    pub(crate) minter: Arc<LoginMinter>,
    pub(crate) server: Arc<dyn Logins>,
    pub(crate) names: Names,
}

const AT_ONCE: usize = 4;

impl Bench {
    /// `serve` makes the server that answers for names of its own: no two benches see each other's logins.
    pub(crate) async fn of(
        kind: &'static str,
        expiry: Expiry,
        serve: impl FnOnce(Names) -> Arc<dyn Logins>,
    ) -> Self {
        let mint = Mint::new().await;
        let chance: Arc<dyn Chance> = Arc::new(SystemChance);
        let mut random = [0; 16];
        chance.fill(&mut random).unwrap();
        let target = TargetName::from("login/test");
        let names = Names::of(&format!("log.example/{}", u128::from_be_bytes(random)), &target);
        let server = serve(names.clone());
        let target = LoginTarget {
            name: target,
            kind,
            issuer: minting::OURS.to_owned(),
            names: names.clone(),
            expiry,
            at_once: AT_ONCE,
            per_subject: 10_000,
            in_all: None,
        };
        let clock = Arc::clone(&mint.bench.clock) as Arc<dyn Clock>;
        let minter = Arc::new(LoginMinter::of(target, Arc::clone(&server), clock, chance));
        Self { mint, minter, server, names }
    }

    pub(crate) fn grant(role: &str, seconds: u64) -> Grant {
        let target = TargetName::from("login/test");
        Grant {
            target,
            role: role.into(),
            scope: vec![role.to_owned()],
            claims: [].into(),
            ..minting::grant(seconds)
        }
    }

    pub(crate) fn prepare(&self, grant: &Grant, subject: &VerifiedSubject) -> Prepared {
        self.minter.prepare(grant, self.behind(subject)).unwrap()
    }

    /// The mint of JWTs has reproducible chance, and servers outlive a test: ids must differ from run to run.
    fn behind<'a>(&self, subject: &'a VerifiedSubject) -> Behind<'a> {
        let now = self.mint.bench.clock_now();
        Behind {
            exchange_id: ExchangeId::make(now, &SystemChance).unwrap(),
            subject: subject.unasked().unwrap(),
            actor: None,
            csr: None,
            now,
        }
    }

    /// A login to be made by the server itself, past the minter.
    pub(crate) async fn login(&self, role: &str) -> Login {
        let subject = self.mint.subject().await;
        let Plan::Login(login) = self.prepare(&Self::grant(role, 600), &subject).plan else {
            panic!("no login")
        };
        *login
    }

    /// Makes a login at the server itself, past the minter.
    pub(crate) async fn make(&self, role: &str, lifetime: Duration) -> Result<Holder, LoginError> {
        let login = self.login(role).await;
        let access = self.server.make(&login, lifetime).await?;
        Ok(Holder::of(&login, &access))
    }

    pub(crate) async fn recorded(&self, prepared: Prepared) -> Recorded<Prepared> {
        let event = Event::Granted(Granted {
            exchange_id: ExchangeId::make(self.mint.bench.clock_now(), &SystemChance).unwrap(),
            issuer: "ci".into(),
            subject: "ci:sub:somebody".to_owned(),
            token: [1; 32],
            target: prepared.target.clone(),
            role: "reader".into(),
            rules: vec![RuleId::from("orders/read")],
            policy: [2; 32],
            expires_at: prepared.expires_at,
            credential: prepared.credential.clone(),
            signing_input: None,
            kid: None,
        });
        let proposal = Proposal { lease: prepared.lease.clone(), ..Proposal::of(event) };
        record(&self.mint.ledger as &dyn Commit, proposal, prepared).await.unwrap()
    }

    /// From grant to credential, by the minter and through the ledger.
    pub(crate) async fn credential(
        &self,
        grant: &Grant,
        subject: &VerifiedSubject,
    ) -> Result<Credential, MintError> {
        let prepared = self.minter.prepare(grant, self.behind(subject))?;
        self.minter.mint(self.recorded(prepared).await).await
    }
}

const MINUTES: Duration = Duration::from_secs(300);

/// Every duty of `Logins`, in its order.
pub(crate) async fn holds(house: &impl House, bench: &Bench) {
    makes(house, bench).await;
    ends(house, bench).await;
    touches_nobody_else(house, bench).await;
    tells_its_names(house, bench).await;
}

async fn makes(house: &impl House, bench: &Bench) {
    let login = bench.login(house.role()).await;
    assert!(!house.knows(&login.name), "not there before");
    let access = bench.server.make(&login, MINUTES).await.unwrap();
    let holder = Holder::of(&login, &access);
    house.run(&holder, house.allowed()).unwrap();
    let said = house.run(&holder, house.forbidden()).unwrap_err();
    assert!(!said.is_empty(), "duty 1: another power than its role's");
    let wrong = Holder { password: "x".repeat(32), ..holder.clone() };
    house.run(&wrong, house.allowed()).unwrap_err();
    let none = Holder { password: String::new(), ..holder.clone() };
    house.run(&none, house.allowed()).unwrap_err();
    // A name that is taken: nothing is made, and what there is stays as it was.
    let second = bench.server.make(&login, MINUTES).await;
    assert!(matches!(second, Err(LoginError::Refused(_))), "duty 1: {second:?}");
    house.run(&holder, house.allowed()).unwrap();
    // A role that the target does not have.
    let stranger = bench.login("nobody/knows").await;
    let refused = bench.server.make(&stranger, MINUTES).await;
    assert!(matches!(refused, Err(LoginError::Refused(_))), "duty 1: {refused:?}");
    assert!(!house.knows(&stranger.name), "duty 1");
    assert_eq!(bench.server.end(&login.name).await, Ok(Gone::Ended));
}

async fn ends(house: &impl House, bench: &Bench) {
    let holder = bench.make(house.role(), MINUTES).await.unwrap();
    let mut stays = [house.stay(&holder), house.stay(&holder)];
    assert!(soon(|| house.sessions(&holder.user) == 2), "two are in");
    assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended), "duty 2");
    house.run(&holder, house.allowed()).unwrap_err();
    assert!(stays.iter_mut().all(Stay::is_cut), "duty 2: sessions");
    assert_eq!(house.sessions(&holder.user), 0, "duty 2: sessions");
    assert!(!house.knows(&holder.user), "duty 2: nothing is left");
    assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Absent), "duty 2: idempotent");
    let never = bench.login(house.role()).await;
    assert_eq!(bench.server.end(&never.name).await, Ok(Gone::Absent), "duty 2: never made");
}

/// Threat B01.
async fn touches_nobody_else(house: &impl House, bench: &Bench) {
    let ours = bench.login(house.role()).await.name;
    let foreign = [
        "postgres".to_owned(),
        "cambio".to_owned(),
        "root".to_owned(),
        "default".to_owned(),
        String::new(),
        bench.names.prefix().to_owned(),
        format!("{ours}x"),
        format!("{ours}\0"),
        format!("{ours}'; DROP TABLE entries; --"),
        ours.to_uppercase(),
    ];
    for name in foreign {
        let refused = bench.server.end(&name).await;
        assert!(matches!(refused, Err(LoginError::Refused(_))), "duty 3: {name:?} {refused:?}");
    }
}

async fn tells_its_names(house: &impl House, bench: &Bench) {
    assert_eq!(bench.server.names().await, Ok(Vec::new()), "duty 4: none is left");
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(bench.make(house.role(), MINUTES).await.unwrap().user);
    }
    made.sort();
    let mut told = bench.server.names().await.unwrap();
    told.sort();
    assert_eq!(told, made, "duty 4");
    for name in &made {
        assert_eq!(bench.server.end(name).await, Ok(Gone::Ended));
    }
    assert_eq!(bench.server.names().await, Ok(Vec::new()), "duty 4");
}
