//! What is said to a MariaDB or MySQL, as text.
//!
//! Threat B01: the servers take no parameters in these statements, so everything in them is of a type whose alphabet can end no
//! quotes, whatever the session's `sql_mode`: names of ours, parsed identifiers, parsed hosts, hex digits, base64url, JSON of a
//! closed alphabet.

use std::fmt::{self, Write as _};

use aws_lc_rs::digest;

use crate::{
    mint::name::Names,
    secret::Secret,
    target::mysql::{HostPattern, Identifier, MysqlGrant},
};

/// Whose language the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// MariaDB.
    MariaDb,
    /// MySQL; `attributes`: since 8.0.21 a user has a JSON of its own.
    MySql { attributes: bool },
}

impl Dialect {
    /// From `SELECT VERSION()`: `10.11.6-MariaDB-log`, `8.0.36`.
    ///
    /// # Errors
    /// It is older than what we need: MariaDB 10.4 (`ACCOUNT LOCK`), MySQL 8.0 (roles, `caching_sha2_password`).
    pub(super) fn of(version: &str) -> Result<Self, String> {
        let mut numbers = version.split(['.', '-']).map(str::parse::<u32>);
        let mut number = || numbers.next().and_then(Result::ok).unwrap_or_default();
        let found = (number(), number(), number());
        let maria = version.contains("MariaDB");
        if (maria && found < (10, 4, 2)) || (!maria && found < (8, 0, 0)) {
            return Err(format!(
                "its version is `{}`, expected MariaDB 10.4.2 or MySQL 8.0, or newer",
                version.escape_debug()
            ));
        }
        Ok(if maria { Self::MariaDb } else { Self::MySql { attributes: found >= (8, 0, 21) } })
    }
}

/// A user of ours at a host: `'cambio_…'@'%'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account(String);

impl Account {
    /// `None` if `name` is none of `names`.
    pub(super) fn of(names: &Names, name: &str, host: &HostPattern) -> Option<Self> {
        names.is_ours(name).then(|| Self(format!("'{name}'@'{}'", host.as_str())))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a user is made with, besides its name.
#[derive(Debug)]
pub(super) struct Making<'a> {
    pub(super) password: &'a Secret,
    pub(super) attribution: &'a str,
    pub(super) require_tls: bool,
    pub(super) sessions: u32,
    pub(super) member_of: &'a [Identifier],
}

/// Makes the user. The statement is a secret: on MySQL the password stands in it.
///
/// `None` if the password is not of our own alphabet.
pub(super) fn create(dialect: Dialect, account: &Account, making: &Making<'_>) -> Option<Secret> {
    let mut text = format!("CREATE USER {account} ");
    match dialect {
        // MariaDB writes statements into its logs as they came: it gets the hash alone.
        Dialect::MariaDb => {
            let hash = native_hash(making.password);
            text.push_str("IDENTIFIED VIA mysql_native_password USING '");
            text.push_str(&hash);
        }
        // MySQL hashes by itself, and writes `<secret>` in place of the password into its logs.
        Dialect::MySql { .. } => {
            let password = making.password.reveal_text()?;
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if !password.bytes().all(fits) {
                return None;
            }
            text.push_str("IDENTIFIED WITH caching_sha2_password BY '");
            text.push_str(password);
        }
    }
    text.push('\'');
    if matches!(dialect, Dialect::MySql { .. }) && !making.member_of.is_empty() {
        let _ = write!(text, " DEFAULT ROLE {}", roles(making.member_of));
    }
    text.push_str(if making.require_tls { " REQUIRE SSL" } else { " REQUIRE NONE" });
    let _ = write!(text, " WITH MAX_USER_CONNECTIONS {}", making.sessions);
    if dialect == (Dialect::MySql { attributes: true }) {
        let plain = |c: &char| c.is_ascii_alphanumeric() || " ._:/@=-".contains(*c);
        let known: String = making.attribution.chars().filter(plain).collect();
        let _ = write!(text, " ATTRIBUTE '{{\"cambio\": \"{known}\"}}'");
    }
    Some(Secret::from(text))
}

/// Gives the user what its role has, in the order in which it must be said.
pub(super) fn give(
    dialect: Dialect,
    account: &Account,
    grants: &[MysqlGrant],
    member_of: &[Identifier],
) -> Vec<String> {
    let mut statements: Vec<String> =
        grants.iter().map(|grant| self::grant(account, grant)).collect();
    if dialect == Dialect::MariaDb {
        for role in member_of {
            statements.push(format!("GRANT `{}` TO {account}", role.as_str()));
            statements.push(format!("SET DEFAULT ROLE `{}` FOR {account}", role.as_str()));
        }
    }
    statements
}

fn grant(account: &Account, grant: &MysqlGrant) -> String {
    let privileges: Vec<&str> = grant.privileges.iter().map(|privilege| privilege.sql).collect();
    let privileges = privileges.join(", ");
    let database = grant.database.as_str();
    let on = match &grant.table {
        Some(table) => format!("`{database}`.`{}`", table.as_str()),
        // Of a whole database, `_` in its name would be any one character: `my_db` is `my1db`, too.
        None => format!("`{}`.*", database.replace('_', "\\_")),
    };
    format!("GRANT {privileges} ON {on} TO {account}")
}

fn roles(roles: &[Identifier]) -> String {
    let quoted: Vec<String> = roles.iter().map(|role| format!("`{}`", role.as_str())).collect();
    quoted.join(", ")
}

/// What `PASSWORD()` gives, and what `mysql_native_password` keeps: `*` and SHA-1 of the SHA-1 in hex. The password has 192 bits
/// of randomness, so that nothing is lost by a fast hash.
fn native_hash(password: &Secret) -> String {
    let algorithm = &digest::SHA1_FOR_LEGACY_USE_ONLY;
    let twice = digest::digest(algorithm, digest::digest(algorithm, password.reveal()).as_ref());
    let mut text = String::from("*");
    for byte in twice.as_ref() {
        let _ = write!(text, "{byte:02X}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chance::SeededChance, target::mysql::Privilege};

    fn account() -> Account {
        let names = Names::of("log.example/cambio", &"mysql/orders".into());
        let name = names.make(&SeededChance::of(1)).unwrap();
        Account::of(&names, &name, &HostPattern::any()).unwrap()
    }

    #[test]
    fn a_hash_is_what_the_server_would_make_of_the_password() {
        let password = Secret::from("password".to_owned());
        assert_eq!(native_hash(&password), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }

    #[test]
    fn a_grant_on_a_database_is_on_that_one_alone() {
        let of = |table: Option<&str>| MysqlGrant {
            database: Identifier::parse("my_db").unwrap(),
            table: table.map(|table| Identifier::parse(table).unwrap()),
            privileges: ["select", "insert"].into_iter().filter_map(Privilege::find).collect(),
        };
        let said = |table| grant(&account(), &of(table)).replace(&account().to_string(), "X");
        assert_eq!(said(None), r"GRANT INSERT, SELECT ON `my\_db`.* TO X");
        assert_eq!(said(Some("a_b")), r"GRANT INSERT, SELECT ON `my_db`.`a_b` TO X");
    }

    fn said(
        dialect: Dialect,
        password: &str,
        making: impl Fn(Making<'_>) -> Option<Secret>,
    ) -> Option<String> {
        let password = Secret::from(password.to_owned());
        let roles = [Identifier::parse("app_read").unwrap(), Identifier::parse("app-2").unwrap()];
        let member_of: &[Identifier] = if dialect == Dialect::MariaDb { &[] } else { &roles };
        let text = making(Making {
            password: &password,
            attribution: "cambio exchange=ex_1 rule=a/b 'x\"y\\\n",
            require_tls: true,
            sessions: 5,
            member_of,
        })?;
        Some(text.reveal_text()?.replace(&account().to_string(), "X"))
    }

    #[test]
    fn what_is_said_to_make_a_user() {
        let make = |dialect, password| {
            said(dialect, password, |making| create(dialect, &account(), &making))
        };
        assert_eq!(
            make(Dialect::MariaDb, "password").unwrap(),
            "CREATE USER X IDENTIFIED VIA mysql_native_password USING '*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19' \
             REQUIRE SSL WITH MAX_USER_CONNECTIONS 5"
        );
        assert_eq!(
            make(Dialect::MySql { attributes: true }, "pass-_9").unwrap(),
            "CREATE USER X IDENTIFIED WITH caching_sha2_password BY 'pass-_9' DEFAULT ROLE `app_read`, `app-2` \
             REQUIRE SSL WITH MAX_USER_CONNECTIONS 5 ATTRIBUTE '{\"cambio\": \"cambio exchange=ex_1 rule=a/b xy\"}'"
        );
        assert_eq!(
            make(Dialect::MySql { attributes: false }, "p").unwrap(),
            "CREATE USER X IDENTIFIED WITH caching_sha2_password BY 'p' DEFAULT ROLE `app_read`, `app-2` \
             REQUIRE SSL WITH MAX_USER_CONNECTIONS 5"
        );
        for hostile in ["a'b", "a\\", "a b", "a\0", "é"] {
            assert_eq!(make(Dialect::MySql { attributes: true }, hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn a_default_role_of_a_mariadb_is_said_for_itself() {
        let role = Identifier::parse("app_read").unwrap();
        let given: Vec<String> =
            give(Dialect::MariaDb, &account(), &[], std::slice::from_ref(&role))
                .into_iter()
                .map(|statement| statement.replace(&account().to_string(), "X"))
                .collect();
        assert_eq!(given, ["GRANT `app_read` TO X", "SET DEFAULT ROLE `app_read` FOR X"]);
        assert!(give(Dialect::MySql { attributes: true }, &account(), &[], &[role]).is_empty());
    }

    #[test]
    fn versions_are_told_apart() {
        assert_eq!(Dialect::of("10.11.19-MariaDB-0+deb12u1-log"), Ok(Dialect::MariaDb));
        assert_eq!(Dialect::of("8.0.20"), Ok(Dialect::MySql { attributes: false }));
        assert_eq!(Dialect::of("8.4.3-log"), Ok(Dialect::MySql { attributes: true }));
        for old in ["5.7.44", "10.3.39-MariaDB", "", "rubbish"] {
            assert!(Dialect::of(old).is_err(), "{old}");
        }
    }
}
