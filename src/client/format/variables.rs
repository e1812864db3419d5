//! Variables: which ones a credential has, and how shells, `.env` files and GitHub's runner spell them.

use super::revealed;
use crate::{
    chance::Chance,
    client::{
        ClientError, Credential, Issued,
        credential::{AwsSession, Login},
    },
    secret::Secret,
};

/// One variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value. Held as a secret even where it is none.
    pub value: Secret,
    /// Whether a log must not show it.
    pub hidden: bool,
}

fn shown(name: &str, value: impl Into<String>) -> Variable {
    Variable { name: name.to_owned(), value: Secret::from(value.into()), hidden: false }
}

fn hidden(name: &str, value: &Secret) -> Variable {
    Variable { name: name.to_owned(), value: value.clone(), hidden: true }
}

/// The variables that the credential's own clients read. A token has none of its own: it goes into `name`.
pub(super) fn of(issued: &Issued, name: &str) -> Vec<Variable> {
    match &issued.credential {
        Credential::Token(token) => vec![hidden(name, token)],
        Credential::Aws(session) => {
            let mut all = vec![
                shown("AWS_ACCESS_KEY_ID", &session.access_key_id),
                hidden("AWS_SECRET_ACCESS_KEY", &session.secret_access_key),
                hidden("AWS_SESSION_TOKEN", &session.session_token),
            ];
            all.extend(region(session));
            let ends = issued.expires_at.map(|ends| ends.to_string());
            all.extend(ends.map(|ends| shown("AWS_CREDENTIAL_EXPIRATION", ends)));
            all
        }
        Credential::Login(login) => of_login(login),
        Credential::Other(_) => Vec::new(),
    }
}

/// The region under both of its names: boto3 and the AWS CLI read the second one alone.
pub fn region(session: &AwsSession) -> impl Iterator<Item = Variable> {
    let names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    let region = session.region.as_deref();
    region.into_iter().flat_map(move |region| names.map(|name| shown(name, region)))
}

/// Names of host, port, database, user and password, by kind.
type Names = (&'static str, [&'static str; 5]);
const LOGINS: [Names; 2] = [
    ("postgres", ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"]),
    ("mysql", ["MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_DATABASE", "MYSQL_USER", "MYSQL_PWD"]),
];
/// For the other kinds.
const ANY: [&str; 5] =
    ["CAMBIO_HOST", "CAMBIO_PORT", "CAMBIO_DATABASE", "CAMBIO_USER", "CAMBIO_PASSWORD"];

fn of_login(login: &Login) -> Vec<Variable> {
    let known = LOGINS.iter().find(|(kind, _)| *kind == login.kind);
    let [host, port, database, user, password] = known.map_or(ANY, |(_, names)| *names);
    let mut all = Vec::new();
    all.extend(login.host.as_ref().map(|value| shown(host, value)));
    all.extend(login.port.map(|value| shown(port, value.to_string())));
    all.extend(login.database.as_ref().map(|value| shown(database, value)));
    all.push(shown(user, &login.user));
    all.push(hidden(password, &login.password));
    // Else `psql` would fall back to `prefer`, and believe any server.
    let sslmode = login.sslmode.as_ref().filter(|_| login.kind == "postgres");
    all.extend(sslmode.map(|value| shown("PGSSLMODE", value)));
    let url = if login.kind == "redis" { "REDIS_URL" } else { "DATABASE_URL" };
    all.extend(login.uri.as_ref().map(|value| hidden(url, value)));
    all
}

/// For `eval "$(…)"` in any POSIX shell. Inside single quotes a shell reads nothing but the closing one.
pub(super) fn shell(variables: &[Variable]) -> Result<String, ClientError> {
    spelled(variables, |name, value| {
        Ok(format!("export {name}='{}'\n", value.replace('\'', r"'\''")))
    })
}

/// For `.env` files, whose readers agree on little: bare where every one of them reads it bare, else in single quotes, which all
/// that know quotes read without looking inside; what needs more has no spelling.
pub(super) fn dotenv(variables: &[Variable]) -> Result<String, ClientError> {
    spelled(variables, |name, value| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,~".contains(c);
        if value.chars().all(plain) {
            return Ok(format!("{name}={value}\n"));
        }
        if value.contains(['\'', '\\']) {
            return Err(ClientError::usage(format!(
                "the value of `{name}` holds a quote or a backslash, which `.env` files spell in different ways: take `--format env`"
            )));
        }
        Ok(format!("{name}='{value}'\n"))
    })
}

/// For the file that `GITHUB_ENV` names. The delimiter is drawn anew each time: a value that held it could set any other variable.
///
/// # Errors
/// There is no randomness, or a value holds a control character.
pub fn github_env(variables: &[Variable], chance: &dyn Chance) -> Result<Secret, ClientError> {
    let mut bytes = [0; 16];
    chance.fill(&mut bytes).map_err(ClientError::unreachable)?;
    let end = format!("cambio_{:032x}", u128::from_be_bytes(bytes));
    let text = spelled(variables, |name, value| Ok(format!("{name}<<{end}\n{value}\n{end}\n")))?;
    Ok(Secret::from(text))
}

/// `::add-mask::` for every value that a log of GitHub's runner must not show. Printed before anything else could print them.
///
/// # Errors
/// A value holds a control character.
pub fn masks(variables: &[Variable]) -> Result<Secret, ClientError> {
    let hidden: Vec<Variable> = variables.iter().filter(|one| one.hidden).cloned().collect();
    let text = spelled(&hidden, |_, value| {
        // The runner decodes these in the data of its commands; a line feed can't be in it.
        Ok(format!("::add-mask::{}\n", value.replace('%', "%25")))
    })?;
    Ok(Secret::from(text))
}

/// A line feed would end the line that a reader trusts, in each of these spellings; none of our credentials has one.
fn spelled(
    variables: &[Variable],
    spell: impl Fn(&str, &str) -> Result<String, ClientError>,
) -> Result<String, ClientError> {
    let mut text = String::new();
    for Variable { name, value, .. } in variables {
        let value = revealed(value)?;
        if value.chars().any(char::is_control) {
            return Err(ClientError::usage(format!(
                "the value of `{name}` holds a control character: take `--format json`"
            )));
        }
        text.push_str(&spell(name, value)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::SeededChance;

    fn one(value: &str) -> [Variable; 1] {
        [hidden("NAME", &Secret::from(value.to_owned()))]
    }

    #[test]
    fn a_value_can_not_leave_its_quotes() {
        let hostile = r#"a'; rm -rf ~; echo "$HOME" `id` \"#;
        assert_eq!(
            shell(&one(hostile)).unwrap(),
            "export NAME='a'\\''; rm -rf ~; echo \"$HOME\" `id` \\'\n"
        );
        assert_eq!(dotenv(&one("p$a #b")).unwrap(), "NAME='p$a #b'\n");
        assert_eq!(dotenv(&one("a.b-c_d")).unwrap(), "NAME=a.b-c_d\n");
        assert!(dotenv(&one(hostile)).is_err());
    }

    #[test]
    fn a_value_can_not_begin_a_new_line() {
        let hostile = one("a\nPATH=/tmp");
        let chance = SeededChance::of(1);
        assert!(shell(&hostile).is_err() && dotenv(&hostile).is_err());
        assert!(github_env(&hostile, &chance).is_err() && masks(&hostile).is_err());
    }

    #[test]
    fn the_end_of_a_value_is_nothing_that_a_value_can_foresee() {
        let chance = SeededChance::of(1);
        let text = |()| github_env(&one("v"), &chance).unwrap().reveal_text().unwrap().to_owned();
        let [first, second] = [(), ()].map(text);
        assert_ne!(first, second);
        let end = first.lines().nth(2).unwrap();
        assert_eq!(first, format!("NAME<<{end}\nv\n{end}\n"));
        assert_eq!(end.len(), "cambio_".len() + 32);
    }

    #[test]
    fn a_mask_is_what_the_runner_decodes_to_the_value() {
        assert_eq!(masks(&one("a%0Ab")).unwrap().reveal_text(), Some("::add-mask::a%250Ab\n"));
        assert_eq!(masks(&[shown("NAME", "v")]).unwrap().reveal_text(), Some(""));
    }
}
