//! Platforms that are asked over HTTP: what exactly they are asked, when again, and that nothing secret goes astray.

use std::fs;

use insta::assert_snapshot;
use serde_json::json;
use tempfile::tempdir;

use super::{find, find_below, told, words};
use crate::support::stand_in::{Reply, StandIn};

const TOKEN: &str = "e30.e30.c2ln";

fn given(member: &str) -> Reply {
    Reply::json(200, json!({ member: TOKEN, "other": 1 }))
}

#[tokio::test]
async fn github_and_forgejo_are_asked_for_the_audience_with_the_jobs_request_token() {
    for (platform, sign) in [("github", "GITHUB_ACTIONS"), ("forgejo", "FORGEJO_ACTIONS")] {
        let desk = StandIn::at_loopback([given("value")]).await;
        let url = format!("{}/idtoken?api-version=2.0", desk.url);
        let found = find(&[
            (sign, "true"),
            // Forgejo's runner sets GitHub's variables too.
            ("GITHUB_ACTIONS", "true"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", &url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "hush"),
        ])
        .await;
        assert_eq!(
            told(found),
            (platform.to_owned(), "`ACTIONS_ID_TOKEN_REQUEST_URL`".to_owned(), TOKEN.to_owned())
        );
        let seen = desk.only();
        assert_eq!(seen.line, "GET /idtoken?api-version=2.0&audience=https%3A%2F%2Fcambio.example");
        assert_eq!(seen.header("authorization"), "bearer hush");
        assert_eq!(seen.body, "");
    }
}

fn job(url: &str) -> [(&str, &str); 3] {
    [
        ("GITHUB_ACTIONS", "true"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", url),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "hush"),
    ]
}

#[tokio::test]
async fn a_busy_platform_is_asked_again_and_a_no_is_a_no() {
    let busy = [Reply::text(503, "busy"), Reply::text(429, "").header("retry-after", "0")];
    let desk = StandIn::at_loopback(busy.into_iter().chain([given("value")])).await;
    assert_eq!(told(find(&job(&desk.url)).await).2, TOKEN);
    assert_eq!(desk.seen().len(), 3);

    // And what it says stays on its line.
    let no = Reply::json(403, json!({ "message": "not\nfor you", "token": "hush" }));
    let desk = StandIn::at_loopback([no, given("value")]).await;
    let error = find(&job(&desk.url)).await.unwrap_err();
    assert_eq!(
        words(&error).replace(&desk.url, "DESK"),
        "Refused: GitHub Actions: `DESK` answered 403 Forbidden: not for you\n  hint: write `permissions: { id-token: \
         write, contents: read }` into the job; pull requests from forks get no token, whatever is written there"
    );
    assert_eq!(desk.seen().len(), 1);
}

#[tokio::test]
async fn a_platform_that_stays_away_is_given_up_in_time() {
    let desk = StandIn::at_loopback((0..2_000).map(|_| Reply::text(502, ""))).await;
    let error = find(&job(&desk.url)).await.unwrap_err();
    assert_eq!(
        words(&error).replace(&desk.url, "DESK"),
        "Unreachable: GitHub Actions: `DESK` answered 502 Bad Gateway"
    );
    assert!(desk.seen().len() > 10, "{}", desk.seen().len());

    let soon = Reply::text(503, "").header("retry-after", "3600");
    let desk = StandIn::at_loopback([soon, given("value")]).await;
    assert!(find(&job(&desk.url)).await.is_err());
    assert_eq!(desk.seen().len(), 1, "nobody waits an hour");
}

#[tokio::test]
async fn a_request_token_goes_nowhere_in_the_clear_and_follows_no_redirect() {
    let error = find(&job("http://pipelines.example/idtoken?x=1")).await.unwrap_err();
    assert_eq!(
        error.message,
        "`ACTIONS_ID_TOKEN_REQUEST_URL`: `http://pipelines.example/idtoken?x=1` is neither https nor http on loopback"
    );
    let thief = StandIn::at_loopback([given("value")]).await;
    let there: &'static str = Box::leak(thief.url.clone().into_boxed_str());
    let desk = StandIn::at_loopback([Reply::text(302, "").header("location", there)]).await;
    let error = find(&job(&desk.url)).await.unwrap_err();
    assert!(error.message.ends_with("answered 302 Found"), "{error}");
    assert_eq!(thief.seen().len(), 0);
    assert!(!format!("{error:?}").contains("hush"));
}

#[tokio::test]
async fn azure_devops_is_asked_by_the_pipelines_token() {
    let desk = StandIn::at_loopback([given("oidcToken")]).await;
    let url = format!("{}/org/proj/_apis/oidctoken", desk.url);
    let found = find(&[
        ("TF_BUILD", "True"),
        ("SYSTEM_OIDCREQUESTURI", &url),
        ("SYSTEM_ACCESSTOKEN", "hush"),
    ])
    .await;
    assert_eq!(told(found).0, "azure-devops");
    let seen = desk.only();
    assert_eq!(seen.line, "POST /org/proj/_apis/oidctoken?api-version=7.1");
    assert_eq!(seen.header("authorization"), "Bearer hush");
    assert_eq!(
        (seen.header("content-length"), seen.header("content-type")),
        ("0", "application/json")
    );
}

#[tokio::test]
async fn app_service_is_asked_with_its_secret_header() {
    let desk = StandIn::at_loopback([given("access_token")]).await;
    let url = format!("{}/msi/token/", desk.url);
    let found = find(&[
        ("IDENTITY_ENDPOINT", &url),
        ("IDENTITY_HEADER", "hush"),
        ("AZURE_CLIENT_ID", "id-1"),
    ])
    .await;
    assert_eq!(told(found).0, "azure-app-service");
    let seen = desk.only();
    assert_eq!(
        seen.line,
        "GET /msi/token/?api-version=2019-08-01&resource=https%3A%2F%2Fcambio.example&client_id=id-1"
    );
    assert_eq!(seen.header("x-identity-header"), "hush");
}

#[tokio::test]
async fn an_azure_machine_is_known_by_its_firmware_and_asks_its_metadata_service() {
    let root = tempdir().unwrap();
    let firmware = root.path().join("sys/class/dmi/id");
    fs::create_dir_all(&firmware).unwrap();
    fs::write(firmware.join("chassis_asset_tag"), "7783-7084-3265-9085-8269-3286-77\n").unwrap();
    let desk = StandIn::at_loopback([given("access_token")]).await;
    let host = ("AZURE_POD_IDENTITY_AUTHORITY_HOST", desk.url.as_str());
    let found = find_below(root.path(), &[host], None).await;
    assert_eq!(told(found).0, "azure");
    let seen = desk.only();
    assert_eq!(
        seen.line,
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fcambio.example"
    );
    assert_eq!(seen.header("metadata"), "true");
}

#[tokio::test]
async fn googles_metadata_server_is_asked_and_has_to_show_that_it_is_one() {
    let real = Reply::text(200, TOKEN).header("metadata-flavor", "Google");
    let desk = StandIn::at_loopback([real, Reply::text(200, TOKEN)]).await;
    let host = desk.url.trim_start_matches("http://");
    let machine = [("GCE_METADATA_HOST", host)];
    assert_eq!(
        told(find(&machine).await),
        ("google".to_owned(), format!("`{host}`"), TOKEN.to_owned())
    );
    let seen = desk.only();
    assert_eq!(
        seen.line,
        "GET /computeMetadata/v1/instance/service-accounts/default/identity?audience=https%3A%2F%2Fcambio.example&format=full"
    );
    assert_eq!(seen.header("metadata-flavor"), "Google");
    let error = find(&machine).await.unwrap_err();
    assert!(error.message.ends_with("it is no metadata server"), "{error}");
}

#[tokio::test]
async fn fly_is_asked_through_its_socket() {
    let root = tempdir().unwrap();
    fs::create_dir(root.path().join(".fly")).unwrap();
    let desk = StandIn::at_socket(&root.path().join(".fly/api"), [Reply::text(200, TOKEN)]);
    let found = find_below(root.path(), &[], None).await;
    assert_eq!(told(found), ("fly".to_owned(), "`/.fly/api`".to_owned(), TOKEN.to_owned()));
    let seen = desk.only();
    assert_eq!(seen.line, "POST /v1/tokens/oidc");
    assert_eq!(
        (seen.header("host"), seen.body.as_str()),
        ("localhost", r#"{"aud":"https://cambio.example"}"#)
    );
}

#[tokio::test]
async fn an_answer_without_a_token_is_none() {
    let empty =
        [Reply::json(200, json!({ "value": "" })), Reply::json(200, json!({ "values": 1 }))];
    let desk = StandIn::at_loopback(empty).await;
    let mut said = Vec::new();
    for _ in 0..2 {
        said.push(find(&job(&desk.url)).await.unwrap_err().message);
    }
    assert_snapshot!(said.join("\n"), @"
    GitHub Actions: `ACTIONS_ID_TOKEN_REQUEST_URL` holds nothing, expected a token
    GitHub Actions answered without a `value`
    ");
}
