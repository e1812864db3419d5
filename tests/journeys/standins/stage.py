"""A broker with a target at each cloud, and the stand-in behind them; for the journeys of the clouds.

Run as a program it tells one line of JSON on stdout and lives until stdin ends: for journeys that are not in Python.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from standins import clouds as cloud  # noqa: E402
from support import Broker  # noqa: E402

TARGETS = """\
  - name: google/prod
    kind: google
    provider: {provider}
    environment: test
    roles:
      deploy:
        service_account: {account}
        scopes: [https://www.googleapis.com/auth/cloud-platform, https://www.googleapis.com/auth/devstorage.read_only]
      other: {{ service_account: other@acme-prod.iam.gserviceaccount.com, scopes: [https://www.googleapis.com/auth/cloud-platform] }}
    granted_by: [site.yaml]
    ceiling: 1h
    sts: {url}
    iam_credentials: {url}
    ca_file: {ca}
  - name: azure/prod
    kind: azure
    tenant: {tenant}
    environment: test
    roles: {{ deploy: {{ client_id: {client}, subject: "{subject}", scope: https://management.azure.com/.default }} }}
    granted_by: [site.yaml]
    authority: {url}
    ca_file: {ca}
  - name: jwt/entra
    kind: jwt
    audience: api://cambio-test-sdk
    environment: test
    roles: {{ deploy: {{}} }}
    granted_by: [site.yaml]
    algorithm: RS256
    token_type: JWT
    ceiling: 10m
  - name: github/acme
    kind: github
    app: {app}
    private_key_file: app.pem
    installation: {installation}
    environment: test
    roles:
      release: {{ repository_ids: [1296269], permissions: {{ contents: write }} }}
      docs: {{ repository_ids: [777], permissions: {{ contents: read }} }}
    granted_by: [site.yaml]
    ends: by_broker
    ceiling: 1h
    api: {url}
    ca_file: {ca}
"""

POLICY = """\
version: 1
rules:
  - id: site
    issuer: github
    when: {{ repository_id: "1296269", repository_owner_id: "9919", environment: production, event_name: push }}
    grants:
      - {{ target: jwt/orders, role: reader, lifetime: 15m }}
      - {{ target: google/prod, role: deploy, lifetime: 15m }}
      - {{ target: google/prod, role: other, lifetime: 15m }}
      - {{ target: azure/prod, role: deploy, lifetime: 90m }}
      - {{ target: jwt/entra, role: deploy, lifetime: 5m, subject: "{subject}" }}
      - {{ target: github/acme, role: release, lifetime: 15m }}
      - {{ target: github/acme, role: docs, lifetime: 5s }}
    replay: once
"""


class Stage:
    """Both, started."""

    def __init__(self):
        self.broker = Broker(POLICY.format(subject=cloud.SUBJECT))
        self.clouds = cloud.Clouds(self.broker.folder, "https://cambio.test", f"{self.broker.url}/jwks")
        app = self.broker.folder / "app.pem"
        app.touch(mode=0o600)
        app.write_text(self.clouds.app_pem)
        targets = TARGETS.format(
            provider=cloud.PROVIDER, account=cloud.ACCOUNT, url=self.clouds.url, ca=self.clouds.ca, tenant=cloud.TENANT,
            client=cloud.CLIENT, subject=cloud.SUBJECT, app=cloud.APP, installation=cloud.INSTALLATION,
        )
        config = self.broker.folder / "cambio.yaml"
        config.write_text(config.read_text().replace("policies: {", f"{targets}policies: {{", 1))
        self.broker.start()

    def ask(self, target, role, **more):
        token = self.broker.issuer.token()
        return self.broker.exchange(token, **({"audience": target, "scope": role} | more))

    def end(self):
        self.broker.stop()
        self.clouds.end()


if __name__ == "__main__":
    stage = Stage()
    try:
        told = {
            "broker": stage.broker.url, "api": stage.clouds.plain, "app": cloud.APP, "pem": stage.clouds.app_pem,
            "installation": cloud.INSTALLATION, "tokens": [stage.broker.issuer.token() for _ in range(3)],
        }
        print(json.dumps(told), flush=True)
        sys.stdin.read()
    finally:
        stage.end()
