//! `store`: the database that holds ledger, spends, keys and policy sets.

use std::path::{Path, PathBuf};

use super::{files::Need, reader::Reader};
use crate::yaml::{Field, Fields, Shape};

/// The database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// One file on this machine.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
}

static SQLITE: Fields = Fields {
    what: "a SQLite store",
    fields: &[Field::optional(
        "path",
        "The database file, on a local disk. Default: `cambio.db` in `data`",
        Shape::Text,
    )],
};

pub(super) static STORE: Fields = Fields {
    what: "the store",
    fields: &[Field::required(
        "sqlite",
        "One machine: an embedded database with one writer",
        Shape::Map(&SQLITE),
    )],
};

/// The store; without a section, SQLite in `data`.
pub(super) fn read(reader: &mut Reader<'_>, data: Option<&Path>) -> Option<StoreConfig> {
    let map = reader.section("store").and_then(|section| section.find("sqlite"));
    let named = map.and_then(|map| reader.path(map, "path", Need::Made));
    let path = named.or_else(|| data.map(|data| data.join("cambio.db")))?;
    Some(StoreConfig::Sqlite { path })
}
