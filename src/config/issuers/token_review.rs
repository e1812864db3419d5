//! `token_review` of an issuer: whether the API server is asked about each token.

use std::{path::PathBuf, time::Duration};

use url::Url;

use super::keys_from::https;
use crate::{
    config::{
        files::Need,
        reader::{Reader, number},
    },
    subject::Preset,
    yaml::{Field, Fields, Node, Shape},
};

/// How the API server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenReviewConfig {
    /// The API server: https, and perhaps a path before `/apis`.
    pub api_server: Url,
    /// The cluster's CA (PEM), in place of the machine's trust roots.
    pub ca_file: PathBuf,
    /// Our own service-account token, read anew for each question.
    pub token_file: PathBuf,
    /// From the question to the last byte of the answer.
    pub timeout: Duration,
    /// How many questions at once.
    pub max_in_flight: u32,
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_IN_FLIGHT: u32 = 64;

pub(super) static TOKEN_REVIEW: Fields = Fields {
    what: "a token review",
    fields: &[
        Field::required(
            "api_server",
            "The cluster's API server, https: `https://kubernetes.default.svc` from a pod of it",
            Shape::Text,
        ),
        Field::required(
            "ca_file",
            "The cluster's CA (PEM): it alone vouches for the API server. In a pod `/var/run/secrets/kubernetes.io/serviceaccount/ca.crt`",
            Shape::Text,
        ),
        Field::required(
            "token_file",
            "The broker's own projected service-account token, for the API server's audience; read anew for each question. Its account needs a ClusterRole that may `create` `tokenreviews` and no more (docs/issuers.md); `system:auth-delegator` may, too, and also asks who may do what",
            Shape::Secret,
        ),
        Field::optional(
            "timeout",
            "How long the API server may take; after that the exchange is refused for now. From `1s` to `10s`; default: `3s`",
            Shape::Duration,
        ),
        Field::optional(
            "max_in_flight",
            "How many questions at once; more exchanges are told to come back. Default: `64`",
            Shape::Integer(1, 1_024),
        ),
    ],
};

pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    preset: Option<&'static Preset>,
) -> Option<TokenReviewConfig> {
    let map = node.find("token_review")?;
    if let Some(other) = preset.filter(|preset| preset.name != "kubernetes") {
        let message = format!("`token_review` in an issuer of provider `{}`", other.name);
        let hint = "only the API server of a `kubernetes` issuer can be asked about its tokens";
        reader.refuse(map.place, message, hint);
        return None;
    }
    let ca_file = reader.path(map, "ca_file", Need::File);
    let token_file = reader.path(map, "token_file", Need::PlatformToken);
    let timeout = reader.duration(
        Some(map),
        "timeout",
        DEFAULT_TIMEOUT,
        Duration::from_secs(1)..=Duration::from_secs(10),
        "an exchange waits for it, and its place is taken meanwhile",
    );
    Some(TokenReviewConfig {
        api_server: https(reader, map, "api_server")?,
        ca_file: ca_file?,
        token_file: token_file?,
        timeout,
        max_in_flight: number(Some(map), "max_in_flight", DEFAULT_IN_FLIGHT),
    })
}
