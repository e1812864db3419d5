//! `ledger`: the log's origin, its anchors, and how often it is signed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    files::Need,
    reader::{Reader, text},
};
use crate::yaml::{Field, Fields, Node, Shape};

/// The ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    /// The log's name in every checkpoint (C2SP tlog-checkpoint); fixed when the log is created.
    pub origin: String,
    /// What we can't rewrite. Empty only where the configuration says `none`.
    pub anchors: Vec<AnchorConfig>,
    /// How often a checkpoint is signed while entries come in.
    pub checkpoint_every: Duration,
}

/// One anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnchorConfig {
    /// A file that should be on another disk or host.
    File(PathBuf),
}

static ANCHOR: Fields = Fields {
    what: "an anchor",
    fields: &[Field::required(
        "file",
        "A file of checkpoints, on a disk or host that this process can't rewrite",
        Shape::Text,
    )],
};

pub(super) static LEDGER: Fields = Fields {
    what: "the ledger",
    fields: &[
        Field::required(
            "origin",
            "The log's name in every checkpoint, such as `cambio.example.com/prod`. Fixed when the log is created",
            Shape::Text,
        ),
        Field::required(
            "anchors",
            "Where checkpoints go that we can't rewrite, or the word `none`: then nobody can show that the log was cut",
            Shape::Either(&[
                Shape::Choice(&[("none", "a cut tail can't be shown")]),
                Shape::List(&Shape::Map(&ANCHOR), 1),
            ]),
        ),
        Field::optional(
            "checkpoint_every",
            "How often a checkpoint is signed while entries come in. From `1s` to `1m`; default: `1s`",
            Shape::Duration,
        ),
    ],
};

pub(super) fn read(reader: &mut Reader<'_>, data: Option<&Path>) -> Option<LedgerConfig> {
    let map = reader.section("ledger")?;
    let checkpoint_every = reader.duration(
        Some(map),
        "checkpoint_every",
        Duration::from_secs(1),
        Duration::from_secs(1)..=Duration::from_mins(1),
        "what is not yet in a checkpoint is not yet anchored",
    );
    let anchors = anchors(reader, map, data);
    let origin = origin(reader, map);
    Some(LedgerConfig { origin: origin?, anchors: anchors?, checkpoint_every })
}

/// C2SP tlog-checkpoint and signed-note: an origin is also a key name, without `+` and spaces.
fn origin(reader: &mut Reader<'_>, map: &Node) -> Option<String> {
    let (found, at) = text(map, "origin")?;
    if found.len() > 255 || !found.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'+') {
        let message = format!(
            "`origin` is `{}`, expected visible ASCII without spaces and `+`",
            found.escape_debug()
        );
        reader.refuse(
            at.place,
            message,
            "a URL without its scheme is customary: `cambio.example.com/prod`",
        );
        return None;
    }
    if found.contains("://") {
        let message = format!("`origin` is `{found}`, expected a name without a scheme");
        reader.refuse(
            at.place,
            message,
            "a URL without its scheme is customary: `cambio.example.com/prod`",
        );
    }
    Some(found.to_owned())
}

fn anchors(reader: &mut Reader<'_>, map: &Node, data: Option<&Path>) -> Option<Vec<AnchorConfig>> {
    let node = map.find("anchors")?;
    if node.text() == Some("none") {
        reader.warn(
            node.place,
            "the ledger has no anchor: nobody could show that its tail was cut",
            "name a file on another disk or host",
        );
        return Some(Vec::new());
    }
    let mut anchors: Vec<AnchorConfig> = Vec::new();
    for element in node.elements() {
        let Some(file) = reader.path(element, "file", Need::Made) else { continue };
        let anchor = AnchorConfig::File(file.clone());
        if anchors.contains(&anchor) {
            reader.refuse(element.place, "this anchor is named twice", "one file is one witness");
        }
        if data.is_some_and(|data| file.starts_with(data)) {
            reader.warn(
                element.place,
                "this anchor lies in `data`: who cuts the ledger can cut it too",
                "name a file on another disk or host",
            );
        }
        anchors.push(anchor);
    }
    Some(anchors)
}
