//! What may stand in a target of kind `aws`, and in others that ask for AWS sessions.

use crate::{
    config::targets::{ALIASES, ENVIRONMENT, GRANTED_BY, NAME},
    yaml::{Field, Fields, Shape},
};

pub(in crate::config::targets) const ROLE_ARN: Field =
    Field::required("role_arn", "The IAM role: `arn:aws:iam::<account>:role/<name>`", Shape::Text);
pub(in crate::config::targets) const EXTERNAL_ID: Field = Field::optional(
    "external_id",
    "What the role's trust policy wants as `sts:ExternalId`; with `identity: ambient` only",
    Shape::Text,
);
pub(in crate::config::targets) const TAGS: Field = Field::optional(
    "tags",
    "Session tag: what it is taken from, a claim of the subject (a name its provider knows, or a JSON Pointer), `cambio.rule`, `cambio.subject` or `cambio.exchange`. A token without the claim gets no session",
    Shape::Table { value: &Shape::Text, reserved: &[], least: 1 },
);
pub(in crate::config::targets) const TRANSITIVE_TAGS: Field = Field::optional(
    "transitive_tags",
    "Which of the tags stay when the session assumes a further role",
    Shape::List(&Shape::Text, 1),
);
pub(in crate::config::targets) const SOURCE: Field = Field::optional(
    "source_identity",
    "What `sts:SourceIdentity` is taken from: as a tag. It ends in a hash of issuer and value",
    Shape::Text,
);
pub(in crate::config::targets) const NAME_PARTS: Field = Field::optional(
    "session_name",
    "What the readable part of the session's name is taken from, in order: as tags. The name always ends in a hash that no two subjects share. Default: the subject",
    Shape::List(&Shape::Text, 1),
);
pub(in crate::config::targets) const ENDPOINT: Field = Field::optional(
    "endpoint",
    "Another STS than the region's own: an `https` URL, such as that of a VPC endpoint",
    Shape::Text,
);
pub(in crate::config::targets) const CA_FILE: Field = Field::optional(
    "ca_file",
    "The roots that the endpoint's chain must lead to, as PEM, in place of the machine's",
    Shape::Text,
);
pub(in crate::config::targets) const IDENTITY: Field = Field::optional(
    "identity",
    "Who assumes the roles. Default: `web_identity`",
    Shape::Choice(&[
        (
            "web_identity",
            "a JWT of ours for each session: AWS trusts our issuer, and no secret exists",
        ),
        ("ambient", "the broker's own identity in AWS, as its surroundings give it"),
    ]),
);
pub(in crate::config::targets) const CALLS: Field = Field::optional(
    "calls",
    "How many calls to STS at once; whoever finds no place in time is told to come back. Default: 32",
    Shape::Integer(1, 512),
);
static ROLE: Fields = Fields {
    what: "a role of a target of kind `aws`",
    fields: &[
        ROLE_ARN,
        Field::optional(
            "duration",
            "The longest session of this role, at most its `MaxSessionDuration` in IAM. Default: the target's `ceiling`",
            Shape::Duration,
        ),
        Field::optional(
            "session_policy",
            "A policy that narrows each session: JSON, written out. A caller's own is then refused",
            Shape::Text,
        ),
        Field::optional("session_policy_file", "The same, as a file", Shape::Text),
        Field::optional(
            "policy_arns",
            "At most 10 managed policies that narrow each session",
            Shape::List(&Shape::Text, 1),
        ),
        EXTERNAL_ID,
        TAGS,
        TRANSITIVE_TAGS,
        SOURCE,
        NAME_PARTS,
    ],
};
static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

static ASSERTION: Fields = Fields {
    what: "the assertion for AWS",
    fields: &[
        Field::optional(
            "audience",
            "Its `aud`, which the IAM OIDC provider must list. Default: `sts.amazonaws.com`",
            Shape::Text,
        ),
        Field::optional(
            "algorithm",
            "What signs it. Default: `ES256`",
            Shape::Choice(&[("ES256", "ECDSA on P-256"), ("RS256", "RSASSA-PKCS1-v1_5")]),
        ),
    ],
};

pub(in crate::config::targets) const ASSERT: Field =
    Field::optional("assertion", "The JWT of `identity: web_identity`", Shape::Map(&ASSERTION));

pub(in crate::config::targets) static AWS: Fields = Fields {
    what: "a target of kind `aws`",
    fields: &[
        NAME,
        Field::required("kind", "AWS sessions, by STS", Shape::Text),
        ALIASES,
        ENVIRONMENT,
        Field::required(
            "region",
            "The region whose STS is asked, and that callers are told",
            Shape::Text,
        ),
        ENDPOINT,
        CA_FILE,
        IDENTITY,
        ASSERT,
        Field::required(
            "roles",
            "Its powers by name; a name is also the `scope` that a caller asks for",
            Shape::Table { value: &ROLE_SHAPE, reserved: &[], least: 1 },
        ),
        GRANTED_BY,
        CALLS,
        Field::optional(
            "ceiling",
            "The longest session. At most `12h`, with `identity: ambient` `1h`; default: `1h`",
            Shape::Duration,
        ),
        Field::optional(
            "floor",
            "The shortest session that is worth issuing. At least `15m`, which is the default: AWS gives no shorter one",
            Shape::Duration,
        ),
    ],
};
