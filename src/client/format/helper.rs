//! Credential helpers: docker and git ask on stdin for whom, and take what is answered to that server.
//!
//! Both ask every helper about every server. A token must go to one of them alone, so the command line names it, and every other
//! question is answered with *nothing* before any token is exchanged.

use serde_json::{Map, Value};
use url::Url;

use super::{Format, Style, object, revealed};
use crate::client::{ClientError, Issued};

/// What a program asks a helper to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A credential for this server is wanted, and it is ours to give.
    Ours(String),
    /// A credential for another server is wanted.
    Foreign,
    /// To keep or to forget something, or to list what is kept: nothing is kept here.
    Housekeeping,
}

/// Reads what `verb` and stdin ask, for a helper that answers for `server` alone.
///
/// # Errors
/// The verb is none of docker's, or stdin does not follow the protocol.
pub fn question(
    format: Format,
    verb: &str,
    stdin: &str,
    server: &str,
) -> Result<Question, ClientError> {
    match (format, verb) {
        (_, "get") => {}
        (Format::Docker, "store" | "erase" | "list") => return Ok(Question::Housekeeping),
        (Format::Docker, other) => {
            return Err(ClientError::usage(format!(
                "`{other}` is nothing that docker asks its helpers, expected `get`, `store`, `erase` or `list`"
            )));
        }
        // gitcredentials(7): what a helper does not know it ignores, so that git can ask for more one day.
        _ => return Ok(Question::Housekeeping),
    }
    let ours = place(server).ok_or_else(|| {
        ClientError::usage(format!("`--for {server}`: expected a host, or a URL with https"))
    })?;
    let asked =
        if format == Format::Docker { stdin.trim_ascii().to_owned() } else { asked_by_git(stdin)? };
    Ok(if place(&asked).is_some_and(|asked| asked == ours) {
        Question::Ours(asked)
    } else {
        Question::Foreign
    })
}

/// git's attributes, one a line. What has no `protocol` or `host` is asked about no server.
fn asked_by_git(stdin: &str) -> Result<String, ClientError> {
    let mut told = [("protocol", None), ("host", None)];
    for line in stdin.lines().take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').ok_or_else(|| {
            ClientError::usage("stdin is not what git writes, expected lines of `name=value`")
        })?;
        for (known, place) in &mut told {
            if *known == name {
                *place = Some(value);
            }
        }
    }
    let [(_, protocol), (_, host)] = told;
    Ok(format!("{}://{}", protocol.unwrap_or_default(), host.unwrap_or_default()))
}

/// Host and port of a server over https; docker leaves the scheme out. A token is never for plain http.
fn place(server: &str) -> Option<(String, u16)> {
    let url = match server.split_once("://") {
        Some(("https", _)) => Url::parse(server).ok()?,
        Some(_) => return None,
        None => Url::parse(&format!("https://{server}")).ok()?,
    };
    if !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

/// What docker reads when a helper has nothing: this text, and exit code 1.
pub const DOCKER_NOTHING: &str = "credentials not found in native keychain\n";

pub(super) fn docker(issued: &Issued, style: &Style) -> Result<Map<String, Value>, ClientError> {
    Ok(object([
        ("ServerURL", Some(style.server.as_deref().unwrap_or_default().into())),
        ("Username", Some(style.user.as_str().into())),
        ("Secret", Some(revealed(&issued.access_token)?.into())),
    ]))
}

pub(super) fn git(issued: &Issued, style: &Style) -> Result<String, ClientError> {
    let password = revealed(&issued.access_token)?;
    if [password, &style.user].iter().any(|value| value.chars().any(char::is_control)) {
        return Err(ClientError::usage("a value holds a control character, which git can't read"));
    }
    let ends = issued.expires_at.map(|ends| format!("password_expiry_utc={}\n", ends.seconds()));
    let ends = ends.unwrap_or_default();
    Ok(format!("username={}\npassword={password}\n{ends}", style.user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(format: Format, verb: &str, stdin: &str) -> Result<Question, String> {
        question(format, verb, stdin, "git.example").map_err(|error| error.message)
    }

    #[test]
    fn only_the_named_server_is_answered() {
        let ours = |text: &str| Ok(Question::Ours(text.to_owned()));
        let git = |stdin: &str| asked(Format::Git, "get", stdin);
        assert_eq!(git("protocol=https\nhost=git.example\n\n"), ours("https://git.example"));
        assert_eq!(git("protocol=https\nhost=GIT.example:443\n"), ours("https://GIT.example:443"));
        for foreign in [
            "protocol=http\nhost=git.example\n",
            "protocol=https\nhost=git.example.evil\n",
            "protocol=https\nhost=git.example:8443\n",
            "protocol=https\nhost=git.example@evil.example\n",
            "protocol=https\n",
            "",
        ] {
            assert_eq!(git(foreign), Ok(Question::Foreign), "{foreign}");
        }
        let docker = |stdin: &str| asked(Format::Docker, "get", stdin);
        assert_eq!(docker("git.example\n"), ours("git.example"));
        assert_eq!(docker("https://git.example/v2/"), ours("https://git.example/v2/"));
        assert_eq!(docker("https://index.docker.io/v1/"), Ok(Question::Foreign));
        assert_eq!(docker("http://git.example"), Ok(Question::Foreign));
    }

    #[test]
    fn what_is_to_be_kept_is_not_kept() {
        for verb in ["store", "erase"] {
            assert_eq!(asked(Format::Git, verb, "password=hush"), Ok(Question::Housekeeping));
            assert_eq!(asked(Format::Docker, verb, "hush"), Ok(Question::Housekeeping));
        }
        assert_eq!(asked(Format::Docker, "list", ""), Ok(Question::Housekeeping));
        assert_eq!(asked(Format::Git, "a verb of the future", ""), Ok(Question::Housekeeping));
        assert!(asked(Format::Docker, "version", "").is_err());
    }
}
