//! Finds the token that the platform hands out to this job, pod or machine.
//!
//! [`PLATFORMS`] is the whole knowledge: how a platform shows itself, how it hands out its token, and what the job's author has
//! to write where it does not. The first platform whose signs hold decides, even where its token is missing: going on would
//! present another identity (that of the machine under a CI job, say) than the one that was meant.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{ClientError, Machine, Waiting};
use crate::{
    clock::Instant,
    json::{self, Limits},
    secret::Secret,
    web::Reaching,
};

mod actions;
mod ask;
mod azure;
mod commands;
mod google;
mod pods;
mod spiffe;
mod variables;

/// A place that hands out tokens.
#[derive(Debug)]
pub struct Platform {
    /// Its name: what `--platform` takes.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// How it shows: any of these.
    signs: &'static [Sign],
    /// How it hands out its token.
    way: Way,
    /// What the job's author has to do where there is none.
    remedy: &'static str,
    /// Whether it is the machine's identity, which every job on it shares.
    shared: bool,
}

/// How a platform shows.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// This variable is set.
    Set(&'static str),
    /// This variable is set, and this file is not there: another platform's, which says more of what was meant.
    SetWithout(&'static str, &'static str),
    /// This variable has this value, in any letter case.
    Is(&'static str, &'static str),
    /// This file, folder or socket is there.
    There(&'static str),
    /// This file holds this text: what the firmware says about the machine.
    Says(&'static str, &'static str),
}

/// How a platform hands out its token. One file for each family.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// `ACTIONS_ID_TOKEN_REQUEST_URL`, asked with an audience.
    Actions,
    /// It stands in a variable.
    Variable(variables::Variable),
    /// A command prints it.
    Command(commands::Recipe),
    /// A file holds it, for one audience, and the platform keeps it fresh.
    File(&'static str),
    /// An HTTP server behind a Unix socket.
    Fly,
    /// The pipeline's own endpoint.
    AzureDevOps,
    /// The endpoint of App Service, Functions and Container Apps.
    AppService,
    /// The instance metadata service of Azure.
    AzureInstance,
    /// The metadata server of Google.
    Google,
    /// The SPIFFE Workload API.
    Spiffe,
}

/// All platforms, in the order in which they are looked for: what is nearest to the job first, the machine under it last.
/// Forgejo sets GitHub's variables besides its own, so it comes before GitHub; every pod has the variables of Kubernetes, so what
/// somebody mounted into it comes before them.
pub const PLATFORMS: &[&Platform] = &[
    &actions::FORGEJO,
    &actions::GITHUB,
    &variables::GITLAB,
    &commands::BUILDKITE,
    &commands::CIRCLECI,
    &variables::BITBUCKET,
    &azure::DEVOPS,
    &variables::TERRAFORM,
    &variables::SPACELIFT,
    &variables::SEMAPHORE,
    &variables::VERCEL,
    &variables::MODAL,
    &variables::JENKINS,
    &pods::FLY,
    &spiffe::SPIFFE,
    &pods::KUBERNETES,
    &azure::APP_SERVICE,
    &commands::AWS,
    &google::GOOGLE,
    &azure::INSTANCE,
];

/// What is wanted of a platform.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whom the token shall be for: what the broker's configuration says of this issuer.
    pub audience: &'a str,
    /// This platform and no other.
    pub platform: Option<&'a str>,
}

/// A token, and where it came from.
#[derive(Debug)]
pub struct Found {
    /// Which platform.
    pub platform: &'static Platform,
    /// Where on it: a variable, a file, a command, a URL. Never a value.
    pub place: String,
    /// The token.
    pub token: Secret,
}

/// What a way may use.
#[derive(Debug)]
struct Means<'a> {
    machine: &'a Machine,
    reaching: Reaching<'a>,
    audience: &'a str,
}

/// Finds the platform that we run on, and asks it for a token.
///
/// # Errors
/// There is no such platform, it hands out no token to this job, or it did not answer in time.
pub async fn find(
    wanted: Wanted<'_>,
    machine: &Machine,
    reaching: Reaching<'_>,
    waiting: &mut Waiting<'_>,
) -> Result<Found, ClientError> {
    let platform = match wanted.platform {
        Some(name) => named(name)?,
        None => first(machine)?,
    };
    let means = Means { machine, reaching, audience: wanted.audience };
    let (place, text) = match platform.way {
        Way::Actions => actions::fetch(platform, &means, waiting).await,
        Way::Variable(variable) => variables::read(platform, variable, &means),
        Way::Command(recipe) => commands::run(platform, recipe, &means, waiting).await,
        Way::File(path) => pods::read(platform, path, &means),
        Way::Fly => pods::fly(platform, &means, waiting).await,
        Way::AzureDevOps => azure::devops(platform, &means, waiting).await,
        Way::AppService => azure::app_service(platform, &means, waiting).await,
        Way::AzureInstance => azure::instance(platform, &means, waiting).await,
        Way::Google => google::fetch(platform, &means, waiting).await,
        Way::Spiffe => spiffe::fetch(platform, &means, waiting).await,
    }?;
    let token = token(&text)
        .map_err(|what| ClientError::unreachable(format!("{}: {place} {what}", platform.title)))?;
    Ok(Found { platform, place, token })
}

/// The first platform whose signs hold; but under a CI system that is none of ours the machine is not taken for the job.
fn first(machine: &Machine) -> Result<&'static Platform, ClientError> {
    let shows = |platform: &&&Platform| platform.shows(machine);
    let platform = PLATFORMS.iter().find(shows).copied().ok_or_else(nowhere)?;
    if platform.shared && machine.environment.find("CI").is_some() {
        let (title, name) = (platform.title, platform.name);
        return Err(ClientError::usage(format!(
            "`CI` is set, and the only identity that is found is that of the machine: {title}"
        ))
        .hint(format_args!(
            "every job on this machine has it: if it is meant, say `--platform {name}`; else hand in the job's own token with \
             `--token-file` or `--token-variable`"
        )));
    }
    Ok(platform)
}

fn named(name: &str) -> Result<&'static Platform, ClientError> {
    PLATFORMS.iter().find(|platform| platform.name == name).copied().ok_or_else(|| {
        let names: Vec<&str> = PLATFORMS.iter().map(|platform| platform.name).collect();
        ClientError::usage(format!("`{name}` is no platform, expected one of {}", names.join(", ")))
    })
}

fn nowhere() -> ClientError {
    let mut message = "found no platform that hands out a token; looked for".to_owned();
    for platform in PLATFORMS {
        // Writing to a String can't fail.
        let _ = write!(message, "\n  {}: {}", platform.title, platform.told_signs());
    }
    ClientError::usage(message).hint(
        "name a file with `--token-file`, a variable with `--token-variable`, or the platform with `--platform`",
    )
}

impl Platform {
    fn shows(&self, machine: &Machine) -> bool {
        self.signs.iter().any(|sign| match sign {
            Sign::Set(name) => machine.environment.find(name).is_some(),
            Sign::SetWithout(name, path) => {
                machine.environment.find(name).is_some() && !machine.path(path).exists()
            }
            Sign::Is(name, value) => machine
                .environment
                .find(name)
                .is_some_and(|found| found.eq_ignore_ascii_case(value)),
            Sign::There(path) => machine.path(path).exists(),
            Sign::Says(path, text) => {
                pods::beginning(&machine.path(path)).is_some_and(|found| found.contains(text))
            }
        })
    }

    fn told_signs(&self) -> String {
        let told = self.signs.iter().map(|sign| match sign {
            Sign::Set(name) => format!("`{name}`"),
            Sign::SetWithout(name, path) => format!("`{name}` without `{path}`"),
            Sign::Is(name, value) => format!("`{name}={value}`"),
            Sign::There(path) => format!("`{path}`"),
            Sign::Says(path, text) => format!("`{text}` in `{path}`"),
        });
        told.collect::<Vec<_>>().join(" or ")
    }

    /// It is this platform, and the job gets no token.
    fn missing(&self, what: &str) -> ClientError {
        ClientError::usage(format!("this is {}, and {what}", self.title)).hint(self.remedy)
    }
}

/// The most bytes of a token, and of an answer that carries one.
const LONGEST: usize = 64 * 1024;

/// Checks that `text` can be a token, and takes off the white space that files and commands put behind it.
fn token(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err("holds nothing, expected a token");
    }
    if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds something else than a token");
    }
    Ok(Secret::from(text.to_owned()))
}

/// Whether a token says that it is for `audience`. Nothing of it is verified, and nothing is decided by it but words.
#[must_use]
pub fn is_unverified_for(token: &Secret, audience: &str) -> bool {
    match unverified_claims(token).as_ref().and_then(|claims| claims.get("aud")) {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
        Some(_) | None => false,
    }
}

fn unverified_claims(token: &Secret) -> Option<Map<String, Value>> {
    let claims = token.reveal_text()?.split('.').nth(1)?;
    json::parse_object(&URL_SAFE_NO_PAD.decode(claims).ok()?, &Limits::CLAIMS).ok()
}

/// What a token says about itself, for a person who has to find out why it was refused. Nothing of it is verified, and nothing
/// is decided by it. `None`: it is no JWT.
#[must_use]
pub fn unverified_words(token: &Secret) -> Option<String> {
    let claims = unverified_claims(token)?;
    let said = |name: &str| match claims.get(name) {
        Some(Value::String(text)) => format!("`{text}`"),
        // One audience in a list is one audience, and whoever copies it needs no brackets.
        Some(Value::Array(all)) if name == "aud" && all.iter().all(Value::is_string) => {
            let all = all.iter().filter_map(Value::as_str).map(|one| format!("`{one}`"));
            all.collect::<Vec<_>>().join(" and ")
        }
        Some(value) => format!("`{value}`"),
        None => "nobody".to_owned(),
    };
    let ends = claims.get("exp").and_then(Value::as_u64).map(Instant::from_seconds);
    let ends = ends.map(|ends| format!(", until {ends}")).unwrap_or_default();
    Some(format!(
        "the token says: issued by {}, about {}, for {}{ends}",
        said("iss"),
        said("sub"),
        said("aud")
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_platform_has_a_name_of_its_own_signs_and_a_remedy() {
        let names: BTreeSet<&str> = PLATFORMS.iter().map(|platform| platform.name).collect();
        assert_eq!(names.len(), PLATFORMS.len());
        for platform in PLATFORMS {
            assert!(!platform.signs.is_empty(), "{}", platform.name);
            assert!(!platform.remedy.is_empty(), "{}", platform.name);
        }
    }

    #[test]
    fn a_token_is_one_visible_word() {
        assert_eq!(token(" a.b.c\r\n"), Ok(Secret::from("a.b.c".to_owned())));
        assert_eq!(token(" \n"), Err("holds nothing, expected a token"));
        for bad in ["a b", "a\nb", "a\u{7f}", "ä", &"a".repeat(LONGEST + 1)] {
            assert_eq!(token(bad), Err("holds something else than a token"));
        }
    }

    #[test]
    fn a_token_tells_about_itself_and_nothing_of_its_signature() {
        let claims =
            URL_SAFE_NO_PAD.encode(r#"{"iss":"i","sub":"s","aud":["a"],"exp":1800000000}"#);
        let token = Secret::from(format!("e30.{claims}.c2ln"));
        assert_eq!(
            unverified_words(&token).as_deref(),
            Some("the token says: issued by `i`, about `s`, for `a`, until 2027-01-15T08:00:00Z")
        );
        assert_eq!(unverified_words(&Secret::from("opaque".to_owned())), None);
        assert!(is_unverified_for(&token, "a") && !is_unverified_for(&token, "b"));
        let claims = URL_SAFE_NO_PAD.encode(r#"{"aud":["a","b"]}"#);
        let token = Secret::from(format!("e30.{claims}.c2ln"));
        let words = unverified_words(&token).unwrap();
        assert!(words.ends_with("for `a` and `b`"), "{words}");
    }
}
