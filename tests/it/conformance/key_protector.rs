//! The battery of `KeyProtector`.

use cambio::{
    protector::{KeyContext, KeyProtector, ProtectError, file::PassphraseFile},
    secret::Secret,
};

use crate::keys::bench::key_file;

fn context(ring: &str, epoch: u64, environment: &str) -> KeyContext {
    KeyContext { ring: ring.to_owned(), epoch, environment: environment.to_owned() }
}

/// `opens_often`: whether unwrapping is cheap enough to try every place.
async fn holds(protector: &dyn KeyProtector, other: &dyn KeyProtector, opens_often: bool) {
    let plain = Secret::from(r#"{"keys":[{"kty":"oct","k":"for once"}]}"#.to_owned());
    let ours = context("log/signing", 7, "prod");
    let sealed = protector.wrap(&plain, &ours).await.unwrap();
    assert_eq!(protector.unwrap(&sealed, &ours).await.unwrap(), plain, "duty 1: opens at home");
    for elsewhere in [
        context("log/log", 7, "prod"),
        context("log/signing", 6, "prod"),
        context("log/signing", 8, "prod"),
        context("log/signing", 7, "dev"),
        context("", 0, ""),
    ] {
        let opened = protector.unwrap(&sealed, &elsewhere).await;
        assert!(does_not_open(&opened), "duty 1: not in {elsewhere:?}");
    }
    assert!(does_not_open(&other.unwrap(&sealed, &ours).await), "duty 1: not by another KEK");

    // Duty 2: every byte of a cheap protector; of a dear one the places where the library is lenient.
    let dots: Vec<_> = sealed.match_indices('.').map(|(place, _)| place).collect();
    let step = if opens_often { 1 } else { 160 };
    let ends = dots.iter().map(|dot| dot - 1).chain([sealed.len() - 1]);
    for place in (0..sealed.len()).step_by(step).chain(ends) {
        let mut bytes = sealed.clone().into_bytes();
        bytes[place] = match bytes[place] {
            b'.' => b'A',
            b'A' => b'B',
            // The last character of a segment has bits that carry nothing: they must be zero.
            byte if byte.is_ascii_uppercase() || byte == b'_' => b'-',
            byte => byte + 1,
        };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(does_not_open(&protector.unwrap(&changed, &ours).await), "duty 2: byte {place}");
    }
    // GCM tags and wrapped keys cut short, segments lost or added, white space.
    let tag_start = dots[3] + 1;
    let mut changed: Vec<_> =
        [2, 4, 6, 16, 20].map(|length| sealed[..tag_start + length].to_owned()).into();
    changed.push(format!("{}..{}", &sealed[..dots[0]], &sealed[dots[1] + 1..]));
    changed.push(format!("{}.AAAA.{}", &sealed[..dots[0]], &sealed[dots[1] + 1..]));
    changed.extend([
        format!("{sealed}."),
        format!("{sealed}\n"),
        format!(" {sealed}"),
        sealed.replace('.', ""),
        String::new(),
    ]);
    for changed in changed {
        assert!(does_not_open(&protector.unwrap(&changed, &ours).await), "duty 2: {changed}");
    }

    let again = protector.wrap(&plain, &ours).await.unwrap();
    let common = again.bytes().zip(sealed.bytes()).skip(dots[0] + 1).take_while(|(a, b)| a == b);
    assert!(common.count() < 8, "duty 3: another key, another nonce");
    assert_eq!(protector.unwrap(&again, &ours).await.unwrap(), plain);
}

fn does_not_open(opened: &Result<Secret, ProtectError>) -> bool {
    matches!(opened, Err(ProtectError::DoesNotOpen(_)))
}

#[tokio::test]
async fn k02_a_key_file_opens_only_what_it_closed_where_it_closed_it() {
    holds(&key_file(), &key_file(), true).await;
}

#[tokio::test]
async fn k02_a_passphrase_opens_only_what_it_closed_where_it_closed_it() {
    let of = |text: &str| PassphraseFile::of(Secret::from(text.to_owned())).unwrap();
    let (ours, other) = (of("correct horse battery staple"), of("correct horse battery stable"));
    holds(&ours, &other, false).await;
}

#[tokio::test]
async fn a_key_file_does_not_open_what_a_passphrase_closed() {
    let passphrase = PassphraseFile::of(Secret::from("correct horse battery staple".to_owned()));
    let context = context("log/signing", 7, "prod");
    let sealed = passphrase.unwrap().wrap(&Secret::from("x".to_owned()), &context).await.unwrap();
    assert_eq!(
        key_file().unwrap(&sealed, &context).await.unwrap_err().to_string(),
        "the key ring does not open: `alg` is \"PBES2-HS512+A256KW\", expected \"A256KW\""
    );
}
