"""What an exchange for a cloud costs beside the cloud's own time, by the clock of one client: a measurement, never a verdict.

    python tests/journeys/aws_overhead.py [ROUNDS]

Each round makes an exchange for `aws/test`, the same call straight to the stand-in, and an exchange for `jwt/orders`, over connections
that are kept. The stand-in answers at once; it is a process of its own, with TLS, as AWS is.

Then exchanges for Google, Azure and GitHub: their stand-in verifies what it is sent, which takes its time, and says how long it
took; that is taken off, and so is what a straight call to it costs beside that, once for each call that an exchange makes.
"""

import asyncio
import datetime
import http.client
import ssl
import statistics
import sys
import time
import urllib.parse

from support import EXCHANGE, JWT


async def stand_in(port, folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")

    async def serve(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().lower().split("\r\n")
            length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
            form = urllib.parse.parse_qs((await reader.readexactly(length)).decode())
            seconds = int(form.get("DurationSeconds", ["900"])[0])
            end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
            body = (
                '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                "<AssumeRoleWithWebIdentityResult><AssumedRoleUser>"
                "<Arn>arn:aws:sts::123456789012:assumed-role/worker/x</Arn><AssumedRoleId>AROA:x</AssumedRoleId>"
                "</AssumedRoleUser><Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId>"
                f"<SecretAccessKey>secret</SecretAccessKey><SessionToken>{'t' * 800}</SessionToken>"
                f"<Expiration>{end:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
                "<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
            )
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
            await writer.drain()

    async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=context) as server:
        await server.serve_forever()


def timed(connection, path, form, expected=200):
    body = urllib.parse.urlencode(form)
    began = time.perf_counter()
    connection.request("POST", path, body, {"content-type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    text = answer.read()
    took = time.perf_counter() - began
    if answer.status != expected:
        raise SystemExit(f"{path}: {answer.status} {text.decode()}")
    return took


def main(rounds):
    from aws_stage import ROLE, Stage

    stage = Stage(lambda port, folder: [sys.executable, __file__, "--stand-in", str(port), str(folder)])
    try:
        broker = http.client.HTTPConnection("127.0.0.1", stage.broker.port)
        port = int(stage.aws.rsplit(":", 1)[1])
        aws = http.client.HTTPSConnection("localhost", port, context=ssl.create_default_context(cafile=stage.ca))
        token = stage.token()
        ask = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": JWT}
        direct = {
            "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": ROLE, "RoleSessionName": "measure",
            "WebIdentityToken": token, "DurationSeconds": "1200",
        }
        took = {"aws": [], "direct": [], "jwt": []}
        for each in range(rounds + 50):
            now = {
                "aws": timed(broker, "/token", ask | {"audience": "aws/test"}),
                "direct": timed(aws, "/", direct),
                "jwt": timed(broker, "/token", ask | {"audience": "jwt/orders"}),
            }
            for name, seconds in now.items():
                if each >= 50:
                    took[name].append(seconds * 1_000)
        median = {name: statistics.median(all) for name, all in took.items()}
        for name, all in took.items():
            p99 = statistics.quantiles(all, n=100)[98]
            print(f"{name:7} p50 {median[name]:.2f} ms  p99 {p99:.2f} ms")
        print(f"overhead of an exchange for AWS: p50 {median['aws'] - median['direct']:.2f} ms in {rounds} rounds")
    finally:
        stage.stop()


def others(rounds):
    from standins.stage import Stage

    stage = Stage()
    try:
        broker = http.client.HTTPConnection("127.0.0.1", stage.broker.port)
        trust = ssl.create_default_context(cafile=stage.clouds.ca)
        cloud = http.client.HTTPSConnection("localhost", int(stage.clouds.url.rsplit(":", 1)[1]), context=trust)
        # How many calls of the cloud one exchange makes.
        for target, role, calls in (("google/prod", "deploy", 2), ("azure/prod", "deploy", 1), ("github/acme", "docs", 1)):
            took, own, wire = [], [], []
            for each in range(rounds + 20):
                ask = {
                    "grant_type": EXCHANGE, "subject_token": stage.broker.issuer.token(), "subject_token_type": JWT,
                    "audience": target, "scope": role,
                }
                before = stage.clouds.spent
                seconds = timed(broker, "/token", ask)
                theirs = stage.clouds.spent - before
                before = stage.clouds.spent
                straight = timed(cloud, "/nothing-is-here", {}, 404)
                if each >= 20:
                    own.append(theirs * 1_000)
                    took.append(seconds * 1_000)
                    wire.append((straight - (stage.clouds.spent - before)) * 1_000)
            over = [total - theirs for total, theirs in zip(took, own)]
            median, p99 = statistics.median, lambda all: statistics.quantiles(all, n=100)[98]
            # As for AWS: what a call costs its caller beside the answering is no part of the broker.
            rest = median(over) - calls * median(wire)
            print(
                f"{target:12} p50 {median(took):.2f} ms, of it the stand-in's own {median(own):.2f} ms and {calls} x {median(wire):.2f} "
                f"ms of TLS and HTTP; overhead p50 {rest:.2f} ms, with these {median(over):.2f} (p99 {p99(over):.2f}) in {rounds} rounds"
            )
    finally:
        stage.end()


if sys.argv[1:2] == ["--stand-in"]:
    asyncio.run(stand_in(int(sys.argv[2]), sys.argv[3]))
else:
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
    others(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
