"""The Action in `deploy/github-action`, run from its `action.yml` by a runner that keeps GitHub's rules, against a real broker: it
exports, hides and ends what it got, and says what is wrong in words that help."""

import json
import os
import pathlib
import re
import subprocess
import threading
import urllib.parse

import databases as db
import yaml
from actions import Job, Server, TokenEndpoint
from support import AUDIENCE, CAMBIO, POLICY, ROOT, Broker, Tally, free_ports

ACTION = ROOT / "deploy" / "github-action"
tally = Tally()

services = json.loads(pathlib.Path(os.environ["CAMBIO_SERVICES"]).read_text())["services"] if "CAMBIO_SERVICES" in os.environ else {}
targets = {f"db/{name}": services[name] for name in ("postgres15", "mariadb", "redis") if name in services}
grants = "".join(f", {{ target: {name}, role: reader, lifetime: 10m }}" for name in targets)
policy = POLICY.replace("lifetime: 15m }]", f"lifetime: 15m }}{grants}]")
broker = Broker(policy=policy, targets=db.targets(targets))
broker.start()
platform = TokenEndpoint(lambda **claims: broker.issuer.token(**claims))


def job(**variables):
    return Job(**(platform.variables() | variables))


def clean(made, *values):
    """No secret is in the log that people see."""
    secrets = [platform.bearer, *platform.handed, *values]
    return all(secret not in made.text() for secret in secrets)


def exported(at, **inputs):
    """What the Action exports, and what `cambio exchange --format env` says to a shell, of the same answer."""
    made = job()
    code, _ = made.uses(ACTION, broker=at, audience="any", **inputs)
    shell = subprocess.run(
        ["sh", "-c", f'eval "$({CAMBIO} exchange --broker {at} --audience any --format env)"; env'],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"], "GITHUB_ACTIONS": "true", **platform.variables()}, timeout=60,
    )
    told = dict(line.split("=", 1) for line in shell.stdout.splitlines() if "=" in line)
    ours = {name: value for name, value in made.set.items()}
    theirs = {name: value for name, value in told.items() if name in ours or name.startswith(("PG", "MYSQL", "AWS", "CAMBIO", "DATABASE", "REDIS"))}
    return code, ours, theirs, made


# The README's usage is the Action's: every input it names is there.
try:
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    readme = (ACTION / "README.md").read_text()
    steps = [step for text in re.findall(r"```yaml\n(.*?)```", readme, re.S) for found in [yaml.safe_load(text)]
             for one in found["jobs"].values() for step in one["steps"] if "github-action@" in step.get("uses", "")]
    used = {name for step in steps for name in step["with"]}
    tally.check("the README's jobs use inputs that there are", steps and used <= set(action["inputs"]), used)
    tally.check("and pin the Action by a commit", all("@<commit>" in step["uses"] for step in steps), steps)
    code = "".join(path.read_text() for path in [*ACTION.glob("*.js"), *ACTION.glob("lib/*.js")])
    imports = set(re.findall(r"from '([^']+)'", code))
    tally.check("the Action imports Node.js and itself alone", all(one.startswith(("node:", "./")) for one in imports), imports)

    # A token.
    made = job()
    code, outputs = made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience="jwt/orders", scope="reader")
    token = made.set.get("CAMBIO_TOKEN", "")
    tally.check("a job gets a token in CAMBIO_TOKEN", code == 0 and token.count(".") == 2, made.text())
    tally.check("the outputs name the exchange and its end", re.fullmatch(r"ex_\w+", outputs["exchange-id"])
                and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", outputs["expires-at"]) and outputs["scope"] == "reader", outputs)
    made.run('echo "careless: $CAMBIO_TOKEN"; env')
    tally.check("a step that prints it shows ***", "careless: ***" in made.log and clean(made, token), made.text())
    masked = made.raw.index(f"::add-mask::{platform.handed[-1]}")
    before = [line for line in made.raw[:masked] if not line.startswith("::add-mask::")]
    tally.check("the job's token is hidden before anything is said", not before, before)
    tally.check("after the job it says that a token has no lease", made.end() == [0] and "nothing to end" in made.text(), made.text())

    made = job()
    codes = [made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience="jwt/orders", name=name)[0] for name in ("FIRST", "SECOND")]
    tally.check("a job that needs two uses the Action twice, with a new token of its own each time", codes == [0, 0]
                and made.set["FIRST"] != made.set["SECOND"] and made.end() == [0, 0], made.text())

    # Ways out.
    made = job()
    code, outputs = made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience="jwt/orders", export="outputs", name="ORDERS")
    tally.check("`export: outputs` gives it to the step's outputs alone", outputs.get("ORDERS", "").count(".") == 2 and not made.set, made.set)
    made = job()
    code, outputs = made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience="jwt/orders", export="file")
    path = pathlib.Path(made.set["CAMBIO_CREDENTIAL_FILE"])
    modes = (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777)
    tally.check("`export: file` writes a file for this user alone", modes == (0o600, 0o700) and str(path) == outputs["file"], modes)
    tally.check("that holds the credential", path.read_text().count(".") == 2 and "CAMBIO_TOKEN" not in made.set)
    made.end()
    tally.check("and is gone after the job", not path.exists() and not path.parent.exists())
    made = job()
    code, outputs = made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience="jwt/orders", export="none", lifetime="90s")
    tally.check("`export: none` gives names alone", code == 0 and set(outputs) == {"exchange-id", "lease-id", "expires-at", "scope"} and not made.set, outputs)

    # Logins, at real servers.
    for target, server in targets.items():
        names = {"postgres": ("PGUSER", "PGPASSWORD"), "mariadb": ("MYSQL_USER", "MYSQL_PWD"), "redis": ("CAMBIO_USER", "CAMBIO_PASSWORD")}[server["kind"]]
        made = job()
        code, outputs = made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience=target, scope="reader")
        user, password = (made.set.get(name, "") for name in names)
        tally.check(f"{target}: a job gets a login that works", code == 0 and db.probe(server, user, password), made.text())
        if server["kind"] == "postgres":
            _, found = made.run(f"{server['client']} -XAtqc 'SELECT session_user' | tee -a $GITHUB_OUTPUT | sed 's/^/user=/' > \"$GITHUB_OUTPUT\"", PGSSLROOTCERT=server["ca_file"])
            tally.check(f"{target}: psql needs no more than what was exported", found == {"user": user}, found)
        made.run("env; exit 1")
        tally.check(f"{target}: no password is in the log, alone or in the URI", clean(made, password) and "***" in made.text(), made.text())
        codes = made.end()
        tally.check(f"{target}: after a job that failed it is gone from the server",
                    codes == [0] and user not in db.logins(server) and not db.probe(server, user, password), made.text())
        tally.check(f"{target}: and the log says so", f"lease `{outputs['lease-id']}` has ended" in made.text(), made.text())
        made = job()
        _, outputs = made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience=target, scope="reader", revoke="false")
        made.end()
        user = made.set[names[0]]
        tally.check(f"{target}: `revoke: false` leaves it until its time is over", user in db.logins(server) and "is good until" in made.text(), made.text())
        socket = str(broker.folder / "state" / "admin.sock")
        broker.cli("leases", "revoke", "--exchange", outputs["exchange-id"], "--reason", "end of the journey", "--socket", socket)
    if not targets:
        print("skipped: logins at real servers: CAMBIO_SERVICES is not set")

    # What is wrong, in words.
    made = Job()
    code, _ = made.uses(ACTION, broker=broker.url, audience="jwt/orders")
    tally.check("without the permission it names the line to write", code == 1 and "permissions: { id-token: write" in made.told("error"), made.text())
    tally.check("and the post step has nothing to do", made.end() == [0] and "nothing was issued" in made.text(), made.text())
    made = Job(GITHUB_EVENT_NAME="pull_request")
    made.uses(ACTION, broker=broker.url, audience="jwt/orders")
    tally.check("in a pull request it tells of forks", "one from a fork gets no token" in made.told("error"), made.text())
    made = Job(FORGEJO_ACTIONS="true")
    made.uses(ACTION, broker=broker.url, audience="jwt/orders")
    tally.check("on Forgejo it names Forgejo's line", "enable-openid-connect: true" in made.told("error"), made.text())

    platform.claims = {"environment": "staging", "sub": "repo:acme/site:environment:staging"}
    made = job()
    code, _ = made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience="jwt/orders")
    found = re.search(r"`cambio policy explain (ex_\w+)`", made.told("error"))
    tally.check("a refusal names the exchange and what to type", code == 1 and found and not made.set, made.text())
    said = broker.cli("policy", "explain", found[1], "--socket", str(broker.folder / "state" / "admin.sock"), check=False)
    tally.check("which is the line that explains it", "environment" in said.stdout, said.stdout + said.stderr)
    tally.check("and shows what the token says", "repo:acme/site:environment:staging" in made.text() and clean(made), made.text())
    platform.claims = {"environment": "evil\n::add-mask::x\n##[add-mask]y", "sub": "repo:acme/site:environment:evil\n::error::x ##[error]y"}
    made = job()
    made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience="jwt/orders")
    # `y` and `x` would be masked.
    tally.check("a claim with line feeds gives no command to the runner", not {"x", "y"} & set(made.masks) and len(made.annotations) == 1, made.raw)
    platform.claims = {}

    (away,) = free_ports(1)
    made = job()
    code, _ = made.uses(ACTION, broker=f"http://127.0.0.1:{away}", audience="jwt/orders", deadline="2s")
    tally.check("a broker that is away is named, after some tries", code == 1 and f"no answer from http://127.0.0.1:{away}: " in made.told("error")
                and "does the broker run" in made.told("error"), made.text())
    for wrong, words in {
        "http://cambio.example.com": "expected https", "https://u:p@cambio.example.com": "a user name or a password",
        "nowhere": "is no URL", f"{broker.url}?x=1": "has a query",
    }.items():
        made = job()
        before = len(platform.handed)
        code, _ = made.uses(ACTION, broker=wrong, audience="jwt/orders")
        tally.check(f"broker `{wrong}` is refused before a token is asked for", code == 1 and words in made.told("error") and len(platform.handed) == before, made.text())
    for inputs, words in (
        ({"scope": "reader\nPATH=/tmp/evil"}, "input `scope` holds a control character"), ({"lifetime": "soon"}, "expected a duration"),
        ({"export": "stdout"}, "expected one of `env`, `outputs`, `file`, `none`"), ({"name": "A B"}, "is no name of a variable"),
        ({"name": "GITHUB_TOKEN"}, "is no name of a variable"), ({"ca_file": "none.pem"}, "does `actions/checkout` come before"),
        ({"audience": ""}, "input `audience` is missing"),
    ):
        made = job()
        code, _ = made.uses(ACTION, **({"broker": broker.url, "audience": "jwt/orders"} | inputs))
        tally.check(f"{inputs} is refused in words", code == 1 and words in made.told("error") and not made.set, made.text())
    platform.busy = 2
    made = job()
    code, _ = made.uses(ACTION, broker=broker.url, token_audience=AUDIENCE, audience="jwt/orders")
    tally.check("a platform that is busy is asked again", code == 0 and platform.busy == 0, made.text())

    # What only a broker that is none would answer.
    DATABASE, AWS = "urn:cambio:token-type:database", "urn:cambio:token-type:aws"
    script = {}
    stand_in = Server(lambda handler, body: script["answer"](handler, body))

    def answering(kind, credential, **more):
        text = credential if isinstance(credential, str) else json.dumps(credential)
        answer = {"access_token": text, "issued_token_type": kind, "token_type": "N_A", "expires_in": 600, "exchange_id": "ex_1",
                  "lease": {"id": "ls_1", "token": "hush-lease"}} | more
        script["answer"] = lambda handler, body: (200, {} if handler.path == "/revoke" else answer, {})
        stand_in.asked.clear()

    login = {"user": "u", "password": "p/w%'\"$x", "host": "db.example", "port": 5432, "database": "orders", "sslmode": "verify-full",
             "uri": "postgresql://u:p%2Fw%25'%22$x@db.example/orders", "expires_at": "2027-01-15T08:15:00Z"}
    session = {"access_key_id": "AKIA1", "secret_access_key": "s+e/c", "session_token": "t==", "region": "eu-west-1", "expires_at": "2027-01-15T08:15:00Z"}
    for what, kind, credential in (
        ("postgres", DATABASE, {"kind": "postgres", **login}), ("mysql", DATABASE, {"kind": "mysql", **login}),
        ("redis", DATABASE, {"kind": "redis", **login}), ("another login", DATABASE, {"kind": "mongodb", **login}), ("aws", AWS, session),
        ("a token", "urn:ietf:params:oauth:token-type:jwt", "a.b.c"),
    ):
        answering(kind, credential)
        code, ours, theirs, made = exported(stand_in.url)
        tally.check(f"{what}: the same variables as `cambio exchange --format env`", code == 0 and ours and ours == theirs, (ours, theirs, made.text()))
        made.run("env; echo \"$DATABASE_URL$REDIS_URL\"")
        secrets = [value for name, value in ours.items() if re.search("PASSWORD|PWD|SECRET|SESSION|URL|TOKEN", name)]
        tally.check(f"{what}: nothing secret is in the log", secrets and clean(made, *secrets, "p%2Fw%25'%22", "hush-lease"), made.text())
        tally.check(f"{what}: the lease's token is hidden too", "hush-lease" in made.masks, made.masks)
        made.end()
        asked = [body for _, path, _, body in stand_in.asked if path == "/revoke"]
        tally.check(f"{what}: the post step shows the lease's token, in the body", asked == ["token=hush-lease&token_type_hint=access_token"], asked)

    answering(DATABASE, {"kind": "postgres", **login})
    made = job()
    made.uses(ACTION, broker=stand_in.url, audience="any")
    encoded = urllib.parse.quote(login["password"], safe="'")
    tally.check("a password is hidden as URIs spell it", encoded in made.masks, made.masks)

    answering(DATABASE, {"kind": "postgres", **login, "user": "u\nPATH=/tmp/evil", "password": "one\ntwo-lines"})
    made = job()
    code, _ = made.uses(ACTION, broker=stand_in.url, audience="any")
    tally.check("a value with a line feed sets no variable at all", code == 1 and not made.set and "holds a control character" in made.told("error"), made.text())
    tally.check("what can't be handed out is ended at once", any(path == "/revoke" for _, path, _, _ in stand_in.asked), stand_in.asked)
    made.run("echo two-lines")
    tally.check("each line of such a value is hidden", "two-lines" not in made.text(), made.text())
    answering("urn:cambio:token-type:x509", {"kind": "x509", "private_key": "-----BEGIN-----\nMIGHAgEA\n-----END-----", "certificate": "public"})
    made = job()
    code, _ = made.uses(ACTION, broker=stand_in.url, audience="any")
    tally.check("a kind without variables says which export carries it", code == 1 and "take `export: file`" in made.told("error"), made.text())
    made = job()
    code, outputs = made.uses(ACTION, broker=stand_in.url, audience="any", export="file")
    made.run("grep -o MIGHAgEA $CAMBIO_CREDENTIAL_FILE")
    lines = {"::add-mask::-----BEGIN-----", "::add-mask::MIGHAgEA", "::add-mask::-----END-----"}
    tally.check("`export: file` carries it, its key hidden line by line", code == 0 and lines <= set(made.raw) and "***" in made.log
                and "MIGHAgEA" not in made.text(), made.text())

    # Answers that no broker gives: none is handed out half, and what was issued with it is ended.
    DEEP = "[" * 60_000 + "]" * 60_000
    JWT = "urn:ietf:params:oauth:token-type:jwt"
    for what, kind, credential, more in (
        ("a credential that is deeper than the stack", AWS, DEEP, {}), ("one that is deep under a name", DATABASE, f'{{"password": {DEEP}}}', {}),
        ("an end that is deep", DATABASE, f'{{"kind": "postgres", "user": "u", "expires_at": {DEEP}}}', {}),
        ("no kind", "", "a.b.c", {}), ("a kind that is no text", 7, "a.b.c", {}), ("another type of token", JWT, "a.b.c", {"token_type": "mac"}),
        ("no type of token", JWT, "a.b.c", {"token_type": None}), ("no credential", JWT, "", {}),
        ("a login that lacks its password", DATABASE, {"kind": "__proto__", "user": "u"}, {}), ("a list", DATABASE, [1], {}),
    ):
        answering(kind, credential, **more)
        made = job()
        code, _ = made.uses(ACTION, broker=stand_in.url, audience="any", revoke="false")
        asked = [path for _, path, _, _ in stand_in.asked]
        tally.check(f"{what}: nothing is set, and the lease is ended at once", code == 1 and not made.set and asked == ["/token", "/revoke"]
                    and "hush-lease" in made.masks and "(exchange `ex_1`)" in made.told("error"), (code, asked, made.text()))
        answering(kind, credential, **more)
        issues = script["answer"]
        script["answer"] = lambda handler, body: issues(handler, body) if handler.path == "/token" else (500, {}, {})
        made = job()
        made.uses(ACTION, broker=stand_in.url, audience="any")
        answering(DATABASE, {})
        made.end()
        asked = [body for _, path, _, body in stand_in.asked if path == "/revoke"]
        tally.check(f"{what}: or by the post step", asked == ["token=hush-lease&token_type_hint=access_token"], (asked, made.text()))
    for what, text in (("1e17", "100000000000000000"), ("-1e300", "-1e300"), ("1e300", "1e300"), ("a text", '"soon"'), ("a depth", DEEP), ("null", "null")):
        answering(JWT, "a.b.c", expires_in="HERE")
        issues = script["answer"]
        script["answer"] = lambda handler, body: (200, json.dumps(issues(handler, body)[1]).replace('"HERE"', text).encode(), {})
        made = job()
        code, outputs = made.uses(ACTION, broker=stand_in.url, audience="any")
        codes = made.end()
        asked = [path for _, path, _, _ in stand_in.asked]
        tally.check(f"`expires_in` that is {what}: no end is told, and the lease is ended with the job", code == 0 and outputs["expires-at"] == ""
                    and "until" not in made.text() and codes == [0] and asked == ["/token", "/revoke"], (code, outputs, asked, made.text()))
    answering(DATABASE, {"kind": "constructor", **login, "more": [{"pem": ["inner-1", ["inner-2"]]}]})
    made = job()
    code, _ = made.uses(ACTION, broker=stand_in.url, audience="any")
    tally.check("a kind that is the name of something in JavaScript is a kind like any other", code == 0 and made.set["CAMBIO_USER"] == "u", made.text())
    tally.check("and a secret is hidden wherever it is", {"inner-1", "inner-2"} <= set(made.masks), made.masks)

    # What an earlier step says in the place of the Action's state.
    def planted(folder, **state):
        """A job in which an earlier step set `STATE_…`."""
        made = job()
        victim = made.folder / folder
        victim.mkdir()
        (victim / "precious").touch()
        nonce = "0123456789abcdef" * 2
        (made.folder / "temp" / f"cambio-{nonce}").symlink_to(victim)
        state = {"folder": victim, "broker": stand_in.url, "lease_token": "theirs", "exchange_id": "ex_2", "nonce": nonce} | state
        for name, value in state.items():
            made.run(f'echo "STATE_{name}={value}" >> "$GITHUB_ENV"')
        stand_in.asked.clear()
        return made, victim / "precious"

    made, precious = planted("victim")
    made.uses(ACTION, broker="nowhere", audience="any")
    codes = made.end()
    tally.check("state that an earlier step planted is overruled, also where the Action fails at once", codes == [0] and precious.exists()
                and not stand_in.asked and "nothing was issued" in made.text(), (stand_in.asked, made.text()))
    post = ["node", str(ACTION / "post.js")]
    for nonce in ("0123456789abcdef" * 2, "../../victim", "..", "", ".", "/../victim", "0123456789abcdef" * 2 + "/"):
        made, precious = planted("victim", nonce=nonce)
        (made.folder / "temp" / "cambio-").mkdir()
        (made.folder / "temp" / "cambio-" / "keep").touch()
        made._step(post, {})
        tally.check(f"nonce `{nonce}`: nothing is removed that is none of ours, be it behind a link", precious.exists()
                    and (made.folder / "temp" / "cambio-" / "keep").exists() and (made.folder / "temp" / f"cambio-{'0123456789abcdef' * 2}").is_symlink(), made.text())
    made, precious = planted("victim", broker="http://broker.example")
    code, _, _ = made._step(post, {})
    tally.check("a broker in state is https or this machine, too", code == 0 and "expected https" in made.told("warning"), made.text())
    answering(JWT, "a.b.c")
    made = job()
    paths = [pathlib.Path(made.uses(ACTION, broker=stand_in.url, audience="any", export="file")[1]["file"]) for _ in range(2)]
    shapes = all(re.fullmatch(r"cambio-[0-9a-f]{32}", path.parent.name) and path.parent.parent == made.folder / "temp" for path in paths)
    there = all(path.exists() for path in paths)
    made.end()
    tally.check("each use has a folder of its own in RUNNER_TEMP, and all are gone after the job", shapes and there
                and not any(path.parent.exists() for path in paths), paths)
    made = job()
    _, outputs = made.uses(ACTION, broker=stand_in.url, audience="any", export="file")
    shape = pathlib.Path(outputs["file"]).parent
    (shape / "credential").unlink()
    shape.rmdir()
    shape.symlink_to(made.folder / "work")
    stand_in.asked.clear()
    codes = made.end()
    tally.check("a link in the place of the folder is left alone, and the lease is ended", codes == [0] and (made.folder / "work").exists()
                and shape.is_symlink() and [path for _, path, _, _ in stand_in.asked] == ["/revoke"], made.text())

    def once(status, content, headers=None):
        counted = {"n": 0}

        def answer(handler, body):
            counted["n"] += 1
            return status, content, headers or {}
        script["answer"] = answer
        made = job()
        code, _ = made.uses(ACTION, broker=stand_in.url, audience="any", deadline="3s")
        return code, counted["n"], made

    code, asked, made = once(302, {}, {"location": "http://127.0.0.1:1/"})
    tally.check("a redirect is not followed", code == 1 and asked == 1 and "redirects are not followed" in made.told("error"), made.text())
    code, asked, made = once(200, None)
    tally.check("a lost answer is not asked for again", code == 1 and asked == 1 and "may be used up" in made.told("error"), (asked, made.text()))
    code, asked, made = once(503, {"error": "temporarily_unavailable", "error_description": "full"}, {"retry-after": "1"})
    tally.check("`Retry-After` says that the token is unspent", code == 1 and asked >= 2 and "full" in made.told("error"), (asked, made.text()))
    code, asked, made = once(503, {"error": "server_error"})
    tally.check("without it nothing is asked again", code == 1 and asked == 1, (asked, made.text()))
    code, asked, made = once(200, b"{" + b" " * 300_000 + b"}")
    tally.check("an answer without end is cut off", code == 1 and "more than 262144 bytes" in made.told("error"), made.text())
    code, asked, made = once(400, {"error": "x\n::error::y", "error_description": "a\r\n::add-mask::the", "exchange_id": "ex\n2"})
    tally.check("a broker's words are one line of the log", len(made.annotations) == 1 and "the" not in made.masks, made.raw)
    # A job that is cancelled while the broker answers.
    arrived, go_on = threading.Event(), threading.Event()
    answering(DATABASE, {"kind": "postgres", **login})
    issues = script["answer"]

    def slow(handler, body):
        if handler.path == "/token":
            arrived.set()
            go_on.wait(10)
        return issues(handler, body)

    script["answer"] = slow
    threading.Timer(1, go_on.set).start()
    made = job()
    code, _ = made.uses(ACTION, cancel=arrived, broker=stand_in.url, audience="any", revoke="false")
    asked = [path for _, path, _, _ in stand_in.asked]
    tally.check("what comes after the job was cancelled is ended, and handed to nobody", code == 1 and not made.set
                and asked == ["/token", "/revoke"] and "cancelled by SIGINT" in made.told("error"), (asked, made.text()))
    answering(DATABASE, {"kind": "postgres", **login, "user": "u\n"})
    issues = script["answer"]
    script["answer"] = lambda handler, body: issues(handler, body) if handler.path == "/token" else (500, {}, {})
    made = job()
    made.uses(ACTION, broker=stand_in.url, audience="any", revoke="false")
    answering(DATABASE, {})
    made.end()
    asked = [path for _, path, _, _ in stand_in.asked]
    tally.check("what could not be ended at once the post step ends", asked == ["/revoke"], (asked, made.text()))

    answering(DATABASE, {"kind": "postgres", **login})
    made = job()
    made.uses(ACTION, broker=stand_in.url, audience="any")
    script["answer"] = lambda handler, body: (503, {"error": "temporarily_unavailable", "error_description": "the revocation is recorded and goes on"}, {"retry-after": "15"})
    codes = made.end()
    tally.check("a revocation that goes on is a warning", codes == [0] and "the broker goes on trying" in made.told("warning"), made.text())
    answering(DATABASE, {"kind": "postgres", **login})
    made = job()
    made.uses(ACTION, broker=stand_in.url, audience="any")
    script["answer"] = lambda handler, body: (404, {"error": "not_found"}, {})
    codes = made.end()
    warned = made.told("warning")
    tally.check("one that failed says until when it is good, and what to type", codes == [0] and "2027-01-15T08:15:00Z" in warned
                and "`cambio leases revoke --exchange ex_1" in warned, made.text())
    stand_in.end()

    # TLS: an authority of one's own, as docs/operating.md makes it.
    folder = broker.folder / "tls"
    folder.mkdir()
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    for line in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr -subj /CN=cambio",
        "x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out tls.crt",
    ):
        subprocess.run(["openssl", *line.split()], cwd=folder, check=True, capture_output=True)
    stand_in = Server(lambda handler, body: script["answer"](handler, body), tls=(folder / "tls.crt", folder / "tls.key"))
    answering(DATABASE, {"kind": "postgres", **login})
    made = job(NODE_TLS_REJECT_UNAUTHORIZED="0")
    code, _ = made.uses(ACTION, broker=stand_in.url, audience="any", deadline="3s")
    tally.check("an authority that nobody knows is refused, whatever a variable says", code == 1 and not made.set and not stand_in.asked
                and "name that one with `ca-file`" in made.told("error"), made.text())
    made = job(NODE_EXTRA_CA_CERTS=str(folder / "ca.pem"), SSL_CERT_FILE=str(folder / "ca.pem"))
    code, _ = made.uses(ACTION, broker=stand_in.url, audience="any", deadline="3s")
    tally.check("one that an earlier step has Node.js trust is refused", code == 1 and not made.set and not stand_in.asked
                and "name that one with `ca-file`" in made.told("error"), made.text())
    enterprise = Server(lambda handler, body: (200, {"value": "a.b.c"}, {}), tls=(folder / "tls.crt", folder / "tls.key"))
    made = job(ACTIONS_ID_TOKEN_REQUEST_URL=f"{enterprise.url}/?api-version=2")
    code, _ = made.uses(ACTION, broker=stand_in.url, audience="any", deadline="3s")
    tally.check("and so is a platform of such an authority, in words", code == 1 and not enterprise.asked and "name that one with `ca-file`" in made.told("error"), made.text())
    (made.folder / "work" / "ca.pem").write_text((folder / "ca.pem").read_text())
    code, _ = made.uses(ACTION, broker=stand_in.url, audience="any", ca_file="ca.pem")
    tally.check("`ca-file` is for the platform, too", code == 0 and made.set.get("PGUSER") == "u", made.text())
    enterprise.end()
    made = job(HTTP_PROXY="http://127.0.0.1:1", HTTPS_PROXY="http://127.0.0.1:1", https_proxy="http://127.0.0.1:1", NODE_USE_ENV_PROXY="1")
    (made.folder / "work" / "ca.pem").write_text((folder / "ca.pem").read_text())
    code, _ = made.uses(ACTION, broker=stand_in.url, audience="any", ca_file="ca.pem")
    tally.check("one that `ca-file` names is trusted, and no proxy that a variable names is taken", code == 0 and made.set.get("PGUSER") == "u", made.text())
    (made.folder / "work" / "ca.pem").unlink()
    codes = made.end()
    tally.check("and in the post step too, where the checkout is gone", codes == [0] and "lease `ls_1` has ended" in made.text(), made.text())
    stand_in.end()
finally:
    broker.stop()
    platform.end()
tally.end()
