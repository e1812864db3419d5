"""`cambio exec -- aws sts get-caller-identity` in a pod: by variables, by a file and by the endpoint, whatever else the pod's environment
says; nothing of it is left, and the endpoint answers nobody else."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from aws_stage import ACCOUNT, Stage
from support import AUDIENCE, CAMBIO, Tally

# What a program does that keeps its session for long: asks for it once, and says what the endpoint says to others.
BOTO = """
import boto3, json, os, sys, urllib.error, urllib.request
session = boto3.Session()
found = session.get_credentials()
arn = session.client("sts", endpoint_url=sys.argv[1], verify=sys.argv[2]).get_caller_identity()["Arn"]
url, codes = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], []
for headers in ({}, {"Authorization": "guess"}, {"Host": "evil.example"}):
    try:
        codes.append(urllib.request.urlopen(urllib.request.Request(url, headers=headers)).status)
    except urllib.error.HTTPError as error:
        codes.append(error.code)
print(json.dumps({"method": found.method, "refreshes": hasattr(found, "_refresh_using"), "arn": arn, "codes": codes, "url": url,
                  "secret": found.get_frozen_credentials().secret_key}))
"""

tally = Tally()
stage = Stage()
place = pathlib.Path(tempfile.mkdtemp(prefix="exec-", dir=os.environ.get("CAMBIO_TEST_WORK")))
aws = str(pathlib.Path(sys.executable).with_name("aws"))
ASK = [aws, "sts", "get-caller-identity", "--endpoint-url", stage.aws, "--ca-bundle", stage.ca]
# All of it would win over what is handed, or break it.
HOSTILE = {
    "AWS_PROFILE": "nobody", "AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "wrong", "AWS_SESSION_TOKEN": "wrong",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/wrong",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
}
ENV = {"PATH": os.environ["PATH"], "HOME": str(place), "TMPDIR": str(place), "CAMBIO_URL": stage.broker.url} | HOSTILE


def run(hand, command):
    words = [CAMBIO, "exec", "--token-file", stage.file("token"), "--audience", "aws/test", "--scope", "worker", "--hand", hand]
    return subprocess.run([*words, "--token-audience", AUDIENCE, "--", *command], env=ENV, capture_output=True, text=True, timeout=120)


def left():
    return {str(path) for folder in (place, pathlib.Path("/dev/shm")) for path in folder.glob("*cambio-exec*")}


before = left()
try:
    for hand in ("env", "files", "endpoint"):
        done = run(hand, ASK)
        arn = json.loads(done.stdout)["Arn"] if done.returncode == 0 else ""
        tally.check(f"`exec --hand {hand} -- aws sts get-caller-identity` works",
                    arn.startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/worker/"), done.stderr + done.stdout)
    done = run("endpoint", [sys.executable, "-c", BOTO, stage.aws, stage.ca])
    found = json.loads(done.stdout) if done.returncode == 0 else {}
    tally.check("boto3 takes the endpoint for one that it asks again", found.get("method") == "container-role" and found.get("refreshes"), done.stderr)
    tally.check("which refuses whoever shows no token, a wrong one, or another name", found.get("codes") == [401, 401, 403], found)
    try:
        import requests

        requests.get(found["url"], timeout=2)
        gone = False
    except requests.ConnectionError:
        gone = True
    tally.check("and is gone with the command", gone)
    log = (stage.folder / "broker.log").read_text(errors="replace")
    tally.check("the secret is in no log and in no word", found.get("secret") and found["secret"] not in log + done.stderr)
    tally.check("nothing is left on disk", left() <= before, left())
finally:
    stage.stop()
tally.end()
