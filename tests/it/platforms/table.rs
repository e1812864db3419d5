//! What holds for every platform.

use std::collections::BTreeMap;

use cambio::{
    grant::Replay,
    policy::init::init,
    subject::{
        Algorithm, Rejection,
        provider::{ClaimType, platform::of_issuer},
    },
};
use serde_json::{Value, json};

use super::{
    Bench, LATER, as_it_is, changed, compiled, configured, fixtures, object, permits, platforms,
    rule, shown,
};

#[test]
fn every_platform_has_a_token_here_and_a_word_in_the_configuration() {
    let ours: Vec<&str> = platforms().map(|preset| preset.name).collect();
    let known: Vec<&str> = fixtures::ALL.iter().map(|fixture| fixture.provider).collect();
    assert_eq!(ours, known);
    for fixture in fixtures::ALL {
        let read = configured(fixture, "").map(|issuer| issuer.preset.name);
        assert_eq!(read, Ok(fixture.provider));
    }
}

/// The whole of it: the platform's token is verified, is called what the preset says, and is admitted by the rule that `policy
/// init` writes for it; a stranger of the same issuer is verified too, and is not.
#[tokio::test]
async fn c01_each_platforms_token_gets_the_rule_that_fits_it_and_strangers_get_nothing() {
    for fixture in fixtures::ALL {
        let bench = Bench::of(*fixture);
        let (name, preset) = (fixture.provider, bench.preset);
        let profile = bench.profile(as_it_is()).await;
        assert_eq!(profile.our_subject(), format!("ci:{}", fixture.stable_id));
        assert_eq!(preset.unaccounted(&profile.claims).collect::<Vec<_>>(), [""; 0], "{name}");

        let signed = bench.token().claim_set().clone();
        let text = init(&profile, &signed, Some("jwt/orders"), Some("deployer"));
        let set = compiled(preset, &text).unwrap_or_else(|said| panic!("{name}: {said}\n{text}"));
        assert!(permits(&set, &profile), "{name}\n{text}");
        let cases = set.run_cases(&BTreeMap::new(), LATER);
        assert!(cases.len() == 1 && cases[0].passed, "{name}: {}\n{text}", shown(&cases));

        let stranger = bench.profile((fixture.stranger)()).await;
        assert_ne!(stranger.our_subject(), profile.our_subject(), "{name}");
        assert!(!permits(&set, &stranger), "{name}: a stranger is admitted by\n{text}");
    }
}

/// Threat C01: without its pins, and with no more than what a whole organization shares, the rule does not load.
#[tokio::test]
async fn c01_a_platforms_rule_that_lost_its_pins_does_not_load() {
    for fixture in fixtures::ALL {
        let bench = Bench::of(*fixture);
        let (name, preset) = (fixture.provider, bench.preset);
        let profile = bench.profile(as_it_is()).await;
        let signed = bench.token().claim_set().clone();
        let text = init(&profile, &signed, Some("jwt/orders"), Some("deployer"));
        let without = |keep: &dyn Fn(&str) -> bool| {
            let is_pin = |line: &str| {
                let claim = line.trim_start().split(':').next().unwrap_or_default();
                line.starts_with("      ") && preset.pins.iter().any(|set| set.contains(&claim))
            };
            let claim = |line: &str| line.trim().split(':').next().unwrap_or_default().to_owned();
            let kept = text.lines().filter(|line| !is_pin(line) || keep(&claim(line)));
            // The case belongs to the rule as it was; a `when` must hold something.
            let rule = kept.collect::<Vec<_>>().join("\n");
            let rule = rule.split("\ncases:").next().unwrap().to_owned();
            rule.replacen("    when:\n", "    when:\n      /filler: x\n", 1)
        };
        let said = compiled(preset, &without(&|_| false)).map(|_| ());
        let said = said.expect_err(name);
        assert!(said.contains("is pinned to no tenant"), "{name}: {said}");
        if preset.organizations.is_empty() {
            continue;
        }
        let shared = without(&|claim| preset.organizations.contains(&claim));
        let said = compiled(preset, &shared).map(|_| ()).expect_err(name);
        assert!(
            said.contains("admits every workload of the pinned organization"),
            "{name}: {said}"
        );
        let meant = shared.replacen("    grants:", "    allow_organization: true\n    grants:", 1);
        assert!(compiled(preset, &meant).is_ok(), "{name}\n{meant}");
    }
}

/// Threat C10: what a platform signs with another type than it documents is refused, not converted.
#[tokio::test]
async fn c10_no_platforms_claim_has_another_type_than_the_preset_says() {
    for fixture in fixtures::ALL {
        let bench = Bench::of(*fixture);
        let mut typed = 0;
        for (claim, value) in object(fixture.claims()) {
            let Some(spec) = bench.preset.claim(&claim) else { panic!("{claim}") };
            let wrong = match (spec.kind, &value) {
                (ClaimType::Any, _) => continue,
                (_, Value::String(_)) => json!({ "is": value }),
                (_, Value::Object(_) | Value::Number(_)) => json!("text"),
                _ => json!(1.5),
            };
            typed += 1;
            let token = changed(bench.token(), json!({ claim.as_str(): wrong }));
            let refused = bench.verify(&token).await.map(|subject| subject.profile().our_subject());
            assert!(
                matches!(&refused, Err(Rejection::Claim { claim: of, .. }) if *of == claim),
                "{}: {claim}: {refused:?}",
                fixture.provider
            );
        }
        assert!(typed > 0, "{}", fixture.provider);
    }
}

/// A lifted claim is checked as well: the object around it may be of any shape.
#[tokio::test]
async fn c10_a_lifted_claim_has_its_type_and_is_never_signed_itself() {
    for preset in platforms().filter(|preset| !preset.lifted.is_empty()) {
        let bench = Bench::named(preset.name);
        for (_, name) in preset.lifted {
            let said = bench.refusal(json!({ *name: "chosen" })).await;
            let expected = format!(
                "claim `{name}` refused: claim `{name}` is signed, expected it to be derived by us alone"
            );
            assert_eq!(said, expected);
        }
    }
    let aws = Bench::named("aws");
    let said = aws.refusal(json!({ "https://sts.amazonaws.com/": { "aws_account": 123 } })).await;
    assert!(said.contains("claim `aws_account`: found a number, expected text"), "{said}");
    let circleci = Bench::named("circleci");
    let said = circleci.refusal(json!({ "oidc.circleci.com/org-id": ["a"] })).await;
    assert!(said.contains("claim `org_id`: found a list, expected text"), "{said}");
}

/// Only what a job can ask for anew is good for one exchange alone.
#[test]
fn the_replay_mode_of_each_platform_is_written_down() {
    let once: Vec<&str> = platforms()
        .filter(|preset| preset.replay == Replay::Once)
        .map(|preset| preset.name)
        .collect();
    assert_eq!(
        once,
        [
            "github",
            "aws",
            "azure_devops",
            "buildkite",
            "circleci",
            "codefresh",
            "fly",
            "forgejo",
            "modal"
        ]
    );
}

#[test]
fn an_issuers_url_tells_its_platform_where_it_can_be_told() {
    for fixture in fixtures::ALL {
        let told = of_issuer(fixture.issuer).map(|preset| preset.name);
        // Installations of these have any URL.
        let any = ["kubernetes", "spiffe", "forgejo", "spacelift"];
        // And this one belongs to Azure's applications as well as to the service connections of Azure DevOps.
        let shared = fixture.provider == "azure";
        if any.contains(&fixture.provider) || shared {
            assert_eq!(told, None, "{}", fixture.issuer);
        } else {
            assert_eq!(told, Some(fixture.provider), "{}", fixture.issuer);
        }
    }
    assert!(of_issuer("https://passport.vercel.com/acme").is_none());
}

#[test]
fn what_a_platform_signs_with_is_what_its_configuration_starts_from() {
    let algorithms = |provider| configured(&fixtures::of(provider), "").unwrap().algorithms;
    assert_eq!(algorithms("aws"), [Algorithm::RS256, Algorithm::ES384].into());
    assert_eq!(algorithms("spiffe"), [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384].into());
    for preset in platforms().filter(|preset| !["aws", "spiffe"].contains(&preset.name)) {
        assert_eq!(algorithms(preset.name), [Algorithm::RS256].into(), "{}", preset.name);
    }
}

/// Whoever does what the hint says has a rule that loads: a hint that leads to another one leads nowhere.
#[test]
fn what_is_said_of_a_rule_for_a_whole_organization_leads_to_one_that_loads() {
    let mut led = Vec::new();
    for preset in platforms() {
        let whole = |set: &&&[&str]| set.iter().all(|claim| preset.organizations.contains(claim));
        let Some(organization) = preset.pins.iter().find(whole) else { continue };
        let claims = fixtures::of(preset.name).claims();
        let when = |named: &[&str]| {
            // SPIFFE's are read out of `sub`.
            let value = |claim: &str| claims.get(claim).cloned().unwrap_or_else(|| json!("x"));
            let each = named.iter().map(|claim| format!("{claim}: {}", value(claim)));
            format!("{{ {} }}", each.collect::<Vec<_>>().join(", "))
        };
        let said = compiled(preset, &rule(&when(organization), "")).unwrap_err();
        let hint =
            said.split("add an equality on ").nth(1).and_then(|rest| rest.split(", or ").next());
        let hint = hint.unwrap_or_else(|| panic!("{}: {said}", preset.name));
        let mut named = organization.to_vec();
        named.extend(hint.split('`').skip(1).step_by(2));
        let after = compiled(preset, &rule(&when(&named), ""));
        assert!(after.is_ok(), "{}: {hint}: {}", preset.name, after.unwrap_err());
        led.push(format!("{}: {hint}", preset.name));
    }
    assert!(led.contains(&"spiffe: `path`".to_owned()), "{led:?}");
    assert!(led.len() > 8, "{led:?}");
}
