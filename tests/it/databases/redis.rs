//! Users of a real Redis, one that keeps them in memory and one with a file for them.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use cambio::{
    grant::RoleName,
    lease::{Gone, Revoker as _},
    mint::{
        examine::{Examine as _, Verdict},
        login::{LoginError, Logins},
        name::Names,
        reach::{Protection, Reach},
        redis::{Redis, RedisLogins},
    },
    target::{
        Expiry,
        redis::{CommandRule, Pattern, RedisRole},
    },
};
use proptest::{prelude::any, strategy::Strategy as _, test_runner::TestRunner};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    battery::{self, Bench, Holder, House, Stay, soon},
    wire::Wire,
};
use crate::{
    keys::minting,
    support::services::{self, Services},
};

const KIND: &str = "redis";
const EXPIRY: Expiry = Expiry::ByBroker { ceiling: Duration::from_secs(3_600) };
const MINUTES: Duration = Duration::from_secs(300);

/// The server, seen from outside.
struct Cache(services::Redis);

impl Cache {
    fn called(name: &str) -> Option<Self> {
        Services::of_this_run()?.redis(name).map(Self)
    }

    fn client(&self, user: &str, password: &str) -> Command {
        let mut command = Command::new(&self.0.client);
        command
            .args(["--tls", "--cacert"])
            .arg(&self.0.ca_file)
            .args(["-h", &self.0.host, "-p", &self.0.port.to_string()])
            .args(["--user", user, "-e", "--no-auth-warning"])
            .env("REDISCLI_AUTH", password)
            .stdin(Stdio::null());
        command
    }

    fn said(command: &mut Command) -> Result<String, String> {
        let done = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (out, err) = (text(&done.stdout), text(&done.stderr));
        if done.status.success() { Ok(out) } else { Err(format!("{out}{err}")) }
    }

    fn superuser(&self, words: &[&str]) -> Result<String, String> {
        let superuser = &self.0.superuser;
        Self::said(self.client(&superuser.user, &superuser.password()).args(words))
    }

    fn server(&self, names: Names) -> Redis {
        Redis {
            reach: Reach {
                host: self.0.host.clone(),
                port: self.0.port,
                tls: Protection::VerifyFull(Some(self.0.ca_file.clone())),
                user: self.0.admin.user.clone(),
                password_file: self.0.admin.password_file.clone(),
                connections: 4,
            },
            names,
            database: 0,
            roles: roles(),
        }
    }

    async fn bench(&self) -> Bench {
        self.bench_with(|server| server).await
    }

    async fn bench_with(&self, change: impl FnOnce(Redis) -> Redis) -> Bench {
        let serve =
            |names| Arc::new(RedisLogins::of(change(self.server(names)))) as Arc<dyn Logins>;
        Bench::of(KIND, EXPIRY, serve).await
    }
}

fn role(keys: &[&str], commands: &[&str]) -> RedisRole {
    RedisRole {
        keys: keys.iter().map(|text| Pattern::parse(text).unwrap()).collect(),
        channels: vec![Pattern::parse("news").unwrap()],
        commands: commands.iter().map(|text| CommandRule::parse(text).unwrap()).collect(),
        ..RedisRole::default()
    }
}

fn roles() -> BTreeMap<RoleName, RedisRole> {
    let all = [
        "+@read",
        "+@write",
        "+@keyspace",
        "+@connection",
        "+@scripting",
        "+@pubsub",
        "+@transaction",
    ];
    [
        ("queue", role(&["orders:*"], &["+@read", "+@list"])),
        ("everything", role(&["*"], &all)),
        ("misspelt", role(&["orders:*"], &["+gett"])),
    ]
    .map(|(name, role)| (name.into(), role))
    .into()
}

impl House for Cache {
    fn role(&self) -> &'static str {
        "queue"
    }

    fn allowed(&self) -> &'static str {
        "GET orders:1"
    }

    fn forbidden(&self) -> &'static str {
        "GET billing:1"
    }

    fn run(&self, holder: &Holder, statement: &str) -> Result<String, String> {
        Self::said(self.client(&holder.user, &holder.password).args(statement.split(' ')))
    }

    fn stay(&self, holder: &Holder) -> Stay {
        let mut command = self.client(&holder.user, &holder.password);
        command.args(["BLPOP", "orders:queue", "60"]).stdout(Stdio::null()).stderr(Stdio::null());
        Stay(command.spawn().unwrap())
    }

    fn sessions(&self, user: &str) -> usize {
        let mark = format!(" user={user} ");
        self.superuser(&["CLIENT", "LIST"])
            .unwrap()
            .lines()
            .filter(|line| line.contains(&mark))
            .count()
    }

    fn knows(&self, user: &str) -> bool {
        self.superuser(&["ACL", "USERS"]).unwrap().lines().any(|known| known == user)
    }
}

#[tokio::test]
async fn b05_b07_b08_a_redis_holds_every_duty_of_logins() {
    for name in ["redis", "redis-aclfile"] {
        let Some(house) = Cache::called(name) else { return };
        battery::holds(&house, &house.bench().await).await;
    }
}

#[tokio::test]
async fn a_workload_gets_a_redis_login_that_a_client_uses_as_it_is() {
    let Some(house) = Cache::called("redis") else { return };
    let bench = house.bench().await;
    let subject = bench.mint.subject().await;
    let credential = bench.credential(&Bench::grant("queue", 600), &subject).await.unwrap();
    let read: Value = serde_json::from_str(minting::text(&credential)).unwrap();
    let uri = read["uri"].as_str().unwrap();
    assert!(uri.starts_with("rediss://cambio_") && uri.ends_with(&format!(":{}/0", house.0.port)));
    let mut client = Command::new(&house.0.client);
    client.args(["-u", uri, "--cacert"]).arg(&house.0.ca_file).args(["-e", "GET", "orders:1"]);
    assert_eq!(Cache::said(&mut client).unwrap(), "the value of orders:1");
    let holder = Holder::reading(&credential);
    assert_eq!(bench.minter.objects().await.unwrap(), [holder.user.as_str()]);
    assert_eq!(bench.minter.revoke(&holder.user).await, Ok(Gone::Ended));
    house.run(&holder, "PING").unwrap_err();
}

/// Whatever categories a role has, what reaches past its keys, into others' sessions or at the server is not in them.
#[tokio::test]
async fn b07_a_role_with_every_category_has_no_power_over_the_server() {
    let Some(house) = Cache::called("redis") else { return };
    let bench = house.bench().await;
    let holder = bench.make("everything", MINUTES).await.unwrap();
    for allowed in [
        "SET orders:9 1",
        "DEL orders:9",
        "EVAL return{1} 0",
        "PUBLISH news 1",
        "CLIENT ID",
        "SCRIPT LOAD return{1}",
    ] {
        house.run(&holder, allowed).unwrap_or_else(|said| panic!("{allowed}: {said}"));
    }
    for beyond in [
        "FLUSHALL",
        "FLUSHDB",
        "SWAPDB 0 1",
        "KEYS *",
        "ACL LIST",
        "ACL SETUSER other on nopass +@all ~*",
        "CONFIG GET port",
        "CLIENT LIST",
        "CLIENT KILL USER cambio",
        "CLIENT PAUSE 1",
        "FUNCTION FLUSH",
        "FUNCTION LIST",
        "SCRIPT FLUSH",
        "SCRIPT DEBUG SYNC",
        "MIGRATE 127.0.0.1 1 orders:1 0 1",
        "MODULE LIST",
        "MONITOR",
        "REPLICAOF NO ONE",
        "SHUTDOWN NOSAVE",
        "SAVE",
        "PUBLISH other 1",
        "EVAL return{redis.call('flushall')} 0",
    ] {
        let said = house.run(&holder, beyond).unwrap_err();
        assert!(
            said.contains("NOPERM") || said.contains("can't run this command"),
            "{beyond}: {said}"
        );
    }
    assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
}

#[tokio::test]
async fn what_a_redis_does_not_know_leaves_nothing() {
    let Some(house) = Cache::called("redis") else { return };
    let bench = house.bench().await;
    let login = bench.login("misspelt").await;
    let refused = bench.server.make(&login, MINUTES).await;
    let Err(LoginError::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("+gett"), "{reason}");
    assert!(!house.knows(&login.name));
}

#[tokio::test]
async fn a_redis_password_is_never_said_to_the_server_by_us() {
    let Some(house) = Cache::called("redis") else { return };
    let bench = house.bench().await;
    let superuser = &house.0.superuser;
    let mut monitor = house.client(&superuser.user, &superuser.password());
    let mut monitor = Stay(monitor.arg("MONITOR").stdout(Stdio::piped()).spawn().unwrap());
    let watching = || house.superuser(&["CLIENT", "LIST"]).unwrap().contains("cmd=monitor");
    assert!(soon(watching));
    let holder = bench.make("queue", MINUTES).await.unwrap();
    bench.server.end(&holder.user).await.unwrap();
    house.superuser(&["ECHO", "the end of the watch"]).unwrap();
    monitor.0.kill().unwrap();
    let mut seen = String::new();
    monitor.0.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert!(seen.contains("the end of the watch"), "it watched: {seen}");
    assert!(!seen.contains(&holder.password));
    assert!(!fs::read_to_string(&house.0.log).unwrap().contains(&holder.password));
}

/// Threat B01: whatever a name, a role or a claim is, nothing of it is said to the server.
#[tokio::test]
async fn b01_no_hostile_text_is_ever_said_to_a_redis() {
    let Some(house) = Cache::called("redis-aclfile") else { return };
    let bench = house.bench().await;
    let mut texts: Vec<String> = ["\r\n", "'", "\"", "\\", "\0", " +@all", "#", "*", "\u{2019}"]
        .iter()
        .map(|part| format!("hostile{part}\r\nFLUSHALL\r\nuser x on nopass ~* +@all"))
        .collect();
    let mut random = TestRunner::deterministic();
    for _ in 0..64 {
        let text = any::<String>().new_tree(&mut random).unwrap();
        texts.push(format!("hostile{}", proptest::strategy::ValueTree::current(&text)));
    }
    for text in &texts {
        let refused = bench.server.end(text).await;
        assert!(matches!(refused, Err(LoginError::Refused(_))), "{text:?}: {refused:?}");
        let mut named = bench.login("queue").await;
        named.name = format!("{}{text}", bench.names.prefix());
        let refused = bench.server.make(&named, MINUTES).await;
        assert!(matches!(refused, Err(LoginError::Refused(_))), "{text:?}: {refused:?}");
        let mut roled = bench.login("queue").await;
        roled.role = text.as_str().into();
        let refused = bench.server.make(&roled, MINUTES).await;
        assert!(matches!(refused, Err(LoginError::Refused(_))), "{text:?}: {refused:?}");
    }
    let mut known = bench.login("queue").await;
    known.attribution = texts.concat();
    bench.server.make(&known, MINUTES).await.unwrap();
    let listed = house.superuser(&["ACL", "LIST"]).unwrap();
    assert!(listed.contains(&known.name) && !listed.contains("hostile"), "{listed}");
    assert_eq!(bench.server.end(&known.name).await, Ok(Gone::Ended));
    let file = fs::read_to_string(house.0.acl_file.as_ref().unwrap()).unwrap();
    assert!(!file.contains("hostile") && file.contains("user cambio "), "{file}");
}

/// Threat B09.
#[tokio::test]
async fn b09_two_reapers_end_one_redis_login() {
    let Some(house) = Cache::called("redis-aclfile") else { return };
    let bench = house.bench().await;
    for _ in 0..5 {
        let holder = bench.make("queue", MINUTES).await.unwrap();
        let (one, two) =
            tokio::join!(bench.server.end(&holder.user), bench.server.end(&holder.user));
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        assert!(!house.knows(&holder.user));
    }
}

#[tokio::test]
async fn a_redis_that_is_not_there_or_not_itself_is_told_nothing() {
    let Some(house) = Cache::called("redis") else { return };
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stranger = folder.path().join("ca.pem");
    fs::write(&stranger, other.cert.pem()).unwrap();
    let elsewhere = Wire::laid("127.0.0.2", &house.0.host, house.0.port);
    let wrong: [Box<dyn FnOnce(Reach) -> Reach>; 5] = [
        Box::new(|reach| Reach { port: 1, ..reach }),
        Box::new(|reach| Reach { tls: Protection::VerifyFull(Some(stranger)), ..reach }),
        Box::new(|reach| Reach { tls: Protection::DangerouslyPlain, ..reach }),
        Box::new(|reach| Reach { host: "127.0.0.2".to_owned(), port: elsewhere.port, ..reach }),
        Box::new(|reach| Reach { password_file: "/nowhere".into(), ..reach }),
    ];
    for wrong in wrong {
        let bench = house.bench_with(|server| Redis { reach: wrong(server.reach), ..server }).await;
        let login = bench.login("queue").await;
        let made = bench.server.make(&login, MINUTES).await;
        assert!(matches!(made, Err(LoginError::Unreachable(_))), "{made:?}");
        let ended = bench.server.end(&login.name).await;
        assert!(matches!(ended, Err(LoginError::Unreachable(_))), "{ended:?}");
        assert!(!house.knows(&login.name));
    }
}

/// Threat B03: the answer is lost, and with it what is known; the search finds what the command did.
#[tokio::test]
async fn b03_a_redis_login_whose_answer_was_lost_is_found_and_ended() {
    let Some(house) = Cache::called("redis") else { return };
    let wire = Wire::laid("127.0.0.1", &house.0.host, house.0.port);
    let through = |server: Redis| {
        let reach = Reach { port: wire.port, ..server.reach };
        Redis { reach, ..server }
    };
    let bench = house.bench_with(through).await;
    let warm = bench.make("queue", MINUTES).await.unwrap();
    bench.server.end(&warm.user).await.unwrap();
    // Two answers: the server is there, and has no such user.
    wire.cut_after(2);
    let login = bench.login("queue").await;
    let lost = bench.server.make(&login, MINUTES).await;
    assert!(matches!(lost, Err(LoginError::Lost(_))), "{lost:?}");
    wire.mend();
    assert!(soon(|| house.knows(&login.name)), "it took effect");
    assert_eq!(bench.server.names().await.unwrap(), [login.name.as_str()]);
    assert_eq!(bench.server.end(&login.name).await, Ok(Gone::Ended));
}

#[tokio::test]
async fn doctor_tells_which_rights_at_a_redis_are_missing_and_which_too_many() {
    let Some(house) = Cache::called("redis") else { return };
    let names = || Names::of("log.example/doctor", &"redis/orders".into());
    let found = RedisLogins::of(house.server(names())).examine().await;
    assert!(found.iter().all(|found| found.verdict == Verdict::Good), "{found:#?}");
    let server = house.server(names());
    let superuser = &house.0.superuser;
    let reach = Reach {
        user: superuser.user.clone(),
        password_file: superuser.password_file.clone(),
        ..server.reach
    };
    let found = RedisLogins::of(Redis { reach, ..server }).examine().await;
    let unwise = found.iter().find(|found| found.verdict == Verdict::Unwise).unwrap();
    assert!(unwise.detail.contains("`ACL SETUSER superuser -@read -@write -config"), "{unwise:?}");
    let (user, password) = ("poor", "a password of one test");
    house
        .superuser(&[
            "ACL",
            "SETUSER",
            user,
            "reset",
            "on",
            &format!(">{password}"),
            "+ping",
            "+acl|dryrun",
            "+acl|users",
        ])
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password_file: PathBuf = folder.path().join("password");
    services::write_password(&password_file, password);
    let server = house.server(names());
    let reach = Reach { user: user.to_owned(), password_file, ..server.reach };
    let found = RedisLogins::of(Redis { reach, ..server }).examine().await;
    house.superuser(&["ACL", "DELUSER", user]).unwrap();
    let bad = found.iter().find(|found| found.verdict == Verdict::Bad).unwrap();
    assert_eq!(
        bad.detail,
        "our user lacks rights: `ACL SETUSER poor +acl|setuser +acl|deluser +acl|getuser +acl|save`"
    );
}

/// A server of one test: others use those that are shared.
struct Own {
    folder: TempDir,
    name: &'static str,
}

impl Own {
    fn up(name: &'static str) -> (Self, Cache) {
        let own = Self { folder: tempfile::tempdir().unwrap(), name };
        let file = own.file();
        Self::tool("up", &["--out", &file, name]);
        let described: Services =
            serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let house = Cache(described.redis(name).unwrap());
        (own, house)
    }

    fn file(&self) -> String {
        self.folder.path().join("services.json").display().to_string()
    }

    fn restart(&self) {
        for way in ["off", "on"] {
            Self::tool("switch", &[&self.file(), self.name, way]);
        }
    }

    fn tool(tool: &str, arguments: &[&str]) {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services").join(tool);
        let done = Command::new(tool).args(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        Self::tool("down", &[&self.file()]);
    }
}

#[tokio::test]
async fn a_redis_without_a_file_has_forgotten_a_login_after_a_restart() {
    if Cache::called("redis").is_none() {
        return;
    }
    let (own, house) = Own::up("redis");
    let bench = house.bench().await;
    let holder = bench.make("queue", MINUTES).await.unwrap();
    house.run(&holder, house.allowed()).unwrap();
    own.restart();
    house.run(&holder, house.allowed()).unwrap_err();
    assert_eq!(bench.server.names().await, Ok(Vec::new()));
    assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Absent));
    let next = bench.make("queue", MINUTES).await.unwrap();
    house.run(&next, house.allowed()).unwrap();
}

/// The operator saves while a login is there. Ended by us it does not come back; come back while nobody ended it, it is found.
#[tokio::test]
async fn b03_a_redis_login_that_an_operator_saved_does_not_come_back_after_its_end() {
    if Cache::called("redis-aclfile").is_none() {
        return;
    }
    let (own, house) = Own::up("redis-aclfile");
    let bench = house.bench().await;
    let saved =
        |user: &str| fs::read_to_string(house.0.acl_file.as_ref().unwrap()).unwrap().contains(user);
    let holder = bench.make("queue", MINUTES).await.unwrap();
    assert!(!saved(&holder.user), "we save no login");
    house.superuser(&["ACL", "SAVE"]).unwrap();
    assert!(saved(&holder.user));
    own.restart();
    house.run(&holder, house.allowed()).unwrap();
    assert_eq!(bench.server.names().await.unwrap(), [holder.user.as_str()], "it is found");
    assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
    assert!(!saved(&holder.user));
    own.restart();
    house.run(&holder, house.allowed()).unwrap_err();
    assert_eq!(bench.server.names().await, Ok(Vec::new()));
    assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Absent));
}
