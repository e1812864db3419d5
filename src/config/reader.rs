//! What every section reads with: places for problems, paths from the file's directory, bounded lengths of time.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::files::{Need, Wanted};
use crate::yaml::{Document, Node, Place, Problem};

/// Reads sections and gathers all their problems. A value that has not its shape is `None` here, silently: the shape's own
/// check has told of it.
pub(super) struct Reader<'a> {
    document: &'a Document,
    base: &'a Path,
    /// What forbids a start.
    pub(super) problems: Vec<Problem>,
    /// What an operator should know, and may want.
    pub(super) warnings: Vec<Problem>,
    /// What must be there on disk, to be looked at once the text is known to be good.
    pub(super) files: Vec<Wanted>,
}

impl<'a> Reader<'a> {
    pub(super) const fn of(document: &'a Document, base: &'a Path) -> Self {
        Self { document, base, problems: Vec::new(), warnings: Vec::new(), files: Vec::new() }
    }

    /// The top of the file.
    pub(super) const fn root(&self) -> &'a Node {
        &self.document.root
    }

    /// The section called `name`, where it is there.
    pub(super) fn section(&self, name: &str) -> Option<&'a Node> {
        self.document.root.find(name)
    }

    /// `text` as a path from the file's directory.
    pub(super) fn based(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    pub(super) fn refuse(&mut self, place: Place, message: impl Into<String>, hint: &str) {
        self.problems.push(Problem::at(&self.document.file, place, message).hint(hint));
    }

    pub(super) fn warn(&mut self, place: Place, message: impl Into<String>, hint: &str) {
        self.warnings.push(Problem::at(&self.document.file, place, message).hint(hint));
    }

    /// The path under `key`, from the file's directory; noted, so that the disk is looked at later.
    pub(super) fn path(&mut self, map: &Node, key: &'static str, need: Need) -> Option<PathBuf> {
        let node = map.find(key)?;
        let path = self.base.join(node.text().filter(|text| !text.is_empty())?);
        self.files.push(Wanted { place: node.place, setting: key, path: path.clone(), need });
        Some(path)
    }

    /// The length of time under `key`, or `default` where it is absent; refused outside `bounds`.
    pub(super) fn duration(
        &mut self,
        map: Option<&Node>,
        key: &str,
        default: Duration,
        bounds: RangeInclusive<Duration>,
        why: &str,
    ) -> Duration {
        let Some(node) = map.and_then(|map| map.find(key)) else { return default };
        let Some(found) = node.duration() else { return default };
        if !bounds.contains(&found) {
            let (least, most) = (length(*bounds.start()), length(*bounds.end()));
            let message =
                format!("`{key}` is `{}`, expected from `{least}` to `{most}`", length(found));
            self.refuse(node.place, message, why);
        }
        found
    }
}

/// The text under `key`, with the node that holds it.
pub(super) fn text<'n>(map: &'n Node, key: &str) -> Option<(&'n str, &'n Node)> {
    let node = map.find(key)?;
    node.text().filter(|text| !text.is_empty()).map(|text| (text, node))
}

/// The texts of the list under `key`, each with its node; none where the key is absent.
pub(super) fn texts<'n>(map: &'n Node, key: &str) -> Vec<(&'n str, &'n Node)> {
    let elements = map.find(key).map(Node::elements).unwrap_or_default();
    elements.iter().filter_map(|node| node.text().map(|text| (text, node))).collect()
}

/// The number under `key`, or `default`.
pub(super) fn number(map: Option<&Node>, key: &str, default: u32) -> u32 {
    let found = map.and_then(|map| map.find(key)).and_then(Node::integer);
    found.and_then(|found| u32::try_from(found).ok()).unwrap_or(default)
}

/// A length of time as people write it: in the greatest unit that needs no fraction.
pub(super) fn length(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let fits = |(each, _): &&(u64, char)| seconds >= *each && seconds.is_multiple_of(*each);
    match units.iter().find(fits) {
        Some((each, unit)) => format!("{}{unit}", seconds.checked_div(*each).unwrap_or(seconds)),
        None => format!("{seconds}s"),
    }
}

/// Whether `text` may stand in an `aud`: visible ASCII without a space, at most 255 characters.
pub(super) fn is_audience(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether `text` is a short name: lower-case letters, digits and `-`, at most 63 characters, beginning with a letter.
pub(super) fn is_short_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(fits)
}
