//! `end`: shut first, then cut, then emptied in every database that holds something of it, then dropped (threats B04 to B07).

use std::{collections::BTreeMap, time::Duration};

use tokio_postgres::{
    Client, Row,
    error::{DbError, SqlState},
    types::{ToSql, Type},
};

use super::{
    PostgresTarget,
    create::{ROLE_WORD, marked},
    failure,
    hand::{Hand, Hands},
    quote::identifier,
};
use crate::{
    lease::Gone,
    mint::{login::LoginError, name::Names, sql::Placeholder},
};

/// How often it is looked whether all sessions are gone, and how long between two looks.
const LOOKS: u32 = 60;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often shutting or emptying is begun anew: a holder may be in the way until its sessions are cut.
const ROUNDS: u32 = 3;

/// A role that is being ended.
struct Ending<'e> {
    target: &'e PostgresTarget,
    names: &'e Names,
    hand: Hand<'e>,
    home: &'e str,
    name: &'e str,
    oid: u32,
    /// The server's version, such as `150018`.
    version: i32,
    /// Whether we are a member of it, so that we may do what only its owner may.
    is_member: bool,
}

/// What is left of a role in one database.
#[derive(Clone, Debug, Default)]
struct Left {
    /// Objects that a new owner can have.
    owned: i64,
    /// Whether the database lets anyone in.
    shut: bool,
}

/// Ends the role `name`, which is one of ours.
///
/// # Errors
/// Something of it is left, or nobody knows.
pub(super) async fn end(
    target: &PostgresTarget,
    names: &Names,
    hands: &Hands,
    name: &str,
) -> Result<Gone, LoginError> {
    let mut hand = hands.hand();
    let client = hand.at_home().await?;
    let asked = "SELECT oid, shobj_description(oid, 'pg_authid'), current_setting('server_version_num')::int \
                 FROM pg_roles WHERE rolname = $1";
    let Some(row) = query(client, asked, &[(&name, Type::TEXT)]).await?.pop() else {
        hand.rest();
        return Ok(Gone::Absent);
    };
    let (oid, comment) = (column(&row, 0)?, column::<Option<String>>(&row, 1)?);
    let version = column(&row, 2)?;
    let home = hands.home();
    let ending = Ending { target, names, hand, home, name, oid, version, is_member: false };
    let done = ending.all(comment.as_deref()).await;
    // Another one may have ended it meanwhile, and then anything can fail (threat B09): what counts is what is there.
    if matches!(done, Err(LoginError::Refused(_))) && is_gone(hands, oid).await? {
        return Ok(Gone::Ended);
    }
    done.map(|()| Gone::Ended)
}

async fn is_gone(hands: &Hands, oid: u32) -> Result<bool, LoginError> {
    let mut hand = hands.hand();
    let asked = "SELECT FROM pg_roles WHERE oid = $1";
    let rows = query(hand.at_home().await?, asked, &[(&oid, Type::OID)]).await?;
    hand.rest();
    Ok(rows.is_empty())
}

/// The roles whose names begin with `prefix`.
pub(super) async fn names(client: &Client, prefix: &str) -> Result<Vec<String>, LoginError> {
    let asked = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname::text, $1)";
    let rows = query(client, asked, &[(&prefix, Type::TEXT)]).await?;
    rows.iter().map(|row| column(row, 0)).collect()
}

impl Ending<'_> {
    async fn all(mut self, comment: Option<&str>) -> Result<(), LoginError> {
        self.shut().await?;
        self.cut().await?;
        self.operators(comment).await?;
        self.empty_and_drop().await?;
        // Who had just logged in when it was shut.
        self.cut().await?;
        self.hand.rest();
        Ok(())
    }

    /// No new session from here on, whatever happens next. The holder can be in the way by an open or prepared change of its
    /// own password (threat B07).
    async fn shut(&mut self) -> Result<(), LoginError> {
        let statement = format!(
            "ALTER ROLE {} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0 VALID UNTIL '1970-01-01T00:00:00Z'",
            identifier(self.name)
        );
        // Sessions that come back as soon as they are cut would always be in the way of one who waits until there are none: who
        // is there is cut in the same breath, and who comes then waits behind us.
        let cut_first = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = {}; {statement}",
            self.oid
        );
        let mut attempt = &statement;
        for _ in 1..ROUNDS {
            let client = self.hand.at_home().await?;
            match client.batch_execute(attempt).await {
                Ok(()) => return Ok(()),
                Err(error) if is_in_the_way(&error) => self.roll_back_prepared().await?,
                Err(error) => return Err(failure::of_ending(&error)),
            }
            attempt = &cut_first;
        }
        let last = self.hand.at_home().await?.batch_execute(&cut_first).await;
        last.map_err(|error| failure::of_ending(&error))
    }

    /// Ends its sessions, and waits until they are gone.
    async fn cut(&mut self) -> Result<(), LoginError> {
        let oid = self.oid;
        let client = self.hand.at_home().await?;
        let asked = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = $1";
        for _ in 0..LOOKS {
            let parameters: &[(&(dyn ToSql + Sync), Type)] = &[(&oid, Type::OID)];
            match client.query_typed(asked, parameters).await {
                Ok(rows) if rows.is_empty() => return Ok(()),
                Ok(_) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) if failure::is(&error, &SqlState::INSUFFICIENT_PRIVILEGE) => {
                    return Err(LoginError::Refused(format!(
                        "its sessions can't be ended: {}: grant `pg_signal_backend` to our role",
                        failure::text(&error)
                    )));
                }
                Err(error) => return Err(failure::of_ending(&error)),
            }
        }
        Err(LoginError::Refused("sessions of it do not end".to_owned()))
    }

    /// What the operator wants done for a login of this role. It is known by the last word of its comment, which its holder
    /// can't change.
    async fn operators(&mut self, comment: Option<&str>) -> Result<(), LoginError> {
        let word = comment.and_then(|comment| comment.rsplit(' ').next());
        let word = word.and_then(|word| word.strip_prefix(ROLE_WORD));
        let role = self.target.roles.iter().find(|(name, _)| word == Some(&marked(name.as_str())));
        let Some((_, role)) = role.filter(|(_, role)| !role.revoke.is_empty()) else {
            return Ok(());
        };
        let token = |placeholder: Placeholder| match placeholder {
            Placeholder::Name => identifier(self.name),
            // The configuration has neither in a `revoke`.
            Placeholder::Password | Placeholder::ExpiresAt => "NULL".to_owned(),
        };
        let mut statements = vec!["BEGIN".to_owned()];
        statements.extend(role.revoke.iter().map(|statement| statement.render(token)));
        statements.push("COMMIT".to_owned());
        let client = self.hand.at(&role.database).await?;
        for statement in statements {
            let done = client.batch_execute(&statement).await;
            done.map_err(|error| in_database(&role.database, failure::of_ending(&error)))?;
        }
        Ok(())
    }

    /// The server itself knows what depends on a role, and in which database: only those are visited.
    async fn empty_and_drop(&mut self) -> Result<(), LoginError> {
        let mut joined = Vec::new();
        let done = self.empty_and_drop_joining(&mut joined).await;
        for login in joined {
            // It may have ended meanwhile, and what is left of this ends with it.
            let statement = format!("REVOKE {} FROM CURRENT_USER", identifier(&login));
            let _ = self.hand.at_home().await?.batch_execute(&statement).await;
        }
        done
    }

    async fn empty_and_drop_joining(&mut self, joined: &mut Vec<String>) -> Result<(), LoginError> {
        let drop_role = format!("DROP ROLE {}", identifier(self.name));
        let mut said = LoginError::Refused("something of it is left".to_owned());
        for _ in 0..ROUNDS {
            self.roll_back_prepared().await?;
            let left = self.left().await?;
            for (database, left) in &left {
                self.empty(database, left).await?;
            }
            let client = self.hand.at_home().await?;
            match client.batch_execute(&drop_role).await {
                Ok(()) => return Ok(()),
                Err(error) if is_in_the_way(&error) => said = failure::of_ending(&error),
                Err(error) if failure::is(&error, &SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
                    said = granted_by_others(&error);
                    if joined.is_empty() {
                        self.join_granters(joined).await?;
                    }
                    // What it has granted to others of itself is in no database.
                    let home = self.home.to_owned();
                    self.empty(&home, &Left::default()).await?;
                }
                Err(error) => return Err(failure::of_ending(&error)),
            }
        }
        Err(said)
    }

    /// What there is of it, by database. What all databases share is found in each: ours will do.
    async fn left(&mut self) -> Result<BTreeMap<String, Left>, LoginError> {
        let asked = "SELECT coalesce(d.datname::text, $2), coalesce(NOT d.datallowconn, false), \
                     count(*) FILTER (WHERE s.deptype = 'o' AND s.classid NOT IN \
                     ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)) \
                     FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid \
                     WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 \
                     AND s.classid <> 'pg_auth_members'::regclass GROUP BY 1, 2";
        let (oid, home) = (self.oid, self.home);
        let client = self.hand.at_home().await?;
        let rows = query(client, asked, &[(&oid, Type::OID), (&home, Type::TEXT)]).await?;
        let mut left = BTreeMap::new();
        for row in &rows {
            let entry: &mut Left = left.entry(column(row, 0)?).or_default();
            entry.shut |= column::<bool>(row, 1)?;
            entry.owned = entry.owned.saturating_add(column(row, 2)?);
        }
        Ok(left)
    }

    async fn empty(&mut self, database: &str, left: &Left) -> Result<(), LoginError> {
        self.may_enter(database, left)?;
        self.become_member().await?;
        let role = identifier(self.name);
        let mut statements = vec!["BEGIN".to_owned()];
        if left.owned > 0 {
            // What people have made is not ours to destroy.
            let Some(owner) = &self.target.owner else {
                return Err(LoginError::Refused(format!(
                    "it owns {} objects in database `{database}`: name an `owner` in the target, who is to have them",
                    left.owned
                )));
            };
            statements.push(format!("REASSIGN OWNED BY {role} TO {}", identifier(owner)));
        }
        statements.extend([format!("DROP OWNED BY {role}"), "COMMIT".to_owned()]);
        let client = self.hand.at(database).await?;
        let done = client.batch_execute(&statements.join("; ")).await;
        done.map_err(|error| {
            let told = match failure::of_ending(&error) {
                LoginError::Refused(said) if failure::is(&error, &SqlState::OUT_OF_MEMORY) => {
                    LoginError::Refused(format!(
                        "{said}: it is shut, and has more objects than the server can lock at once: raise \
                         `max_locks_per_transaction`, or drop some of them"
                    ))
                }
                other @ (LoginError::Refused(_) | LoginError::Unreachable(_) | LoginError::Lost(_)) => other,
            };
            in_database(database, told)
        })
    }

    fn may_enter(&self, database: &str, left: &Left) -> Result<(), LoginError> {
        let names = self.target.databases.as_ref();
        if database != self.home && names.is_some_and(|names| !names.contains(database)) {
            return Err(LoginError::Refused(format!(
                "it has something in database `{database}`, which is not among the target's `databases`"
            )));
        }
        if left.shut {
            return Err(LoginError::Refused(format!(
                "it has something in database `{database}`, which takes no connections: \
                 ALTER DATABASE {} ALLOW_CONNECTIONS true",
                identifier(database)
            )));
        }
        Ok(())
    }

    /// A prepared transaction outlives its session, and holds locks until somebody ends it: the role that prepared it may.
    async fn roll_back_prepared(&mut self) -> Result<(), LoginError> {
        // The id is the holder's own text: the server quotes it (threat B01).
        let asked = "SELECT database::text, format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts \
                     WHERE owner = $1 ORDER BY 1";
        let name = self.name;
        let client = self.hand.at_home().await?;
        let rows = query(client, asked, &[(&name, Type::TEXT)]).await?;
        for row in &rows {
            let (database, statement): (String, String) = (column(row, 0)?, column(row, 1)?);
            self.may_enter(&database, &Left::default())?;
            self.become_member().await?;
            let client = self.hand.at(&database).await?;
            let role = format!("SET ROLE {}", identifier(self.name));
            for statement in [role.as_str(), &statement, "RESET ROLE"] {
                let done = client.batch_execute(statement).await;
                done.map_err(|error| in_database(&database, failure::of_ending(&error)))?;
            }
        }
        Ok(())
    }

    /// `REASSIGN OWNED`, `DROP OWNED` and `SET ROLE` want membership. From 16 on whoever makes a role has `ADMIN` on it, and
    /// nothing else. It ends with the role.
    async fn become_member(&mut self) -> Result<(), LoginError> {
        if !self.is_member {
            self.join(self.name).await?;
            self.is_member = true;
        }
        Ok(())
    }

    async fn join(&mut self, login: &str) -> Result<(), LoginError> {
        let how = if self.version >= 160_000 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        let statement = format!("GRANT {} TO CURRENT_USER{how}", identifier(login));
        let done = self.hand.at_home().await?.batch_execute(&statement).await;
        done.map_err(|error| failure::of_ending(&error))
    }

    /// One login could grant something of its own to all the others, and none of them could be dropped as long as it lives
    /// (threat B04). What it has granted we can take back as a member of it.
    async fn join_granters(&mut self, joined: &mut Vec<String>) -> Result<(), LoginError> {
        // Of a policy the server does not say here whose it is: whoever of ours owns anything in its database may be meant.
        let asked = "SELECT DISTINCT r.rolname::text FROM pg_shdepend s \
                     JOIN pg_shdepend o ON o.dbid = s.dbid AND o.deptype = 'o' AND o.refclassid = s.refclassid \
                     JOIN pg_roles r ON r.oid = o.refobjid WHERE s.refclassid = 'pg_authid'::regclass \
                     AND s.refobjid = $1 AND r.oid <> $1 \
                     AND (s.deptype = 'r' OR (s.deptype = 'a' AND (s.classid, s.objid) = (o.classid, o.objid))) \
                     AND starts_with(r.rolname::text, $2)";
        let (oid, prefix) = (self.oid, self.names.prefix());
        let client = self.hand.at_home().await?;
        let rows = query(client, asked, &[(&oid, Type::OID), (&prefix, Type::TEXT)]).await?;
        for row in &rows {
            let login: String = column(row, 0)?;
            // One that has ended meanwhile grants nothing any more.
            if self.names.is_ours(&login) && self.join(&login).await.is_ok() {
                joined.push(login);
            }
        }
        Ok(())
    }
}

/// Somebody else holds what a statement wants, or has just changed it.
fn is_in_the_way(error: &tokio_postgres::Error) -> bool {
    [SqlState::LOCK_NOT_AVAILABLE, SqlState::INTERNAL_ERROR, SqlState::QUERY_CANCELED]
        .iter()
        .any(|state| failure::is(error, state))
}

/// `DROP OWNED` takes back what we, or a role that we are a member of, could have granted, and passes over the rest.
fn granted_by_others(error: &tokio_postgres::Error) -> LoginError {
    let detail = error.as_db_error().and_then(DbError::detail).unwrap_or("nothing more is said");
    LoginError::Refused(format!(
        "it is shut, and can't be dropped while there are {}: take back what others granted to it, or make our role a member of \
         those who did",
        detail.lines().collect::<Vec<_>>().join(", ")
    ))
}

fn in_database(database: &str, error: LoginError) -> LoginError {
    let named = |reason: String| format!("database `{database}`: {reason}");
    match error {
        LoginError::Refused(reason) => LoginError::Refused(named(reason)),
        LoginError::Unreachable(reason) => LoginError::Unreachable(named(reason)),
        LoginError::Lost(reason) => LoginError::Lost(named(reason)),
    }
}

pub(super) async fn query(
    client: &Client,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, LoginError> {
    let rows = client.query_typed(statement, parameters).await;
    rows.map_err(|error| failure::of_ending(&error))
}

pub(super) fn column<'r, T: tokio_postgres::types::FromSql<'r>>(
    row: &'r Row,
    place: usize,
) -> Result<T, LoginError> {
    row.try_get(place).map_err(|error| LoginError::Lost(failure::text(&error)))
}
