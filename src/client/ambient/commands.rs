//! Platforms whose own command prints the token: it knows how to sign, and where its key is.

use std::{io, process::Stdio};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
};

use super::{LONGEST, Means, Platform, Sign, Way};
use crate::client::{ClientError, Waiting};

/// Which command. Its arguments are public: an audience and names of claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe {
    program: &'static str,
    arguments: fn(audience: &str) -> Vec<String>,
}

pub(super) const BUILDKITE: Platform = Platform {
    name: "buildkite",
    title: "Buildkite",
    signs: &[Sign::Is("BUILDKITE", "true")],
    way: Way::Command(Recipe {
        program: "buildkite-agent",
        // The ids are in the token only if the job asks for them, and policies pin them: slugs can be taken over.
        arguments: |audience| {
            let words = ["oidc", "request-token", "--claim", "organization_id,pipeline_id"];
            words.into_iter().chain(["--audience", audience]).map(str::to_owned).collect()
        },
    }),
    remedy: "run this where the job runs: a container of the docker plugin needs `mount-buildkite-agent: true`",
    shared: false,
};

pub(super) const CIRCLECI: Platform = Platform {
    name: "circleci",
    title: "CircleCI",
    signs: &[Sign::Is("CIRCLECI", "true")],
    way: Way::Command(Recipe {
        program: "circleci",
        arguments: |audience| {
            let claims = serde_json::json!({ "aud": audience }).to_string();
            ["run", "oidc", "get", "--claims", &claims].map(str::to_owned).into()
        },
    }),
    remedy: "run this in the job itself; a token of the default audience, which is good at everybody who trusts this organisation, is taken only if you say `--token-variable CIRCLE_OIDC_TOKEN_V2`",
    shared: false,
};

pub(super) const AWS: Platform = Platform {
    name: "aws",
    title: "AWS",
    signs: &[
        Sign::Set("AWS_LAMBDA_FUNCTION_NAME"),
        Sign::Set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        Sign::Set("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        Sign::Says("/sys/class/dmi/id/sys_vendor", "Amazon EC2"),
    ],
    way: Way::Command(Recipe {
        program: "aws",
        arguments: |audience| {
            let words = ["sts", "get-web-identity-token", "--signing-algorithm", "RS256"];
            let more = ["--duration-seconds", "300", "--query", "WebIdentityToken"];
            let rest = ["--output", "text", "--audience", audience];
            words.into_iter().chain(more).chain(rest).map(str::to_owned).collect()
        },
    }),
    remedy: "outbound identity federation must be enabled for the account (`aws iam enable-outbound-web-identity-federation`), the role allowed `sts:GetWebIdentityToken`, a region set, and the `aws` command recent enough to know it",
    shared: true,
};

/// The most of a command's words that are repeated.
const WORDS: usize = 300;

pub(super) async fn run(
    platform: &Platform,
    recipe: Recipe,
    means: &Means<'_>,
    waiting: &Waiting<'_>,
) -> Result<(String, String), ClientError> {
    let program = recipe.program;
    let mut command = Command::new(program);
    command
        .args((recipe.arguments)(means.audience))
        .env_clear()
        .envs(means.machine.environment.all())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            return platform.missing(&format!("the command `{program}` is not on the `PATH`"));
        }
        ClientError::unreachable(format!("`{program}`: {error}"))
    })?;
    let ended = async {
        let (out, err) = (child.stdout.take(), child.stderr.take());
        // Both at once, each to its end or its cap: a full pipe would stop the command for ever.
        let (out, err) = tokio::join!(text(out), text(err));
        Ok::<_, io::Error>((child.wait().await?, out?, err?))
    };
    let late = || ClientError::unreachable(format!("`{program}` did not end in time"));
    let ended = tokio::time::timeout(waiting.left(), ended).await.map_err(|_| late())?;
    let (status, out, err) =
        ended.map_err(|error| ClientError::unreachable(format!("`{program}`: {error}")))?;
    if status.success() {
        return Ok((format!("`{program}`"), out));
    }
    // What it wrote to stdout may be a token: it is not repeated.
    let words: String = err.trim().chars().take(WORDS).collect();
    Err(ClientError::refused(format!(
        "{}: `{program}` ended with {status}: {words}",
        platform.title
    ))
    .hint(platform.remedy))
}

/// At most one byte more than a token may have: that is how too much is noticed.
async fn text(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let cap = u64::try_from(LONGEST).unwrap_or(u64::MAX).saturating_add(1);
        pipe.take(cap).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
