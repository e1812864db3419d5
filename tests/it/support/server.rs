//! A server with logins that exists in memory alone, and does wrong what it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use cambio::{
    chance::Chance,
    clock::Clock,
    grant::TargetName,
    lease::Gone,
    mint::{
        login::{Access, Login, LoginError, LoginMinter, LoginTarget, Logins},
        name::Names,
    },
    secret::Secret,
    target::Expiry,
};
use tokio::sync::Semaphore;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It says no.
    Refuses,
    /// It says no, and names what a holder has made, as the holder named it.
    Quotes,
    /// It never answers, and does nothing.
    Hangs,
    /// It does what it is told, and the answer is lost.
    LosesTheAnswer,
    /// The connection is lost first; it is done when [`FakeServer::arrive`] is called.
    IsLate,
    /// Nobody is there.
    Unreachable,
    /// A defect of ours.
    Panics,
}

/// What a server says of a table with such a name.
pub(crate) const QUOTED: &str = "must be owner of \"x\u{1b}[2J\nINFO lease revoked\r\u{202e}\"";

/// A login as the server has it.
#[derive(Clone, Debug)]
pub(crate) struct Has {
    pub(crate) password: Secret,
    pub(crate) role: String,
    pub(crate) attribution: String,
    pub(crate) lifetime: Duration,
}

#[derive(Default)]
struct State {
    logins: BTreeMap<String, Has>,
    late: Vec<(String, Has)>,
    make: Option<Fault>,
    end: Option<Fault>,
    names: Option<Fault>,
    stuck: BTreeMap<String, Fault>,
    made: usize,
    ended: Vec<String>,
    asked: Vec<String>,
    now: usize,
    most: usize,
}

/// The server.
pub(crate) struct FakeServer {
    state: Mutex<State>,
    /// Without permits, the list is not begun.
    pub(crate) listing: Semaphore,
    /// Without permits, a list that was read is not handed out.
    pub(crate) handing: Semaphore,
    /// How many were read.
    pub(crate) read: Semaphore,
    /// How many lists were asked for.
    pub(crate) listed: Semaphore,
    /// Without permits, a login is not begun to be made.
    pub(crate) making: Semaphore,
    /// How many were asked for.
    pub(crate) asked: Semaphore,
}

impl fmt::Debug for FakeServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeServer").finish_non_exhaustive()
    }
}

/// How many logins one subject may hold at a fake server.
pub(crate) const PER_SUBJECT: usize = 12;

impl FakeServer {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            listing: Semaphore::new(Semaphore::MAX_PERMITS),
            handing: Semaphore::new(Semaphore::MAX_PERMITS),
            read: Semaphore::new(0),
            listed: Semaphore::new(0),
            making: Semaphore::new(Semaphore::MAX_PERMITS),
            asked: Semaphore::new(0),
        })
    }

    /// The minter and revoker of `target` here, in the broker whose log is called `origin`.
    pub(crate) fn minter(
        self: &Arc<Self>,
        (origin, target): (&str, &str),
        at_once: usize,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Arc<LoginMinter> {
        let name = TargetName::from(target);
        let login = LoginTarget {
            names: Names::of(origin, &name),
            name,
            kind: "fake",
            issuer: "https://cambio.example".to_owned(),
            expiry: Expiry::ByBroker { ceiling: Duration::from_hours(1) },
            at_once,
            per_subject: u32::try_from(PER_SUBJECT).unwrap(),
            in_all: None,
        };
        Arc::new(LoginMinter::of(login, Arc::clone(self) as Arc<dyn Logins>, clock, chance))
    }

    pub(crate) fn make_fails(&self, fault: Option<Fault>) {
        self.state().make = fault;
    }

    pub(crate) fn end_fails(&self, fault: Option<Fault>) {
        self.state().end = fault;
    }

    pub(crate) fn names_fail(&self, fault: Option<Fault>) {
        self.state().names = fault;
    }

    /// Everything at once.
    pub(crate) fn is(&self, fault: Option<Fault>) {
        self.make_fails(fault);
        self.end_fails(fault);
        self.names_fail(fault);
    }

    /// Only the ending of this one goes wrong.
    pub(crate) fn is_stuck(&self, name: &str, fault: Option<Fault>) {
        let mut state = self.state();
        state.stuck.remove(name);
        state.stuck.extend(fault.map(|fault| (name.to_owned(), fault)));
    }

    /// A login that nobody asked for.
    pub(crate) fn put(&self, name: &str) {
        let has = Has {
            password: Secret::from("by hand".to_owned()),
            role: String::new(),
            attribution: String::new(),
            lifetime: Duration::MAX,
        };
        self.state().logins.insert(name.to_owned(), has);
    }

    /// What was late takes effect.
    pub(crate) fn arrive(&self) {
        let mut state = self.state();
        let late = std::mem::take(&mut state.late);
        state.logins.extend(late);
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.state().logins.contains_key(name)
    }

    pub(crate) fn logins(&self) -> BTreeMap<String, Has> {
        self.state().logins.clone()
    }

    pub(crate) fn names_there(&self) -> BTreeSet<String> {
        self.state().logins.keys().cloned().collect()
    }

    /// How many logins were begun to be made.
    pub(crate) fn made(&self) -> usize {
        self.state().made
    }

    /// Which logins it was told to end, as often as it was.
    pub(crate) fn told_to_end(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Which logins it did end, in order.
    pub(crate) fn ended(&self) -> Vec<String> {
        self.state().ended.clone()
    }

    /// The most calls that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state().most
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn call(&self) -> Call<'_> {
        let mut state = self.state();
        state.now += 1;
        state.most = state.most.max(state.now);
        drop(state);
        Call(self)
    }
}

/// One call under way.
struct Call<'s>(&'s FakeServer);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.state().now -= 1;
    }
}

/// What happens before anything is done; `true`: nothing will be.
async fn meets(fault: Option<Fault>) -> Result<(), LoginError> {
    // Whoever else may come, comes.
    tokio::task::yield_now().await;
    match fault {
        None | Some(Fault::LosesTheAnswer) => Ok(()),
        Some(Fault::Refuses) => Err(LoginError::Refused("it is in use".to_owned())),
        Some(Fault::Quotes) => Err(LoginError::Refused(QUOTED.to_owned())),
        Some(Fault::Hangs) => std::future::pending().await,
        Some(Fault::IsLate) => Err(LoginError::Lost("the connection was reset".to_owned())),
        Some(Fault::Unreachable) => Err(LoginError::Unreachable("connection refused".to_owned())),
        Some(Fault::Panics) => panic!("a driver's defect"),
    }
}

fn answer<T>(fault: Option<Fault>, value: T) -> Result<T, LoginError> {
    match fault {
        Some(Fault::LosesTheAnswer) => Err(LoginError::Lost("no answer".to_owned())),
        _ => Ok(value),
    }
}

#[async_trait]
impl Logins for FakeServer {
    async fn make(&self, login: &Login, lifetime: Duration) -> Result<Access, LoginError> {
        self.asked.add_permits(1);
        self.making.acquire().await.unwrap().forget();
        let _call = self.call();
        let has = Has {
            password: login.password.clone(),
            role: login.role.to_string(),
            attribution: login.attribution.clone(),
            lifetime,
        };
        let fault = self.state().make;
        self.state().made += 1;
        if fault == Some(Fault::IsLate) {
            self.state().late.push((login.name.clone(), has));
            return meets(fault).await.map(|()| unreachable!());
        }
        meets(fault).await?;
        self.state().logins.insert(login.name.clone(), has);
        let password = login.password.reveal_text().unwrap();
        let access = Access {
            host: "db.example".to_owned(),
            port: 5_432,
            database: Some("orders".to_owned()),
            uri: Secret::from(format!("fake://{}:{password}@db.example:5432/orders", login.name)),
            more: BTreeMap::from([("sslmode", "verify-full".into())]),
        };
        answer(fault, access)
    }

    async fn end(&self, name: &str) -> Result<Gone, LoginError> {
        let _call = self.call();
        self.state().asked.push(name.to_owned());
        let fault = {
            let state = self.state();
            state.stuck.get(name).copied().or(state.end)
        };
        meets(fault).await?;
        let mut state = self.state();
        let gone = match state.logins.remove(name) {
            Some(_) => {
                state.ended.push(name.to_owned());
                Gone::Ended
            }
            None => Gone::Absent,
        };
        drop(state);
        answer(fault, gone)
    }

    async fn names(&self) -> Result<Vec<String>, LoginError> {
        self.listed.add_permits(1);
        self.listing.acquire().await.unwrap().forget();
        let _call = self.call();
        let fault = self.state().names;
        meets(fault).await?;
        // Whoever made them: a server lists by what they begin with, and not even that is sure.
        let names = self.names_there().into_iter().collect();
        self.read.add_permits(1);
        self.handing.acquire().await.unwrap().forget();
        answer(fault, names)
    }
}
