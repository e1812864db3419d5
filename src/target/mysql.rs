//! What a role of a MariaDB or MySQL may do, as closed data: nothing of it is ever SQL before it is quoted (threat B01).

use std::collections::BTreeSet;

use super::Unfit;

/// The longest name of a database, a table or a role: MySQL and MariaDB both refuse longer ones.
const NAME_BYTES: usize = 64;
/// The longest host of an account: MySQL 5.7 and MariaDB before 10.5 have 60 characters.
const HOST_BYTES: usize = 60;
/// Databases whose tables decide who may do what: a grant there is a grant of everything.
const SYSTEM: &[&str] = &["mysql", "sys", "information_schema", "performance_schema"];

/// The name of a database, a table or a server's role: 1 to 64 letters, digits, `_`, `-` and `$`. Such a name ends no quotes of
/// any kind and is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identifier(String);

impl Identifier {
    /// # Errors
    /// `text` has other characters, or too many.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-$".contains(&byte);
        if text.is_empty() || text.len() > NAME_BYTES || !text.bytes().all(fits) {
            return Err(Unfit("1 to 64 letters, digits, `_`, `-` and `$`"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name of a database that workloads may have.
    ///
    /// # Errors
    /// It is no [`Identifier`], or one of the server's own.
    pub fn database(text: &str) -> Result<Self, Unfit> {
        let database = Self::parse(text)?;
        if SYSTEM.contains(&text.to_ascii_lowercase().as_str()) {
            return Err(Unfit("a database of yours: the server's own decide who may do what"));
        }
        Ok(database)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// From where a login may come: the part of an account's name behind `@`. `%` is any number of characters, `_` is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// # Errors
    /// `text` has other characters than host names, addresses and netmasks have, or too many.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"%_.:/-".contains(&byte);
        if text.is_empty() || text.len() > HOST_BYTES || !text.bytes().all(fits) {
            return Err(Unfit("1 to 60 letters, digits, `.`, `:`, `-`, `/`, `%` and `_`"));
        }
        Ok(Self(text.to_owned()))
    }

    /// From anywhere.
    #[must_use]
    pub fn any() -> Self {
        Self("%".to_owned())
    }

    /// The pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A privilege that a login may have. Only those whose use ends with the login: what `CREATE VIEW`, `CREATE ROUTINE`, `TRIGGER`
/// and `EVENT` make goes on acting in its maker's name, `GRANT OPTION` makes others, and global ones are the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Privilege {
    /// The word of the configuration.
    pub word: &'static str,
    /// As the server says it.
    pub sql: &'static str,
    /// Whether it is for whole databases only.
    pub of_databases: bool,
}

macro_rules! privileges {
    ($(($word:literal, $sql:literal, $of_databases:literal, $doc:literal)),+ $(,)?) => {
        /// Every privilege that there is here.
        pub const PRIVILEGES: &[Privilege] =
            &[$(Privilege { word: $word, sql: $sql, of_databases: $of_databases }),+];
        /// The words of the configuration, each with what it allows.
        pub const PRIVILEGE_WORDS: &[(&str, &str)] = &[$(($word, $doc)),+];
    };
}

privileges![
    ("select", "SELECT", false, "read rows"),
    ("insert", "INSERT", false, "add rows"),
    ("update", "UPDATE", false, "change rows"),
    ("delete", "DELETE", false, "remove rows"),
    ("create", "CREATE", false, "make tables"),
    ("alter", "ALTER", false, "change tables"),
    ("index", "INDEX", false, "make and drop indexes"),
    ("references", "REFERENCES", false, "make foreign keys"),
    ("drop", "DROP", false, "drop and empty tables"),
    ("show_view", "SHOW VIEW", false, "see how views are made"),
    ("execute", "EXECUTE", true, "call routines, which may have more power than their caller"),
    ("lock_tables", "LOCK TABLES", true, "lock tables that it may read"),
    ("create_temporary_tables", "CREATE TEMPORARY TABLES", true, "make tables of its session"),
];

impl Privilege {
    /// By its word in the configuration.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        PRIVILEGES.iter().find(|privilege| privilege.word == word).copied()
    }
}

/// Privileges in one database, or on one table of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlGrant {
    /// The database.
    pub database: Identifier,
    /// The table; none is all of them, those to come included.
    pub table: Option<Identifier>,
    /// What may be done there; at least one.
    pub privileges: BTreeSet<Privilege>,
}

/// What a login is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MysqlRole {
    /// Directly.
    pub grants: Vec<MysqlGrant>,
    /// Roles of the server that it has, and that are in force as soon as it is logged in.
    pub member_of: Vec<Identifier>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b01_no_name_and_no_host_can_end_quotes_or_be_a_pattern() {
        let bad = [
            "", "a b", "a`b", "a'b", "a\"b", "a\\b", "a;b", "a\0b", "a\nb", "é", "a%", "a*", "$$ ",
        ];
        for text in bad.into_iter().chain([&*"x".repeat(65)]) {
            assert!(Identifier::parse(text).is_err(), "{text:?}");
        }
        for text in
            ["", "a b", "a'b", "a`b", "a\"b", "a\\b", "@", "a\0", "10.0.0.%'#", &*"1".repeat(61)]
        {
            assert!(HostPattern::parse(text).is_err(), "{text:?}");
        }
        for text in ["%", "10.0.0.%", "10.0.0.0/255.0.0.0", "::1", "build-1.example.com"] {
            assert!(HostPattern::parse(text).is_ok(), "{text}");
        }
        for text in ["mysql", "MySQL", "sys", "performance_schema", "INFORMATION_SCHEMA"] {
            assert!(Identifier::database(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_that_outlives_a_login_can_be_granted() {
        for word in [
            "all",
            "grant_option",
            "create_view",
            "create_routine",
            "trigger",
            "event",
            "super",
            "file",
        ] {
            assert_eq!(Privilege::find(word), None);
        }
        assert_eq!(PRIVILEGES.len(), PRIVILEGE_WORDS.len());
    }
}
