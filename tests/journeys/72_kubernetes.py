"""Kubernetes: the chart and the manifests say what is safe and nothing misspelt; the configuration in them serves; and a pod gets a
token from it that a kube-apiserver takes, through kubectl's exec plugin.

Helm is `HELM`, or on the path. A real kube-apiserver, etcd and kubectl are taken from the folder that `KUBEBUILDER_ASSETS` names,
or from `bin` of `CAMBIO_APISERVER`; without them a stand-in alone judges the tokens, by the AuthenticationConfiguration that we ship.
"""

import base64
import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import jwt
import kubernetes
import kubernetes_validate
import requests
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from standins import kubernetes_api
from standins.kubernetes_pod import BROKER, Cluster, Pod, certificate, kek, kind, run
from support import CAMBIO, ROOT, Tally, free_ports

CHART = ROOT / "deploy" / "helm" / "cambio"
PLAIN = ROOT / "deploy" / "kubernetes"
VALUES = pathlib.Path(__file__).resolve().parent / "kubernetes"
HELM = os.environ.get("HELM") or shutil.which("helm") or shutil.which("helm", path=str(ROOT / "target" / "tools" / "bin"))
PRIVATE = "10.96.0.1"
OWN_NETWORK = "CAMBIO_JOURNEY_HAS_A_NETWORK"
VERSIONS = ["1.31", "1.37"]

tally = Tally()
skipped = []
# Not below the run's own folder, which is closed: another user is to read some of it.
work = pathlib.Path(tempfile.mkdtemp(prefix="cambio-kubernetes-"))
work.chmod(0o711)
Pod.work = work
pids = pathlib.Path(os.environ.get("CAMBIO_TEST_WORK", work))
processes = []


def skip(what, why):
    skipped.append(what)
    print(f"skipped: {what}: {why}")


def helm(verb, *more):
    if verb == "template":
        more = ("cambio", CHART, "--namespace", "cambio", "--kube-version", "1.31.0", *more)
    return run(HELM, verb, *more, env=os.environ | {"HELM_CACHE_HOME": str(work / "helm")})


def values(name):
    folder = work if name == "page" else VALUES
    return ["--values", str(folder / f"{name}.yaml")] if name != "defaults" else []


# What is rendered.

def invalid(document):
    """Why the published schemas of Kubernetes refuse `document`, if they do."""
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            pass
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {document['kind']}: {error}")
    return found


def unconfined(document):
    """What a pod of `document` may do that it should not."""
    pod = document["spec"]["template"]["spec"] if "template" in document["spec"] else document["spec"]
    found = []
    of_pod = pod.get("securityContext", {})
    expected = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    found += [f"pod: {name}" for name, value in expected.items() if of_pod.get(name) != value]
    if not of_pod.get("runAsUser"):
        found.append("pod: no user")
    if pod.get("automountServiceAccountToken") is not False:
        found.append("pod: the API server's token is mounted")
    found += [f"pod: {name}" for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace") if pod.get(name)]
    found += [f"volume {volume['name']}: host" for volume in pod.get("volumes", []) if "hostPath" in volume]
    for container in pod["containers"] + pod.get("initContainers", []):
        name, own = container["name"], container.get("securityContext", {})
        expected = {"runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
        found += [f"{name}: {key} is {own.get(key)}" for key, value in expected.items() if own.get(key) != value]
        found += [f"{name}: {key}" for key in ("privileged", "procMount") if key in own]
        found += [f"{name}: root"] if own.get("runAsUser", 1) == 0 else []
        if "memory" not in container.get("resources", {}).get("limits", {}):
            found.append(f"{name}: no limit of memory")
        found += [f"{name}: a secret in the environment" for one in container.get("env", []) if "valueFrom" in one]
        found += [f"{name}: a secret in the environment" for _ in container.get("envFrom", [])]
        found += [f"{name}: {one['name']} can be written to" for one in container["volumeMounts"]
                  if not one.get("readOnly") and one["name"] not in ("state", "anchor", "credentials")]
    return found


def judge(name, documents):
    problems = [problem for document in documents for problem in invalid(document)]
    tally.check(f"{name}: every object is valid, strictly, in {' and '.join(VERSIONS)}", not problems, problems)
    workloads = [document for document in documents if document["kind"] in ("Pod", "StatefulSet", "Deployment", "Job")]
    problems = [problem for document in workloads for problem in unconfined(document)]
    tally.check(f"{name}: every container is confined", workloads and not problems, problems)
    text = yaml.safe_dump_all(documents)
    tally.check(f"{name}: no object holds a secret", not kind(documents, "Secret") and "PRIVATE KEY" not in text)


def services_of(documents):
    return {port["name"] for service in kind(documents, "Service") for port in service["spec"]["ports"]}


def lay_out_as_the_kubelet_does():
    """If we are root, and `cambio` takes a secret that root lends."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return skip("files as the kubelet lays them out", "that takes root, and setpriv")
    user = yaml.safe_load((CHART / "values.yaml").read_text())["user"]
    path = work / "lent"
    path.write_text("a passphrase of some length\n")
    os.chown(path, 0, user)
    path.chmod(0o440)
    Pod.user = user
    started = run(*Pod.as_user(Pod, CAMBIO, "version"))
    # What is asked for is not there; whether the file is a secret is judged first.
    told = run(*Pod.as_user(Pod, CAMBIO, "keys", "export", "--passphrase-file", path, "--reason", "x", "--socket", "/nowhere"))
    if started.returncode != 0:
        Pod.user = None
        skip("files as the kubelet lays them out", f"another user can't run `cambio`: {started.stderr.strip()}")
    elif "0600 or 0400" in told.stderr:
        Pod.user = None
        skip("files as the kubelet lays them out", "this `cambio` takes no secret that root lends to a group")


def check_chart(authority):
    secrets = {
        "cambio-kek": {"kek": kek()}, "passphrase": {"passphrase": kek()}, "orders-db": {"password": "a long password\n"},
        "cambio-tls": certificate(authority, "cambio.example.com"), "cluster-ca": authority.file.read_text(),
    }
    knows_reviews = "token_review" in run(CAMBIO, "config", "schema").stdout
    rendered = {}
    page = (ROOT / "docs" / "targets" / "kubernetes.md").read_text()
    (of_page,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if block.startswith("# values.yaml")]
    (work / "page.yaml").write_text(of_page)
    for name in ("defaults", "minimal", "everything", "page", "pods"):
        linted = helm("lint", CHART, "--strict", *values(name))
        tally.check(f"{name}: helm lints it strictly", linted.returncode == 0, linted.stdout + linted.stderr)
        done = helm("template", *values(name))
        if done.returncode != 0:
            tally.check(f"{name}: helm renders it", False, done.stderr)
            continue
        documents = rendered[name] = [one for one in yaml.safe_load_all(done.stdout) if one]
        judge(name, documents)
        if "token_review" in done.stdout and not knows_reviews:
            skip(f"{name}: `cambio config check`", "this `cambio` knows no `token_review`")
            continue
        extra = secrets
        if name == "everything":
            documents = copy.deepcopy(documents)
            (files,) = [one for one in kind(documents, "ConfigMap") if one["metadata"]["name"].endswith("-files")]
            files["data"] = {"green.json": json.dumps(Cluster().jwks), "orders-ca.pem": authority.file.read_text()}
        if name == "pods":
            continue
        pod = Pod(name, documents, extra)
        for folder in ("/var/lib/cambio/state", "/var/lib/cambio-anchor/ledger"):
            pod.own(folder)
        checked = pod.cambio("config", "check", pod.config)
        tally.check(f"{name}: `cambio config check` takes its configuration", checked.returncode == 0,
                    checked.stdout + checked.stderr)
        # Not as root, whose own such a file is.
        tally.check(f"{name}: and finds nothing wrong with a token that the kubelet lends us",
                    not pod.user or "read the token" not in checked.stdout + checked.stderr, checked.stdout)
        tested = pod.cambio("policy", "test", "--config", pod.config, pod.at("/etc/cambio/policies"))
        tally.check(f"{name}: its policies load", tested.returncode == 0, tested.stdout + tested.stderr)
    return rendered


def check_choices(rendered):
    tally.check("the operations listener is in no Service by default", services_of(rendered["defaults"]) == {"public"})
    tally.check("and in one of its own where metrics are on", services_of(rendered["everything"]) == {"public", "operations"})
    tally.check("no right in the cluster is given by default", not kind(rendered["defaults"], "ClusterRole"))
    (role,) = kind(rendered["everything"], "ClusterRole")
    tally.check("token review wants one verb on one resource",
                role["rules"] == [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}])
    (policy,) = kind(rendered["defaults"], "NetworkPolicy")
    tally.check("the network policy bounds both ways", policy["spec"]["policyTypes"] == ["Ingress", "Egress"])
    blocks = [to["ipBlock"] for rule in policy["spec"]["egress"] for to in rule["to"] if "ipBlock" in to]
    tally.check("and leaves out the metadata addresses",
                blocks and all({"169.254.0.0/16", "fe80::/10"} & set(block["except"]) for block in blocks), blocks)
    (policy,) = kind(rendered["everything"], "NetworkPolicy")
    ports = [(port["port"], "from" in rule) for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    tally.check("nobody reaches the operations port but whom it names", ports == [("public", True), ("operations", True)], ports)
    starts = {name: bool(kind(documents, "StatefulSet")[0]["spec"]["template"]["spec"].get("initContainers"))
              for name, documents in rendered.items()}
    tally.check("a store is made only where that is asked for", starts["defaults"] is False and starts["minimal"], starts)

    wrong = list(yaml.safe_load_all((VALUES / "wrong.yaml").read_text()))
    for one in wrong:
        told = one.pop("told")
        given = work / "wrong.yaml"
        given.write_text(yaml.safe_dump(one))
        done = helm("template", "--values", given)
        tally.check(f"refused, and told: {told}", done.returncode != 0 and told in done.stderr, done.stderr or "taken")
    drift = run(ROOT / "deploy" / "helm" / "generate", "--check", env=os.environ | {"HELM": HELM})
    tally.check("the plain manifests and the values' schema are what the chart says", drift.returncode == 0, drift.stdout + drift.stderr)


def check_plain():
    for path in sorted(PLAIN.rglob("*.yaml")):
        documents = [one for one in yaml.safe_load_all(path.read_text()) if one]
        problems = [problem for document in documents for problem in invalid(document)] if path.name != "patch.yaml" else []
        tally.check(f"{path.relative_to(ROOT)}: valid", documents and not problems, problems)
    judge("the plain manifests", list(yaml.safe_load_all((PLAIN / "broker" / "broker.yaml").read_text())))
    judge("the sidecar", list(yaml.safe_load_all((PLAIN / "agent-sidecar.yaml").read_text())))
    kubectl = shutil.which("kubectl")
    built = run(kubectl, "kustomize", PLAIN / "first-start") if kubectl else None
    if not built or "unknown command" in built.stderr:
        return skip("kustomize", "no kubectl that has it")
    documents = list(yaml.safe_load_all(built.stdout)) if built.returncode == 0 else []
    starts = [one["spec"]["template"]["spec"].get("initContainers") for one in kind(documents, "StatefulSet")]
    tally.check("kustomize builds the first start", len(starts) == 1 and starts[0], built.stderr)


# A broker of the rendered configuration, and who believes it.

class Broker:
    """The pod of one of our files of values, and of `more` of them, started as its containers say."""

    def __init__(self, name, more, authority, **secrets):
        given = work / f"{name}-more.yaml"
        given.write_text(yaml.safe_dump(more))
        done = helm("template", *values(name), "--values", given)
        self.documents = [one for one in yaml.safe_load_all(done.stdout) if one]
        secrets |= {"cambio-kek": {"kek": kek()}, "cambio-tls": certificate(authority, "cambio.test")}
        self.name, self.pod, self.process = name, Pod(f"broker-{name}", self.documents, secrets), None

    def log(self):
        return work / f"broker-{self.name}.log"

    def first_start(self):
        return run(*self.pod.command("first-start"))

    def start(self):
        log = open(self.log(), "ab")
        self.process = subprocess.Popen(self.pod.command("cambio"), stdout=log, stderr=log)
        processes.append(self.process)
        (pids / f"kubernetes-{self.name}.pid").write_text(str(self.process.pid))
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if requests.get(f"http://127.0.0.1:{self.pod.ports[1]}/readyz", timeout=1).status_code == 200:
                    return True
            except requests.ConnectionError:
                pass
            time.sleep(0.05)
        return False


def check_first_start(broker):
    state, anchor = broker.pod.at("/var/lib/cambio/state"), broker.pod.at("/var/lib/cambio-anchor/ledger")
    before = run(*broker.pod.command("cambio"))
    tally.check("without a first start a broker without a store does not start", before.returncode == 2, before.stderr)
    first = broker.first_start()
    tally.check("the first start makes a store and ends", first.returncode == 0 and (state / "cambio.db").exists(),
                first.stdout + first.stderr)
    tally.check("in a folder that is the broker's alone", state.stat().st_mode & 0o077 == 0 == anchor.stat().st_mode & 0o077)
    made = (state / "cambio.db").read_bytes()
    # As the kubelet does with all that is in a volume which comes without the pod's group.
    for folder in (state, anchor):
        folder.chmod(0o2770)
    opened = run(*broker.pod.command("cambio"))
    tally.check("k12 a store in a folder that the volume's group may write to is not served",
                opened.returncode == 2 and "its group may write to it" in opened.stderr, opened.stderr)
    again = broker.first_start()
    tally.check("again, it closes them, and makes nothing", again.returncode == 0 and (state / "cambio.db").read_bytes() == made
                and state.stat().st_mode & 0o022 == 0 == anchor.stat().st_mode & 0o022, again.stderr)
    elsewhere = state.with_name("elsewhere")
    state.rename(elsewhere)
    lost = broker.first_start()
    tally.check("k07 a store that is lost is not taken for a new one",
                lost.returncode != 0 and "lost, not new" in lost.stderr + lost.stdout, lost.stdout + lost.stderr)
    shutil.rmtree(state, ignore_errors=True)
    elsewhere.rename(state)
    tally.check("the broker of the rendered configuration serves", broker.start(), broker.log().read_text()[-2000:])


def check_policy_update(broker, authority, proxy, token):
    """A ConfigMap of policies that changes while the broker runs."""
    folder = broker.pod.at("/etc/cambio/policies")
    text = (folder / "kubernetes.yaml").read_text()
    file = work / "auditor"
    file.write_text(token("auditor"))
    ask = [CAMBIO, "exchange", "--broker", BROKER, "--audience", "jwt/orders", "--proxy", proxy, "--ca-file", authority.file,
           "--token-file", file]
    before = run(*ask).returncode
    broker.pod.publish(folder, {"kubernetes.yaml": text.replace("service_account: worker", "service_account: auditor")})
    end, after = time.monotonic() + 20, None
    while after != 0 and time.monotonic() < end:
        time.sleep(0.5)
        after = run(*ask).returncode
    broker.pod.publish(folder, {"kubernetes.yaml": text})
    tally.check("policies that change in their ConfigMap are in force without a restart", (before, after) == (1, 0), (before, after))


def check_sidecar(authority, proxy, token):
    """The sidecar's configuration as it is shipped, where its broker, its token and its volume are here."""
    if run(CAMBIO, "agent", "--help").returncode != 0:
        return skip("the sidecar", "this `cambio` has no agent")
    documents = list(yaml.safe_load_all((PLAIN / "agent-sidecar.yaml").read_text()))
    (shipped,) = kind(documents, "ConfigMap")
    config = yaml.safe_load(shipped["data"]["agent.yaml"])
    config |= {"broker": BROKER, "proxy": proxy, "ca_file": str(authority.file)}
    config["listen"]["operations"] = f"127.0.0.1:{free_ports(1)[0]}"
    identity, credentials, file = work / "identity", work / "credentials", work / "agent.yaml"
    identity.mkdir(mode=0o700)
    credentials.mkdir()
    # As an emptyDir with `fsGroup` is.
    credentials.chmod(0o2777)
    config["token"]["file"] = str(identity / "token")
    for one in config["credentials"][0]["files"]:
        one["path"] = one["path"].replace("/run/cambio", str(credentials))
    file.write_text(yaml.safe_dump(config))
    file.chmod(0o440)
    (identity / "token").touch(mode=0o600)
    (identity / "token").write_text(token("worker"))
    done = run(CAMBIO, "agent", "--config", file, "--once", "--deadline", "20s")
    written = credentials / "orders.token"
    claims = jwt.decode(written.read_text().strip(), options={"verify_signature": False}) if written.exists() else {}
    tally.check("the sidecar writes the credential that its program reads", done.returncode == 0 and claims.get("scope") == "reader"
                and written.stat().st_mode & 0o777 == 0o640, done.stderr)
    (pod,) = kind(documents, "Pod")
    of = {one["name"]: {mount["name"] for mount in one["volumeMounts"]} for one in pod["spec"]["initContainers"] + pod["spec"]["containers"]}
    tally.check("its program sees the credentials, and not the pod's identity", of["worker"] == {"credentials"}, of)


def kubeconfig(name, api, authority, proxy, token_file, role):
    """The kubeconfig that we ship, where its server and its broker are here."""
    config = yaml.safe_load((PLAIN / "kubeconfig.yaml").read_text())
    config["clusters"][0]["cluster"] = {"server": api, "certificate-authority": str(authority.file)}
    plugin = config["users"][0]["user"]["exec"]
    plugin["command"] = CAMBIO
    arguments = plugin["args"]
    arguments[arguments.index("--broker") + 1] = BROKER
    arguments[arguments.index("--scope") + 1] = role
    arguments += ["--proxy", proxy, "--ca-file", str(authority.file), "--token-file", str(token_file)]
    path = work / f"{name}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def kubectl_of(folder=None):
    """A kubectl that knows the plugin's `v1`, from 1.22 on."""
    found = shutil.which("kubectl", path=str(folder)) if folder else shutil.which("kubectl")
    said = run(found, "version", "--client", "-o", "json") if found else None
    version = re.search(r'"gitVersion": "v1\.(\d+)', said.stdout) if said else None
    return found if version and int(version[1]) >= 28 else None


def check_plugin(where, api, authority, proxy, token, kubectl, outsider):
    """`token(account)` is a pod's token; `api` takes what the broker makes of it."""
    pod_token = work / "token"
    pod_token.write_text(token("deployer"))
    viewer = kubeconfig(f"{where}-viewer", api, authority, proxy, pod_token, "viewer")
    client = kubernetes.config.new_client_from_config(str(viewer))
    who = kubernetes.client.AuthenticationV1Api(client).create_self_subject_review({}).status.user_info
    tally.check(f"{where}: a pod is somebody, by the client for Python",
                who.username.startswith("cambio:cluster:") and "cambio:viewer" in who.groups and "system:authenticated" in who.groups,
                who)
    tally.check(f"{where}: and its token can be found in the ledger", who.extra and list(who.extra.get("cambio.example.com/token", [])), who)
    told = answered(lambda: kubernetes.client.CoreV1Api(client).list_namespaced_pod("orders"))
    tally.check(f"{where}: a viewer sees the pods of its namespace", told == 200, told)
    told = answered(lambda: kubernetes.client.CoreV1Api(client).list_namespaced_secret("orders"))
    tally.check(f"{where}: and no secrets", told in (403, 404), told)
    deployer = kubeconfig(f"{where}-deployer", api, authority, proxy, pod_token, "deployer")
    if kubectl:
        told = kubectl_run(kubectl, viewer, "auth", "whoami", "-o", "json")
        groups = json.loads(told.stdout)["status"]["userInfo"]["groups"] if told.returncode == 0 else []
        tally.check(f"{where}: kubectl runs the plugin", "cambio:viewer" in groups, told.stderr)
        told = kubectl_run(kubectl, deployer, "auth", "whoami", "-o", "json")
        groups = json.loads(told.stdout)["status"]["userInfo"]["groups"] if told.returncode == 0 else []
        tally.check(f"{where}: another role is another group", "cambio:deployer" in groups and "cambio:viewer" not in groups, told.stderr)
    else:
        skip(f"{where}: kubectl", "none of 1.28 or newer is here")
    pod_token.write_text(token(outsider))
    client = kubernetes.config.new_client_from_config(str(viewer))
    told = answered(lambda: kubernetes.client.AuthenticationV1Api(client).create_self_subject_review({}))
    tally.check(f"{where}: a pod that no policy names is nobody", told in (401, 403), told)


def answered(asked):
    """The status of the answer."""
    try:
        asked()
    except kubernetes.client.ApiException as error:
        return error.status
    return 200


def kubectl_run(kubectl, config, *arguments):
    env = {"PATH": os.environ["PATH"], "HOME": str(work), "KUBECONFIG": str(config)}
    return run(kubectl, *arguments, env=env)


def judged(api, authority, token):
    """The status that `api` gives a bearer token."""
    path = f"{api}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    body = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    answer = requests.post(path, json=body, headers={"authorization": f"Bearer {token}"}, verify=str(authority.file), timeout=10)
    return answer.status_code


def check_forgeries(where, api, authority, broker, ours, other):
    """`ours` is a token that the API takes; `other` is of the same broker, for another cluster. Nothing near ours is taken."""
    head, body, signature = ours.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    entries = broker.pod.cambio("ledger", "export", "--config", broker.pod.config).stdout
    tally.check(f"{where}: the ledger names the token that the audit log names", claims["jti"] in entries)
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def forged(**change):
        return jwt.encode(claims | change, stranger, algorithm="RS256", headers=jwt.get_unverified_header(ours) | {"alg": "RS256"})

    changed = base64.urlsafe_b64encode(json.dumps(claims | {"scope": "system:masters"}).encode()).decode().rstrip("=")
    none = jwt.encode(claims, None, algorithm="none")
    answers = {"ours": judged(api, authority, ours), "changed": judged(api, authority, f"{head}.{changed}.{signature}"),
               "another key": judged(api, authority, forged()), "no signature": judged(api, authority, none),
               "another cluster's": judged(api, authority, other)}
    expected = {"ours": 201, "changed": 401, "another key": 401, "no signature": 401, "another cluster's": 401}
    tally.check(f"{where}: takes what the broker signed, and nothing near it", answers == expected, answers)


def exchanged(authority, proxy, token, audience):
    file = work / "exchanged"
    file.write_text(token)
    done = run(CAMBIO, "exchange", "--broker", BROKER, "--audience", audience, "--scope", "viewer", "--format", "kubernetes",
               "--proxy", proxy, "--ca-file", authority.file, "--token-file", file)
    tally.check(f"{audience}: `--format kubernetes` writes an ExecCredential and nothing else", done.returncode == 0
                and json.loads(done.stdout)["kind"] == "ExecCredential", done.stderr)
    return json.loads(done.stdout)["status"]["token"]


def configuration(authority):
    """The AuthenticationConfiguration that we ship, for the broker that is here."""
    shipped = yaml.safe_load((PLAIN / "authentication-config.yaml").read_text())
    shipped["jwt"][0]["issuer"] |= {"url": BROKER, "certificateAuthority": authority.file.read_text()}
    return shipped


def main():
    authority = kubernetes_api.Authority(work)
    check_plain()
    if not HELM:
        return skip("the chart", "no helm: HELM, or one on the path")
    lay_out_as_the_kubelet_does()
    check_choices(check_chart(authority))

    cluster = Cluster()
    broker = Broker("pods", {"files": {"cluster.json": json.dumps(cluster.jwks)}}, authority)
    check_first_start(broker)
    proxy = kubernetes_api.Proxy("cambio.test", broker.pod.ports[0]).url
    shipped = configuration(authority)
    api = kubernetes_api.Api(kubernetes_api.Judge(shipped, proxy, authority.file), *authority.server("api", "127.0.0.1")).url
    check_plugin("stand-in", api, authority, proxy, cluster.token, kubectl_of(), "stranger")
    check_sidecar(authority, proxy, cluster.token)
    check_policy_update(broker, authority, proxy, cluster.token)
    pair = [exchanged(authority, proxy, cluster.token("deployer"), target) for target in ("kubernetes/prod", "kubernetes/green")]
    check_forgeries("stand-in", api, authority, broker, *pair)

    from_folder = os.environ.get("KUBEBUILDER_ASSETS") or os.environ.get("CAMBIO_APISERVER", "") + "/bin"
    if not (pathlib.Path(from_folder) / "kube-apiserver").exists():
        return skip("a real kube-apiserver", "neither KUBEBUILDER_ASSETS nor CAMBIO_APISERVER names a folder with one")
    from standins import kubernetes_real
    kubectl = kubectl_of(from_folder) or kubectl_of()
    host = PRIVATE if os.environ.get(OWN_NETWORK) else "127.0.0.1"
    real = kubernetes_real.Server(pathlib.Path(from_folder), work, authority, cluster, shipped, proxy, (processes, pids), host)
    real.check(tally, PLAIN)
    check_plugin("kube-apiserver", real.url, authority, proxy, real.token, kubectl, "stranger")
    pair = [exchanged(authority, proxy, real.token("deployer"), target) for target in ("kubernetes/prod", "kubernetes/green")]
    check_forgeries("kube-apiserver", real.url, authority, broker, *pair)

    if host != PRIVATE:
        return skip("the cluster's own broker", "that takes root, unshare and ip, for a private address of the API server")
    check_review(authority, real)


def check_review(authority, real):
    """The broker of the chart's own cluster settings, against a real API server: fetched keys, and reviewed tokens."""
    if "token_review" not in run(CAMBIO, "config", "schema").stdout:
        return skip("token review", "this `cambio` knows none")
    secrets = {"cluster-ca": authority.file.read_text(), "cluster-token": real.token_of_broker()}
    broker = Broker("reviewed", {"cluster": {"apiServer": real.url}}, authority, **secrets)
    broker.first_start()
    tally.check("the cluster's own broker serves", broker.start(), broker.log().read_text()[-2000:])
    proxy = kubernetes_api.Proxy("cambio.test", broker.pod.ports[0]).url
    file = work / "reviewed"
    file.write_text(real.token("worker"))

    def until(code, seconds):
        end = time.monotonic() + seconds
        while True:
            done = run(CAMBIO, "exchange", "--broker", BROKER, "--audience", "jwt/orders", "--proxy", proxy, "--ca-file",
                       authority.file, "--token-file", file, "--deadline", "3s")
            if done.returncode == code or time.monotonic() > end:
                return done
            time.sleep(0.5)

    done = until(3, 5)
    tally.check("a broker that may not review tokens issues nothing", done.returncode == 3, done.stderr)
    refused = [why for why in map(real.create, kind(broker.documents, "ClusterRole") + kind(broker.documents, "ClusterRoleBinding")) if why]
    done = until(0, 60)
    tally.check("with the one right that the chart gives, it does", not refused and done.returncode == 0, (refused, done.stderr))
    real.delete_pod("worker")
    # kube-apiserver remembers for 10 s that a token was good.
    done = until(1, 30)
    tally.check("c16 the token of a deleted pod is refused, though it has not ended", done.returncode == 1, done.stderr)


def in_a_network_of_its_own():
    """As root, this journey runs in a network namespace with one private address: issuers on loopback are not allowed."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))) or run("unshare", "--net", "true").returncode != 0:
        return
    if not os.environ.get(OWN_NETWORK):
        os.environ[OWN_NETWORK] = "1"
        shutil.rmtree(work)
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    for command in (["link", "set", "lo", "up"], ["address", "add", f"{PRIVATE}/32", "dev", "lo"]):
        subprocess.run(["ip", *command], check=True)


try:
    in_a_network_of_its_own()
    main()
finally:
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    shutil.rmtree(work, ignore_errors=True)
print(f"{tally.passed} passed, {tally.failed} failed, {len(skipped)} skipped")
raise SystemExit(1 if tally.failed or not tally.passed else 0)
