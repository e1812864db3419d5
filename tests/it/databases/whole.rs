//! From the text of a configuration to a login that a client uses, and back by the holder's own token: nothing is left out.

use std::{
    process::{Command, Stdio},
    sync::Arc,
};

use axum::{body::Body, http::Request};
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    edge::surface::{FORM, send},
    support::{
        broker::{Broker, form},
        services::{Login, Services},
        site::Site,
    },
};

/// A broker with one more target, of which the rule `deploy` gives role `read`.
async fn broker(target: &str, name: &str) -> Broker {
    let site = Site::new();
    site.edit("cambio.yaml", "policies: { directory", &format!("{target}policies: {{ directory"));
    let grant =
        format!("role: write, lifetime: 15m }}, {{ target: {name}, role: read, lifetime: 15m }}]");
    site.edit("policies/orders.yaml", "repository_id: \"1296269\"\n      ref: refs/heads/main\n      event_name: push\n    grants: [{ target: jwt/orders, role: write, lifetime: 15m }]", &format!("repository_id: \"1296269\"\n      ref: refs/heads/main\n      event_name: push\n    grants: [{{ target: jwt/orders, {grant}"));
    Broker::start_at(site, |_| {}).await
}

fn server(host: &str, port: u16, ca: &std::path::Path, admin: &Login) -> String {
    format!(
        "    host: {host}\n    port: {port}\n    tls: {{ ca_file: {} }}\n    user: {}\n    password_file: {}\n    ends: by_broker\n",
        ca.display(),
        admin.user,
        admin.password_file.display()
    )
}

/// What the job gets: the credential, and the token that ends it.
async fn login(broker: &Broker, name: &str) -> (Value, String) {
    let token = broker.site.job().sign();
    let answer = broker.post_token(&form(&token, &format!("audience={name}"))).await;
    let body = answer.json();
    assert_eq!(body["issued_token_type"], "urn:cambio:token-type:database", "{body}");
    assert_eq!(body["expires_in"], 900);
    let credential = body["access_token"].as_str().unwrap();
    (serde_json::from_str(credential).unwrap(), body["lease"]["token"].as_str().unwrap().to_owned())
}

async fn give_back(broker: &Broker, token: &str) {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    tracker.spawn(Arc::clone(&broker.reaper).run(tracker.clone(), stop.clone()));
    let request = Request::post("/revoke").header("content-type", FORM);
    let answer =
        send(&broker.router, request.body(Body::from(format!("token={token}"))).unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

fn works(mut command: Command) -> bool {
    command.stdin(Stdio::null()).output().unwrap().status.success()
}

#[tokio::test]
async fn a_job_gets_a_mariadb_login_and_gives_it_back() {
    let Some(it) = Services::of_this_run().and_then(|services| services.mariadb()) else { return };
    let target = format!(
        "  - name: mysql/orders\n    kind: mysql\n    environment: test\n{}    database: orders\n    granted_by: [orders.yaml]\n    ceiling: 30m\n    roles: {{ read: {{ grants: [{{ database: orders, table: entries, privileges: [select] }}] }} }}\n",
        server(&it.host, it.port, &it.ca_file, &it.admin)
    );
    let broker = broker(&target, "mysql/orders").await;
    let (login, token) = login(&broker, "mysql/orders").await;
    let client = || {
        let mut command = Command::new(&it.client);
        command.args([
            "--no-defaults",
            "-h",
            &it.host,
            "-P",
            &it.port.to_string(),
            "--ssl-verify-server-cert",
        ]);
        command.arg(format!("--ssl-ca={}", it.ca_file.display()));
        command.args(["-u", login["user"].as_str().unwrap(), login["database"].as_str().unwrap()]);
        command.args(["-e", "SELECT text FROM entries"]);
        command.env("MYSQL_PWD", login["password"].as_str().unwrap());
        command
    };
    assert!(works(client()));
    give_back(&broker, &token).await;
    assert!(!works(client()), "its ending was answered");
}

#[tokio::test]
async fn a_job_gets_a_redis_login_and_gives_it_back() {
    let Some(it) = Services::of_this_run().and_then(|services| services.redis("redis")) else {
        return;
    };
    let target = format!(
        "  - name: redis/orders\n    kind: redis\n    environment: test\n{}    granted_by: [orders.yaml]\n    ceiling: 30m\n    roles: {{ read: {{ read_keys: [\"orders:*\"], commands: [\"+@read\"] }} }}\n",
        server(&it.host, it.port, &it.ca_file, &it.admin)
    );
    let broker = broker(&target, "redis/orders").await;
    let (login, token) = login(&broker, "redis/orders").await;
    let client = || {
        let mut command = Command::new(&it.client);
        command.args(["-u", login["uri"].as_str().unwrap(), "--cacert"]).arg(&it.ca_file);
        command.args(["-e", "GET", "orders:1"]);
        command
    };
    assert!(works(client()));
    give_back(&broker, &token).await;
    assert!(!works(client()), "its ending was answered");
}
