//! `make`: one transaction, three round trips, and no moment at which the role exists without its end.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    PostgresRole, failure,
    quote::{identifier, identifiers, literal},
    scram,
};
use crate::{
    chance::Chance,
    mint::{
        login::{Login, LoginError},
        sql::{Placeholder, Statement},
    },
};

/// `application_name` is cut at `NAMEDATALEN`.
const APPLICATION_NAME_BYTES: usize = 63;

/// A role that is about to be.
#[derive(Debug)]
pub(super) struct New<'l> {
    login: &'l Login,
    role: &'l PostgresRole,
    /// Of its password: what the server gets in its place.
    verifier: String,
}

impl<'l> New<'l> {
    /// # Errors
    /// There is no randomness to be had.
    pub(super) fn of(
        login: &'l Login,
        role: &'l PostgresRole,
        chance: &dyn Chance,
    ) -> Result<Self, LoginError> {
        let mut salt = [0; scram::SALT_BYTES];
        chance.fill(&mut salt).map_err(|error| LoginError::Refused(error.to_string()))?;
        let verifier = scram::verifier(login.password.reveal(), &salt);
        Ok(Self { login, role, verifier })
    }

    /// Makes it, to end after `lifetime`.
    ///
    /// # Errors
    /// It was not made; or, if `COMMIT` was sent, nobody knows.
    pub(super) async fn make(&self, client: &Client, lifetime: Duration) -> Result<(), LoginError> {
        if lifetime.is_zero() {
            return Err(LoginError::Refused("no lifetime is left".to_owned()));
        }
        let expires_at = begin(client, lifetime).await?;
        for statement in self.statements(&expires_at) {
            client
                .batch_execute(&statement)
                .await
                .map_err(|error| failure::before_commit(&error))?;
        }
        if !self.role.create.is_empty() {
            self.check(client).await?;
        }
        client.batch_execute("COMMIT").await.map_err(|error| failure::of_commit(&error))
    }

    /// Ours go together in one round trip; an operator's go one by one, so that none can be read as part of another.
    fn statements(&self, expires_at: &str) -> Vec<String> {
        let (name, groups) = (identifier(&self.login.name), &self.role.member_of);
        let believed = format!(
            "LOGIN PASSWORD {} VALID UNTIL {} CONNECTION LIMIT {}",
            literal(&self.verifier),
            literal(expires_at),
            self.role.connection_limit
        );
        let described = self.described(&name);
        if self.role.create.is_empty() {
            // `INHERIT`: a workload uses what its groups have without asking. None of the others can be had through it.
            let role = format!(
                "CREATE ROLE {name} {believed} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT \
                 IN ROLE {}",
                identifiers(groups)
            );
            return vec![format!("{role}; {described}")];
        }
        let token = |placeholder: Placeholder| match placeholder {
            Placeholder::Name => name.clone(),
            Placeholder::Password => literal(&self.verifier),
            Placeholder::ExpiresAt => literal(expires_at),
        };
        let operators =
            self.role.create.iter().map(|statement: &Statement| statement.render(token));
        let mut statements: Vec<String> = operators.collect();
        // INVARIANT(honest-expiry): whatever they said, it ends by itself.
        statements.push(format!("ALTER ROLE {name} {believed}; {described}"));
        if !groups.is_empty() {
            statements.push(format!("GRANT {} TO {name}", identifiers(groups)));
        }
        statements
    }

    /// In the server's own records: for whom it is. The last word tells us which role's statements end it.
    fn described(&self, name: &str) -> String {
        let Login { attribution, role, .. } = self.login;
        let mut application = String::new();
        for word in attribution.split(' ') {
            if application.len().saturating_add(word.len()) >= APPLICATION_NAME_BYTES {
                break;
            }
            if !application.is_empty() {
                application.push(' ');
            }
            application.push_str(word);
        }
        let comment = format!("{attribution} {ROLE_WORD}{}", marked(role.as_str()));
        format!(
            "ALTER ROLE {name} SET application_name = {}; COMMENT ON ROLE {name} IS {}",
            literal(&application),
            literal(&comment)
        )
    }

    /// What an operator's statements made must be a login, and no master of others (threat B07).
    async fn check(&self, client: &Client) -> Result<(), LoginError> {
        let asked = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls \
                     FROM pg_roles WHERE rolname = $1";
        let parameter = (&self.login.name as _, tokio_postgres::types::Type::TEXT);
        let row = client.query_typed_opt(asked, &[parameter]).await;
        let row = row.map_err(|error| failure::before_commit(&error))?;
        match row.map(|row| row.try_get::<_, bool>(0)) {
            Some(Ok(false)) => Ok(()),
            Some(_) => Err(LoginError::Refused(
                "the statements of the role give it an attribute that a login must not have"
                    .to_owned(),
            )),
            None => {
                Err(LoginError::Refused("the statements of the role make no `{{name}}`".to_owned()))
            }
        }
    }
}

/// What the last word of a comment of ours begins with.
pub(super) const ROLE_WORD: &str = "role=";

/// The name of a role of the target as one word of a comment: what is not plain becomes its code point.
pub(super) fn marked(role: &str) -> String {
    let one = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "._:/@-".contains(c) => c.to_string(),
        other => format!("_{:x}_", u32::from(other)),
    };
    role.chars().map(one).collect()
}

/// Opens the transaction. Says when `lifetime` will be over by the server's clock, in a text that no `DateStyle` reads otherwise.
async fn begin(client: &Client, lifetime: Duration) -> Result<String, LoginError> {
    let begin = format!(
        "BEGIN; SELECT to_char((now() + interval '{}.{:06} seconds') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        lifetime.as_secs(),
        lifetime.subsec_micros()
    );
    let answers = client.simple_query(&begin).await;
    let answers = answers.map_err(|error| failure::before_commit(&error))?;
    let told = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        SimpleQueryMessage::CommandComplete(_) | SimpleQueryMessage::RowDescription(_) | _ => None,
    });
    // It goes into a statement: only what can be a time does.
    let is_time = |text: &String| text.bytes().all(|b| b.is_ascii_digit() || b"-:.TZ".contains(&b));
    told.filter(is_time).ok_or_else(|| LoginError::Refused("its clock tells no time".to_owned()))
}
