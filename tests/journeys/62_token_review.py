"""A real API server says whether a pod's token still stands: the pod goes, and its token with it, long before it ends.

Needs the folder in which `tests/services/apiserver build FOLDER` has built one, as CAMBIO_APISERVER.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import jwt
import requests

from support import AUDIENCE, ROOT, Broker, Tally

SCRIPT = ROOT / "tests" / "services" / "apiserver"
RULE = """\
  - id: worker
    issuer: cluster
    when: { namespace: shop, service_account: worker }
    grants: [{ target: jwt/orders, role: reader, lifetime: 5m }]
"""
ISSUER = """\
  - name: cluster
    provider: kubernetes
    issuer: {issuer}
    audience: {audience}
    keys: {{ pinned: {{ file: cluster.json }} }}
    token_review: {{ api_server: "{url}", ca_file: {ca_file}, token_file: own-token }}
targets:
"""
DELEGATOR = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
ACCOUNTS = "/api/v1/namespaces/{}/serviceaccounts"


class Cluster:
    """The API server, asked by its administrator."""

    def __init__(self, described):
        self.url = described["url"]
        self.session = requests.Session()
        # Whatever bundle the environment names: this cluster has its own.
        self.session.trust_env = False
        self.session.verify = described["ca_file"]
        self.session.headers["Authorization"] = f"Bearer {described['admin_token']}"

    def call(self, method, path, body=None):
        answer = self.session.request(method, self.url + path, json=body, timeout=10)
        if not answer.ok:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def account(self, namespace, name):
        self.call("POST", ACCOUNTS.format(namespace), {"metadata": {"name": name}})

    def pod(self, name):
        """A pod that runs nowhere. Returns what a token is bound to it by."""
        spec = {"serviceAccountName": "worker", "containers": [{"name": "app", "image": "example.test/app"}]}
        made = self.call("POST", "/api/v1/namespaces/shop/pods", {"metadata": {"name": name}, "spec": spec})
        return {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": made["metadata"]["uid"]}

    def delete_pod(self, name):
        self.call("DELETE", f"/api/v1/namespaces/shop/pods/{name}", {"gracePeriodSeconds": 0})

    def token(self, namespace, account, **spec):
        """A TokenRequest, as the kubelet makes one."""
        asked = {"spec": {"expirationSeconds": 600} | spec}
        return self.call("POST", f"{ACCOUNTS.format(namespace)}/{account}/token", asked)["status"]["token"]

    def let_us_review(self, may):
        if may:
            self.call("POST", DELEGATOR, {
                "metadata": {"name": "cambio"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
                "subjects": [{"kind": "ServiceAccount", "name": "cambio", "namespace": "cambio"}],
            })
        else:
            self.call("DELETE", f"{DELEGATOR}/cambio")


def eventually(ask, status):
    """What `ask` answers once it is `status`, for two seconds: the API server sees its own store through a watch, a moment later.

    Long before the ten seconds are over for which it would keep a yes.
    """
    for _ in range(20):
        answer = ask()
        if answer.status_code == status:
            break
        time.sleep(0.1)
    return answer


cache = os.environ.get("CAMBIO_APISERVER", "")
if not all((pathlib.Path(cache) / "bin" / name).exists() for name in ("etcd", "kube-apiserver")) or not cache:
    print(f"skipped: token review: no API server is built in CAMBIO_APISERVER=`{cache}`\n0 passed, 0 failed, 1 skipped")
    sys.exit(0)
tally = Tally()
folder = pathlib.Path(tempfile.mkdtemp(prefix="apiserver-", dir=os.environ.get("CAMBIO_TEST_WORK"))) / "server"
work = folder.parent.parent
broker = None
try:
    started = subprocess.run([SCRIPT, "up", cache, folder], capture_output=True, text=True, timeout=180)
    if started.returncode:
        raise SystemExit(started.stderr)
    # Where `tests/run` looks for what is to be ended, should this journey be.
    for name in ("etcd", "kube-apiserver"):
        shutil.copy(folder / f"{name}.pid", work / f"{folder.parent.name}-{name}.pid")
    described = json.loads(started.stdout)
    cluster = Cluster(described)
    for namespace in ("shop", "cambio"):
        cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    cluster.account("shop", "worker")
    cluster.account("cambio", "cambio")

    broker = Broker()
    (broker.folder / "cluster.json").write_text(json.dumps(cluster.call("GET", "/openid/v1/jwks")))
    own = broker.folder / "own-token"
    own.touch(mode=0o600)
    own.write_text(cluster.token("cambio", "cambio"))
    config = broker.folder / "cambio.yaml"
    more = ISSUER.format(audience=AUDIENCE, **described)
    config.write_text(config.read_text().replace("targets:\n", more, 1))
    site = broker.folder / "policies" / "site.yaml"
    site.write_text(site.read_text() + RULE)
    broker.start()

    def token(pod=None, **spec):
        bound = {"boundObjectRef": pod} if pod else {}
        return cluster.token("shop", "worker", **{"audiences": [AUDIENCE]} | bound | spec)

    def doctor():
        told = broker.cli("doctor", "--config", str(config), check=False).stdout
        return " ".join(next(line for line in told.splitlines() if line.startswith("token_review:")).split())

    first, second = cluster.pod("worker-1"), cluster.pod("worker-2")
    mine = token(first)
    answer = broker.exchange(mine)
    tally.check("without the right to review, nothing is granted: 503", answer.status_code == 503, answer.text)
    tally.check("and the caller may come back", answer.headers.get("Retry-After") == "5", dict(answer.headers))
    told = doctor()
    tally.check("doctor says which right is missing", " FAIL " in told and "system:auth-delegator" in told, told)
    cluster.let_us_review(True)
    answer = eventually(lambda: broker.exchange(mine), 200)
    tally.check("with it, a pod's token is exchanged", answer.status_code == 200, answer.text)
    told = doctor()
    tally.check("doctor is content, and says as whom we ask", " ok " in told and "system:serviceaccount:cambio:cambio" in told, told)
    tally.check("a token that is bound to no pod is exchanged", broker.exchange(token()).status_code == 200)

    # The API server keeps its last yes for ten seconds: only a question that it never heard shows that the pod is gone.
    tally.check("the pod's token is exchanged again", broker.exchange(mine).status_code == 200)
    cluster.delete_pod("worker-1")
    answer = eventually(lambda: broker.exchange(mine), 400)
    left = jwt.decode(mine, options={"verify_signature": False})["exp"] - time.time()
    tally.check("the pod is deleted, and its token refused at once", answer.status_code == 400, answer.text)
    tally.check("though it has minutes left", left > 500, left)
    body = answer.json()
    words = (body["error"], body["error_description"])
    tally.check("as any bad token is", words == ("invalid_request", "the subject token was not accepted"), answer.text)
    told = broker.cli("policy", "explain", body["exchange_id"], "--config", str(config), check=False).stdout
    tally.check("explain has the API server's words", "refused as `token_review`" in told and "has been invalidated" in told, told)
    tally.check("the other pod of the account goes on", broker.exchange(token(second)).status_code == 200)

    kept = token(second)
    tally.check("its token is exchanged", broker.exchange(kept).status_code == 200)
    cluster.call("DELETE", f"{ACCOUNTS.format('shop')}/worker")
    answer = eventually(lambda: broker.exchange(kept), 400)
    tally.check("the service account is deleted, and the token refused at once", answer.status_code == 400, answer.text)
    cluster.account("shop", "worker")
    answer = broker.exchange(kept)
    tally.check("one of the same name does not bring it back", answer.status_code == 400, answer.text)
    renewed = token(cluster.pod("worker-3"))
    answer = eventually(lambda: broker.exchange(renewed), 200)
    tally.check("but has tokens of its own", answer.status_code == 200, answer.text)

    ambient = cluster.token("shop", "worker")
    tally.check("a token for the API server is none for us", broker.exchange(ambient).status_code == 400)

    mine = token(cluster.pod("worker-4"))
    cluster.let_us_review(False)
    answer = eventually(lambda: broker.exchange(mine), 503)
    tally.check("the broker's right is taken away: 503, though the pod is there", answer.status_code == 503, answer.text)
    cluster.let_us_review(True)
    answer = eventually(lambda: broker.exchange(mine), 200)
    tally.check("it is given back, and the same token is good", answer.status_code == 200, answer.text)

    # As the kubelet does, long before the old one ends.
    own.write_text("not.a.token")
    tally.check("with a bad token of our own: 503", broker.exchange(mine).status_code == 503)
    own.write_text(cluster.token("cambio", "cambio") + "\n")
    tally.check("with a new one all is well, without a restart", broker.exchange(mine).status_code == 200)

    subprocess.run([SCRIPT, "down", folder], timeout=60, check=True)
    answer = broker.exchange(mine)
    tally.check("the API server is away: 503", answer.status_code == 503, answer.text)
    answer = broker.exchange(broker.issuer.token())
    tally.check("which other issuers do not feel", answer.status_code == 200, answer.text)
    counted = requests.get(f"{broker.operations}/metrics", timeout=5).text
    wanted = [f'cambio_token_reviews_total{{issuer="cluster",outcome="{outcome}"}}' for outcome in ("stands", "refused", "unavailable")]
    tally.check("and all of it was counted", all(line in counted for line in wanted), counted[-2_000:])
finally:
    if broker:
        broker.stop()
    subprocess.run([SCRIPT, "down", folder], timeout=60, check=False)
    for left in work.glob(f"{folder.parent.name}-*.pid"):
        left.unlink()
    shutil.rmtree(folder.parent, ignore_errors=True)
tally.end()
