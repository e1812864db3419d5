"""`docs/getting-started.md` as a newcomer works through it: every block, in order, in one shell, with nothing but this repository.

`sh` blocks run; a block with `title="…"` is a file; a `text` block is what the commands before it print, each line in its turn, `…` for
anything. Two things are not as on a newcomer's machine: `cargo` is there already done, and the ports are free ones.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading

import yaml
from actions import Job, TokenEndpoint
from support import CAMBIO, ROOT, Tally, free_ports

tally = Tally()
home = pathlib.Path(tempfile.mkdtemp(prefix="newcomer-", dir=os.environ.get("CAMBIO_TEST_WORK")))
# A checkout, with what the build would leave, and a `cargo` that only notes how it was called.
(home / "target" / "release").mkdir(parents=True)
os.symlink(pathlib.Path(CAMBIO).resolve(), home / "target" / "release" / "cambio")
(home / "tools").mkdir()
(home / "tools" / "cargo").write_text(f"#!/bin/sh\necho \"$@\" >> {home}/cargo.log\n")
(home / "tools" / "cargo").chmod(0o700)

public, operations = free_ports(2)
page = (ROOT / "docs" / "getting-started.md").read_text().replace("8443", str(public)).replace("9090", str(operations))
blocks = [
    (language, title, text, page[: found.start()].count("\n") + 1)
    for found in re.finditer(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', page, re.S | re.M)
    for language, title, text in [found.groups()]
]
fences = page.count("\n```") // 2
tally.check("each block of the page is understood", len(blocks) == fences and all(
    title or language in ("sh", "text") for language, title, _, _ in blocks), (len(blocks), fences))


class Shell:
    """One shell for the whole page. What a block prints ends with a line that no block prints."""

    def __init__(self):
        env = {"PATH": f"{home}/tools:{os.environ['PATH']}", "HOME": str(home), "LC_ALL": "C"}
        self.process = subprocess.Popen(["bash", "--norc"], cwd=home, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, start_new_session=True)
        (home.parent / f"{home.name}.pid").write_text(str(self.process.pid))

    def run(self, text):
        """Returns (exit code of the last command, what was printed)."""
        mark = f"--- end {os.urandom(8).hex()} "
        self.process.stdin.write(f"{text}\nprintf '\\n%s%s\\n' {shlex.quote(mark)} $?\n")
        self.process.stdin.flush()
        said = []
        # A broker that does not come up would be waited for without end.
        watch = threading.Timer(60, self.kill)
        watch.start()
        try:
            for line in self.process.stdout:
                if line.startswith(mark):
                    return int(line[len(mark):]), "".join(said)
                said.append(line)
        finally:
            watch.cancel()
        raise SystemExit(f"the shell ended at:\n{text}\n{''.join(said)}")

    def kill(self):
        """The shell, and the broker that it started: a session of their own."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(20)


def shows(said, wanted):
    """The lines of `wanted` that are not among what was said, in their order."""
    lines = iter(said.splitlines())
    missing = []
    for line in wanted.splitlines():
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        if not any(pattern.fullmatch(found) for found in lines):
            missing.append(line)
    return missing


def action(text, folder):
    """The workflow, on a runner, with the stand-in for GitHub behind it."""
    workflow = yaml.safe_load(text.replace("https://cambio.example.com", f"http://127.0.0.1:{public}"))
    (job,) = workflow["jobs"].values()

    def sign(aud):
        assert aud == f"http://127.0.0.1:{public}", aud
        done = subprocess.run(["./github-token"], cwd=folder, env={"PATH": os.environ["PATH"], "run_id": "4713"}, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    platform = TokenEndpoint(sign)
    made = Job(**(platform.variables() if job["permissions"]["id-token"] == "write" else {}))
    for step in job["steps"]:
        if "uses" in step:
            name = step["uses"].removeprefix("OWNER/cambio/").removesuffix("@<commit>")
            code, _ = made.uses(ROOT / name, **step["with"])
        else:
            code, _ = made.run(step["run"])
        tally.check(f"the workflow's step {step.get('uses', 'run')} works", code == 0, made.text())
    made.end()
    platform.end()
    tally.check("and the log hides the credential", re.search(r"with a credential of \d{3} characters: \*\*\*$", made.text(), re.M), made.text())


shell = Shell()
ended = False
try:
    said = ""
    for language, title, text, line in blocks:
        if title:
            path = home / "target" / "first" / title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if title.startswith(".github/"):
                action(text, home / "target" / "first")
        elif language == "text":
            missing = shows(said, text)
            tally.check(f"line {line}: it prints what the page shows", not missing, f"missing: {missing}\n{said}")
        else:
            code, said = shell.run(text)
            ended = ended or "rm -r target/first" in text
            tally.check(f"line {line}: {text.splitlines()[0][:70]}", code == 0, said)
finally:
    if not ended and shell.process.poll() is None:
        shell.run('kill "$!"; wait')
    shell.end()
built = (home / "cargo.log").read_text().split()
tally.check("the page builds what it uses", built == ["build", "--locked", "--release"], built)
tally.check("nothing is left", not (home / "target" / "first").exists())
shutil.rmtree(home)
tally.end()
