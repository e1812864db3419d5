//! A whole broker with a target at each cloud, and the stand-in behind them.

use aws_lc_rs::{encoding::AsDer as _, rsa::KeySize, signature::RsaKeyPair};
use axum::{body::Body, http::Request};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cambio::config::{Config, TargetKind};
use josekit::jwk::{KeyPair as _, alg::rsa::RsaKeyPair as JoseKeyPair};

use super::stand_in::StandIn;
use crate::{
    edge::surface::{Answered, FORM, send},
    support::{
        broker::{Broker, form},
        site::Site,
    },
};

pub(crate) const TARGETS: &str = "targets:
  - name: google/prod
    kind: google
    provider: //iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/cambio/providers/cambio
    environment: test
    roles:
      deploy:
        service_account: deployer@acme-prod.iam.gserviceaccount.com
        scopes: [https://www.googleapis.com/auth/cloud-platform, https://www.googleapis.com/auth/devstorage.read_only]
      audit:
        service_account: auditor@acme-prod.iam.gserviceaccount.com
        scopes: [https://www.googleapis.com/auth/cloud-platform]
    granted_by: [clouds.yaml]
    ceiling: 1h
  - name: google/direct
    kind: google
    provider: //iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/cambio/providers/cambio
    algorithm: RS256
    environment: test
    roles: { read: { scopes: [https://www.googleapis.com/auth/devstorage.read_only] } }
    granted_by: [clouds.yaml]
  - name: azure/prod
    kind: azure
    tenant: 0b1f6a52-7c1d-4f0e-9a51-2f6f0c7f2a11
    environment: test
    roles:
      deploy:
        client_id: 5d0c4a7b-8f2e-4c9d-8e7a-6b511c9d0e7a
        subject: cambio:prod:deploy
        scope: https://management.azure.com/.default
      stranger:
        client_id: 11111111-8f2e-4c9d-8e7a-6b511c9d0e7a
        subject: cambio:prod:stranger
        scope: https://management.azure.com/.default
    granted_by: [clouds.yaml]
  - name: github/acme
    kind: github
    app: Iv23liCambioTest
    private_key_file: app.pem
    installation: 4711
    environment: test
    roles:
      release: { repository_ids: [1296269], permissions: { contents: write } }
      admin: { repository_ids: [1296269], permissions: { administration: admin } }
    granted_by: [clouds.yaml]
    ends: by_broker
    ceiling: 1h
  - name: github/hour
    kind: github
    app: Iv23liCambioTest
    private_key_file: app.pem
    installation: 4711
    environment: test
    roles: { read: { repository_ids: [777], permissions: { contents: read } } }
    granted_by: [clouds.yaml]
";

const RULES: &str = r#"
version: 1
rules:
  - id: clouds
    issuer: github
    when: { repository_id: "1296269", event_name: push }
    grants:
      - { target: google/prod, role: deploy, lifetime: 15m }
      - { target: google/prod, role: audit, lifetime: 15m }
      - { target: google/direct, role: read, lifetime: 1h }
      - { target: azure/prod, role: deploy, lifetime: 90m }
      - { target: azure/prod, role: stranger, lifetime: 90m }
      - { target: github/acme, role: release, lifetime: 15m }
      - { target: github/acme, role: admin, lifetime: 15m }
      - { target: github/hour, role: read, lifetime: 1h }
"#;

/// A broker, and the clouds that it calls.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) broker: Broker,
    pub(crate) clouds: StandIn,
}

/// A site with an App's key in PEM, and the key's public half.
pub(crate) fn site() -> (Site, josekit::jwk::Jwk) {
    let site = Site::new();
    site.edit("cambio.yaml", "targets:\n", TARGETS);
    site.write("policies/clouds.yaml", RULES);
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let jose = JoseKeyPair::from_der(der.as_ref()).unwrap();
    let pem = format!(
        "-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n",
        STANDARD.encode(der.as_ref()),
        kind = "PRIVATE KEY"
    );
    site.write("app.pem", &pem);
    (site, jose.to_jwk_public_key())
}

fn point_at(config: &mut Config, url: &url::Url) {
    for target in &mut config.targets {
        match &mut target.kind {
            TargetKind::Google(google) => {
                google.sts = url.clone();
                google.iam_credentials = url.clone();
            }
            TargetKind::Azure(azure) => azure.authority = url.clone(),
            TargetKind::Github(github) => github.api = url.clone(),
            _ => {}
        }
    }
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let (site, app) = site();
        Self::over(site, app).await
    }

    /// A broker at `site`, whose App's public key is `app`.
    pub(crate) async fn over(site: Site, app: josekit::jwk::Jwk) -> Self {
        let clouds = StandIn::start().await;
        let broker = Broker::start_at(site, |config| point_at(config, &clouds.url)).await;
        clouds.trust(&broker.router, &broker.clock);
        clouds.know_app(app);
        Self { broker, clouds }
    }

    /// Exchanges a fresh job token.
    pub(crate) async fn ask(&self, wants: &str) -> Answered {
        self.broker.post_token(&form(&self.job(), wants)).await
    }

    /// The token of a job.
    pub(crate) fn job(&self) -> String {
        let now = self.broker.now().seconds();
        self.broker.site.job().issued_at(now, 300).sign()
    }

    /// Through Google's front.
    pub(crate) async fn google(&self, body: String, kind: &str) -> Answered {
        let request = Request::post("/google/token").header("content-type", kind);
        send(&self.broker.router, request.body(Body::from(body)).unwrap()).await
    }

    pub(crate) async fn google_form(&self, body: String) -> Answered {
        self.google(body, FORM).await
    }

    /// How the exchanges were concluded, in order.
    pub(crate) async fn conclusions(&self) -> Vec<String> {
        let lines = self.broker.lines().await;
        let outcomes = lines.iter().map(|line| line.text("outcome").to_owned());
        outcomes.filter(|outcome| !outcome.is_empty()).collect()
    }
}

pub(crate) fn token(answer: &Answered) -> String {
    crate::support::broker::issued(answer)
}
