//! What shows a platform, what it leaves in variables, files and commands, and what is said where there is nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use insta::assert_snapshot;
use tempfile::tempdir;

use super::{find, find_below, told, words};

const TOKEN: &str = "e30.e30.c2ln";

fn tuple(platform: &str, place: &str) -> (String, String, String) {
    (platform.to_owned(), format!("`{place}`"), TOKEN.to_owned())
}

#[tokio::test]
async fn a_token_in_a_variable_is_found_where_the_platform_puts_it() {
    for (platform, sign, variable) in [
        ("gitlab", ("GITLAB_CI", "true"), "CAMBIO_ID_TOKEN"),
        ("gitlab", ("GITLAB_CI", "true"), "HTTPS___CAMBIO_EXAMPLE_ID_TOKEN"),
        ("bitbucket", ("BITBUCKET_BUILD_NUMBER", "7"), "BITBUCKET_STEP_OIDC_TOKEN"),
        ("terraform", ("TFC_RUN_ID", "run-1"), "TFC_WORKLOAD_IDENTITY_TOKEN"),
        ("terraform", ("TFC_RUN_ID", "run-1"), "TFC_WORKLOAD_IDENTITY_TOKEN_CAMBIO"),
        ("spacelift", ("CI", "true"), "SPACELIFT_OIDC_TOKEN"),
        ("semaphore", ("SEMAPHORE", "true"), "SEMAPHORE_OIDC_TOKEN"),
        ("vercel", ("VERCEL", "1"), "VERCEL_OIDC_TOKEN"),
        ("modal", ("CI", ""), "MODAL_IDENTITY_TOKEN"),
        ("jenkins", ("JENKINS_URL", "https://jenkins.example/"), "CAMBIO_ID_TOKEN"),
    ] {
        let found = find(&[sign, (variable, TOKEN)]).await;
        assert_eq!(told(found), tuple(platform, variable));
    }
}

#[tokio::test]
async fn a_token_in_a_file_is_read_anew_and_without_its_line_feed() {
    let root = tempdir().unwrap();
    for (platform, file) in [
        ("spacelift", "/mnt/workspace/spacelift.oidc"),
        ("kubernetes", "/var/run/secrets/cambio/token"),
    ] {
        let path = root.path().join(&file[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{TOKEN}\n")).unwrap();
        let found = find_below(root.path(), &[], Some(platform)).await;
        assert_eq!(told(found), tuple(platform, file));
        fs::write(&path, "e30.e30.bmV3").unwrap();
        let found = find_below(root.path(), &[], Some(platform)).await;
        assert_eq!(told(found).2, "e30.e30.bmV3");
    }
}

/// A command on a `PATH` of its own, which writes down how it was called.
fn command(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    let text = format!(
        "#!/bin/sh\nfor word in \"$@\"; do echo \"$word\" >>'{}/called'; done\n{script}\n",
        folder.display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_platforms_own_command_is_asked_with_the_audience() {
    for (platform, sign, program, called) in [
        (
            "buildkite",
            ("BUILDKITE", "true"),
            "buildkite-agent",
            "oidc request-token --claim organization_id,pipeline_id --audience https://cambio.example",
        ),
        (
            "circleci",
            ("CIRCLECI", "true"),
            "circleci",
            r#"run oidc get --claims {"aud":"https://cambio.example"}"#,
        ),
        (
            "aws",
            ("AWS_LAMBDA_FUNCTION_NAME", "f"),
            "aws",
            "sts get-web-identity-token --signing-algorithm RS256 --duration-seconds 300 --query WebIdentityToken --output text --audience https://cambio.example",
        ),
    ] {
        let folder = tempdir().unwrap();
        // What the job has in its environment, its command has too.
        command(folder.path(), program, r#"printf "$SAID\n""#);
        let path = folder.path().to_str().unwrap();
        let found = find(&[sign, ("PATH", path), ("SAID", TOKEN)]).await;
        assert_eq!(told(found), tuple(platform, program));
        let words = fs::read_to_string(folder.path().join("called")).unwrap();
        assert_eq!(words.trim().replace('\n', " "), called);
    }
}

#[tokio::test]
async fn a_command_that_fails_is_told_by_its_stderr_and_never_by_its_stdout() {
    let folder = tempdir().unwrap();
    command(folder.path(), "buildkite-agent", "echo hush; echo 'no such job' >&2; exit 3");
    let path = folder.path().to_str().unwrap();
    let error = find(&[("BUILDKITE", "true"), ("PATH", path)]).await.unwrap_err();
    assert_snapshot!(words(&error), @"
    Refused: Buildkite: `buildkite-agent` ended with exit status: 3: no such job
      hint: run this where the job runs: a container of the docker plugin needs `mount-buildkite-agent: true`
    ");
}

#[tokio::test]
async fn a_command_that_does_not_end_or_says_too_much_is_ended() {
    let folder = tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    command(folder.path(), "circleci", "exec /bin/sleep 600");
    let job = [("CIRCLECI", "true"), ("PATH", path.as_str())];
    let error = find(&job).await.unwrap_err();
    assert_eq!(words(&error), "Unreachable: `circleci` did not end in time");
    command(folder.path(), "circleci", "while :; do echo e30.e30.c2ln; done");
    let error = find(&job).await.unwrap_err();
    assert!(words(&error).starts_with("Refused: CircleCI: `circleci` ended with signal: 13"));
}

#[tokio::test]
async fn what_is_missing_in_the_job_is_said_with_the_line_to_write() {
    let path = ("PATH", "/nowhere");
    let mut said = String::new();
    for sign in [
        ("GITHUB_ACTIONS", "true"),
        ("FORGEJO_ACTIONS", "true"),
        ("GITLAB_CI", "true"),
        ("BUILDKITE", "true"),
        ("CIRCLECI", "true"),
        ("BITBUCKET_BUILD_NUMBER", "7"),
        ("TF_BUILD", "True"),
        ("TFC_RUN_ID", "run-1"),
        ("SEMAPHORE", "true"),
        ("VERCEL", "1"),
        ("JENKINS_URL", "https://jenkins.example/"),
        ("FLY_APP_NAME", "app"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("IDENTITY_HEADER", "secret"),
        ("AWS_LAMBDA_FUNCTION_NAME", "f"),
    ] {
        said.push_str(&words(&find(&[sign, path]).await.unwrap_err()));
        said.push('\n');
    }
    assert_snapshot!(said, @r#"
    Usage: this is GitHub Actions, and `ACTIONS_ID_TOKEN_REQUEST_URL` and `ACTIONS_ID_TOKEN_REQUEST_TOKEN` are not both set
      hint: write `permissions: { id-token: write, contents: read }` into the job; pull requests from forks get no token, whatever is written there
    Usage: this is Forgejo Actions, and `ACTIONS_ID_TOKEN_REQUEST_URL` and `ACTIONS_ID_TOKEN_REQUEST_TOKEN` are not both set
      hint: write `enable-openid-connect: true` into the workflow or the job (Forgejo 15 and runner 12.5, or later)
    Usage: this is GitLab CI, and `HTTPS___CAMBIO_EXAMPLE_ID_TOKEN` or `CAMBIO_ID_TOKEN` is not set
      hint: write `id_tokens: { CAMBIO_ID_TOKEN: { aud: <what the broker expects> } }` into the job, or name another variable with `--token-variable`
    Usage: this is Buildkite, and the command `buildkite-agent` is not on the `PATH`
      hint: run this where the job runs: a container of the docker plugin needs `mount-buildkite-agent: true`
    Usage: this is CircleCI, and the command `circleci` is not on the `PATH`
      hint: run this in the job itself; a token of the default audience, which is good at everybody who trusts this organisation, is taken only if you say `--token-variable CIRCLE_OIDC_TOKEN_V2`
    Usage: this is Bitbucket Pipelines, and `BITBUCKET_STEP_OIDC_TOKEN` is not set
      hint: write `oidc: true` into the step
    Usage: this is Azure DevOps, and `SYSTEM_ACCESSTOKEN` is not set
      hint: map the pipeline's token into the step: `env: { SYSTEM_ACCESSTOKEN: $(System.AccessToken) }`
    Usage: this is HCP Terraform, and `TFC_WORKLOAD_IDENTITY_TOKEN_CAMBIO` or `TFC_WORKLOAD_IDENTITY_TOKEN` is not set
      hint: set the workspace's environment variable `TFC_WORKLOAD_IDENTITY_AUDIENCE_CAMBIO` to what the broker expects
    Usage: this is Semaphore, and `SEMAPHORE_OIDC_TOKEN` is not set
      hint: turn OpenID Connect on for the organisation
    Usage: this is Vercel, and `VERCEL_OIDC_TOKEN` is not set
      hint: turn secure backend access (OIDC) on for the project; inside a function the token is in the header `x-vercel-oidc-token`: hand it in with `--token-stdin`
    Usage: this is Jenkins, and `CAMBIO_ID_TOKEN` is not set
      hint: with the plugin `oidc-provider`, make an OpenID Connect id token credential with the broker's audience and bind it around the step: `withCredentials([string(credentialsId: '…', variable: 'CAMBIO_ID_TOKEN')]) { … }`; another variable is named with `--token-variable`, a file with `--token-file`
    Usage: this is Fly.io, and `/.fly/api` is not there
      hint: the machine's API is at `/.fly/api`: does this command run inside a Fly machine, and may its user open the socket?
    Usage: this is Kubernetes, and `/var/run/secrets/cambio/token` can't be read: No such file or directory (os error 2)
      hint: project a token for the broker into the pod: a volume `projected: { sources: [{ serviceAccountToken: { audience: <what the broker expects>, expirationSeconds: 600, path: token } }] }`, mounted at `/var/run/secrets/cambio`; or name another file with `--token-file`
    Usage: this is Azure App Service, Functions or Container Apps, and `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` are not both set
      hint: assign a managed identity to the app, and name the App ID URI of an application that you registered for the broker with `--token-audience`
    Usage: this is AWS, and the command `aws` is not on the `PATH`
      hint: outbound identity federation must be enabled for the account (`aws iam enable-outbound-web-identity-federation`), the role allowed `sts:GetWebIdentityToken`, a region set, and the `aws` command recent enough to know it
    "#);
}

#[tokio::test]
async fn where_there_is_no_platform_all_that_was_looked_for_is_said() {
    assert_snapshot!(words(&find(&[("CI", "true")]).await.unwrap_err()), @r#"
    Usage: found no platform that hands out a token; looked for
      Forgejo Actions: `FORGEJO_ACTIONS=true` or `GITEA_ACTIONS=true`
      GitHub Actions: `GITHUB_ACTIONS=true` or `ACTIONS_ID_TOKEN_REQUEST_URL`
      GitLab CI: `GITLAB_CI=true`
      Buildkite: `BUILDKITE=true`
      CircleCI: `CIRCLECI=true`
      Bitbucket Pipelines: `BITBUCKET_BUILD_NUMBER`
      Azure DevOps: `TF_BUILD=True`
      HCP Terraform: `TFC_RUN_ID`
      Spacelift: `SPACELIFT_OIDC_TOKEN` or `/mnt/workspace/spacelift.oidc`
      Semaphore: `SEMAPHORE=true`
      Vercel: `VERCEL=1` or `VERCEL_OIDC_TOKEN`
      Modal: `MODAL_IDENTITY_TOKEN`
      Jenkins: `JENKINS_URL`
      Fly.io: `/.fly/api` or `FLY_APP_NAME`
      a SPIFFE workload: `SPIFFE_ENDPOINT_SOCKET` without `/var/run/secrets/cambio/token`
      Kubernetes: `KUBERNETES_SERVICE_HOST` or `/var/run/secrets/cambio/token`
      Azure App Service, Functions or Container Apps: `IDENTITY_HEADER`
      AWS: `AWS_LAMBDA_FUNCTION_NAME` or `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `AWS_CONTAINER_CREDENTIALS_FULL_URI` or `Amazon EC2` in `/sys/class/dmi/id/sys_vendor`
      Google Cloud: `GCE_METADATA_HOST` or `K_SERVICE` or `CLOUD_RUN_JOB` or `Google` in `/sys/class/dmi/id/product_name`
      an Azure virtual machine: `7783-7084-3265-9085-8269-3286-77` in `/sys/class/dmi/id/chassis_asset_tag`
      hint: name a file with `--token-file`, a variable with `--token-variable`, or the platform with `--platform`
    "#);
}

#[tokio::test]
async fn a_job_without_its_token_never_presents_the_machine_under_it() {
    let root = tempdir().unwrap();
    let path = root.path().join("var/run/secrets/cambio");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("token"), TOKEN).unwrap();
    let pod = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let job = ("GITHUB_ACTIONS", "true");
    let error = find_below(root.path(), &[pod, job], None).await.unwrap_err();
    assert!(error.message.starts_with("this is GitHub Actions, and"), "{error}");
    // Unless somebody says so.
    let found = find_below(root.path(), &[pod, job], Some("kubernetes")).await;
    assert_eq!(told(found).0, "kubernetes");
}

#[tokio::test]
async fn the_machine_under_an_unknown_ci_system_is_not_taken_for_the_job() {
    let function = ("AWS_LAMBDA_FUNCTION_NAME", "f");
    let (path, ci) = (("PATH", "/nowhere"), ("CI", "true"));
    let error = find(&[function, path, ci]).await.unwrap_err();
    assert_snapshot!(words(&error), @r#"
    Usage: `CI` is set, and the only identity that is found is that of the machine: AWS
      hint: every job on this machine has it: if it is meant, say `--platform aws`; else hand in the job's own token with `--token-file` or `--token-variable`
    "#);
    let folder = tempdir().unwrap();
    let error = find_below(folder.path(), &[function, path, ci], Some("aws")).await.unwrap_err();
    assert!(error.message.starts_with("this is AWS, and"), "{error}");
}

#[tokio::test]
async fn the_api_servers_own_token_and_those_for_clouds_are_never_taken() {
    let root = tempdir().unwrap();
    for folder in ["kubernetes.io", "eks.amazonaws.com", "azure/tokens"] {
        let path = root.path().join("var/run/secrets").join(folder);
        fs::create_dir_all(path.join("serviceaccount")).unwrap();
        for file in ["serviceaccount/token", "azure-identity-token"] {
            fs::write(path.join(file), TOKEN).unwrap();
        }
    }
    let pod = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    let error = find_below(root.path(), &pod, None).await.unwrap_err();
    assert_eq!(
        error.message,
        "this is Kubernetes, and `/var/run/secrets/cambio/token` can't be read: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn what_is_no_token_is_not_taken_for_one() {
    let job = [("GITLAB_CI", "true"), ("CAMBIO_ID_TOKEN", "not set up yet")];
    let error = find(&job).await.unwrap_err();
    assert_eq!(error.message, "GitLab CI: `CAMBIO_ID_TOKEN` holds something else than a token");
}
