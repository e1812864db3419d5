//! The compact serialisation and the protected header.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::Bench;
use crate::support::{issuer::FakeIssuer, token::AUDIENCE};

#[tokio::test]
async fn j01_a_token_without_a_signature_algorithm_is_refused() {
    let bench = Bench::new();
    for spelling in ["none", "None", "NONE", "nOnE", ""] {
        let unsigned = format!("{}.", bench.token().header("alg", spelling).signing_input());
        let refused = format!(
            "header refused: found algorithm `{spelling}`, expected an asymmetric one of RFC 7518 or `EdDSA`"
        );
        assert_eq!(bench.verdict_on(&unsigned).await, refused);
        assert_eq!(bench.verdict(bench.token().header("alg", spelling)).await, refused);
    }
    assert_eq!(
        bench.verdict(bench.token().without_header("alg")).await,
        "header refused: found algorithm `-`, expected an asymmetric one of RFC 7518 or `EdDSA`"
    );
    assert_eq!(
        bench.verdict(bench.token().header("alg", json!(["ES256"]))).await,
        "header refused: header member `alg`: found a list, expected a string"
    );
    let emptied = format!("{}.", bench.token().signing_input());
    assert_eq!(
        bench.verdict_on(&emptied).await,
        "signature does not verify with key `key-1` of issuer `ci`"
    );
}

#[tokio::test]
async fn j02_an_hmac_is_refused_whatever_its_secret_is() {
    let bench = Bench::new();
    let public = bench.issuer.newest_key().public_jwk().to_string();
    for name in ["HS256", "HS384", "HS512", "hs256"] {
        let token = bench.token().header("alg", name);
        let input = token.signing_input();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, input.as_bytes());
        assert_eq!(
            bench.verdict_on(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))).await,
            format!(
                "header refused: found algorithm `{name}`, expected an asymmetric one of RFC 7518 or `EdDSA`"
            )
        );
    }
}

#[tokio::test]
async fn j03_the_case_of_an_algorithm_is_part_of_its_name() {
    let bench = Bench::new();
    for name in ["es256", "Es256", "ES256 ", "RS1", "ES256K", "EdDSA\0"] {
        let verdict = bench.verdict(bench.token().header("alg", name)).await;
        let name = name.escape_debug();
        assert!(
            verdict.starts_with(&format!("header refused: found algorithm `{name}`")),
            "{verdict}"
        );
    }
}

#[tokio::test]
async fn j05_a_key_that_the_token_brings_along_is_refused() {
    let bench = Bench::new();
    let own = bench.issuer.newest_key().public_jwk();
    let carriers = [
        ("jwk", own),
        ("jku", json!("http://127.0.0.1:1/jwks")),
        ("x5u", json!("http://127.0.0.1:1/chain")),
        ("x5c", json!(["MIIB"])),
    ];
    for (name, value) in carriers {
        assert_eq!(bench.verdict(bench.token().header(name, value)).await, refused_member(name));
    }
}

#[tokio::test]
async fn j06_an_unknown_crit_is_refused() {
    let bench = Bench::new();
    for crit in [json!(["exp"]), json!([]), json!(["alg"]), json!(["b64"]), json!("x"), Value::Null]
    {
        let token = bench.token().header("crit", crit);
        assert_eq!(bench.verdict(token.clone()).await, refused_member("crit"));
        let crit_and_member = token.header("exp", 1).without_header("kid");
        assert_eq!(bench.verdict(crit_and_member).await, refused_member("crit"));
    }
}

#[tokio::test]
async fn j07_an_unencoded_or_detached_payload_is_refused() {
    let bench = Bench::new();
    for b64 in [json!(false), json!(true)] {
        let token = bench.token().header("b64", b64);
        assert_eq!(bench.verdict(token.clone()).await, refused_member("b64"));
        assert_eq!(
            bench.verdict(token.header("crit", json!(["b64"]))).await,
            refused_member("b64")
        );
    }
    let attached = bench.token().sign();
    let [header, _, signature] = segments(&attached);
    assert_eq!(
        bench.verdict_on(&format!("{header}..{signature}")).await,
        "malformed token: the claims: not JSON: EOF while parsing a value at line 1 column 0"
    );
}

#[tokio::test]
async fn j08_a_header_or_claims_with_a_name_twice_are_refused() {
    let bench = Bench::new();
    let kid = |text: &str| format!("{{\"alg\":\"ES256\",\"kid\":\"key-1\",{text}}}");
    for (text, name) in
        [(r#""alg":"ES256""#, "alg"), (r#""al\u0067":"ES256""#, "alg"), (r#""kid":"key-1""#, "kid")]
    {
        assert_eq!(
            bench.verdict(bench.token().raw_header(kid(text))).await,
            format!("header refused: the header: found member `{name}` twice in one object")
        );
    }
    let claims = Value::Object(bench.token().claim_set().clone()).to_string();
    let claims = claims.strip_suffix('}').unwrap();
    for (text, name) in [
        (r#""sub":"repo:evil/site""#, "sub"),
        (r#""s\u0075b":"repo:evil/site""#, "sub"),
        (r#""repository_id":"1","repository_id":"1""#, "repository_id"),
        (r#""kubernetes.io":{"namespace":"a","namespace":"b"}"#, "namespace"),
        (r#""deep":[{"a":[{"b":1,"b":2}]}]"#, "b"),
    ] {
        assert_eq!(
            bench.verdict(bench.token().raw_claims(format!("{claims},{text}}}"))).await,
            format!("malformed token: the claims: found member `{name}` twice in one object")
        );
    }
}

#[tokio::test]
async fn j09_json_beyond_its_limits_is_refused() {
    let bench = Bench::new();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let many: Vec<_> = (0..129).map(|number| format!("\"c{number}\":1")).collect();
    let hostile: [(Vec<u8>, &str); 9] = [
        (deep(4_000).into(), "found more than 16 levels of nesting"),
        (format!("{{\"a\":{}}}", deep(16)).into(), "found more than 16 levels of nesting"),
        (format!("{{{}}}", many.join(",")).into(), "found more than 128 members"),
        (b"\xef\xbb\xbf{}".to_vec(), "not JSON: expected value at line 1 column 1"),
        (b"{}{}".to_vec(), "not JSON: trailing characters at line 1 column 3"),
        (b"[{}]".to_vec(), "found a list, expected an object"),
        (b"{\"sub\":\"\xff\"}".to_vec(), "found bytes that are not UTF-8, from byte 8"),
        (
            br#"{"sub":"\ud83d"}"#.to_vec(),
            "not JSON: unexpected end of hex escape at line 1 column 15",
        ),
        (br#"{"sub":'a'}"#.to_vec(), "not JSON: expected value at line 1 column 8"),
    ];
    for (claims, reason) in hostile {
        assert_eq!(
            bench.verdict(bench.token().raw_claims(claims)).await,
            format!("malformed token: the claims: {reason}")
        );
    }
    let huge = bench.token().claim("padding", "x".repeat(1 << 20)).sign();
    let found = huge.len();
    assert_eq!(
        bench.verdict_on(&huge).await,
        format!("malformed token: found {found} bytes, expected at most 16384")
    );
    let long_header = bench.token().header("x5t", "x".repeat(1536)).sign();
    let found = segments(&long_header)[0].len();
    assert_eq!(
        bench.verdict_on(&long_header).await,
        format!("malformed token: found a header segment of {found} bytes, expected at most 2048")
    );
}

#[tokio::test]
async fn j10_anything_but_three_segments_is_refused() {
    let bench = Bench::new();
    let token = bench.token().sign();
    let [header, claims, signature] = segments(&token);
    for (text, found) in [
        (String::new(), 1),
        (header.to_owned(), 1),
        (format!("{header}.{claims}"), 2),
        (format!("{token}."), 4),
        (format!(".{token}"), 4),
        (format!("{header}.{claims}.{signature}.x.y"), 5),
        (".".repeat(16_384), 16_385),
    ] {
        assert_eq!(
            bench.verdict_on(&text).await,
            format!("malformed token: found {found} segments, expected the 3 of a compact JWS")
        );
    }
    assert_eq!(
        bench.verdict_on(&".".repeat(1_000_000)).await,
        "malformed token: found 1000000 bytes, expected at most 16384"
    );
    assert_eq!(
        bench.verdict_on("..").await,
        "header refused: the header: not JSON: EOF while parsing a value at line 1 column 0"
    );
}

#[tokio::test]
async fn j11_a_token_has_one_spelling() {
    let bench = Bench::new();
    let token = bench.token().sign();
    let [header, claims, signature] = segments(&token);
    for (name, text) in [("header", header), ("payload", claims), ("signature", signature)] {
        let place = |text: String| match name {
            "header" => format!("{text}.{claims}.{signature}"),
            "payload" => format!("{header}.{text}.{signature}"),
            _ => format!("{header}.{claims}.{text}"),
        };
        let (first, rest) = text.split_at(1);
        let mut spellings = vec![
            format!("{text}="),
            format!("{text}=="),
            format!("{first} {rest}"),
            format!("{first}\n{rest}"),
            format!("{first}+{rest}"),
            format!("{first}/{rest}"),
            format!("{first}?{rest}"),
            format!("{first}é{rest}"),
            format!("{text}%3D"),
        ];
        // The unused bits of the last character, where there are any.
        if text.len() % 4 != 0 {
            spellings.push(with_unused_bits(text));
        }
        for spelling in spellings {
            let verdict = bench.verdict_on(&place(spelling)).await;
            let refused =
                format!("malformed token: the {name} segment is not base64url without padding: ");
            assert!(verdict.starts_with(&refused), "{verdict}");
        }
    }
    assert_eq!(bench.verdict_on(&token).await, "accepted");
}

#[tokio::test]
async fn j12_nothing_is_trimmed() {
    let bench = Bench::new();
    let token = bench.token().sign();
    for text in [
        format!("{token}\n"),
        format!("{token} "),
        format!(" {token}"),
        format!("Bearer {token}"),
        format!("\"{token}\""),
        format!("\u{feff}{token}"),
        format!("{token}\0"),
    ] {
        let verdict = bench.verdict_on(&text).await;
        assert!(verdict.starts_with("malformed token: the "), "{verdict}");
    }
}

#[tokio::test]
async fn j18_what_is_encrypted_compressed_or_nested_is_refused() {
    let bench = Bench::new();
    for (name, value) in [
        ("enc", json!("A256GCM")),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("p2c", json!(4_000_000_000_u64)),
        ("p2s", json!("c2FsdA")),
        ("epk", json!({})),
        ("url", json!("https://a.example")),
        ("nonce", json!("1")),
        ("iss", json!("https://issuer.example")),
    ] {
        assert_eq!(bench.verdict(bench.token().header(name, value)).await, refused_member(name));
    }
    let nested = bench.token().raw_claims(bench.token().sign());
    assert_eq!(
        bench.verdict(nested).await,
        "malformed token: the claims: not JSON: expected value at line 1 column 1"
    );
}

#[tokio::test]
async fn j19_the_json_serialisation_is_refused() {
    let bench = Bench::new();
    let token = bench.token().sign();
    let [protected, payload, signature] = segments(&token);
    let flat = json!({"protected": protected, "payload": payload, "signature": signature});
    let refused = "malformed token: found 1 segments, expected the 3 of a compact JWS";
    assert_eq!(bench.verdict_on(&flat.to_string()).await, refused);
    let general = json!({"payload": payload, "signatures": [{"protected": protected, "signature": signature}]});
    assert_eq!(bench.verdict_on(&general.to_string()).await, refused);
    // CVE-2022-39227: both at once, for a reader that takes either.
    let mixed = format!("{{\"{protected}.{payload}.{signature}\":\"\"}}");
    let verdict = bench.verdict_on(&mixed).await;
    assert!(
        verdict.starts_with("malformed token: the header segment is not base64url"),
        "{verdict}"
    );
}

#[tokio::test]
async fn j20_a_kid_is_looked_up_and_nothing_else() {
    let bench = Bench::new();
    for kid in [
        "../../../../dev/null",
        "key-1' OR '1'='1",
        "key-1\0",
        "KEY-1",
        "http://127.0.0.1:1/key",
        "",
        "\u{1b}[2J",
    ] {
        assert_eq!(
            bench.verdict(bench.token().header("kid", kid)).await,
            format!(
                "no key of issuer `ci` fits: no key `{}`: the set has 1 usable keys, none of that name",
                kid.escape_debug()
            )
        );
    }
    assert_eq!(
        bench.verdict(bench.token().header("kid", "k".repeat(257))).await,
        "header refused: found a `kid` of 257 bytes, expected at most 256"
    );
    for (kid, found) in
        [(json!(7), "a number"), (Value::Null, "null"), (json!(["key-1"]), "a list")]
    {
        assert_eq!(
            bench.verdict(bench.token().header("kid", kid)).await,
            format!("header refused: header member `kid`: found {found}, expected a string")
        );
    }
}

#[tokio::test]
async fn a_header_with_a_thumbprint_or_without_typ_and_kid_is_accepted() {
    let bench = Bench::new();
    let thumbprints = bench.token().header("x5t", "abc").header("x5t#S256", "def");
    assert_eq!(bench.verdict(thumbprints).await, "accepted");
    let bare = bench.token().without_header("typ").without_header("kid");
    assert_eq!(bench.verdict(bare).await, "accepted");
}

#[tokio::test]
async fn j21_a_token_of_another_profile_is_refused() {
    let bench = Bench::new();
    for kind in
        ["at+jwt", "application/at+jwt", "logout+jwt", "secevent+jwt", "dpop+jwt", "JWS", ""]
    {
        assert_eq!(
            bench.verdict(bench.token().header("typ", kind)).await,
            format!("header refused: found `typ` `{kind}`, expected none or `JWT`")
        );
    }
    for kind in ["JWT", "jwt", "application/jwt", "APPLICATION/JWT"] {
        assert_eq!(bench.verdict(bench.token().header("typ", kind)).await, "accepted");
    }
    assert_eq!(
        bench.verdict(bench.token().header("typ", 1)).await,
        "header refused: header member `typ`: found a number, expected a string"
    );

    let lenient = Bench::with(|issuer| {
        issuer.accepted_types.insert("at+jwt".to_owned());
    });
    assert_eq!(lenient.verdict(lenient.token().header("typ", "at+jwt")).await, "accepted");
    assert_eq!(
        lenient.verdict(lenient.token().header("typ", "application/AT+JWT")).await,
        "accepted"
    );
    assert_eq!(
        lenient.verdict(lenient.token().header("typ", "logout+jwt")).await,
        "header refused: found `typ` `logout+jwt`, expected none or `JWT` or `at+jwt`"
    );
}

#[tokio::test]
async fn x06_a_token_of_ours_is_no_subject_token_by_accident() {
    let bench = Bench::new();
    let ours = FakeIssuer::at(AUDIENCE);
    let issued = ours.token().header("typ", "at+jwt");
    assert_eq!(
        bench.verdict(issued.clone()).await,
        format!("issuer `{AUDIENCE}` is not configured")
    );
    let configured = Bench::of(ours, |_| {});
    assert_eq!(
        configured.verdict(configured.token().header("typ", "at+jwt")).await,
        "header refused: found `typ` `at+jwt`, expected none or `JWT`"
    );
}

#[tokio::test]
async fn x08_an_access_token_does_not_pass_as_an_identity_token() {
    let bench = Bench::new();
    let access_token = bench.token().header("typ", "at+JWT").claim("client_id", "deployer");
    assert_eq!(
        bench.verdict(access_token).await,
        "header refused: found `typ` `at+JWT`, expected none or `JWT`"
    );
    assert_eq!(
        bench.verdict_on("<saml:Assertion ID=\"_1.0.0\"/>").await,
        "malformed token: the header segment is not base64url without padding: Invalid symbol 60, offset 0."
    );
}

fn refused_member(name: &str) -> String {
    format!(
        "header refused: found header member `{name}`, expected only `alg`, `kid`, `typ`, `x5t` and `x5t#S256`"
    )
}

fn segments(token: &str) -> [&str; 3] {
    let segments: Vec<_> = token.split('.').collect();
    segments.try_into().unwrap()
}

/// The same bytes, spelled with the lowest unused bit set.
fn with_unused_bits(text: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = text.split_at(text.len() - 1);
    let position = ALPHABET.find(last).unwrap();
    format!("{rest}{}", &ALPHABET[position + 1..position + 2])
}
