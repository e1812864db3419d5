"""A real kube-apiserver on a real etcd, both on this machine alone and thrown away: it signs the tokens of its service accounts, judges the
broker's by `--authentication-config`, and admits the manifests or does not. No kubelet, no controllers: nothing runs in it.
"""

import base64
import copy
import json
import os
import subprocess
import time

import kubernetes
import requests
import yaml
from cryptography.hazmat.primitives import serialization

from support import free_ports

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = "https://cambio.test"


class Server:
    """Started, and ready, when it is made; `kept` is a list of processes, for who ends them, and a folder for their ids."""

    def __init__(self, assets, work, authority, cluster, authentication, proxy, kept, host):
        self.work, (self.processes, self.pids) = work, kept
        clients, peers, port = free_ports(3)
        etcd = f"http://127.0.0.1:{clients}"
        self._start("etcd", [
            assets / "etcd", "--data-dir", work / "etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
            "--listen-peer-urls", f"http://127.0.0.1:{peers}", "--unsafe-no-fsync", "--log-level", "error",
        ])
        key_file, configuration = work / "service-accounts.key", work / "authentication.yaml"
        key_file.touch(mode=0o600)
        key_file.write_bytes(cluster.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))
        configuration.write_text(yaml.safe_dump(authentication))
        certificate, key = authority.server("kube-apiserver", host, "kubernetes.default.svc")
        admin = authority.client("admin", "journey", "system:masters")
        self.url = f"https://{host}:{port}"
        self._start("kube-apiserver", [
            assets / "kube-apiserver", "--etcd-servers", etcd, "--bind-address", host, "--secure-port", port,
            "--advertise-address", host, "--endpoint-reconciler-type", "none", "--tls-cert-file", certificate,
            "--tls-private-key-file", key, "--client-ca-file", authority.file, "--authorization-mode", "RBAC",
            "--authentication-config", configuration, "--service-account-issuer", ISSUER,
            "--service-account-signing-key-file", key_file, "--service-account-key-file", key_file,
            "--service-cluster-ip-range", "10.0.0.0/24", "--disable-admission-plugins", "DefaultIngressClass",
        ], HTTPS_PROXY=proxy, NO_PROXY=host)
        self._await(authority.file, admin)
        config = kubernetes.client.Configuration()
        config.host, config.ssl_ca_cert = self.url, str(authority.file)
        config.cert_file, config.key_file = map(str, admin)
        self.admin = kubernetes.client.ApiClient(config)
        self._populate()

    def _start(self, name, command, **more):
        log = open(self.work / f"{name}.log", "ab")
        env = {"PATH": os.environ["PATH"], "HOME": str(self.work)} | more
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, cwd=self.work, env=env)
        self.processes.append(process)
        (self.pids / f"kubernetes-{name}.pid").write_text(str(process.pid))

    def _await(self, ca, admin, deadline=120):
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if self.processes[-1].poll() is not None:
                break
            try:
                if requests.get(f"{self.url}/readyz", verify=str(ca), cert=tuple(map(str, admin)), timeout=5).status_code == 200:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.3)
        raise SystemExit(f"kube-apiserver is not ready:\n{(self.work / 'kube-apiserver.log').read_text()[-3000:]}")

    def _populate(self):
        core = kubernetes.client.CoreV1Api(self.admin)
        core.create_namespace({"metadata": {"name": "orders"}})
        self.pods = {}
        for account in ("deployer", "stranger", "worker"):
            core.create_namespaced_service_account("orders", {"metadata": {"name": account}})
            container = {"name": "app", "image": "registry.example.com/app"}
            pod = {"metadata": {"name": f"{account}-0"}, "spec": {"serviceAccountName": account, "containers": [container],
                                                                  "automountServiceAccountToken": False}}
            self.pods[account] = core.create_namespaced_pod("orders", pod).metadata

        # The controller that would gather the rules of these is not here.
        rbac = kubernetes.client.RbacAuthorizationV1Api(self.admin)
        for name in ("view", "edit"):
            parts = [rbac.read_cluster_role(f"system:aggregate-to-{part}") for part in ("view", "edit")][:1 + (name == "edit")]
            rules = [self.admin.sanitize_for_serialization(rule) for part in parts for rule in part.rules]
            rbac.patch_cluster_role(name, {"rules": rules})

    def token(self, account):
        """What the kubelet would project into the pod of `account`."""
        pod = self.pods[account]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.uid}
        asked = {"spec": {"audiences": [AUDIENCE], "expirationSeconds": 600, "boundObjectRef": bound}}
        made = kubernetes.client.CoreV1Api(self.admin).create_namespaced_service_account_token(account, "orders", asked)
        return made.status.token

    def token_of_broker(self):
        """What the kubelet would project into the broker's pod, for the API server itself."""
        made = kubernetes.client.CoreV1Api(self.admin).create_namespaced_service_account_token(
            "cambio", "cambio", {"spec": {"expirationSeconds": 3600}})
        return made.status.token

    def delete_pod(self, account):
        core = kubernetes.client.CoreV1Api(self.admin)
        core.delete_namespaced_pod(self.pods[account].name, "orders", grace_period_seconds=0)

    def create(self, document):
        """Why the API server does not take `document`, or nothing."""
        resource = kubernetes.dynamic.DynamicClient(self.admin).resources.get(api_version=document["apiVersion"],
                                                                            kind=document["kind"])
        namespace = document["metadata"].get("namespace") if resource.namespaced else None
        try:
            resource.create(body=document, namespace=namespace, field_validation="Strict")
        except kubernetes.dynamic.exceptions.DynamicApiError as error:
            return f"{document['kind']}: {json.loads(error.body)['message']}"
        return None

    def check(self, tally, plain):
        """The manifests, in order, as `kubectl apply` would bring them; then a pod of the broker, which nothing here would make."""
        files = ["broker/namespace.yaml", "broker/broker.yaml", "rbac.yaml"]
        documents = [one for file in files for one in yaml.safe_load_all((plain / file).read_text())]
        # Its service account is there already.
        documents += list(yaml.safe_load_all((plain / "agent-sidecar.yaml").read_text()))[1:]
        refused = [why for why in map(self.create, documents) if why]
        tally.check("kube-apiserver: takes every manifest, strictly", not refused, refused)
        (workload,) = [one for one in documents if one["kind"] == "StatefulSet"]
        pod = copy.deepcopy(workload["spec"]["template"]) | {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] |= {"name": "cambio-0", "namespace": "cambio"}
        pod["spec"]["volumes"] += [{"name": name, "emptyDir": {}} for name in ("state", "anchor")]
        why = self.create(pod)
        tally.check("kube-apiserver: admits the broker's pod under the standard `restricted`", not why, why)
        weak = copy.deepcopy(pod)
        weak["metadata"]["name"] = "weak"
        weak["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        tally.check("kube-apiserver: and a weaker one not", "restricted" in (self.create(weak) or ""))
        claims = json.loads(base64.urlsafe_b64decode(self.token("deployer").split(".")[1] + "=="))
        tally.check("kube-apiserver: signs for our audience alone", claims["aud"] == [AUDIENCE], claims)
