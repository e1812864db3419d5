"""What the journeys share: a broker of their own, an issuer of their own, both thrown away at the end."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import uuid

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric import rsa

ROOT = pathlib.Path(__file__).resolve().parents[2]
CAMBIO = os.environ.get("CAMBIO_BIN", str(ROOT / "target" / "release" / "cambio"))
AUDIENCE = "https://cambio.test"
ISSUER = "https://issuer.test/github"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"


class Issuer:
    """Signs GitHub-shaped tokens with a key made now; the broker has its public half pinned."""

    def __init__(self):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        public.pop("key_ops", None)
        self.jwks = {"keys": [public | {"kid": "journey", "alg": "RS256", "use": "sig"}]}

    def token(self, **claims):
        now = int(time.time())
        base = {
            "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 300, "jti": str(uuid.uuid4()),
            "sub": "repo:acme/site:environment:production", "repository": "acme/site", "repository_id": "1296269",
            "repository_owner": "acme", "repository_owner_id": "9919", "ref": "refs/heads/main",
            "event_name": "push", "environment": "production", "run_id": "4711",
        }
        return jwt.encode(base | claims, self.key, algorithm="RS256", headers={"kid": "journey"})


CONFIG = """\
version: 1
environment: test
issuer: {url}
data: state
issuers:
  - name: github
    provider: github
    issuer: {issuer}
    audience: {audience}
    keys: {{ pinned: {{ file: issuer.json }} }}
targets:
  - name: jwt/orders
    kind: jwt
    audience: https://orders.test
    environment: test
    roles: {{ reader: {{ scope: [orders.read] }} }}
    granted_by: [site.yaml]
    ceiling: 1h
{targets}policies: {{ directory: policies }}
store: {{ sqlite: {{ path: state/cambio.db }} }}
ledger:
  origin: cambio.test/journey
  anchors: [{{ file: anchor/cambio.note }}]
keys: {{ key_file: kek }}
listen: {{ public: "127.0.0.1:{port}", operations: "127.0.0.1:{operations}", admin_socket: state/admin.sock }}
tls: none
limits:
  per_address: {{ per_second: 100000, burst: 100000 }}
  per_subject: {{ per_second: 100000, burst: 100000 }}
log: {{ format: json, level: info }}
"""

POLICY = """\
version: 1
rules:
  - id: site
    issuer: github
    when: { repository_id: "1296269", repository_owner_id: "9919", environment: production, event_name: push }
    grants: [{ target: jwt/orders, role: reader, lifetime: 15m }]
    replay: once
"""


def free_ports(count):
    import socket

    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Broker:
    """`cambio serve` on free loopback ports, in a folder of its own."""

    def __init__(self, policy=POLICY, targets=""):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="broker-", dir=os.environ.get("CAMBIO_TEST_WORK")))
        self.port, self.operations_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.operations = f"http://127.0.0.1:{self.operations_port}"
        self.issuer = Issuer()
        for name in ("state", "policies", "anchor"):
            (self.folder / name).mkdir(mode=0o700)
        (self.folder / "issuer.json").write_text(json.dumps(self.issuer.jwks))
        (self.folder / "policies" / "site.yaml").write_text(policy)
        kek = self.folder / "kek"
        kek.touch(mode=0o600)
        import base64

        kek.write_text(base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="))
        (self.folder / "cambio.yaml").write_text(
            CONFIG.format(
                url="https://cambio.test", issuer=ISSUER, audience=AUDIENCE, port=self.port,
                operations=self.operations_port, targets=targets,
            )
        )
        self.process = None
        self.created = False

    def start(self, deadline=15.0, prefix=(), binary=None):
        """Starts the broker, behind `prefix`, and waits until it says that it is ready. Returns the seconds that took."""
        command = [*prefix, str(binary or CAMBIO), "serve", "--config", str(self.folder / "cambio.yaml")]
        if not self.created:
            command.append("--create")
            self.created = True
        began = time.monotonic()
        self.log = open(self.folder / "broker.log", "ab")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        (self.folder.parent / f"{self.folder.name}.pid").write_text(str(self.process.pid))
        while time.monotonic() - began < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"the broker ended with {self.process.returncode}:\n{self.tail()}")
            try:
                if requests.get(f"{self.operations}/readyz", timeout=1).status_code == 200:
                    return time.monotonic() - began
            except requests.ConnectionError:
                pass
            time.sleep(0.02)
        raise SystemExit(f"the broker was not ready in {deadline} s:\n{self.tail()}")

    def tail(self):
        return "\n".join((self.folder / "broker.log").read_text(errors="replace").splitlines()[-15:])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise SystemExit("the broker did not end 20 s after SIGTERM")
        return self.process.returncode if self.process else None

    def exchange(self, token, session=requests, **more):
        form = {
            "grant_type": EXCHANGE, "subject_token": token, "subject_token_type": JWT,
            "audience": "https://orders.test",
        }
        return session.post(f"{self.url}/token", data=form | more, timeout=10)

    def cli(self, *arguments, check=True):
        done = subprocess.run([CAMBIO, *arguments], capture_output=True, text=True, timeout=300)
        if check and done.returncode != 0:
            raise SystemExit(f"cambio {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


def servers(*names):
    """What `tests/services/up` tells of the named real servers; a journey that can't have them says so and ends as skipped."""
    path = os.environ.get("CAMBIO_SERVICES")
    found = json.loads(pathlib.Path(path).read_text()) if path else {"services": {}, "missing": {}}
    for name in names:
        if name not in found["services"]:
            reason = found["missing"].get(name, "it was not asked for") if path else "CAMBIO_SERVICES is not set"
            print(f"skipped: {name}: {reason}\n0 passed, 0 failed, 1 skipped")
            sys.exit(0)
    return found


class Tally:
    """Counts what a journey saw, and ends it with the line that `tests/run` reads."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, sentence, holds, found=""):
        if holds:
            self.passed += 1
            print(f"ok      {sentence}")
        else:
            self.failed += 1
            print(f"FAILED  {sentence} {found}")

    def skip(self, reason):
        self.skipped += 1
        print(f"skipped: {reason}")

    def end(self):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{self.passed} passed, {self.failed} failed{skipped}")
        sys.exit(1 if self.failed or not self.passed else 0)
