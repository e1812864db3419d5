//! A server that is not there, is another one, or goes away in the middle.

use std::{
    net::TcpListener as Port,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cambio::{
    lease::Gone,
    mint::{
        MintError,
        examine::{Examine as _, Verdict},
        login::{LoginError, Logins as _},
        postgres::{PostgresTarget, Protection},
        sql::{Dialect, Statement},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{Place, making::Log, serve};
use crate::databases::battery::{Bench, House as _};

const MINUTES: Duration = Duration::from_secs(300);

async fn is_unreachable(place: &Place, target: PostgresTarget, why: &str) {
    let bench = place.bench(target).await;
    let login = bench.login("read").await;
    for done in [
        bench.server.make(&login, MINUTES).await.map(|_| ()),
        bench.server.end(&login.name).await.map(|_| ()),
        bench.server.names().await.map(|_| ()),
    ] {
        let Err(LoginError::Unreachable(said)) = done else { panic!("{why}: {done:?}") };
        assert!(said.contains(why), "{said}");
    }
    let subject = bench.mint.subject().await;
    let refused = bench.credential(&Bench::grant("read", 60), &subject).await;
    assert!(matches!(refused, Err(MintError::Refused(_))), "nothing was begun: {refused:?}");
    assert!(!place.knows(&login.name));
}

#[tokio::test]
async fn a_server_that_can_not_be_reached_or_believed_is_told_as_such() {
    for place in Place::all() {
        let free = Port::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let stopped = PostgresTarget { port: free, ..place.target() };
        is_unreachable(&place, stopped, "onnect").await;

        let stranger =
            Protection::VerifyFull { ca_file: Some(place.0.certificates.client_ca_file.clone()) };
        let stranger = PostgresTarget { protection: stranger, ..place.target() };
        is_unreachable(&place, stranger, "certificate").await;

        let named = PostgresTarget { host: "127.0.0.2".to_owned(), ..place.target() };
        let proxy = Proxy::towards(&place, "127.0.0.2:0", u32::MAX, Cut::Before).await;
        is_unreachable(&place, PostgresTarget { port: proxy.port, ..named }, "certificate").await;

        let impostor = PostgresTarget { password_file: place.0.ca_file.clone(), ..place.target() };
        is_unreachable(&place, impostor, "password authentication failed").await;
    }
}

/// Whether the last piece still arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Before,
    After,
}

/// Passes on what both sides say, until the client has spoken so often: then both connections are closed.
struct Proxy {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn towards(place: &Place, at: &str, pieces: u32, cut: Cut) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = (place.0.host.clone(), place.0.port);
        let spoken = Arc::new(AtomicU32::new(0));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect((server.0.as_str(), server.1)).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&spoken), pieces, cut));
            }
        });
        Self { port, task }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, spoken: Arc<AtomicU32>, pieces: u32, cut: Cut) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        drop(tokio::io::copy(&mut from_server, &mut to_client).await);
    });
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_client.read(&mut piece).await {
        let last = spoken.fetch_add(1, Ordering::SeqCst) + 1 >= pieces;
        if last {
            // The answer to it is never passed on.
            back.abort();
        }
        if !last || cut == Cut::After {
            to_server.write_all(&piece[..length]).await.unwrap();
        }
        if last {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return;
        }
    }
    back.abort();
}

/// Every place at which a connection can be lost, one after the other.
#[tokio::test]
async fn b03_a_connection_that_is_lost_leaves_what_the_error_says() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let (mut made, mut lost_and_there, mut nothing) = (false, 0, 0);
        for pieces in 1..40 {
            for cut in [Cut::Before, Cut::After] {
                let proxy = Proxy::towards(&place, "127.0.0.1:0", pieces, cut).await;
                let target = PostgresTarget { port: proxy.port, ..place.target() };
                let server = serve(target, bench.names.clone());
                let login = bench.login("read").await;
                match server.make(&login, MINUTES).await {
                    Ok(_) => {
                        assert!(place.knows(&login.name), "{pieces} {cut:?}");
                        made = true;
                    }
                    Err(LoginError::Lost(_)) => {
                        if soon_known(&place, &login.name) {
                            lost_and_there += 1;
                        }
                    }
                    Err(LoginError::Refused(said) | LoginError::Unreachable(said)) => {
                        assert!(!soon_known(&place, &login.name), "{pieces} {cut:?}: {said}");
                        nothing += 1;
                    }
                }
                bench.server.end(&login.name).await.unwrap();
            }
            if made {
                break;
            }
        }
        assert!(made && nothing > 10, "{nothing} times nothing");
        assert!(lost_and_there > 0, "a commit whose answer was lost");
    }
}

/// Looks some times: what the server has begun may take a moment.
fn soon_known(place: &Place, name: &str) -> bool {
    (0..3).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        place.knows(name)
    })
}

#[tokio::test]
async fn b04_an_ending_that_is_cut_off_is_no_ending_and_the_next_one_is() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let (mut ended, mut failed) = (false, 0);
        for pieces in (1..80).step_by(2) {
            let holder = bench.make("write", MINUTES).await.unwrap();
            let table = format!("kept_{}", &holder.user[14..]);
            place.run(&holder, &format!("CREATE TABLE {table} (n int)")).unwrap();
            let proxy = Proxy::towards(&place, "127.0.0.1:0", pieces, Cut::After).await;
            let target = PostgresTarget { port: proxy.port, ..place.target() };
            match serve(target, bench.names.clone()).end(&holder.user).await {
                Ok(Gone::Ended) => {
                    assert!(!place.knows(&holder.user), "{pieces}");
                    ended = true;
                }
                Ok(Gone::Absent) => panic!("it was there"),
                Err(LoginError::Refused(said)) => panic!("the server said nothing: {said}"),
                Err(LoginError::Lost(_) | LoginError::Unreachable(_)) => failed += 1,
            }
            bench.server.end(&holder.user).await.unwrap();
            assert!(!place.knows(&holder.user), "{pieces}");
            place.ask("orders", &format!("DROP TABLE {table}"));
            if ended {
                break;
            }
        }
        assert!(ended && failed > 5, "{failed}");
    }
}

/// Nobody waits any longer: what was begun on the connection is undone, and not committed by whoever uses it next.
#[tokio::test]
async fn b03_a_mint_that_is_given_up_leaves_nothing_for_the_next_one_to_commit() {
    for place in Place::all() {
        let mut target = PostgresTarget { connections: 1, ..place.target() };
        let slow = target.roles.get_mut(&"read".into()).unwrap();
        // On the pooled connection, and still before its commit when it is given up.
        slow.database.clone_from(&target.home);
        let create = ["CREATE ROLE {{name}} LOGIN PASSWORD {{password}}", "SELECT pg_sleep(1)"];
        slow.create =
            create.map(|text| Statement::parse(text, Dialect::Postgres).unwrap()).to_vec();
        let bench = place.bench(target).await;
        let login = bench.login("read").await;
        let limit = Duration::from_millis(400);
        let given_up = tokio::time::timeout(limit, bench.server.make(&login, MINUTES)).await;
        assert!(given_up.is_err(), "it sleeps");
        let next = bench.make("write", MINUTES).await.unwrap();
        assert_eq!(bench.server.names().await, Ok(vec![next.user.clone()]));
        std::thread::sleep(Duration::from_millis(1200));
        assert!(!place.knows(&login.name));
        bench.server.end(&next.user).await.unwrap();
    }
}

#[tokio::test]
async fn doctor_finds_just_enough_rights_and_says_what_is_missing_or_too_much() {
    for place in Place::all() {
        let names = place.bench(place.target()).await.names;
        let mut log = Log::from_now(&place.0.log);
        let found = serve(place.target(), names.clone()).examine().await;
        let bad: Vec<_> = found.iter().filter(|it| it.verdict == Verdict::Bad).collect();
        assert!(bad.is_empty() && found.len() >= 5, "{found:?}");

        let mut lacking = place.target();
        lacking.owner = Some("app_owner".to_owned());
        lacking.databases = Some(["orders", "nowhere"].map(str::to_owned).into());
        let role = lacking.roles.get_mut(&"read".into()).unwrap();
        role.member_of = vec!["nobody".to_owned(), "postgres".to_owned()];
        let found = serve(lacking, names.clone()).examine().await;
        let of = |verdict: Verdict| {
            let those = found.iter().filter(|it| it.verdict == verdict);
            those.map(|it| it.detail.clone()).collect::<Vec<_>>().join("\n")
        };
        let bad = of(Verdict::Bad);
        for wanted in [
            "group role `nobody` is not there: CREATE ROLE \"nobody\" NOLOGIN",
            "group role `postgres` has SUPERUSER, and so has every login of it",
            "`cambio` can't give anything to `app_owner`: GRANT \"app_owner\" TO \"cambio\"",
            "database `nowhere` is not there",
        ] {
            assert!(bad.contains(wanted), "{wanted}\n{bad}");
        }

        let it = &place.0.superuser;
        let much = PostgresTarget {
            user: it.user.clone(),
            password_file: it.password_file.clone(),
            ..place.target()
        };
        let found = serve(much, names.clone()).examine().await;
        let said =
            "`postgres` has SUPERUSER, which is not needed: ALTER ROLE \"postgres\" NOSUPERUSER";
        let fits = |it: &cambio::mint::examine::Finding| {
            it.verdict == Verdict::Unwise && it.detail == said
        };
        assert!(found.iter().any(fits), "{found:?}");

        let nowhere = PostgresTarget { port: 1, ..place.target() };
        let found = serve(nowhere, names).examine().await;
        assert!(matches!(found.as_slice(), [one] if one.verdict == Verdict::Bad), "{found:?}");
        assert_eq!(
            log.text().matches("BEGIN READ ONLY").count(),
            3,
            "nothing can be changed by it"
        );
    }
}
