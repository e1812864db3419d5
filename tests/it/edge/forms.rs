//! `POST /token`: the form, strictly.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{body::Body, http::Request};
use cambio::{
    edge::{self, RateLimit, Surface},
    exchange::TokenType,
    policy::Wants,
};
use serde_json::json;

use super::surface::{BEARER, EXCHANGE, FORM, FakeExchanges, broker, post, send, surface};

const NOT_READY: &str = "temporarily_unavailable";

/// Posts `EXCHANGE` with `rest` behind it, and gives status, code and words.
async fn with(rest: &str) -> (u16, String, String) {
    let (router, _) = broker();
    post(&router, &format!("{EXCHANGE}{rest}")).await.error()
}

fn refused(words: &str) -> (u16, String, String) {
    (400, "invalid_request".to_owned(), words.to_owned())
}

#[tokio::test]
async fn a_token_exchange_arrives_whole() {
    let (router, exchanges) = broker();
    let form = format!(
        "{EXCHANGE}&audience=jwt%2Forders&resource=https%3A%2F%2Fa.example%2Fx&audience=two&scope=deploy+read\
         &requested_lifetime=600&unknown=ignored&empty=\
         &requested_token_type=urn:ietf:params:oauth:token-type:access_token\
         &actor_token=d.e.f&actor_token_type=urn:ietf:params:oauth:token-type:id_token"
    );
    let answer = post(&router, &form).await;
    assert_eq!(answer.error().1, NOT_READY, "{answer:?}");
    let arrived = exchanges.arrived.lock().unwrap().pop().unwrap();
    assert_eq!(
        arrived.wants,
        Wants {
            targets: ["jwt/orders", "https://a.example/x", "two"].map(str::to_owned).to_vec(),
            scope: ["deploy", "read"].map(str::to_owned).to_vec(),
            lifetime: Some(Duration::from_secs(600)),
        }
    );
    assert_eq!(arrived.subject_token_type, TokenType::Jwt);
    assert_eq!(arrived.requested_token_type, Some(TokenType::AccessToken));
    assert_eq!(arrived.actor_token.map(|(_, kind)| kind), Some(TokenType::IdToken));
    assert_eq!(arrived.source.to_string(), "203.0.113.9");
    assert_eq!(answer.header("cambio-exchange-id"), arrived.exchange_id.to_string());
}

#[tokio::test]
async fn a_jwt_bearer_assertion_arrives_as_a_jwt() {
    let (router, exchanges) = broker();
    post(&router, &format!("{BEARER}&scope=deploy&audience=jwt/orders")).await;
    let arrived = exchanges.arrived.lock().unwrap().pop().unwrap();
    assert_eq!(arrived.subject_token_type, TokenType::Jwt);
    assert_eq!(arrived.wants.targets, ["jwt/orders"]);
    assert!(arrived.actor_token.is_none() && arrived.requested_token_type.is_none());
}

#[tokio::test]
async fn h01_a_repeated_parameter_is_refused_even_an_unknown_or_an_empty_one() {
    let twice = refused("a parameter is given more than once");
    for rest in [
        "&subject_token=x.y.z",
        "&grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer",
        "&scope=a&scope=b",
        "&scope=a&scope=",
        "&other=1&other=1",
        "&subject%5Ftoken=x.y.z",
    ] {
        assert_eq!(with(rest).await, twice, "{rest}");
    }
    let nine = "&audience=a".repeat(9);
    assert_eq!(with(&nine).await, refused("`audience` and `resource` may be given 8 times each"));
    assert_eq!(with(&"&audience=a".repeat(8)).await.1, NOT_READY);
}

#[tokio::test]
async fn h01_the_query_is_refused_and_never_read() {
    let (router, exchanges) = broker();
    for uri in ["/token?subject_token=a.b.c", "/token?"] {
        let request = Request::post(uri).header("content-type", FORM);
        let answer = send(&router, request.body(Body::from(EXCHANGE)).unwrap()).await;
        assert_eq!(
            answer.error(),
            refused("parameters belong in the body: the query must be absent")
        );
    }
    assert!(exchanges.arrived.lock().unwrap().is_empty());
}

#[tokio::test]
async fn h02_only_one_plain_form_content_type_is_read() {
    let (router, _) = broker();
    let status = async |types: &[&str], coding: Option<&str>| {
        let mut request = Request::post("/token");
        for one in types {
            request = request.header("content-type", *one);
        }
        if let Some(coding) = coding {
            request = request.header("content-encoding", coding);
        }
        send(&router, request.body(Body::from(EXCHANGE)).unwrap()).await.status.as_u16()
    };
    for good in [FORM, "Application/X-WWW-Form-Urlencoded; charset=UTF-8"] {
        assert_eq!(status(&[good], None).await, 503, "{good}");
    }
    for bad in [
        "application/json",
        "multipart/form-data; boundary=x",
        "text/plain",
        "",
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/x-www-form-urlencoded; charset=utf-8; charset=utf-16",
        "application/x-www-form-urlencoded-not",
        "application/x-www-form-urlencoded, application/json",
    ] {
        assert_eq!(status(&[bad], None).await, 415, "{bad}");
    }
    assert_eq!(status(&[], None).await, 415, "none");
    assert_eq!(status(&[FORM, FORM], None).await, 415, "two");
    assert_eq!(status(&[FORM], Some("gzip")).await, 415, "gzip");
}

#[tokio::test]
async fn h02_bytes_that_two_decoders_would_read_differently_are_refused() {
    assert_eq!(with("&scope=%ff").await, refused("the form is not UTF-8"));
    assert_eq!(with("&scope=%zz").await, refused("the form has a broken percent escape"));
    assert_eq!(with("&scope=%4").await, refused("the form has a broken percent escape"));
    assert_eq!(with("&scope=a%00b").await, refused("the form holds a control character"));
    assert_eq!(with("&scope=a%0d%0ab").await, refused("the form holds a control character"));
    let many: String = (0..70).map(|n| format!("&p{n}=1")).collect();
    assert_eq!(with(&many).await, refused("the form has more than 64 parameters"));
}

#[tokio::test]
async fn h03_a_body_over_the_cap_is_413_announced_or_not() {
    let (router, exchanges) = broker();
    let large = format!("{EXCHANGE}&pad={}", "x".repeat(64 * 1024));
    let announced =
        Request::post("/token").header("content-type", FORM).header("content-length", large.len());
    let answer = send(&router, announced.body(Body::from("short")).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (413, "close"));
    let answer = post(&router, &large).await;
    assert_eq!(
        answer.error(),
        (413, "invalid_request".to_owned(), "the body is too large".to_owned())
    );
    assert!(exchanges.arrived.lock().unwrap().is_empty());
}

#[tokio::test]
async fn h04_a_body_that_does_not_end_in_time_is_408() {
    let exchanges = Arc::new(FakeExchanges::default());
    let router = edge::router(Surface { body_timeout: Duration::ZERO, ..surface(&exchanges) });
    let endless = futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
    let request = Request::post("/token").header("content-type", FORM);
    let answer = send(&router, request.body(Body::from_stream(endless)).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (408, "close"));
}

#[tokio::test]
async fn h07_client_authentication_is_refused_not_ignored() {
    let (router, exchanges) = broker();
    let said = (
        401,
        "invalid_client".to_owned(),
        "there is no client authentication here: the subject token is the credential".to_owned(),
    );
    for values in [&["Basic eDp5"][..], &["Bearer x"], &["Basic eDp5", "Bearer x"], &[""]] {
        let mut request = Request::post("/token").header("content-type", FORM);
        for value in values {
            request = request.header("authorization", *value);
        }
        let answer = send(&router, request.body(Body::from(EXCHANGE)).unwrap()).await;
        assert_eq!(answer.error(), said);
        assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_client\"");
    }
    for rest in ["&client_secret=s", "&client_assertion=a", "&client_assertion_type=t"] {
        assert_eq!(with(rest).await, said);
    }
    assert_eq!(with("&client_id=anybody").await.1, NOT_READY, "a public client may name itself");
    assert!(exchanges.arrived.lock().unwrap().is_empty());
}

/// What is asked for is kept beside the entry of the refusal: nobody may fill the ledger by it.
#[tokio::test]
async fn a11_no_name_is_longer_than_a_kilobyte() {
    let too_long = refused("`audience` and `resource` have at most 1024 bytes");
    for name in ["audience=", "resource=urn:"] {
        assert_eq!(with(&format!("&{name}{}", "a".repeat(1_025))).await, too_long, "{name}");
    }
    let scope = with(&format!("&scope={}", "a".repeat(1_025))).await;
    assert_eq!((scope.0, scope.1.as_str()), (400, "invalid_scope"));
    let whole = "a".repeat(1_024);
    assert_eq!(with(&format!("&audience={whole}&scope={whole}")).await.1, NOT_READY);
}

#[tokio::test]
async fn x05_a_malformed_scope_is_invalid_scope() {
    let malformed = (400, "invalid_scope".to_owned(), "the scope is not permitted".to_owned());
    for scope in ["a++b", "+a", "%22", "a%5Cb", "%C3%A4"] {
        assert_eq!(with(&format!("&scope={scope}")).await, malformed, "{scope}");
    }
    assert_eq!(with(&format!("&scope={}", ["a"; 33].join("+"))).await, malformed);
}

#[tokio::test]
async fn x08_a_token_type_that_we_do_not_verify_is_refused() {
    let (router, _) = broker();
    for kind in ["saml2", "saml1", "refresh_token", "JWT", "jwt "] {
        let form = EXCHANGE.replace("token-type:jwt", &format!("token-type:{kind}"));
        assert_eq!(
            post(&router, &form).await.error(),
            refused("`subject_token_type` must be `jwt`, `id_token` or `access_token` of RFC 8693"),
            "{kind}"
        );
    }
    assert_eq!(with("&actor_token=a.b.c").await, refused("`actor_token_type` is missing"));
    assert_eq!(
        with("&actor_token_type=urn:ietf:params:oauth:token-type:jwt").await,
        refused("`actor_token_type` is given without `actor_token`")
    );
}

#[tokio::test]
async fn x09_a_refresh_token_is_never_issued() {
    for kind in ["refresh_token", "saml2"] {
        assert_eq!(
            with(&format!("&requested_token_type=urn:ietf:params:oauth:token-type:{kind}")).await,
            refused(
                "`requested_token_type` must be `jwt`, `id_token` or `access_token` of RFC 8693"
            )
        );
    }
}

#[tokio::test]
async fn x10_a_lifetime_is_whole_seconds_above_zero() {
    for bad in ["0", "-1", "%2B1", "1.5", "1e3", "99999999999999999999", "ten", "10+"] {
        assert_eq!(
            with(&format!("&requested_lifetime={bad}")).await,
            refused("`requested_lifetime` must be a whole number of seconds above 0"),
            "{bad}"
        );
    }
    assert_eq!(with("&requested_lifetime=315360000").await.1, NOT_READY, "policy cuts it");
}

#[tokio::test]
async fn a_resource_is_an_absolute_uri_without_a_fragment() {
    for bad in ["orders", "/orders", "https://a.example/%23x", "//a.example"] {
        assert_eq!(
            with(&format!("&resource={bad}")).await,
            refused("`resource` must be an absolute URI without a fragment"),
            "{bad}"
        );
    }
    assert_eq!(with("&resource=urn:cambio:jwt/orders").await.1, NOT_READY);
}

#[tokio::test]
async fn the_two_grant_types_do_not_mix() {
    let (router, _) = broker();
    for (form, words) in [
        (String::new(), "`grant_type` is missing"),
        ("grant_type=".to_owned(), "`grant_type` is missing"),
        (format!("{EXCHANGE}&assertion=x"), "`assertion` does not belong to token exchange"),
        (
            format!("{BEARER}&subject_token=x"),
            "a parameter of token exchange does not belong to jwt-bearer",
        ),
        (BEARER.replace("a.b.c", ""), "`assertion` is missing"),
        (EXCHANGE.replace("a.b.c", ""), "`subject_token` is missing"),
    ] {
        assert_eq!(post(&router, &form).await.error(), refused(words), "{form}");
    }
    assert_eq!(
        post(&router, "grant_type=client_credentials").await.error().1,
        "unsupported_grant_type"
    );
}

#[tokio::test]
async fn a09_what_the_edge_refuses_itself_is_noted_too() {
    let (router, exchanges) = broker();
    post(&router, "grant_type=password").await;
    post(&router, "").await;
    assert_eq!(
        *exchanges.turned_away.lock().unwrap(),
        ["grant type `password` is not served", "bad request: `grant_type` is missing"]
    );
}

#[tokio::test]
async fn too_many_requests_of_one_address_are_429_and_say_when_to_come_back() {
    let exchanges = Arc::new(FakeExchanges::default());
    let one = NonZeroU32::MIN;
    let router =
        edge::router(Surface { per_address: RateLimit::of(one, one), ..surface(&exchanges) });
    post(&router, EXCHANGE).await;
    let answer = post(&router, EXCHANGE).await;
    assert_eq!(
        (answer.error(), answer.header("retry-after")),
        ((429, NOT_READY.to_owned(), "too many requests".to_owned()), "1")
    );
    assert_eq!(exchanges.arrived.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn v06_a_panic_is_a_500_that_tells_nothing() {
    let exchanges = Arc::new(FakeExchanges { panics: true, ..FakeExchanges::default() });
    let router = edge::router(surface(&exchanges));
    let answer = post(&router, EXCHANGE).await;
    assert_eq!(answer.status.as_u16(), 500);
    assert_eq!(
        answer.json(),
        json!({ "error": "server_error", "error_description": "internal error" })
    );
}

#[tokio::test]
async fn v07_what_is_too_much_is_shed_with_503() {
    let exchanges = Arc::new(FakeExchanges::default());
    let router = edge::router(Surface { in_flight: 0, ..surface(&exchanges) });
    let answer = post(&router, EXCHANGE).await;
    assert_eq!(
        (answer.error(), answer.header("retry-after")),
        ((503, NOT_READY.to_owned(), "the broker is busy".to_owned()), "1")
    );
}

/// An SDK of AWS reads XML alone, whoever turns it away.
#[tokio::test]
async fn v07_the_aws_front_is_shed_in_its_own_language() {
    let call = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn:aws:iam::123456789012:role/deploy\
                &RoleSessionName=job&WebIdentityToken=a.b.c";
    let sheds = Arc::new(FakeExchanges::default());
    let dies = Arc::new(FakeExchanges { panics: true, ..FakeExchanges::default() });
    for (router, status, kind, code) in [
        (
            edge::router(Surface { in_flight: 0, ..surface(&sheds) }),
            503,
            "Receiver",
            "ServiceUnavailable",
        ),
        (edge::router(surface(&dies)), 500, "Receiver", "InternalFailure"),
    ] {
        for path in ["/aws", "/aws/"] {
            let request = Request::post(path).header("content-type", FORM);
            let answer = send(&router, request.body(Body::from(call)).unwrap()).await;
            assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.body);
            assert_eq!(answer.header("content-type"), "text/xml");
            let told = format!("<Error><Type>{kind}</Type><Code>{code}</Code>");
            assert!(answer.body.contains(&told), "{path}: {}", answer.body);
            assert!(!answer.body.contains("RequestId"), "there is no exchange to name");
        }
    }
}

#[tokio::test]
async fn a_request_without_a_known_peer_is_not_served() {
    use tower::ServiceExt as _;
    let (router, exchanges) = broker();
    let request = Request::post("/token").header("content-type", FORM);
    let answer = router.oneshot(request.body(Body::from(EXCHANGE)).unwrap()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 500);
    assert!(exchanges.arrived.lock().unwrap().is_empty());
}
