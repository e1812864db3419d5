"""The files of `deploy/ci` and the component of `deploy/gitlab`, read as their platforms read them; their commands are run with the
platforms' variables and endpoints simulated, against a broker whose rules are those of `docs/issuers.md`."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import databases as db
import hcl2
import yaml
from actions import Server, TokenEndpoint
from platforms import Agents, PlatformBroker
from support import CAMBIO, ROOT, Tally

CI, GITLAB = ROOT / "deploy" / "ci", ROOT / "deploy" / "gitlab"
tally = Tally()
services = json.loads(pathlib.Path(os.environ["CAMBIO_SERVICES"]).read_text())["services"] if "CAMBIO_SERVICES" in os.environ else {}
databases = {f"postgres/{name}": services[name] for name in ("postgres15",) if name in services}
broker = PlatformBroker(targets=db.targets(databases), grants="".join(f", {{ target: {name}, role: reader, lifetime: 10m }}" for name in databases))
broker.start()
work = broker.folder / "job"
tools = broker.folder / "tools"
for made in (work, tools):
    made.mkdir()
os.symlink(pathlib.Path(CAMBIO).resolve(), tools / "cambio")
agents = Agents(broker, tools)
# What a team would deploy with: it writes down what it was given.
(work / "deploy.sh").write_text('#!/bin/sh\nprintf %s "$CAMBIO_TOKEN" > got\nenv > environment\n')
(work / "deploy.sh").chmod(0o755)


def read(path):
    """A file with the broker's address in it, as its platform would have it."""
    return path.read_text().replace("https://cambio.example.com", broker.url)


def run(commands, shell=("sh", "-eu"), **variables):
    """The commands of a job, in one shell. Returns (exit code, what it said, whom the credential is about)."""
    for left in ("got", "environment"):
        (work / left).unlink(missing_ok=True)
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(work), "CI": "true"} | {name: str(value) for name, value in variables.items()}
    done = subprocess.run([*shell, "-c", "\n".join(commands)], cwd=work, env=env, capture_output=True, text=True, timeout=120)
    got = work / "got"
    token = got.read_text() if got.exists() else ""
    said = done.stdout + done.stderr
    return done.returncode, said, broker.got(token) if token else None, token and token in said


def judge(what, outcome, subject):
    code, said, about, shown = outcome
    tally.check(f"{what}: the job gets its credential", code == 0 and about == subject, (about, said))
    tally.check(f"{what}: and the log does not", not shown, said)


def hidden(what, *secrets):
    """What hands out tokens of the job did not reach the command that ran last."""
    environment = (work / "environment").read_text() if (work / "environment").exists() else None
    seen = [secret for secret in secrets if environment is None or secret in environment]
    tally.check(f"{what}: what hands out tokens is kept from the command", secrets and not seen, seen)


def refused(what, outcome, words):
    code, said, about, _ = outcome
    tally.check(f"{what}: refused, in words", code != 0 and about is None and words in said, said)


try:
    # Buildkite: `command` of each step, by `bash -e -c`.
    (step,) = yaml.safe_load(read(CI / "buildkite.pipeline.yml"))["steps"]
    buildkite = {"BUILDKITE": "true", "BUILDKITE_AGENT_ACCESS_TOKEN": "the-agents-own", "BUILDKITE_BRANCH": "main", **step["env"]}
    judge("Buildkite", run([step["command"]], ("bash", "-e"), **buildkite), "buildkite:pipeline_id:0184990a-0000-4000-8000-00000000000b")
    hidden("Buildkite", "the-agents-own")
    tally.check("Buildkite: the agent was asked for our audience, and for ids", "--claim" in agents.calls[-1] and broker.url in agents.calls[-1], agents.calls)

    # CircleCI: `run` of each step.
    config = yaml.safe_load(read(CI / "circleci.config.yml"))
    job = config["jobs"]["deploy"]
    (entry,) = config["workflows"]["main"]["jobs"]
    tally.check("CircleCI: the job has a context, else it has no token", entry["deploy"]["context"], entry)
    steps = [one["run"] for one in job["steps"] if isinstance(one, dict)]
    circleci = {"CIRCLECI": "true", "CIRCLE_OIDC_TOKEN": "never taken", **job["environment"]}
    judge("CircleCI", run(steps, ("bash", "-eo", "pipefail"), **circleci), "circleci:project_id:50d8c0a2-0000-4000-8000-000000000002")
    hidden("CircleCI", "never taken")

    # Bitbucket: the token's audience is the one that the step names; one alone comes as a list, too.
    (step,) = yaml.safe_load(read(CI / "bitbucket-pipelines.yml"))["pipelines"]["branches"]["main"]
    step = step["step"]
    bitbucket = {"BITBUCKET_BUILD_NUMBER": 1, "BITBUCKET_STEP_OIDC_TOKEN": broker.sign("bitbucket", step["oidc"]["audiences"])}
    judge("Bitbucket", run(step["script"], **bitbucket), "bitbucket:repositoryUuid:{aaaa1111-0000-4000-8000-000000000001}")
    hidden("Bitbucket", bitbucket["BITBUCKET_STEP_OIDC_TOKEN"])

    # Azure DevOps: `bash` of each step, `$(…)` replaced before, and an endpoint that wants the pipeline's token.
    def azure(handler, _):
        if handler.headers.get("authorization") != "Bearer pipeline-access" or "api-version=7.1" not in handler.path or handler.command != "POST":
            return 401, {"message": "no"}, {}
        return 200, {"oidcToken": broker.sign("azure_devops")}, {}

    endpoint = Server(azure)
    (step,) = yaml.safe_load(read(CI / "azure-pipelines.yml"))["steps"]
    env = {name: value.replace("$(System.AccessToken)", "pipeline-access") for name, value in step["env"].items()}
    uri = {"TF_BUILD": "True", "SYSTEM_OIDCREQUESTURI": f"{endpoint.url}/acme/_apis/distributedtask/hubs/build/plans/p/jobs/j/oidctoken"}
    judge("Azure DevOps", run([step["bash"]], ("bash", "-e"), **uri, **env),
          "azure-devops:org_id:0c0d1e2f-3a4b-4c5d-8e6f-708192a3b4c5:prj_id:aaaa1111-2222-4333-8444-555566667777:def_id:42")
    hidden("Azure DevOps", "pipeline-access", endpoint.url)
    env.pop("SYSTEM_ACCESSTOKEN")
    refused("Azure DevOps without the mapping", run([step["bash"]], ("bash", "-e"), **uri, **env), "SYSTEM_ACCESSTOKEN: $(System.AccessToken)")
    endpoint.end()

    # Forgejo: GitHub's endpoint, where the job has the key that Forgejo reads.
    job = yaml.safe_load(read(CI / "forgejo.deploy.yml"))["jobs"]["deploy"]
    platform = TokenEndpoint(lambda **claims: broker.sign("forgejo", **claims))
    forgejo = {"FORGEJO_ACTIONS": "true", "GITHUB_ACTIONS": "true", **job["env"]}
    commands = [one["run"] for one in job["steps"]]
    judge("Forgejo", run(commands, ("bash", "-e"), **forgejo, **(platform.variables() if job["enable-openid-connect"] is True else {})), "forgejo:repository:acme/site")
    hidden("Forgejo", platform.bearer, platform.url)
    refused("Forgejo without the key", run(commands, ("bash", "-e"), **forgejo), "enable-openid-connect: true")
    platform.end()

    # Semaphore: all commands of a job, in one shell.
    (block,) = yaml.safe_load(read(CI / "semaphore.yml"))["blocks"]
    task = block["task"]
    semaphore = {one["name"]: one["value"] for one in task["env_vars"]} | {"SEMAPHORE": "true", "SEMAPHORE_OIDC_TOKEN": broker.sign("semaphore")}
    judge("Semaphore", run(task["jobs"][0]["commands"], ("bash", "-e"), **semaphore), "semaphore:prj_id:93d1ba38-0000-4000-8000-000000000001")
    hidden("Semaphore", semaphore["SEMAPHORE_OIDC_TOKEN"])

    # Spacelift: hooks before the phase, then the phase, joined.
    stack = yaml.safe_load(read(CI / "spacelift.config.yml"))["stack_defaults"]
    spacelift = {"SPACELIFT_OIDC_TOKEN": broker.sign("spacelift"), **stack["environment"]}
    terraform = 'CAMBIO_TOKEN="$KUBE_TOKEN" ./deploy.sh'
    judge("Spacelift", run([" && ".join([*stack["before_apply"], terraform])], **spacelift), "spacelift:callerType:stack:callerId:site")
    stranger = spacelift | {"SPACELIFT_OIDC_TOKEN": broker.sign("spacelift", spaceId="another", callerId="another")}
    # The rest of the job is not run where there is no credential, however the lines are joined and whatever the shell goes on after.
    rds = re.search(r"```sh\n(out=.*?)```", (ROOT / "docs" / "targets" / "rds.md").read_text(), re.S)
    shells = re.search(r"```sh\n(out=.*?)```", (ROOT / "docs" / "client.md").read_text(), re.S)
    for what, commands in {
        "Spacelift": [" && ".join([*stack["before_apply"], "env > environment"])],
        "Spacelift, line by line": [*stack["before_apply"], "env > environment"],
        "docs/targets/rds.md": ["psql() { env > environment; }", *rds[1].replace("https://broker.example", broker.url).splitlines()],
        "docs/client.md": [*shells[1].splitlines(), "env > environment"],
    }.items():
        for shell in (("bash", "-e"), ("sh",)):
            code, said, _, _ = run(commands, shell, **stranger)
            tally.check(f"{what} in `{' '.join(shell)}`: a refusal ends the job", code != 0 and "refused" in said
                        and not (work / "environment").exists(), (code, said))
    open_ended = [f"{path.relative_to(ROOT)}: {line}" for folder in (ROOT / "docs", ROOT / "deploy") for path in folder.rglob("*") if path.is_file()
                  and path.suffix in (".md", ".yml", ".yaml", ".tf", ".sh") for line in path.read_text().splitlines()
                  if re.match(r"""[\s$-]*(\w+: )?["']?(eval ["']?(\$\(|`)|\w+=["']?\$\(cambio [^)]*\)["']? \w)""", line)]
    tally.check("no snippet goes on where a command inside `$(…)` fails", not open_ended, open_ended)

    # HCP Terraform: the provider runs the command of its `exec` block, without a shell, and reads an ExecCredential.
    # The parser keeps the quotes of HCL's strings.
    plain = lambda text: text.strip('"')  # noqa: E731
    provider = hcl2.loads(read(CI / "hcp-terraform.tf"))["provider"][0]
    block = next(iter(provider.values()))["exec"][0]
    hcp = {"TFC_RUN_ID": "run-1", "TFC_WORKLOAD_IDENTITY_TOKEN_CAMBIO": broker.sign("terraform"), "CAMBIO_URL": broker.url, "PATH": f"{tools}:/bin"}
    done = subprocess.run([plain(block["command"]), *map(plain, block["args"])], env=hcp, capture_output=True, text=True, timeout=60,
                          executable=str(tools / plain(block["command"])))
    answer = json.loads(done.stdout or "{}")
    tally.check("HCP Terraform: the provider gets an ExecCredential of the version that it asks for",
                answer.get("apiVersion") == plain(block["api_version"]) and broker.got(answer["status"]["token"]).endswith("ws-mbsd5E3Ktt5Rg2Xm"), done.stderr)

    # GitLab's component, included as its README says.
    spec, _, body = (GITLAB / "templates" / "cambio.yml").read_text().partition("\n---\n")
    declared = yaml.safe_load(spec)["spec"]["inputs"]
    blocks = re.findall(r"```yaml\n(.*?)```", (GITLAB / "README.md").read_text().replace("https://cambio.example.com", broker.url), re.S)
    included, own = (yaml.safe_load(text) for text in blocks)

    def matches(pattern, text):
        """As RE2 has it, where `$` is the end of the text and never a line feed before it."""
        return re.search(re.sub(r"\$$", r"\\Z", pattern), text) is not None

    def inputs_of(changed):
        (entry,) = included["include"]
        given = entry["inputs"] | changed
        assert set(given) <= set(declared), set(given) - set(declared)
        inputs = {name: given.get(name, one.get("default")) for name, one in declared.items()}
        missing = [name for name, value in inputs.items() if value is None]
        assert not missing, missing
        return inputs

    def wrong_in(**changed):
        """The inputs that GitLab refuses before there is a pipeline."""
        return [name for name, value in inputs_of(changed).items() if not matches(declared[name]["regex"], value)]

    def component(**changed):
        """The jobs of the component. Like GitLab, it replaces the inputs in the text of the file, before that is YAML."""
        inputs = inputs_of(changed)
        assert not wrong_in(**changed), wrong_in(**changed)
        return yaml.safe_load(re.sub(r"\$\[\[\s*inputs\.(\w+)\s*\]\]", lambda found: inputs[found[1]], body))

    def gitlab(job, over=None, **claims):
        """Runs a job's scripts with GitLab's variables; `over`: those that outrank the job's own."""
        tokens = {name: broker.sign("gitlab", one["aud"], **claims) for name, one in job["id_tokens"].items()}
        variables = {name: one["value"] if isinstance(one, dict) else one for name, one in job.get("variables", {}).items()}
        return run([*job.get("before_script", []), *job["script"], *job.get("after_script", [])], ("sh", "-e"),
                   **({"GITLAB_CI": "true"} | variables | tokens | (over or {})))

    jobs = component()
    tally.check("GitLab: the README's inputs are those of the component", not wrong_in() and set(jobs) == {"deploy"} and jobs["deploy"]["image"], jobs)
    judge("GitLab's component", gitlab(jobs["deploy"]), "gitlab:project_id:20")
    judge("GitLab's component with a lifetime", gitlab(component(lifetime="2m")["deploy"]), "gitlab:project_id:20")
    judge("GitLab's component without a scope", gitlab(component(scope="")["deploy"]), "gitlab:project_id:20")
    telling = component(command='./deploy.sh; echo "${CAMBIO_ID_TOKEN-hidden}" > seen')
    judge("GitLab's component, hiding", gitlab(telling["deploy"]), "gitlab:project_id:20")
    tally.check("the command does not see the job's own token", (work / "seen").read_text() == "hidden\n")

    # Variables of a pipeline, a trigger, a schedule or a dotenv report outrank the job's own.
    stranger = Server(lambda handler, body: (200, {"value": broker.sign("gitlab")}, {}))
    overriding = {name: "echo PWN $CAMBIO_TOKEN > broken" if "COMMAND" in name else stranger.url for name in {
        "CAMBIO_URL", "CAMBIO_BROKER", *re.findall(r"CAMBIO_JOB_\w+", (GITLAB / "templates" / "cambio.yml").read_text()),
        "CAMBIO_JOB_TARGET", "CAMBIO_JOB_SCOPE", "CAMBIO_JOB_LIFETIME", "CAMBIO_JOB_COMMAND", "CAMBIO_CA_FILE", "CAMBIO_PROXY",
    }} | {"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_URL": f"{stranger.url}/?a=b", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x",
          "https_proxy": stranger.url, "HTTPS_PROXY": stranger.url, "http_proxy": stranger.url, "ALL_PROXY": stranger.url}
    for what, job in (("GitLab's component", jobs["deploy"]), ("a job without the component", own["deploy"])):
        stranger.asked.clear()
        judge(f"{what}, where overriding variables change nothing", gitlab(job, overriding), "gitlab:project_id:20")
        tally.check(f"{what}: and a stranger's broker is told nothing", not stranger.asked and not (work / "broken").exists(), stranger.asked)
        tally.check(f"{what}: no input and no secret is a variable of the job", "variables" not in job, job)
        tally.check(f"{what}: no report of an earlier job reaches it", job.get("dependencies") == [], job)
    stranger.end()
    tally.check("the README names the setting that keeps such variables away",
                "ci_pipeline_variables_minimum_override_role=no_one_allowed" in (GITLAB / "README.md").read_text())
    for target, server in databases.items():
        command = f'{server["client"]} -XAtqc "SELECT session_user" > user'
        job = component(audience=target, scope="reader", command=command)["deploy"]
        code, said, _, _ = gitlab(job, {"PGSSLROOTCERT": server["ca_file"]})
        user = (work / "user").read_text().strip()
        tally.check(f"GitLab's component: psql logs in to {target} as a user of this job", code == 0 and user.startswith("cambio_"), said)
        tally.check("which is gone when the job is done", user not in db.logins(server), said)
    if not databases:
        print("skipped: GitLab's component at PostgreSQL: CAMBIO_SERVICES is not set")
    judge("a job without the component", gitlab(own["deploy"]), "gitlab:project_id:20")
    # Each of these would end a quoted text, add a line or an option, or be expanded by GitLab.
    for name in declared:
        good = inputs_of({})[name] or ("reader" if name == "scope" else "2m")
        bad = [f"{good}'; touch broken; echo '", f"{good}\ntouch broken", f"{good}\n", "\n"]
        if name != "command":
            bad += [f"{good}$CI_EVIL", f'{good}"', f"{good}`id`", "--proxy=http://x", f"{good}\\", f"{good}#{{x}}", f"{good}!"]
        let_through = [one for one in bad if name not in wrong_in(**{name: one})]
        tally.check(f"GitLab: input `{name}` takes nothing that leaves its place", not let_through, let_through)
    for wrong in ("http://cambio.example.com", "https://cambio.example.com@evil.example", "https://cambio.example.com?x", "http://localhost.evil.example"):
        tally.check(f"broker `{wrong}` is refused before there is a pipeline", wrong_in(broker=wrong) == ["broker"], wrong)
    tally.check("and a command, which may hold all else, is what the file says", wrong_in(command='a "b" $c `d` \\ # : {e} [f] & | > %') == [])
    odd = component(command='printf "%s" "x: {y} # z" > broken; ./deploy.sh')
    judge("a command with all that YAML reads", gitlab(odd["deploy"]), "gitlab:project_id:20")
    tally.check("and it is not changed", (work / "broken").read_text() == "x: {y} # z")
    (work / "broken").unlink()
    refused("GitLab on a branch that is not protected", gitlab(jobs["deploy"], ref_protected="false"), "cambio policy explain ex_")
    code, said, _, _ = gitlab(component(command="exit 7")["deploy"])
    tally.check("a command that fails fails the job, with its own code", code == 7, (code, said))
    code, said, _, _ = gitlab(component(command="false; true")["deploy"])
    tally.check("and so does the first of its lines that fails", code == 1, (code, said))

    careless = [path.name for folder in (CI, GITLAB) for path in folder.rglob("*.yml")
                for line in re.findall(r"cambio exec [^\n]*", path.read_text()) if "--hide-platform" not in line]
    tally.check("every `cambio exec` hides the platform", not careless, careless)
    tally.check("every file is in the table of the README, and each was run", sorted(
        path.name for path in CI.iterdir() if path.name != "README.md") == sorted(re.findall(r"\]\(([\w.-]+\.(?:yml|tf))\)", (CI / "README.md").read_text())))
finally:
    broker.stop()
    agents.end()
tally.end()
