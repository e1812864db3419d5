//! Every format with every kind of credential: whole outputs, pinned.

use std::{fmt::Write as _, process::Command};

use cambio::client::{
    Format, Issued,
    ambient::PLATFORMS,
    format::{Rendered, Style, render},
};
use insta::assert_snapshot;
use serde_json::json;

use super::{
    exchange::{answer, issued},
    words,
};

/// Everything that somebody's quoting could stumble over.
const PASSWORD: &str = r"p'a:s\s$w`ord";

async fn token() -> Issued {
    issued("e30.eyJzdWIiOiJhIn0.c2ln", "urn:ietf:params:oauth:token-type:jwt").await
}

async fn login(kind: &str) -> Issued {
    let login = json!({
        "kind": kind,
        "user": "cambio_ls_1",
        "password": PASSWORD,
        "host": "db.example",
        "port": 5432,
        "database": "orders",
        "uri": "scheme://cambio_ls_1:p%27a%3As%5Cs%24w%60ord@db.example:5432/orders",
        "expires_at": "2027-01-15T08:15:00Z",
        "lease_id": "ls_1",
    });
    issued(&login.to_string(), "urn:cambio:token-type:database").await
}

async fn aws() -> Issued {
    let session = json!({
        "kind": "aws",
        "access_key_id": "ASIAEXAMPLE",
        "secret_access_key": "se/cr+et=",
        "session_token": "session//token==",
        "region": "eu-central-1",
        "expires_at": "2027-01-15T08:15:00Z",
    });
    issued(&session.to_string(), "urn:cambio:token-type:aws").await
}

/// Every format, one after the other; errors as the command line says them.
fn all(issued: &Issued) -> String {
    let style = Style { server: Some("git.example".to_owned()), ..Style::default() };
    let mut out = String::new();
    for format in Format::ALL {
        let text = match render(format, issued, &style) {
            Ok(Rendered::Json(value)) => format!("{value}\n"),
            Ok(Rendered::Text(text)) => text.reveal_text().unwrap().to_owned(),
            Err(error) => format!("{}\n", words(&error)),
        };
        write!(out, "--- {}\n{text}", format.as_str()).unwrap();
    }
    out
}

#[tokio::test]
async fn a_token_in_every_format() {
    assert_snapshot!(all(&token().await), @r#"
    --- token
    e30.eyJzdWIiOiJhIn0.c2ln
    --- json
    {"access_token":"e30.eyJzdWIiOiJhIn0.c2ln","issued_token_type":"urn:ietf:params:oauth:token-type:jwt","token_type":"N_A","expires_in":900,"scope":"read","exchange_id":"ex_1","lease":{"id":"ls_1","token":"hush-lease"}}
    --- env
    export CAMBIO_TOKEN='e30.eyJzdWIiOiJhIn0.c2ln'
    --- dotenv
    CAMBIO_TOKEN=e30.eyJzdWIiOiJhIn0.c2ln
    --- aws-process
    Usage: format `aws-process` can't carry a token; what can: token, json, env, dotenv, gcp-executable, kubernetes, docker, git; exchange `ex_1` is done, and its credential is dropped
    --- gcp-executable
    {"version":1,"success":true,"token_type":"urn:ietf:params:oauth:token-type:id_token","id_token":"e30.eyJzdWIiOiJhIn0.c2ln","expiration_time":1800000900}
    --- kubernetes
    {"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"expirationTimestamp":"2027-01-15T08:15:00Z","token":"e30.eyJzdWIiOiJhIn0.c2ln"}}
    --- docker
    {"ServerURL":"git.example","Username":"cambio","Secret":"e30.eyJzdWIiOiJhIn0.c2ln"}
    --- git
    username=cambio
    password=e30.eyJzdWIiOiJhIn0.c2ln
    password_expiry_utc=1800000900
    --- pgpass
    Usage: format `pgpass` can't carry a token; what can: token, json, env, dotenv, gcp-executable, kubernetes, docker, git; exchange `ex_1` is done, and its credential is dropped
    --- uri
    Usage: format `uri` can't carry a token; what can: token, json, env, dotenv, gcp-executable, kubernetes, docker, git; exchange `ex_1` is done, and its credential is dropped
    "#);
}

#[tokio::test]
async fn a_postgres_login_in_every_format() {
    assert_snapshot!(all(&login("postgres").await), @r#"
    --- token
    {"kind":"postgres","user":"cambio_ls_1","password":"p'a:s\\s$w`ord","host":"db.example","port":5432,"database":"orders","uri":"scheme://cambio_ls_1:p%27a%3As%5Cs%24w%60ord@db.example:5432/orders","expires_at":"2027-01-15T08:15:00Z","lease_id":"ls_1"}
    --- json
    {"access_token":"{\"kind\":\"postgres\",\"user\":\"cambio_ls_1\",\"password\":\"p'a:s\\\\s$w`ord\",\"host\":\"db.example\",\"port\":5432,\"database\":\"orders\",\"uri\":\"scheme://cambio_ls_1:p%27a%3As%5Cs%24w%60ord@db.example:5432/orders\",\"expires_at\":\"2027-01-15T08:15:00Z\",\"lease_id\":\"ls_1\"}","issued_token_type":"urn:cambio:token-type:database","token_type":"N_A","expires_in":900,"scope":"read","exchange_id":"ex_1","lease":{"id":"ls_1","token":"hush-lease"}}
    --- env
    export PGHOST='db.example'
    export PGPORT='5432'
    export PGDATABASE='orders'
    export PGUSER='cambio_ls_1'
    export PGPASSWORD='p'\''a:s\s$w`ord'
    export DATABASE_URL='scheme://cambio_ls_1:p%27a%3As%5Cs%24w%60ord@db.example:5432/orders'
    --- dotenv
    Usage: the value of `PGPASSWORD` holds a quote or a backslash, which `.env` files spell in different ways: take `--format env`
    --- aws-process
    Usage: format `aws-process` can't carry a postgres login; what can: token, json, env, dotenv, pgpass, uri; exchange `ex_1` is done, and its credential is dropped
    --- gcp-executable
    Usage: format `gcp-executable` can't carry a postgres login; what can: token, json, env, dotenv, pgpass, uri; exchange `ex_1` is done, and its credential is dropped
    --- kubernetes
    Usage: format `kubernetes` can't carry a postgres login; what can: token, json, env, dotenv, pgpass, uri; exchange `ex_1` is done, and its credential is dropped
    --- docker
    Usage: format `docker` can't carry a postgres login; what can: token, json, env, dotenv, pgpass, uri; exchange `ex_1` is done, and its credential is dropped
    --- git
    Usage: format `git` can't carry a postgres login; what can: token, json, env, dotenv, pgpass, uri; exchange `ex_1` is done, and its credential is dropped
    --- pgpass
    db.example:5432:orders:cambio_ls_1:p'a\:s\\s$w`ord
    --- uri
    scheme://cambio_ls_1:p%27a%3As%5Cs%24w%60ord@db.example:5432/orders
    "#);
}

#[tokio::test]
async fn a_shell_reads_exactly_what_was_issued() {
    let Ok(Rendered::Text(text)) = render(Format::Env, &login("postgres").await, &Style::default())
    else {
        panic!();
    };
    let script = format!("{}printf %s \"$PGPASSWORD\"", text.reveal_text().unwrap());
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), PASSWORD);
}

#[tokio::test]
async fn other_logins_have_the_variables_of_their_own_clients() {
    let mut out = String::new();
    for kind in ["mysql", "redis", "mongodb"] {
        let Ok(Rendered::Text(text)) = render(Format::Env, &login(kind).await, &Style::default())
        else {
            panic!("{kind}");
        };
        writeln!(out, "--- {kind}\n{}", text.reveal_text().unwrap()).unwrap();
    }
    assert_snapshot!(out, @r#"
    --- mysql
    export MYSQL_HOST='db.example'
    export MYSQL_TCP_PORT='5432'
    export MYSQL_DATABASE='orders'
    export MYSQL_USER='cambio_ls_1'
    export MYSQL_PWD='p'\''a:s\s$w`ord'
    export DATABASE_URL='scheme://cambio_ls_1:p%27a%3As%5Cs%24w%60ord@db.example:5432/orders'

    --- redis
    export CAMBIO_HOST='db.example'
    export CAMBIO_PORT='5432'
    export CAMBIO_DATABASE='orders'
    export CAMBIO_USER='cambio_ls_1'
    export CAMBIO_PASSWORD='p'\''a:s\s$w`ord'
    export REDIS_URL='scheme://cambio_ls_1:p%27a%3As%5Cs%24w%60ord@db.example:5432/orders'

    --- mongodb
    export CAMBIO_HOST='db.example'
    export CAMBIO_PORT='5432'
    export CAMBIO_DATABASE='orders'
    export CAMBIO_USER='cambio_ls_1'
    export CAMBIO_PASSWORD='p'\''a:s\s$w`ord'
    export DATABASE_URL='scheme://cambio_ls_1:p%27a%3As%5Cs%24w%60ord@db.example:5432/orders'
    "#);
}

#[tokio::test]
async fn an_aws_session_in_every_format() {
    assert_snapshot!(all(&aws().await), @r#"
    --- token
    {"kind":"aws","access_key_id":"ASIAEXAMPLE","secret_access_key":"se/cr+et=","session_token":"session//token==","region":"eu-central-1","expires_at":"2027-01-15T08:15:00Z"}
    --- json
    {"access_token":"{\"kind\":\"aws\",\"access_key_id\":\"ASIAEXAMPLE\",\"secret_access_key\":\"se/cr+et=\",\"session_token\":\"session//token==\",\"region\":\"eu-central-1\",\"expires_at\":\"2027-01-15T08:15:00Z\"}","issued_token_type":"urn:cambio:token-type:aws","token_type":"N_A","expires_in":900,"scope":"read","exchange_id":"ex_1","lease":{"id":"ls_1","token":"hush-lease"}}
    --- env
    export AWS_ACCESS_KEY_ID='ASIAEXAMPLE'
    export AWS_SECRET_ACCESS_KEY='se/cr+et='
    export AWS_SESSION_TOKEN='session//token=='
    export AWS_REGION='eu-central-1'
    export AWS_DEFAULT_REGION='eu-central-1'
    export AWS_CREDENTIAL_EXPIRATION='2027-01-15T08:15:00Z'
    --- dotenv
    AWS_ACCESS_KEY_ID=ASIAEXAMPLE
    AWS_SECRET_ACCESS_KEY=se/cr+et=
    AWS_SESSION_TOKEN=session//token==
    AWS_REGION=eu-central-1
    AWS_DEFAULT_REGION=eu-central-1
    AWS_CREDENTIAL_EXPIRATION=2027-01-15T08:15:00Z
    --- aws-process
    {"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"se/cr+et=","SessionToken":"session//token==","Expiration":"2027-01-15T08:15:00Z"}
    --- gcp-executable
    Usage: format `gcp-executable` can't carry an aws session; what can: token, json, env, dotenv, aws-process; exchange `ex_1` is done, and its credential is dropped
    --- kubernetes
    Usage: format `kubernetes` can't carry an aws session; what can: token, json, env, dotenv, aws-process; exchange `ex_1` is done, and its credential is dropped
    --- docker
    Usage: format `docker` can't carry an aws session; what can: token, json, env, dotenv, aws-process; exchange `ex_1` is done, and its credential is dropped
    --- git
    Usage: format `git` can't carry an aws session; what can: token, json, env, dotenv, aws-process; exchange `ex_1` is done, and its credential is dropped
    --- pgpass
    Usage: format `pgpass` can't carry an aws session; what can: token, json, env, dotenv, aws-process; exchange `ex_1` is done, and its credential is dropped
    --- uri
    Usage: format `uri` can't carry an aws session; what can: token, json, env, dotenv, aws-process; exchange `ex_1` is done, and its credential is dropped
    "#);
}

#[tokio::test]
async fn a_credential_that_this_version_does_not_know_is_handed_on_as_json_alone() {
    let unknown = issued(r#"{"kind":"ssh","key":"k"}"#, "urn:cambio:token-type:ssh").await;
    let fit: Vec<&str> = Format::ALL
        .into_iter()
        .filter(|format| format.carries(&unknown.credential))
        .map(Format::as_str)
        .collect();
    assert_eq!(fit, ["token", "json"]);
    assert_eq!(answer(&unknown)["access_token"], r#"{"kind":"ssh","key":"k"}"#);
}

#[tokio::test]
async fn what_is_rendered_does_not_print_by_debug() {
    let login = login("postgres").await;
    for format in [Format::Json, Format::Env, Format::Pgpass, Format::Uri] {
        let rendered = render(format, &login, &Style::default()).unwrap();
        assert!(!format!("{rendered:?}").contains("ord"), "{rendered:?}");
    }
}

#[test]
fn the_page_of_the_client_names_every_platform_and_every_format() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/client.md"));
    let page = page.unwrap();
    let platforms = PLATFORMS.iter().map(|platform| platform.name);
    for name in platforms.chain(Format::ALL.map(Format::as_str)) {
        assert!(page.contains(&format!("\n| `{name}` |")), "`{name}` has no row");
    }
}

/// Without it `psql` would take the mode `prefer`, and believe any server.
#[tokio::test]
async fn a_postgres_login_says_how_the_server_is_verified() {
    let login =
        json!({ "kind": "postgres", "user": "u", "password": "p", "sslmode": "verify-full" });
    let issued = issued(&login.to_string(), "urn:cambio:token-type:database").await;
    assert!(all(&issued).contains("export PGSSLMODE='verify-full'\n"));
}
