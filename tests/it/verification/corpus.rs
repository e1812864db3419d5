//! The committed corpus of the fuzz targets, through the same entry points on a stable toolchain: what each file says is
//! pinned, and none makes anything panic.

use std::{collections::BTreeMap, fs, path::Path, str::from_utf8, sync::Arc};

use cambio::{
    edge::form::Form,
    grant::IssuerName,
    policy::{Context, PolicySet, Source, pattern::Pattern},
    subject::{
        compact::UnverifiedJws,
        json::{Limits, parse_object},
        jwk::KeySet,
        provider,
    },
    target::{Expiry, Role, Target, Targets},
};

fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    files
        .map(|file| file.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect()
}

/// The files of `target` that `accepts` accepts, in order, and how many there are.
fn accepted(target: &str, accepts: impl Fn(&[u8]) -> bool) -> (Vec<String>, usize) {
    let files = corpus(target);
    let names = files.iter().filter(|(_, bytes)| accepts(bytes)).map(|(name, _)| name.clone());
    (names.collect(), files.len())
}

fn is(names: &[&str], all: usize) -> (Vec<String>, usize) {
    (names.iter().map(ToString::to_string).collect(), all)
}

#[test]
fn the_corpus_of_the_token_readers_says_what_it_said() {
    let jws = |bytes: &[u8]| UnverifiedJws::parse(from_utf8(bytes).unwrap()).is_ok();
    assert_eq!(accepted("compact_jws", jws), is(&["empty-payload", "good", "thumbprint"], 10));
    let claims = |bytes: &[u8]| parse_object(bytes, &Limits::CLAIMS).is_ok();
    assert_eq!(accepted("claims", claims), is(&["escape", "good", "nested", "numbers"], 10));
    let keys = |bytes: &[u8]| KeySet::parse(bytes).is_ok();
    assert_eq!(
        accepted("jwks_document", keys),
        is(&["good", "one-name-twice", "rsa", "several", "weak-beside-good"], 10)
    );
    let form = |bytes: &[u8]| Form::parse(bytes).is_ok();
    assert_eq!(accepted("token_form", form), is(&["good", "jwt-bearer"], 9));
}

#[test]
fn the_corpus_of_the_policy_readers_says_what_it_said() {
    let context = context();
    let policy = |bytes: &[u8]| {
        let text = from_utf8(bytes).unwrap().to_owned();
        PolicySet::compile(&[Source { name: "p.yaml".to_owned(), text }], &context).is_ok()
    };
    assert_eq!(accepted("policy_document", policy), is(&["empty", "good", "kubernetes"], 10));
    let fits = |bytes: &[u8]| {
        let (pattern, value) = from_utf8(bytes).unwrap().split_once('\n').unwrap();
        Pattern::parse(pattern).is_ok_and(|pattern| pattern.fits(value, false))
    };
    assert_eq!(accepted("pattern_vs_reference", fits), is(&["good", "subject", "workflow"], 7));
}

/// The one of the fuzz target.
fn context() -> Context {
    let target = Target {
        name: "jwt/orders".into(),
        kind: "jwt".to_owned(),
        aliases: [].into(),
        environment: "prod".to_owned(),
        roles: [("reader".into(), Role::default())].into(),
        granted_by: ["p.yaml".to_owned()].into(),
        expiry: Expiry::ByBroker { ceiling: std::time::Duration::from_hours(1) },
    };
    let issuers = ["github", "gitlab", "kubernetes", "generic"]
        .map(|name| (IssuerName::from(name), provider::find(name).unwrap()));
    Context {
        targets: Arc::new(Targets::of([target]).unwrap()),
        issuers: issuers.into(),
        environment: "prod".to_owned(),
    }
}
