//! What a command is given: whole files, pinned, and what would be in the way.

use cambio::client::{
    Issued,
    handover::{self, Part},
};
use insta::assert_snapshot;
use serde_json::json;

use super::{exchange::issued, words};

async fn login(kind: &str, user: &str, password: &str) -> Issued {
    let login = json!({
        "kind": kind,
        "user": user,
        "password": password,
        "host": "db.example",
        "port": 5432,
        "database": "orders",
        "sslmode": "verify-full",
        "uri": format!("scheme://{user}@db.example:5432/orders"),
    });
    issued(&login.to_string(), "urn:cambio:token-type:database").await
}

async fn session() -> Issued {
    let session = json!({
        "kind": "aws",
        "access_key_id": "ASIAEXAMPLE",
        "secret_access_key": "se/cr+et=",
        "session_token": "session//token==",
        "region": "eu-central-1",
    });
    issued(&session.to_string(), "urn:cambio:token-type:aws").await
}

const fn part<'a>(target: &'a str, now: Option<&'a Issued>) -> Part<'a> {
    Part { target, name: "CAMBIO_TOKEN", now, before: None }
}

/// Every file, in the order in which it is written.
fn files(parts: &[Part<'_>]) -> String {
    match handover::files(parts) {
        Ok(files) => files
            .iter()
            .map(|one| {
                let text = one.content.reveal_text().unwrap().trim_end();
                format!("--- {} ({})\n{text}\n", one.file, one.variable)
            })
            .collect(),
        Err(error) => format!("{}\n", words(&error)),
    }
}

#[tokio::test]
async fn a_renewed_login_is_written_after_its_password_and_the_one_before_keeps_its_own() {
    let (one, two) = (login("postgres", "u_1", "p:1").await, login("postgres", "u_2", "p2").await);
    let other = login("postgres", "u_3", "p3").await;
    let renewed = Part { before: Some(&one), ..part("postgres/orders", Some(&two)) };
    assert_snapshot!(files(&[renewed, part("postgres/billing", Some(&other))]), @r"
    --- pgpass (PGPASSFILE)
    db.example:5432:orders:u_2:p2
    db.example:5432:orders:u_1:p\:1
    db.example:5432:orders:u_3:p3
    --- pg_service.conf (PGSERVICEFILE)
    [postgres/orders]
    host=db.example
    port=5432
    dbname=orders
    user=u_2
    sslmode=verify-full
    [postgres/billing]
    host=db.example
    port=5432
    dbname=orders
    user=u_3
    sslmode=verify-full
    ");
    // What is over is nowhere.
    let over = Part { before: Some(&one), ..part("postgres/orders", None) };
    assert_eq!(files(&[over]), "");
}

#[tokio::test]
async fn each_kind_has_the_files_that_its_programs_read() {
    let (aws, mysql) = (session().await, login("mysql", "u_1", "p#1").await);
    let redis = login("redis", "u_2", "p2").await;
    let parts =
        [part("aws/a", Some(&aws)), part("mysql/a", Some(&mysql)), part("r/a", Some(&redis))];
    assert_snapshot!(files(&parts), @r#"
    --- aws-credentials (AWS_SHARED_CREDENTIALS_FILE)
    [default]
    aws_access_key_id = ASIAEXAMPLE
    aws_secret_access_key = se/cr+et=
    aws_session_token = session//token==
    --- my.cnf (CAMBIO_MYSQL_FILE)
    [client]
    host="db.example"
    port="5432"
    user="u_1"
    password="p#1"
    [mysql]
    database="orders"
    [mariadb-client]
    database="orders"
    --- DATABASE_URL (DATABASE_URL_FILE)
    scheme://u_1@db.example:5432/orders
    --- REDIS_URL (REDIS_URL_FILE)
    scheme://u_2@db.example:5432/orders
    "#);
    let beside: Vec<String> = handover::beside_files(&parts)
        .into_iter()
        .map(|one| format!("{}={}", one.name, one.value.reveal_text().unwrap()))
        .collect();
    assert_eq!(beside, ["AWS_REGION=eu-central-1", "AWS_DEFAULT_REGION=eu-central-1"]);
}

#[tokio::test]
async fn two_credentials_never_share_a_variable_and_no_value_begins_a_line() {
    let (aws, token) =
        (session().await, issued("a.b.c", "urn:ietf:params:oauth:token-type:jwt").await);
    let two = [part("jwt/a", Some(&token)), part("jwt/b", Some(&token))];
    assert_snapshot!(files(&two), @r"
    Usage: `jwt/b` needs `CAMBIO_TOKEN_FILE`, which another credential has already
      hint: a token can have a name of its own, as in `--get NAME=TARGET`; else run one command in the other
    ");
    assert!(handover::environment(&two).is_err());
    let named = [two[0], Part { name: "OTHER", ..two[1] }];
    assert!(handover::files(&named).is_ok() && handover::environment(&named).is_ok());
    assert!(
        handover::environment(&[part("aws/a", Some(&aws)), part("aws/b", Some(&aws))]).is_err()
    );
    for (kind, user) in
        [("postgres", "u\nhost=evil"), ("mysql", "u\"\nhost=evil"), ("mysql", "u\"")]
    {
        let login = login(kind, user, "p").await;
        assert!(handover::files(&[part("a", Some(&login))]).is_err(), "{kind} {user}");
    }
    let hostile = login("postgres", "u", "p").await;
    assert!(handover::files(&[part("a]\nhost=evil", Some(&hostile))]).is_err());
}

#[tokio::test]
async fn what_would_win_over_a_credential_is_in_nobodys_way() {
    let (aws, login) = (session().await, login("postgres", "u", "p").await);
    let told = |now: &Issued| handover::superseded(&part("a", Some(now)));
    for name in ["AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ACCESS_KEY_ID"] {
        assert!(told(&aws).contains(&name.to_owned()), "{name}");
    }
    for name in ["PGPASSWORD", "PGHOSTADDR", "PGSERVICE"] {
        assert!(told(&login).contains(&name.to_owned()), "{name}");
    }
    assert!(
        !told(&login).contains(&"PGSSLROOTCERT".to_owned()),
        "the authority is the user's to know"
    );
}

#[tokio::test]
async fn what_is_wrong_with_one_credential_freezes_no_other() {
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    let (good, last) = (issued("new.b.c", jwt).await, login("postgres", "u_1", "p1").await);
    let bad = login("postgres", "u\nhost=evil", "p2").await;
    let parts = [part("postgres/orders", Some(&bad)), part("jwt/a", Some(&good))];
    let names = |last: Option<&Issued>| {
        let (files, unfit) = handover::files_of_each(&parts, &[last, None]);
        let unfit: Vec<usize> = unfit.into_iter().map(|(place, _)| place).collect();
        (files.into_iter().map(|file| file.file).collect::<Vec<_>>(), unfit)
    };
    let token = "token-CAMBIO_TOKEN";
    // The last good one stays; when that is over too, nothing of it does.
    assert_eq!(
        names(Some(&last)),
        (["pgpass", "pg_service.conf", token].map(str::to_owned).to_vec(), vec![0])
    );
    assert_eq!(names(None), (vec![token.to_owned()], vec![0]));
}

#[tokio::test]
async fn no_name_of_a_token_is_another_file() {
    let (token, login) = (
        issued("a.b.c", "urn:ietf:params:oauth:token-type:jwt").await,
        login("postgres", "u_1", "p1").await,
    );
    let part_named = |name: &'static str| Part { name, ..part("jwt/a", Some(&token)) };
    let parts = [part("postgres/orders", Some(&login)), part_named("pgpass"), part_named("lock")];
    let files = handover::files(&parts).unwrap();
    let all: Vec<&str> = files.iter().map(|file| file.file.as_str()).collect();
    assert_eq!(all, ["pgpass", "pg_service.conf", "token-pgpass", "token-lock"]);
}
