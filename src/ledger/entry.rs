//! The leaf: what an entry says, as deterministic CBOR (RFC 8949 section 4.2.1) with integer keys.
//!
//! Encoded once and then only hashed: `verify` never re-encodes. Decoding is for people (`show`, `export`) and for reading
//! back a few fields of our own; it refuses everything that [`Draft::leaf`] would not write.

use std::{borrow::Cow, convert::Infallible};

use minicbor::Encoder;
use thiserror::Error;

use crate::{
    chance::{Chance, ChanceError},
    clock::Instant,
    grant::RuleId,
    id::ExchangeId,
    ledger::{
        Event, Granted, Hash, Operator, Refused,
        facts::Facts,
        reader::StoredFacts,
        tree::{sha256, sha256_of},
    },
};

mod decode;

pub use decode::{Entry, EntryError};

/// The most bytes a leaf may have.
pub const MAXIMUM_LEAF: usize = 4_096;

/// The version of the leaf's shape.
const VERSION: u64 = 1;

/// Everything of a leaf but its body, at its longest.
const OVERHEAD: usize = 160;

/// How many bytes the facts of a CI platform's job take.
const TYPICAL_FACTS: usize = 2_048;

/// Texts longer than this stand in a leaf shortened, with the hash of the whole.
const MAXIMUM_TEXT: usize = 512;

/// Rules whose ids are longer than this together stand in a leaf shortened, too: however many rules fit one workload, its
/// grant has an entry.
const MAXIMUM_RULES: usize = 1_024;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal $text:literal [$($field:literal),*];)*) => {
        /// What an entry tells; the code is part of the format and is never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// The code in the leaf.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// The kind with this code.
            #[must_use]
            pub const fn of_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The word for people.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The names of the body's fields; the integer key is the place in this list.
            const fn fields(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($field),*],)* }
            }
        }
    };
}

kinds! {
    /// [`Event::Granted`].
    Granted = 1 "granted" ["exchange_id", "issuer", "subject", "token", "target", "role", "rules", "policy",
        "expires_at", "credential", "signing_input", "kid"];
    /// [`Event::Refused`].
    Refused = 2 "refused" ["exchange_id", "issuer", "subject", "token", "reason", "policy"];
    /// [`Event::Concluded`].
    Concluded = 3 "concluded" ["exchange_id", "outcome"];
    /// [`Event::RolledUp`].
    RolledUp = 4 "rolled_up" ["from", "counts"];
    /// [`Event::Keys`].
    Keys = 5 "keys" ["step", "kid", "algorithm", "epoch"];
    /// [`Event::Policy`].
    Policy = 6 "policy" ["policy", "rules", "commit"];
    /// [`Event::Blocked`].
    Blocked = 7 "blocked" ["block", "step", "who", "reason"];
    /// [`Event::Lease`].
    Lease = 8 "lease" ["lease", "step", "who", "reason"];
    /// [`Event::Admin`].
    Admin = 9 "admin" ["action", "who", "reason"];
    /// [`Event::Forked`].
    Forked = 10 "forked" ["anchored_size", "anchored_root", "who", "reason"];
    /// [`Event::Orphan`].
    Orphan = 11 "orphan" ["target", "object"];
}

/// All of an entry that does not depend on its place: made by the caller, so that the one writer stays fast.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Which kind.
    pub kind: Kind,
    /// The exchange that it is about, if any.
    pub exchange: Option<ExchangeId>,
    /// What stands behind the commitment.
    pub facts: Option<StoredFacts>,
    commitment: Option<Hash>,
    body: Vec<u8>,
}

/// What the writer gives an entry: its place in the log, in time and in this run of the broker (threat A13).
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The index, from 0.
    pub index: u64,
    /// Ledger time.
    pub time: Instant,
    /// Sixteen random bytes, fixed when the writer started.
    pub boot: [u8; 16],
    /// How many entries this run wrote before: orders entries whatever the wall clock did.
    pub counter: u64,
}

/// A draft could not be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DraftError {
    /// The leaf would be larger than [`MAXIMUM_LEAF`].
    #[error("the entry has {0} bytes, expected at most {MAXIMUM_LEAF}")]
    TooLarge(usize),
    /// No salt without randomness.
    #[error(transparent)]
    Chance(#[from] ChanceError),
    /// The facts are not JSON: a defect of ours.
    #[error("the facts can't be written: {0}")]
    Facts(String),
}

impl Draft {
    /// Encodes `event`, and seals `facts` under a fresh salt.
    ///
    /// # Errors
    /// The entry is too large, or there is no randomness.
    pub fn of(
        event: &Event,
        facts: Option<&Facts>,
        chance: &dyn Chance,
    ) -> Result<Self, DraftError> {
        let facts = facts.map(|facts| seal(facts, chance)).transpose()?;
        let commitment = facts.as_ref().map(commitment);
        let mut draft = Self::bare(event)?;
        draft.facts = facts;
        draft.commitment = commitment;
        Ok(draft)
    }

    /// The same facts behind another event: what a grant becomes when its token was spent before.
    ///
    /// # Errors
    /// The entry is too large.
    pub fn become_event(self, event: &Event) -> Result<Self, DraftError> {
        Ok(Self { facts: self.facts, commitment: self.commitment, ..Self::bare(event)? })
    }

    fn bare(event: &Event) -> Result<Self, DraftError> {
        // Writing to a `Vec` can't fail; the encoder's signature does not know.
        let body = body(event).unwrap_or_default();
        let size = body.len().saturating_add(OVERHEAD);
        if size > MAXIMUM_LEAF {
            return Err(DraftError::TooLarge(size));
        }
        let (kind, exchange) = heading(event);
        Ok(Self { kind, exchange, facts: None, commitment: None, body })
    }

    /// The leaf: a few integers around the body that is there already.
    #[must_use]
    pub fn leaf(&self, stamp: &Stamp) -> Vec<u8> {
        let leaf = Vec::with_capacity(self.body.len().saturating_add(OVERHEAD));
        self.write(Encoder::new(leaf), stamp).unwrap_or_default()
    }

    fn write(&self, mut to: Encoder<Vec<u8>>, stamp: &Stamp) -> Result<Vec<u8>, Unwritten> {
        to.map(if self.commitment.is_some() { 9 } else { 8 })?;
        to.u8(0)?.u64(VERSION)?;
        to.u8(1)?.u8(self.kind.code())?;
        to.u8(2)?.u64(stamp.index)?;
        to.u8(3)?.u64(stamp.time.milliseconds())?;
        to.u8(4)?.bytes(&stamp.boot)?;
        to.u8(5)?.u64(stamp.counter)?;
        to.u8(6)?.str(env!("CARGO_PKG_VERSION"))?;
        if let Some(commitment) = &self.commitment {
            to.u8(7)?.bytes(commitment)?;
        }
        to.u8(8)?;
        let mut leaf = to.into_writer();
        leaf.extend_from_slice(&self.body);
        Ok(leaf)
    }
}

/// The commitment to facts: SHA-256(salt ‖ facts). Salted, so that erased facts can't be guessed from it.
#[must_use]
pub fn commitment(facts: &StoredFacts) -> Hash {
    sha256_of(&[&facts.salt, &facts.json])
}

fn seal(facts: &Facts, chance: &dyn Chance) -> Result<StoredFacts, DraftError> {
    let mut salt = [0; 16];
    chance.fill(&mut salt)?;
    // Room for most at once: growing there would copy it four times.
    let mut json = Vec::with_capacity(TYPICAL_FACTS);
    serde_json::to_writer(&mut json, facts)
        .map_err(|error| DraftError::Facts(error.to_string()))?;
    Ok(StoredFacts { salt, json })
}

const fn heading(event: &Event) -> (Kind, Option<ExchangeId>) {
    match event {
        Event::Granted(granted) => (Kind::Granted, Some(granted.exchange_id)),
        Event::Refused(refused) => (Kind::Refused, Some(refused.exchange_id)),
        Event::Concluded { exchange_id, .. } => (Kind::Concluded, Some(*exchange_id)),
        Event::RolledUp { .. } => (Kind::RolledUp, None),
        Event::Keys { .. } => (Kind::Keys, None),
        Event::Policy { .. } => (Kind::Policy, None),
        Event::Blocked { .. } => (Kind::Blocked, None),
        Event::Lease { .. } => (Kind::Lease, None),
        Event::Admin { .. } => (Kind::Admin, None),
        Event::Forked { .. } => (Kind::Forked, None),
        Event::Orphan { .. } => (Kind::Orphan, None),
    }
}

type Unwritten = minicbor::encode::Error<Infallible>;

/// A CBOR map under construction: keys 0, 1, 2 … in the order of [`Kind::fields`], absent ones left out.
struct Body {
    to: Encoder<Vec<u8>>,
    key: u8,
    present: u64,
}

impl Body {
    fn new() -> Self {
        Self { to: Encoder::new(Vec::with_capacity(384)), key: 0, present: 0 }
    }

    fn key(&mut self) -> Result<&mut Encoder<Vec<u8>>, Unwritten> {
        self.to.u8(self.key)?;
        self.key = self.key.saturating_add(1);
        self.present = self.present.saturating_add(1);
        Ok(&mut self.to)
    }

    fn text(mut self, text: &str) -> Result<Self, Unwritten> {
        self.key()?.str(&bounded(text))?;
        Ok(self)
    }

    fn maybe_text(mut self, text: Option<&str>) -> Result<Self, Unwritten> {
        if let Some(text) = text {
            return self.text(text);
        }
        self.key = self.key.saturating_add(1);
        Ok(self)
    }

    fn bytes(mut self, bytes: &[u8]) -> Result<Self, Unwritten> {
        self.key()?.bytes(bytes)?;
        Ok(self)
    }

    fn maybe_bytes(mut self, bytes: Option<&[u8]>) -> Result<Self, Unwritten> {
        if let Some(bytes) = bytes {
            return self.bytes(bytes);
        }
        self.key = self.key.saturating_add(1);
        Ok(self)
    }

    fn number(mut self, number: u64) -> Result<Self, Unwritten> {
        self.key()?.u64(number)?;
        Ok(self)
    }

    fn operator(self, by: &Operator) -> Result<Self, Unwritten> {
        self.text(&by.who)?.text(&by.reason)
    }

    fn finish(self) -> Result<Vec<u8>, Unwritten> {
        let mut head = Encoder::new(Vec::with_capacity(512));
        head.map(self.present)?;
        let mut bytes = head.into_writer();
        bytes.extend_from_slice(self.to.writer());
        Ok(bytes)
    }
}

fn body(event: &Event) -> Result<Vec<u8>, Unwritten> {
    let body = Body::new();
    match event {
        Event::Granted(granted) => granted_body(body, granted)?,
        Event::Refused(refused) => refused_body(body, refused)?,
        Event::Concluded { exchange_id, outcome } => {
            body.bytes(exchange_id.as_bytes())?.text(outcome)?
        }
        Event::RolledUp { from, counts } => {
            let mut body = body.number(from.milliseconds())?;
            let to = body.key()?;
            to.array(counts.len() as u64)?;
            for (reason, count) in counts {
                to.array(2)?.str(&bounded(reason))?.u64(*count)?;
            }
            body
        }
        Event::Keys { step, kid, algorithm, epoch } => {
            body.text(step)?.text(kid)?.text(algorithm)?.number(*epoch)?
        }
        Event::Policy { digest, rules, commit } => {
            body.bytes(digest)?.number(*rules)?.maybe_text(commit.as_deref())?
        }
        Event::Blocked { id, step, by } => body.bytes(id.as_bytes())?.text(step)?.operator(by)?,
        Event::Lease { id, step, by } => {
            let body = body.bytes(id.as_bytes())?.text(step.as_str())?;
            match by {
                Some(by) => body.operator(by)?,
                None => body,
            }
        }
        Event::Orphan { target, object } => body.text(target.as_str())?.text(object)?,
        Event::Admin { action, by } => body.text(action)?.operator(by)?,
        Event::Forked { anchored: (size, root), by } => {
            body.number(*size)?.bytes(root)?.operator(by)?
        }
    }
    .finish()
}

fn granted_body(body: Body, granted: &Granted) -> Result<Body, Unwritten> {
    let mut body = body
        .bytes(granted.exchange_id.as_bytes())?
        .text(granted.issuer.as_str())?
        .text(&granted.subject)?
        .bytes(&granted.token)?
        .text(granted.target.as_str())?
        .text(granted.role.as_str())?;
    let (to, rules) = (body.key()?, bounded_list(&granted.rules));
    to.array(rules.len() as u64)?;
    for rule in &rules {
        to.str(rule)?;
    }
    body.bytes(&granted.policy)?
        .number(granted.expires_at.milliseconds())?
        .text(&granted.credential)?
        .maybe_bytes(granted.signing_input.as_ref().map(<[u8; 32]>::as_slice))?
        .maybe_text(granted.kid.as_deref())
}

fn refused_body(body: Body, refused: &Refused) -> Result<Body, Unwritten> {
    body.bytes(refused.exchange_id.as_bytes())?
        .text(refused.issuer.as_str())?
        .text(&refused.subject)?
        .bytes(&refused.token)?
        .text(&refused.reason)?
        .bytes(&refused.policy)
}

/// A text as it stands in a leaf: whole, or its beginning and the hash of all of it.
fn bounded(text: &str) -> Cow<'_, str> {
    if text.len() <= MAXIMUM_TEXT {
        return Cow::Borrowed(text);
    }
    let mut short: String = text.chars().take(96).collect();
    short.push_str("… sha256:");
    short.push_str(&hex(&sha256(text.as_bytes())));
    Cow::Owned(short)
}

/// The rules as they stand in a leaf: all of them, or the first, how many more there are, and the hash of all.
fn bounded_list(rules: &[RuleId]) -> Vec<Cow<'_, str>> {
    let mut texts: Vec<Cow<'_, str>> = rules.iter().map(|rule| bounded(rule.as_str())).collect();
    let mut length = 0_usize;
    let mut fits = |text: &Cow<'_, str>| {
        length = length.saturating_add(text.len());
        length <= MAXIMUM_RULES
    };
    let kept = texts.iter().map_while(|text| fits(text).then_some(())).count();
    if kept < texts.len() {
        let more = texts.len().saturating_sub(kept);
        let all: Vec<&str> = rules.iter().map(RuleId::as_str).collect();
        texts.truncate(kept);
        // No id of a rule has a space.
        let hash = hex(&sha256(all.join("\n").as_bytes()));
        texts.push(Cow::Owned(format!("… and {more} more, sha256:{hash}")));
    }
    texts
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
    text
}
