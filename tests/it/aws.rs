//! AWS sessions, against a stand-in of STS that is as strict as AWS documents it.

mod front;
mod naming;
mod outages;
mod rds;
mod sessions;
mod settings;
mod stand_in;
