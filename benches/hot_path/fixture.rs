//! What the benchmark needs: an issuer with GitHub-shaped tokens, and a folder with a whole configuration.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::json;

/// Signs as GitHub Actions would, and beside that as an issuer with a smaller key.
pub struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

/// With which of its keys.
#[derive(Clone, Copy, Debug)]
pub enum Signs {
    Rs256,
    Es256,
}

pub const AUDIENCE: &str = "https://cambio.test";
pub const ISSUER: &str = "https://issuer.test/github";

impl Issuer {
    pub fn generate() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("key"),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("key"),
        }
    }

    /// PKCS#1 `RSAPublicKey`, as aws-lc wants it.
    pub fn public_der(&self) -> Vec<u8> {
        self.rsa.public_key().as_ref().to_vec()
    }

    pub fn jwks(&self) -> String {
        let components: RsaPublicKeyComponents<Vec<u8>> = self.rsa.public_key().into();
        let (n, e) = (B64.encode(components.n), B64.encode(components.e));
        // SEC 1 section 2.3.3: 0x04, X, Y.
        let (x, y) = self.ec.public_key().as_ref().split_at(33);
        let (x, y) = (B64.encode(x.split_at(1).1), B64.encode(y));
        json!({ "keys": [
            { "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "bench", "n": n, "e": e },
            { "kty": "EC", "alg": "ES256", "use": "sig", "kid": "bench-ec", "crv": "P-256", "x": x, "y": y },
        ] })
        .to_string()
    }

    /// A token of 33 claims, about 1.1 KB of them, that lives for a quarter of an hour.
    pub fn token(&self, signs: Signs, repository_id: u64) -> String {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("now")
            .as_secs();
        let sha = "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d";
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "iat": now, "nbf": now - 600, "exp": now + 900,
            "jti": format!("bench-{repository_id}-{now}"), "sub": "repo:acme/site:environment:production",
            "ref": "refs/heads/main", "sha": sha, "repository": "acme/site", "repository_owner": "acme",
            "repository_id": repository_id.to_string(), "repository_owner_id": "9919", "run_id": "4711",
            "run_number": "12", "run_attempt": "1", "actor": "octocat", "actor_id": "583231", "workflow": "deploy",
            "workflow_ref": "acme/site/.github/workflows/deploy.yml@refs/heads/main", "workflow_sha": sha,
            "head_ref": "", "base_ref": "", "event_name": "push", "ref_type": "branch", "ref_protected": "true",
            "environment": "production", "environment_node_id": "EN_kwDOAA",
            "job_workflow_ref": "acme/deploy/.github/workflows/release.yml@refs/heads/main", "job_workflow_sha": sha,
            "repository_visibility": "private", "runner_environment": "github-hosted", "check_run_id": "99",
        });
        let header = match signs {
            Signs::Rs256 => r#"{"alg":"RS256","typ":"JWT","kid":"bench"}"#,
            Signs::Es256 => r#"{"alg":"ES256","typ":"JWT","kid":"bench-ec"}"#,
        };
        let input = format!("{}.{}", B64.encode(header), B64.encode(claims.to_string()));
        let signature = match signs {
            Signs::Rs256 => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let signed = self.rsa.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    input.as_bytes(),
                    &mut signature,
                );
                signed.expect("sign");
                signature
            }
            Signs::Es256 => self
                .ec
                .sign(&SystemRandom::new(), input.as_bytes())
                .expect("sign")
                .as_ref()
                .to_vec(),
        };
        format!("{input}.{}", B64.encode(signature))
    }

    /// The whole HTTP request of one exchange.
    pub fn request(&self, repository_id: u64) -> Vec<u8> {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
            .append_pair("subject_token", &self.token(Signs::Rs256, repository_id))
            .append_pair("audience", "https://orders.test")
            .append_pair("scope", "reader")
            .finish();
        format!(
            "POST /token HTTP/1.1\r\nhost: cambio.test\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// Writes a configuration with `rules` rules and `issuers` issuers into `folder`; the benchmark's own is the last of each.
pub fn configuration(folder: &Path, issuer: &Issuer, rules: usize, issuers: usize) {
    fs::create_dir_all(folder.join("policies")).expect("folder");
    fs::create_dir_all(folder.join("state")).expect("folder");
    fs::write(folder.join("issuer.json"), issuer.jwks()).expect("jwks");
    fs::write(folder.join("issuer.der"), issuer.public_der()).expect("key");
    fs::write(folder.join("kek"), B64.encode([7_u8; 32])).expect("kek");
    fs::set_permissions(folder.join("kek"), fs::Permissions::from_mode(0o600)).expect("mode");
    let mut issuer_list = String::new();
    for n in 1..issuers {
        writeln!(
            issuer_list,
            "  - {{ name: github-{n}, provider: github, issuer: \"https://issuer.test/{n}\", audience: {AUDIENCE}, \
             keys: {{ pinned: {{ file: issuer.json }} }} }}"
        )
        .expect("write");
    }
    let config = format!(
        "version: 1\nenvironment: bench\nissuer: https://cambio.test\ndata: state\nissuers:\n{issuer_list}  - \
         {{ name: github, provider: github, issuer: \"{ISSUER}\", audience: {AUDIENCE}, algorithms: [RS256, ES256], maximum_lifetime: 1h, \
         keys: {{ pinned: {{ file: issuer.json }} }} }}\ntargets:\n  - name: jwt/orders\n    kind: jwt\n    \
         audience: https://orders.test\n    environment: bench\n    roles: {{ reader: {{ scope: [orders.read] }} }}\n    \
         granted_by: [bench.yaml]\n    ceiling: 1h\npolicies: {{ directory: policies, watch: false }}\nstore: {{ sqlite: \
         {{ path: state/cambio.db }} }}\nledger: {{ origin: cambio.test/bench, anchors: none }}\nkeys: {{ key_file: kek \
         }}\nlisten: {{ public: \"127.0.0.1:0\", operations: \"127.0.0.1:0\", admin_socket: state/admin.sock }}\ntls: \
         none\nlimits: {{ per_address: {{ per_second: 1000000, burst: 1000000 }}, per_subject: {{ per_second: 1000000, burst: 1000000 }} }}\nlog: {{ format: json, level: warn }}\n"
    );
    fs::write(folder.join("cambio.yaml"), config).expect("config");
    let mut policy = String::from("version: 1\nrules:\n");
    for n in 0..rules {
        // The benchmark's repository is the last rule's: a search through all of them would show.
        write!(
            policy,
            "  - id: rule-{n}\n    issuer: github\n    when:\n      repository_id: \"{}\"\n      repository_owner_id: \
             \"9919\"\n      environment: production\n      event_name: [push, workflow_dispatch]\n      ref: \
             refs/heads/main\n    grants: [{{ target: jwt/orders, role: reader, lifetime: 15m }}]\n    replay: reusable\n",
            1_000_000 + n
        )
        .expect("write");
    }
    fs::write(folder.join("policies/bench.yaml"), policy).expect("policy");
}

/// The repository of the last of `rules` rules.
pub fn last_repository(rules: usize) -> u64 {
    1_000_000 + rules as u64 - 1
}
