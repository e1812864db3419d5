//! What a role of a Redis or Valkey may do, as closed data, and the ACL rules that say so.
//!
//! Rules are read from left to right, so their order is their meaning; it is fixed here and not the operator's: categories
//! first, then everything dangerous is taken away, then what was named one by one. So `+@write` never brings `FLUSHALL`, which
//! heeds no key pattern, nor `FUNCTION LOAD`, whose code others would run with their power.

use super::Unfit;

/// Categories that say what can be done with keys and channels. `all`, `admin` and `dangerous` are the server's power; `fast` and
/// `slow` say nothing of power, and together they are `all`.
const CATEGORIES: &[&str] = &[
    "bitmap",
    "blocking",
    "connection",
    "geo",
    "hash",
    "hyperloglog",
    "keyspace",
    "list",
    "pubsub",
    "read",
    "scripting",
    "set",
    "sortedset",
    "stream",
    "string",
    "transaction",
    "write",
];

/// Commands of the server's operator, those that move data past every key pattern, and those that act in others' sessions: a
/// login with one of them could keep or widen its power.
const NEVER: &[&str] = &[
    "acl",
    "bgrewriteaof",
    "bgsave",
    "cluster",
    "config",
    "debug",
    "failover",
    "flushall",
    "lastsave",
    "latency",
    "migrate",
    "module",
    "monitor",
    "pfdebug",
    "pfselftest",
    "psync",
    "replconf",
    "replicaof",
    "restore-asking",
    "save",
    "shutdown",
    "slaveof",
    "slowlog",
    "swapdb",
    "sync",
];

/// Commands some of whose subcommands are the operator's: only these may be added, each by itself.
const PARTLY: &[(&str, &[&str])] = &[
    (
        "client",
        &[
            "caching",
            "getname",
            "getredir",
            "id",
            "info",
            "no-touch",
            "reply",
            "setinfo",
            "setname",
            "tracking",
            "trackinginfo",
        ],
    ),
    ("function", &["dump", "list", "stats"]),
    ("script", &["exists", "load"]),
];

/// Taken away after the categories, whatever they brought.
const FLOOR: &[&str] =
    &["-@dangerous", "-@admin", "-function", "-script|debug", "-script|flush", "-script|kill"];

const PATTERN_BYTES: usize = 255;

/// A pattern of key or channel names, as the server matches them: `*`, `?`, `[…]` and `\`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// # Errors
    /// `text` is empty, too long, or has other characters than visible ASCII: an `aclfile` is read line by line, word by word.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        let fits = |byte: u8| byte.is_ascii_graphic();
        if text.is_empty() || text.len() > PATTERN_BYTES || !text.bytes().all(fits) {
            return Err(Unfit("1 to 255 visible ASCII characters, no space"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// One rule about commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRule {
    text: String,
    of_category: bool,
}

impl CommandRule {
    /// `+@read`, `-@scripting`, `+get`, `-sort`, `+client|setname`.
    ///
    /// # Errors
    /// It is none of these, or adds what no login may have.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        let (adds, name) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (None, Some(name)) => (false, name),
            (None, None) => return Err(Unfit("`+` or `-`, then a command or `@` and a category")),
        };
        let category = name.strip_prefix('@');
        let word = category.unwrap_or(name);
        let fits = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-|".contains(&byte)
        };
        let whole = word.split('|').all(|part| !part.is_empty()) && word.split('|').count() <= 2;
        if !whole
            || word.len() > 64
            || !word.bytes().all(fits)
            || (category.is_some() && word.contains('|'))
        {
            return Err(Unfit("a name in lower case, with `|` before a subcommand"));
        }
        if adds {
            match category {
                Some(category) if !CATEGORIES.contains(&category) => {
                    return Err(Unfit(
                        "a category that says what can be done with keys: not `@all`, `@admin`, `@dangerous`, `@fast` or `@slow`",
                    ));
                }
                None => addable(word)?,
                Some(_) => {}
            }
        }
        Ok(Self { text: text.to_owned(), of_category: category.is_some() })
    }

    /// Whether it heeds no key pattern and empties a whole database.
    #[must_use]
    pub fn empties_a_database(&self) -> bool {
        self.text == "+flushdb"
    }
}

fn addable(word: &str) -> Result<(), Unfit> {
    let (command, subcommand) = word.split_once('|').map_or((word, None), |(a, b)| (a, Some(b)));
    if NEVER.contains(&command) {
        return Err(Unfit("no command by which a login could keep or widen its power"));
    }
    match PARTLY.iter().find(|(name, _)| *name == command) {
        Some((_, allowed)) if !subcommand.is_some_and(|found| allowed.contains(&found)) => {
            Err(Unfit(
                "of `client`, `function` and `script`, single subcommands that act in no other session, such as `+client|setname`",
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// What a login is given. Whatever is absent here is forbidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisRole {
    /// Keys that it may read and write.
    pub keys: Vec<Pattern>,
    /// Keys that it may only read.
    pub read_keys: Vec<Pattern>,
    /// Keys that it may only write.
    pub write_keys: Vec<Pattern>,
    /// Channels.
    pub channels: Vec<Pattern>,
    /// Commands; at least one.
    pub commands: Vec<CommandRule>,
}

impl RedisRole {
    /// The ACL rules of this role, for a user that has none yet. `select` lets it choose its database.
    #[must_use]
    pub fn rules(&self, select: bool) -> Vec<String> {
        let patterns = [
            ("~", &self.keys),
            ("%R~", &self.read_keys),
            ("%W~", &self.write_keys),
            ("&", &self.channels),
        ];
        let patterns = patterns.into_iter().flat_map(|(sign, patterns)| {
            patterns.iter().map(move |Pattern(text)| format!("{sign}{text}"))
        });
        let (categories, commands): (Vec<&CommandRule>, Vec<&CommandRule>) =
            self.commands.iter().partition(|rule| rule.of_category);
        let written = |rules: Vec<&CommandRule>| {
            rules.into_iter().map(|rule| rule.text.clone()).collect::<Vec<_>>()
        };
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut rules = own(&["resetkeys", "resetchannels", "-@all"]);
        rules.extend(patterns);
        rules.extend(written(categories));
        rules.extend(own(FLOOR));
        // How a client finds out that it is connected, and to the right database.
        rules.extend(own(if select { &["+ping", "+select"] } else { &["+ping"] }));
        rules.extend(written(commands));
        rules
    }

    /// Whether every key is within reach.
    #[must_use]
    pub fn has_all_keys(&self) -> bool {
        self.keys.iter().any(|Pattern(text)| text == "*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_rules_is_ours() {
        let parse =
            |texts: &[&str]| texts.iter().map(|text| CommandRule::parse(text).unwrap()).collect();
        let role = RedisRole {
            keys: vec![Pattern::parse("orders:*").unwrap()],
            read_keys: vec![Pattern::parse("prices:*").unwrap()],
            channels: vec![Pattern::parse("news").unwrap()],
            commands: parse(&["+info", "+@write", "-@scripting", "-append"]),
            ..RedisRole::default()
        };
        assert_eq!(
            role.rules(true).join(" "),
            "resetkeys resetchannels -@all ~orders:* %R~prices:* &news +@write -@scripting -@dangerous -@admin -function \
             -script|debug -script|flush -script|kill +ping +select +info -append"
        );
    }

    #[test]
    fn b07_nothing_can_be_added_that_keeps_or_widens_power() {
        let never =
            NEVER.iter().flat_map(|command| [format!("+{command}"), format!("+{command}|get")]);
        let partly = PARTLY
            .iter()
            .flat_map(|(command, _)| [format!("+{command}"), format!("+{command}|kill")]);
        let categories = ["all", "admin", "dangerous", "fast", "slow", "nonsense"]
            .map(|name| format!("+@{name}"));
        let others = [
            "allkeys",
            "allcommands",
            "nopass",
            ">x",
            "on",
            "reset",
            "+GET",
            "+get set",
            "+",
            "+@",
            "+|",
            "+a|",
            "+a|b|c",
            "+@read|x",
            "~*",
            "(+@all)",
            "+get\n",
        ];
        for text in never.chain(partly).chain(categories).chain(others.map(str::to_owned)) {
            assert!(CommandRule::parse(&text).is_err(), "{text:?}");
        }
        for text in [
            "+@read",
            "-@write",
            "-@dangerous",
            "+get",
            "-acl",
            "+client|setname",
            "+json.get",
            "+flushdb",
            "+xinfo|stream",
        ] {
            assert!(CommandRule::parse(text).is_ok(), "{text}");
        }
        for text in ["", "a b", "a\nuser x on nopass ~* +@all", "\0", "é"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }
}
