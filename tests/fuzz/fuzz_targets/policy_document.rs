//! Any text as a policy file: it compiles or it is refused with places inside the text; it never panics, and what compiles
//! decides, explains and is the same when compiled again.

#![no_main]

use std::{collections::BTreeMap, sync::Arc};

use cambio::{
    clock::Instant,
    grant::IssuerName,
    policy::{Context, PolicySet, Source, Wants},
    subject::{Claims, Profile, provider},
    target::{Expiry, Role, Target, Targets},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let context = context();
    let source = Source { name: "p.yaml".to_owned(), text: text.to_owned() };
    match PolicySet::compile(std::slice::from_ref(&source), &context) {
        Err(problems) => {
            let lines = text.split(['\n', '\r']).count() + 1;
            assert!(!problems.is_empty(), "refused without a problem");
            for problem in problems {
                assert!((1..=lines).contains(&problem.line), "{problem}");
                assert!(!problem.message.contains('\n'), "{problem}");
            }
        }
        Ok((set, _)) => {
            let (again, _) = PolicySet::compile(&[source], &context).expect("it compiled before");
            assert_eq!(set.digest(), again.digest());
            let claims: Claims = [("sub", "a"), ("repository_id", "1"), ("repository_owner_id", "1"), ("event_name", "push")]
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            let preset = provider::find("github").expect("a preset");
            let profile = Profile::of(IssuerName::from("github"), preset, claims).expect("a token");
            let now = Instant::from_seconds(1_800_000_000);
            let explanation = set.explain(&profile, &Wants::default(), now);
            assert_eq!(explanation, again.explain(&profile, &Wants::default(), now));
            drop(explanation.to_string());
        }
    }
});

fn context() -> Context {
    let target = Target {
        name: "jwt/orders".into(),
        kind: "jwt".to_owned(),
        aliases: [].into(),
        environment: "prod".to_owned(),
        roles: [("reader".into(), Role::default())].into(),
        granted_by: ["p.yaml".to_owned()].into(),
        expiry: Expiry::ByBroker { ceiling: std::time::Duration::from_secs(3_600) },
    };
    let issuers = ["github", "gitlab", "kubernetes", "generic"]
        .into_iter()
        .filter_map(|name| Some((IssuerName::from(name), provider::find(name)?)))
        .collect::<BTreeMap<_, _>>();
    let targets = Arc::new(Targets::of([target]).expect("one target"));
    Context { targets, issuers, environment: "prod".to_owned() }
}
