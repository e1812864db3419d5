//! Leases: what is opened in the commit, and the states until it has ended.

use crate::{clock::Instant, grant::TargetName, id::LeaseId, ledger::Hash};

/// INVARIANT(intent-before-effect): a lease is opened in the commit, before the first call to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseIntent {
    /// Names the lease.
    pub id: LeaseId,
    /// Where.
    pub target: TargetName,
    /// The object's name at the target.
    pub object: String,
    /// From when on nothing that the mint began can still take effect: its time-out and the target's own are both over.
    pub mint_deadline: Instant,
    /// The worst possible end of the credential.
    pub worst_end: Instant,
    /// SHA-256 of the token by which the holder may revoke it (RFC 7009).
    pub token: Hash,
    /// How much of the target it may take up, where that is bounded.
    pub share: Option<Share>,
}

/// How many leases of one target may be live at once, judged in the commit that opens one (threats V03, B05).
///
/// A rate bounds how fast they come, not how many there are: who takes one after another and keeps them fills a server, until
/// nobody else gets in, the broker included, and then nothing can be ended there any more. A lease counts until the target has
/// confirmed that it is gone: what may still be there takes up room. But not one that could not be ended by its last instant: that
/// is alarmed (threat B04), and nobody is locked out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// SHA-256 of the subject's name.
    pub holder: Hash,
    /// At most so many of this holder.
    pub of_holder: u32,
    /// At most so many of all holders together.
    pub of_all: Option<u32>,
}

/// The life of a lease.
///
/// ```text
/// opened ─► active ─► revoking ─► revoked
///    │  └─► unknown ────┘  │  ▲
///    └────► void           ▼  │
///                      irrevocable
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseState {
    /// The intent is durable; the mint may be under way.
    Opened,
    /// The credential was handed out.
    Active,
    /// Nobody knows whether the mint took effect: it is looked for after the mint deadline.
    Unknown,
    /// The mint failed for certain: there is nothing to end.
    Void,
    /// It is to end now.
    Revoking,
    /// What it stood for is gone.
    Revoked,
    /// It could not be ended so far: alarmed, and tried for ever (threat B04).
    Irrevocable,
}

impl LeaseState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Opened,
        Self::Active,
        Self::Unknown,
        Self::Void,
        Self::Revoking,
        Self::Revoked,
        Self::Irrevocable,
    ];

    /// The word in the ledger, the store and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Active => "active",
            Self::Unknown => "unknown",
            Self::Void => "void",
            Self::Revoking => "revoking",
            Self::Revoked => "revoked",
            Self::Irrevocable => "irrevocable",
        }
    }

    /// The state of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether something may still exist at the target.
    #[must_use]
    pub const fn is_live(self) -> bool {
        match self {
            Self::Opened | Self::Active | Self::Unknown | Self::Revoking | Self::Irrevocable => {
                true
            }
            Self::Void | Self::Revoked => false,
        }
    }

    /// The states from which this one may be reached. A conclusion that comes late never wakes a lease that is being ended.
    #[must_use]
    pub const fn may_follow(self, from: Self) -> bool {
        match self {
            Self::Opened => false,
            Self::Active | Self::Unknown | Self::Void => matches!(from, Self::Opened),
            Self::Revoking => matches!(from, Self::Opened | Self::Active | Self::Unknown),
            Self::Revoked | Self::Irrevocable => from.is_live(),
        }
    }

    /// When a lease in this state is to be ended.
    #[must_use]
    pub const fn due(self, mint_deadline: Instant, worst_end: Instant) -> Option<Instant> {
        match self {
            // Before the deadline the mint may be under way: what is not there yet may still come.
            Self::Opened | Self::Unknown => Some(mint_deadline),
            Self::Active => Some(worst_end),
            Self::Revoking | Self::Irrevocable => Some(Instant::from_milliseconds(0)),
            Self::Void | Self::Revoked => None,
        }
    }
}
