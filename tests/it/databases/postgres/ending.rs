//! Ending logins that have left something behind, or are in the way of their own end.

use std::{process::Stdio, time::Duration};

use cambio::{
    lease::Gone,
    mint::login::{LoginError, Logins as _},
};

use super::{Place, serve};
use crate::databases::battery::{Holder, House as _, Stay, soon};

const MINUTES: Duration = Duration::from_secs(300);

impl Place {
    /// A session in which `statements` were run, and which stays as they leave it.
    fn amid(&self, holder: &Holder, statements: &str) -> Stay {
        let mut command = self.psql(&holder.user, &holder.password, "orders");
        command.args(["--command", statements, "--command", "SELECT pg_sleep(60)"]);
        let stay = Stay(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let asked = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND query LIKE '%pg_sleep%'",
            holder.user
        );
        assert!(soon(|| self.ask("postgres", &asked) == "1"), "{statements}");
        stay
    }

    /// Who owns `table` of `orders`.
    fn owner_of(&self, database: &str, table: &str) -> String {
        let asked = format!("SELECT tableowner FROM pg_tables WHERE tablename = '{table}'");
        self.ask(database, &asked)
    }
}

#[tokio::test]
async fn b04_a_login_ends_whatever_it_has_left_behind() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let holder = bench.make("write", MINUTES).await.unwrap();
        let user = &holder.user;
        let mark = &user[14..];
        let made = format!(
            "CREATE TABLE kept_{mark} (n serial PRIMARY KEY, t text); CREATE SEQUENCE s_{mark};
             INSERT INTO kept_{mark} (t) VALUES ('of value');
             CREATE VIEW v_{mark} AS SELECT * FROM kept_{mark};
             CREATE TYPE t_{mark} AS ENUM ('a');
             CREATE FUNCTION f_{mark}() RETURNS int LANGUAGE sql AS 'SELECT 1';
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app_read;
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO app_read;
             GRANT SELECT ON kept_{mark} TO app_read;
             SELECT lo_create(0);"
        );
        place.run(&holder, &made).unwrap();
        place.run_in("billing", &holder, &format!("CREATE TABLE kept_{mark} (n int)")).unwrap();
        // Grants to it in another database, by one whom our role is a member of.
        let heirs = format!(
            "CREATE TABLE heirs_{mark} (n int); ALTER TABLE heirs_{mark} OWNER TO app_heir; GRANT ALL ON heirs_{mark} TO {user}"
        );
        place.ask("billing", &heirs);
        place.ask(
            "billing",
            &format!("ALTER DEFAULT PRIVILEGES FOR ROLE app_heir GRANT SELECT ON TABLES TO {user}"),
        );
        // Two prepared transactions, one by a name that wants quoting, and an open one.
        for (database, gid) in
            [("orders", format!("it''s \"{mark}\"; \\ --")), ("billing", mark.to_owned())]
        {
            let prepared = format!(
                "BEGIN; INSERT INTO entries VALUES ({}, 'prepared'); PREPARE TRANSACTION '{gid}'",
                u64::from_str_radix(&hex(mark), 16).unwrap()
            );
            place.run_in(database, &holder, &prepared).unwrap();
        }
        let mut open =
            place.amid(&holder, &format!("BEGIN; DROP VIEW v_{mark}; LOCK TABLE kept_{mark}"));
        assert_eq!(bench.server.end(user).await, Ok(Gone::Ended));
        assert!(open.is_cut() && !place.knows(user));
        place.run(&holder, "SELECT 1").unwrap_err();
        let asked = format!("SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE '%{mark}%'");
        assert_eq!(place.ask("postgres", &asked), "0");
        // What it made is there, and somebody's.
        for database in ["orders", "billing"] {
            assert_eq!(place.owner_of(database, &format!("kept_{mark}")), place.0.heir);
        }
        assert_eq!(place.ask("orders", &format!("SELECT t FROM kept_{mark}")), "of value");
        assert_eq!(bench.server.end(user).await, Ok(Gone::Absent));
        place.ask("orders", &format!("DROP TABLE kept_{mark} CASCADE; DROP SEQUENCE s_{mark}; DROP TYPE t_{mark}; DROP FUNCTION f_{mark}"));
        place.ask("billing", &format!("DROP TABLE kept_{mark}, heirs_{mark}"));
    }
}

/// Something to tell rows apart by.
fn hex(mark: &str) -> String {
    mark.bytes().take(7).map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn b07_a_holder_that_locks_its_own_role_is_ended_all_the_same() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let holder = bench.make("write", MINUTES).await.unwrap();
        let change = "BEGIN; ALTER ROLE current_user PASSWORD 'my own'";
        let mut open = place.amid(&holder, change);
        assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
        assert!(open.is_cut());

        let holder = bench.make("write", MINUTES).await.unwrap();
        let prepared = format!("{change}; PREPARE TRANSACTION '{}'", holder.user);
        place.run(&holder, &prepared).unwrap();
        assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));

        let holder = bench.make("write", MINUTES).await.unwrap();
        place.run(&holder, "ALTER ROLE current_user PASSWORD 'my own'").unwrap();
        assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
        let own = Holder { password: "my own".to_owned(), ..holder };
        place.run(&own, "SELECT 1").unwrap_err();
    }
}

#[tokio::test]
async fn b04_without_an_owner_nothing_is_destroyed_and_the_login_is_shut() {
    for place in Place::all() {
        let mut target = place.target();
        target.owner = None;
        let bench = place.bench(target.clone()).await;
        let holder = bench.make("write", MINUTES).await.unwrap();
        let table = format!("kept_{}", &holder.user[14..]);
        place.run(&holder, &format!("CREATE TABLE {table} (n int)")).unwrap();
        let mut stay = place.stay(&holder);
        assert!(soon(|| place.sessions(&holder.user) == 1));
        let Err(LoginError::Refused(said)) = bench.server.end(&holder.user).await else {
            panic!("it owns something")
        };
        assert!(said.contains("owns 1 objects in database `orders`: name an `owner`"), "{said}");
        assert!(stay.is_cut());
        place.run(&holder, "SELECT 1").unwrap_err();
        assert_eq!(place.owner_of("orders", &table), holder.user);
        // With one in the configuration the next try ends it.
        target.owner = Some(place.0.heir.clone());
        let mended = serve(target, bench.names.clone());
        assert_eq!(mended.end(&holder.user).await, Ok(Gone::Ended));
        assert_eq!(place.owner_of("orders", &table), place.0.heir);
        place.ask("orders", &format!("DROP TABLE {table}"));
    }
}

/// What our role can't take back is told, and waits for whoever can.
#[tokio::test]
async fn b04_what_others_granted_keeps_a_login_shut_and_is_named() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let holder = bench.make("read", MINUTES).await.unwrap();
        let user = &holder.user;
        place.ask("billing", &format!("GRANT SELECT ON hidden TO {user}"));
        place.ask("billing", &format!("GRANT CREATE ON DATABASE billing TO {user}"));
        let defaults =
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE app_owner GRANT SELECT ON TABLES TO {user}");
        place.ask("billing", &defaults);
        let Err(LoginError::Refused(said)) = bench.server.end(user).await else {
            panic!("our role is no member of `app_owner`")
        };
        let wanted = "it is shut, and can't be dropped while there are privileges for database billing, 1 object in database billing: ";
        assert!(said.starts_with(wanted), "{said}");
        place.run(&holder, "SELECT 1").unwrap_err();
        place.ask("billing", &format!("DROP OWNED BY {user}"));
        assert_eq!(bench.server.end(user).await, Ok(Gone::Ended));
    }
}

#[tokio::test]
async fn b04_a_database_that_lets_us_not_in_is_named_and_tried_again() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let holder = bench.make("write", MINUTES).await.unwrap();
        let own = format!("own_{}", &holder.user[14..]);
        place.ask("postgres", &format!("CREATE DATABASE {own}"));
        place.ask(&own, "GRANT CREATE ON SCHEMA public TO app_write, app_heir");
        place.run_in(&own, &holder, "CREATE TABLE mine (n int)").unwrap();

        let mut listed = place.target();
        listed.databases = Some(["orders".to_owned()].into());
        let refused = serve(listed, bench.names.clone()).end(&holder.user).await;
        let wanted = format!(
            "it has something in database `{own}`, which is not among the target's `databases`"
        );
        assert_eq!(refused, Err(LoginError::Refused(wanted)));

        place.ask("postgres", &format!("ALTER DATABASE {own} ALLOW_CONNECTIONS false"));
        let Err(LoginError::Refused(said)) = bench.server.end(&holder.user).await else {
            panic!("nobody gets in")
        };
        assert!(
            said.starts_with(&format!("it has something in database `{own}`, which takes no")),
            "{said}"
        );

        place.ask("postgres", &format!("ALTER DATABASE {own} ALLOW_CONNECTIONS true"));
        place.ask("postgres", &format!("REVOKE CONNECT ON DATABASE {own} FROM PUBLIC"));
        let Err(LoginError::Refused(said)) = bench.server.end(&holder.user).await else {
            panic!("we do not get in")
        };
        assert!(said.starts_with(&format!("database `{own}` lets us not in")), "{said}");

        place.ask("postgres", &format!("GRANT CONNECT ON DATABASE {own} TO PUBLIC"));
        assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
        assert_eq!(place.owner_of(&own, "mine"), place.0.heir);
        place.ask("postgres", &format!("DROP DATABASE {own}"));
    }
}

#[tokio::test]
async fn b09_several_may_end_one_login_at_once() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let other = serve(place.target(), bench.names.clone());
        for round in 0..5 {
            let holder = bench.make("write", MINUTES).await.unwrap();
            let table = format!("kept_{}", &holder.user[14..]);
            place.run(&holder, &format!("CREATE TABLE {table} (n int)")).unwrap();
            let user = &holder.user;
            let (ours, theirs) = (&bench.server, &other);
            let ends =
                tokio::join!(ours.end(user), theirs.end(user), ours.end(user), theirs.end(user));
            for ended in [ends.0, ends.1, ends.2, ends.3] {
                // One may find the other in its way, and says so: never that it is gone while it is not.
                let fits =
                    matches!(ended, Ok(Gone::Ended | Gone::Absent) | Err(LoginError::Refused(_)));
                assert!(fits, "round {round}: {ended:?}");
            }
            bench.server.end(user).await.unwrap();
            assert!(!place.knows(user), "round {round}");
            place.ask("orders", &format!("DROP TABLE {table}"));
        }
    }
}
