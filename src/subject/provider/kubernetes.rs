//! Kubernetes projected service-account tokens.

use serde_json::Value;

use super::{
    BARE, ClaimError, ClaimSpec,
    ClaimType::{Object, Text},
    Preset,
    Stability::{Immutable, Platform, Reusable},
    compound::{error, refuse_signed},
};
use crate::{grant::Replay, subject::Claims};

/// The kubelet keeps one file and refreshes it late, so tokens are reusable.
///
/// A rule pins the uid, or namespace and name. The names are the documented minimum: who can delete and create a service account
/// in a namespace can run pods as it anyway, and a pin on the uid breaks when an application is installed again (threat C15). For the
/// same reason the stable id is made of the names: what we issue keeps its `sub` over a reinstallation. The issuer's name, which
/// stands before it, tells clusters apart (threat C17).
pub static KUBERNETES: Preset = Preset {
    name: "kubernetes",
    claims: CLAIMS,
    pins: &[&["service_account_uid"], &["namespace", "service_account"]],
    organizations: &[],
    stable_ids: &[&["namespace", "service_account"]],
    replay: Replay::Reusable,
    // Every pod that names no other account runs as this one.
    folded: &[],
    dangerous: &[("service_account", &["default"])],
    derive,
    taken_apart: &["kubernetes.io"],
    label: &["service_account"],
    ..BARE
};

/// Names without `derived` are signed; the others come out of `kubernetes.io`.
const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec {
        name: "sub",
        kind: Text,
        stability: Reusable,
        meaning: "system:serviceaccount, namespace and service account",
    },
    ClaimSpec { name: "jti", kind: Text, stability: Platform, meaning: "id of this token" },
    ClaimSpec {
        name: "kubernetes.io",
        kind: Object,
        stability: Platform,
        meaning: "what the token is bound to",
    },
    ClaimSpec {
        name: "namespace",
        kind: Text,
        stability: Reusable,
        meaning: "derived: namespace of the service account",
    },
    ClaimSpec {
        name: "service_account",
        kind: Text,
        stability: Reusable,
        meaning: "derived: name of the service account",
    },
    ClaimSpec {
        name: "service_account_uid",
        kind: Text,
        stability: Immutable,
        meaning: "derived: uid of the service account; another one after it is deleted and created again",
    },
    ClaimSpec {
        name: "pod",
        kind: Text,
        stability: Reusable,
        meaning: "derived: name of the pod that the token is bound to",
    },
    ClaimSpec {
        name: "pod_uid",
        kind: Text,
        stability: Immutable,
        meaning: "derived: uid of the pod",
    },
    ClaimSpec {
        name: "node",
        kind: Text,
        stability: Reusable,
        meaning: "derived: name of the node that the pod runs on",
    },
    ClaimSpec {
        name: "node_uid",
        kind: Text,
        stability: Immutable,
        meaning: "derived: uid of the node",
    },
];

const DERIVED: &[&str] =
    &["namespace", "service_account", "service_account_uid", "pod", "pod_uid", "node", "node_uid"];

fn derive(claims: &mut Claims) -> Result<(), ClaimError> {
    refuse_legacy(claims)?;
    refuse_signed(claims, DERIVED)?;
    let Some(Value::Object(bound)) = claims.get("kubernetes.io") else {
        return Err(error(
            "kubernetes.io",
            "claim `kubernetes.io` is missing, expected a projected service-account token"
                .to_owned(),
        ));
    };
    if bound.contains_key("warnafter") {
        // Threat C14. The API server stretches tokens for its own audience to a year: any pod's ambient token.
        return Err(error(
            "kubernetes.io",
            "`warnafter` marks an ambient token stretched to a year, expected one projected for our audience".to_owned(),
        ));
    }
    let namespace = name(bound, "namespace")?;
    let (service_account, uid) = bound_object(bound, "serviceaccount")?
        .ok_or_else(|| error("kubernetes.io", "`serviceaccount` is missing".to_owned()))?;
    let expected = format!("system:serviceaccount:{namespace}:{service_account}");
    if claims.get("sub").and_then(Value::as_str) != Some(expected.as_str()) {
        return Err(error(
            "sub",
            format!("`sub` and `kubernetes.io` disagree: expected `{expected}`"),
        ));
    }
    let mut derived = vec![
        ("namespace", namespace),
        ("service_account", service_account),
        ("service_account_uid", uid),
    ];
    if let Some((pod, uid)) = bound_object(bound, "pod")? {
        derived.extend([("pod", pod), ("pod_uid", uid)]);
    }
    if let Some((node, uid)) = bound_object(bound, "node")? {
        derived.extend([("node", node), ("node_uid", uid)]);
    }
    for (name, value) in derived {
        claims.insert(name.to_owned(), Value::String(value));
    }
    Ok(())
}

/// Threat C13: secret-based tokens have neither end nor audience, and flat claims.
fn refuse_legacy(claims: &Claims) -> Result<(), ClaimError> {
    let issuer = claims.get("iss").and_then(Value::as_str);
    if issuer == Some("kubernetes/serviceaccount")
        || claims.keys().any(|name| name.starts_with("kubernetes.io/serviceaccount/"))
    {
        return Err(error(
            "kubernetes.io",
            "found a legacy service-account token, expected a projected one".to_owned(),
        ));
    }
    Ok(())
}

/// `{name, uid}` of what the token is bound to.
fn bound_object(bound: &Claims, kind: &str) -> Result<Option<(String, String)>, ClaimError> {
    match bound.get(kind) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some((name(object, "name")?, name(object, "uid")?))),
        Some(_) => Err(error("kubernetes.io", format!("`{kind}` is not an object"))),
    }
}

/// A name or uid of Kubernetes: RFC 1123 letters, so that no separator of ours can hide in it.
fn name(object: &Claims, member: &str) -> Result<String, ClaimError> {
    let value = object.get(member).and_then(Value::as_str).unwrap_or_default();
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if value.is_empty() || value.len() > 253 || !value.bytes().all(plain) {
        return Err(error(
            "kubernetes.io",
            format!("`{member}` is not 1 to 253 of the letters a-z, 0-9, `-` and `.`"),
        ));
    }
    Ok(value.to_owned())
}
