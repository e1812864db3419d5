"""Tokens in the shape of each platform, a broker that knows them all by the rules of `docs/issuers.md`, and the commands that hand
tokens out (`buildkite-agent`, `circleci`) as far as a client sees them."""

import json
import re
import sys
import time
import uuid

import jwt
from actions import Server
from support import CONFIG, ROOT, Broker

ORG, PROJECT = "3fd8c0a2-0000-4000-8000-000000000001", "50d8c0a2-0000-4000-8000-000000000002"
AZURE_ORG = "0c0d1e2f-3a4b-4c5d-8e6f-708192a3b4c5"
REPOSITORY = "{aaaa1111-0000-4000-8000-000000000001}"
# provider → (issuer, audience or None for the broker's, claims), with the ids that the rules of docs/issuers.md pin.
TOKENS = {
    "github": ("https://token.actions.githubusercontent.com", None, {
        "sub": "repo:acme/site:environment:production", "repository": "acme/site", "repository_id": "1296269",
        "repository_owner": "acme", "repository_owner_id": "9919", "environment": "production", "event_name": "push",
        "ref": "refs/heads/main", "run_id": "4711"}),
    "gitlab": ("https://gitlab.com", None, {
        "sub": "project_path:acme/site:ref_type:branch:ref:main", "namespace_id": "72", "namespace_path": "acme",
        "project_id": "20", "project_path": "acme/site", "pipeline_source": "push", "ref": "main", "ref_type": "branch",
        "ref_path": "refs/heads/main", "ref_protected": "true", "runner_id": 1}),
    "azure_devops": (f"https://vstoken.dev.azure.com/{AZURE_ORG}", "api://AzureADTokenExchange", {
        "sub": "p://acme/site/deploy", "org_id": AZURE_ORG, "prj_id": "aaaa1111-2222-4333-8444-555566667777", "def_id": "42",
        "rpo_ref": "refs/heads/main", "run_id": "7"}),
    "bitbucket": ("https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc", None, {
        "sub": f"{REPOSITORY}:{{eeee1111-0000-4000-8000-000000000001}}:{{dddd1111-0000-4000-8000-000000000001}}",
        "workspaceUuid": "{cccc1111-0000-4000-8000-000000000001}", "repositoryUuid": REPOSITORY,
        "deploymentEnvironmentUuid": "{eeee1111-0000-4000-8000-000000000001}",
        "stepUuid": "{dddd1111-0000-4000-8000-000000000001}", "branchName": "main"}),
    "buildkite": ("https://agent.buildkite.com", None, {
        "sub": "organization:acme:pipeline:site:ref:refs/heads/main:commit:abc:step:", "organization_slug": "acme",
        "pipeline_slug": "site", "build_number": 12, "build_branch": "main", "build_commit": "abc", "step_key": None,
        "build_source": "webhook", "runner_environment": "self-hosted"}),
    "circleci": (f"https://oidc.circleci.com/org/{ORG}", None, {
        "sub": f"org/{ORG}/project/{PROJECT}/user/60d8c0a2-0000-4000-8000-000000000003",
        "oidc.circleci.com/org-id": ORG, "oidc.circleci.com/project-id": PROJECT,
        "oidc.circleci.com/vcs-ref": "refs/heads/main", "oidc.circleci.com/vcs-origin": "github.com/acme/site",
        "oidc.circleci.com/ssh-rerun": False}),
    "forgejo": ("https://forge.acme.example/api/actions", None, {
        "sub": "repo:acme/site:ref:refs/heads/main", "repository": "acme/site", "repository_owner": "acme",
        "event_name": "push", "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true",
        "workflow_ref": "acme/site/.forgejo/workflows/deploy.yml@refs/heads/main"}),
    "semaphore": ("https://acme.semaphoreci.com", "https://acme.semaphoreci.com", {
        "sub": "org:acme:project:93d1ba38-0000-4000-8000-000000000001:repo:site:ref_type:branch:ref:refs/heads/main",
        "org": "acme", "org_id": "70d1ba38-0000-4000-8000-000000000001", "prj_id": "93d1ba38-0000-4000-8000-000000000001",
        "repo": "site", "branch": "main", "ref": "refs/heads/main", "ref_type": "branch", "job_type": "pipeline_job"}),
    "spacelift": ("https://acme.app.spacelift.io", "acme.app.spacelift.io", {
        "sub": "space:prod-01:stack:site:run_type:TRACKED:scope:write", "spaceId": "prod-01", "callerType": "stack",
        "callerId": "site", "runType": "TRACKED", "scope": "write"}),
    "terraform": ("https://app.terraform.io", None, {
        "sub": "organization:acme:project:Default Project:workspace:site:run_phase:apply",
        "terraform_organization_id": "org-GRNbCjYNpBB6NEBH", "terraform_organization_name": "acme",
        "terraform_workspace_id": "ws-mbsd5E3Ktt5Rg2Xm", "terraform_workspace_name": "site", "terraform_run_phase": "apply"}),
}
# What an agent adds if it is asked to.
BUILDKITE_IDS = {"organization_id": "0184990a-0000-4000-8000-00000000000a", "pipeline_id": "0184990a-0000-4000-8000-00000000000b"}


def name_of(provider):
    return provider.replace("_", "-")


def rule_of(provider):
    """The rule that `docs/issuers.md` shows for a provider."""
    section = (ROOT / "docs" / "issuers.md").read_text().split(f"\n### `{provider}`\n", 1)[1].split("\n### ", 1)[0]
    rule = re.search(r"```yaml\n(.*?)```", section, re.S)[1]
    return rule.replace(f"issuer: {provider}\n", f"issuer: {name_of(provider)}\n")


class PlatformBroker(Broker):
    """A broker that knows these platforms, and grants `jwt/orders` to one job of each; what else is granted GitLab's gets."""

    def __init__(self, providers=tuple(TOKENS), issuers=None, targets="", grants=""):
        super().__init__()
        self.issuers = {provider: (issuers or {}).get(provider, TOKENS[provider][0]) for provider in providers}
        text = CONFIG.split("issuers:\n")[0] + "issuers:\n" + "".join(
            f"  - {{{{ name: {name_of(one)}, provider: {one}, issuer: {url}, audience: \"{self.audience(one)}\", "
            f"keys: {{{{ pinned: {{{{ file: issuer.json }}}} }}}} }}}}\n" for one, url in self.issuers.items()
        ) + "targets:\n" + CONFIG.split("targets:\n")[1]
        text = text.replace("reader: {{ scope: [orders.read] }}", "deployer: {{ scope: [orders.write] }}")
        text = text.replace("granted_by: [site.yaml]", f"granted_by: [{', '.join(f'{one}.yaml' for one in providers)}]")
        text = text.format(url="https://cambio.test", port=self.port, operations=self.operations_port, targets=targets.replace("site.yaml", "gitlab.yaml"))
        (self.folder / "cambio.yaml").write_text(text)
        (self.folder / "policies" / "site.yaml").unlink()
        for one in providers:
            (self.folder / "policies" / f"{one}.yaml").write_text(f"version: 1\nrules:\n{rule_of(one)}".replace("lifetime: 15m }]", f"lifetime: 15m }}{grants if one == 'gitlab' else ''}]"))

    def audience(self, provider):
        return TOKENS[provider][1] or self.url

    def sign(self, provider, aud=None, **claims):
        """A token of a job on `provider`, as that platform would sign it."""
        now = int(time.time())
        base = {"iss": self.issuers[provider], "aud": aud or self.audience(provider), "iat": now, "exp": now + 300, "jti": str(uuid.uuid4())}
        return jwt.encode(base | TOKENS[provider][2] | claims, self.issuer.key, algorithm="RS256", headers={"kid": "journey"})

    def got(self, token):
        """Whom our token is about; None if it is none of ours."""
        keys = jwt.PyJWKClient(f"{self.url}/jwks")
        key = keys.get_signing_key_from_jwt(token)
        return jwt.decode(token, key.key, algorithms=["ES256"], audience="https://orders.test", issuer="https://cambio.test")["sub"]


class Agents(Server):
    """Makes `buildkite-agent` and `circleci` in `folder`: they pass their arguments on, and print the token that comes back."""

    def __init__(self, broker, folder):
        self.broker, self.calls = broker, []
        super().__init__(self._answer)
        for program in ("buildkite-agent", "circleci"):
            shim = folder / program
            shim.write_text(
                f"#!{sys.executable}\nimport json, os, sys, urllib.request\n"
                f"asked = json.dumps([sys.argv[1:], os.environ.get('BUILDKITE_OIDC_TOKEN_CLAIMS', '')]).encode()\n"
                f"print(urllib.request.urlopen('{self.url}/{program}', asked).read().decode())\n"
            )
            shim.chmod(0o700)

    def _answer(self, handler, body):
        arguments, wanted = json.loads(body)
        program = handler.path.strip("/")
        self.calls.append([program, *arguments])
        options = dict(zip(arguments, arguments[1:]))
        if program == "buildkite-agent" and arguments[:2] == ["oidc", "request-token"]:
            asked = f"{options.get('--claim', '')},{wanted}".split(",")
            ids = {name: value for name, value in BUILDKITE_IDS.items() if name in asked}
            return 200, self.broker.sign("buildkite", options["--audience"], **ids).encode(), {}
        if program == "circleci" and arguments[:3] == ["run", "oidc", "get"]:
            issuer = {"iss": "https://oidc.circleci.com"} if "--root-issuer" in arguments else {}
            return 200, self.broker.sign("circleci", json.loads(options["--claims"])["aud"], **issuer).encode(), {}
        return 400, b"no such command", {}
