//! JWTs of ours, prepared, recorded in a real ledger, signed, and read by two implementations that nobody here wrote.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    chance::{Chance, SeededChance},
    clock::Clock,
    grant::{Grant, Replay, RuleId, TargetName},
    id::ExchangeId,
    keys::{
        Phase,
        keyring::{Keyring, TokenType},
        own::OwnKeys,
        ring::Ring,
        rotator::Rotator,
        schedule::{Schedule, Terms},
    },
    ledger::{Commit, Event, Granted, Proposal, Recorded, record, writer::Writer},
    mint::{
        Behind, Credential, MintError, Minter, Plan, Prepared,
        jwt::{JwtMinter, JwtTarget, is_reserved},
    },
    protector::KeyContext,
    store::Store,
    subject::{
        Algorithm, Issuer, Issuers, UnverifiedToken, VerifiedSubject, issuers::IssuerUrl,
        verify::Verifier,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bench::{Bench, ENVIRONMENT, RING};
use crate::support::{
    issuer::{FakeIssuer, PLAIN},
    token::{AUDIENCE, NOW},
};

/// Our `iss`.
pub(crate) const OURS: &str = "https://cambio.example";
pub(crate) const ORDERS: &str = "https://orders.example";

/// Everything from a subject token to a credential.
pub(crate) struct Mint {
    pub(crate) bench: Bench,
    pub(crate) rotator: Rotator,
    pub(crate) ledger: Writer,
    pub(crate) ci: FakeIssuer,
    pub(crate) chance: Arc<dyn Chance>,
    _folder: TempDir,
}

impl Mint {
    pub(crate) async fn signing_with(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let bench = Bench::signing_with(algorithms);
        let rotator = bench.start().await;
        let folder = TempDir::new().unwrap();
        let chance: Arc<dyn Chance> = Arc::new(SeededChance::of(7));
        let store = Store::create(&folder.path().join("ledger.db"), "log.example").unwrap();
        let clock = Arc::clone(&bench.clock) as Arc<dyn Clock>;
        let ledger =
            Writer::start(store.journal, &*store.reader, clock, Arc::clone(&chance), 64).unwrap();
        let ci = FakeIssuer::at("https://ci.example");
        Self { bench, rotator, ledger, ci, chance, _folder: folder }
    }

    pub(crate) async fn new() -> Self {
        Self::signing_with([Algorithm::ES256]).await
    }

    pub(crate) fn keyring(&self) -> &Arc<Keyring> {
        self.rotator.keyring()
    }

    pub(crate) fn target() -> JwtTarget {
        JwtTarget {
            name: TargetName::from("jwt/orders"),
            issuer: OURS.parse().unwrap(),
            audience: ORDERS.to_owned(),
            algorithm: Algorithm::ES256,
            typ: TokenType::AccessToken,
            ceiling: Duration::from_secs(900),
            environment: ENVIRONMENT.to_owned(),
        }
    }

    pub(crate) fn minter(&self, target: JwtTarget) -> JwtMinter {
        JwtMinter::of(target, Arc::clone(self.keyring()), Arc::clone(&self.chance)).unwrap()
    }

    /// Verifies `token` where `ci` and, under a delegation rule, we are issuers.
    pub(crate) async fn verify(
        &self,
        token: &str,
        delegation: bool,
    ) -> Result<VerifiedSubject, String> {
        let own = delegation.then(|| Issuer {
            name: "cambio".into(),
            url: OURS.parse::<IssuerUrl>().unwrap(),
            preset: &PLAIN,
            audience: ORDERS.to_owned(),
            algorithms: BTreeSet::from([Algorithm::ES256]),
            leeway: Duration::ZERO,
            maximum_lifetime: Duration::from_secs(900),
            maximum_age: None,
            accepted_types: BTreeSet::from(["at+jwt".to_owned()]),
            keys: Arc::new(OwnKeys::of(Arc::clone(self.keyring()))),
            review: None,
        });
        let issuers = Issuers::of([self.ci.configured_as("ci")].into_iter().chain(own)).unwrap();
        let verifier = Verifier::new(issuers, Arc::clone(&self.bench.clock) as Arc<dyn Clock>);
        let outcome = verifier.verify(&UnverifiedToken::new(token.to_owned())).await;
        outcome.map_err(|rejection| rejection.to_string())
    }

    pub(crate) async fn subject(&self) -> VerifiedSubject {
        self.verify(&self.ci.token().sign(), false).await.unwrap()
    }

    pub(crate) fn behind<'a>(&self, subject: &'a VerifiedSubject) -> Behind<'a> {
        let now = self.bench.clock_now();
        let exchange_id = ExchangeId::make(now, &*self.chance).unwrap();
        let subject = subject.unasked().unwrap();
        Behind { exchange_id, subject, actor: None, now, csr: None }
    }

    pub(crate) async fn recorded(&self, prepared: Prepared) -> Recorded<Prepared> {
        let Plan::Jwt(plan) = &prepared.plan else { panic!("no JWT") };
        let event = Event::Granted(Granted {
            exchange_id: ExchangeId::make(self.bench.clock_now(), &*self.chance).unwrap(),
            issuer: "ci".into(),
            subject: "ci:sub:somebody".to_owned(),
            token: [1; 32],
            target: prepared.target.clone(),
            role: "reader".into(),
            rules: vec![RuleId::from("orders/read")],
            policy: [2; 32],
            expires_at: prepared.expires_at,
            credential: prepared.credential.clone(),
            signing_input: Some(plan.digest),
            kid: Some(plan.kid.clone()),
        });
        record(&self.ledger as &dyn Commit, Proposal::of(event), prepared).await.unwrap()
    }

    /// From grant to token.
    pub(crate) async fn mint(
        &self,
        minter: &dyn Minter,
        grant: &Grant,
        behind: Behind<'_>,
    ) -> Result<Credential, MintError> {
        let prepared = minter.prepare(grant, behind)?;
        minter.mint(self.recorded(prepared).await).await
    }
}

pub(crate) fn grant(seconds: u64) -> Grant {
    Grant {
        target: TargetName::from("jwt/orders"),
        role: "reader".into(),
        rules: vec![RuleId::from("orders/read"), RuleId::from("orders/write")],
        lifetime: Duration::from_secs(seconds),
        bounded_by_subject: false,
        replay: Replay::Once,
        subject: None,
        scope: vec!["reader".to_owned(), "orders:list".to_owned()],
        policy_digest: [2; 32],
        claims: [("repository_id".to_owned(), json!("1296269"))].into(),
    }
}

pub(crate) fn text(credential: &Credential) -> &str {
    credential.value.reveal_text().unwrap()
}

/// Header and claims, unverified.
pub(crate) fn parts(token: &str) -> (Value, Value) {
    let part = |place: usize| {
        let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(place).unwrap()).unwrap();
        serde_json::from_str(std::str::from_utf8(&bytes).unwrap()).unwrap()
    };
    (part(0), part(1))
}

fn claims_of(prepared: &Prepared) -> Value {
    let Plan::Jwt(plan) = &prepared.plan else { panic!("no JWT") };
    parts(&plan.signing_input).1
}

fn published_jwk(mint: &Mint, kid: &str) -> Value {
    let document = mint.keyring().published(mint.bench.clock_now()).document;
    let set: Value = serde_json::from_str(&document).unwrap();
    set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap().clone()
}

#[tokio::test]
async fn a_token_says_who_for_whom_until_when_and_by_which_rule() {
    let mint = Mint::new().await;
    let subject = mint.subject().await;
    let minter = mint.minter(Mint::target());
    let credential = mint.mint(&minter, &grant(600), mint.behind(&subject)).await.unwrap();
    let (header, claims) = parts(text(&credential));
    let active = mint.keyring().active(Algorithm::ES256).unwrap();
    assert_eq!(header, json!({ "alg": "ES256", "typ": "at+jwt", "kid": active.signer().key_id() }));
    let jti = claims["jti"].as_str().unwrap();
    assert_eq!(URL_SAFE_NO_PAD.decode(jti).unwrap().len(), 16);
    assert_eq!(
        claims,
        json!({
            "iss": OURS, "sub": "ci:sub:repo:acme/site:ref:refs/heads/main", "aud": ORDERS,
            "exp": NOW + 600, "iat": NOW, "jti": jti, "client_id": "orders/read",
            "scope": "reader orders:list", "repository_id": "1296269",
        })
    );
    assert_eq!(credential.expires_at.seconds(), NOW + 600);
    assert_eq!(credential.scope, ["reader", "orders:list"]);
    assert_eq!(credential.token_type, "Bearer");
    let mut fixed = grant(600);
    fixed.subject = Some("orders-reader".to_owned());
    let prepared = minter.prepare(&fixed, mint.behind(&subject)).unwrap();
    assert_eq!(claims_of(&prepared)["sub"], "orders-reader");
    let Plan::Jwt(plan) = &prepared.plan else { panic!("no JWT") };
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, plan.signing_input.as_bytes());
    assert_eq!(digest.as_ref(), plan.digest, "the entry commits to every byte that is signed");
}

#[tokio::test]
async fn every_token_verifies_with_two_other_implementations() {
    use Algorithm::{ES256, ES384, ES512, EdDSA, PS256, RS256};
    let algorithms = [ES256, ES384, ES512, EdDSA, PS256, RS256];
    let mint = Mint::signing_with(algorithms).await;
    let subject = mint.subject().await;
    for algorithm in algorithms {
        for typ in [TokenType::AccessToken, TokenType::Jwt] {
            let minter = mint.minter(JwtTarget { algorithm, typ, ..Mint::target() });
            let credential = mint.mint(&minter, &grant(600), mint.behind(&subject)).await.unwrap();
            let token = text(&credential);
            let (header, claims) = parts(token);
            assert_eq!(header["typ"], typ.as_str());
            let jwk = published_jwk(&mint, header["kid"].as_str().unwrap());
            assert_eq!(openssl_reads(algorithm, &jwk, token), claims, "josekit, {algorithm}");
            // jsonwebtoken has no P-521.
            if algorithm != ES512 {
                assert_eq!(
                    jsonwebtoken_reads(algorithm, &jwk, token),
                    claims,
                    "jsonwebtoken, {algorithm}"
                );
            }
        }
    }
}

fn openssl_reads(algorithm: Algorithm, jwk: &Value, token: &str) -> Value {
    use josekit::jws::{self, JwsVerifier};
    let jwk = josekit::jwk::Jwk::from_map(jwk.as_object().unwrap().clone()).unwrap();
    let verifier: Box<dyn JwsVerifier> = match algorithm {
        Algorithm::ES256 => Box::new(jws::ES256.verifier_from_jwk(&jwk).unwrap()),
        Algorithm::ES384 => Box::new(jws::ES384.verifier_from_jwk(&jwk).unwrap()),
        Algorithm::ES512 => Box::new(jws::ES512.verifier_from_jwk(&jwk).unwrap()),
        Algorithm::EdDSA => Box::new(jws::EdDSA.verifier_from_jwk(&jwk).unwrap()),
        Algorithm::PS256 => Box::new(jws::PS256.verifier_from_jwk(&jwk).unwrap()),
        _ => Box::new(jws::RS256.verifier_from_jwk(&jwk).unwrap()),
    };
    let (payload, _) = jws::deserialize_compact(token, &*verifier).unwrap();
    serde_json::from_str(std::str::from_utf8(&payload).unwrap()).unwrap()
}

fn jsonwebtoken_reads(algorithm: Algorithm, jwk: &Value, token: &str) -> Value {
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwk.clone()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let mut wanted = jsonwebtoken::Validation::new(algorithm.as_str().parse().unwrap());
    wanted.set_audience(&[ORDERS]);
    wanted.set_issuer(&[OURS]);
    // It reads the wall clock; ours is pushed.
    wanted.validate_exp = false;
    jsonwebtoken::decode::<Value>(token, &key, &wanted).unwrap().claims
}

#[tokio::test]
async fn x10_never_outlive_the_shortest_of_grant_ceiling_and_subject() {
    let mint = Mint::new().await;
    let subject = mint.subject().await;
    let minter = mint.minter(JwtTarget { ceiling: Duration::from_secs(600), ..Mint::target() });
    let lasts = |grant: &Grant| {
        let prepared = minter.prepare(grant, mint.behind(&subject));
        prepared
            .map(|prepared| prepared.expires_at.seconds() - NOW)
            .map_err(|error| error.to_string())
    };
    assert_eq!(lasts(&grant(30)), Ok(30));
    assert_eq!(lasts(&grant(315_360_000)), Ok(600), "ten years are the ceiling");
    assert_eq!(lasts(&grant(u64::MAX)), Ok(600));
    let none = Err("no lifetime is left: less than a second".to_owned());
    assert_eq!(lasts(&grant(0)), none);
    assert_eq!(lasts(&Grant { lifetime: Duration::from_millis(999), ..grant(0) }), none);
    let bounded = Grant { bounded_by_subject: true, ..grant(600) };
    assert_eq!(lasts(&bounded), Ok(300), "the subject token ends in 300 s");
    mint.bench.pass(300);
    assert_eq!(lasts(&bounded), none, "accepted within the leeway, but it is over");
}

#[tokio::test]
async fn x10_never_outlive_the_window_of_the_key() {
    let mut mint = Mint::new().await;
    // The configuration has longer lifetimes now; until the ring has taken the step, its key was not made for them.
    mint.bench.terms.longest_lifetime = Duration::from_secs(3_600);
    mint.bench.journal.break_writes(true);
    assert!(mint.bench.try_start().await.is_err(), "without the step it does not start");
    mint.bench.journal.break_writes(false);
    mint.rotator = mint.bench.start().await;
    let told = mint.bench.journal.told();
    let steps: Vec<_> = told.iter().map(|told| told.split(' ').next().unwrap()).collect();
    assert_eq!(steps, ["prepare", "promote-first", "prepare", "widen", "widen"]);
    let minter = mint.minter(JwtTarget { ceiling: Duration::from_secs(3_600), ..Mint::target() });
    let subject = mint.subject().await;
    let prepared = minter.prepare(&grant(3_600), mint.behind(&subject)).unwrap();
    assert_eq!(prepared.expires_at.seconds(), NOW + 3_600);
    // And shorter again: what was signed for an hour keeps its key for an hour.
    mint.bench.terms.longest_lifetime = Duration::from_secs(60);
    mint.rotator = mint.bench.start().await;
    let Plan::Jwt(plan) = &prepared.plan else { panic!("no JWT") };
    mint.bench.pass(3_600);
    mint.rotator.rotate_now(Algorithm::ES256, false).await.unwrap();
    mint.bench.pass(3_600);
    while mint.rotator.turn().await.unwrap().is_some() {}
    assert!(mint.keyring().find(&plan.kid).is_some(), "retired, and still published");
    mint.bench.pass(66);
    while mint.rotator.turn().await.unwrap().is_some() {}
    assert!(mint.keyring().find(&plan.kid).is_none(), "pruned");
}

#[tokio::test]
async fn x10_never_outlive_a_key_that_another_node_made_for_shorter_lifetimes() {
    let mint = Mint::new().await;
    let (epoch, sealed) = mint.bench.journal.sealed();
    let context = KeyContext { ring: RING.to_owned(), epoch, environment: ENVIRONMENT.to_owned() };
    let ring = Ring::open(&sealed, &context, &*mint.bench.protector).await.unwrap();
    let longest_lifetime = Duration::from_secs(3_600);
    let terms = Terms { longest_lifetime, ..mint.bench.terms.clone() };
    let keyring = Arc::new(Keyring::of(ring, Schedule::derive(terms).unwrap()).unwrap());
    let target = JwtTarget { ceiling: longest_lifetime, ..Mint::target() };
    let minter = JwtMinter::of(target, keyring, Arc::clone(&mint.chance)).unwrap();
    let subject = mint.subject().await;
    let prepared = minter.prepare(&grant(3_600), mint.behind(&subject)).unwrap();
    assert_eq!(prepared.expires_at.seconds(), NOW + 900);
}

#[tokio::test]
async fn k06_what_was_prepared_is_not_signed_with_a_key_withdrawn_meanwhile() {
    let mint = Mint::new().await;
    let subject = mint.subject().await;
    let minter = mint.minter(Mint::target());
    let prepared = minter.prepare(&grant(600), mint.behind(&subject)).unwrap();
    let recorded = mint.recorded(prepared).await;
    let leaked = mint.keyring().active(Algorithm::ES256).unwrap().signer().key_id().to_owned();
    mint.rotator.withdraw(&leaked, false).await.unwrap();
    let error = minter.mint(recorded).await.unwrap_err();
    assert_eq!(error, MintError::NoKey(format!("key `{leaked}` was withdrawn")));
    let error = minter.prepare(&grant(600), mint.behind(&subject)).unwrap_err();
    assert_eq!(error.to_string(), "no signing key: no ES256 key signs now");
}

#[tokio::test]
async fn what_was_prepared_before_a_rotation_is_signed_after_it() {
    let mint = Mint::new().await;
    mint.bench.pass(3_600);
    let token = mint.ci.token().issued_at(NOW + 3_600, 300).sign();
    let subject = mint.verify(&token, false).await.unwrap();
    let minter = mint.minter(Mint::target());
    let prepared = minter.prepare(&grant(600), mint.behind(&subject)).unwrap();
    let recorded = mint.recorded(prepared).await;
    mint.rotator.rotate_now(Algorithm::ES256, false).await.unwrap();
    let credential = minter.mint(recorded).await.unwrap();
    let (header, claims) = parts(text(&credential));
    let jwk = published_jwk(&mint, header["kid"].as_str().unwrap());
    assert_eq!(openssl_reads(Algorithm::ES256, &jwk, text(&credential)), claims);
    let retired = mint.keyring().records().into_iter().find(|r| r.phase == Phase::Retired).unwrap();
    assert_eq!(header["kid"], retired.kid);
}

#[tokio::test]
async fn one_minter_does_not_sign_for_another_target() {
    let mint = Mint::new().await;
    let subject = mint.subject().await;
    let minter = mint.minter(Mint::target());
    let other = mint.minter(JwtTarget { name: "jwt/other".into(), ..Mint::target() });
    let error = other.prepare(&grant(600), mint.behind(&subject)).unwrap_err();
    assert_eq!(error.to_string(), "a grant for `jwt/orders` came here");
    let prepared = minter.prepare(&grant(600), mint.behind(&subject)).unwrap();
    let error = other.mint(mint.recorded(prepared).await).await.unwrap_err();
    assert_eq!(error.to_string(), "prepared for `jwt/orders`");
}

#[tokio::test]
async fn a_mapped_claim_never_speaks_in_our_name() {
    let mint = Mint::new().await;
    let subject = mint.subject().await;
    let minter = mint.minter(Mint::target());
    for name in [
        "iss",
        "sub",
        "aud",
        "exp",
        "iat",
        "nbf",
        "jti",
        "client_id",
        "scope",
        "act",
        "may_act",
        "cnf",
        "https://aws.amazon.com/tags",
        "https://aws.amazon.com/source_identity",
    ] {
        assert!(is_reserved(name));
        let mut grant = grant(600);
        grant.claims.insert(name.to_owned(), json!("x"));
        let error = minter.prepare(&grant, mint.behind(&subject)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("nothing was issued: claim `{name}` can't be mapped")
        );
    }
}

#[tokio::test]
async fn x09_what_is_issued_is_never_a_refresh_token() {
    let mint = Mint::new().await;
    let subject = mint.subject().await;
    let mut told = Vec::new();
    for typ in [TokenType::AccessToken, TokenType::Jwt] {
        let minter = mint.minter(JwtTarget { typ, ..Mint::target() });
        let credential = mint.mint(&minter, &grant(600), mint.behind(&subject)).await.unwrap();
        told.push((credential.issued_token_type, credential.token_type));
    }
    assert_eq!(
        told,
        [
            ("urn:ietf:params:oauth:token-type:access_token", "Bearer"),
            ("urn:ietf:params:oauth:token-type:jwt", "N_A"),
        ]
    );
}

#[tokio::test]
async fn x06_a_token_of_ours_is_no_subject_token_unless_configured_and_never_gains_time() {
    let mint = Mint::new().await;
    let minter = mint.minter(Mint::target());
    let subject = mint.subject().await;
    let first = mint.mint(&minter, &grant(120), mint.behind(&subject)).await.unwrap();
    assert_eq!(
        mint.verify(text(&first), false).await.unwrap_err(),
        format!("issuer `{OURS}` is not configured")
    );
    mint.bench.pass(20);
    let ours = mint.verify(text(&first), true).await.unwrap();
    // No rule says `bounded_by_subject`; a chain of exchanges gains no second all the same.
    let second = mint.mint(&minter, &grant(900), mint.behind(&ours)).await.unwrap();
    let (_, claims) = parts(text(&second));
    assert_eq!(claims["exp"], NOW + 120);
    assert_eq!(claims["iat"], NOW + 20);
    let leaked = mint.keyring().active(Algorithm::ES256).unwrap().signer().key_id().to_owned();
    mint.rotator.withdraw(&leaked, false).await.unwrap();
    assert_eq!(
        mint.verify(text(&second), true).await.unwrap_err(),
        format!(
            "no key of issuer `cambio` fits: no key `{leaked}`: it is none of ours, not yet in use, pruned or withdrawn"
        )
    );
    let plain = mint.ci.token().header("typ", "at+jwt").sign();
    assert!(mint.verify(&plain, true).await.is_err(), "a stranger's `at+jwt` stays refused (J21)");
}

#[tokio::test]
async fn x07_the_chain_of_actors_is_kept_pruned_to_identities_and_never_spliced() {
    let mint = Mint::new().await;
    let minter = mint.minter(Mint::target());
    let token = |sub: &str| mint.ci.token().subject(sub);
    let verify = async |token: String| mint.verify(&token, false).await.unwrap();
    let plain = verify(token("job").sign()).await;
    let chained = token("job").claim(
        "act",
        json!({ "sub": "a1", "exp": 1, "aud": "x", "act": { "sub": "a2", "scope": "y" } }),
    );
    let chained = verify(chained.sign()).await;
    let robot = verify(token("robot").sign()).await;
    let acting_robot = verify(token("robot").claim("act", json!({ "sub": "a3" })).sign()).await;
    let act = |subject: &VerifiedSubject, actor: Option<&VerifiedSubject>| {
        let actor = actor.map(|actor| actor.unasked().unwrap());
        let behind = Behind { actor, ..mint.behind(subject) };
        let prepared = minter.prepare(&grant(600), behind).map_err(|error| error.to_string())?;
        Ok::<_, String>(claims_of(&prepared)["act"].clone())
    };
    let ci = "https://ci.example";
    assert_eq!(act(&plain, None), Ok(Value::Null));
    assert_eq!(act(&plain, Some(&robot)), Ok(json!({ "sub": "ci:sub:robot" })));
    let kept = json!({ "iss": ci, "sub": "a1", "act": { "iss": ci, "sub": "a2" } });
    assert_eq!(
        act(&chained, None),
        Ok(kept.clone()),
        "not stripped on the way, and no `exp`, no `aud`"
    );
    assert_eq!(act(&chained, Some(&robot)), Ok(json!({ "sub": "ci:sub:robot", "act": kept })));
    assert_eq!(
        act(&plain, Some(&acting_robot)),
        Ok(json!({ "sub": "ci:sub:robot", "act": { "iss": ci, "sub": "a3" } }))
    );
    let refused = |reason: &str| Err(format!("actors: {reason}"));
    assert_eq!(
        act(&chained, Some(&acting_robot)),
        refused("subject token and actor token have a chain of actors each")
    );
    assert_eq!(act(&plain, Some(&plain)), refused("the chain of actors is circular"));
    let deep = token("job")
        .claim("act", json!({ "sub": "1", "act": { "sub": "2", "act": { "sub": "3" } } }));
    let deep = verify(deep.sign()).await;
    assert!(act(&deep, None).is_ok());
    assert_eq!(act(&deep, Some(&robot)), refused("the chain of actors is deeper than 3"));
    for broken in
        [json!("robot"), json!({}), json!({ "sub": 1 }), json!({ "sub": "" }), Value::Null]
    {
        let broken = verify(token("job").claim("act", broken).sign()).await;
        assert_eq!(act(&broken, None), refused("an actor of the token has no `sub`"));
    }
    // Ours are written without `iss`: who signs `act` for a job of theirs must not speak in our name.
    let victim = "github:repository_id:1296269";
    for forged in [
        json!({ "iss": OURS, "sub": victim }),
        json!({ "sub": "a1", "act": { "iss": OURS, "sub": victim } }),
    ] {
        let forged = verify(token("job").claim("act", forged).sign()).await;
        let named = refused("an actor of another issuer's token is named as one of ours");
        assert_eq!(act(&forged, None), named);
        assert_eq!(act(&plain, Some(&forged)), named);
    }
    let odd = verify(token("job").claim("act", json!({ "iss": [OURS], "sub": "a1" })).sign()).await;
    assert_eq!(act(&odd, None), refused("an actor of the token has an `iss` that is no text"));
    let again = json!({ "sub": "1", "act": { "sub": "2", "act": { "sub": "1" } } });
    let again = verify(token("job").claim("act", again).sign()).await;
    assert_eq!(act(&again, None), refused("the chain of actors is circular"));
}

#[tokio::test]
async fn a_target_that_the_ring_can_not_serve_is_refused_at_start() {
    let mint = Mint::new().await;
    let fault = |target: JwtTarget| {
        let keyring = Arc::clone(mint.keyring());
        JwtMinter::of(target, keyring, Arc::clone(&mint.chance)).unwrap_err().to_string()
    };
    assert_eq!(
        fault(JwtTarget { environment: "prod".to_owned(), ..Mint::target() }),
        "target `jwt/orders` belongs to environment `prod`, expected `test`"
    );
    assert_eq!(
        fault(JwtTarget { algorithm: Algorithm::RS256, ..Mint::target() }),
        "target `jwt/orders` wants `RS256`, which we do not sign with"
    );
    assert_eq!(
        fault(JwtTarget { ceiling: Duration::from_secs(901), ..Mint::target() }),
        "target `jwt/orders` has a ceiling of 901 s, expected 1 s to 900 s"
    );
    assert_eq!(
        fault(JwtTarget { audience: String::new(), ..Mint::target() }),
        "target `jwt/orders` has no audience"
    );
    assert_eq!(AUDIENCE, OURS);
}
