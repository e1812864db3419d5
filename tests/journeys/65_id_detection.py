"""PyPI's `id`, the detector that other tools use, finds our issuers as GitHub, GitLab, Buildkite and CircleCI; what it finds is
exchanged."""

import json
import os
import pathlib
import re
import subprocess
import urllib.request

import id as detector
import requests
from platforms import Agents, PlatformBroker
from support import CAMBIO, EXCHANGE, JWT, Tally

tally = Tally()


def detected(audience, **variables):
    """What `id` finds in a job that has these variables and no others."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update({"PATH": before["PATH"], **variables})
    try:
        return detector.detect_credential(audience)
    except detector.AmbientCredentialError as error:
        return f"error: {error}"
    finally:
        os.environ.clear()
        os.environ.update(before)


def exchange(url, token, audience):
    form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": JWT, "audience": audience}
    return requests.post(f"{url}/token", data=form, timeout=10)


# The sandbox issuer of `cambio dev` speaks like GitHub and GitLab.
dev = subprocess.Popen([CAMBIO, "dev", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
pathlib.Path(os.environ.get("CAMBIO_TEST_WORK", "/tmp"), "dev-id.pid").write_text(str(dev.pid))
try:
    told = json.loads(dev.stdout.readline())
    broker = told["broker"].rstrip("/")
    again = {visit["platform"]: visit["again"] for visit in told["visits"][:2]}
    bearer = re.search(r"bearer (\w+)", again["github"])[1]
    # What the runner of a job for production would have in these variables: all but the audience, which `id` appends.
    place = re.search(r"'(http[^']+)'", again["github"])[1].replace("audience=cambio-dev&", "")
    github = {"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_URL": place, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": bearer}
    token = detected("cambio-dev", **github)
    tally.check("`id` finds the sandbox as GitHub Actions", token.count(".") == 2, token)
    answer = exchange(broker, token, "jwt/orders")
    tally.check("and its token is exchanged", answer.status_code == 200, answer.text)
    lacking = {name: value for name, value in github.items() if name != "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
    tally.check("without the permission `id` says so", "permissions" in detected("cambio-dev", **lacking))
    other = exchange(broker, detected("somebody-else", **github), "jwt/orders")
    tally.check("a token that it finds for somebody else is refused", other.status_code == 400, other.text)

    # A GitLab job has its token in a variable before it begins.
    with urllib.request.urlopen(re.search(r"'(http[^']+)'", again["gitlab"])[1], timeout=10) as answer:
        variable = {"CAMBIO_DEV_ID_TOKEN": answer.read().decode().strip()}
    token = detected("cambio-dev", GITLAB_CI="true", **variable)
    tally.check("`id` finds the sandbox as GitLab CI", token == variable["CAMBIO_DEV_ID_TOKEN"], token)
    answer = exchange(broker, token, "jwt/orders")
    tally.check("and its token is exchanged", answer.status_code == 200, answer.text)
finally:
    dev.terminate()
    dev.wait(20)

# Buildkite and CircleCI hand tokens out by commands: shims of these, with our issuer behind.
broker = PlatformBroker(("buildkite", "circleci"), issuers={"circleci": "https://oidc.circleci.com"})
broker.start()
tools = broker.folder / "tools"
tools.mkdir()
agents = Agents(broker, tools)
os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
try:
    # `id` asks for no claims: the job does, by the agent's variable.
    token = detected(broker.url, BUILDKITE="true", BUILDKITE_OIDC_TOKEN_CLAIMS="organization_id,pipeline_id")
    tally.check("`id` finds the issuer as Buildkite", agents.calls[-1] == ["buildkite-agent", "oidc", "request-token", "--audience", broker.url], agents.calls)
    answer = exchange(broker.url, token, "jwt/orders")
    tally.check("and its token is exchanged", answer.status_code == 200 and broker.got(answer.json()["access_token"]).startswith("buildkite:pipeline_id:"), answer.text)
    answer = exchange(broker.url, detected(broker.url, BUILDKITE="true"), "jwt/orders")
    tally.check("a token without ids is refused", answer.status_code == 400, answer.text)

    token = detected(broker.url, CIRCLECI="true")
    tally.check("`id` finds the issuer as CircleCI, and asks for the root issuer", agents.calls[-1][0] == "circleci" and "--root-issuer" in agents.calls[-1], agents.calls)
    answer = exchange(broker.url, token, "jwt/orders")
    tally.check("and its token is exchanged", answer.status_code == 200 and broker.got(answer.json()["access_token"]).startswith("circleci:project_id:"), answer.text)
finally:
    broker.stop()
    agents.end()
tally.end()
