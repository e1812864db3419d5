"""The container image: built from scratch, holds what it should and no more, and serves with no right to anything."""

import datetime
import ipaddress
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support import ROOT, Broker, Tally
from units import calls_of

UID = 65532
IMAGE = "localhost/cambio:journey"
STATIC = ROOT / "target" / "x86_64-unknown-linux-gnu" / "release" / "cambio"


def skipped(reason):
    print(f"skipped: {reason}\n0 passed, 0 failed, 1 skipped")
    sys.exit(0)


def run(*command, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **more)


if not shutil.which("buildah"):
    skipped("buildah is not here (Debian package buildah)")
if not STATIC.exists():
    skipped("there is no static binary: `deploy/image/build --binary-only` makes it")
if os.geteuid() != 0:
    skipped("only root builds and runs containers here without more ado")

tally = Tally()
work = pathlib.Path(tempfile.mkdtemp(prefix="image-", dir=os.environ.get("CAMBIO_TEST_WORK")))
# A storage of our own: nothing is left in that of the machine. Plain copies, because it may itself be in a container.
(work / "storage.conf").write_text(
    f'[storage]\ndriver = "vfs"\ngraphroot = "{work}/store"\nrunroot = "{work}/run"\n')
os.environ["CONTAINERS_STORAGE_CONF"] = str(work / "storage.conf")
PODMAN = ["podman", "--cgroup-manager=cgroupfs", "--runtime", "runc", "--events-backend=none"]
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "host"]
NOTHING = ["--read-only", "--cap-drop=all", "--security-opt", "no-new-privileges"]


def build(*more):
    began = time.monotonic()
    built = run(ROOT / "deploy" / "image" / "build", "--tag", IMAGE, *more)
    if built.returncode != 0:
        tally.check("the image can be built", False, built.stderr[-1500:])
        tally.end()
    return run("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", IMAGE).stdout.strip(), time.monotonic() - began


def archive(path):
    """The manifest's configuration, and the members of its one layer."""
    with tarfile.open(path) as outer:
        blob = lambda digest: outer.extractfile("blobs/sha256/" + digest.removeprefix("sha256:"))
        index = json.load(outer.extractfile("index.json"))
        manifest = json.load(blob(index["manifests"][0]["digest"]))
        layers = [tarfile.open(fileobj=blob(layer["digest"])).getmembers() for layer in manifest["layers"]]
        return json.load(blob(manifest["config"]["digest"])), layers


def contents():
    tar = work / "cambio.tar"
    image, took = build("--out", tar)
    again, _ = build()
    tally.check("the same binary gives the same image", image and image == again, (image, again))
    config, layers = archive(tar)
    files = {member.name.strip("/"): member for layer in layers for member in layer if member.name.strip("/")}
    print(f"        image built in {took:.1f} s: {STATIC.stat().st_size / 2**20:.1f} MiB binary, "
          f"{sum(file.size for file in files.values()) / 2**20:.1f} MiB unpacked, {tar.stat().st_size / 2**20:.1f} MiB as an archive")
    tally.check("it holds one binary, the roots that it trusts and where names are looked up", sorted(files) == [
        "cambio", "etc", "etc/nsswitch.conf", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt"], sorted(files))
    tally.check("all of it root's, none of it to be changed, nothing of it more than it seems",
                all(file.uid == 0 and file.mode & 0o7022 == 0 and (file.isdir() or file.mode & 0o200 == 0) for file in files.values()),
                [(name, oct(file.mode), file.uid) for name, file in files.items()])
    tally.check("it is smaller than 64 MiB", sum(file.size for file in files.values()) < 64 * 2**20)
    made = config["config"]
    tally.check("it runs as a fixed user that is not root", made["User"] == f"{UID}:{UID}", made)
    tally.check("it starts the broker, and makes no volume by itself",
                made["Entrypoint"] == ["/cambio"] and made["Cmd"][0] == "serve" and not made.get("Volumes"), made)
    labels = made["Labels"]
    tally.check("it says what it is, and of which commit",
                labels["org.opencontainers.image.version"] and labels["org.opencontainers.image.revision"], labels)


def certificate(folder):
    """An authority of our own, and a certificate for the names that the container will look up."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def signed(name, issuer, key, issuer_key, *extensions):
        builder = (x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
                   .serial_number(x509.random_serial_number())
                   .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=2)))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key, hashes.SHA256())

    named = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = signed(named("journey"), named("journey"), ca_key, ca_key, (x509.BasicConstraints(ca=True, path_length=0), True))
    names = [x509.DNSName("cambio.hosts"), x509.DNSName("cambio.dns"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = signed(named("cambio"), named("journey"), key, ca_key, (x509.BasicConstraints(ca=False, path_length=None), True),
                  (x509.SubjectAlternativeName(names), False))
    pem = lambda one: one.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem(ca))
    (folder / "tls.crt").write_bytes(pem(leaf))
    (folder / "tls.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


class Names(threading.Thread):
    """A name server that knows one name: `cambio.dns` is 127.0.0.1."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.77", 53))
        self.asked = 0

    def run(self):
        while True:
            question, who = self.socket.recvfrom(512)
            end = question.index(b"\0", 12) + 5
            name, kind = question[12:end - 4], question[end - 4:end - 2]
            known = name == b"\x06cambio\x03dns\x00" and kind == b"\0\1"
            self.asked += 1
            header = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if known else b"\0\0") + b"\0\0\0\0"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if known else b""
            self.socket.sendto(header + question[12:end] + answer, who)


def place():
    """A configuration as an operator would mount it: root's, read only, the key file lent to the container's group."""
    broker = Broker()
    inside = work / "etc"
    shutil.copytree(broker.folder / "policies", inside / "policies")
    shutil.copy(broker.folder / "issuer.json", inside)
    shutil.copy(broker.folder / "kek", inside)
    certificate(inside)
    text = (broker.folder / "cambio.yaml").read_text()
    text = text.replace("data: state", "data: /var/lib/cambio").replace("state/", "/var/lib/cambio/")
    text = text.replace("anchor/cambio.note", "/var/lib/cambio/anchor/cambio.note")
    text = text.replace("tls: none", "tls: { certificate_file: tls.crt, key_file: tls.key }")
    (inside / "cambio.yaml").write_text(text)
    for file in ("cambio.yaml", "issuer.json", "policies/site.yaml", "tls.crt", "ca.pem"):
        (inside / file).chmod(0o644)
    for secret in ("kek", "tls.key"):
        os.chown(inside / secret, 0, UID)
        (inside / secret).chmod(0o440)
    # As Kubernetes shows a ConfigMap: a folder of mode 0777, read only all the same, and its files behind a link that is swapped.
    volume = inside / "policies"
    dated = volume / "..2026_11_21_00_00_00.1"
    dated.mkdir(mode=0o755)
    for file in [one for one in volume.iterdir() if one.is_file()]:
        file.rename(dated / file.name)
        file.symlink_to(f"..data/{file.name}")
    (volume / "..data").symlink_to(dated.name)
    dated.chmod(0o777)
    volume.chmod(0o777)
    state = work / "state"
    (state / "anchor").mkdir(parents=True)
    for folder in (state, state / "anchor"):
        os.chown(folder, UID, UID)
        folder.chmod(0o700)
    return broker, inside, state


def seccomp():
    """The filter of the systemd unit as one of a container: what it forbids ends the process at once."""
    profile = {"defaultAction": "SCMP_ACT_KILL_PROCESS", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}],
               "syscalls": [{"names": sorted(calls_of(ROOT / "deploy/systemd/cambio.service")), "action": "SCMP_ACT_ALLOW"}]}
    (work / "seccomp.json").write_text(json.dumps(profile))
    return ["--security-opt", f"seccomp={work}/seccomp.json"]


def serve(broker, inside, state):
    mounts = ["-v", f"{inside}:/etc/cambio:ro", "-v", f"{state}:/var/lib/cambio"]
    once = lambda *words, more=(): run(*PODMAN, "run", "--rm", *LIMITS, *NOTHING, *mounts, *more, IMAGE, *words)
    version = once("version")
    if version.returncode != 0:
        return chroot(inside, state, version.stderr)
    tally.check("`version` runs with nothing", version.stdout.startswith("cambio "), version.stderr)
    checked = once("config", "check", "/etc/cambio/cambio.yaml")
    tally.check("`config check` takes a mounted configuration: root's secrets lent by group, a folder of mode 0777 that is read only",
                checked.returncode == 0, checked.stdout + checked.stderr)
    filtered = seccomp() if shutil.which("systemd-analyze") else []
    if filtered and once("version", more=filtered).returncode != 0:
        tally.skip("the container runtime itself does not live under the unit's filter here")
        filtered = []
    names = Names()
    names.start()
    (work / "resolv.conf").write_text("nameserver 127.0.0.77\noptions timeout:1 attempts:1\n")
    log = open(work / "container.log", "ab")
    command = [*PODMAN, "run", "--rm", "--name", "cambio-journey", *LIMITS, *NOTHING, *filtered, *mounts, IMAGE,
               "serve", "--config", "/etc/cambio/cambio.yaml", "--create"]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    (work.parent / f"{work.name}.pid").write_text(str(process.pid))
    tail = lambda: (work / "container.log").read_text(errors="replace")[-1500:]
    try:
        ready = False
        end = time.monotonic() + 30
        while not ready and time.monotonic() < end and process.poll() is None:
            try:
                ready = requests.get(f"{broker.operations}/readyz", timeout=1).status_code == 200
            except requests.ConnectionError:
                time.sleep(0.1)
        tally.check("the broker in the image is ready", ready, tail())
        url = f"https://127.0.0.1:{broker.port}"
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "audience": "https://orders.test",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}
        ask = lambda: requests.post(f"{url}/token", data=form | {"subject_token": broker.issuer.token()},
                                    verify=str(inside / "ca.pem"), timeout=10)
        answer = ask()
        tally.check("and grants an exchange from outside", answer.status_code == 200, answer.text + tail())
        tally.check("two hundred of them", all(ask().status_code == 200 for _ in range(200)), tail())
        pid = run(*PODMAN, "inspect", "--format", "{{.State.Pid}}", "cambio-journey").stdout.strip()
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        field = lambda name: re.search(rf"^{name}:\s+(.*)", status, re.M)[1]
        print(f"        VmRSS {int(field('VmRSS').split()[0]) / 1024:.1f} MiB after 201 exchanges, seccomp mode {field('Seccomp')}")
        tally.check("it is nobody, and may do nothing", field("Uid").split() == [str(UID)] * 4
                    and int(field("CapEff"), 16) == int(field("CapBnd"), 16) == 0 and field("NoNewPrivs") == "1", status)
        if filtered:
            tally.check("under the system calls of the unit alone", field("Seccomp") == "2", status)

        # The client in the image: names by /etc/hosts and by DNS, roots from the bundle.
        token = work / "token"

        def exchange(host, *more):
            token.write_text(broker.issuer.token())
            token.chmod(0o644)
            return once("exchange", "--broker", f"https://{host}:{broker.port}", "--token-file", "/token",
                        "--audience", "https://orders.test", more=["-v", f"{token}:/token:ro", *more])

        ours = ["-v", f"{inside}/ca.pem:/etc/ssl/certs/ca-certificates.crt:ro"]
        hosts = exchange("cambio.hosts", "--add-host", "cambio.hosts:127.0.0.1", *ours)
        tally.check("a static binary finds names of /etc/hosts, and roots in the bundle of the image",
                    hosts.returncode == 0 and hosts.stdout, hosts.stderr)
        resolver = ["-v", f"{work}/resolv.conf:/etc/resolv.conf:ro"]
        by_dns = exchange("cambio.dns", *resolver, *ours)
        tally.check("and names by DNS", by_dns.returncode == 0 and names.asked, by_dns.stderr)
        nowhere = exchange("nobody.dns", *resolver, *ours)
        tally.check("a name that is nowhere is said to be so", nowhere.returncode == 3, nowhere.stderr)
        stranger = exchange("cambio.hosts", "--add-host", "cambio.hosts:127.0.0.1")
        tally.check("with the roots of the image alone, an authority of ours is a stranger",
                    stranger.returncode == 3 and "certificate" in stranger.stderr.lower(), stranger.stderr)
        shell = run(*PODMAN, "exec", "cambio-journey", "/bin/sh", "-c", "true")
        tally.check("there is no shell in it", shell.returncode != 0)
    finally:
        stopped = run(*PODMAN, "stop", "--time", "30", "cambio-journey")
        try:
            code = process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
    tally.check("it drains when it is stopped", stopped.returncode == 0 and code == 0, (stopped.stderr, code, tail()))
    said = (work / "container.log").read_text()
    tally.check("and was not told off as root", "runs as root" not in said and "no capabilities" in said, said[:800])
    verified = once("ledger", "verify", "--config", "/etc/cambio/cambio.yaml")
    tally.check("`ledger verify` in the image finds the ledger whole", verified.returncode == 0, verified.stdout + verified.stderr)


def chroot(inside, state, reason):
    """Where no container can be had: at least the image's own files, as its user."""
    print(f"        podman can't run here ({reason.strip()[-200:]}): buildah --isolation chroot instead")
    container = run("buildah", "from", IMAGE).stdout.strip()
    within = lambda *words: run("buildah", "run", "--isolation", "chroot", "--user", f"{UID}:{UID}",
                                "-v", f"{inside}:/etc/cambio:ro", "-v", f"{state}:/var/lib/cambio", container, "/cambio", *words)
    version = within("version")
    if version.returncode != 0:
        tally.skip(f"nothing runs a container here: {version.stderr.strip()[-200:]}")
        return
    tally.check("`version` runs in a root of its own", version.stdout.startswith("cambio "))
    checked = within("config", "check", "/etc/cambio/cambio.yaml")
    tally.check("`config check` takes a mounted configuration", checked.returncode == 0, checked.stdout + checked.stderr)
    tally.skip("serving in the image wants podman and runc")


contents()
serve(*place())
run("buildah", "rm", "--all")
run("buildah", "rmi", "--all", "--force")
shutil.rmtree(work, ignore_errors=True)
tally.end()
