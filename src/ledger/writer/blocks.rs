//! Blocks as the writer keeps them: a durable deny needs no reload and no second look-up.

use std::collections::BTreeMap;

use crate::{
    clock::Instant,
    id::BlockId,
    ledger::{Block, Granted, facts::Facts, matching::Behind},
};

/// The blocks that hold.
#[derive(Debug, Default)]
pub(super) struct Blocks(BTreeMap<BlockId, Block>);

impl Blocks {
    pub(super) fn of(blocks: Vec<(BlockId, Block)>) -> Self {
        Self(blocks.into_iter().collect())
    }

    pub(super) fn set(&mut self, id: BlockId, block: Block) {
        self.0.insert(id, block);
    }

    pub(super) fn lift(&mut self, id: BlockId) {
        self.0.remove(&id);
    }

    /// The first block that applies to a grant at ledger time `time`.
    pub(super) fn hits(
        &self,
        granted: &Granted,
        facts: Option<&Facts>,
        time: Instant,
    ) -> Option<BlockId> {
        let hit = self.0.iter().find(|(_, block)| applies(block, granted, facts, time));
        hit.map(|(id, _)| *id)
    }
}

fn applies(block: &Block, granted: &Granted, facts: Option<&Facts>, time: Instant) -> bool {
    let over = block.until.is_some_and(|until| Instant::from_milliseconds(until) <= time);
    let rules = || granted.rules.iter().map(crate::grant::RuleId::as_str);
    let behind = Behind { issuer: Some(granted.issuer.as_str()), facts };
    !over && behind.fits(block, rules())
}
