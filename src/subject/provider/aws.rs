//! AWS outbound federation: what `sts:GetWebIdentityToken` signs for a role of an account.

use super::{
    BARE, ClaimSpec,
    ClaimType::{Any, Object, Text},
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    Subject, UrlShape, platform,
};
use crate::{grant::Replay, subject::Algorithm};

/// Each account has an issuer of its own, so that `sub`, the ARN of the principal, pins the tenant; a deleted role's name can come
/// back, in the same account. Each call makes a fresh token. `kid`s repeat between accounts: keys are looked up per issuer (threat
/// J04).
pub static AWS: Preset = Preset {
    name: "aws",
    claims: CLAIMS,
    pins: &[&["sub"]],
    stable_ids: &[&["sub"]],
    replay: Replay::Once,
    lifted: &[
        ("/https:~1~1sts.amazonaws.com~1/aws_account", "aws_account"),
        ("/https:~1~1sts.amazonaws.com~1/org_id", "org_id"),
        ("/https:~1~1sts.amazonaws.com~1/ou_path", "ou_path"),
        ("/https:~1~1sts.amazonaws.com~1/source_region", "source_region"),
        ("/https:~1~1sts.amazonaws.com~1/principal_tags", "principal_tags"),
        ("/https:~1~1sts.amazonaws.com~1/request_tags", "request_tags"),
        ("/https:~1~1sts.amazonaws.com~1/lambda_source_function_arn", "lambda_source_function_arn"),
    ],
    subject: Subject::OneOf(&["arn:{}:iam::{aws_account}:**"]),
    narrowing: &["org_id", "aws_account"],
    platform: platform::Platform {
        urls: &[UrlShape::of("https://{uuid}.tokens.sts.global.api.aws")],
        algorithms: &[Algorithm::RS256, Algorithm::ES384],
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "ARN of the role or user; its name can come back"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("https://sts.amazonaws.com/", Object, Platform, "what AWS says of the caller"),
    ClaimSpec::new("aws_account", Text, Immutable, "derived: id of the account"),
    ClaimSpec::new("org_id", Text, Immutable, "derived: id of the organization"),
    ClaimSpec::new("ou_path", Any, Reusable, "derived: where the account stands in it"),
    ClaimSpec::new("source_region", Text, Platform, "derived: region that was called"),
    ClaimSpec::new("principal_tags", Object, Reusable, "derived: tags of the role or session"),
    ClaimSpec::new(
        "request_tags",
        Object,
        ChosenByJob,
        "derived: tags that the caller chose for this token; they prove nothing",
    ),
    ClaimSpec::new(
        "lambda_source_function_arn",
        Text,
        Reusable,
        "derived: the function that called",
    ),
];
