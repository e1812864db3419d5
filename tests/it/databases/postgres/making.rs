//! What a login is, and what it is not, on a real server.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    time::Duration,
};

use cambio::{
    grant::RuleId,
    lease::{Gone, Revoker as _},
    mint::{
        MintError,
        login::LoginError,
        postgres::PostgresTarget,
        sql::{Dialect, Statement},
    },
};
use proptest::{
    collection::vec,
    prelude::{Strategy, any, prop_oneof},
    strategy::ValueTree as _,
    test_runner::TestRunner,
};

use super::Place;
use crate::databases::battery::{Bench, Holder, House as _};

const MINUTES: Duration = Duration::from_secs(300);

/// What stands in the server's log from now on.
pub(super) struct Log(File);

impl Log {
    pub(super) fn from_now(path: &Path) -> Self {
        let mut file = File::open(path).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        Self(file)
    }

    pub(super) fn text(&mut self) -> String {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[tokio::test]
async fn b05_b06_a_password_ends_by_itself_and_a_session_when_the_lease_does() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let holder = bench.make("read", Duration::from_secs(2)).await.unwrap();
        let mut stay = place.stay(&holder);
        place.run(&holder, place.allowed()).unwrap();
        // The database's clock can't be pushed: from now on nobody of us does anything.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let said = place.run(&holder, place.allowed()).unwrap_err();
        assert!(said.contains("password authentication failed"), "{said}");
        assert_eq!(place.sessions(&holder.user), 1, "VALID UNTIL bounds passwords only");
        assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
        assert!(stay.is_cut());
    }
}

#[tokio::test]
async fn b08_the_end_is_counted_by_the_servers_clock() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let holder = bench.make("read", MINUTES).await.unwrap();
        let asked = format!(
            "SELECT extract(epoch FROM rolvaliduntil - now()) FROM pg_roles WHERE rolname = '{}'",
            holder.user
        );
        let left: f64 = place.ask("postgres", &asked).parse().unwrap();
        assert!(left <= 300.0 && left > 270.0, "{left} s, though our clock is months away");
        bench.server.end(&holder.user).await.unwrap();
    }
}

#[tokio::test]
async fn no_clear_password_reaches_the_servers_log() {
    for place in Place::all() {
        let mut log = Log::from_now(&place.0.log);
        let bench = place.bench(place.target()).await;
        let subject = bench.mint.subject().await;
        let credential = bench.credential(&Bench::grant("read", 60), &subject).await.unwrap();
        let holder = Holder::reading(&credential);
        place.run(&holder, place.allowed()).unwrap();
        bench.minter.revoke(&holder.user).await.unwrap();
        let text = log.text();
        assert!(
            text.contains(&format!("CREATE ROLE \"{}\"", holder.user)),
            "statements are logged"
        );
        assert!(text.contains("PASSWORD 'SCRAM-SHA-256$4096:"));
        assert!(!text.contains(&holder.password));
        assert!(!text.contains(&place.0.admin.password()));
    }
}

#[tokio::test]
async fn b07_a_login_is_no_master_of_others_and_says_for_whom_it_is() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let subject = bench.mint.subject().await;
        let credential = bench.credential(&Bench::grant("write", 60), &subject).await.unwrap();
        let holder = Holder::reading(&credential);
        let user = &holder.user;
        let of_role = |asked: &str| {
            place.ask("postgres", &format!("SELECT {asked} FROM pg_roles WHERE rolname = '{user}'"))
        };
        let attributes =
            "rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit";
        assert_eq!(of_role(attributes), "f|f|f|f|f|5");
        let comment = of_role("shobj_description(oid, 'pg_authid')");
        assert!(comment.starts_with("cambio exchange=ex_"), "{comment}");
        assert!(comment.contains(" rule=orders/read subject=ci:"), "{comment}");
        assert!(comment.ends_with(" role=write"), "{comment}");
        let setting =
            of_role("(SELECT setconfig[1] FROM pg_db_role_setting WHERE setrole = pg_roles.oid)");
        assert!(setting.starts_with("application_name=cambio exchange=ex_"), "{setting}");
        for forbidden in [
            "CREATE ROLE another LOGIN".to_owned(),
            "GRANT app_write TO app_read".to_owned(),
            "GRANT app_heir TO current_user".to_owned(),
            "SET ROLE cambio".to_owned(),
            "SELECT * FROM hidden".to_owned(),
            "ALTER ROLE current_user VALID UNTIL 'infinity'".to_owned(),
            "ALTER ROLE current_user CONNECTION LIMIT -1".to_owned(),
            format!("COMMENT ON ROLE {user} IS 'somebody else'"),
        ] {
            let said = place.run(&holder, &forbidden).unwrap_err();
            assert!(said.contains("ERROR"), "{forbidden}: {said}");
        }
        bench.minter.revoke(user).await.unwrap();
    }
}

fn with_statements(target: &mut PostgresTarget, create: &[&str], revoke: &[&str]) {
    let parsed = |texts: &[&str]| {
        texts.iter().map(|text| Statement::parse(text, Dialect::Postgres).unwrap()).collect()
    };
    let role = target.roles.get_mut(&"read".into()).unwrap();
    role.member_of.clear();
    role.create = parsed(create);
    role.revoke = parsed(revoke);
}

#[tokio::test]
async fn an_operators_statements_run_and_the_login_ends_by_itself_all_the_same() {
    for place in Place::all() {
        let mut log = Log::from_now(&place.0.log);
        let bench = place.bench(place.target()).await;
        let table = format!("report_{}", &bench.names.prefix()[7..13]);
        place.ask(
            "orders",
            &format!("CREATE TABLE {table} (n int); ALTER TABLE {table} OWNER TO app_heir"),
        );
        let mut target = place.target();
        let create = [
            "CREATE ROLE {{name}} LOGIN PASSWORD {{password}} VALID UNTIL 'infinity'",
            "GRANT app_read TO {{name}};",
            &format!("GRANT INSERT ON public.{table} TO {{{{name}}}}"),
            "COMMENT ON ROLE {{name}} IS 'overwritten below'",
        ];
        let revoke = format!("REVOKE INSERT ON public.{table} FROM {{{{name}}}}");
        with_statements(&mut target, &create, &[&revoke]);
        let bench = place.bench(target).await;
        let holder = bench.make("read", MINUTES).await.unwrap();
        place.run(&holder, place.allowed()).unwrap();
        place.run(&holder, &format!("INSERT INTO {table} VALUES (1)")).unwrap();
        place.run(&holder, place.forbidden()).unwrap_err();
        let asked = format!(
            "SELECT rolvaliduntil < now() + interval '5 min', rolconnlimit FROM pg_roles WHERE rolname = '{}'",
            holder.user
        );
        assert_eq!(place.ask("postgres", &asked), "t|5");
        assert_eq!(bench.server.end(&holder.user).await, Ok(Gone::Ended));
        let ran = format!("REVOKE INSERT ON public.{table} FROM \"{}\"", holder.user);
        assert!(log.text().contains(&ran));
        place.ask("orders", &format!("DROP TABLE {table}"));
    }
}

#[tokio::test]
async fn statements_that_make_no_login_or_too_much_of_one_make_nothing() {
    for place in Place::all() {
        let much = "CREATE ROLE {{name}} LOGIN PASSWORD {{password}} CREATEROLE";
        let broken = "GRANT nobody_knows TO {{name}}";
        for create in [vec![much], vec!["CREATE ROLE {{name}}", broken]] {
            let mut target = place.target();
            with_statements(&mut target, &create, &[]);
            let bench = place.bench(target).await;
            let refused = bench.make("read", MINUTES).await;
            assert!(matches!(refused, Err(LoginError::Refused(_))));
            assert_eq!(bench.server.names().await, Ok(Vec::new()));
            // The connection that it was tried on is no worse for it.
            let other = bench.make("write", MINUTES).await.unwrap();
            assert_eq!(bench.server.names().await, Ok(vec![other.user.clone()]));
            bench.server.end(&other.user).await.unwrap();
        }
    }
}

/// What each of them begins with: nothing else in a log has it. A name of ours may end in any letters and digits, and a quote
/// follows it.
const BEGINNING: &str = "b01-of-a-stranger'";

/// Quotes, NUL, SQL, more than 64 bytes: what a stranger can put into a claim or a careless hand into a rule's id.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        "'|''|\"|\\\\|;|--|/\\*|\\$\\$|\\$x\\$|%s|\\{\\{name\\}\\}|\n|\u{0}",
        "DROP ROLE app_read|SELECT pg_sleep\\(9\\)|E'\\\\'|U&\"|\u{2019}|\u{ff07}|\u{202e}",
        any::<String>(),
        "[a-z]{64,80}",
    ];
    vec(pieces, 1..6).prop_map(|pieces| format!("{BEGINNING}{}", pieces.concat()))
}

#[tokio::test]
async fn b01_what_a_claim_or_a_rule_says_never_reaches_a_statement() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        let mut runner = TestRunner::deterministic();
        for _ in 0..24 {
            let mut draw = || hostile().new_tree(&mut runner).unwrap().current();
            let (claim, rule, power) = (draw(), draw(), draw());
            let mut log = Log::from_now(&place.0.log);
            let token = bench.mint.ci.token().subject(&claim).claim("run", claim.as_str()).sign();
            // Most of them are refused long before (threat J26); the rule is as bad as it was drawn all the same.
            let subject = match bench.mint.verify(&token, false).await {
                Ok(subject) => subject,
                Err(_) => bench.mint.subject().await,
            };
            let mut grant = Bench::grant("read", 60);
            grant.rules = vec![RuleId::from(rule.as_str())];
            grant.subject = Some(claim.clone());
            grant.scope.push(claim.clone());
            let credential = bench.credential(&grant, &subject).await.unwrap();
            let holder = Holder::reading(&credential);
            assert!(bench.names.is_ours(&holder.user) && holder.user.len() == 32);
            assert_eq!(bench.server.names().await, Ok(vec![holder.user.clone()]));
            place.run(&holder, place.allowed()).unwrap();
            let asked = format!(
                "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{}'",
                holder.user
            );
            let comment = place.ask("postgres", &asked);
            let plain = |c: char| c.is_ascii_alphanumeric() || " ._:/@=-".contains(c);
            assert!(comment.chars().all(plain), "{comment:?}");
            // A role that does not exist is only looked up.
            let stranger = bench.credential(&Bench::grant(&power, 60), &subject).await.unwrap_err();
            assert!(matches!(stranger, MintError::Refused(_)), "{stranger:?}");
            bench.minter.revoke(&holder.user).await.unwrap();
            let text = log.text();
            for found in [&claim, &rule, &power] {
                assert!(!text.contains(found.as_str()), "{found:?} is in the log");
            }
            assert!(!text.contains(BEGINNING), "nor the beginning of one");
        }
    }
}
