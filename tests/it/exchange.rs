//! The whole data path with its real parts: from the bytes of a request to the credential, the entry and the receipt.

mod delegation;
mod faults;
mod happy;
mod introspection;
mod order;
mod powers;
mod records;
mod refusals;
mod reload;
mod replay;
mod resolver;
mod reviewed;
mod rollback;
mod rotation;
mod seams;
