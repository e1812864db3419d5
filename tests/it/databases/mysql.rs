//! Users of a real MariaDB. A MySQL is not among the servers of the tests: what is said to it is pinned as text in
//! `src/mint/mysql/statement.rs`.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
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
        mysql::{Mysql, MysqlLogins},
        name::Names,
        reach::{Protection, Reach},
    },
    target::{
        Expiry,
        mysql::{HostPattern, Identifier, MysqlGrant, MysqlRole, Privilege},
    },
};
use proptest::{prelude::any, strategy::Strategy as _, test_runner::TestRunner};
use serde_json::Value;

use super::{
    battery::{self, Bench, Holder, House, Stay, soon},
    wire::Wire,
};
use crate::{
    keys::minting,
    support::services::{self, Services},
};

const KIND: &str = "mysql";
const EXPIRY: Expiry = Expiry::ByBroker { ceiling: Duration::from_secs(3_600) };
const MINUTES: Duration = Duration::from_secs(300);

/// The server, seen from outside.
struct Maria(services::Mariadb);

impl Maria {
    fn there() -> Option<Self> {
        Services::of_this_run()?.mariadb().map(Self)
    }

    fn client(&self, user: &str, password: &str, tls: bool) -> Command {
        let mut command = Command::new(&self.0.client);
        command
            .args(["--no-defaults", "-N", "-B", "--connect-timeout=10", "-h", &self.0.host])
            .args(["-P", &self.0.port.to_string(), "-u", user])
            .env("MYSQL_PWD", password)
            .stdin(Stdio::null());
        if tls {
            command.arg(format!("--ssl-ca={}", self.0.ca_file.display()));
            command.arg("--ssl-verify-server-cert");
        } else {
            command.arg("--skip-ssl");
        }
        command
    }

    fn said(mut command: Command) -> Result<String, String> {
        let done = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    fn superuser(&self, statement: &str) -> String {
        let superuser = &self.0.superuser;
        let mut command = self.client(&superuser.user, &superuser.password(), true);
        command.args(["-e", statement]);
        Self::said(command).unwrap()
    }

    /// What was ever said to the server.
    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.0.log).unwrap()).into_owned()
    }

    fn reach(&self) -> Reach {
        Reach {
            host: self.0.host.clone(),
            port: self.0.port,
            tls: Protection::VerifyFull(Some(self.0.ca_file.clone())),
            user: self.0.admin.user.clone(),
            password_file: self.0.admin.password_file.clone(),
            connections: 4,
        }
    }

    fn server(&self, names: Names) -> Mysql {
        Mysql {
            reach: self.reach(),
            names,
            database: Some(Identifier::database("orders").unwrap()),
            from: HostPattern::any(),
            require_tls: true,
            sessions: 3,
            roles: roles(),
        }
    }

    async fn bench(&self) -> Bench {
        self.bench_with(|server| server).await
    }

    async fn bench_with(&self, change: impl FnOnce(Mysql) -> Mysql) -> Bench {
        let serve =
            |names| Arc::new(MysqlLogins::of(change(self.server(names)))) as Arc<dyn Logins>;
        Bench::of(KIND, EXPIRY, serve).await
    }
}

fn role(table: &str, privileges: &[&str]) -> MysqlRole {
    let grant = MysqlGrant {
        database: Identifier::database("orders").unwrap(),
        table: Some(Identifier::parse(table).unwrap()),
        privileges: privileges.iter().filter_map(|word| Privilege::find(word)).collect(),
    };
    MysqlRole { grants: vec![grant], member_of: Vec::new() }
}

fn member(of: &str) -> MysqlRole {
    MysqlRole { grants: Vec::new(), member_of: vec![Identifier::parse(of).unwrap()] }
}

fn roles() -> BTreeMap<RoleName, MysqlRole> {
    let half = MysqlRole {
        grants: [role("entries", &["select"]).grants, role("hidden", &["select"]).grants].concat(),
        member_of: Vec::new(),
    };
    [
        ("read", role("entries", &["select"])),
        ("write", role("entries", &["select", "insert", "update", "delete"])),
        ("beyond", half),
        ("member", member("app_read")),
        ("own", member("members_of_a_test")),
    ]
    .map(|(name, role)| (name.into(), role))
    .into()
}

impl House for Maria {
    fn role(&self) -> &'static str {
        "read"
    }

    fn allowed(&self) -> &'static str {
        "SELECT text FROM orders.entries"
    }

    fn forbidden(&self) -> &'static str {
        "SELECT text FROM orders.hidden"
    }

    fn run(&self, holder: &Holder, statement: &str) -> Result<String, String> {
        let mut command = self.client(&holder.user, &holder.password, true);
        command.args(["-e", statement]).args(&holder.database);
        Self::said(command)
    }

    fn stay(&self, holder: &Holder) -> Stay {
        let mut command = self.client(&holder.user, &holder.password, true);
        let statement = "START TRANSACTION; SELECT text FROM orders.entries; SELECT SLEEP(60)";
        command.args(["-e", statement]).stdout(Stdio::null()).stderr(Stdio::null());
        Stay(command.spawn().unwrap())
    }

    fn sessions(&self, user: &str) -> usize {
        let look = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER";
        self.superuser(&format!("{look} = '{user}'")).parse().unwrap()
    }

    fn knows(&self, user: &str) -> bool {
        self.superuser(&format!("SELECT COUNT(*) FROM mysql.user WHERE User = '{user}'")) != "0"
    }
}

#[tokio::test]
async fn b05_b07_b08_a_mariadb_holds_every_duty_of_logins() {
    let Some(house) = Maria::there() else { return };
    battery::holds(&house, &house.bench().await).await;
}

#[tokio::test]
async fn a_mariadb_login_is_refused_without_tls_and_beyond_its_sessions() {
    let Some(house) = Maria::there() else { return };
    let bench = house.bench().await;
    let holder = bench.make("read", MINUTES).await.unwrap();
    let mut plain = house.client(&holder.user, &holder.password, false);
    plain.args(["-e", "SELECT 1"]);
    let said = Maria::said(plain).unwrap_err();
    assert!(said.contains("ERROR 1045"), "{said}");
    let stays = [house.stay(&holder), house.stay(&holder), house.stay(&holder)];
    assert!(soon(|| house.sessions(&holder.user) == 3));
    let said = house.run(&holder, house.allowed()).unwrap_err();
    assert!(said.contains("max_user_connections"), "{said}");
    drop(stays);
    assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
}

#[tokio::test]
async fn a_workload_gets_a_mariadb_login_that_a_client_uses_as_it_is() {
    let Some(house) = Maria::there() else { return };
    let bench = house.bench().await;
    let subject = bench.mint.subject().await;
    let credential = bench.credential(&Bench::grant("write", 600), &subject).await.unwrap();
    let read: Value = serde_json::from_str(minting::text(&credential)).unwrap();
    let holder = Holder::reading(&credential);
    let (host, port) = (&house.0.host, house.0.port);
    let uri = format!(
        "mysql://{}:{}@{host}:{port}/orders?ssl-mode=VERIFY_IDENTITY",
        holder.user, holder.password
    );
    assert_eq!(read["uri"], uri.as_str());
    assert_eq!(read["kind"], KIND);
    assert_eq!(house.run(&holder, "SELECT DATABASE()").unwrap(), "orders");
    let change = "START TRANSACTION; INSERT INTO entries VALUES (77, 'x'); ROLLBACK";
    house.run(&holder, change).unwrap();
    for beyond in [
        "CREATE TABLE orders.mine (a int)",
        "CREATE VIEW orders.mine AS SELECT 1",
        "CREATE USER another",
        "GRANT SELECT ON orders.entries TO cambio",
        "SELECT * FROM mysql.user",
        "SELECT text FROM billing.entries",
        "SET GLOBAL general_log = OFF",
    ] {
        assert!(house.run(&holder, beyond).is_err(), "{beyond}");
    }
    assert_eq!(bench.minter.objects().await.unwrap(), [holder.user.as_str()]);
    assert_eq!(bench.minter.revoke(&holder.user).await, Ok(Gone::Ended));
    house.run(&holder, "SELECT 1").unwrap_err();
}

#[tokio::test]
async fn a_mariadb_password_reaches_the_general_log_as_its_hash_alone() {
    let Some(house) = Maria::there() else { return };
    let bench = house.bench().await;
    let holder = bench.make("read", MINUTES).await.unwrap();
    house.run(&holder, house.allowed()).unwrap();
    bench.server.end(&holder.user).await.unwrap();
    let log = house.log();
    let made =
        format!("CREATE USER '{}'@'%' IDENTIFIED VIA mysql_native_password USING '*", holder.user);
    assert!(log.contains(&made), "the log has what was said");
    assert!(!log.contains(&holder.password));
    assert!(!log.contains(&house.0.admin.password()));
}

/// Threat B01: whatever a name, a role or a claim is, nothing of it is said to the server.
#[tokio::test]
async fn b01_no_hostile_text_is_ever_said_to_a_mariadb() {
    let Some(house) = Maria::there() else { return };
    let bench = house.bench().await;
    let mut texts: Vec<String> =
        ["'", "\"", "`", "\\", ";", "\0", "--", "/*!", "$$", "\u{2019}", "%s", "\n"]
            .iter()
            .map(|part| format!("hostile{part}' OR 1=1; DROP TABLE orders.entries; -- "))
            .collect();
    let mut random = TestRunner::deterministic();
    for _ in 0..64 {
        let text = any::<String>().new_tree(&mut random).unwrap();
        texts.push(format!("hostile{}", proptest::strategy::ValueTree::current(&text)));
    }
    for text in &texts {
        let refused = bench.server.end(text).await;
        assert!(matches!(refused, Err(LoginError::Refused(_))), "{text:?}: {refused:?}");
        let mut named = bench.login("read").await;
        named.name = format!("{}{text}", bench.names.prefix());
        let refused = bench.server.make(&named, MINUTES).await;
        assert!(matches!(refused, Err(LoginError::Refused(_))), "{text:?}: {refused:?}");
        let mut roled = bench.login("read").await;
        roled.role = text.as_str().into();
        let refused = bench.server.make(&roled, MINUTES).await;
        assert!(matches!(refused, Err(LoginError::Refused(_))), "{text:?}: {refused:?}");
    }
    let mut known = bench.login("read").await;
    known.attribution = texts.concat();
    bench.server.make(&known, MINUTES).await.unwrap();
    assert_eq!(bench.server.end(&known.name).await, Ok(Gone::Ended));
    assert!(!house.log().contains("hostile"), "something of it was said");
}

#[tokio::test]
async fn what_a_mariadb_does_not_let_us_give_leaves_nothing() {
    let Some(house) = Maria::there() else { return };
    let bench = house.bench().await;
    for (role, code) in [("beyond", "1142"), ("member", "1044")] {
        let login = bench.login(role).await;
        let refused = bench.server.make(&login, MINUTES).await;
        let Err(LoginError::Refused(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.contains(code), "{reason}");
        assert!(!house.knows(&login.name), "{role}");
    }
}

#[tokio::test]
async fn a_role_of_a_mariadb_is_in_force_at_once() {
    let Some(house) = Maria::there() else { return };
    let (user, password) = ("admin_of_members", "a password of one test");
    house.superuser(&format!(
        "CREATE OR REPLACE USER {user} IDENTIFIED BY '{password}' REQUIRE SSL; \
         GRANT CREATE USER, CONNECTION ADMIN, PROCESS ON *.* TO {user}; \
         GRANT SELECT (User, Host), UPDATE ON mysql.user TO {user}; GRANT UPDATE ON mysql.* TO {user}; \
         CREATE OR REPLACE ROLE members_of_a_test; GRANT SELECT ON orders.entries TO members_of_a_test; \
         GRANT members_of_a_test TO {user} WITH ADMIN OPTION"
    ));
    let folder = tempfile::tempdir().unwrap();
    let password_file: PathBuf = folder.path().join("password");
    services::write_password(&password_file, password);
    let change = |server: Mysql| {
        let reach = Reach { user: user.to_owned(), password_file, ..server.reach };
        Mysql { reach, ..server }
    };
    let bench = house.bench_with(change).await;
    let holder = bench.make("own", MINUTES).await.unwrap();
    house.run(&holder, house.allowed()).unwrap();
    house.run(&holder, house.forbidden()).unwrap_err();
    assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
    house.superuser(&format!("DROP USER {user}; DROP ROLE members_of_a_test"));
}

/// The host in an account's name is not what it is known by: it may have been another when the login was made.
#[tokio::test]
async fn a_mariadb_login_ends_whatever_host_it_was_made_for() {
    let Some(house) = Maria::there() else { return };
    let bench = house
        .bench_with(|server| Mysql { from: HostPattern::parse("127.0.0.%").unwrap(), ..server })
        .await;
    let holder = bench.make("read", MINUTES).await.unwrap();
    house.run(&holder, house.allowed()).unwrap();
    let today = MysqlLogins::of(house.server(bench.names.clone()));
    assert_eq!(today.end(&holder.user).await, Ok(Gone::Ended));
    assert!(!house.knows(&holder.user));
}

/// Dropping a user leaves its sessions: one that slipped in between is found by the search for orphans, and cut.
#[tokio::test]
async fn b05_a_session_whose_user_is_gone_is_found_and_cut() {
    let Some(house) = Maria::there() else { return };
    let bench = house.bench().await;
    let holder = bench.make("read", MINUTES).await.unwrap();
    let mut stay = house.stay(&holder);
    assert!(soon(|| house.sessions(&holder.user) == 1));
    house.superuser(&format!("DROP USER '{}'@'%'", holder.user));
    assert_eq!(house.sessions(&holder.user), 1, "the server leaves it");
    assert_eq!(bench.server.names().await.unwrap(), [holder.user.as_str()]);
    assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
    assert!(stay.is_cut());
    assert_eq!(bench.server.names().await.unwrap(), Vec::<String>::new());
}

/// Threat B09.
#[tokio::test]
async fn b09_two_reapers_end_one_mariadb_login() {
    let Some(house) = Maria::there() else { return };
    let bench = house.bench().await;
    for _ in 0..5 {
        let holder = bench.make("read", MINUTES).await.unwrap();
        let _stay = house.stay(&holder);
        let (one, two) =
            tokio::join!(bench.server.end(&holder.user), bench.server.end(&holder.user));
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        assert!(!house.knows(&holder.user));
    }
}

#[tokio::test]
async fn a_mariadb_that_is_not_there_or_not_itself_is_told_nothing() {
    let Some(house) = Maria::there() else { return };
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stranger = folder.path().join("ca.pem");
    fs::write(&stranger, other.cert.pem()).unwrap();
    let elsewhere = Wire::laid("127.0.0.2", &house.0.host, house.0.port);
    let wrong: [Box<dyn FnOnce(Reach) -> Reach>; 4] = [
        Box::new(|reach| Reach { port: 1, ..reach }),
        Box::new(|reach| Reach { tls: Protection::VerifyFull(Some(stranger)), ..reach }),
        Box::new(|reach| Reach { host: "127.0.0.2".to_owned(), port: elsewhere.port, ..reach }),
        Box::new(|reach| Reach { password_file: "/nowhere".into(), ..reach }),
    ];
    for wrong in wrong {
        let bench = house.bench_with(|server| Mysql { reach: wrong(server.reach), ..server }).await;
        let login = bench.login("read").await;
        let made = bench.server.make(&login, MINUTES).await;
        assert!(matches!(made, Err(LoginError::Unreachable(_))), "{made:?}");
        let ended = bench.server.end(&login.name).await;
        assert!(matches!(ended, Err(LoginError::Unreachable(_))), "{ended:?}");
        assert!(!house.knows(&login.name));
    }
}

/// Threat B03: the answer is lost, and with it what is known; the search finds what the statement did.
#[tokio::test]
async fn b03_a_mariadb_login_whose_answer_was_lost_is_found_and_ended() {
    let Some(house) = Maria::there() else { return };
    let wire = Wire::laid("127.0.0.1", &house.0.host, house.0.port);
    let through = |server: Mysql| {
        let reach = Reach { port: wire.port, ..server.reach };
        Mysql { reach, ..server }
    };
    let bench = house.bench_with(through).await;
    let warm = bench.make("read", MINUTES).await.unwrap();
    bench.server.end(&warm.user).await.unwrap();
    // The connection goes back into the pool by itself, a little later.
    tokio::time::sleep(Duration::from_millis(200)).await;
    // One answer is that to the question for the version.
    wire.cut_after(1);
    let login = bench.login("read").await;
    let lost = bench.server.make(&login, MINUTES).await;
    assert!(matches!(lost, Err(LoginError::Lost(_))), "{lost:?}");
    wire.mend();
    assert!(soon(|| house.knows(&login.name)), "it took effect");
    assert_eq!(bench.server.names().await.unwrap(), [login.name.as_str()]);
    assert_eq!(bench.server.end(&login.name).await, Ok(Gone::Ended));
}

#[tokio::test]
async fn doctor_tells_which_rights_at_a_mariadb_are_missing_and_which_too_many() {
    let Some(house) = Maria::there() else { return };
    let names = || Names::of("log.example/doctor", &"mysql/orders".into());
    let only = |wanted: &[&str], server: Mysql| {
        let roles = roles().into_iter().filter(|(name, _)| wanted.contains(&name.as_str()));
        MysqlLogins::of(Mysql { roles: roles.collect(), ..server })
    };
    let enough = only(&["read", "write"], house.server(names())).examine().await;
    assert!(enough.iter().all(|found| found.verdict == Verdict::Good), "{enough:#?}");
    let beyond = only(&["beyond", "member"], house.server(names())).examine().await;
    let bad: Vec<&str> = beyond
        .iter()
        .filter(|found| found.verdict == Verdict::Bad)
        .map(|found| found.detail.as_str())
        .collect();
    assert_eq!(
        bad,
        [
            "role `beyond` gives what our user can't give: GRANT SELECT ON `orders`.`hidden` TO 'cambio'@'%' WITH GRANT OPTION",
            "role `member` has `member_of`: GRANT UPDATE ON mysql.* TO 'cambio'@'%'; or use `grants`",
        ]
    );
    let server = house.server(names());
    let superuser = &house.0.superuser;
    let reach = Reach {
        user: superuser.user.clone(),
        password_file: superuser.password_file.clone(),
        ..server.reach
    };
    let much = only(&["read"], Mysql { reach, ..server }).examine().await;
    let unwise = much.iter().find(|found| found.verdict == Verdict::Unwise).unwrap();
    assert!(unwise.detail.contains("SUPER"), "{unwise:?}");
}
