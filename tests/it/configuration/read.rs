//! What a good configuration comes to: defaults, typed values, warnings.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, time::Duration};

use cambio::{
    config::{
        AnchorConfig, Config, Discovered, JwtType, KeysFrom, LimitsConfig, LogFormat, LogLevel,
        ProtectorConfig, StoreConfig, TargetKind, TlsConfig, TokenReviewConfig,
    },
    grant::{RoleName, TargetName},
    subject::Algorithm,
    target::Expiry,
};

use super::{VALID, lines, said_of, with};

fn read(text: &str) -> Config {
    let judged = Config::parse("cambio.yaml", text, Path::new("/etc/cambio"));
    judged.map_err(|problems| lines(&problems)).unwrap().0
}

#[test]
fn values_are_typed_and_paths_start_at_the_file() {
    let config = read(VALID);
    assert_eq!(config.environment, "prod");
    assert_eq!(config.issuer.as_str(), "https://cambio.example.com");
    assert_eq!(config.data, Path::new("/etc/cambio/state"));
    assert_eq!(config.policies.directory, Path::new("/etc/cambio/policies"));
    assert_eq!(config.store, StoreConfig::Sqlite { path: "/etc/cambio/state/cambio.db".into() });
    assert_eq!(config.ledger.origin, "cambio.example.com/prod");
    assert_eq!(config.ledger.anchors, [AnchorConfig::File("/etc/cambio/anchor/note".into())]);
    assert_eq!(config.keys.protector, ProtectorConfig::KeyFile("/etc/cambio/kek".into()));
    assert_eq!(config.listen.public, SocketAddr::from(([127, 0, 0, 1], 8443)));
    assert_eq!(config.listen.admin_socket, Path::new("/etc/cambio/state/admin.sock"));
    assert_eq!(config.tls, TlsConfig::None);
}

#[test]
fn what_is_left_out_is_safe() {
    let config = read(&with("store: { sqlite: { path: state/cambio.db } }\n", ""));
    assert_eq!(config.store, StoreConfig::Sqlite { path: "/etc/cambio/state/cambio.db".into() });
    assert!(config.policies.watch);
    assert_eq!(config.policies.guardrails, None);
    assert_eq!(config.ledger.checkpoint_every, Duration::from_secs(1));
    assert_eq!(config.keys.sign_for, Duration::from_hours(30 * 24));
    assert_eq!(config.keys.verifier_cache, Duration::from_hours(24));
    assert_eq!(config.keys.jwks_max_age, Duration::from_mins(5));
    assert_eq!(config.listen.operations, SocketAddr::from(([127, 0, 0, 1], 9090)));
    assert_eq!(config.listen.proxies, []);
    assert_eq!(config.limits, LimitsConfig::default());
    assert_eq!((config.log.format, config.log.level), (LogFormat::Json, LogLevel::Info));
}

#[cfg(not(feature = "otel"))]
#[test]
fn traces_are_refused_by_a_build_that_sends_none() {
    let text =
        with("tls: none", "tls: none\nlog: { otlp: \"https://collector.example/v1/traces\" }");
    assert_eq!(
        said_of(&text),
        "cambio.yaml:32:14: `otlp` takes feature `otel`, which this build does not have\n  \
         hint: build with `cargo build --release --features otel`"
    );
}

#[cfg(feature = "otel")]
#[test]
fn traces_go_over_tls_or_stay_on_this_machine() {
    let collector =
        |url: &str| with("tls: none", &format!("tls: none\nlog: {{ otlp: \"{url}\" }}"));
    for good in
        ["https://collector.example/v1/traces", "http://127.0.0.1:4318/v1/traces", "http://[::1]/"]
    {
        let read = read(&collector(good)).log.otlp;
        assert_eq!(read.as_ref().map(url::Url::as_str), Some(good));
    }
    for bad in [
        "http://collector.example/v1/traces",
        "http://localhost:4318/v1/traces",
        "https://user:passw0rd@collector.example/",
        "https://collector.example/?key=passw0rd",
        "127.0.0.1:4318",
    ] {
        let said = said_of(&collector(bad));
        assert!(
            said.starts_with("cambio.yaml:32:14: `otlp` is no URL of a collector, "),
            "{bad}: {said}"
        );
        assert!(!said.contains("passw0rd"), "{said}");
    }
}

#[test]
fn an_api_server_is_asked_within_bounds() {
    let pinned = "keys: { pinned: { file: blue.json } }";
    let review = "token_review: { api_server: https://k8s.example.com/blue, ca_file: ca.crt, token_file: token }";
    let config = read(&with(pinned, &format!("{pinned}\n    {review}")));
    let expected = TokenReviewConfig {
        api_server: "https://k8s.example.com/blue".parse().unwrap(),
        ca_file: "/etc/cambio/ca.crt".into(),
        token_file: "/etc/cambio/token".into(),
        timeout: Duration::from_secs(3),
        max_in_flight: 64,
    };
    assert_eq!(config.issuers[1].token_review, Some(expected));
    assert_eq!(config.issuers[0].token_review, None);
}

#[test]
fn an_issuer_starts_from_what_its_provider_is_known_for() {
    let config = read(VALID);
    let [github, blue] = config.issuers.as_slice() else { panic!("two issuers") };
    assert_eq!(github.issuer.as_str(), "https://token.actions.githubusercontent.com");
    assert_eq!(github.preset.name, "github");
    assert_eq!(github.maximum_lifetime, Duration::from_mins(15));
    assert_eq!(github.maximum_age, None);
    assert_eq!(github.leeway, Duration::from_secs(30));
    assert_eq!(github.algorithms, BTreeSet::from([Algorithm::RS256]));
    assert_eq!(github.accepted_types, BTreeSet::from(["JWT".to_owned()]));
    let plain = Discovered {
        jwks_uri: None,
        jwks_origin: None,
        ca_file: None,
        bearer_token_file: None,
        private: false,
        stale_after: Duration::from_hours(1),
    };
    assert_eq!(github.keys, KeysFrom::Discovered(Box::new(plain)));
    assert_eq!(blue.keys, KeysFrom::Pinned { file: "/etc/cambio/blue.json".into() });
    assert_eq!(blue.maximum_lifetime, Duration::from_hours(1));
    assert_eq!(blue.token_review, None, "nobody is asked unless somebody said so");
    let context = config.policy_context();
    let kinds: Vec<_> = context.iter().map(|(name, preset)| (name.as_str(), preset.name)).collect();
    assert_eq!(kinds, [("blue", "kubernetes"), ("github", "github")]);
}

#[test]
fn a_target_is_found_by_name_audience_and_alias_and_by_nothing_else() {
    let aliased = "    granted_by: [orders.yaml]\n    aliases: [urn:example:orders]\n    ceiling: 30m\n    token_type: JWT\n    algorithm: RS256";
    let config = read(&with("    granted_by: [orders.yaml]", aliased));
    let targets = config.targets().unwrap();
    let orders = targets.find(&TargetName::from("jwt/orders")).unwrap();
    for name in ["jwt/orders", "https://orders.example.com", "urn:example:orders"] {
        assert_eq!(targets.resolve(name), Some(orders), "{name}");
    }
    for name in ["https://orders.example.com/", "orders", "JWT/orders", ""] {
        assert_eq!(targets.resolve(name), None, "{name}");
    }
    let (floor, ceiling) = (Duration::from_secs(1), Duration::from_mins(30));
    assert_eq!(orders.expiry, Expiry::Exact { floor, ceiling });
    assert_eq!(orders.granted_by, BTreeSet::from(["orders.yaml".to_owned()]));
    let role = &orders.roles[&RoleName::from("read")];
    assert_eq!(role.scope, BTreeSet::from(["orders.read".to_owned()]));
    assert_eq!(config.targets[0].kind.jwt().unwrap().token_type, JwtType::Jwt);
    let terms = config.terms();
    assert_eq!(terms.algorithms, BTreeSet::from([Algorithm::RS256, Algorithm::ES256]));
    assert_eq!(terms.longest_lifetime, Duration::from_hours(1));
}

#[test]
fn our_own_api_answers_to_our_issuer_url() {
    let config = read(VALID);
    assert!(matches!(config.targets[1].kind, TargetKind::Cambio(_)));
    let targets = config.targets().unwrap();
    let ours = targets.resolve("https://cambio.example.com").unwrap();
    assert_eq!((ours.name.as_str(), ours.kind.as_str()), ("cambio", "cambio"));
}

#[test]
fn what_is_legal_and_seldom_meant_is_told() {
    insta::assert_snapshot!(said_of(&with("    granted_by: [orders.yaml]\n", "")), @r"
    warned: cambio.yaml:15:11: nobody may have target `jwt/orders`: no trust policy may grant it
      hint: name files in `granted_by`
    ");
    insta::assert_snapshot!(said_of(&with("[{ file: anchor/note }]", "none")), @r"
    warned: cambio.yaml:28:53: the ledger has no anchor: nobody could show that its tail was cut
      hint: name a file on another disk or host
    ");
    insta::assert_snapshot!(said_of(&with("file: anchor/note", "file: state/note")), @r"
    warned: cambio.yaml:28:54: this anchor lies in `data`: who cuts the ledger can cut it too
      hint: name a file on another disk or host
    ");
    insta::assert_snapshot!(said_of(&with("127.0.0.1:8443", "0.0.0.0:8443")), @r"
    warned: cambio.yaml:31:6: plain http on `0.0.0.0:8443`, and no proxy is named
      hint: name the proxy that speaks TLS for us in `listen.proxies`
    ");
}

#[test]
fn problems_of_shape_and_of_meaning_are_told_together_in_the_order_of_the_file() {
    let text = with("environment: prod\nissuer", "environment: Prod\nissuer")
        .replace("leeway", "")
        .replace("  - name: blue\n", "  - name: github\n    colour: blue\n")
        .replace("public: \"127.0.0.1:8443\"", "public: here");
    insta::assert_snapshot!(said_of(&text), @r"
    cambio.yaml:2:14: `environment` is `Prod`, expected lower-case letters, digits and `-`
      hint: such as `prod`
    cambio.yaml:9:11: issuer name `github` is already taken on line 6
      hint: the name is part of every `sub`: two issuers with one name would be each other
    cambio.yaml:10:5: `colour` is not a key of an issuer
      hint: expected `name`, `provider`, `issuer`, `audience`, `keys`, `algorithms`, `leeway`, `maximum_lifetime`, `maximum_age`, `accepted_types` or `token_review`
    cambio.yaml:31:19: `public` is `here`, expected an address and a port
      hint: such as `0.0.0.0:8443` or `[::]:8443`: no host names
    ");
}
