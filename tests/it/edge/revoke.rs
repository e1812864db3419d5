//! `POST /revoke` (RFC 7009): what a caller is told, and what not.

use axum::{body::Body, http::Request};

use super::surface::{FORM, broker, send};

/// Status, `Retry-After`, challenge and body for a caller with these `Authorization` headers.
async fn revoke(callers: &[&str], form: &str) -> (u16, String, String, String) {
    let (router, _) = broker();
    let mut request = Request::post("/revoke").header("content-type", FORM);
    for caller in callers {
        request = request.header("authorization", *caller);
    }
    let answer = send(&router, request.body(Body::from(form.to_owned())).unwrap()).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    (
        answer.status.as_u16(),
        answer.header("retry-after").to_owned(),
        answer.header("www-authenticate").to_owned(),
        answer.body.clone(),
    )
}

fn plain(status: u16, body: &str) -> (u16, String, String, String) {
    (status, String::new(), String::new(), body.to_owned())
}

#[tokio::test]
async fn a_holder_needs_nothing_but_its_token_and_learns_nothing_of_others() {
    assert_eq!(revoke(&[], "token=live").await, plain(200, "{}"));
    assert_eq!(revoke(&[], "token=live&token_type_hint=access_token").await, plain(200, "{}"));
    // RFC 7009 section 2.2: an unknown token is answered like one that has ended.
    assert_eq!(revoke(&[], "token=unknown").await, plain(200, "{}"));
}

#[tokio::test]
async fn what_has_not_ended_yet_is_not_called_ended() {
    let (status, after, _, body) = revoke(&[], "token=stuck").await;
    assert_eq!((status, after.as_str()), (503, "15"));
    assert!(body.contains("the revocation is recorded and goes on"), "{body}");
}

#[tokio::test]
async fn a_jwt_is_not_said_to_be_revoked() {
    let (status, _, _, body) = revoke(&[], "token=a.b.c").await;
    assert_eq!(status, 400);
    assert!(body.contains("unsupported_token_type"), "{body}");
}

#[tokio::test]
async fn a_caller_is_judged_before_the_token_is_looked_at() {
    assert_eq!(revoke(&["Bearer revoker"], "token=live").await, plain(200, "{}"));
    let (status, _, challenge, _) = revoke(&["Bearer other"], "token=a.b.c").await;
    assert_eq!((status, challenge.as_str()), (403, "Bearer error=\"insufficient_scope\""));
    let (status, _, challenge, _) = revoke(&["Bearer nobody"], "token=live").await;
    assert_eq!((status, challenge.as_str()), (401, "Bearer error=\"invalid_token\""));
    // Whoever shows something that is no bearer token meant to be known: it is not served as a holder.
    let (status, ..) = revoke(&["Basic cmV2b2tlcjo="], "token=live").await;
    assert_eq!(status, 401);
    let (status, ..) = revoke(&["Bearer revoker", "Bearer other"], "token=live").await;
    assert_eq!(status, 400, "two callers");
}

#[tokio::test]
async fn a_form_without_a_token_or_with_a_query_is_refused() {
    assert_eq!(revoke(&[], "token_type_hint=x").await.0, 400);
    assert_eq!(revoke(&[], "").await.0, 400);
    let (router, _) = broker();
    let request = Request::post("/revoke?token=live").header("content-type", FORM);
    let answer = send(&router, request.body(Body::from("token=live")).unwrap()).await;
    assert_eq!(answer.status.as_u16(), 400);
}
