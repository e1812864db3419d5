//! Which audiences no target of kind `jwt` may have: those by which a cloud takes a token of ours for one that was made for it
//! (threat X01).
//!
//! A cloud that trusts our issuer asks for `iss`, `aud` and `sub`, all of which such a token would have: it would be the cloud's
//! credential, without session policy, tags, the target's ceiling, or an entry that says so.

use std::collections::BTreeMap;

use super::{TargetConfig, TargetKind, aws::AwsIdentity};
use crate::{
    config::reader::Reader,
    yaml::{Node, Place},
};

/// Refuses the audience of a `jwt` target that is a cloud's, or that of the assertions of a target at a cloud.
pub(super) fn check(reader: &mut Reader<'_>, targets: &[(&Node, TargetConfig)]) {
    let mut assertions: BTreeMap<String, (&str, Place)> = BTreeMap::new();
    for (node, target) in targets {
        if let Some(audience) = asserted(&target.kind) {
            assertions.entry(alike(audience)).or_insert((target.name.as_str(), node.place));
        }
    }
    for (node, target) in targets {
        let TargetKind::Jwt(jwt) = &target.kind else { continue };
        let place = node.find("audience").map_or(node.place, |found| found.place);
        let audience = jwt.audience.escape_debug();
        if let Some(cloud) = cloud(&jwt.audience) {
            let message =
                format!("`audience` is `{audience}`, by which {cloud} takes a token for a login");
            let kind = cloud.kind();
            let hint = format!(
                "use a target of kind `{kind}`; where a program must have the token itself, let the cloud's side trust an audience of its own"
            );
            reader.refuse(place, message, &hint);
        } else if let Some((name, at)) = assertions.get(&alike(&jwt.audience)) {
            let message = format!(
                "`audience` is `{audience}`, as in the assertions of target `{name}` on line {}",
                at.line
            );
            let hint = "give one of the two an audience of its own: these tokens would be credentials of that cloud, past what that target narrows";
            reader.refuse(place, message, hint);
        }
    }
}

/// The `aud` of the JWTs by which a cloud knows us.
fn asserted(kind: &TargetKind) -> Option<&str> {
    match kind {
        TargetKind::Aws(aws) => web_identity(&aws.identity),
        TargetKind::Rds(rds) => web_identity(&rds.sessions.identity),
        TargetKind::Azure(azure) => Some(&azure.audience),
        // Always one of [`cloud`]'s.
        TargetKind::Google(google) => Some(&google.provider),
        TargetKind::Jwt(_)
        | TargetKind::Cambio(_)
        | TargetKind::Github(_)
        | TargetKind::Mysql(_)
        | TargetKind::Redis(_)
        | TargetKind::Postgres(_)
        | TargetKind::X509(_) => None,
    }
}

fn web_identity(identity: &AwsIdentity) -> Option<&str> {
    match identity {
        AwsIdentity::WebIdentity { audience, .. } => Some(audience),
        AwsIdentity::Ambient => None,
    }
}

/// Clouds that take JWTs of others for logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cloud {
    Aws,
    Entra,
    Google,
}

impl Cloud {
    const fn kind(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Entra => "azure",
            Self::Google => "google",
        }
    }
}

impl std::fmt::Display for Cloud {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(match self {
            Self::Aws => "AWS",
            Self::Entra => "Entra",
            Self::Google => "Google Cloud",
        })
    }
}

/// Whose audience `audience` is by convention or by its form: whatever this configuration knows of, another account or another
/// team's project may trust our issuer with it.
fn cloud(audience: &str) -> Option<Cloud> {
    let alike = alike(audience);
    // Entra's sovereign clouds put their name behind it: `…USGov`, `…China`.
    if alike.starts_with("api://azureadtokenexchange") {
        return Some(Cloud::Entra);
    }
    let host = alike.split_once("//").map_or(alike.as_str(), |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    let aws = host.strip_suffix(".cn").unwrap_or(host);
    let aws = aws.strip_suffix(".amazonaws.com").unwrap_or_default();
    // `sts.amazonaws.com`, and the endpoint of each region.
    if aws == "sts" || aws.starts_with("sts.") || aws.starts_with("sts-fips.") {
        return Some(Cloud::Aws);
    }
    // `//iam.googleapis.com/projects/…/providers/…`, with `https:` before it or not.
    (host == "iam.googleapis.com" || host == "sts.googleapis.com").then_some(Cloud::Google)
}

/// As the least careful of verifiers would compare it.
fn alike(audience: &str) -> String {
    audience.trim_end_matches('/').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x01_audiences_of_clouds_are_known_by_their_form() {
        for (audience, expected) in [
            ("sts.amazonaws.com", Some(Cloud::Aws)),
            ("https://STS.amazonaws.com/", Some(Cloud::Aws)),
            ("sts.eu-central-1.amazonaws.com", Some(Cloud::Aws)),
            ("sts-fips.us-east-1.amazonaws.com", Some(Cloud::Aws)),
            ("sts.cn-north-1.amazonaws.com.cn", Some(Cloud::Aws)),
            ("api://AzureADTokenExchange", Some(Cloud::Entra)),
            ("api://azureadtokenexchange/", Some(Cloud::Entra)),
            ("api://AzureADTokenExchangeUSGov", Some(Cloud::Entra)),
            ("api://AzureADTokenExchangeChina", Some(Cloud::Entra)),
            (
                "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b",
                Some(Cloud::Google),
            ),
            ("https://iam.googleapis.com/projects/1/providers/b", Some(Cloud::Google)),
            ("iam.googleapis.com", Some(Cloud::Google)),
            ("https://orders.example.com", None),
            ("https://sts.example.com", None),
            ("amazonaws.com", None),
            ("api://orders", None),
            ("https://example.com/sts.amazonaws.com", None),
        ] {
            assert_eq!(cloud(audience), expected, "{audience}");
        }
    }
}
