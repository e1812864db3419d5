"""What lies in `deploy/`: units of systemd and the system calls that they allow, alerts, dashboard, Terraform modules; and what
the process itself says and refuses at its start."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import hcl2
import yaml

from support import CAMBIO, ROOT, Broker, Tally
from units import calls_of, settings

tally = Tally()
work = pathlib.Path(__import__("tempfile").mkdtemp(prefix="deploy-", dir=os.environ.get("CAMBIO_TEST_WORK")))
SYSTEMD = ROOT / "deploy" / "systemd"


def run(*command, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **more)


def have(*tools):
    for tool in tools:
        if not shutil.which(tool):
            tally.skip(f"{tool} is not here")
            return False
    return True


def units():
    if not have("systemd-analyze"):
        return
    for unit in ("cambio.service", "cambio-agent.service"):
        scored = run("systemd-analyze", "security", "--offline=yes", "--threshold=15", SYSTEMD / unit)
        score = re.search(r"exposure level for \S+: ([0-9.]+)", scored.stdout)
        print(f"        {unit}: exposure {score and score[1]}")
        tally.check(f"{unit} has an exposure of at most 1.5", scored.returncode == 0 and score, scored.stdout[-400:])
        # As installed, but for the place of the binary.
        there = work / unit
        there.write_text((SYSTEMD / unit).read_text().replace("/usr/bin/cambio", CAMBIO))
        verified = run("systemd-analyze", "verify", there)
        tally.check(f"systemd finds nothing wrong with {unit}", verified.returncode == 0 and not verified.stderr.strip(),
                    verified.stdout + verified.stderr)
    if have("systemd-sysusers"):
        dry = run("systemd-sysusers", "--dry-run", SYSTEMD / "cambio.sysusers.conf")
        tally.check("the users of the units can be made", dry.returncode == 0, dry.stdout + dry.stderr)


def system_calls():
    """A whole life under strace: start, reload, exchanges, refusals, an offline tool beside it, drain."""
    if not have("systemd-analyze", "strace"):
        return
    unit = SYSTEMD / "cambio.service"
    allowed = calls_of(unit)
    families = set(settings(unit, "RestrictAddressFamilies")[0].split())
    broker = Broker()
    trace = work / "trace"
    strace = ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(trace)]
    binary = None
    if os.geteuid() == 0:
        # As the unit runs it: not as root, for whom SQLite gives files away.
        binary = work / "cambio"
        shutil.copy(CAMBIO, binary)
        for folder in (work, work.parent):
            folder.chmod(folder.stat().st_mode | 0o011)
        run("chown", "-R", "nobody:", broker.folder, check=True)
        strace += ["-u", "nobody"]
    try:
        broker.start(deadline=60.0, prefix=strace, binary=binary)
        granted = broker.exchange(broker.issuer.token()).status_code
        broker.exchange("no.token.atall")
        pid = int(run("pgrep", "-P", broker.process.pid).stdout.split()[0])
        os.kill(pid, signal.SIGHUP)
        time.sleep(3)
        granted = granted if broker.exchange(broker.issuer.token()).status_code == 200 else 0
        os.kill(pid, signal.SIGTERM)
        broker.process.wait(60)
    finally:
        broker.stop()
    said = trace.read_text(errors="replace")
    tally.check("the broker lives under strace", granted == 200 and broker.process.returncode == 0, broker.tail())
    # From the first line that is not the loader's: what comes after `execve`, which systemd itself makes.
    calls = set(re.findall(r"^\d+ +(?:<\.\.\. )?([a-z_0-9]+)(?:\(| resumed)", said, re.M)) - {"execve"}
    print(f"        {len(calls)} different system calls, {len(allowed)} allowed")
    tally.check("the unit allows every system call that a broker makes", len(calls) > 40 and calls <= allowed, sorted(calls - allowed))
    used = set(re.findall(r"\bsocket\((AF_[A-Z0-9]+)", said))
    # glibc asks NETLINK which addresses there are before it sorts answers, and does without it where it may not.
    tally.check("and every family of addresses", used - {"AF_NETLINK"} <= families, used)
    writable_code = [line for line in said.splitlines()
                     if ("mprotect(" in line and "PROT_EXEC" in line) or "PROT_WRITE|PROT_EXEC" in line]
    tally.check("no memory is both written and run", not writable_code, writable_code[:3])
    tally.check("a filter that forbids what it makes is seen", not calls <= allowed - {"epoll_wait", "epoll_pwait", "openat"})


def start():
    """What a service manager hears, what the log says of the hardening, and what is refused."""
    broker = Broker()
    config = broker.folder / "cambio.yaml"
    config.chmod(0o664)
    refused = broker.cli("serve", "--create", "--config", str(config), check=False)
    tally.check("k12 a configuration that its group may write to is not served, and told how to mend",
                refused.returncode == 2 and f"{config}:1:1: the configuration has mode 0664: its group may write" in refused.stderr
                and "hint: chmod go-w it" in refused.stderr, refused.stderr)
    config.chmod(0o644)
    (broker.folder / "kek").chmod(0o640)
    refused = broker.cli("serve", "--create", "--config", str(config), check=False)
    tally.check("k12 nor one whose key file others may read",
                refused.returncode == 2 and "chmod 0600 it" in refused.stderr, refused.stderr)
    (broker.folder / "kek").chmod(0o600)
    tally.check("k12 and nothing was made before that", not list((broker.folder / "state").iterdir()))

    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(work / "notify"))
    manager.settimeout(10)
    os.environ["NOTIFY_SOCKET"] = str(work / "notify")
    unlimited = ["prlimit", "--memlock=unlimited"]
    unlimited = unlimited if shutil.which("prlimit") and run(*unlimited, "true").returncode == 0 else []
    try:
        broker.start(prefix=unlimited)
        heard = manager.recv(100).decode()
        tally.check("the service manager is told when it serves", heard.startswith("READY=1\n"), heard)
        status = pathlib.Path(f"/proc/{broker.process.pid}/status").read_text()
        field = lambda name: int(re.search(rf"^{name}:\s+(\d+)", status, re.M)[1])
        tally.check("k12 no new privileges", field("NoNewPrivs") == 1, status)
        if unlimited:
            tally.check("k12 memory is locked where nothing limits it", field("VmLck") > 0, status)
        else:
            tally.skip("this machine lets nobody lift the limit of locked memory")
        print(f"        VmRSS {field('VmRSS') // 1024} MiB, VmLck {field('VmLck') // 1024} MiB after the start")
        broker.process.terminate()
        heard = manager.recv(100).decode()
        tally.check("and when it drains", heard.startswith("STOPPING=1\n"), heard)
        code = broker.process.wait(20)
        tally.check("which ends well", code == 0, code)
    finally:
        os.environ.pop("NOTIFY_SOCKET")
        broker.stop()
    log = (broker.folder / "broker.log").read_text()
    held = next((line for line in log.splitlines() if "this process:" in line), "")
    swaps = "memory never swapped" if unlimited else "memory may be swapped"
    tally.check("one line of the log tells what hardening holds",
                f"no core dumps, not dumpable, no new privileges, umask 0077, {swaps}" in held, held or log[:400])
    tally.check("root is told off loudly, and nobody else", ("runs as root" in log) == (os.geteuid() == 0))


METRIC = re.compile(r"\bcambio_[a-z_]+")


def metrics():
    """Name → labels → the words of its row, from docs/metrics.md and docs/agent.md."""
    found = {}
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        row = re.match(r"\| `(cambio_[a-z_]+)` \| (\w+) \|([^|]*)\| (.*) \|$", line)
        if not row:
            continue
        name, kind, labels, words = row.groups()
        exposed = {"counter": [f"{name}_total"], "gauge": [name], "histogram": [f"{name}_{part}" for part in ("bucket", "sum", "count")]}
        for one in exposed[kind]:
            found[one] = (set(re.findall(r"`(\w+)`", labels)) | ({"le"} if one.endswith("_bucket") else set()), kind, words)
    # The agent's page names them as they are exposed.
    for line in (ROOT / "docs" / "agent.md").read_text().splitlines():
        row = re.match(r"\| `(cambio_agent_[a-z_]+)` \|([^|]*)\| (.*) \|$", line)
        if row:
            name, labels, words = row.groups()
            found[name] = (set(re.findall(r"`(\w+)`", labels)), "counter" if name.endswith("_total") else "gauge", words)
    return found


def faults(expression, known):
    """What a PromQL expression names that does not exist."""
    wrong = []
    for name in METRIC.findall(re.sub(r'"[^"]*"', '""', expression)):
        if name not in known:
            wrong.append(f"no metric {name}")
    for name, selected in re.findall(r"\b(cambio_[a-z_]+)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", selected)):
            if name in known and label not in known[name][0] | {"job", "instance"}:
                wrong.append(f"{name} has no label {label}")
    grouped = re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", expression)
    labels = set().union(*(known[name][0] for name in METRIC.findall(expression) if name in known)) | {"job", "instance"}
    for label in {label.strip() for group in grouped for label in group.split(",")}:
        if label not in labels:
            wrong.append(f"grouped by {label}, which none of its metrics has")
    return wrong


def rules():
    known = metrics()
    tally.check("docs/metrics.md lists metrics", len(known) > 20, len(known))
    path = ROOT / "deploy" / "prometheus" / "cambio.rules.yaml"
    groups = yaml.safe_load(path.read_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"]]
    wrong = [(rule["alert"], fault) for rule in alerts for fault in faults(rule["expr"], known)]
    tally.check("alerts name only metrics and labels that there are", not wrong, wrong)
    # What stands in quotes must be a word that the page has for that metric, a reason code of ours, or free.
    reasons = set(re.findall(r'=> "([a-z_]+)"', (ROOT / "src" / "refusal.rs").read_text()))
    strange = []
    for rule in alerts:
        for name, label, value in re.findall(r'(cambio_\w+)\{[^}]*?(\w+)=~?"([^"]*)"', rule["expr"]):
            words = set(re.findall(r"`(\w+)`", known[name][2])) | (reasons if label == "reason" else set())
            strange += [(rule["alert"], label, one) for one in value.split("|") if one not in words]
    tally.check("and only values that there are", not strange, strange)
    told = all(rule["annotations"].get("summary") and rule["labels"]["severity"] in ("page", "ticket") for rule in alerts)
    tally.check("each alert says what is wrong, and how urgent it is", told)
    tested = yaml.safe_load((path.parent / "cambio.rules.test.yaml").read_text())["tests"]
    fires = {it["alertname"] for test in tested for it in test["alert_rule_test"] if it.get("exp_alerts")}
    print(f"        {len(alerts)} alerts, {len(fires)} of them seen to fire in a test")
    silent = {it["alertname"] for it in tested[0]["alert_rule_test"]}
    tally.check("each alert is silent while all is well", silent == {rule["alert"] for rule in alerts}, silent)
    tally.check("a metric, a label or a group that is not there is seen",
                faults('cambio_nothing_total', known) and faults('cambio_leases{colour="red"}', known)
                and faults("sum by (colour) (cambio_leases)", known))
    if have("promtool"):
        checked = run("promtool", "check", "rules", path)
        tally.check("promtool reads the rules", checked.returncode == 0, checked.stdout + checked.stderr)
        tested = run("promtool", "test", "rules", path.parent / "cambio.rules.test.yaml")
        tally.check("and sees each alert fire and be silent as written", tested.returncode == 0, tested.stdout + tested.stderr)


def dashboard():
    board = json.loads((ROOT / "deploy" / "grafana" / "cambio.json").read_text())
    known, panels = metrics(), board["panels"]
    variables = {variable["name"] for variable in board["templating"]["list"]}
    ids = [panel["id"] for panel in panels]
    tally.check("every panel has an id of its own", len(ids) == len(set(ids)) and len(ids) > 20)
    tally.check("a title, and the data source that is chosen above",
                all(panel["title"] and panel["datasource"]["uid"] == "${datasource}" for panel in panels) and "datasource" in variables)
    taken, clash = {}, []
    for panel in panels:
        at = panel["gridPos"]
        if at["x"] + at["w"] > 24:
            clash.append((panel["title"], "sticks out"))
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                if taken.setdefault((x, y), panel["title"]) != panel["title"]:
                    clash.append((panel["title"], taken[x, y]))
    tally.check("no panel lies over another", not clash, clash[:3])
    wrong, bad_variables, expressions = [], set(), []
    for panel in panels:
        targets = panel.get("targets", [])
        if panel["type"] != "row" and (not targets or len({one["refId"] for one in targets}) != len(targets)):
            wrong.append((panel["title"], "queries"))
        for target in targets:
            expressions.append(target["expr"])
            wrong += [(panel["title"], fault) for fault in faults(target["expr"], known)]
            bad_variables |= set(re.findall(r"\$\{?(\w+)", target["expr"])) - variables - {"__rate_interval"}
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            labels = set().union(*(known[name][0] for name in METRIC.findall(target["expr"]) if name in known))
            wrong += [(panel["title"], f"legend of {name}") for name in named - labels - {"instance"}]
    tally.check("panels name only metrics and labels that there are", not wrong, wrong)
    tally.check("and only variables that there are", not bad_variables, bad_variables)
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in known}
    unseen = {name for name in families if not any(name in it for it in expressions)}
    tally.check("every metric is on the dashboard", not unseen, unseen)
    if have("promtool"):
        # PromQL, judged by Prometheus itself, with the variables filled in.
        plain = [re.sub(r"\$__rate_interval", "5m", it).replace("$instance", ".*").replace("$job", "cambio") for it in expressions]
        file = work / "panels.yaml"
        named = [{"record": f"panel:{index}", "expr": it} for index, it in enumerate(plain)]
        file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": named}]}))
        checked = run("promtool", "check", "rules", file)
        tally.check("every query of the dashboard is PromQL", checked.returncode == 0, checked.stdout + checked.stderr)


# What the clouds would say, for the outputs alone.
STUBS = {
    "aws": ({"issuer": "https://cambio.test", "granted_by": ["site.yaml"],
             "roles": {"deploy": {"subjects": ["github:repository_id:1296269"]}, "read": {"subjects": ["github:repository_id:7"]}}},
            'aws_iam_role = { role = { for name, _ in var.roles : name => { arn = "arn:aws:iam::123456789012:role/cambio-${name}" } } }\n'
            'data = { aws_region = { here = { name = "eu-central-1" } } }\n'),
    "google": ({"issuer": "https://cambio.test", "project": "acme-prod", "granted_by": ["site.yaml"], "roles": {"deploy": {}}},
               'google_service_account = { role = { for name, _ in var.roles : name => { email = "cambio-${name}@acme-prod.iam.gserviceaccount.com" } } }\n'
               'data = { google_project = { this = { number = "123456" } } }\n'),
    "azure": ({"issuer": "https://cambio.test", "granted_by": ["site.yaml"], "roles": {"deploy": {}}},
              'azuread_application = { role = { for name, _ in var.roles : name => { client_id = "5d0c4a7b-8f2e-4c9d-8e7a-6b511c9d0e7a" } } }\n'
              'data = { azuread_client_config = { this = { tenant_id = "0b1f6a52-7c1d-4f0e-9a51-2f6f0c7f2a11" } } }\n'
              'subjects = { for name, _ in var.roles : name => "cambio:${var.environment}:${name}" }\n'),
}
REFUSED = {
    "aws": [{"issuer": "http://cambio.test"}, {"issuer": "https://cambio.test/"}, {"roles": {}}, {"target": "AWS prod"},
            {"roles": {"deploy": {"subjects": []}}}, {"roles": {"deploy": {"subjects": ["github:repository_id:*"]}}},
            {"roles": {"deploy": {"subjects": ["github:a:1"], "max_session_duration": 900}}}, {"granted_by": ["../site.yaml"]}],
    "google": [{"issuer": "cambio.test"}, {"project": "123456"}, {"pool": "gcp-cambio"}, {"roles": {"Deploy": {}}}],
    "azure": [{"issuer": "https://cambio.test/"}, {"roles": {}}, {"roles": {"deploy": {"token_scope": "https://graph.microsoft.com/User.Read"}}},
              {"roles": {"deploy": {"assignments": [{"role": "Reader", "scope": "subscriptions/1"}]}}}],
}


def terraform():
    folder = ROOT / "deploy" / "terraform"
    parsed = {}
    for file in sorted(folder.glob("*/*.tf")):
        with open(file) as text:
            parsed[file] = hcl2.load(text)
    bare = lambda name: name.strip('"')
    tally.check("every Terraform file parses", len(parsed) == 13, sorted(map(str, parsed)))
    for module in STUBS:
        inside = {file.name: tree for file, tree in parsed.items() if file.parent.name == module}
        variables = {bare(name): body for one in inside["variables.tf"]["variable"] for name, body in one.items()}
        tally.check(f"{module}: every variable says what it is, and what it may be",
                    all("description" in body and ("validation" in body) for body in variables.values()), variables.keys())
        pinned = re.findall(r'\n +version += "(.*)"', (folder / module / "versions.tf").read_text())
        tally.check(f"{module}: every provider has a lowest and a highest version",
                    pinned and all(re.fullmatch(r">= [\d.]+, < [\d.]+", one) for one in pinned), pinned)
        outputs = {bare(name) for one in inside["outputs.tf"]["output"] for name in one}
        tally.check(f"{module}: tells what belongs into cambio.yaml", "cambio_yaml" in outputs, outputs)
    tool = next((name for name in ("terraform", "tofu") if shutil.which(name)), None)
    if not tool:
        tally.skip("neither terraform nor tofu is here")
        return
    environment = os.environ | {"TF_CLI_CONFIG_FILE": "/dev/null", "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    checked = run(tool, "fmt", "-check", "-recursive", "-diff", folder, env=environment)
    tally.check("Terraform is formatted", checked.returncode == 0, checked.stdout + checked.stderr)
    # No provider can be had here; but variables and outputs need none: with what the clouds would say as locals they are
    # evaluated by Terraform itself.
    targets = []
    for module, (variables, stub) in STUBS.items():
        there = work / module
        there.mkdir()
        shutil.copy(folder / module / "variables.tf", there)
        text = (folder / module / "outputs.tf").read_text()
        text = re.sub(r'(?<![.\w"])(data\.|aws_|google_|azuread_|azurerm_)', r"local.\1", text)
        (there / "outputs.tf").write_text(re.sub(r"\n +depends_on .*", "", text))
        (there / "stub.tf").write_text(f"locals {{\n{stub}}}\n")

        def apply(changed):
            (there / "terraform.tfvars.json").write_text(json.dumps(variables | changed))
            return run(tool, "apply", "-auto-approve", "-no-color", "-input=false", cwd=there, env=environment)

        run(tool, "init", "-backend=false", "-no-color", cwd=there, env=environment)
        applied = apply({})
        made = json.loads(run(tool, "output", "-json", cwd=there, env=environment).stdout or "{}")
        tally.check(f"{module}: the outputs can be told", applied.returncode == 0 and "cambio_yaml" in made, applied.stderr[-600:])
        targets.append(made.get("cambio_yaml", {}).get("value", ""))
        accepted = [changed for changed in REFUSED[module] if "Invalid value for variable" not in apply(changed).stderr]
        tally.check(f"{module}: what can't work is refused before anything is made", not accepted, accepted)
    broker = Broker(targets="".join("  " + line + "\n" for target in targets for line in target.splitlines()))
    config = broker.folder / "cambio.yaml"
    config.write_text(config.read_text().replace("environment: test", "environment: prod"))
    checked = broker.cli("config", "check", str(config), check=False)
    tally.check("and Cambio takes what the modules tell", checked.returncode == 0, checked.stdout + checked.stderr + config.read_text())


units()
rules()
dashboard()
terraform()
start()
system_calls()
shutil.rmtree(work, ignore_errors=True)
tally.end()
