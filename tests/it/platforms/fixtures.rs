//! What each platform's token says, in the shape that the platform documents. Keys and signatures are made when a test runs.

use serde_json::{Value, json};

use crate::support::token::AUDIENCE;

/// One platform's token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixture {
    pub(super) provider: &'static str,
    pub(super) issuer: &'static str,
    pub(super) audience: &'static str,
    /// `exp − iat`, seconds.
    pub(super) lifetime: u64,
    pub(super) has_jti: bool,
    pub(super) claims: fn() -> Value,
    /// What we call the workload, after the issuer's name.
    pub(super) stable_id: &'static str,
    /// What a stranger's token says otherwise: same issuer, another tenant or another workload.
    pub(super) stranger: fn() -> Value,
}

impl Fixture {
    pub(super) fn claims(&self) -> Value {
        (self.claims)()
    }
}

pub(super) fn of(provider: &str) -> Fixture {
    *ALL.iter().find(|fixture| fixture.provider == provider).unwrap()
}

const PLAIN: Fixture = Fixture {
    provider: "",
    issuer: "",
    audience: AUDIENCE,
    lifetime: 300,
    has_jti: true,
    claims: || json!({}),
    stable_id: "",
    stranger: || json!({}),
};

pub(super) const ALL: &[Fixture] = &[
    Fixture {
        provider: "github",
        issuer: "https://token.actions.githubusercontent.com",
        claims: || {
            json!({
                "sub": "repo:acme@9919/site@1296269:environment:production",
                "repository": "acme/site", "repository_id": "1296269",
                "repository_owner": "acme", "repository_owner_id": "9919",
                "environment": "production", "event_name": "push", "ref": "refs/heads/main",
                "ref_type": "branch", "ref_protected": "true", "runner_environment": "github-hosted",
                "run_id": "7", "actor": "mona", "actor_id": "42",
            })
        },
        stable_id: "repository_id:1296269",
        stranger: || {
            json!({
                "sub": "repo:evil@7/site@8:environment:production", "repository": "evil/site",
                "repository_id": "8", "repository_owner": "evil", "repository_owner_id": "7",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "gitlab",
        issuer: "https://gitlab.com",
        lifetime: 3600,
        claims: || {
            json!({
                "sub": "project_path:acme/site:ref_type:branch:ref:main",
                "namespace_id": "72", "namespace_path": "acme", "project_id": "20",
                "project_path": "acme/site", "pipeline_source": "push", "ref": "main",
                "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
                "runner_id": 1, "environment": null, "user_login": "mona",
            })
        },
        stable_id: "project_id:20",
        stranger: || {
            json!({
                "sub": "project_path:evil/site:ref_type:branch:ref:main", "namespace_id": "9",
                "namespace_path": "evil", "project_id": "8", "project_path": "evil/site",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "kubernetes",
        issuer: "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF",
        lifetime: 3600,
        claims: || {
            json!({
                "sub": "system:serviceaccount:payments:worker",
                "kubernetes.io": {
                    "namespace": "payments",
                    "serviceaccount": { "name": "worker", "uid": "0a1b-1" },
                    "pod": { "name": "worker-7d", "uid": "4e5f-2" },
                },
            })
        },
        stable_id: "namespace:payments:service_account:worker",
        stranger: || {
            json!({
                "sub": "system:serviceaccount:evil:worker",
                "kubernetes.io": {
                    "namespace": "evil", "serviceaccount": { "name": "worker", "uid": "9-9" },
                },
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "aws",
        issuer: "https://5f0c1d2e-3a4b-4c5d-8e6f-708192a3b4c5.tokens.sts.global.api.aws",
        claims: || {
            json!({
                "sub": "arn:aws:iam::123456789012:role/Deploy",
                "https://sts.amazonaws.com/": {
                    "aws_account": "123456789012", "source_region": "eu-west-1", "org_id": "o-abc1234567",
                    "ou_path": ["o-abc1234567/r-ab12/ou-ab12-11111111/"],
                    "principal_tags": { "team": "payments" }, "request_tags": { "team": "anything" },
                },
            })
        },
        stable_id: "sub:arn:aws:iam::123456789012:role/Deploy",
        stranger: || json!({ "sub": "arn:aws:iam::123456789012:role/Other" }),
        ..PLAIN
    },
    Fixture {
        provider: "azure",
        issuer: "https://login.microsoftonline.com/7a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9/v2.0",
        audience: "6e7f8091-a2b3-44c5-96d7-e8f90a1b2c3d",
        lifetime: 86_700,
        has_jti: false,
        claims: || {
            json!({
                "sub": "11112222-3333-4444-8555-666677778888", "oid": "11112222-3333-4444-8555-666677778888",
                "tid": "7a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9", "azp": "99990000-aaaa-4bbb-8ccc-ddddeeeeffff",
                "azpacr": "2", "idtyp": "app", "ver": "2.0", "aio": "x", "rh": "y", "uti": "z",
                "xms_mirid": "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/deploy",
            })
        },
        stable_id: "oid:11112222-3333-4444-8555-666677778888",
        stranger: || {
            json!({
                "sub": "22223333-3333-4444-8555-666677778888", "oid": "22223333-3333-4444-8555-666677778888",
            })
        },
    },
    Fixture {
        provider: "google",
        issuer: "https://accounts.google.com",
        lifetime: 3600,
        has_jti: false,
        claims: || {
            json!({
                "sub": "104521234567890123456", "azp": "104521234567890123456",
                "email": "deploy@acme-prod.iam.gserviceaccount.com", "email_verified": true,
                "google": {
                    "compute_engine": {
                        "project_id": "acme-prod", "project_number": 739_419_398_126_u64, "zone": "europe-west1-b",
                        "instance_id": "152986662232938449", "instance_name": "build-1",
                        "instance_creation_timestamp": 1_799_000_000,
                    },
                },
            })
        },
        stable_id: "sub:104521234567890123456",
        stranger: || json!({ "sub": "200000000000000000009", "email": "deploy@evil.iam.gserviceaccount.com" }),
        ..PLAIN
    },
    Fixture {
        provider: "spiffe",
        issuer: "https://oidc.spire.acme.example",
        claims: || json!({ "sub": "spiffe://acme.example/ns/payments/sa/worker" }),
        has_jti: false,
        stable_id: "sub:spiffe://acme.example/ns/payments/sa/worker",
        stranger: || json!({ "sub": "spiffe://evil.example/ns/payments/sa/worker" }),
        ..PLAIN
    },
    Fixture {
        provider: "azure_devops",
        issuer: "https://vstoken.dev.azure.com/0c0d1e2f-3a4b-4c5d-8e6f-708192a3b4c5",
        audience: "api://AzureADTokenExchange",
        lifetime: 600,
        claims: || {
            json!({
                "sub": "p://acme/site/deploy", "org_id": "0c0d1e2f-3a4b-4c5d-8e6f-708192a3b4c5",
                "prj_id": "aaaa1111-2222-4333-8444-555566667777", "def_id": "42",
                "rpo_id": "bbbb1111-2222-4333-8444-555566667777", "rpo_uri": "https://dev.azure.com/acme/site/_git/site",
                "rpo_ver": "abc", "rpo_ref": "refs/heads/main", "run_id": "7",
            })
        },
        stable_id: "org_id:0c0d1e2f-3a4b-4c5d-8e6f-708192a3b4c5:prj_id:aaaa1111-2222-4333-8444-555566667777:def_id:42",
        stranger: || json!({ "sub": "p://acme/site/other", "def_id": "43" }),
        ..PLAIN
    },
    Fixture {
        provider: "bitbucket",
        issuer: "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
        lifetime: 3600,
        claims: || {
            json!({
                "sub": "{aaaa1111-0000-4000-8000-000000000001}:{eeee1111-0000-4000-8000-000000000001}:{dddd1111-0000-4000-8000-000000000001}",
                "workspaceUuid": "{cccc1111-0000-4000-8000-000000000001}",
                "repositoryUuid": "{aaaa1111-0000-4000-8000-000000000001}",
                "pipelineUuid": "{ffff1111-0000-4000-8000-000000000001}",
                "stepUuid": "{dddd1111-0000-4000-8000-000000000001}",
                "deploymentEnvironmentUuid": "{eeee1111-0000-4000-8000-000000000001}",
                "branchName": "main",
            })
        },
        stable_id: "repositoryUuid:{aaaa1111-0000-4000-8000-000000000001}",
        stranger: || {
            json!({
                "sub": "{aaaa2222-0000-4000-8000-000000000001}:{dddd1111-0000-4000-8000-000000000001}",
                "repositoryUuid": "{aaaa2222-0000-4000-8000-000000000001}",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "buddy",
        issuer: "https://eu-oidc.buddyusercontent.com",
        claims: || {
            json!({
                "sub": "https://app.eu.buddy.works/acme/site/pipelines/pipeline/5150",
                "workspace_domain": "acme", "project_name": "site", "pipeline_id": 5150,
                "pipeline_name": "Deploy", "execution_id": 9, "triggered_on": "PUSH",
                "runner_environment": "buddy-hosted", "base_url": "https://app.eu.buddy.works",
                "revision": "abc", "ref": "refs/heads/main",
            })
        },
        stable_id: "pipeline_id:5150",
        stranger: || {
            json!({
                "sub": "https://app.eu.buddy.works/evil/site/pipelines/pipeline/666",
                "workspace_domain": "evil", "pipeline_id": 666,
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "buildkite",
        issuer: "https://agent.buildkite.com",
        claims: || {
            json!({
                "sub": "organization:acme:pipeline:site:ref:refs/heads/main:commit:abc:step:",
                "organization_slug": "acme", "organization_id": "0184990a-0000-4000-8000-00000000000a",
                "pipeline_slug": "site", "pipeline_id": "0184990a-0000-4000-8000-00000000000b",
                "build_number": 12, "build_branch": "main", "build_commit": "abc", "step_key": null,
                "job_id": "0184990a-0000-4000-8000-00000000000c", "agent_id": "0184990a-0000-4000-8000-00000000000d",
                "runner_environment": "self-hosted", "build_source": "webhook", "agent_tag:queue": "default",
            })
        },
        stable_id: "pipeline_id:0184990a-0000-4000-8000-00000000000b",
        stranger: || {
            json!({
                "sub": "organization:evil:pipeline:site:ref:refs/heads/main:commit:abc:step:",
                "organization_slug": "evil", "organization_id": "0184990a-0000-4000-8000-0000000000ff",
                "pipeline_id": "0184990a-0000-4000-8000-0000000000fe",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "circleci",
        issuer: "https://oidc.circleci.com/org/3fd8c0a2-0000-4000-8000-000000000001",
        lifetime: 3600,
        claims: || {
            json!({
                "sub": "org/3fd8c0a2-0000-4000-8000-000000000001/project/50d8c0a2-0000-4000-8000-000000000002/user/60d8c0a2-0000-4000-8000-000000000003/vcs-origin/github.com/acme/site/vcs-ref/refs/heads/main",
                "oidc.circleci.com/org-id": "3fd8c0a2-0000-4000-8000-000000000001",
                "oidc.circleci.com/project-id": "50d8c0a2-0000-4000-8000-000000000002",
                "oidc.circleci.com/pipeline-id": "p", "oidc.circleci.com/workflow-id": "w",
                "oidc.circleci.com/pipeline-definition-id": "70d8c0a2-0000-4000-8000-000000000004",
                "oidc.circleci.com/job-id": "j", "oidc.circleci.com/context-ids": ["c"],
                "oidc.circleci.com/vcs-origin": "github.com/acme/site",
                "oidc.circleci.com/vcs-ref": "refs/heads/main", "oidc.circleci.com/ssh-rerun": false,
            })
        },
        stable_id: "project_id:50d8c0a2-0000-4000-8000-000000000002",
        stranger: || {
            json!({
                "sub": "org/3fd8c0a2-0000-4000-8000-000000000001/project/50d8c0a2-0000-4000-8000-0000000000ff/user/u",
                "oidc.circleci.com/project-id": "50d8c0a2-0000-4000-8000-0000000000ff",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "codefresh",
        issuer: "https://oidc.codefresh.io",
        claims: || {
            json!({
                "sub": "account:628a80b693a15c0f9c13ab75:pipeline:65e5a53e52853dc51a5b0cc1:scm_repo_url:https://github.com/acme/site:scm_ref:main",
                "account_id": "628a80b693a15c0f9c13ab75", "account_name": "acme",
                "pipeline_id": "65e5a53e52853dc51a5b0cc1", "pipeline_name": "acme/deploy",
                "workflow_id": "w", "platform_url": "https://g.codefresh.io", "scm_ref": "main",
                "scm_repo_url": "https://github.com/acme/site", "runner_environment": "hybrid",
            })
        },
        stable_id: "pipeline_id:65e5a53e52853dc51a5b0cc1",
        stranger: || {
            json!({
                "sub": "account:evil:pipeline:other:x", "account_id": "evil", "account_name": "evil",
                "pipeline_id": "other",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "fly",
        issuer: "https://oidc.fly.io/acme",
        lifetime: 600,
        claims: || {
            json!({
                "sub": "acme:site:weathered-river-1", "app_id": "3671581", "app_name": "site",
                "org_id": "29873298", "org_name": "acme", "machine_id": "3d8d377ce9e398",
                "machine_name": "weathered-river-1", "machine_version": "01HZ", "region": "ams",
                "image": "registry.fly.io/site:latest", "image_digest": "sha256:00",
            })
        },
        stable_id: "app_id:3671581",
        stranger: || json!({ "sub": "acme:other:weathered-river-1", "app_id": "7", "app_name": "other" }),
        ..PLAIN
    },
    Fixture {
        provider: "forgejo",
        issuer: "https://forge.acme.example/api/actions",
        has_jti: false,
        claims: || {
            json!({
                "sub": "repo:acme/site:ref:refs/heads/main", "repository": "acme/site",
                "repository_owner": "acme", "actor": "mona", "event_name": "push",
                "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "sha": "abc",
                "base_ref": "", "head_ref": "", "run_id": "7", "run_number": "3", "run_attempt": "1",
                "workflow": "deploy.yml", "workflow_ref": "acme/site/.forgejo/workflows/deploy.yml@refs/heads/main",
            })
        },
        stable_id: "repository:acme/site",
        stranger: || {
            json!({
                "sub": "repo:evil/site:ref:refs/heads/main", "repository": "evil/site",
                "repository_owner": "evil", "workflow_ref": "evil/site/.forgejo/workflows/x.yml@refs/heads/main",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "modal",
        issuer: "https://oidc.modal.com",
        audience: "oidc.modal.com",
        lifetime: 172_800,
        claims: || {
            json!({
                "sub": "modal:workspace_id:ac-1:environment_name:main:app_name:site:function_name:deploy:container_id:ta-9",
                "workspace_id": "ac-1", "environment_id": "en-1", "environment_name": "main",
                "app_id": "ap-1", "app_name": "site", "function_id": "fu-1",
                "function_name": "deploy", "container_id": "ta-9",
            })
        },
        stable_id: "workspace_id:ac-1:environment_id:en-1:app_name:site",
        stranger: || {
            json!({
                "sub": "modal:workspace_id:ac-2:environment_name:main:app_name:site:function_name:deploy:container_id:ta-9",
                "workspace_id": "ac-2", "environment_id": "en-2", "app_id": "ap-2",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "semaphore",
        issuer: "https://acme.semaphoreci.com",
        audience: "https://acme.semaphoreci.com",
        lifetime: 3600,
        claims: || {
            json!({
                "sub": "org:acme:project:93d1ba38-0000-4000-8000-000000000001:repo:site:ref_type:branch:ref:refs/heads/main",
                "org": "acme", "org_id": "70d1ba38-0000-4000-8000-000000000001", "prj": "site",
                "prj_id": "93d1ba38-0000-4000-8000-000000000001", "repo": "site", "repo_slug": "acme/site",
                "branch": "main", "pr_branch": "", "pr": "", "tag": "", "ref": "refs/heads/main",
                "ref_type": "branch", "wf_id": "w", "ppl_id": "p", "job_id": "j",
                "job_type": "pipeline_job", "trg": "hook",
            })
        },
        stable_id: "prj_id:93d1ba38-0000-4000-8000-000000000001",
        stranger: || {
            json!({
                "sub": "org:acme:project:other:repo:site:ref_type:branch:ref:refs/heads/main",
                "prj": "other", "prj_id": "other",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "spacelift",
        issuer: "https://acme.app.spacelift.io",
        audience: "acme.app.spacelift.io",
        lifetime: 3600,
        claims: || {
            json!({
                "sub": "space:prod-01:stack:site:run_type:TRACKED:scope:write", "spaceId": "prod-01",
                "callerType": "stack", "callerId": "site", "runType": "TRACKED", "runId": "01H", "scope": "write",
            })
        },
        stable_id: "callerType:stack:callerId:site",
        stranger: || {
            json!({
                "sub": "space:prod-01:stack:other:run_type:TRACKED:scope:write", "callerId": "other",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "terraform",
        issuer: "https://app.terraform.io",
        lifetime: 86_400,
        claims: || {
            json!({
                "sub": "organization:acme:project:Default Project:workspace:site:run_phase:apply",
                "terraform_organization_id": "org-GRNbCjYNpBB6NEBH", "terraform_organization_name": "acme",
                "terraform_project_id": "prj-1", "terraform_project_name": "Default Project",
                "terraform_workspace_id": "ws-mbsd5E3Ktt5Rg2Xm", "terraform_workspace_name": "site",
                "terraform_full_workspace": "organization:acme:project:Default Project:workspace:site:run_phase:apply",
                "terraform_run_id": "run-1", "terraform_run_phase": "apply",
            })
        },
        stable_id: "terraform_workspace_id:ws-mbsd5E3Ktt5Rg2Xm",
        stranger: || {
            json!({
                "sub": "organization:evil:project:Default Project:workspace:site:run_phase:apply",
                "terraform_organization_id": "org-evil", "terraform_organization_name": "evil",
                "terraform_workspace_id": "ws-evil",
            })
        },
        ..PLAIN
    },
    Fixture {
        provider: "vercel",
        issuer: "https://oidc.vercel.com/acme",
        lifetime: 3600,
        claims: || {
            json!({
                "sub": "owner:acme:project:site:environment:production", "owner": "acme",
                "owner_id": "team_7", "project": "site", "project_id": "prj_9",
                "environment": "production", "scope": "owner:acme:project:site:environment:production",
            })
        },
        stable_id: "project_id:prj_9:environment:production",
        stranger: || {
            json!({
                "sub": "owner:acme:project:other:environment:production", "project": "other",
                "project_id": "prj_1",
            })
        },
        ..PLAIN
    },
];
