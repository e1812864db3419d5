"""google-auth, unmodified, works with the broker as its `token_url`: from an `external_account` file that `cambio` wrote."""

import json
import os
import time

import google.auth
import requests
from google.auth import exceptions, identity_pool
from google.auth.transport.requests import AuthorizedSession, Request

from standins import clouds as cloud
from standins.stage import Stage
from support import Tally

tally = Tally()
os.environ["GOOGLE_CLOUD_PROJECT"] = "acme-prod"
stage = Stage()
try:
    broker, clouds = stage.broker, stage.clouds
    token_file = broker.folder / "token"

    def credential_file(role):
        # The newline is what a shell's `echo` and most editors put there.
        token_file.write_text(broker.issuer.token() + "\n")
        made = broker.cli(
            "google", "credential-file", "--broker", broker.url, "--audience", "google/prod", "--role", role,
            "--token-file", str(token_file),
        )
        path = broker.folder / f"google-{role}.json"
        path.write_text(made.stdout)
        return path

    # As a job would: the default credentials of the environment.
    os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(credential_file("deploy"))
    credentials, project = google.auth.default(scopes=[cloud.PLATFORM])
    session = AuthorizedSession(credentials)
    found = session.get(f"{clouds.url}/storage/v1/b/acme", timeout=10, verify=str(clouds.ca))
    tally.check("google-auth gets a token by our front and reads with it", found.status_code == 200, found.text)
    tally.check("as the service account of the role", found.json().get("as") == cloud.ACCOUNT, found.text)
    asked = [body for line, body in clouds.seen if line.endswith(":generateAccessToken")]
    tally.check("Google was asked for 15 minutes at most", 890 <= int(asked[0]["lifetime"][:-1]) <= 900, asked)
    left = credentials.expiry.timestamp() - time.time() - time.localtime().tm_gmtoff
    tally.check("and google-auth knows the true end", 600 < left <= 901, left)
    tally.check("only the scope that was asked for was taken", asked[0]["scope"] == [cloud.PLATFORM], asked)

    def refused(path, **more):
        credentials = identity_pool.Credentials.from_file(str(path), scopes=[cloud.PLATFORM], **more)
        try:
            credentials.refresh(Request())
        except exceptions.OAuthError as error:
            return str(error)
        return "granted"

    # The token above is spent.
    words = refused(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
    tally.check("a spent token is google-auth's own exception", "invalid_grant" in words and "already used" in words, words)
    words = refused(credential_file("nothing"))
    tally.check("a role that nobody has is refused", "invalid_scope" in words, words)
    words = refused(credential_file("other"))
    tally.check("a refusal of Google is told, without its words", "temporarily_unavailable" in words and "iam" not in words, words)

    # By `POST /token`, for those who are not Google's library.
    answer = stage.ask("google/prod", "deploy")
    tally.check("POST /token gives the same", answer.json().get("token_type") == "Bearer", answer.text)
    used = requests.get(
        f"{clouds.url}/storage/v1/b/acme", headers={"authorization": f"Bearer {answer.json()['access_token']}"},
        verify=str(clouds.ca), timeout=10,
    )
    tally.check("and Google takes it", used.status_code == 200, used.text)

    for mood, after in (("fails", "2"), ("garbage", "2"), ("throttles", "17"), ("hangs", "2")):
        clouds.mood = mood
        began = time.monotonic()
        token = broker.issuer.token()
        answer = broker.exchange(token, audience="google/prod", scope="deploy")
        took = time.monotonic() - began
        told = (answer.status_code, answer.headers.get("retry-after"))
        tally.check(f"a cloud that {mood}: 503 with a time to come back, within 10 s", told == (503, after) and took < 10, (told, took))
        other = broker.exchange(broker.issuer.token())
        tally.check("and another target does not notice", other.status_code == 200, other.text)
        clouds.mood = "well"
        again = broker.exchange(token, audience="google/prod", scope="deploy")
        if again.status_code == 503:
            time.sleep(float(again.headers["retry-after"]) + 0.1)
            again = broker.exchange(token, audience="google/prod", scope="deploy")
        tally.check("the token is still good", again.status_code == 200, again.text)
finally:
    stage.end()
tally.end()
