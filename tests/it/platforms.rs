//! Every platform whose tokens we know: verified, named, admitted by the rule that `policy init` writes, and by no stranger's.

mod fixtures;
mod page;
mod special;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use cambio::{
    clock::{Instant, ManualClock},
    config::{Config, IssuerConfig},
    grant::IssuerName,
    policy::{Context, Outcome, PolicySet, Source, Wants},
    subject::{
        Claims, Issuer, Issuers, Preset, Profile, Rejection, UnverifiedToken, VerifiedSubject,
        provider, verify::Verifier,
    },
    target::{Expiry, Role, Target, Targets},
};
use fixtures::Fixture;
use serde_json::{Value, json};

use crate::support::{
    issuer::{FakeIssuer, FixedKeys},
    token::{NOW, TokenBuilder},
};

const LATER: Instant = Instant::from_seconds(NOW);

/// An issuer as its configuration has it, with keys made for the test.
struct Bench {
    fixture: Fixture,
    issuer: FakeIssuer,
    preset: &'static Preset,
    verifier: Verifier,
}

impl Bench {
    fn of(fixture: Fixture) -> Self {
        let configured = configured(&fixture, "").unwrap_or_else(|said| panic!("{said}"));
        let algorithm = *configured.algorithms.iter().next().unwrap();
        let issuer = FakeIssuer::signing_with(fixture.issuer, algorithm);
        let preset = configured.preset;
        let known = Issuer {
            name: configured.name,
            url: configured.issuer,
            preset,
            audience: configured.audience,
            algorithms: configured.algorithms,
            leeway: configured.leeway,
            maximum_lifetime: configured.maximum_lifetime,
            maximum_age: configured.maximum_age,
            accepted_types: configured.accepted_types,
            keys: Arc::new(FixedKeys::of(&issuer.jwks())),
            review: None,
        };
        let clock = Arc::new(ManualClock::at(LATER));
        let verifier = Verifier::new(Issuers::of([known]).unwrap(), clock);
        Self { fixture, issuer, preset, verifier }
    }

    fn named(provider: &str) -> Self {
        Self::of(fixtures::of(provider))
    }

    /// What the platform's own token says.
    fn token(&self) -> TokenBuilder<'_> {
        let token = self.issuer.token().audience(self.fixture.audience);
        let token = token.issued_at(NOW, self.fixture.lifetime).claims(self.fixture.claims());
        if self.fixture.has_jti { token } else { token.without("jti") }
    }

    async fn verify(&self, token: &TokenBuilder<'_>) -> Result<VerifiedSubject, Rejection> {
        self.verifier.verify(&UnverifiedToken::new(token.sign())).await
    }

    /// Who the token with `changes` is about (`null` leaves a claim out).
    async fn profile(&self, changes: Value) -> Profile {
        let token = changed(self.token(), changes);
        let verified = self.verify(&token).await;
        verified.unwrap_or_else(|why| panic!("{}: {why}", self.preset.name)).profile().clone()
    }

    /// What is said of the token with `changes`.
    async fn refusal(&self, changes: Value) -> String {
        let token = changed(self.token(), changes);
        match self.verify(&token).await {
            Ok(subject) => format!("verified as {}", subject.profile().our_subject()),
            Err(why) => why.to_string(),
        }
    }
}

fn changed(token: TokenBuilder<'_>, changes: Value) -> TokenBuilder<'_> {
    let Value::Object(changes) = changes else { panic!("expected an object") };
    changes.into_iter().fold(token, |token, (name, value)| match value {
        Value::Null => token.without(&name),
        value => token.claim(&name, value),
    })
}

/// The issuer of `fixture` as a configuration names it, with further `lines`; or what is said of it.
fn configured(fixture: &Fixture, lines: &str) -> Result<IssuerConfig, String> {
    let Fixture { provider, issuer, audience, .. } = fixture;
    let text = format!(
        "version: 1\nenvironment: prod\nissuer: https://cambio.example\ndata: state\nissuers:\n  \
         - name: ci\n    provider: {provider}\n    issuer: \"{issuer}\"\n    audience: \"{audience}\"\n{lines}\
         targets:\n  - {{ name: jwt/orders, kind: jwt, audience: https://orders.example, environment: prod, roles: {{ deployer: {{}} }}, granted_by: [p.yaml] }}\n\
         policies: {{ directory: policies }}\nstore: {{ sqlite: {{ path: state/cambio.db }} }}\n\
         ledger: {{ origin: cambio.example/prod, anchors: [{{ file: anchor/note }}] }}\n\
         keys: {{ key_file: kek }}\nlisten: {{ public: \"127.0.0.1:8443\" }}\ntls: none\n"
    );
    match Config::parse("cambio.yaml", &text, Path::new("/etc/cambio")) {
        Ok((config, _)) => Ok(config.issuers.into_iter().next().unwrap()),
        Err(problems) => Err(shown(&problems)),
    }
}

/// One target, and `preset` under each of `names`.
fn context(names: &[&str], preset: impl Fn(&str) -> &'static Preset) -> Context {
    let target = Target {
        name: "jwt/orders".into(),
        kind: "jwt".to_owned(),
        aliases: BTreeSet::new(),
        environment: "prod".to_owned(),
        roles: BTreeMap::from([("deployer".into(), Role::default())]),
        granted_by: BTreeSet::from(["p.yaml".to_owned()]),
        expiry: Expiry::Exact { floor: Duration::from_secs(1), ceiling: Duration::from_hours(1) },
    };
    Context {
        targets: Arc::new(Targets::of([target]).unwrap()),
        issuers: names.iter().map(|name| (IssuerName::from(*name), preset(name))).collect(),
        environment: "prod".to_owned(),
    }
}

/// The policy `text` for issuer `ci` of `preset`; or what is said of it.
fn compiled(preset: &'static Preset, text: &str) -> Result<PolicySet, String> {
    let source = Source { name: "p.yaml".to_owned(), text: text.to_owned() };
    match PolicySet::compile(&[source], &context(&["ci"], |_| preset)) {
        Ok((set, _)) => Ok(set),
        Err(problems) => Err(shown(&problems)),
    }
}

/// A policy with one rule for issuer `ci`.
fn rule(when: &str, more: &str) -> String {
    format!(
        "version: 1\nrules:\n  - id: a\n    issuer: ci\n    when: {when}\n    \
         grants: [{{ target: jwt/orders, role: deployer, lifetime: 15m }}]\n{more}"
    )
}

fn permits(set: &PolicySet, profile: &Profile) -> bool {
    let explanation = set.explain(profile, &Wants::default(), LATER);
    assert!(!explanation.to_string().is_empty());
    matches!(explanation.outcome, Outcome::Permit { .. })
}

fn shown<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn object(value: Value) -> Claims {
    value.as_object().unwrap().clone()
}

/// The presets that stand for platforms and not for ourselves or for anything.
fn platforms() -> impl Iterator<Item = &'static Preset> {
    provider::ALL.into_iter().filter(|preset| !["cambio", "generic"].contains(&preset.name))
}

/// `{}` for [`Bench::profile`].
fn as_it_is() -> Value {
    json!({})
}
