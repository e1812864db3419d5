//! `doctor`: is the server there, and has our role just enough rights?

use std::collections::BTreeSet;

use async_trait::async_trait;
use tokio_postgres::{Client, types::Type};

use super::{
    Postgres, Protection,
    end::{column, query},
    failure,
    quote::identifier,
};
use crate::mint::{
    examine::{Examine, Finding, Verdict, no_connection},
    login::LoginError,
};

const OLDEST: i32 = 13;
const NEWEST: i32 = 18;
/// From this one on, `CREATEROLE` is no longer power over every role.
const BOUNDED_CREATEROLE: i32 = 16;

/// Predefined roles that reach beyond the databases: whoever has one is the server's own user before long.
const OUT_OF_THE_BOX: &[&str] =
    &["pg_execute_server_program", "pg_write_server_files", "pg_read_server_files"];

#[async_trait]
impl Examine for Postgres {
    async fn examine(&self) -> Vec<Finding> {
        let mut hand = self.hands.hand();
        let client = match hand.at_home().await {
            Ok(client) => client,
            Err(error) => {
                let target = &self.target;
                return vec![no_connection(&target.user, &target.host, target.port, &error)];
            }
        };
        let mut found = Vec::new();
        match self.look_only(client, &mut found).await {
            Ok(()) => hand.rest(),
            Err(error) => found.push(finding(Verdict::Bad, error)),
        }
        found
    }
}

fn finding(verdict: Verdict, detail: impl std::fmt::Display) -> Finding {
    Finding { verdict, detail: detail.to_string() }
}

/// What a role has, of what can be too much.
struct Attributes {
    excess: Vec<&'static str>,
    creates_roles: bool,
    inherits: bool,
}

impl Postgres {
    /// Duty 1, held by the server: this session could not change anything.
    async fn look_only(&self, client: &Client, found: &mut Vec<Finding>) -> Result<(), LoginError> {
        let said = |error: tokio_postgres::Error| failure::of_ending(&error);
        client.batch_execute("BEGIN READ ONLY").await.map_err(said)?;
        self.look(client, found).await?;
        client.batch_execute("ROLLBACK").await.map_err(said)
    }

    async fn look(&self, client: &Client, found: &mut Vec<Finding>) -> Result<(), LoginError> {
        let version = self.server(client, found).await?;
        self.own_rights(client, version, found).await?;
        let groups: BTreeSet<&String> =
            self.target.roles.values().flat_map(|role| &role.member_of).collect();
        for group in groups {
            self.group(client, group, version, found).await?;
        }
        if let Some(owner) = &self.target.owner {
            self.owner(client, owner, version, found).await?;
        }
        self.databases(client, found).await
    }

    async fn server(&self, client: &Client, found: &mut Vec<Finding>) -> Result<i32, LoginError> {
        let asked = "SELECT current_setting('server_version_num')::int / 10000, \
                     coalesce(s.version || ', ' || s.cipher, ''), pg_is_in_recovery() \
                     FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()";
        let rows = query(client, asked, &[]).await?;
        let Some(row) = rows.first() else {
            return Err(LoginError::Lost("it tells nothing of our own session".to_owned()));
        };
        let (version, tls): (i32, String) = (column(row, 0)?, column(row, 1)?);
        let (host, port) = (&self.target.host, self.target.port);
        found.push(match self.target.protection {
            Protection::VerifyFull { .. } => finding(
                Verdict::Good,
                format!(
                    "reached as `{}` at `{host}:{port}` with {tls}, its name verified",
                    self.target.user
                ),
            ),
            Protection::DangerouslyPlain => finding(
                Verdict::Unwise,
                format!("reached at `{host}:{port}` without TLS: give the server a certificate"),
            ),
        });
        found.push(if version < OLDEST {
            let detail = format!("PostgreSQL {version}, expected {OLDEST} to {NEWEST}: upgrade it");
            finding(Verdict::Bad, detail)
        } else if version > NEWEST {
            let detail = format!("PostgreSQL {version}, known are {OLDEST} to {NEWEST}");
            finding(Verdict::Unwise, detail)
        } else {
            finding(Verdict::Good, format!("PostgreSQL {version}"))
        });
        if column(row, 2)? {
            let detail = "it is a standby, and can't make roles: name the primary as `host`";
            found.push(finding(Verdict::Bad, detail));
        }
        Ok(version)
    }

    async fn own_rights(
        &self,
        client: &Client,
        version: i32,
        found: &mut Vec<Finding>,
    ) -> Result<(), LoginError> {
        let (user, before) = (&self.target.user, found.len());
        let quoted = identifier(user);
        let Some(own) = attributes(client, user).await? else {
            let detail =
                format!("`{user}` is no role of this server: reach it without a proxy in between");
            found.push(finding(Verdict::Bad, detail));
            return Ok(());
        };
        let is_superuser = own.excess.contains(&"SUPERUSER");
        if !own.creates_roles && !is_superuser {
            let detail = format!("`{user}` can't make logins: ALTER ROLE {quoted} CREATEROLE");
            found.push(finding(Verdict::Bad, detail));
        }
        if !own.inherits {
            let detail = format!(
                "`{user}` does not use what it is a member of: ALTER ROLE {quoted} INHERIT"
            );
            found.push(finding(Verdict::Bad, detail));
        }
        for attribute in own.excess {
            let detail = format!(
                "`{user}` has {attribute}, which is not needed: ALTER ROLE {quoted} NO{attribute}"
            );
            found.push(finding(Verdict::Unwise, detail));
        }
        if !has(client, user, "pg_signal_backend", "USAGE").await? {
            let detail =
                format!("`{user}` can't cut sessions: GRANT pg_signal_backend TO {quoted}");
            found.push(finding(Verdict::Bad, detail));
        }
        for role in OUT_OF_THE_BOX {
            if !is_superuser && has(client, user, role, "MEMBER").await? {
                let detail = format!(
                    "`{user}` is a member of `{role}`, which is not needed: REVOKE {role} FROM {quoted}"
                );
                found.push(finding(Verdict::Unwise, detail));
            }
        }
        if before == found.len() {
            let detail =
                format!("`{user}` has CREATEROLE and pg_signal_backend, and nothing beyond");
            found.push(finding(Verdict::Good, detail));
        }
        if version < BOUNDED_CREATEROLE {
            let detail = format!(
                "before PostgreSQL {BOUNDED_CREATEROLE}, CREATEROLE is power over every role that is no superuser: upgrade it"
            );
            found.push(finding(Verdict::Unwise, detail));
        }
        Ok(())
    }

    async fn group(
        &self,
        client: &Client,
        group: &str,
        version: i32,
        found: &mut Vec<Finding>,
    ) -> Result<(), LoginError> {
        let (user, quoted) = (&self.target.user, identifier(group));
        let Some(its) = attributes(client, group).await? else {
            let detail = format!("group role `{group}` is not there: CREATE ROLE {quoted} NOLOGIN");
            found.push(finding(Verdict::Bad, detail));
            return Ok(());
        };
        let before = found.len();
        for attribute in its.excess.iter().copied().chain(its.creates_roles.then_some("CREATEROLE"))
        {
            // By `SET ROLE` a login would have it: it could make another login that nobody ends (threat B07).
            let bad = ["SUPERUSER", "CREATEROLE"].contains(&attribute);
            let verdict = if bad { Verdict::Bad } else { Verdict::Unwise };
            let detail = format!(
                "group role `{group}` has {attribute}, and so has every login of it: ALTER ROLE {quoted} NO{attribute}"
            );
            found.push(finding(verdict, detail));
        }
        for role in OUT_OF_THE_BOX {
            if has(client, group, role, "MEMBER").await? {
                let detail = format!(
                    "group role `{group}` is a member of `{role}`: its logins reach the server's own files: REVOKE {role} FROM {quoted}"
                );
                found.push(finding(Verdict::Bad, detail));
            }
        }
        if version >= BOUNDED_CREATEROLE
            && !has(client, user, group, "MEMBER WITH ADMIN OPTION").await?
        {
            let detail = format!(
                "`{user}` can't hand out `{group}`: GRANT {quoted} TO {} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
                identifier(user)
            );
            found.push(finding(Verdict::Bad, detail));
        }
        if before == found.len() {
            found.push(finding(Verdict::Good, format!("group role `{group}` can be handed out")));
        }
        Ok(())
    }

    /// `REASSIGN OWNED` wants what the new owner may, and from 16 on also that we may become it.
    async fn owner(
        &self,
        client: &Client,
        owner: &str,
        version: i32,
        found: &mut Vec<Finding>,
    ) -> Result<(), LoginError> {
        let (user, quoted) = (&self.target.user, identifier(owner));
        if attributes(client, owner).await?.is_none() {
            let detail = format!("`owner` `{owner}` is not there: CREATE ROLE {quoted} NOLOGIN");
            found.push(finding(Verdict::Bad, detail));
            return Ok(());
        }
        let may_set = if version >= BOUNDED_CREATEROLE { "SET" } else { "MEMBER" };
        let may =
            has(client, user, owner, "USAGE").await? && has(client, user, owner, may_set).await?;
        found.push(if may {
            finding(Verdict::Good, format!("`{owner}` gets what logins leave behind"))
        } else {
            let detail = format!(
                "`{user}` can't give anything to `{owner}`: GRANT {quoted} TO {}",
                identifier(user)
            );
            finding(Verdict::Bad, detail)
        });
        Ok(())
    }

    /// What a login leaves where we are not let in, we can't clean up.
    async fn databases(&self, client: &Client, found: &mut Vec<Finding>) -> Result<(), LoginError> {
        let asked = "SELECT datname::text, datallowconn, has_database_privilege(current_user, oid, 'CONNECT') \
                     FROM pg_database ORDER BY 1";
        let mut there = BTreeSet::new();
        for row in &query(client, asked, &[]).await? {
            let (name, open, may): (String, bool, bool) =
                (column(row, 0)?, column(row, 1)?, column(row, 2)?);
            let listed = self.target.databases.as_ref().map(|names| names.contains(&name));
            if !open && listed == Some(true) {
                let detail =
                    format!("database `{name}` takes no connections: take it out of `databases`");
                found.push(finding(Verdict::Bad, detail));
            } else if open && !may && listed != Some(false) {
                let detail = format!(
                    "what a login leaves in database `{name}` can't be cleaned up: GRANT CONNECT ON DATABASE {} TO {}",
                    identifier(&name),
                    identifier(&self.target.user)
                );
                let verdict = if listed.is_some() { Verdict::Bad } else { Verdict::Unwise };
                found.push(finding(verdict, detail));
            }
            there.insert(name);
        }
        let of_roles = self.target.roles.values().map(|role| &role.database);
        let wanted: BTreeSet<&String> =
            of_roles.chain(self.target.databases.iter().flatten()).collect();
        for name in wanted.into_iter().filter(|name| !there.contains(*name)) {
            let detail =
                format!("database `{name}` is not there: CREATE DATABASE {}", identifier(name));
            found.push(finding(Verdict::Bad, detail));
        }
        Ok(())
    }
}

async fn attributes(client: &Client, role: &str) -> Result<Option<Attributes>, LoginError> {
    let asked = "SELECT rolcreaterole, rolinherit, rolsuper, rolbypassrls, rolreplication, rolcreatedb \
                 FROM pg_roles WHERE rolname = $1";
    let rows = query(client, asked, &[(&role, Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let mut excess = Vec::new();
    let words = [(2, "SUPERUSER"), (3, "BYPASSRLS"), (4, "REPLICATION"), (5, "CREATEDB")];
    for (place, word) in words {
        if column(row, place)? {
            excess.push(word);
        }
    }
    Ok(Some(Attributes { excess, creates_roles: column(row, 0)?, inherits: column(row, 1)? }))
}

/// Whether `role` has `other` in the sense of `how` (`pg_has_role`).
async fn has(client: &Client, role: &str, other: &str, how: &str) -> Result<bool, LoginError> {
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&role, &other, &how];
    let [role, other, how] = parameters.map(|parameter| (parameter, Type::TEXT));
    let asked = "SELECT pg_has_role($1::name, $2::name, $3)";
    let rows = query(client, asked, &[role, other, how]).await?;
    rows.first().map_or(Ok(false), |row| column(row, 0))
}
