//! Leases: what must end, does; whatever fails, whoever dies, whenever the clock steps.

mod bench;

mod data_path;
mod orphans;
mod reaper;
mod restart;
mod select;
mod states;
mod troubles;
