//! The words for `provider`, and what is checked of an issuer because of the kind that it is.

use super::super::reader::{Reader, text};
use crate::{
    subject::{Preset, provider},
    yaml::{Node, Shape},
};

/// One word per preset; a test compares.
pub(super) const PROVIDER: Shape = Shape::Choice(&[
    ("github", "GitHub Actions"),
    ("gitlab", "GitLab CI"),
    ("kubernetes", "service-account tokens of a cluster"),
    ("aws", "AWS outbound federation"),
    ("azure", "Entra: managed identities and applications"),
    ("google", "Google: service accounts"),
    ("spiffe", "JWT-SVIDs"),
    ("azure_devops", "Azure DevOps"),
    ("bitbucket", "Bitbucket Pipelines"),
    ("buddy", "Buddy"),
    ("buildkite", "Buildkite"),
    ("circleci", "CircleCI"),
    ("codefresh", "Codefresh"),
    ("fly", "Fly.io"),
    ("forgejo", "Forgejo Actions"),
    ("modal", "Modal"),
    ("semaphore", "Semaphore"),
    ("spacelift", "Spacelift"),
    ("terraform", "HCP Terraform and Terraform Enterprise"),
    ("vercel", "Vercel"),
    ("cambio", "another Cambio"),
    ("generic", "any other: nothing is known of its claims"),
]);

/// The preset that the issuer names.
pub(super) fn preset(node: &Node) -> Option<&'static Preset> {
    provider::find(text(node, "provider")?.0)
}

/// Threats C01 and D02: an `iss` that no installation of the platform has, or one that stands for every tenant (`common`), is refused
/// by its shape. The text may be repeated: it is an issuer's URL already.
pub(super) fn check_url(reader: &mut Reader<'_>, at: &Node, found: &str, preset: &Preset) {
    if preset.platform.may_issue_as(found) {
        return;
    }
    let shapes: Vec<String> =
        preset.platform.urls.iter().map(|shape| format!("`{}`", shown(shape.url))).collect();
    let message =
        format!("issuer `{found}` is none of provider `{}`: it has another shape", preset.name);
    let hint = format!("expected {}, exactly as the tokens have it", shapes.join(" or "));
    reader.refuse(at.place, message, &hint);
}

/// `…/{uuid:tid}/` → `…/<tid>/`.
fn shown(template: &str) -> String {
    let mut shown = String::new();
    for part in template.split('}') {
        let (literal, place) = part.split_once('{').unwrap_or((part, ""));
        let name = place.split_once(':').map_or(place, |(_, claim)| claim);
        shown.push_str(literal);
        if !name.is_empty() {
            shown.extend(["<", name, ">"]);
        }
    }
    shown
}

/// Where a platform gives all tokens one audience, `audience` is that.
pub(super) fn check_audience(reader: &mut Reader<'_>, at: &Node, found: &str, preset: &Preset) {
    if preset.platform.may_be_for(found) {
        return;
    }
    let message =
        format!("`audience` is `{found}`, which tokens of provider `{}` never have", preset.name);
    let hint = "its jobs can't choose: docs/issuers.md says what they have";
    reader.refuse(at.place, message, hint);
}
