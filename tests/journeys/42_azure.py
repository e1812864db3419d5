"""azure-identity takes our assertion; and our own target gets the same token without it."""

import os

from azure.core import PipelineClient
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest
from azure.identity import ClientAssertionCredential, WorkloadIdentityCredential

from standins import clouds as cloud
from standins.stage import Stage
from support import Tally

SCOPE = "https://management.azure.com/.default"
tally = Tally()
stage = Stage()
try:
    clouds = stage.clouds
    os.environ["REQUESTS_CA_BUNDLE"] = str(clouds.ca)

    def read(credential):
        policy = BearerTokenCredentialPolicy(credential, SCOPE)
        client = PipelineClient(clouds.url, policies=[policy])
        return client.send_request(HttpRequest("GET", f"{clouds.url}/subscriptions?api-version=2022-12-01"))

    def credential(assertion, client_id=cloud.CLIENT):
        return ClientAssertionCredential(
            cloud.TENANT, client_id, lambda: assertion, authority=clouds.url, disable_instance_discovery=True, retry_total=0
        )

    assertion = stage.ask("jwt/entra", "deploy").json()["access_token"]
    found = read(credential(assertion))
    tally.check("azure-identity takes our assertion and reads with what it buys", found.status_code == 200, found.text())
    tally.check("as the application", found.json()["as"] == cloud.CLIENT, found.text())

    # The way of a pod: a file, whose newline the SDK sends along.
    file = stage.broker.folder / "assertion"
    file.write_text(assertion + "\n")
    pod = WorkloadIdentityCredential(
        tenant_id=cloud.TENANT, client_id=cloud.CLIENT, token_file_path=str(file), authority=clouds.url,
        disable_instance_discovery=True,
    )
    tally.check("so does its workload identity, from a file", read(pod).status_code == 200)

    wrong = stage.ask("jwt/orders", "reader").json()["access_token"]
    for sentence, other in (
        ("an assertion for somebody else is refused", credential(wrong)),
        ("so is one for another application", credential(assertion, "11111111-8f2e-4c9d-8e7a-6b511c9d0e7a")),
    ):
        try:
            other.get_token(SCOPE)
            tally.check(sentence, False)
        except ClientAuthenticationError as error:
            tally.check(sentence, "AADSTS7000" in str(error), error)

    answer = stage.ask("azure/prod", "deploy")
    body = answer.json()
    tally.check("the target gives the application's token", body.get("token_type") == "Bearer", answer.text)
    tally.check("with Entra's own end", 4_200 < body["expires_in"] <= 4_242, body["expires_in"])

    class Ours:
        """What Cambio gave, as a credential of the SDK."""

        def get_token(self, *_, **__):
            from azure.core.credentials import AccessToken

            return AccessToken(body["access_token"], 4_102_444_800)

    tally.check("and the SDK reads with it", read(Ours()).status_code == 200)

    told = stage.broker.cli("doctor", "--config", str(stage.broker.folder / "cambio.yaml"), check=False).stdout
    found = [line for line in told.splitlines() if line.startswith("target:")]
    asked = {line.split()[0] for line in found}
    three = {"target:google/prod", "target:azure/prod", "target:github/acme"}
    tally.check("doctor asks all three clouds and finds them well", asked == three and all(" ok " in line for line in found), found)
finally:
    stage.end()
tally.end()
