//! Holders that do all they can to stay, or to be in the way of others.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use cambio::{lease::Gone, mint::login::LoginError};

use super::Place;
use crate::databases::battery::{Holder, House as _, soon};

const MINUTES: Duration = Duration::from_secs(300);

/// Sessions that come back as soon as they are cut.
struct Swarm {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Swarm {
    fn of(place: &Place, holder: &Holder, count: usize, statements: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = |_| {
            let stop = Arc::clone(&stop);
            let mut command = place.psql(&holder.user, &holder.password, "orders");
            command.args(["--command", statements, "--command", "SELECT pg_sleep(20)"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    command.status().unwrap();
                }
            })
        };
        let threads = (0..count).map(thread).collect();
        Self { stop, threads }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Each locks its own role before anything else: who wants to shut it first waits, and finds the next one in its way.
#[tokio::test(flavor = "multi_thread")]
async fn b07_a_holder_that_comes_back_at_once_is_ended_all_the_same() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let holder = bench.make("write", MINUTES).await.unwrap();
        let locks = "BEGIN; ALTER ROLE current_user SET application_name = 'mine'";
        let _swarm = Swarm::of(&place, &holder, 8, locks);
        assert!(soon(|| place.sessions(&holder.user) == 5));
        assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
        assert!(!place.knows(&holder.user));
        assert_eq!(place.sessions(&holder.user), 0);
    }
}

/// One login grants something to all others of ours: none of them could be dropped as long as it lives.
#[tokio::test]
async fn b04_what_another_login_granted_is_taken_back() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let (mallory, victim) = (
            bench.make("write", MINUTES).await.unwrap(),
            bench.make("read", MINUTES).await.unwrap(),
        );
        let (mark, user) = (&mallory.user[14..], &victim.user);
        let hostile = format!(
            "CREATE TABLE t_{mark} (n int); GRANT SELECT ON t_{mark} TO {user} WITH GRANT OPTION; GRANT UPDATE (n) ON t_{mark} TO {user};
             CREATE POLICY p_{mark} ON t_{mark} TO {user}; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {user}"
        );
        place.run(&mallory, &hostile).unwrap();
        assert_eq!(bench.server.end(user).await, Ok(Gone::Ended));
        assert!(!place.knows(user));
        place.run(&mallory, &format!("SELECT count(*) FROM t_{mark}")).unwrap();
        assert_eq!(bench.server.end(&mallory.user).await, Ok(Gone::Ended));
        place.ask("orders", &format!("DROP TABLE t_{mark}"));
    }
}

/// A login with more objects than the server has locks is told so with the words of a server whose memory is full. Here the server
/// says it in a database of its own, so that no other test meets a server without locks.
#[tokio::test]
async fn v03_a_login_that_owns_too_much_to_be_ended_is_no_dead_server() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let holder = bench.make("write", MINUTES).await.unwrap();
        let own = format!("full_{}", &holder.user[14..]);
        place.ask("postgres", &format!("CREATE DATABASE {own}"));
        place.ask(&own, "GRANT CREATE ON SCHEMA public TO app_write, app_heir");
        place.run_in(&own, &holder, "CREATE TABLE mine (n int)").unwrap();
        let full = "CREATE FUNCTION no_locks() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'out of shared memory' USING ERRCODE = '53200'; END $$;
             CREATE EVENT TRIGGER no_locks ON ddl_command_start WHEN TAG IN ('DROP OWNED') EXECUTE FUNCTION no_locks()";
        place.ask(&own, full);
        let Err(LoginError::Refused(said)) = bench.server.end(&holder.user).await else {
            panic!("this is of one login, and not of the server")
        };
        let wanted = format!(
            "database `{own}`: out of shared memory (SQLSTATE 53200): it is shut, and has more objects"
        );
        assert!(said.starts_with(&wanted) && said.contains("max_locks_per_transaction"), "{said}");
        place.run(&holder, "SELECT 1").unwrap_err();
        place.ask(&own, "DROP EVENT TRIGGER no_locks");
        assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
        place.ask("postgres", &format!("DROP DATABASE {own}"));
    }
}
