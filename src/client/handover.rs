//! What a child process is given: variables, or files that can be replaced while it runs. Pure: what lies where is decided here,
//! and written by `cli`.

use std::fmt::Write as _;

use super::{
    ClientError, Credential, Issued,
    credential::{AwsSession, Login},
    format::{self, Format, Rendered, Style, Variable},
};
use crate::secret::Secret;

/// One of the credentials of a child.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The target, as it was asked for: PostgreSQL's service is called like this.
    pub target: &'a str,
    /// The variable that a token goes into.
    pub name: &'a str,
    /// The credential; `None`: it is over, and there is no other.
    pub now: Option<&'a Issued>,
    /// The one before it, which may still be good: who is in the middle of logging in must find its password.
    pub before: Option<&'a Issued>,
}

/// A file for the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Its name in the private folder.
    pub file: String,
    /// What it holds.
    pub content: Secret,
    /// The variable that tells where it is.
    pub variable: String,
}

/// Variables that tell a child what a platform gave us: whoever has them gets tokens of this job, for any audience on some
/// platforms.
pub const PLATFORM_TOKENS: [&str; 21] = [
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "CAMBIO_ID_TOKEN",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "CI_JOB_JWT",
    "CI_JOB_JWT_V1",
    "CI_JOB_JWT_V2",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MODAL_IDENTITY_TOKEN",
    "SEMAPHORE_OIDC_TOKEN",
    "SPACELIFT_OIDC_TOKEN",
    "SPIFFE_ENDPOINT_SOCKET",
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_OIDCREQUESTURI",
    "TFC_WORKLOAD_IDENTITY_TOKEN",
    "TFC_WORKLOAD_IDENTITY_TOKEN_CAMBIO",
    "VERCEL_OIDC_TOKEN",
];

/// What the SDKs of AWS look at before, or together with, what we hand over.
const OF_AWS: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];
/// libpq: `PGHOSTADDR` would win over the host of a service, `PGPASSWORD` over every password file.
const OF_POSTGRES: &[&str] = &[
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSSLMODE",
    "DATABASE_URL",
    "DATABASE_URL_FILE",
];
const OF_MYSQL: &[&str] = &[
    "MYSQL_HOST",
    "MYSQL_TCP_PORT",
    "MYSQL_UNIX_PORT",
    "MYSQL_DATABASE",
    "MYSQL_USER",
    "MYSQL_PWD",
    "CAMBIO_MYSQL_FILE",
    "DATABASE_URL",
    "DATABASE_URL_FILE",
];
/// Redis, and what has no variables of its own.
const OF_OTHERS: &[&str] = &[
    "CAMBIO_HOST",
    "CAMBIO_PORT",
    "CAMBIO_DATABASE",
    "CAMBIO_USER",
    "CAMBIO_PASSWORD",
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "REDIS_URL",
    "REDIS_URL_FILE",
    "REDISCLI_AUTH",
];

/// Variables that a child must not inherit: they would win over what it is given, or be mixed with it.
#[must_use]
pub fn superseded(part: &Part<'_>) -> Vec<String> {
    let fixed = match part.now.map(|issued| &issued.credential) {
        Some(Credential::Aws(_)) => OF_AWS,
        Some(Credential::Login(login)) => match login.kind.as_str() {
            "postgres" => OF_POSTGRES,
            "mysql" => OF_MYSQL,
            _ => OF_OTHERS,
        },
        Some(Credential::Token(_)) => {
            return vec![part.name.to_owned(), format!("{}_FILE", part.name)];
        }
        Some(Credential::Other(_)) | None => &[],
    };
    fixed.iter().map(|name| (*name).to_owned()).collect()
}

/// What a child's environment holds of `parts`.
///
/// # Errors
/// A credential has no variables, or two of them would have the same one.
pub fn environment(parts: &[Part<'_>]) -> Result<Vec<Variable>, ClientError> {
    let mut all: Vec<Variable> = Vec::new();
    for part in parts {
        let Some(issued) = part.now else { continue };
        let style = Style { name: part.name.to_owned(), ..Style::default() };
        for variable in format::variables(issued, &style)? {
            if all.iter().any(|other| other.name == variable.name) {
                return Err(twice(part, &variable.name));
            }
            all.push(variable);
        }
    }
    Ok(all)
}

/// What a child's environment holds besides the places of its files: nothing secret, and nothing that a renewal changes.
#[must_use]
pub fn beside_files(parts: &[Part<'_>]) -> Vec<Variable> {
    let mut all = Vec::new();
    let shown = |name: &str, value: &str| Variable {
        name: name.to_owned(),
        value: Secret::from(value.to_owned()),
        hidden: false,
    };
    for part in parts {
        let Some(issued) = part.now else { continue };
        if let Credential::Aws(session) = &issued.credential {
            all.extend(format::region(session));
        }
        let first = !all.iter().any(|variable: &Variable| variable.name == "PGSERVICE");
        if postgres(issued).is_some() && first {
            all.push(shown("PGSERVICE", part.target));
        }
    }
    all
}

/// The files of `parts`, in the order in which they have to be written: a password is there before the name that it goes with.
///
/// # Errors
/// A credential can't be handed over in files, or two of them would have the same one.
pub fn files(parts: &[Part<'_>]) -> Result<Vec<Handed>, ClientError> {
    let mut all = of_postgres(parts)?;
    for part in parts {
        let Some(issued) = part.now else { continue };
        let mut more = Vec::new();
        match &issued.credential {
            Credential::Token(token) => {
                // Nobody's name for a token is another file's: the folder's lock, libpq's, the endpoint's token.
                let (file, variable) = (token_file(part.name), format!("{}_FILE", part.name));
                more.push(handed(&file, &variable, token.clone()));
            }
            Credential::Aws(session) => {
                let text = shared_credentials(session)?;
                more.push(handed("aws-credentials", "AWS_SHARED_CREDENTIALS_FILE", text));
            }
            Credential::Login(login) if login.kind == "postgres" => {}
            Credential::Login(login) => {
                if login.kind == "mysql" {
                    more.push(handed("my.cnf", "CAMBIO_MYSQL_FILE", option_file(login)?));
                }
                let url = if login.kind == "redis" { "REDIS_URL" } else { "DATABASE_URL" };
                more.push(handed(url, &format!("{url}_FILE"), text(Format::Uri, issued)?));
            }
            Credential::Other(_) => {
                return Err(ClientError::usage(format!(
                    "{} can't be handed to a command in files",
                    issued.credential
                )));
            }
        }
        for file in more {
            if all.iter().any(|other| other.variable == file.variable || other.file == file.file) {
                return Err(twice(part, &file.variable));
            }
            all.push(file);
        }
    }
    Ok(all)
}

fn token_file(name: &str) -> String {
    format!("token-{name}")
}

/// As [`files`], but a part that can't be handed over in files harms no other one: in its place goes the last one of it that could
/// be, from `last`, if that is good still, or nothing. Second: which part it was, and why.
#[must_use]
pub fn files_of_each(
    parts: &[Part<'_>],
    last: &[Option<&Issued>],
) -> (Vec<Handed>, Vec<(usize, ClientError)>) {
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        let last = last.get(place).copied().flatten();
        let ways = [*part, Part { now: last, before: None, ..*part }];
        for (turn, way) in ways.into_iter().enumerate() {
            fit.push(way);
            match files(&fit) {
                Ok(files) => {
                    all = files;
                    break;
                }
                Err(error) => {
                    fit.pop();
                    if turn == 0 {
                        unfit.push((place, error));
                    }
                }
            }
        }
    }
    (all, unfit)
}

fn twice(part: &Part<'_>, variable: &str) -> ClientError {
    ClientError::usage(format!(
        "`{}` needs `{variable}`, which another credential has already",
        part.target
    ))
    .hint("a token can have a name of its own, as in `--get NAME=TARGET`; else run one command in the other")
}

fn handed(file: &str, variable: &str, content: Secret) -> Handed {
    Handed { file: file.to_owned(), variable: variable.to_owned(), content }
}

fn text(format: Format, issued: &Issued) -> Result<Secret, ClientError> {
    match format::render(format, issued, &Style::default())? {
        Rendered::Text(text) => Ok(text),
        Rendered::Json(value) => Ok(Secret::from(value.to_string())),
    }
}

fn postgres(issued: &Issued) -> Option<&Login> {
    match &issued.credential {
        Credential::Login(login) if login.kind == "postgres" => Some(login),
        Credential::Login(_) | Credential::Token(_) | Credential::Aws(_) | Credential::Other(_) => {
            None
        }
    }
}

/// One password file and one service file for all of them. A renewal makes another user: libpq reads its name from the service and
/// then the password that goes with it, so the passwords of both are there.
fn of_postgres(parts: &[Part<'_>]) -> Result<Vec<Handed>, ClientError> {
    let (mut passwords, mut services) = (String::new(), String::new());
    let mut seen: Vec<&str> = Vec::new();
    for part in parts {
        let Some(login) = part.now.and_then(postgres) else { continue };
        if seen.contains(&part.target) {
            return Err(twice(part, "PGSERVICE"));
        }
        seen.push(part.target);
        for issued in part.now.into_iter().chain(part.before) {
            let line = text(Format::Pgpass, issued)?;
            passwords.push_str(line.reveal_text().unwrap_or_default());
        }
        services.push_str(&service(part.target, login)?);
    }
    if seen.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![
        handed("pgpass", "PGPASSFILE", Secret::from(passwords)),
        handed("pg_service.conf", "PGSERVICEFILE", Secret::from(services)),
    ])
}

/// A section of libpq's service file: one `key=value` on a line, without quotes.
fn service(name: &str, login: &Login) -> Result<String, ClientError> {
    let port = login.port.map(|port| port.to_string());
    let mut out = format!("[{}]\n", lineless(name)?);
    for (key, value) in [
        ("host", login.host.as_deref()),
        ("port", port.as_deref()),
        ("dbname", login.database.as_deref()),
        ("user", Some(login.user.as_str())),
        ("sslmode", login.sslmode.as_deref()),
    ] {
        if let Some(value) = value {
            out.push_str(key);
            out.push('=');
            out.push_str(lineless(value)?);
            out.push('\n');
        }
    }
    Ok(out)
}

fn shared_credentials(session: &AwsSession) -> Result<Secret, ClientError> {
    let secret = |secret: &'_ Secret| -> Result<String, ClientError> {
        Ok(lineless(secret.reveal_text().unwrap_or_default())?.to_owned())
    };
    Ok(Secret::from(format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n",
        lineless(&session.access_key_id)?,
        secret(&session.secret_access_key)?,
        secret(&session.session_token)?,
    )))
}

/// For `--defaults-extra-file`. In quotes, where `#` begins no comment.
fn option_file(login: &Login) -> Result<Secret, ClientError> {
    let port = login.port.map(|port| port.to_string());
    let mut out = "[client]\n".to_owned();
    for (key, value) in [
        ("host", login.host.as_deref()),
        ("port", port.as_deref()),
        ("user", Some(login.user.as_str())),
        ("password", login.password.reveal_text()),
    ] {
        if let Some(value) = value {
            if value.contains(['"', '\'', '\\']) {
                return Err(ClientError::usage(format!(
                    "the login's {key} holds a quote or a backslash, which option files spell in different ways"
                )));
            }
            // Writing to a String can't fail.
            let _ = writeln!(out, "{key}=\"{}\"", lineless(value)?);
        }
    }
    if let Some(database) = &login.database {
        // Programs that know no `database` end at one under `[client]`.
        for program in ["mysql", "mariadb-client"] {
            let _ = writeln!(out, "[{program}]\ndatabase=\"{}\"", lineless(database)?);
        }
    }
    Ok(Secret::from(out))
}

/// A line feed would begin a line that somebody else wrote.
fn lineless(value: &str) -> Result<&str, ClientError> {
    if value.chars().any(char::is_control) {
        return Err(ClientError::usage(
            "a value holds a control character, which no file can spell",
        ));
    }
    Ok(value)
}
