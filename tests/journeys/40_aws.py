"""Unmodified AWS SDKs get their sessions through the front, and use them against moto.

`40_aws.py --stage` only sets up what the other journeys of AWS SDKs need, tells it as one line of JSON, and stays until its
standard input ends.
"""

import datetime
import ipaddress
import json
import os
import pathlib
import subprocess
import sys
import time

import jwt
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support import AUDIENCE, EXCHANGE, JWT, Broker, Issuer, Tally, free_ports

CLUSTER = "https://cluster.test"
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/worker"
OWN = f"arn:aws:iam::{ACCOUNT}:role/own"

ISSUERS = f"""\
  - name: cluster
    provider: kubernetes
    issuer: {CLUSTER}
    audience: {AUDIENCE}
    keys: {{ pinned: {{ file: issuer.json }} }}
  - name: away
    provider: kubernetes
    issuer: https://away.invalid
    audience: {AUDIENCE}
targets:
  - name: aws/test
    kind: aws
    region: eu-central-1
    endpoint: https://localhost:PORT/
    ca_file: ca.pem
    environment: test
    granted_by: [site.yaml]
    roles:
      worker:
        role_arn: {ROLE}
        tags: {{ namespace: namespace, rule: cambio.rule }}
        source_identity: service_account
        session_name: [namespace, service_account, cambio.rule]
  - name: aws/own
    kind: aws
    region: eu-central-1
    endpoint: https://localhost:PORT/
    ca_file: ca.pem
    identity: ambient
    environment: test
    granted_by: [site.yaml]
    roles:
      own: {{ role_arn: '{OWN}', external_id: journey, tags: {{ namespace: namespace }}, source_identity: service_account }}
"""
RULES = """\
  - id: worker
    issuer: cluster
    when: { namespace: shop, service_account: worker }
    grants:
      - { target: aws/test, role: worker, lifetime: 20m }
      - { target: aws/own, role: own, lifetime: 20m }
      - { target: jwt/orders, role: reader, lifetime: 5m }
"""


def certificates(folder):
    """A CA made now, and a certificate of it for this machine."""
    now = datetime.datetime.now(datetime.UTC)

    def build(name, key, issuer, signer, extensions):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256())

    def pem(path, *parts):
        (folder / path).write_bytes(b"".join(parts))

    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = build("journey CA", authority, None, authority, [(x509.BasicConstraints(ca=True, path_length=0), True)])
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    leaf = build("localhost", server, root.subject, authority, [(names, False)])
    pem("ca.pem", root.public_bytes(serialization.Encoding.PEM))
    pem("server.pem", leaf.public_bytes(serialization.Encoding.PEM))
    pem(
        "server.key",
        server.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


class Stage:
    """A broker, moto as AWS, and the tokens of pods in files, as the kubelet writes them."""

    def __init__(self):
        self.broker = Broker()
        self.folder = self.broker.folder
        certificates(self.folder)
        (port,) = free_ports(1)
        self.aws = f"https://localhost:{port}"
        self.ca = str(self.folder / "ca.pem")
        moto = pathlib.Path(sys.executable).with_name("moto_server")
        key = ["--ssl-cert", str(self.folder / "server.pem"), "--ssl-key", str(self.folder / "server.key")]
        self.moto = subprocess.Popen(
            [moto, "-H", "127.0.0.1", "-p", str(port), "-s", *key],
            stdout=subprocess.DEVNULL, stderr=open(self.folder / "moto.log", "wb"),
        )
        (self.folder.parent / f"{self.folder.name}-moto.pid").write_text(str(self.moto.pid))
        config = self.folder / "cambio.yaml"
        text = config.read_text().replace("targets:\n", ISSUERS.replace("PORT", str(port)), 1)
        config.write_text(text)
        policy = self.folder / "policies" / "site.yaml"
        policy.write_text(policy.read_text() + RULES)
        self.await_moto()
        # The broker's own identity, for the target that has no other: as a user of AWS would have it.
        own = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "journey"}
        os.environ.update(own)
        self.broker.start(30)
        for name in own:
            del os.environ[name]

    def await_moto(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                return requests.get(f"{self.aws}/moto-api/", verify=self.ca, timeout=2)
            except requests.RequestException:
                time.sleep(0.2)
        raise SystemExit("moto did not start in 60 s")

    def token(self, namespace="shop", account="worker", issuer=CLUSTER, age=0):
        now = int(time.time()) - age
        claims = {
            "iss": issuer, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 600, "jti": os.urandom(8).hex(),
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": "node-1", "uid": "5b2f9a30-2d0c-4a7b-8f2e-1c9d0e7a6b51"},
                "pod": {"name": "pod-7d", "uid": "9d0e7a6b-51c9-4d0e-9a6b-511c9d0e7a6b"},
                "serviceaccount": {"name": account, "uid": "3f2b8c1e-55d4-4a0e-9f57-7e1c0d9a6b42"},
            },
        }
        return jwt.encode(claims, self.broker.issuer.key, algorithm="RS256", headers={"kid": "journey"})

    def file(self, name, **claims):
        path = self.folder / name
        path.write_text(self.token(**claims) + "\n")
        return str(path)

    def surroundings(self, token_file, role=ROLE):
        """All that an SDK is told: four variables."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "AWS_WEB_IDENTITY_TOKEN_FILE": token_file,
            "AWS_ROLE_ARN": role,
            "AWS_ENDPOINT_URL_STS": f"{self.broker.url}/aws",
            "AWS_DEFAULT_REGION": "eu-central-1",
        }

    def run(self, command, token_file, role=ROLE, **more):
        done = subprocess.run(
            command, env=self.surroundings(token_file, role) | more, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    def exchange(self, audience, **claims):
        form = {
            "grant_type": EXCHANGE, "subject_token": self.token(**claims), "subject_token_type": JWT,
            "audience": audience,
        }
        return requests.post(f"{self.broker.url}/token", data=form, timeout=30)

    def stop(self):
        self.moto.terminate()
        self.moto.wait(20)
        self.broker.stop()


BOTO = """
import boto3, json, sys
session = boto3.Session()
found = session.get_credentials().get_frozen_credentials()
used = boto3.client("sts", endpoint_url=sys.argv[1], verify=sys.argv[2]).get_caller_identity()
print(json.dumps({"key": found.access_key, "arn": used["Arn"]}))
"""
REFUSED = """
import boto3, botocore, json, os, sys
from botocore.config import Config
sts = boto3.client("sts", config=Config(signature_version=botocore.UNSIGNED))
token = open(os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"]).read()
more = json.loads(sys.argv[1])
try:
    sts.assume_role_with_web_identity(
        **{"RoleArn": os.environ["AWS_ROLE_ARN"], "RoleSessionName": "journey", "WebIdentityToken": token} | more)
    print("nothing")
except botocore.exceptions.ClientError as error:
    said = error.response
    print(json.dumps([type(error).__name__, said["Error"]["Code"], said["ResponseMetadata"]["HTTPStatusCode"],
                      said["ResponseMetadata"].get("RetryAttempts"), said["ResponseMetadata"]["RequestId"]]))
"""


def sessions(stage, tally):
    good = stage.file("token")
    python = sys.executable
    code, out, err = stage.run([python, "-c", BOTO, stage.aws, stage.ca], good)
    told = json.loads(out) if code == 0 else {}
    tally.check("boto3 gets a session with four variables alone", told.get("key", "").startswith("ASIA"), err)
    arn = told.get("arn", "")
    tally.check(
        "and AWS sees namespace, account and rule in its name",
        arn.startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/worker/shop-worker-site-worker-"), arn,
    )
    cli = str(pathlib.Path(python).with_name("aws"))
    ask = [cli, "sts", "get-caller-identity", "--endpoint-url", stage.aws, "--ca-bundle", stage.ca]
    code, out, err = stage.run(ask, good)
    tally.check("the AWS CLI does, too, under the same name", code == 0 and json.loads(out)["Arn"] == arn, err)

    code, out, err = stage.run([cli, "sts", "get-caller-identity"], good)
    tally.check("who one is must be asked of AWS itself, and the CLI says so", code != 0 and "InvalidAction" in err, err)
    own = stage.exchange("aws/own")
    body = own.json()
    tally.check("a role is assumed with the broker's own identity", own.status_code == 200, body)
    credential = body.get("credential", {})
    env = {
        "AWS_ACCESS_KEY_ID": credential.get("access_key_id", ""), "AWS_REGION": "eu-central-1",
        "AWS_SECRET_ACCESS_KEY": credential.get("secret_access_key", ""),
        "AWS_SESSION_TOKEN": credential.get("session_token", ""),
    }
    code, out, err = stage.run(ask, "", **env)
    tally.check("and is good at AWS", code == 0 and ":assumed-role/own/" in out, err or out)
    # INVARIANT(honest-expiry): moto counts whole seconds from its own now.
    left = datetime.datetime.fromisoformat(credential["expires_at"]).timestamp() - time.time()
    tally.check("for as long as it says", 1_150 < left <= 1_202 and abs(left - body["expires_in"]) < 5, left)


def refusals(stage, tally):
    def refused(file, more=None, role=ROLE):
        command = [sys.executable, "-c", REFUSED, json.dumps(more or {})]
        code, out, err = stage.run(command, file, role)
        return json.loads(out) if code == 0 and out != "nothing" else [out, err]

    good = stage.file("good")
    strangers = refused(stage.file("stranger", account="stranger"))
    tally.check("a stranger gets `AccessDenied`", strangers[:3] == ["ClientError", "AccessDenied", 403], strangers)
    found = refused(stage.file("old", age=4_000))
    tally.check("an expired token is `ExpiredTokenException`", found[:3] == ["ExpiredTokenException"] * 2 + [400], found)
    path = stage.folder / "forged"
    path.write_text(stage.token()[:-6] + "AAAAAA\n")
    found = refused(str(path))
    tally.check("a forged one is `InvalidIdentityToken`", found[:2] == ["InvalidIdentityTokenException", "InvalidIdentityToken"], found)
    found = refused(stage.file("away", issuer="https://away.invalid"))
    tally.check(
        "keys out of reach are `IDPCommunicationError`, and boto3 tried again",
        found[:3] == ["IDPCommunicationErrorException", "IDPCommunicationError", 400] and found[3] > 0, found,
    )
    found = refused(good, {"DurationSeconds": 900, "ProviderId": "example.com"})
    tally.check("what can't be honoured is `ValidationError`", found[:3] == ["ClientError", "ValidationError", 400], found)
    found = refused(good, role=f"arn:aws:iam::{ACCOUNT}:role/other")
    tally.check("a role that nobody configured is `AccessDenied`", found[1] == "AccessDenied", found)
    doctor = stage.broker.cli("doctor", "--config", str(stage.folder / "cambio.yaml"), "--json", check=False)
    found = {one["check"]: one["detail"] for one in json.loads(doctor.stdout)}
    tally.check("doctor sees that moto takes any token", "stand-in" in found.get("target:aws/test", ""), found)
    explained = stage.broker.cli(
        "policy", "explain", strangers[4], "--config", str(stage.folder / "cambio.yaml"), check=False
    )
    tally.check("the request id finds the reason", "refused as `no_rule`" in explained.stdout, explained.stdout + explained.stderr)


def without_identity(stage, tally):
    """The broker comes back where its surroundings give it no identity: nothing was asked of AWS, and nothing is unknown."""
    stage.broker.stop()
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    stage.broker.start(30)
    del os.environ["AWS_EC2_METADATA_DISABLED"]
    answer = stage.exchange("aws/own")
    body = answer.json()
    tally.check(
        "without an identity of its own the broker gets no session, and knows that there is none",
        answer.status_code == 503 and body["error_description"] == "the target did not issue a credential", body,
    )


def outage(stage, tally):
    stage.moto.terminate()
    stage.moto.wait(20)
    answer = stage.exchange("aws/test")
    body = answer.json()
    tally.check("AWS is gone: 503", answer.status_code == 503 and body["error"] == "temporarily_unavailable", body)
    tally.check("with a time to come back", int(answer.headers.get("Retry-After", "0")) > 0, answer.headers)
    tally.check("the other targets go on", stage.exchange("jwt/orders").status_code == 200)


def main():
    stage = Stage()
    try:
        if "--stage" in sys.argv:
            told = {
                "good": stage.surroundings(stage.file("token")),
                "stranger": stage.surroundings(stage.file("stranger", account="stranger")),
                "expired": stage.surroundings(stage.file("old", age=4_000)),
                "aws": stage.aws, "ca": stage.ca,
            }
            print(json.dumps(told), flush=True)
            sys.stdin.read()
            return
        tally = Tally()
        sessions(stage, tally)
        refusals(stage, tally)
        without_identity(stage, tally)
        outage(stage, tally)
    finally:
        stage.stop()
    tally.end()


main()
