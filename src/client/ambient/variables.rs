//! Platforms that put the token into a variable, or into a file that never changes: they chose its audience before we ran.

use super::{Means, Platform, Sign, Way, pods};
use crate::client::ClientError;

/// Where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variable {
    /// The first of these that is set.
    names: &'static [&'static str],
    /// Before them, a variable that is named after the audience: `https://cambio.example` →
    /// `HTTPS___CAMBIO_EXAMPLE_ID_TOKEN`.
    by_audience: bool,
    /// After them, this file.
    file: Option<&'static str>,
}

const fn plain(names: &'static [&'static str]) -> Way {
    Way::Variable(Variable { names, by_audience: false, file: None })
}

pub(super) const GITLAB: Platform = Platform {
    name: "gitlab",
    title: "GitLab CI",
    signs: &[Sign::Is("GITLAB_CI", "true")],
    way: Way::Variable(Variable { names: &["CAMBIO_ID_TOKEN"], by_audience: true, file: None }),
    remedy: "write `id_tokens: { CAMBIO_ID_TOKEN: { aud: <what the broker expects> } }` into the job, or name another variable with `--token-variable`",
    shared: false,
};

pub(super) const BITBUCKET: Platform = Platform {
    name: "bitbucket",
    title: "Bitbucket Pipelines",
    signs: &[Sign::Set("BITBUCKET_BUILD_NUMBER")],
    way: plain(&["BITBUCKET_STEP_OIDC_TOKEN"]),
    remedy: "write `oidc: true` into the step",
    shared: false,
};

pub(super) const TERRAFORM: Platform = Platform {
    name: "terraform",
    title: "HCP Terraform",
    signs: &[Sign::Set("TFC_RUN_ID")],
    way: plain(&["TFC_WORKLOAD_IDENTITY_TOKEN_CAMBIO", "TFC_WORKLOAD_IDENTITY_TOKEN"]),
    remedy: "set the workspace's environment variable `TFC_WORKLOAD_IDENTITY_AUDIENCE_CAMBIO` to what the broker expects",
    shared: false,
};

pub(super) const SPACELIFT: Platform = Platform {
    name: "spacelift",
    title: "Spacelift",
    signs: &[Sign::Set("SPACELIFT_OIDC_TOKEN"), Sign::There("/mnt/workspace/spacelift.oidc")],
    way: Way::Variable(Variable {
        names: &["SPACELIFT_OIDC_TOKEN"],
        by_audience: false,
        file: Some("/mnt/workspace/spacelift.oidc"),
    }),
    remedy: "Spacelift gives each run of a stack a token: does this command run inside one?",
    shared: false,
};

pub(super) const SEMAPHORE: Platform = Platform {
    name: "semaphore",
    title: "Semaphore",
    signs: &[Sign::Is("SEMAPHORE", "true")],
    way: plain(&["SEMAPHORE_OIDC_TOKEN"]),
    remedy: "turn OpenID Connect on for the organisation",
    shared: false,
};

pub(super) const VERCEL: Platform = Platform {
    name: "vercel",
    title: "Vercel",
    signs: &[Sign::Is("VERCEL", "1"), Sign::Set("VERCEL_OIDC_TOKEN")],
    way: plain(&["VERCEL_OIDC_TOKEN"]),
    remedy: "turn secure backend access (OIDC) on for the project; inside a function the token is in the header `x-vercel-oidc-token`: hand it in with `--token-stdin`",
    shared: false,
};

/// Its plugin `oidc-provider` makes a token where a pipeline binds the credential, for the audience that the credential says; what
/// the variable is called is the pipeline's choice.
pub(super) const JENKINS: Platform = Platform {
    name: "jenkins",
    title: "Jenkins",
    signs: &[Sign::Set("JENKINS_URL")],
    way: plain(&["CAMBIO_ID_TOKEN"]),
    remedy: "with the plugin `oidc-provider`, make an OpenID Connect id token credential with the broker's audience and bind it around the step: `withCredentials([string(credentialsId: '…', variable: 'CAMBIO_ID_TOKEN')]) { … }`; another variable is named with `--token-variable`, a file with `--token-file`",
    shared: false,
};

pub(super) const MODAL: Platform = Platform {
    name: "modal",
    title: "Modal",
    signs: &[Sign::Set("MODAL_IDENTITY_TOKEN")],
    way: plain(&["MODAL_IDENTITY_TOKEN"]),
    remedy: "Modal gives each container a token: does this command run inside one?",
    shared: false,
};

pub(super) fn read(
    platform: &Platform,
    variable: Variable,
    means: &Means<'_>,
) -> Result<(String, String), ClientError> {
    let mut names: Vec<String> = variable.names.iter().map(|name| (*name).to_owned()).collect();
    if variable.by_audience {
        names.insert(0, named_after(means.audience));
    }
    for name in &names {
        if let Some(token) = means.machine.environment.find(name) {
            return Ok((format!("`{name}`"), token.to_owned()));
        }
    }
    if let Some(path) = variable.file {
        return pods::read(platform, path, means);
    }
    let told: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    Err(platform.missing(&format!("{} is not set", told.join(" or "))))
}

/// The name that tools of the field give to GitLab's variable for an audience.
fn named_after(audience: &str) -> String {
    let fit = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    let name: String = audience.to_ascii_uppercase().chars().map(fit).collect();
    format!("{name}_ID_TOKEN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_named_after_its_audience() {
        assert_eq!(named_after("sigstore"), "SIGSTORE_ID_TOKEN");
        assert_eq!(named_after("https://cambio.example"), "HTTPS___CAMBIO_EXAMPLE_ID_TOKEN");
    }
}
