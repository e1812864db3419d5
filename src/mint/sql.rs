//! Statements that an operator writes, with typed placeholders and nothing else to fill in (threat B01): read when the
//! configuration is, so that what could be misread by a server is never sent to one.

use std::fmt;

use thiserror::Error;

/// Whose SQL it is: what quotes and what comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL: `'…'`, `"…"`, `$tag$…$tag$`, `--`, nested `/* */`.
    Postgres,
    /// MariaDB and MySQL: `'…'`, `"…"`, `` `…` ``, `#`, `-- `, `/* */`.
    Mysql,
}

/// What may be filled in. Each is put in as a whole token, quoted by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{{name}}`: the login's name, as an identifier.
    Name,
    /// `{{password}}`: what the server checks its password by, as a literal.
    Password,
    /// `{{expires_at}}`: when it ends, as a literal.
    ExpiresAt,
}

impl Placeholder {
    /// The word between the braces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Password => "password",
            Self::ExpiresAt => "expires_at",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Name, Self::Password, Self::ExpiresAt].into_iter().find(|it| it.as_str() == word)
    }
}

/// One statement, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

/// Why a text is no statement of ours.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line} of the statement: {message}")]
pub struct StatementError {
    /// In the statement, from 1.
    pub line: usize,
    /// What was found.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

impl Statement {
    /// Reads `text`.
    ///
    /// # Errors
    /// It is not exactly one statement, or a placeholder is unknown, or stands where it would not be a token of its own.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, StatementError> {
        let mut lexer = Lexer { all: text, rest: text, dialect, parts: Vec::new(), before: None };
        lexer.read()?;
        Ok(Self(lexer.parts))
    }

    /// Whether `placeholder` stands in it.
    #[must_use]
    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Part::Placeholder(placeholder))
    }

    /// The statement with each placeholder replaced by what `token` says: a whole token, quotes included.
    #[must_use]
    pub fn render(&self, token: impl Fn(Placeholder) -> String) -> String {
        let one = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Placeholder(placeholder) => token(*placeholder),
        };
        self.0.iter().map(one).collect()
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(|placeholder| format!("{{{{{}}}}}", placeholder.as_str())))
    }
}

/// They would end or split the transaction that a login is made in.
const TRANSACTION_WORDS: &[&str] =
    &["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare"];

const QUOTES_HINT: &str =
    "write it without quotes around it: it is quoted by its type when it is filled in";
const ONE_HINT: &str = "write each statement as an item of its own";

struct Lexer<'t> {
    all: &'t str,
    rest: &'t str,
    dialect: Dialect,
    parts: Vec<Part>,
    /// What was read last, in code.
    before: Option<char>,
}

type Read = Result<(), StatementError>;

impl Lexer<'_> {
    fn read(&mut self) -> Read {
        self.first_word()?;
        while let Some(next) = self.rest.chars().next() {
            let (mysql, quoted) = (self.dialect == Dialect::Mysql, self.before);
            if self.rest.starts_with("{{") {
                self.placeholder()?;
            } else if self.comment()? {
                self.before = Some(' ');
            } else if next == '\'' || next == '"' || (mysql && next == '`') {
                self.quoted(next)?;
            } else if next == '$' && !mysql && !quoted.is_some_and(is_word) {
                self.dollar_quoted()?;
            } else if next == ';' {
                return self.nothing_more();
            } else if next.is_control() && !next.is_ascii_whitespace() {
                return self.fail("a control character", "remove it");
            } else {
                self.take(next.len_utf8());
            }
        }
        Ok(())
    }

    /// A statement begins with a word, and not with one that moves the transaction.
    fn first_word(&mut self) -> Read {
        while self.comment()? || self.rest.starts_with(|c: char| c.is_ascii_whitespace()) {
            if let Some(space) = self.rest.chars().next().filter(char::is_ascii_whitespace) {
                self.take(space.len_utf8());
            }
        }
        let word: String = self.rest.chars().take_while(char::is_ascii_alphabetic).collect();
        if word.is_empty() {
            return self.fail("no statement", "begin with a word of SQL");
        }
        if TRANSACTION_WORDS.contains(&word.to_ascii_lowercase().as_str()) {
            let message = format!("`{word}` moves the transaction");
            return self.fail(&message, "leave it out: all statements run in one transaction");
        }
        Ok(())
    }

    fn placeholder(&mut self) -> Read {
        let inside = self.rest.strip_prefix("{{").and_then(|rest| rest.split_once("}}"));
        let Some((word, after)) = inside else {
            return self.fail("`{{` without `}}`", "write `{{name}}`");
        };
        let Some(placeholder) = Placeholder::of(word) else {
            let message = format!("`{{{{{}}}}}` is no placeholder", word.escape_debug());
            return self.fail(
                &message,
                "there are `{{name}}`, `{{password}}` and `{{expires_at}}`, without spaces",
            );
        };
        // `E{{password}}` or `x{{name}}` would make another token of it.
        let free = |near: Option<char>| {
            near.is_none_or(|c| c.is_ascii_whitespace() || "(),;.=@:".contains(c))
        };
        if !free(self.before) || !free(after.chars().next()) {
            let message = format!("`{{{{{word}}}}}` touches other text");
            return self.fail(&message, "put a space before and after it");
        }
        self.parts.push(Part::Placeholder(placeholder));
        self.rest = after;
        self.before = Some('}');
        Ok(())
    }

    /// Takes a comment, if one begins here.
    fn comment(&mut self) -> Result<bool, StatementError> {
        let mysql = self.dialect == Dialect::Mysql;
        let line = match self.rest.strip_prefix("--") {
            // MySQL wants white space after it: else it is arithmetic.
            Some(after) => {
                !mysql || after.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control())
            }
            None => mysql && self.rest.starts_with('#'),
        };
        if line {
            let length = self.rest.find('\n').unwrap_or(self.rest.len());
            self.inside(length, "a comment")?;
            return Ok(true);
        }
        if !self.rest.starts_with("/*") {
            return Ok(false);
        }
        if mysql && (self.rest.starts_with("/*!") || self.rest.starts_with("/*M!")) {
            return self.fail("a comment that the server runs", "write what it holds in the open");
        }
        let Some(length) = block_comment(self.rest, !mysql) else {
            return self.fail("a comment without an end", "end it by `*/`");
        };
        self.inside(length, "a comment")?;
        Ok(true)
    }

    fn quoted(&mut self, quote: char) -> Read {
        let after = self.rest.strip_prefix(quote).unwrap_or_default();
        let Some(length) = after.find(quote) else {
            return self.fail("a quote without an end", "close it");
        };
        if after.get(..length).is_some_and(|inside| inside.contains('\\')) {
            return self.fail(
                "a backslash in quotes",
                "leave it out: whether it escapes depends on settings of the server",
            );
        }
        // A doubled quote is the end of one and the beginning of the next.
        self.inside(length.saturating_add(2), "quotes")
    }

    fn dollar_quoted(&mut self) -> Read {
        let after = self.rest.strip_prefix('$').unwrap_or_default();
        let tag: String = after.chars().take_while(|c| is_word(*c) && *c != '$').collect();
        let fence = format!("${tag}$");
        let begins_with_digit = tag.starts_with(|c: char| c.is_ascii_digit());
        let Some(body) = self.rest.strip_prefix(&fence).filter(|_| !begins_with_digit) else {
            return self.fail("a `$` that quotes nothing", "there are no parameters but `{{…}}`");
        };
        let Some(length) = body.find(&fence) else {
            return self.fail("a dollar quote without an end", "close it");
        };
        self.inside(length.saturating_add(fence.len().saturating_mul(2)), "a dollar quote")
    }

    /// Takes `length` bytes in which nothing may be filled in.
    fn inside(&mut self, length: usize, what: &str) -> Read {
        let text = self.rest.get(..length).unwrap_or(self.rest);
        if text.contains("{{") {
            return self.fail(&format!("a placeholder inside {what}"), QUOTES_HINT);
        }
        if text.contains('\0') {
            return self.fail("a NUL", "remove it");
        }
        self.take(length);
        Ok(())
    }

    fn nothing_more(&mut self) -> Read {
        self.rest = self.rest.strip_prefix(';').unwrap_or_default();
        let kept = self.parts.clone();
        loop {
            if self.comment()? {
                continue;
            }
            match self.rest.chars().next() {
                None => break,
                Some(space) if space.is_ascii_whitespace() => self.take(space.len_utf8()),
                Some(_) => return self.fail("more than one statement", ONE_HINT),
            }
        }
        self.parts = kept;
        Ok(())
    }

    fn take(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.before = taken.chars().last().or(self.before);
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text.push_str(taken),
            Some(Part::Placeholder(_)) | None => self.parts.push(Part::Text(taken.to_owned())),
        }
        self.rest = rest;
    }

    fn fail<T>(&self, message: &str, hint: &'static str) -> Result<T, StatementError> {
        let read = self.all.len().saturating_sub(self.rest.len());
        let lines = self.all.get(..read).map_or(0, |text| text.matches('\n').count());
        Err(StatementError { line: lines.saturating_add(1), message: message.to_owned(), hint })
    }
}

/// How long the comment at the beginning of `text` is; `None` if it does not end.
fn block_comment(text: &str, nests: bool) -> Option<usize> {
    let (mut depth, mut read) = (0_usize, 0_usize);
    loop {
        let rest = text.get(read..)?;
        let step = match rest.chars().next()? {
            '/' if rest.starts_with("/*") && (nests || depth == 0) => {
                depth = depth.saturating_add(1);
                2
            }
            '*' if rest.starts_with("*/") => {
                depth = depth.saturating_sub(1);
                2
            }
            other => other.len_utf8(),
        };
        read = read.saturating_add(step);
        if depth == 0 {
            return Some(read);
        }
    }
}

/// What an identifier may hold after its first character.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, dialect: Dialect) -> String {
        let token = |placeholder: Placeholder| format!("<{}>", placeholder.as_str());
        Statement::parse(text, dialect).unwrap().render(token)
    }

    fn refused(text: &str, dialect: Dialect) -> String {
        Statement::parse(text, dialect).unwrap_err().to_string()
    }

    #[test]
    fn a_statement_is_filled_in_by_whole_tokens() {
        let text = "-- who\nCREATE ROLE {{name}} LOGIN PASSWORD {{password}}\n VALID UNTIL {{expires_at}};\n";
        assert_eq!(
            filled(text, Dialect::Postgres),
            "-- who\nCREATE ROLE <name> LOGIN PASSWORD <password>\n VALID UNTIL <expires_at>"
        );
        let text = "GRANT SELECT ON orders.* TO {{name}}@'%'; # that is all";
        assert_eq!(filled(text, Dialect::Mysql), "GRANT SELECT ON orders.* TO <name>@'%'");
        let text = "DO $x$ BEGIN RAISE 'it''s; --'; END $x$ /* a /* b */ ; */ ; ";
        assert_eq!(
            filled(text, Dialect::Postgres),
            "DO $x$ BEGIN RAISE 'it''s; --'; END $x$ /* a /* b */ ; */ "
        );
    }

    #[test]
    fn b01_what_a_server_could_read_otherwise_is_no_statement() {
        let both = [
            ("ALTER ROLE '{{name}}' LOGIN", "a placeholder inside quotes"),
            ("ALTER ROLE \"{{name}}\" LOGIN", "a placeholder inside quotes"),
            ("ALTER ROLE 'it''s {{name}}' LOGIN", "a placeholder inside quotes"),
            ("ALTER /* {{name}} */ ROLE x", "a placeholder inside a comment"),
            ("ALTER -- {{name}}\nROLE x", "a placeholder inside a comment"),
            ("ALTER ROLE {{user}}", "`{{user}}` is no placeholder"),
            ("ALTER ROLE {{ name }}", "`{{ name }}` is no placeholder"),
            ("ALTER ROLE {{name", "`{{` without `}}`"),
            ("ALTER ROLE x{{name}}", "`{{name}}` touches other text"),
            ("ALTER ROLE {{name}}x", "`{{name}}` touches other text"),
            ("ALTER ROLE {{name}}{{name}}", "`{{name}}` touches other text"),
            ("PASSWORD E{{password}}", "`{{password}}` touches other text"),
            ("PASSWORD 'a'{{password}}", "`{{password}}` touches other text"),
            ("DROP ROLE a; DROP ROLE b", "more than one statement"),
            ("DROP ROLE a;;", "more than one statement"),
            ("DROP ROLE 'a", "a quote without an end"),
            ("DROP ROLE 'a\\'; DROP ROLE b --'", "a backslash in quotes"),
            ("DROP /* ROLE", "a comment without an end"),
            ("DROP\0 ROLE a", "a control character"),
            ("DROP ROLE 'a\0'", "a NUL"),
            ("", "no statement"),
            (" ; ", "no statement"),
            ("-- DROP ROLE a", "no statement"),
            ("/* x */ COMMIT", "`COMMIT` moves the transaction"),
            ("rollback", "`rollback` moves the transaction"),
        ];
        for (text, message) in both {
            for dialect in [Dialect::Postgres, Dialect::Mysql] {
                let said = refused(text, dialect);
                assert!(said.ends_with(message), "{text}: {said}");
            }
        }
        let postgres = [
            ("DO $$ {{name}} $$", "a placeholder inside a dollar quote"),
            ("DO $a$ $b$ {{name}} $b$ $a$", "a placeholder inside a dollar quote"),
            ("DO $a$ $A$", "a dollar quote without an end"),
            ("SELECT $1", "a `$` that quotes nothing"),
            ("SELECT 1 /* /* */ {{name}} */", "a placeholder inside a comment"),
        ];
        for (text, message) in postgres {
            let said = refused(text, Dialect::Postgres);
            assert!(said.ends_with(message), "{text}: {said}");
        }
        let mysql = [
            ("DROP USER `{{name}}`", "a placeholder inside quotes"),
            ("DROP USER # {{name}}\n x", "a placeholder inside a comment"),
            ("DROP /*! USER */ x", "a comment that the server runs"),
            ("DROP /*M! USER */ x", "a comment that the server runs"),
        ];
        for (text, message) in mysql {
            let said = refused(text, Dialect::Mysql);
            assert!(said.ends_with(message), "{text}: {said}");
        }
        let said = refused("SELECT 1--{{name}}", Dialect::Mysql);
        assert!(said.ends_with("touches other text"), "arithmetic, no comment: {said}");
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let error = Statement::parse("GRANT x\nTO '{{name}}'", Dialect::Postgres).unwrap_err();
        assert_eq!(error.to_string(), "line 2 of the statement: a placeholder inside quotes");
        assert_eq!(error.hint, QUOTES_HINT);
    }

    proptest::proptest! {
        /// What was taken for one statement is one when it is filled in, too.
        #[test]
        fn b01_what_is_read_stays_one_statement_when_it_is_filled_in(
            pieces in proptest::collection::vec(
                "DROP |x|'|\"|`|;|--|#|/\\*|\\*/|\\$|\\$a\\$|\n| |\\{\\{name\\}\\}|\\{\\{password\\}\\}|\\{\\{|\\}\\}|\\PC",
                0..24,
            ),
        ) {
            for dialect in [Dialect::Postgres, Dialect::Mysql] {
                for begin in ["", "SELECT "] {
                    let text = format!("{begin}{}", pieces.concat());
                    let Ok(statement) = Statement::parse(&text, dialect) else { continue };
                    let token = |placeholder| match placeholder {
                        Placeholder::Name => "\"n\"".to_owned(),
                        Placeholder::Password | Placeholder::ExpiresAt => "'v'".to_owned(),
                    };
                    let filled = statement.render(token);
                    let again = Statement::parse(&filled, dialect);
                    proptest::prop_assert_eq!(again.map(|it| it.to_string()), Ok(filled));
                }
            }
        }
    }
}
