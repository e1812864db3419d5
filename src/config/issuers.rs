//! `issuers`: whose tokens are verified, with which keys, and how old they may be.

use std::{collections::BTreeSet, time::Duration};

mod keys_from;
mod providers;
mod token_review;

pub use keys_from::{Discovered, KeysFrom};
pub use token_review::TokenReviewConfig;

use super::reader::{Reader, is_audience, is_short_name, length, text, texts};
use crate::{
    grant::IssuerName,
    subject::{
        Algorithm, MAXIMUM_LEEWAY, Preset,
        issuers::{IssuerUrl, IssuerUrlError},
    },
    yaml::{Field, Fields, Node, Place, Shape},
};

/// One issuer whose tokens are verified.
#[derive(Clone, Debug)]
pub struct IssuerConfig {
    /// Part of the `sub` of everything that is issued for its workloads; never reused.
    pub name: IssuerName,
    /// The kind of issuer.
    pub preset: &'static Preset,
    /// The exact `iss`.
    pub issuer: IssuerUrl,
    /// The one `aud` that a token must carry.
    pub audience: String,
    /// Where its keys come from.
    pub keys: KeysFrom,
    /// What it may sign with.
    pub algorithms: BTreeSet<Algorithm>,
    /// How far its clock may be off; at most [`MAXIMUM_LEEWAY`].
    pub leeway: Duration,
    /// The longest accepted `exp − iat`.
    pub maximum_lifetime: Duration,
    /// The longest accepted `now − iat`; none means `maximum_lifetime` alone.
    pub maximum_age: Option<Duration>,
    /// Accepted `typ` header values besides an absent one.
    pub accepted_types: BTreeSet<String>,
    /// Whether, and how, the issuer is asked about each token: `kubernetes` alone.
    pub token_review: Option<TokenReviewConfig>,
}

const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
/// A subject token that lives longer than this says for itself how old it may be.
const LONG: Duration = Duration::from_hours(1);
const LONGEST_LIFETIME: Duration = Duration::from_hours(48);

/// Audiences that platforms put into tokens which nobody asked for us: every job or pod has such a token at hand.
const AMBIENT_AUDIENCES: &[&str] = &[
    "api://AzureADTokenExchange",
    "https://kubernetes.default.svc",
    "https://kubernetes.default.svc.cluster.local",
    "kubernetes",
    "sigstore",
    "sts.amazonaws.com",
];

pub(super) static ISSUER: Fields = Fields {
    what: "an issuer",
    fields: &[
        Field::required(
            "name",
            "What trust policies and the ledger call it: lower-case letters, digits and `-`. Part of every `sub` that we issue: never reuse it",
            Shape::Name,
        ),
        Field::required(
            "provider",
            "The kind of issuer, whose claims we know",
            providers::PROVIDER,
        ),
        Field::optional(
            "issuer",
            "The exact `iss`, https. Default: the one public installation, where a platform has one (docs/issuers.md); required for the others",
            Shape::Text,
        ),
        Field::required(
            "audience",
            "The one `aud` that a token must carry. There is no safe default; our own issuer URL is a good choice",
            Shape::Text,
        ),
        Field::optional(
            "keys",
            "Where its keys come from: `discovered` or `pinned`. Default: `discovered: {}`, at the place that the provider is known for",
            Shape::Map(&keys_from::KEYS),
        ),
        Field::optional(
            "algorithms",
            "What it may sign with. Default: what the provider signs with, `[RS256]` for most (docs/issuers.md)",
            Shape::List(
                &Shape::Choice(&[
                    ("RS256", "RSASSA-PKCS1-v1_5 with SHA-256"),
                    ("RS384", "RSASSA-PKCS1-v1_5 with SHA-384"),
                    ("RS512", "RSASSA-PKCS1-v1_5 with SHA-512"),
                    ("PS256", "RSASSA-PSS with SHA-256"),
                    ("PS384", "RSASSA-PSS with SHA-384"),
                    ("PS512", "RSASSA-PSS with SHA-512"),
                    ("ES256", "ECDSA on P-256"),
                    ("ES384", "ECDSA on P-384"),
                    ("ES512", "ECDSA on P-521"),
                    ("EdDSA", "Ed25519"),
                ]),
                1,
            ),
        ),
        Field::optional(
            "leeway",
            "How far its clock may be off. At most `1m`; default: `30s`",
            Shape::Duration,
        ),
        Field::optional(
            "maximum_lifetime",
            "The longest accepted `exp − iat`. At most `2d`; above `1h` it wants a `maximum_age`. Default: the provider's own, with room (docs/issuers.md); `1h` where that is not known",
            Shape::Duration,
        ),
        Field::optional(
            "maximum_age",
            "The longest accepted `now − iat`, for tokens that live long. Default: that of the provider (docs/issuers.md), or `maximum_lifetime` alone",
            Shape::Duration,
        ),
        Field::optional(
            "accepted_types",
            "Accepted `typ` headers besides an absent one. Default: `[JWT]`; for cambio `[JWT, at+jwt]`, for spiffe `[JWT, JOSE]`",
            Shape::List(&Shape::Text, 1),
        ),
        Field::optional(
            "token_review",
            "For `kubernetes`: ask the API server about each token (`TokenReview`), so that the token of a deleted pod is refused at once. Default: a token is good until it ends",
            Shape::Map(&token_review::TOKEN_REVIEW),
        ),
    ],
};

/// All issuers that could be read, each with the place where it is declared.
pub(super) fn read(reader: &mut Reader<'_>, ours: Option<&IssuerUrl>) -> Vec<IssuerConfig> {
    let Some(section) = reader.section("issuers") else { return Vec::new() };
    let mut seen: Vec<(Place, IssuerConfig)> = Vec::new();
    for node in section.elements() {
        let Some(issuer) = issuer(reader, node, ours) else { continue };
        clash(reader, node, &issuer, &seen);
        seen.push((node.place, issuer));
    }
    seen.into_iter().map(|(_, issuer)| issuer).collect()
}

/// Threat C17: two clusters with one issuer URL would be each other, two issuers with one name would share every `sub`.
fn clash(reader: &mut Reader<'_>, node: &Node, new: &IssuerConfig, seen: &[(Place, IssuerConfig)]) {
    let place = |key: &str| node.find(key).map_or(node.place, |found| found.place);
    if let Some((first, _)) = seen.iter().find(|(_, known)| known.name == new.name) {
        let message = format!("issuer name `{}` is already taken on line {}", new.name, first.line);
        reader.refuse(
            place("name"),
            message,
            "the name is part of every `sub`: two issuers with one name would be each other",
        );
    }
    let alike = |text: &str| text.trim_end_matches('/').to_ascii_lowercase();
    let twin = |known: &&(Place, IssuerConfig)| {
        alike(known.1.issuer.as_str()) == alike(new.issuer.as_str())
    };
    let Some((first, known)) = seen.iter().find(twin) else { return };
    let message = if known.issuer == new.issuer {
        format!("issuer `{}` is already `{}`, on line {}", new.issuer, known.name, first.line)
    } else {
        format!(
            "issuer `{}` differs from `{}` on line {} only by case or a final `/`",
            new.issuer, known.issuer, first.line
        )
    };
    reader.refuse(
        place("issuer"),
        message,
        "give each issuer a URL of its own (a cluster: kube-apiserver `--service-account-issuer`)",
    );
}

fn issuer(reader: &mut Reader<'_>, node: &Node, ours: Option<&IssuerUrl>) -> Option<IssuerConfig> {
    let name = name(reader, node);
    let preset = providers::preset(node);
    let url = url(reader, node, preset, ours);
    let audience = audience(reader, node, preset, url.as_ref());
    let shape =
        preset.zip(url.as_ref()).and_then(|(preset, url)| preset.platform.shape_of(url.as_str()));
    let keys = keys_from::read(reader, node, shape);
    let listed = texts(node, "algorithms");
    let mut algorithms: BTreeSet<Algorithm> =
        listed.iter().filter_map(|(found, _)| found.parse().ok()).collect();
    if listed.is_empty() {
        algorithms.extend(preset.map(|preset| preset.platform.algorithms).unwrap_or_default());
    }
    let leeway = reader.duration(
        Some(node),
        "leeway",
        DEFAULT_LEEWAY,
        Duration::from_secs(1)..=MAXIMUM_LEEWAY,
        "spent tokens are remembered for `1m` past their end, so no clock may be off by more",
    );
    let (maximum_lifetime, maximum_age) = ages(reader, node, preset);
    let reviewed = token_review::read(reader, node, preset);
    let mut accepted_types: BTreeSet<String> =
        texts(node, "accepted_types").into_iter().map(|(found, _)| found.to_owned()).collect();
    let preset = preset?;
    if accepted_types.is_empty() {
        let known = preset.platform.accepted_types;
        accepted_types = known.iter().map(|&known| known.to_owned()).collect();
    }
    Some(IssuerConfig {
        name: name?,
        preset,
        issuer: url?,
        audience: audience?,
        keys: keys?,
        algorithms,
        leeway,
        maximum_lifetime,
        maximum_age,
        accepted_types,
        token_review: reviewed,
    })
}

fn name(reader: &mut Reader<'_>, node: &Node) -> Option<IssuerName> {
    let (found, at) = text(node, "name")?;
    if is_short_name(found) {
        return Some(found.into());
    }
    let message = format!(
        "issuer name `{}` has other characters than lower-case letters, digits and `-`",
        found.escape_debug()
    );
    reader.refuse(at.place, message, "it becomes the first part of `sub`, before a `:`");
    None
}

/// Threat D17. The text is not repeated: it might hold a password.
fn url(
    reader: &mut Reader<'_>,
    node: &Node,
    preset: Option<&'static Preset>,
    ours: Option<&IssuerUrl>,
) -> Option<IssuerUrl> {
    let Some((found, at)) = text(node, "issuer") else {
        let preset = preset?;
        let known = preset.platform.default_url;
        if node.find("issuer").is_none() && known.is_none() {
            let message = format!("`issuer` is missing in an issuer of provider `{}`", preset.name);
            reader.refuse(node.place, message, "write the exact `iss` of its tokens");
        }
        return known.and_then(|known| known.parse().ok());
    };
    let hint = "write it exactly as the tokens do: https, host, path";
    let url = parse_url(reader, at, "issuer", found, hint)?;
    // Threat X06: delegation is asked for by name. What a token of ours buys never outlives it (`mint/jwt`).
    let delegation = preset.is_some_and(|preset| preset.name == "cambio");
    if Some(&url) == ours && !delegation {
        let hint = "our own tokens are subject tokens under `provider: cambio` alone, and by explicit rules";
        reader.refuse(at.place, format!("issuer `{url}` is our own"), hint);
        return None;
    }
    if let Some(preset) = preset {
        providers::check_url(reader, at, url.as_str(), preset);
    }
    Some(url)
}

/// The https URL `found` under `key`. Its text is not repeated: it might hold a password.
pub(super) fn parse_url(
    reader: &mut Reader<'_>,
    at: &Node,
    key: &str,
    found: &str,
    hint: &str,
) -> Option<IssuerUrl> {
    let parsed: Result<IssuerUrl, IssuerUrlError> = found.parse();
    if let Err(error) = &parsed {
        reader.refuse(at.place, format!("`{key}` {}", error.reason), hint);
    }
    parsed.ok()
}

fn audience(
    reader: &mut Reader<'_>,
    node: &Node,
    preset: Option<&'static Preset>,
    url: Option<&IssuerUrl>,
) -> Option<String> {
    let (found, at) = text(node, "audience")?;
    if !is_audience(found) {
        let message = format!(
            "`audience` is `{}`, expected 1 to 255 visible ASCII characters",
            found.escape_debug()
        );
        reader.refuse(at.place, message, "our own issuer URL is a good choice");
        return None;
    }
    let Some(preset) = preset else { return Some(found.to_owned()) };
    if preset.platform.has_fixed_audience() {
        providers::check_audience(reader, at, found, preset);
        return Some(found.to_owned());
    }
    // Every pod holds a token for its API server, every GitHub job can have one for its owner: neither was made for us.
    let of_cluster = preset.name == "kubernetes" && url.is_some_and(|url| url.as_str() == found);
    if of_cluster || preset.platform.is_unasked(found) || AMBIENT_AUDIENCES.contains(&found) {
        let message = format!("`audience` is `{found}`: tokens with it are made for somebody else");
        reader.refuse(
            at.place,
            message,
            "choose an audience that only callers of ours ask for, such as our own issuer URL",
        );
    }
    Some(found.to_owned())
}

fn ages(
    reader: &mut Reader<'_>,
    node: &Node,
    preset: Option<&'static Preset>,
) -> (Duration, Option<Duration>) {
    let lifetime = reader.duration(
        Some(node),
        "maximum_lifetime",
        preset.map_or(LONG, |preset| preset.platform.maximum_lifetime),
        Duration::from_secs(1)..=LONGEST_LIFETIME,
        "a subject token that lives for days is a password",
    );
    let Some(at) = node.find("maximum_age") else {
        if (LONG..=LONGEST_LIFETIME).contains(&lifetime)
            && lifetime != LONG
            && let Some(at) = node.find("maximum_lifetime")
        {
            let message =
                format!("`maximum_lifetime` is `{}` without a `maximum_age`", length(lifetime));
            reader.refuse(
                at.place,
                message,
                "say with `maximum_age` how old a token may be when it is used",
            );
        }
        let known = preset.and_then(|preset| preset.platform.maximum_age);
        return (lifetime, known.map(|age| age.min(lifetime)));
    };
    let age = at.duration();
    if let Some(age) = age
        && age > lifetime
    {
        let message = format!(
            "`maximum_age` is `{}`, expected at most the `maximum_lifetime` of `{}`",
            length(age),
            length(lifetime)
        );
        reader.refuse(at.place, message, "a token is dead before it is so old");
    }
    (lifetime, age)
}
