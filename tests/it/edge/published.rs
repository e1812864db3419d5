//! What anybody may read: metadata, keys, checkpoints, tiles; and introspection.

use std::sync::Arc;

use axum::{body::Body, http::Request};
use cambio::edge::{self, OurIssuer, Surface};
use serde_json::json;

use super::surface::{FORM, FakeExchanges, broker, read, send, surface};

#[tokio::test]
async fn the_metadata_document_is_pinned() {
    let (router, _) = broker();
    let answer = read(&router, "/.well-known/openid-configuration").await;
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.json(),
        json!({
            "issuer": "https://broker.example",
            "token_endpoint": "https://broker.example/token",
            "jwks_uri": "https://broker.example/jwks",
            "introspection_endpoint": "https://broker.example/introspect",
            "revocation_endpoint": "https://broker.example/revoke",
            "authorization_endpoint": "https://broker.example/authorize",
            "grant_types_supported": [
                "urn:ietf:params:oauth:grant-type:token-exchange",
                "urn:ietf:params:oauth:grant-type:jwt-bearer",
            ],
            "token_endpoint_auth_methods_supported": ["none"],
            "introspection_endpoint_auth_methods_supported": ["Bearer"],
            "revocation_endpoint_auth_methods_supported": ["none", "Bearer"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "claims_supported":
                ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope", "act"],
            "cambio_ca_bundle": "https://broker.example/ca/{target}.pem",
        })
    );
    let oauth = read(&router, "/.well-known/oauth-authorization-server").await;
    assert_eq!(oauth.body, answer.body);
}

#[tokio::test]
async fn h08_host_and_forwarded_headers_do_not_change_who_we_are() {
    let (router, _) = broker();
    let honest = read(&router, "/.well-known/openid-configuration").await;
    let request = Request::get("https://evil.example/.well-known/openid-configuration")
        .header("host", "evil.example")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-proto", "http")
        .header("forwarded", "host=evil.example;proto=http");
    let answer = send(&router, request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.body, honest.body);
}

#[tokio::test]
async fn an_issuer_with_a_path_publishes_in_both_layouts() {
    let exchanges = Arc::new(FakeExchanges::default());
    let our_issuer = OurIssuer::of("https://broker.example/team/a").unwrap();
    let router = edge::router(Surface { our_issuer, ..surface(&exchanges) });
    for path in [
        "/team/a/.well-known/openid-configuration",
        "/team/a/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration/team/a",
        "/.well-known/oauth-authorization-server/team/a",
    ] {
        let answer = read(&router, path).await;
        assert_eq!(
            answer.json()["token_endpoint"],
            "https://broker.example/team/a/token",
            "{path}"
        );
    }
    assert_eq!(read(&router, "/team/a/ledger/tile/0/000").await.status, 200);
    assert_eq!(read(&router, "/.well-known/openid-configuration").await.status, 404);
    assert_eq!(read(&router, "/jwks").await.status, 404);
}

#[tokio::test]
async fn keys_are_cached_as_long_as_the_rotation_allows_and_have_a_tag() {
    let (router, _) = broker();
    let answer = read(&router, "/jwks").await;
    assert_eq!(answer.header("cache-control"), "public, max-age=600");
    assert_eq!(answer.header("content-type"), "application/jwk-set+json");
    assert_eq!(answer.body, "{\"keys\":[]}");
    for known in [answer.header("etag"), &format!("\"x\", W/{}", answer.header("etag"))] {
        let again = Request::get("/jwks").header("if-none-match", known);
        let again = send(&router, again.body(Body::empty()).unwrap()).await;
        assert_eq!((again.status.as_u16(), again.body.as_str()), (304, ""));
        assert_eq!(again.header("cache-control"), "public, max-age=600");
    }
    let other = Request::get("/jwks").header("if-none-match", "\"x\"");
    assert_eq!(send(&router, other.body(Body::empty()).unwrap()).await.status, 200);
}

#[tokio::test]
async fn h09_paths_are_exact() {
    let (router, _) = broker();
    for path in [
        "/",
        "//token",
        "/token/",
        "/Token",
        "/%74oken",
        "/token%00",
        "/token;x=1",
        "/jwks/..",
        "/x/../jwks",
        "/x/%2e%2e/jwks",
        "/./jwks",
        "/jwks.json",
        "/ledger/tile/0/../0/000",
        "/ledger/tile/0/%30%30%30",
        "/ledger/tile/entries/000",
        "/ledger//checkpoint",
        "/.well-known//openid-configuration",
    ] {
        let answer = read(&router, path).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (404, ""), "{path}");
    }
}

#[tokio::test]
async fn h14_the_public_listener_has_no_metrics_no_health_and_no_powers() {
    let (router, _) = broker();
    for path in ["/metrics", "/livez", "/readyz", "/status", "/keys", "/debug/pprof", "/admin"] {
        assert_eq!(read(&router, path).await.status, 404, "{path}");
    }
    let answer = read(&router, "/token").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn h13_nothing_that_we_answer_is_a_page() {
    let (router, _) = broker();
    for path in ["/jwks", "/nowhere", "/token", "/authorize"] {
        let request = Request::get(path).header("origin", "https://evil.example");
        let answer = send(&router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(
            answer.header("content-security-policy"),
            "default-src 'none'; frame-ancestors 'none'"
        );
        for absent in ["access-control-allow-origin", "set-cookie", "location", "server"] {
            assert_eq!(answer.header(absent), "", "{path}");
        }
    }
}

#[tokio::test]
async fn checkpoints_are_fresh_and_full_tiles_are_for_ever() {
    let (router, _) = broker();
    let checkpoint = read(&router, "/ledger/checkpoint").await;
    assert_eq!(checkpoint.body, "origin\n1\nroot\n");
    assert_eq!(checkpoint.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(checkpoint.header("cache-control"), "no-cache");
    let full = read(&router, "/ledger/tile/0/x001/234").await;
    assert_eq!(full.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(full.body.len(), 256 * 32);
    let partial = read(&router, "/ledger/tile/0/000.p/7").await;
    assert_eq!(partial.header("cache-control"), "public, max-age=60");
    assert_eq!(partial.body.len(), 7 * 32);
    assert_eq!(read(&router, "/ledger/tile/1/000").await.status, 404);
    let out = read(&router, "/ledger/tile/2/000").await;
    assert_eq!(
        out.error(),
        (503, "temporarily_unavailable".to_owned(), "the broker is not ready".to_owned())
    );
}

async fn introspect(caller: &[&str], form: &str) -> (u16, String, String) {
    let (router, _) = broker();
    let mut request = Request::post("/introspect").header("content-type", FORM);
    for one in caller {
        request = request.header("authorization", *one);
    }
    let answer = send(&router, request.body(Body::from(form.to_owned())).unwrap()).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let challenge = answer.header("www-authenticate").to_owned();
    (answer.status.as_u16(), answer.body, challenge)
}

#[tokio::test]
async fn introspection_tells_who_may_ask_and_nobody_else() {
    let said =
        |status, body: &str, challenge: &str| (status, body.to_owned(), challenge.to_owned());
    assert_eq!(
        introspect(&["Bearer reader"], "token=live").await,
        said(200, "{\"sub\":\"github:1\",\"active\":true}", "")
    );
    assert_eq!(
        introspect(&["bearer reader"], "token=dead&token_type_hint=access_token").await,
        said(200, "{\"active\":false}", "")
    );
    let who = said(401, "", "Bearer error=\"invalid_token\"");
    for caller in [&[][..], &["Basic cmVhZGVyOg=="], &["Bearer"], &["Bearer stranger"]] {
        assert_eq!(introspect(caller, "token=live").await, who, "{caller:?}");
    }
    assert_eq!(
        introspect(&["Bearer other"], "token=live").await,
        said(403, "", "Bearer error=\"insufficient_scope\"")
    );
}

#[tokio::test]
async fn h07_two_authorization_headers_are_one_too_many() {
    let (status, body, _) = introspect(&["Bearer reader", "Bearer reader"], "token=live").await;
    assert_eq!(status, 400);
    assert!(body.contains("`Authorization` must be given exactly once"), "{body}");
}
