//! The exchange: the request byte by byte, what is asked again and what is not, and what is said about a refusal.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderName, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    chance::SystemChance,
    client::{
        Answer, Asked, Broker, ClientError, Errand, Fault, Issued, Lease, Refused, Subject,
        TokenSource, Waiting,
    },
    clock::{Instant, ManualClock},
    edge::{
        Proxies,
        listen::{self, Terms},
        tls::Tls,
    },
    secret::Secret,
    telemetry::Metrics,
    web::Reaching,
};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
};
use tokio_util::sync::CancellationToken;

use super::{IMPATIENT, words};
use crate::support::{
    stand_in::{Reply, StandIn},
    token::NOW,
};

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

pub(super) fn granted(access_token: &str, kind: &str) -> Reply {
    Reply::json(
        200,
        json!({
            "access_token": access_token,
            "issued_token_type": kind,
            "token_type": "N_A",
            "expires_in": 900,
            "scope": "read",
            "exchange_id": "ex_1",
            "lease": { "id": "ls_1", "token": "hush-lease" },
        }),
    )
}

async fn ask(url: &str) -> Result<Answer, ClientError> {
    ask_trusting(url, None).await
}

async fn ask_trusting(url: &str, ca_file: Option<&Path>) -> Result<Answer, ClientError> {
    ask_at(&Broker::at(url, Reaching { ca_file, ..Reaching::default() })?).await
}

async fn ask_at(broker: &Broker) -> Result<Answer, ClientError> {
    let subject_token = Secret::from("e30.e30.hush".to_owned());
    let asked = Asked {
        subject_token: &subject_token,
        audience: Some("jwt/orders"),
        scope: Some("read orders.read"),
        lifetime: Some(Duration::from_secs(90)),
    };
    let mut waiting = Waiting::begin(IMPATIENT, &SystemChance);
    asked
        .of(broker, &mut waiting, &ManualClock::at(Instant::from_milliseconds(NOW * 1_000 + 900)))
        .await
}

/// What a broker that gives this as `access_token`, of this type, is understood to have issued.
pub(super) async fn issued(access_token: &str, kind: &str) -> Issued {
    let broker = StandIn::at_loopback([granted(access_token, kind)]).await;
    match ask(&broker.url).await.unwrap() {
        Answer::Issued(issued) => *issued,
        Answer::Refused(refused) => panic!("{refused:?}"),
    }
}

async fn failed(replies: impl IntoIterator<Item = Reply>) -> (String, usize) {
    let broker = StandIn::at_loopback(replies).await;
    let error = match ask(&broker.url).await {
        Ok(Answer::Issued(issued)) => panic!("{issued:?}"),
        Ok(Answer::Refused(refused)) => refused.into(),
        Err(error) => error,
    };
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    (words(&error).replace(&broker.url, "BROKER"), broker.seen().len())
}

#[tokio::test]
async fn an_exchange_is_the_form_of_rfc_8693_and_nothing_beside_it() {
    let broker = StandIn::at_loopback([granted("a.b.c", JWT)]).await;
    // A slash at the end of the issuer URL is nobody's path.
    let Ok(Answer::Issued(issued)) = ask(&format!("{}/", broker.url)).await else { panic!() };
    let seen = broker.only();
    assert_eq!(seen.line, "POST /token");
    assert_eq!(
        seen.body,
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&subject_token=e30.e30.hush\
         &audience=jwt%2Forders&scope=read+orders.read&requested_lifetime=90"
    );
    let mut names: Vec<&str> = seen.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "content-length", "content-type", "host", "user-agent"]);
    assert_eq!(seen.header("content-type"), "application/x-www-form-urlencoded");

    assert_eq!(issued.access_token.reveal_text(), Some("a.b.c"));
    // Counted from before the request, and rounded down.
    assert_eq!(issued.expires_at, Some(Instant::from_seconds(NOW + 900)));
    assert_eq!(issued.lease_id.as_deref(), Some("ls_1"));
    assert_eq!(
        format!("{issued:?}"),
        "Issued { credential: Token(Secret(5 bytes)), expires_at: Some(Instant(1800000900000)), scope: Some(\"read\"), \
         exchange_id: Some(\"ex_1\"), .. }"
    );
}

fn refusal(status: u16, code: &str) -> Reply {
    Reply::json(
        status,
        json!({
            "error": code,
            "error_description": "the reason",
            "exchange_id": "ex_1",
        }),
    )
}

#[tokio::test]
async fn a_refusal_is_told_with_its_exchange_and_the_line_to_type() {
    let (said, asked) = failed([refusal(400, "invalid_request"), granted("a.b.c", JWT)]).await;
    assert_eq!(
        said,
        "Refused: refused: `invalid_request`: the reason (exchange `ex_1`)\n  \
         hint: whoever runs the broker types `cambio policy explain ex_1`"
    );
    assert_eq!(asked, 1);
}

/// What a broker that is somebody else's would have a runner read.
const ORDERS: &str = "x\n::stop-commands::pwn\r\n##[error]y\u{1b}[2Kissued a token for `admin`";

#[tokio::test]
async fn what_a_stranger_says_of_its_no_stays_on_its_line_and_orders_nothing() {
    let evil = || {
        let body =
            json!({ "error": ORDERS, "error_description": ORDERS, "exchange_id": "ex_1; id\n" });
        Reply::json(400, body)
    };
    let tame = "x ::stop-commands::pwn  # #[error]y [2Kissued a token for `admin`";
    let (said, _) = failed([evil()]).await;
    // What is no name of an exchange is not put into a line to type either.
    assert_eq!(said, format!("Refused: refused: `{tame}`: {tame}"));

    let broker = StandIn::at_loopback([evil()]).await;
    let lease = Lease { id: "ls_1\n::x".to_owned(), token: Secret::from("hush".to_owned()) };
    let mut waiting = Waiting::begin(IMPATIENT, &SystemChance);
    let at = Broker::at(&broker.url, Reaching::default()).unwrap();
    let said = words(&lease.revoke(&at, &mut waiting).await.unwrap_err());
    assert_eq!(
        said.replace(&broker.url, "BROKER"),
        format!(
            "Unreachable: lease `ls_1 ::x` is not known to be ended: `BROKER` answered 400 Bad Request: {tame}"
        )
    );
}

#[tokio::test]
async fn a_target_that_is_not_had_is_named_with_what_that_can_mean() {
    let replies = [refusal(400, "invalid_target"), refusal(400, "invalid_scope")];
    let broker = StandIn::at_loopback(replies).await;
    for hint in [
        "`jwt/oders`: no such target, or none for you; whoever runs the broker types `cambio policy explain ex_1`",
        "whoever runs the broker types `cambio policy explain ex_1`",
    ] {
        let Ok(Answer::Refused(refused)) = ask(&broker.url).await else { panic!("not refused") };
        assert_eq!(refused.of(Some("jwt/oders")).hint.as_deref(), Some(hint));
    }
    // It is there, and has several roles: the broker's own words say what to do.
    let several = json!({ "error": "invalid_target", "error_description": "more than one role is permitted: …" });
    let broker = StandIn::at_loopback([Reply::json(400, several)]).await;
    let Ok(Answer::Refused(refused)) = ask(&broker.url).await else { panic!("not refused") };
    assert_eq!(refused.of(Some("jwt/orders")).hint, None);
}

/// As a program that takes a host and a port is told of it.
#[test]
fn a_broker_without_a_scheme_is_told_what_to_write() {
    for (url, hint) in [
        ("127.0.0.1:18443", Some("write `https://127.0.0.1:18443`")),
        ("cambio.example.com:8443", Some("write `https://cambio.example.com:8443`")),
        ("http://cambio.example.com", Some("a token that is sent in the clear is anybody's")),
    ] {
        let error = Broker::at(url, Reaching::default()).unwrap_err();
        assert_eq!((error.fault, error.hint.as_deref()), (Fault::Usage, hint), "{error}");
    }
}

/// What `aud` a platform's token has is our choice, until the broker's configuration makes another one.
#[tokio::test]
async fn a_refused_token_with_the_audience_of_our_choice_hints_at_the_option_for_another() {
    let said = |description: &str| Refused {
        status: 400,
        code: "invalid_request".to_owned(),
        description: Some(description.to_owned()),
        exchange_id: None,
        retry_after: None,
    };
    let token = |audience: &str| {
        let claims = URL_SAFE_NO_PAD.encode(json!({ "aud": [audience] }).to_string());
        Subject { token: Secret::from(format!("e30.{claims}.c2ln")), place: None }
    };
    let ours = "https://cambio.example.com";
    let chosen = Errand {
        broker: Broker::at(ours, Reaching::default()).unwrap(),
        source: TokenSource::Platform(None),
        token_audience: None,
        audience: None,
        scope: None,
        lifetime: None,
        ca_file: None,
        proxy: None,
    };
    let not_accepted = "the subject token was not accepted";
    let hint = chosen.refused(said(not_accepted), &token(ours)).hint.unwrap_or_default();
    assert_eq!(
        hint,
        "the token was asked for with the audience `https://cambio.example.com`; if the broker expects another one of this \
         issuer, name it with `--token-audience`"
    );
    let named = Errand { token_audience: Some(ours.to_owned()), ..chosen.clone() };
    let handed = Errand { source: TokenSource::File("token".into()), ..chosen.clone() };
    for (errand, why, audience) in [
        (&chosen, "no trust policy permits this exchange", ours),
        (&chosen, not_accepted, "somebody else"),
        (&named, not_accepted, ours),
        (&handed, not_accepted, ours),
    ] {
        assert_eq!(errand.refused(said(why), &token(audience)).hint, None, "{errand:?} {why}");
    }
}

/// As somebody does who writes `https` where plain http is spoken.
#[tokio::test]
async fn a_server_without_tls_is_told_as_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    });
    let error = ask(&format!("https://{at}")).await.unwrap_err();
    let hint = error.hint.unwrap();
    assert!(hint.starts_with("what listens there does not speak TLS: "), "{hint}");
    assert!(error.message.contains("InvalidContentType"), "{}", error.message);
}

#[tokio::test]
async fn an_outage_is_waited_out_only_while_the_broker_says_that_the_token_is_unspent() {
    for status in [429, 503] {
        let busy = || refusal(status, "temporarily_unavailable").header("retry-after", "0");
        let broker = StandIn::at_loopback([busy(), busy(), granted("a.b.c", JWT)]).await;
        assert!(matches!(ask(&broker.url).await, Ok(Answer::Issued(_))));
        assert_eq!(broker.seen().len(), 3);

        // Without the header the token may be spent, and a credential may exist.
        let (said, asked) =
            failed([refusal(status, "temporarily_unavailable"), granted("a.b.c", JWT)]).await;
        assert!(said.starts_with("Unreachable: refused: `temporarily_unavailable`"), "{said}");
        assert_eq!(asked, 1);

        let later = refusal(status, "temporarily_unavailable").header("retry-after", "60");
        let (said, asked) = failed([later, granted("a.b.c", JWT)]).await;
        assert!(said.starts_with("Unreachable: "), "{said}");
        assert_eq!(asked, 1, "a minute is longer than the deadline");
    }
}

/// Accepts connections, reads a request, and hangs up.
async fn hanging_up() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4_096]).await;
        }
    });
    (url, count)
}

#[tokio::test]
async fn an_answer_that_was_lost_on_its_way_is_not_asked_for_again() {
    let (url, count) = hanging_up().await;
    let error = ask(&url).await.unwrap_err();
    assert!(error.message.starts_with("no answer from `http://127.0.0.1"), "{error}");
    assert_eq!(
        error.hint.as_deref(),
        Some("the token may be used up: a new attempt needs a new one from the platform")
    );
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_broker_that_is_not_up_yet_is_waited_for() {
    // Ours, and nobody listens: a port that is free now may be another test's in a moment.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let place = taken.local_addr().unwrap();
    let error = ask(&format!("http://{place}")).await.unwrap_err();
    assert!(error.message.contains("Connection refused"), "{error}");
    // Nothing was sent: no word of a token that may be used up.
    assert_eq!(error.hint.as_deref(), Some("does the broker run, and is that its address?"));
}

/// A TLS server with a certificate that only the file in `folder` vouches for; it answers as a broker.
async fn over_tls(folder: &Path) -> (String, Arc<AtomicUsize>) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("chain.pem"), pair.cert.pem()).unwrap();
    crate::support::write_private(&folder.join("key.pem"), pair.signing_key.serialize_pem());
    let tls = Tls::load(folder.join("chain.pem"), folder.join("key.pem")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let app = Router::new().fallback(move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
        (StatusCode::BAD_REQUEST, r#"{"error":"invalid_request"}"#)
    });
    let terms = Terms::public(10, Proxies::default(), Arc::new(Metrics::new()));
    tokio::spawn(listen::serve(
        listener,
        Some(Arc::new(tls)),
        app,
        terms,
        CancellationToken::new(),
    ));
    (url, count)
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_ends_it_at_once_and_one_in_the_ca_file_does() {
    let folder = tempdir().unwrap();
    let (url, count) = over_tls(folder.path()).await;
    let other = folder.path().join("other.pem");
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&other, pair.cert.pem()).unwrap();
    // Not for the machine's own roots: there may be none where this runs.
    let error = ask_trusting(&url, Some(&other)).await.unwrap_err();
    assert!(error.message.contains("invalid peer certificate"), "{error}");
    assert_eq!(
        error.hint.as_deref(),
        Some("if its certificate comes from a private authority, name that one with `--ca-file`")
    );
    assert_eq!(count.load(Ordering::SeqCst), 0);
    let answer = ask_trusting(&url, Some(&folder.path().join("chain.pem"))).await;
    assert!(matches!(answer, Ok(Answer::Refused(_))), "{answer:?}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_proxy_is_a_tunnel_and_sees_no_token() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let seen = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4_096];
        let length = stream.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    });
    let folder = tempdir().unwrap();
    let (_, ca_file) = (over_tls(folder.path()).await, folder.path().join("chain.pem"));
    let reaching = Reaching { proxy: Some(&proxy), ca_file: Some(&ca_file), ..Reaching::default() };
    let broker = Broker::at("https://cambio.example", reaching).unwrap();
    let error = ask_at(&broker).await.unwrap_err();
    assert!(error.message.starts_with("no answer from `https://cambio.example`"), "{error}");
    let seen = seen.await.unwrap();
    assert!(seen.starts_with("CONNECT cambio.example:443 HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("hush"), "{seen}");
}

#[tokio::test]
async fn who_is_no_broker_is_told_apart_and_no_redirect_is_followed() {
    let no_type = json!({ "access_token": "hush", "issued_token_type": JWT });
    let mac = json!({ "access_token": "hush", "issued_token_type": JWT, "token_type": "mac" });
    let login = json!({
        "access_token": r#"{"kind":"postgres","password":"hush"}"#,
        "issued_token_type": "urn:cambio:token-type:database",
        "token_type": "N_A",
        "exchange_id": "ex_1",
    });
    let mut said = Vec::new();
    for reply in [
        Reply::text(200, "<html>hush"),
        Reply::text(302, "").header("location", "https://elsewhere.example"),
        Reply::text(502, "<html>hush"),
        Reply::json(404, json!({ "message": "hush" })),
        Reply::json(200, no_type),
        Reply::json(200, mac),
        Reply::json(200, login),
        Reply::text(200, &" ".repeat(70_000)),
        Reply::text(200, r#"{"access_token":"hush","access_token":"hush"}"#),
    ] {
        let (words, asked) = failed([reply]).await;
        assert_eq!(asked, 1);
        said.push(words);
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    Unreachable: `BROKER` answered 200 OK and no JSON object: not JSON: expected value at line 1 column 1
      hint: is `--broker` the issuer URL of a Cambio broker?
    Unreachable: `BROKER` answered 302 Found and no JSON object: not JSON: EOF while parsing a value at line 1 column 0
      hint: is `--broker` the issuer URL of a Cambio broker?
    Unreachable: `BROKER` answered 502 Bad Gateway and no JSON object: not JSON: expected value at line 1 column 1
      hint: does something between here and the broker fail (an ingress, a proxy)? the token may be used up
    Unreachable: `BROKER` answered 404 Not Found and no `error` in it
      hint: is `--broker` the issuer URL of a Cambio broker?
    Unreachable: `BROKER` answered 200 OK and no `token_type` in it
      hint: is `--broker` the issuer URL of a Cambio broker?
    Unreachable: `BROKER` answered 200 OK and `token_type` `mac`, expected `Bearer` or `N_A`
      hint: is `--broker` the issuer URL of a Cambio broker?
    Unreachable: the credential lacks a text `user` (exchange `ex_1`)
      hint: is this client older than the broker?
    Unreachable: no answer from `BROKER`: the answer has more than 65536 bytes
      hint: the token may be used up: a new attempt needs a new one from the platform
    Unreachable: `BROKER` answered 200 OK and no JSON object: found member `access_token` twice in one object
      hint: is `--broker` the issuer URL of a Cambio broker?
    "#);
}

#[tokio::test]
async fn a_broker_is_named_by_a_url_that_a_token_may_be_sent_to() {
    let mut said = Vec::new();
    for url in [
        "http://cambio.example",
        "https://user:hush@cambio.example",
        "https://cambio.example/?x=1",
        "cambio.example",
    ] {
        let error = Broker::at(url, Reaching::default()).unwrap_err();
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        said.push(words(&error));
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    Usage: `http://cambio.example` is neither https nor http on loopback
      hint: a token that is sent in the clear is anybody's
    Usage: the URL carries a user name or a password, expected none
      hint: a token that is sent in the clear is anybody's
    Usage: `https://cambio.example/?x=1` has a query or a fragment, expected the broker's issuer URL
    Usage: `cambio.example`: relative URL without a base
      hint: write `https://cambio.example`
    "#);
}

/// The members of an answer, for the formats.
pub(super) fn answer(issued: &Issued) -> Value {
    Value::Object(issued.reveal_answer().clone())
}
