//! What the tests share: issuers that sign anything, builders with valid defaults.

pub(crate) mod broker;
pub(crate) mod issuer;
pub(crate) mod serving;
pub(crate) mod site;
pub(crate) mod stand_in;
pub(crate) mod token;
