"""Unmodified AWS SDKs get their sessions through the front, and use them against moto.

`40_aws.py --stage` only sets up what the other journeys of AWS SDKs need, tells it as one line of JSON, and stays until its
standard input ends.
"""

import contextlib
import datetime
import json
import os
import pathlib
import signal
import sys
import threading
import time
import urllib.parse

import boto3
import botocore.auth
import requests
from aws_stage import ACCOUNT, DATABASE, ROLE, Stage
from support import Tally

BOTO = """
import boto3, json, sys
session = boto3.Session()
found = session.get_credentials().get_frozen_credentials()
used = boto3.client("sts", endpoint_url=sys.argv[1], verify=sys.argv[2]).get_caller_identity()
print(json.dumps({"key": found.access_key, "arn": used["Arn"]}))
"""
REFUSED = """
import boto3, botocore, json, os, sys
from botocore.config import Config
sts = boto3.client("sts", config=Config(signature_version=botocore.UNSIGNED))
token = open(os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"]).read()
more = json.loads(sys.argv[1])
try:
    sts.assume_role_with_web_identity(
        **{"RoleArn": os.environ["AWS_ROLE_ARN"], "RoleSessionName": "journey", "WebIdentityToken": token} | more)
    print("nothing")
except botocore.exceptions.ClientError as error:
    said = error.response
    print(json.dumps([type(error).__name__, said["Error"]["Code"], said["ResponseMetadata"]["HTTPStatusCode"],
                      said["ResponseMetadata"].get("RetryAttempts"), said["ResponseMetadata"]["RequestId"]]))
"""


def sessions(stage, tally):
    good = stage.file("token")
    python = sys.executable
    code, out, err = stage.run([python, "-c", BOTO, stage.aws, stage.ca], good)
    told = json.loads(out) if code == 0 else {}
    tally.check("boto3 gets a session with four variables alone", told.get("key", "").startswith("ASIA"), err)
    arn = told.get("arn", "")
    tally.check(
        "and AWS sees namespace, account and rule in its name",
        arn.startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/worker/shop-worker-site-worker-"), arn,
    )
    cli = str(pathlib.Path(python).with_name("aws"))
    ask = [cli, "sts", "get-caller-identity", "--endpoint-url", stage.aws, "--ca-bundle", stage.ca]
    code, out, err = stage.run(ask, good)
    tally.check("the AWS CLI does, too, under the same name", code == 0 and json.loads(out)["Arn"] == arn, err)

    code, out, err = stage.run([cli, "sts", "get-caller-identity"], good)
    tally.check("who one is must be asked of AWS itself, and the CLI says so", code != 0 and "InvalidAction" in err, err)
    own = stage.exchange("aws/own")
    body = own.json()
    tally.check("a role is assumed with the broker's own identity", own.status_code == 200, body)
    credential = body.get("credential", {})
    env = {
        "AWS_ACCESS_KEY_ID": credential.get("access_key_id", ""), "AWS_REGION": "eu-central-1",
        "AWS_SECRET_ACCESS_KEY": credential.get("secret_access_key", ""),
        "AWS_SESSION_TOKEN": credential.get("session_token", ""),
    }
    code, out, err = stage.run(ask, "", **env)
    tally.check("and is good at AWS", code == 0 and ":assumed-role/own/" in out, err or out)
    log = (stage.folder / "broker.log").read_text()
    secrets = ["eyJ", credential.get("secret_access_key"), credential.get("session_token"), "SecretAccessKey>"]
    tally.check(
        "neither tokens nor secrets are in the log, at `debug` either",
        "aws_smithy_runtime" in log and not any(secret in log for secret in secrets),
    )
    # INVARIANT(honest-expiry): moto counts whole seconds from its own now.
    left = datetime.datetime.fromisoformat(credential["expires_at"]).timestamp() - time.time()
    tally.check("for as long as it says", 1_150 < left <= 1_202 and abs(left - body["expires_in"]) < 5, left)


def refusals(stage, tally):
    def refused(file, more=None, role=ROLE):
        command = [sys.executable, "-c", REFUSED, json.dumps(more or {})]
        code, out, err = stage.run(command, file, role)
        return json.loads(out) if code == 0 and out != "nothing" else [out, err]

    good = stage.file("good")
    strangers = refused(stage.file("stranger", account="stranger"))
    tally.check("a stranger gets `AccessDenied`", strangers[:3] == ["ClientError", "AccessDenied", 403], strangers)
    found = refused(stage.file("old", age=4_000))
    tally.check("an expired token is `ExpiredTokenException`", found[:3] == ["ExpiredTokenException"] * 2 + [400], found)
    path = stage.folder / "forged"
    path.write_text(stage.token()[:-6] + "AAAAAA\n")
    found = refused(str(path))
    tally.check("a forged one is `InvalidIdentityToken`", found[:2] == ["InvalidIdentityTokenException", "InvalidIdentityToken"], found)
    found = refused(stage.file("away", issuer="https://away.invalid"))
    tally.check(
        "keys out of reach are `IDPCommunicationError`, and boto3 tried again",
        found[:3] == ["IDPCommunicationErrorException", "IDPCommunicationError", 400] and found[3] > 0, found,
    )
    found = refused(good, {"DurationSeconds": 900, "ProviderId": "example.com"})
    tally.check("what can't be honoured is `ValidationError`", found[:3] == ["ClientError", "ValidationError", 400], found)
    found = refused(good, role=f"arn:aws:iam::{ACCOUNT}:role/other")
    tally.check("a role that nobody configured is `AccessDenied`", found[1] == "AccessDenied", found)
    doctor = stage.broker.cli("doctor", "--config", str(stage.folder / "cambio.yaml"), "--json", check=False)
    found = {one["check"]: one["detail"] for one in json.loads(doctor.stdout)}
    tally.check("doctor sees that moto takes any token", "stand-in" in found.get("target:aws/test", ""), found)
    explained = stage.broker.cli(
        "policy", "explain", strangers[4], "--config", str(stage.folder / "cambio.yaml"), check=False
    )
    tally.check("the request id finds the reason", "refused as `no_rule`" in explained.stdout, explained.stdout + explained.stderr)


def database(stage, tally):
    """botocore signs the same request, with the same session, at the same instant: byte for byte the same token."""
    answer = stage.exchange("rds/orders")
    body = answer.json()
    tally.check("a token for a database is had", answer.status_code == 200, body)
    login = body["credential"]
    token = login["password"]
    told = dict(urllib.parse.parse_qsl(token.partition("/?")[2]))
    # Sessions are secrets of the broker, and moto knows what it gave out.
    known = requests.get(f"{stage.aws}/moto-api/data.json", verify=stage.ca, timeout=10).json()["sts"]["AssumedRole"]
    key = told["X-Amz-Credential"].split("/")[0]
    (session,) = [one for one in known if one["access_key_id"] == key]
    at = datetime.datetime.strptime(told["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    botocore.auth.get_current_datetime = lambda remove_tzinfo=True: at if remove_tzinfo else at.replace(tzinfo=datetime.UTC)
    rds = boto3.client(
        "rds", region_name="eu-central-1", aws_access_key_id=key, aws_secret_access_key=session["secret_access_key"],
        aws_session_token=session["session_token"],
    )
    theirs = rds.generate_db_auth_token(DBHostname=DATABASE, Port=5432, DBUsername="app_reader")
    parts = [sorted(text.partition("/?")[2].split("&")) for text in (token, theirs)]
    tally.check("byte for byte what botocore signs", parts[0] == parts[1] and token.startswith(f"{DATABASE}:5432/?"), [token, theirs])
    tally.check("it lives for fifteen minutes at most, and says so", 880 < body["expires_in"] <= 900, body["expires_in"])
    tally.check(
        "and is a login like any other",
        [login[name] for name in ("kind", "user", "host", "port", "sslmode")]
        == ["postgres", "app_reader", DATABASE, 5432, "verify-full"], login.keys(),
    )
    log = (stage.folder / "broker.log").read_text()
    secrets = [session["secret_access_key"], session["session_token"], told["X-Amz-Signature"]]
    tally.check("nothing of it is in the log, at `debug` either", not any(secret in log for secret in secrets))


def died(stage, tally):
    """The broker is killed while AWS is being asked: the next one tells that nobody knows."""
    config = str(stage.folder / "cambio.yaml")

    def entries():
        exported = stage.broker.cli("ledger", "export", "--config", config).stdout
        return [json.loads(line) for line in exported.splitlines()]

    def ids(kind):
        return {one["event"]["exchange_id"] for one in entries() if one["kind"] == kind}

    before = ids("granted")
    stage.moto.send_signal(signal.SIGSTOP)
    try:
        threading.Thread(target=lambda: hang(stage), daemon=True).start()
        new = awaited(lambda: ids("granted") - before)
        stage.broker.kill()
    finally:
        stage.moto.send_signal(signal.SIGCONT)
    tally.check("a grant is in the ledger before AWS has answered", len(new) == 1, new)
    stage.broker.start(30)
    (exchange,) = new
    awaited(lambda: exchange in ids("concluded"))
    told = [one["event"]["outcome"] for one in entries() if one["event"].get("exchange_id") == exchange and one["kind"] == "concluded"]
    tally.check("after a kill -9 in between, its outcome is told once, as unknown", told == ["unknown"], told)

    def ready():
        checks = requests.get(f"{stage.broker.operations}/readyz", timeout=5).json()["checks"]
        return [one["detail"] for one in checks if one["name"] == "outcomes:aws/test"]

    detail = awaited(ready)
    tally.check("readiness tells until when it may be good", detail and detail[0].startswith("1 of unknown outcome"), detail)
    shown = stage.broker.cli("ledger", "show", exchange, "--config", config).stdout
    tally.check("and `ledger show` does", "\noutcome: unknown: a credential may exist" in shown, shown)


def hang(stage):
    with contextlib.suppress(requests.RequestException):
        stage.exchange("aws/test")


def awaited(condition):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    return set()


def without_identity(stage, tally):
    """The broker comes back where its surroundings give it no identity: nothing was asked of AWS, and nothing is unknown."""
    stage.broker.stop()
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    stage.broker.start(30)
    del os.environ["AWS_EC2_METADATA_DISABLED"]
    answer = stage.exchange("aws/own")
    body = answer.json()
    tally.check(
        "without an identity of its own the broker gets no session, and knows that there is none",
        answer.status_code == 503 and body["error_description"] == "the target did not issue a credential", body,
    )


def outage(stage, tally):
    stage.moto.terminate()
    stage.moto.wait(20)
    answer = stage.exchange("aws/test")
    body = answer.json()
    tally.check("AWS is gone: 503", answer.status_code == 503 and body["error"] == "temporarily_unavailable", body)
    tally.check("with a time to come back", int(answer.headers.get("Retry-After", "0")) > 0, answer.headers)
    tally.check("the other targets go on", stage.exchange("jwt/orders").status_code == 200)


def main():
    stage = Stage()
    try:
        if "--stage" in sys.argv:
            told = {
                "good": stage.surroundings(stage.file("token")),
                "stranger": stage.surroundings(stage.file("stranger", account="stranger")),
                "expired": stage.surroundings(stage.file("old", age=4_000)),
                "aws": stage.aws, "ca": stage.ca,
            }
            print(json.dumps(told), flush=True)
            sys.stdin.read()
            return
        tally = Tally()
        sessions(stage, tally)
        refusals(stage, tally)
        database(stage, tally)
        died(stage, tally)
        without_identity(stage, tally)
        outage(stage, tally)
    finally:
        stage.stop()
    tally.end()


main()
