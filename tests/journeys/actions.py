"""A GitHub Actions runner as far as a JavaScript action can see one: inputs, files, commands, masks, state, post steps. And the
two servers that a job meets: the endpoint that hands out its token, and a broker that says whatever a test wants it to."""

import http.server
import json
import os
import pathlib
import re
import secrets
import signal
import ssl
import subprocess
import tempfile
import threading
import urllib.parse

import yaml

# What the runner lets no step set.
BLOCKED = re.compile(r"NODE_OPTIONS$|GITHUB_|RUNNER_", re.IGNORECASE)


class Job:
    """One job: its log, its masks, and the variables that its steps set."""

    def __init__(self, **variables):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="job-", dir=os.environ.get("CAMBIO_TEST_WORK")))
        (self.folder / "temp").mkdir()
        (self.folder / "work").mkdir()
        self.variables = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "CI": "true", "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": "push", "GITHUB_WORKSPACE": str(self.folder / "work"), "RUNNER_TEMP": str(self.folder / "temp"),
        } | variables
        self.set, self.masks, self.log, self.raw = {}, [], [], []
        self.annotations, self.posts = [], []

    def uses(self, folder, cancel=None, **inputs):
        """Runs an action's main step, as its `action.yml` says; `cancel`: an event at which the job is cancelled. Returns (exit code,
        outputs)."""
        action = yaml.safe_load((folder / "action.yml").read_text())
        known = action["inputs"]
        unknown = {name.replace("_", "-") for name in inputs} - set(known)
        assert not unknown, f"no such input: {unknown}"
        given = {name: str(one.get("default", "")) for name, one in known.items()}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        variables = {f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in given.items()}
        runs = action["runs"]
        assert re.fullmatch(r"node(20|24)", runs["using"]) and runs["post-if"] == "always()"
        code, outputs, state = self._step(["node", str(folder / runs["main"])], variables, cancel)
        # Last in, first out, after all other steps, whatever became of them.
        kept = {f"STATE_{name}": value for name, value in state.items()}
        self.posts.insert(0, (["node", str(folder / runs["post"])], variables | kept))
        return code, outputs

    def run(self, script, **variables):
        """A `run:` step. Returns (exit code, outputs)."""
        return self._step(["bash", "-e", "-c", script], variables)[:2]

    def end(self):
        """The post steps. Returns their exit codes."""
        return [self._step(command, variables)[0] for command, variables in self.posts]

    def text(self):
        """The log, as people see it."""
        return "\n".join(self.log)

    def told(self, level):
        return "\n".join(text for found, text in self.annotations if found == level)

    def _step(self, command, variables, cancel=None):
        files = {name: self.folder / "temp" / f"{name}-{secrets.token_hex(8)}" for name in ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_STATE")}
        for path in files.values():
            path.touch()
        env = self.set | self.variables | variables | {name: str(path) for name, path in files.items()}
        process = subprocess.Popen(command, env=env, cwd=self.folder / "work", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if cancel and cancel.wait(60):
            process.send_signal(signal.SIGINT)
        for line in process.communicate(timeout=120)[0].split("\n"):
            self._line(line.rstrip("\r"))
        found = {name: pairs(path.read_text()) for name, path in files.items()}
        for path in files.values():
            path.unlink()
        self.set |= {name: value for name, value in found["GITHUB_ENV"].items() if not BLOCKED.match(name)}
        return process.returncode, found["GITHUB_OUTPUT"], found["GITHUB_STATE"]

    def _line(self, line):
        self.raw.append(line)
        command = re.match(r"\s*::([a-z-]+)(?: ([^:]*))?::(.*)$", line) or re.search(r"##\[([a-z-]+)(?: ([^\]]*))?\](.*)$", line)
        if not command:
            self.log.append(self._masked(line))
            return
        name, _, data = command.groups()
        data = data.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
        if name == "add-mask":
            self.masks += [part for part in [data, *re.split(r"[\r\n]+", data)] if part.strip()]
        elif name in ("error", "warning", "notice"):
            self.annotations.append((name, self._masked(data)))
            self.log.append(self._masked(f"{name.title()}: {data}"))
        else:
            self.annotations.append(("command", name))

    def _masked(self, line):
        for secret in sorted(self.masks, key=len, reverse=True):
            line = line.replace(secret, "***")
        return line


def pairs(text):
    """What a step wrote into one of its files, read as the runner reads it."""
    found, lines = {}, iter(text.split("\n"))
    for line in lines:
        line = line.rstrip("\r")
        equals, heredoc = line.find("="), line.find("<<")
        if not line:
            continue
        if heredoc >= 0 and not 0 <= equals < heredoc:
            name, end = line.split("<<", 1)
            value = []
            for inner in lines:
                if inner.rstrip("\r") == end:
                    break
                value.append(inner.rstrip("\r"))
            else:
                raise ValueError(f"the delimiter of `{name}` is missing")
            found[name] = "\n".join(value)
        elif equals > 0:
            name, found_value = line.split("=", 1)
            found[name] = found_value
        else:
            raise ValueError(f"a line that is neither: {line!r}")
    return found


class Server:
    """A loopback HTTP server; `answer(handler, body)` returns (status, JSON or bytes, headers). `tls`: certificate and key files."""

    def __init__(self, answer, tls=None):
        server = self
        self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
                server.asked.append((self.command, self.path, dict(self.headers), body))
                status, content, headers = answer(self, body)
                if content is None:
                    self.close_connection = True
                    return
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in ({"content-type": "application/json", "content-length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = handle_any

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.http.server_port}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def end(self):
        self.http.shutdown()
        self.http.server_close()


class TokenEndpoint(Server):
    """`ACTIONS_ID_TOKEN_REQUEST_URL`: a fresh token for each question, signed by `sign(aud=…)`."""

    def __init__(self, sign):
        self.bearer = secrets.token_hex(24)
        self.claims, self.busy, self.handed = {}, 0, []
        self.sign = sign
        super().__init__(self._answer)

    def _answer(self, handler, _):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        if handler.headers.get("authorization") != f"bearer {self.bearer}" or "api-version" not in query:
            return 401, {"message": "no"}, {}
        if self.busy:
            self.busy -= 1
            return 503, {"message": "busy"}, {}
        self.handed.append(self.sign(aud=query["audience"][0], **self.claims))
        return 200, {"value": self.handed[-1]}, {}

    def variables(self):
        return {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.bearer}
