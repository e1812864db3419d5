//! What a certificate says of its holder comes from the configuration; of the subject comes what a SPIFFE ID asks for, in an
//! alphabet that can't be left.

use std::collections::{BTreeMap, BTreeSet};

use cambio::holder::{CertificateNames, CommonName, SpiffeId};
use proptest::prelude::*;
use serde_json::{Value, json};
use x509_cert::ext::pkix::{SubjectAltName, name::GeneralName};

use super::bench::{Held, ask, ask_with, broker, held};

/// Subject and alternative names of a certificate, as text.
fn names(held: &Held) -> (String, BTreeSet<String>) {
    let made = held.parsed().tbs_certificate;
    let alt_names = made.get::<SubjectAltName>().unwrap();
    let told = alt_names.into_iter().flat_map(|(_, names)| names.0).map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => format!("uri {uri}"),
        GeneralName::DnsName(name) => format!("dns {name}"),
        other => panic!("{other:?}"),
    });
    (made.subject.to_string(), told.collect())
}

#[tokio::test]
async fn a_role_says_how_its_holders_are_called() {
    let broker = broker().await;
    let reader = held(&ask(&broker, "x509/orders", "reader", None).await, None);
    assert_eq!(names(&reader), ("CN=orders_reader".to_owned(), BTreeSet::new()));
    assert_eq!(reader.credential["common_name"], "orders_reader");
    let tool = held(&ask(&broker, "x509/orders", "tool", None).await, None);
    assert_eq!(names(&tool), ("CN=tool".to_owned(), ["uri urn:example:tool".to_owned()].into()));
    let job = held(&ask(&broker, "x509/orders", "job", None).await, None);
    let (subject, alt_names) = names(&job);
    assert_eq!(subject, "", "an SVID may have an empty subject");
    let id = "spiffe://test.example/github/1296269/refs-heads-main-";
    let [dns, uri] = Vec::from_iter(&alt_names)[..] else { panic!("{alt_names:?}") };
    assert_eq!(dns, "dns job.test.example");
    assert!(uri.starts_with(&format!("uri {id}")), "{uri}");
    assert_eq!(uri.len(), "uri ".len() + id.len() + 32);
    assert_eq!(Some(&uri["uri ".len()..]), job.credential["spiffe_id"].as_str());
}

#[tokio::test]
async fn closed_by_absence_a_subject_without_the_claim_gets_no_certificate() {
    let broker = broker().await;
    let token = broker.site.job().issued_at(broker.now().seconds(), 300);
    for (token, ok) in [(token.clone(), true), (token.without("ref"), false)] {
        let answer = ask_with(&broker, &token.sign(), "audience=x509/orders&scope=job", None).await;
        if ok {
            assert_eq!(answer.status, 200, "{}", answer.body);
        } else {
            let (status, code, words) = answer.error();
            assert_eq!((status, code.as_str()), (400, "invalid_request"));
            assert_eq!(words, "the subject has no name at this target");
        }
    }
}

#[test]
fn a_claim_that_is_no_name_is_none() {
    let id = SpiffeId::parse("spiffe://test.example/{team}").unwrap();
    let of = |value: Value| id.of(&BTreeMap::from([("x509:team".to_owned(), value)]));
    assert_eq!(of(json!("shop")).unwrap(), "spiffe://test.example/shop");
    assert_eq!(of(json!(4242)).unwrap(), "spiffe://test.example/4242");
    for bad in [json!(""), json!(null), json!(true), json!(1.5), json!(["shop"]), json!({"a": 1})] {
        assert!(of(bad.clone()).is_err(), "{bad}");
    }
    assert!(id.of(&BTreeMap::new()).is_err());
}

proptest! {
    /// Whatever a claim says, the ID has the configured trust domain and so many segments, of their alphabet; and two values
    /// are two IDs.
    #[test]
    fn b01_h11_no_claim_gets_out_of_its_segment(first in any::<String>(), second in "\\PC{0,200}") {
        let id = SpiffeId::parse("spiffe://test.example/a/{claim}/z").unwrap();
        let of = |value: &str| {
            id.of(&BTreeMap::from([("x509:claim".to_owned(), json!(value))])).ok()
        };
        for value in [&first, &second] {
            let Some(found) = of(value) else {
                prop_assert!(value.is_empty());
                continue;
            };
            let middle = found.strip_prefix("spiffe://test.example/a/");
            let middle = middle.and_then(|rest| rest.strip_suffix("/z")).unwrap();
            prop_assert!(!middle.is_empty() && middle != "." && middle != "..");
            prop_assert!(middle.len() <= 128);
            prop_assert!(middle.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)));
        }
        if first != second {
            prop_assert!(of(&first) != of(&second) || of(&first).is_none());
        }
    }

    /// A literal name that is taken is one that needs no quotes anywhere.
    #[test]
    fn b01_a_common_name_is_of_one_alphabet(text in any::<String>()) {
        if let Ok(name) = CommonName::parse(&text) {
            prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.@".contains(&b)));
        }
    }
}

#[test]
fn b01_a_claim_reaches_a_name_only_where_the_configuration_asks_for_it() {
    let fixed = CertificateNames {
        common_name: Some(CommonName::parse("orders_reader").unwrap()),
        ..CertificateNames::default()
    };
    assert_eq!(fixed.claims(), BTreeMap::new());
    let asked = CertificateNames {
        spiffe_id: Some(SpiffeId::parse("spiffe://test.example/{/a/b}/{sub}/c").unwrap()),
        ..fixed
    };
    let wanted = [("x509:/a/b", "/a/b"), ("x509:sub", "sub")];
    let wanted = wanted.map(|(to, from)| (to.to_owned(), from.to_owned()));
    assert_eq!(asked.claims(), BTreeMap::from(wanted));
}

/// Hostile claims through the whole broker: the certificate is byte for byte one of the role's, but for key, serial and times.
#[tokio::test]
async fn b01_hostile_claims_change_nothing_in_a_certificate_of_fixed_names() {
    let broker = broker().await;
    let now = broker.now().seconds();
    let plain = held(&ask(&broker, "x509/orders", "tool", None).await, None);
    for hostile in ["postgres", "a,CN=postgres", "\"; DROP ROLE x; --", "+CN=x", "é/../admin"] {
        let token = broker.site.job().issued_at(now, 300).claims(json!({
            "actor": hostile, "environment": hostile, "common_name": hostile, "cn": hostile,
            "x509:sub": hostile, "spiffe_id": hostile, "dns": hostile, "head_ref": hostile,
        }));
        let wants = "audience=x509/orders&scope=tool";
        let made = held(&ask_with(&broker, &token.sign(), wants, None).await, None);
        assert_eq!(names(&made), names(&plain));
        let of = |held: &Held| held.parsed().tbs_certificate.extensions;
        assert_eq!(of(&made), of(&plain));
    }
}
