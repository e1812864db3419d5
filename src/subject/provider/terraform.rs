//! HCP Terraform and Terraform Enterprise: runs of workspaces.

use std::time::Duration;

use super::{
    BARE, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::{Immutable, Platform, Reusable},
    Subject, platform,
};
use crate::grant::Replay;

/// A plan or apply has one token, in a variable that its processes share, so it is reusable; it lives as long as the run may take, and
/// is taken for an hour.
pub static TERRAFORM: Preset = Preset {
    name: "terraform",
    claims: CLAIMS,
    pins: &[
        &["terraform_organization_id", "terraform_workspace_id"],
        &["terraform_organization_id"],
    ],
    organizations: &["terraform_organization_id"],
    stable_ids: &[&["terraform_workspace_id"]],
    replay: Replay::Reusable,
    // A speculative plan runs what a pull request brings (threat C06).
    dangerous: &[("terraform_run_phase", &["plan"])],
    subject: Subject::OneOf(&[
        "organization:{terraform_organization_name}:project:{terraform_project_name}:workspace:{terraform_workspace_name}:run_phase:{terraform_run_phase}",
    ]),
    narrowing: &["terraform_run_phase"],
    label: &["terraform_workspace_name"],
    platform: platform::Platform {
        default_url: Some("https://app.terraform.io"),
        maximum_lifetime: Duration::from_hours(25),
        maximum_age: Some(Duration::from_hours(1)),
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new(
        "sub",
        Text,
        Reusable,
        "names of organization, project and workspace, and phase",
    ),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("terraform_organization_id", Text, Immutable, "id of the organization"),
    ClaimSpec::new("terraform_organization_name", Text, Reusable, "name of the organization"),
    ClaimSpec::new("terraform_project_id", Text, Immutable, "id of the project"),
    ClaimSpec::new("terraform_project_name", Text, Reusable, "name of the project"),
    ClaimSpec::new("terraform_workspace_id", Text, Immutable, "id of the workspace"),
    ClaimSpec::new("terraform_workspace_name", Text, Reusable, "name of the workspace"),
    ClaimSpec::new(
        "terraform_full_workspace",
        Text,
        Reusable,
        "organization, project, workspace and phase, as `sub` says them",
    ),
    ClaimSpec::new("terraform_run_id", Text, Platform, "id of the run"),
    ClaimSpec::new("terraform_run_phase", Text, Platform, "plan or apply"),
];
