"""A workload with nothing but `SPIFFE_ENDPOINT_SOCKET`: `cambio` has a JWT-SVID from the agent, and the broker takes it by the trust
domain's bundle. Once with a stand-in for the agent, on the gRPC of its authors; and with a real SPIRE, in the folder that
`tests/services/spire build FOLDER` has filled, as CAMBIO_SPIRE.
"""

import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

import jwt

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "services"))

import certificates
from platforms import rule_of
from standins import workload_api
from support import CAMBIO, ROOT, Broker, Tally

SCRIPT = ROOT / "tests" / "services" / "spire"
WORKER, OTHER = "ns/payments/sa/worker", "ns/payments/sa/other"
NOBODY, STRANGER = 65534, 65533
PRIVATE, OWN_NETWORK = "10.88.0.1", "CAMBIO_OWN_NETWORK"
ISSUER = """\
  - name: spiffe
    provider: spiffe
    issuer: {issuer}
    audience: "{audience}"
    keys: {keys}
targets:
"""
LIFETIME = 4
tally = Tally()


class StandIn:
    """The stand-in agent: one identity at a time, whoever asks."""

    name = "stand-in"

    def __init__(self, place):
        self.agent = workload_api.Agent(place)
        self.agent.paths = [WORKER]
        self.socket, self.issuer, self.bundle_url = self.agent.socket, workload_api.ISSUER, None
        self.bundle = json.dumps(self.agent.bundle)

    def as_somebody_without(self, run):
        self.agent.paths = []
        try:
            return run(())
        finally:
            self.agent.paths = [WORKER]

    def as_the_other(self, run):
        self.agent.paths = [OTHER]
        try:
            return run(())
        finally:
            self.agent.paths = [WORKER]

    stop = end = lambda self: self.agent.stop()


class Spire:
    """SPIRE: identities by the user that a process runs as."""

    name = "SPIRE"

    def __init__(self, place, cache):
        self.folder = place / "spire"
        if os.environ.get(OWN_NETWORK):
            certificates.authority(place / "ca.crt", place / "ca.key", "Cambio tests: bundle")
            names = f"subjectAltName=IP:{PRIVATE}\nextendedKeyUsage=serverAuth\n"
            certificates.issue(place / "bundle.crt", place / "bundle.key", place / "ca.crt", place / "ca.key", PRIVATE, names)
        self.authority = place / "ca.crt"
        told = json.loads(self.call("up", cache, self.folder))
        # Where `tests/run` looks for what is to be ended, should this journey be.
        for name in ("spire-agent", "spire-server"):
            shutil.copy(self.folder / f"{name}.pid", place.parent / f"{place.name}-{name}.pid")
        self.socket, self.issuer, self.bundle_url = pathlib.Path(told["socket"]), told["issuer"], told["bundle_url"]
        self.bundle = pathlib.Path(told["bundle"]).read_text()
        self.call("register", self.folder, WORKER, os.getuid())
        self.call("register", self.folder, OTHER, STRANGER)
        print(f"        SPIRE {told['version']}")

    def call(self, *words):
        env = os.environ | ({"BUNDLE_ADDRESS": PRIVATE} if os.environ.get(OWN_NETWORK) else {})
        done = subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=180, env=env)
        if done.returncode:
            raise SystemExit(done.stderr)
        return done.stdout

    def as_somebody_without(self, run):
        return run(as_user(NOBODY)) if os.geteuid() == 0 else None

    def as_the_other(self, run):
        return run(as_user(STRANGER)) if os.geteuid() == 0 else None

    def rotate(self):
        self.call("rotate", self.folder)

    def stop(self):
        self.call("stop-agent", self.folder)

    def end(self):
        self.call("down", self.folder)


def as_user(uid):
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")


def with_spiffe(broker, agent, keys):
    """The broker's configuration and rule for the trust domain of `agent`."""
    config = broker.folder / "cambio.yaml"
    more = ISSUER.format(issuer=agent.issuer, audience=broker.url, keys=keys)
    config.write_text(config.read_text().replace("targets:\n", more, 1))
    site = broker.folder / "policies" / "site.yaml"
    site.write_text(site.read_text() + rule_of("spiffe").replace("role: deployer", "role: reader"))
    (broker.folder / "bundle.json").write_text(agent.bundle)
    return broker


def claims_of(token):
    return jwt.decode(token.strip(), options={"verify_signature": False})


def journey(agent, place):
    home = place / "home"
    home.mkdir(mode=0o755)
    broker = with_spiffe(Broker(), agent, "{ pinned: { file: bundle.json } }")
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "SPIFFE_ENDPOINT_SOCKET": f"unix://{agent.socket}"}

    def check(sentence, holds, found=""):
        tally.check(f"{agent.name}: {sentence}", holds, found)

    def run(verb, *options, prefix=(), command=(), at=broker, **more):
        line = [*prefix, CAMBIO, verb, "--broker", at.url, *options, *(["--", *command] if command else [])]
        done = subprocess.run(line, env=env | more, cwd=home, capture_output=True, text=True, timeout=120)
        # What is on stderr ends up in logs: no token, neither theirs nor ours.
        check(f"`{verb}` shows no token", "eyJ" not in done.stderr, done.stderr)
        return done

    try:
        broker.start()
        # The entry was made a moment ago, and the agent hears of it in some seconds: nobody has to wait for that before.
        done = run("exchange", "--audience", "jwt/orders")
        token = done.stdout
        check("`exchange` has a credential with that variable alone", done.returncode == 0 and token.startswith("eyJ"), done.stderr)
        check("and says where the token is from", f"the token of a SPIFFE workload: `unix://{agent.socket}`" in done.stderr, done.stderr)
        check("about the workload", claims_of(token)["sub"].endswith(f"spiffe://acme.example/{WORKER}"), claims_of(token))
        done = run("exchange", "--audience", "jwt/orders")
        check("the agent hands out the same SVID again, and it is taken", done.returncode == 0, done.stderr)
        done = run("exchange", "--audience", "jwt/orders", KUBERNETES_SERVICE_HOST="10.0.0.1")
        check("in a pod without a token for us too", done.returncode == 0, done.stderr)

        # `exec`: for one command, and renewed while it runs.
        done = run("exec", "--hide-platform", "--audience", "jwt/orders", "--hand", "env", command=["env"])
        given = dict(line.split("=", 1) for line in done.stdout.splitlines())
        check("`exec` hands a command its credential", given.get("CAMBIO_TOKEN", "").startswith("eyJ"), done.stdout + done.stderr)
        check("and `--hide-platform` keeps the socket from it", "SPIFFE_ENDPOINT_SOCKET" not in given, given)
        script = """
import os, time
path, seen, until = os.environ["CAMBIO_TOKEN_FILE"], set(), time.time() + 15
while time.time() < until:
    seen.add(open(path).read())
    time.sleep(0.05)
print(len(seen))
"""
        done = run("exec", "--audience", "jwt/orders", "--hand", "files", "--lifetime", f"{LIFETIME}s", command=[sys.executable, "-c", script])
        check("`exec` renews what it hands to the command", done.returncode == 0 and int(done.stdout) > 3, done.stdout + done.stderr)

        # `agent`: the same, into a file.
        config = home / "agent.yaml"
        config.write_text(
            f"version: 1\nbroker: {broker.url}\ntoken: {{ platform: spiffe }}\ncredentials:\n"
            f"  - {{ name: orders, audience: jwt/orders, lifetime: {LIFETIME}s, files: [{{ path: {home}/orders.jwt, format: token }}] }}\n"
        )
        config.chmod(0o644)
        log, seen, end = home / "agent.log", set(), time.monotonic() + 20
        with open(log, "wb") as out:
            process = subprocess.Popen([CAMBIO, "agent", "--config", config], env=env, stdout=out, stderr=out)
        (place.parent / f"{place.name}-agent.pid").write_text(str(process.pid))
        while time.monotonic() < end and len(seen) < 4:
            if (home / "orders.jwt").exists():
                seen.add((home / "orders.jwt").read_text())
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        check("`agent` keeps a file fresh", process.wait(20) == 0 and len(seen) >= 4, log.read_text())
        check("and shows no token", "eyJ" not in log.read_text(), log.read_text())

        # Refusals.
        done = run("exchange", "--audience", "jwt/orders", "--token-audience", "https://somebody-else.test")
        check("an SVID for another audience is refused", done.returncode == 1 and not done.stdout, done.stderr)
        done = agent.as_the_other(lambda prefix: run("exchange", "--audience", "jwt/orders", prefix=prefix))
        if done:
            check("another workload of the trust domain gets nothing", done.returncode == 1 and not done.stdout, done.stderr)
            check("and reads what its token says", f"about `spiffe://acme.example/{OTHER}`" in done.stderr, done.stderr)
        done = agent.as_somebody_without(lambda prefix: run("exchange", "--audience", "jwt/orders", prefix=prefix))
        if done:
            told = "has no identity for this process: no identity issued" in done.stderr and "register the workload" in done.stderr
            check("a process without an identity is told what to do", done.returncode == 1 and told, done.stderr)
        else:
            tally.skip("only root can be somebody else")
        if os.geteuid() == 0:
            mode = stat.S_IMODE(agent.socket.stat().st_mode)
            agent.socket.chmod(0o700)
            done = run("exchange", "--audience", "jwt/orders", prefix=as_user(NOBODY))
            agent.socket.chmod(mode)
            check("a socket of others is said at once", done.returncode == 2 and "Permission denied" in done.stderr, done.stderr)

        # The keys from where the trust domain serves them.
        if agent.bundle_url:
            keys = f'{{ discovered: {{ jwks_uri: "{agent.bundle_url}", ca_file: {agent.authority}, private: true }} }}'
            fetching = with_spiffe(Broker(), agent, keys)
            try:
                fetching.start()
                # The first SVID for this broker is signed with a key that was made after it had fetched the others. SPIRE itself
                # publishes one long before; a name that is unknown is looked for every 30 s.
                agent.rotate()
                end = time.monotonic() + 60
                done = run("exchange", "--audience", "jwt/orders", at=fetching)
                while done.returncode and time.monotonic() < end:
                    time.sleep(3)
                    done = run("exchange", "--audience", "jwt/orders", at=fetching)
                check("the bundle endpoint is a key set, and a new key is found there", done.returncode == 0, done.stderr + fetching.tail())
            finally:
                fetching.stop()

        agent.stop()
        done = run("exchange", "--audience", "jwt/orders", "--deadline", "2s")
        check("an agent that is gone is said to be", done.returncode == 3 and "does not answer" in done.stderr, done.stderr)
    finally:
        broker.stop()


def in_a_network_of_its_own():
    """As root, in a network namespace with one private address: keys are not fetched from loopback."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))):
        return
    if not os.environ.get(OWN_NETWORK):
        if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
            return
        os.environ[OWN_NETWORK] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    for command in (["link", "set", "lo", "up"], ["address", "add", f"{PRIVATE}/32", "dev", "lo"]):
        subprocess.run(["ip", *command], check=True)


cache = os.environ.get("CAMBIO_SPIRE", "")
real = cache and all((pathlib.Path(cache) / "bin" / name).exists() for name in ("spire-agent", "spire-server"))
if real:
    in_a_network_of_its_own()
else:
    tally.skip(f"a real SPIRE: none is built in CAMBIO_SPIRE=`{cache}`")
for make in [StandIn, *([lambda place: Spire(place, cache)] if real else [])]:
    place = pathlib.Path(tempfile.mkdtemp(prefix="spiffe-", dir=os.environ.get("CAMBIO_TEST_WORK")))
    # Other users pass through it.
    place.chmod(0o711)
    agent = None
    try:
        agent = make(place)
        journey(agent, place)
    finally:
        if agent:
            agent.end()
        shutil.rmtree(place, ignore_errors=True)
tally.end()
