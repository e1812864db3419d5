"""What the journeys of AWS share: a broker, moto or another stand-in as AWS, and pods with their tokens."""

import datetime
import ipaddress
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

from support import AUDIENCE, EXCHANGE, JWT, Broker, free_ports

CLUSTER = "https://cluster.test"
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/worker"
DATABASE = "orders.c9akciq32.eu-central-1.rds.amazonaws.com"
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
  - name: rds/orders
    kind: rds
    engine: postgres
    host: {DATABASE}
    database: orders
    region: eu-central-1
    endpoint: https://localhost:PORT/
    ca_file: ca.pem
    environment: test
    granted_by: [site.yaml]
    roles: {{ reader: {{ role_arn: {ROLE}, user: app_reader }} }}
"""
RULES = """\
  - id: worker
    issuer: cluster
    when: { namespace: shop, service_account: worker }
    grants:
      - { target: aws/test, role: worker, lifetime: 20m }
      - { target: aws/own, role: own, lifetime: 20m }
      - { target: rds/orders, role: reader, lifetime: 15m }
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

    def __init__(self, stand_in=None):
        self.broker = Broker()
        self.folder = self.broker.folder
        certificates(self.folder)
        (port,) = free_ports(1)
        self.aws = f"https://localhost:{port}"
        self.ca = str(self.folder / "ca.pem")
        moto = pathlib.Path(sys.executable).with_name("moto_server")
        key = ["--ssl-cert", str(self.folder / "server.pem"), "--ssl-key", str(self.folder / "server.key")]
        command = [moto, "-H", "127.0.0.1", "-p", str(port), "-s", *key]
        self.moto = subprocess.Popen(
            stand_in(port, self.folder) if stand_in else command,
            stdout=subprocess.DEVNULL, stderr=open(self.folder / "moto.log", "wb"),
        )
        (self.folder.parent / f"{self.folder.name}-moto.pid").write_text(str(self.moto.pid))
        config = self.folder / "cambio.yaml"
        text = config.read_text().replace("targets:\n", ISSUERS.replace("PORT", str(port)), 1)
        # The most that can be logged: nothing secret may be in it.
        config.write_text(text if stand_in else text.replace("level: info", "level: debug"))
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
