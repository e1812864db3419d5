//! `policies`: where the trust policies and guardrails lie.

use std::path::PathBuf;

use super::{files::Need, reader::Reader};
use crate::yaml::{Field, Fields, Node, Shape};

/// Where the trust policies lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoliciesConfig {
    /// Their directory.
    pub directory: PathBuf,
    /// The guardrails' directory, where there are any.
    pub guardrails: Option<PathBuf>,
    /// Whether a change on disk is a reload.
    pub watch: bool,
}

pub(super) static POLICIES: Fields = Fields {
    what: "the policies",
    fields: &[
        Field::required(
            "directory",
            "Where the trust policies lie. One that vanished is a failed reload, an empty one denies all",
            Shape::Text,
        ),
        Field::optional(
            "guardrails",
            "Where the guardrails lie, a directory apart from `directory`. Default: there are none",
            Shape::Text,
        ),
        Field::optional(
            "watch",
            "Whether a change on disk is a reload. Default: `true`; with `false`, SIGHUP reloads",
            Shape::Boolean,
        ),
    ],
};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<PoliciesConfig> {
    let map = reader.section("policies")?;
    let directory = reader.path(map, "directory", Need::Directory);
    let guardrails = reader.path(map, "guardrails", Need::Directory);
    if let (Some(directory), Some(guardrails), Some(at)) =
        (&directory, &guardrails, map.find("guardrails"))
        && directory == guardrails
    {
        let message = "`guardrails` is the directory of the trust policies";
        reader.refuse(
            at.place,
            message,
            "a guardrail that a team can edit guards nothing: use a directory apart",
        );
    }
    let watch = map.find("watch").and_then(Node::boolean).unwrap_or(true);
    Some(PoliciesConfig { directory: directory?, guardrails, watch })
}

/// A file of `granted_by` that is not there grants nothing, and is most likely misspelt.
pub(super) fn grantors(reader: &mut Reader<'_>, policies: &PoliciesConfig) {
    let section = reader.section("targets").map(Node::elements).unwrap_or_default();
    for target in section {
        for (file, at) in super::reader::texts(target, "granted_by") {
            if policies.directory.is_dir() && !policies.directory.join(file).is_file() {
                let message = format!(
                    "`granted_by` names `{}`, which is not in the policy directory",
                    file.escape_debug()
                );
                reader.warn(at.place, message, "nobody gets anything by it until it is there");
            }
        }
    }
}
