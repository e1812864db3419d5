//! What the tests share: issuers that sign anything, builders with valid defaults, the real servers of ring 3.

pub(crate) mod api_server;
pub(crate) mod broker;
pub(crate) mod issuer;
pub(crate) mod lines;
pub(crate) mod server;
pub(crate) mod services;
pub(crate) mod serving;
pub(crate) mod site;
pub(crate) mod stand_in;
pub(crate) mod token;
