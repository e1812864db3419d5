"""`cambio agent` beside unmodified SDKs: boto3 takes its sessions from it, google-auth its tokens, everything else reads files."""

import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import jwt
import requests

from aws_stage import ACCOUNT, Stage as AwsStage
from standins import clouds as cloud
from standins.stage import Stage as CloudStage
from support import CAMBIO, Tally, free_ports

BOTO = """
import boto3, json, sys
session = boto3.Session()
found = session.get_credentials().get_frozen_credentials()
used = boto3.client("sts", endpoint_url=sys.argv[1], verify=sys.argv[2]).get_caller_identity()
print(json.dumps({"key": found.access_key, "secret": found.secret_key, "token": found.token, "arn": used["Arn"]}))
"""
GOOGLE = """
import google.auth, json, sys
from google.auth.transport.requests import AuthorizedSession, Request
credentials, project = google.auth.default()
credentials.refresh(Request())
told = {"kind": type(credentials).__module__, "project": project, "email": credentials.service_account_email, "token": credentials.token}
if len(sys.argv) > 1:
    told["used"] = AuthorizedSession(credentials).get(sys.argv[1], verify=sys.argv[2], timeout=10).json()
print(json.dumps(told))
"""
LIFETIME = 4

tally = Tally()


class Agent:
    """`cambio agent` with its file in a folder of its own."""

    def __init__(self, home, name, text):
        self.home = home / name
        self.home.mkdir(mode=0o700)
        self.config = self.home / "agent.yaml"
        self.config.write_text(text)
        self.log = self.home / "agent.log"

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([CAMBIO, "agent", "--config", self.config], stdout=log, stderr=log)
        (self.home.parent.parent / f"agent-{self.process.pid}.pid").write_text(str(self.process.pid))

    def once(self):
        return subprocess.run(
            [CAMBIO, "agent", "--once", "--deadline", "10s", "--config", self.config], capture_output=True, text=True, timeout=60
        )

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(40)

    def said(self, words):
        return self.log.read_text().count(words)


def until(holds, seconds=15.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


def run(program, *arguments, **environment):
    base = {"PATH": os.environ["PATH"], "AWS_DEFAULT_REGION": "eu-central-1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=base | environment, capture_output=True, text=True, timeout=120
    )
    return (json.loads(done.stdout) if done.returncode == 0 else {}), done.stderr


def as_nobody(port):
    """What a program of another user is answered; needs to be root to become one."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        with socket.create_connection(("127.0.0.1", port)) as one:
            path = "/computeMetadata/v1/instance/service-accounts/default/token"
            one.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nmetadata-flavor: Google\r\nconnection: close\r\n\r\n".encode())
            os.write(write, one.recv(4096))
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        return pipe.read().decode()


def aws_and_files(stage):
    aws, short, health = free_ports(3)
    folder = stage.folder
    hook = folder / "hook"
    hook.write_text(f'#!/bin/sh\necho "$CAMBIO_CREDENTIAL ${{HOLDS_A_SECRET-clean}}" >> {folder}/changes\n')
    hook.chmod(0o700)
    os.environ["HOLDS_A_SECRET"] = "hush"
    stage.file("agent-token")
    agent = Agent(folder, "agent", f"""\
version: 1
broker: {stage.broker.url}
token: {{ file: {folder}/agent-token }}
credentials:
  - name: deploy
    audience: aws/test
    endpoint: {{ kind: aws }}
    files: [{{ path: env, format: env }}]
  - name: orders
    audience: jwt/orders
    lifetime: {LIFETIME}s
    files:
      - {{ path: orders.jwt, format: token }}
      - {{ path: orders.env, format: env, readers: group, variable: ORDERS_TOKEN }}
    endpoint: {{ kind: google, address: "127.0.0.1:{short}", service_account: orders@acme.iam.gserviceaccount.com }}
    on_change: {{ command: [{hook}] }}
listen:
  aws: {{ address: "127.0.0.1:{aws}", token_file: authorization }}
  operations: 127.0.0.1:{health}
log: {{ level: debug }}
""")
    del os.environ["HOLDS_A_SECRET"]
    once = agent.once()
    tally.check("`--once` writes every file and exits", once.returncode == 0 and (agent.home / "orders.jwt").exists(), once.stderr)
    tally.check("and makes no endpoint", not (agent.home / "authorization").exists())
    (agent.home / "orders.jwt").unlink()
    os.environ["HOLDS_A_SECRET"] = "hush"
    agent.start()
    del os.environ["HOLDS_A_SECRET"]
    operations = f"http://127.0.0.1:{health}"

    def get(path):
        try:
            return requests.get(f"{operations}{path}", timeout=2)
        except requests.ConnectionError:
            return requests.Response()

    tally.check("the agent is ready", until(lambda: get("/readyz").status_code == 200), agent.log.read_text())

    where = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{aws}/v1/credentials/deploy",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(agent.home / "authorization"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    told, err = run(BOTO, stage.aws, stage.ca, **where)
    tally.check("boto3 gets a session with two variables", told.get("key", "").startswith("ASIA"), err)
    arn = told.get("arn", "")
    tally.check("and AWS takes it", arn.startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/worker/"), arn)
    (agent.home / "wrong").write_text("x" * 43)
    none, err = run(BOTO, stage.aws, stage.ca, **where | {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(agent.home / "wrong")})
    tally.check("with another token it gets none, and says why", not none and "is not the token of this endpoint" in err, err)
    modes = {name: stat.S_IMODE((agent.home / name).stat().st_mode) for name in ("authorization", "orders.jwt", "orders.env")}
    tally.check("files are private", modes == {"authorization": 0o600, "orders.jwt": 0o600, "orders.env": 0o640}, modes)

    # Ten lifetimes, looked at ten times a second, in the file and at the endpoint.
    path = agent.home / "orders.jwt"
    seen, stale = set(), []
    end = time.time() + 10 * LIFETIME
    while time.time() < end:
        token = path.read_text()
        claims = jwt.decode(token.strip(), options={"verify_signature": False})
        seen.add(claims["jti"])
        if claims["exp"] <= time.time():
            stale.append(("file", claims["exp"] - time.time()))
        answer = requests.get(
            f"http://127.0.0.1:{short}/computeMetadata/v1/instance/service-accounts/default/token",
            headers={"Metadata-Flavor": "Google"}, timeout=2,
        )
        if answer.status_code != 200 or answer.json()["expires_in"] < 0:
            stale.append(("endpoint", answer.status_code))
        time.sleep(0.1)
    tally.check("over ten lifetimes no reader meets an expired credential", not stale, stale[:3])
    tally.check("because it was renewed ahead of each end", 10 <= len(seen) <= 30, len(seen))
    changes = (folder / "changes").read_text().splitlines()
    news = agent.said("credential `orders` is new")
    tally.check("the command ran after each change", len(changes) >= 10 and abs(news - len(changes)) <= 1, (len(changes), news))
    tally.check("with the credential's name, and nothing of the agent's environment", set(changes) == {"orders clean"}, set(changes))
    left = sorted(one.name for one in agent.home.iterdir())
    tally.check("nothing lies beside the files", left == ["agent.log", "agent.yaml", "authorization", "env", "orders.env", "orders.jwt", "wrong"], left)
    metrics = get("/metrics").text
    tally.check("metrics tell the time that is left", 'cambio_agent_credential_expiry_seconds{credential="deploy"} 1' in metrics, metrics)

    where = {"GCE_METADATA_HOST": f"127.0.0.1:{short}", "GCE_METADATA_IP": f"127.0.0.1:{short}", "HOME": str(folder)}
    told, err = run(GOOGLE, **where)
    tally.check("google-auth takes what the endpoint has", told.get("token", "").startswith("eyJ"), err)
    if os.geteuid() == 0:
        answer = as_nobody(short)
        tally.check("a program of another user gets none", answer.startswith("HTTP/1.1 403") and "eyJ" not in answer, answer)

    # The broker dies.
    renewals = agent.said("is new, until")
    before = path.read_text()
    ends = jwt.decode(before.strip(), options={"verify_signature": False})["exp"]
    stage.broker.kill()
    served = until(lambda: not path.exists(), 2 * LIFETIME)
    tally.check("with the broker gone the last good one stays to its true end, and no longer", served and -1.5 < time.time() - ends - (LIFETIME if agent.said("is new, until") > renewals else 0) < 2.5, time.time() - ends)
    ready = get("/readyz")
    states = {one["name"]: one["ok"] for one in ready.json()["credentials"]}
    tally.check("then the agent is not ready, and says which", ready.status_code == 503 and states == {"deploy": True, "orders": False}, ready.text)
    tally.check("but it lives", get("/livez").status_code == 200)
    told, err = run(GOOGLE, **where)
    tally.check("google-auth is told that it ended", not told and "credential `orders` ended" in err, err[-600:])
    reason = until(lambda: (get("/readyz").json()["credentials"][1]["trouble"] or {}).get("reason", "").startswith("no answer from"), 40)
    tally.check("and the reason is told", reason, get("/readyz").text)
    time.sleep(3)
    tally.check("once in the log", agent.said("could not be had") == 1, agent.said("could not be had"))
    stage.broker.start(30)
    tally.check("the broker is back, and so is the credential", until(lambda: path.exists(), 90), agent.log.read_text()[-1500:])
    tally.check("which is said once", until(lambda: agent.said("is renewed again") == 1))
    tally.check("and the agent is ready again", until(lambda: get("/readyz").status_code == 200))

    before = agent.said("credential `deploy` is new")
    agent.process.send_signal(signal.SIGHUP)
    tally.check("SIGHUP renews what is not due", until(lambda: agent.said("credential `deploy` is new") > before), agent.log.read_text()[-1500:])

    secrets = ["eyJ", told.get("secret") or "eyJ", (agent.home / "authorization").read_text(), "hush"]
    line = pathlib.Path(f"/proc/{agent.process.pid}/cmdline").read_text()
    text = agent.log.read_text()
    tally.check("nothing secret is in its log or its arguments", not any(one in text + line for one in secrets))
    tally.check("SIGTERM ends it in order", agent.end() == 0, agent.log.read_text()[-800:])
    left = sorted(one.name for one in agent.home.iterdir())
    tally.check("and every file that it wrote is gone", left == ["agent.log", "agent.yaml", "wrong"], left)


def google_and_leases(stage):
    port, health = free_ports(2)
    broker = stage.broker
    token_file = broker.folder / "agent-token"

    def fresh():
        while not over.wait(0.5):
            # As the kubelet does: another file takes its place.
            new = token_file.with_suffix(".new")
            new.write_text(broker.issuer.token() + "\n")
            new.rename(token_file)

    over = threading.Event()
    token_file.write_text(broker.issuer.token())
    writer = threading.Thread(target=fresh)
    writer.start()
    agent = Agent(broker.folder, "agent", f"""\
version: 1
broker: {broker.url}
token: {{ file: {token_file} }}
credentials:
  - name: storage
    audience: google/prod
    scope: deploy
    endpoint:
      kind: google
      address: 127.0.0.1:{port}
      service_account: {cloud.ACCOUNT}
      project: acme-prod
  - name: release
    audience: github/acme
    scope: release
    files: [{{ path: github, format: token }}]
listen: {{ operations: "127.0.0.1:{health}" }}
""")
    try:
        agent.start()
        ready = until(lambda: (agent.home / "github").exists() and agent.said("`storage` is new"))
        tally.check("the agent has both", ready, agent.log.read_text())
        where = {"GCE_METADATA_HOST": f"127.0.0.1:{port}", "GCE_METADATA_IP": f"127.0.0.1:{port}", "HOME": str(broker.folder)}
        told, err = run(GOOGLE, f"{stage.clouds.url}/storage/v1/b/acme", str(stage.clouds.ca), **where)
        tally.check("google-auth finds a metadata server by itself", told.get("kind") == "google.auth.compute_engine.credentials", err)
        tally.check("with account and project", (told.get("email"), told.get("project")) == (cloud.ACCOUNT, "acme-prod"), told)
        tally.check("and Google takes the token", told.get("used", {}).get("as") == cloud.ACCOUNT, told.get("used"))

        def leases():
            listed = broker.cli("leases", "list", "--config", str(broker.folder / "cambio.yaml"), "--json")
            return json.loads(listed.stdout)["leases"]

        alive = [one for one in leases() if one["state"] == "active"]
        tally.check("a lease is alive", len(alive) == 1, leases())
        tally.check("the agent ends", agent.end() == 0, agent.log.read_text()[-800:])
        alive = [one for one in leases() if one["state"] == "active"]
        tally.check("and its lease with it", not alive, alive)
        tally.check("nothing secret is in its log", not any(one in agent.log.read_text() for one in ("eyJ", "ya29", "ghs_")))
    finally:
        over.set()
        writer.join()


stage = AwsStage()
try:
    aws_and_files(stage)
finally:
    stage.stop()
stage = CloudStage()
try:
    google_and_leases(stage)
finally:
    stage.end()
tally.end()
