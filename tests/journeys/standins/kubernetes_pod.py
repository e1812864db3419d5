"""What a pod of the broker sees: the rendered ConfigMaps, Secrets and volumes as files, and the tokens of the cluster's pods."""

import base64
import hashlib
import json
import os
import pathlib
import re
import subprocess
import time
import uuid

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support import CAMBIO, free_ports

CLUSTER = "https://kubernetes.default.svc.cluster.local"
BROKER = "https://cambio.test"


def run(*command, timeout=60, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, **more)


def kind(documents, wanted):
    return [document for document in documents if document["kind"] == wanted]


class Pod:
    """The files of the rendered StatefulSet's volumes below a folder, and `cambio` as its containers would start it.

    As root, they are laid out as the kubelet does: they are root's, of mode 0440, and lent to the group of the pod's user, as whom
    `cambio` then runs. Else they are ours alone.
    """

    work = None
    user = None

    def __init__(self, name, documents, secrets):
        self.root = self.work / name
        self.root.mkdir(mode=0o755)
        (self.workload,) = kind(documents, "StatefulSet")
        spec = self.workload["spec"]["template"]["spec"]
        maps = {one["metadata"]["name"]: one["data"] for one in kind(documents, "ConfigMap")}
        mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
        for volume in spec["volumes"]:
            folder = self.at(mounts[volume["name"]])
            folder.mkdir(parents=True, mode=0o755)
            if "configMap" in volume:
                files = maps[volume["configMap"]["name"]]
            elif "secret" in volume:
                files = secrets[volume["secret"]["secretName"]]
                items = volume["secret"].get("items")
                files = {item["path"]: files[item["key"]] for item in items} if items else files
            else:
                files = {"token": secrets.get("cluster-token", "a.b.c"), "ca.crt": secrets["cluster-ca"]}
            files = files or {}
            self.publish(folder, {file: self.moved(text) if file == "cambio.yaml" else text for file, text in files.items()})
        for claim in self.workload["spec"]["volumeClaimTemplates"]:
            # As volumes come: open to a group, or to everybody. Ours is the folder that the first start makes in it.
            folder = self.at(mounts[claim["metadata"]["name"]])
            folder.mkdir(parents=True)
            self.lend(folder, 0o2777 if claim["metadata"]["name"] == "state" else 0o2775)
        self.config = self.at("/etc/cambio/config/cambio.yaml")

    def publish(self, folder, files):
        """As the kubelet does: a folder with the files, and a link to it that is swapped for all of them at once."""
        version = folder / f"..{uuid.uuid4().hex}"
        version.mkdir(mode=0o755)
        for file, text in files.items():
            (version / file).touch(mode=0o600)
            (version / file).write_text(text)
            self.lend(version / file, 0o440)
            if not (folder / file).is_symlink():
                (folder / file).symlink_to(pathlib.Path("..data") / file)
        (folder / "..data_tmp").symlink_to(version.name)
        (folder / "..data_tmp").rename(folder / "..data")

    def lend(self, path, mode):
        if self.user:
            os.chown(path, 0, self.user)
            path.chmod(mode)
        elif path.is_dir():
            path.chmod(mode)

    def own(self, path):
        """A folder of the pod's user alone."""
        self.at(path).mkdir(mode=0o700)
        if self.user:
            os.chown(self.at(path), self.user, self.user)

    def at(self, path):
        return self.root / path.lstrip("/")

    def moved(self, text):
        self.ports = free_ports(2)
        text = re.sub(r"(?<=[ '\"])(/etc/cambio|/var/lib/cambio)", lambda found: str(self.root) + found[0], text)
        return text.replace("0.0.0.0:8443", f"127.0.0.1:{self.ports[0]}").replace("0.0.0.0:9090", f"127.0.0.1:{self.ports[1]}")

    def command(self, container):
        spec = self.workload["spec"]["template"]["spec"]
        (found,) = [one for one in spec.get("initContainers", []) + spec["containers"] if one["name"] == container]
        return self.as_user(CAMBIO, *(self.config if part.endswith("cambio.yaml") else part for part in found["args"]))

    def as_user(self, *command):
        confined = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--bounding-set=-all"]
        return [str(part) for part in ([*confined, *command] if self.user else command)]

    def cambio(self, *arguments):
        return run(*self.as_user(CAMBIO, *arguments))


def certificate(authority, host):
    certificate_file, key_file = authority.server(f"server-{uuid.uuid4().hex}", host)
    return {"tls.crt": certificate_file.read_text(), "tls.key": key_file.read_text()}


def kek():
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


class Cluster:
    """Signs what the API server of a cluster signs for its pods."""

    def __init__(self):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        der = self.key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        # As kube-apiserver names its keys.
        self.kid = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        public.pop("key_ops", None)
        self.jwks = {"keys": [public | {"kid": self.kid, "alg": "RS256", "use": "sig"}]}

    def token(self, account):
        now = int(time.time())
        bound = {"namespace": "orders", "serviceaccount": {"name": account, "uid": str(uuid.uuid4())},
                 "pod": {"name": f"{account}-0", "uid": str(uuid.uuid4())}}
        claims = {"iss": CLUSTER, "aud": [BROKER], "iat": now, "nbf": now, "exp": now + 600, "jti": str(uuid.uuid4()),
                  "sub": f"system:serviceaccount:orders:{account}", "kubernetes.io": bound}
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.kid})
