//! What is about to be asked of a target, from the commit to its conclusion.

use crate::{clock::Instant, grant::TargetName, id::LeaseId};

/// INVARIANT(intent-before-effect): what is about to be asked of a target is remembered from the commit on until somebody says
/// how it ended, so that a broker that died in between still says it. One for every grant with outside effects, leased or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Where.
    pub target: TargetName,
    /// From when on nothing that the mint began can still take effect.
    pub mint_deadline: Instant,
    /// The worst possible end of the credential.
    pub worst_end: Instant,
    /// The lease that tells of the credential from then on, where there is one.
    pub lease: Option<LeaseId>,
}

/// How an intent goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentStep {
    /// Its outcome is told, and nothing of it is left to remember.
    Settled,
    /// A credential may exist, and no lease tells of it: it is remembered until its worst end.
    Unknown,
    /// If there was a credential, it has ended.
    Ended,
}

impl IntentStep {
    /// Whether it may be taken: once told, an outcome is not told anew; an unknown one ends.
    #[must_use]
    pub const fn may_follow(self, from: IntentState) -> bool {
        match from {
            IntentState::Open => true,
            IntentState::Unknown => matches!(self, Self::Ended),
            IntentState::Gone => false,
        }
    }

    /// Where it leads.
    #[must_use]
    pub const fn leads_to(self) -> IntentState {
        match self {
            Self::Settled | Self::Ended => IntentState::Gone,
            Self::Unknown => IntentState::Unknown,
        }
    }
}

/// Where an intent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentState {
    /// Nobody has said yet how it ended.
    Open,
    /// Nobody knows how it ended.
    Unknown,
    /// There is none, or none any more.
    Gone,
}
