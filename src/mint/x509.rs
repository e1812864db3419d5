//! Certificates for clients of servers that believe a CA of ours: PostgreSQL's `cert` logins, and mTLS in general.
//!
//! Nothing is created anywhere else: a certificate ends by itself, at its `notAfter`, and there is no lease.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::{
    digest,
    encoding::{AsDer as _, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::json;
use thiserror::Error;
use x509_cert::der::pem::{LineEnding, encode_string};

use super::{Behind, Credential, MintError, Minter, Plan, Prepared, lifetime};
use crate::{
    chance::Chance,
    clock::Instant,
    grant::{Grant, RoleName, TargetName},
    holder::CertificateNames,
    keys::{
        authority::AuthorityKey,
        certificate::{self, AltName, CertificateError, Client, SERIAL_BYTES},
        keyring::Keyring,
    },
    ledger::{Hash, Recorded},
    secret::Secret,
    subject::MAXIMUM_LEEWAY,
    target::Expiry,
};

pub mod request;

use request::Proven;

/// The `issued_token_type` of a certificate: ours, because RFC 8693 section 3 names none.
pub const TOKEN_TYPE: &str = "urn:cambio:token-type:x509";

/// A target that gets certificates of its own CA.
#[derive(Clone, Debug)]
pub struct X509Target {
    /// Its name, which is also that of its CA.
    pub name: TargetName,
    /// Our issuer URL: below it the trust bundle is published.
    pub issuer: String,
    /// Who a role's holder is, to the servers.
    pub names: BTreeMap<RoleName, CertificateNames>,
    /// Whether a private key may be made here, for a caller that sends no request.
    pub makes_keys: bool,
    /// How its certificates end: at any second.
    pub expiry: Expiry,
    /// Its environment; must be ours.
    pub environment: String,
}

/// A target that can't be served by this ring. Refused at start and at a reload.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum X509TargetError {
    /// Another environment.
    #[error("target `{target}` belongs to environment `{found}`, expected `{expected}`")]
    Environment {
        /// Which target.
        target: TargetName,
        /// Its environment.
        found: String,
        /// The ring's.
        expected: String,
    },
    /// The ring has no CA for it.
    #[error("target `{0}` has no CA yet: a new target of kind `x509` needs a restart")]
    NoAuthority(TargetName),
}

/// A certificate to be made: everything but the signature.
#[derive(Debug)]
pub struct CertificatePlan {
    /// DER of the `TBSCertificate` (RFC 5280 section 4.1).
    pub to_be_signed: Vec<u8>,
    /// Its SHA-256, which the entry holds.
    pub digest: Hash,
    /// The CA key.
    pub kid: String,
    client: Client,
    /// PKCS#8 as PEM, if the caller sent no request.
    private_key: Option<Secret>,
}

/// Mints certificates for one target.
#[derive(Debug)]
pub struct X509Minter {
    target: X509Target,
    keyring: Arc<Keyring>,
    chance: Arc<dyn Chance>,
}

impl X509Minter {
    /// The minter of `target`.
    ///
    /// # Errors
    /// The ring can't serve it.
    pub fn of(
        target: X509Target,
        keyring: Arc<Keyring>,
        chance: Arc<dyn Chance>,
    ) -> Result<Self, X509TargetError> {
        let (name, expected) = (target.name.clone(), keyring.environment());
        if target.environment != expected {
            let found = target.environment;
            return Err(X509TargetError::Environment { target: name, found, expected });
        }
        if !keyring.schedules().certificates().contains_key(&name) {
            return Err(X509TargetError::NoAuthority(name));
        }
        Ok(Self { target, keyring, chance })
    }

    /// Where the trust bundle of `target` is, below our issuer URL.
    #[must_use]
    pub fn bundle_path(target: &str) -> String {
        format!("/ca/{target}.pem")
    }

    const fn ceiling(&self) -> Duration {
        match self.target.expiry {
            Expiry::Exact { ceiling, .. } | Expiry::ByBroker { ceiling } => ceiling,
            Expiry::Fixed(always) => always,
        }
    }

    /// Names come from the configuration of the role. Of the subject only what a SPIFFE ID asks for is looked at (threat B01).
    fn names(&self, grant: &Grant) -> Result<(Option<String>, Vec<AltName>), MintError> {
        let none = || MintError::Internal(format!("role `{}` has no names", grant.role));
        let names = self.target.names.get(&grant.role).ok_or_else(none)?;
        let id = names.spiffe_id.as_ref().map(|id| id.of(&grant.claims)).transpose();
        let id = id.map_err(|error| MintError::NoName(error.to_string()))?;
        // An X.509-SVID has exactly one URI, its SPIFFE ID (X509-SVID section 2): the configuration allows no other beside it.
        let uris = id.into_iter().chain(names.uri.iter().map(|uri| uri.as_str().to_owned()));
        let dns = names.dns.iter().map(|name| AltName::Dns(name.as_str().to_owned()));
        let common_name = names.common_name.as_ref().map(|name| name.as_str().to_owned());
        Ok((common_name, uris.map(AltName::Uri).chain(dns).collect()))
    }

    /// The public key to certify, and the private one if it is made here.
    fn key(&self, behind: &Behind<'_>) -> Result<(Vec<u8>, Option<Secret>), MintError> {
        if let Some(csr) = behind.csr {
            let proven =
                Proven::read(csr).map_err(|error| MintError::Request(error.to_string()))?;
            return Ok((proven.spki().to_vec(), None));
        }
        if self.target.makes_keys {
            let (public, private) = fresh_pair()?;
            return Ok((public, Some(private)));
        }
        Err(MintError::Request("`csr` is missing: this target makes no private keys".to_owned()))
    }

    /// The CA key that something was prepared under: never one that leaked meanwhile (threat K06).
    fn signer(&self, kid: &str) -> Result<Arc<AuthorityKey>, MintError> {
        let gone = || {
            let how = if self.keyring.withdrawn(kid) { "was withdrawn" } else { "may not sign" };
            MintError::NoKey(format!("CA key `{kid}` {how}"))
        };
        self.keyring.find_authority(kid).ok_or_else(gone)
    }
}

#[async_trait]
impl Minter for X509Minter {
    fn expiry(&self) -> Expiry {
        self.target.expiry
    }

    fn takes_csr(&self) -> bool {
        true
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        if grant.target != self.target.name {
            return Err(MintError::Internal(format!("a grant for `{}` came here", grant.target)));
        }
        let paused = || MintError::NoKey(format!("no CA key of `{}` signs now", self.target.name));
        let authority = self.keyring.authority(&self.target.name).ok_or_else(paused)?;
        let (common_name, alt_names) = self.names(grant)?;
        // INVARIANT(never-outlive): also not the CA's window, nor the CA's own certificate.
        let left = authority.key.ends_at().since(behind.now);
        let most = self.ceiling().min(authority.window).min(left);
        let lifetime = lifetime::bounded(most, grant, &behind, &self.target.issuer);
        let expires_at = Instant::from_seconds(behind.now.plus(lifetime).seconds());
        if expires_at.since(behind.now) < Duration::from_secs(1) {
            return Err(MintError::NoLifetime("less than a second".to_owned()));
        }
        let (public_key, private_key) = self.key(&behind)?;
        let mut serial = [0; SERIAL_BYTES];
        self.chance.fill(&mut serial).map_err(|error| MintError::Internal(error.to_string()))?;
        let client = Client {
            serial,
            // A server whose clock is behind ours can believe it at once. It has existed for no one before `now`.
            not_before: Instant::from_seconds(behind.now.minus(MAXIMUM_LEEWAY).seconds()),
            // RFC 5280 section 4.1.2.5: good through this second. One less, so that `expires_at` is past its end.
            not_after: expires_at.minus(Duration::from_secs(1)),
            common_name,
            alt_names,
            public_key,
        };
        let to_be_signed = certificate::client(&client, authority.key.issuer()).map_err(unfit)?;
        let digest = sha256(&to_be_signed);
        let plan = CertificatePlan {
            to_be_signed,
            digest,
            kid: authority.key.key_id().to_owned(),
            client,
            private_key,
        };
        Ok(Prepared {
            target: self.target.name.clone(),
            scope: super::scope(grant),
            expires_at,
            credential: certificate::serial_text(&serial).map_err(unfit)?,
            lease: None,
            plan: Plan::X509(Box::new(plan)),
        })
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let (_, prepared) = recorded.redeem();
        if prepared.target != self.target.name {
            return Err(MintError::Internal(format!("prepared for `{}`", prepared.target)));
        }
        let Plan::X509(plan) = &prepared.plan else {
            return Err(MintError::Internal(format!(
                "a {} is no certificate",
                prepared.plan.kind()
            )));
        };
        // The bytes that the entry holds the digest of, and no others.
        let signature = self.signer(&plan.kid)?.sign(&plan.to_be_signed);
        let signature = signature.map_err(|error| MintError::Refused(error.to_string()))?;
        let made = certificate::assemble(&plan.to_be_signed, &signature).map_err(unfit)?;
        let value = self.told(&prepared, plan, &certificate::pem(&made).map_err(unfit)?)?;
        Ok(Credential {
            value,
            issued_token_type: TOKEN_TYPE,
            token_type: "N_A",
            expires_at: prepared.expires_at,
            scope: prepared.scope,
            lease: None,
        })
    }
}

impl X509Minter {
    /// The credential as JSON.
    fn told(
        &self,
        prepared: &Prepared,
        plan: &CertificatePlan,
        pem: &str,
    ) -> Result<Secret, MintError> {
        let bundle = Self::bundle_path(self.target.name.as_str());
        let mut members = json!({
            "kind": "x509",
            "certificate": pem,
            "serial": prepared.credential,
            "issuer_key": plan.kid,
            "trust_bundle": format!("{}{bundle}", self.target.issuer),
            "expires_at": prepared.expires_at.to_string(),
        });
        let Some(map) = members.as_object_mut() else {
            return Err(MintError::Internal("no object".to_owned()));
        };
        if let Some(name) = &plan.client.common_name {
            map.insert("common_name".to_owned(), name.as_str().into());
        }
        for name in &plan.client.alt_names {
            if let AltName::Uri(uri) = name
                && uri.starts_with("spiffe://")
            {
                map.insert("spiffe_id".to_owned(), uri.as_str().into());
            }
        }
        if let Some(key) = &plan.private_key {
            let text =
                key.reveal_text().ok_or_else(|| MintError::Internal("no text".to_owned()))?;
            map.insert("private_key".to_owned(), text.into());
        }
        Ok(Secret::from(members.to_string()))
    }
}

/// A new pair on P-256: the public half as `SubjectPublicKeyInfo`, the private one as PKCS#8 in PEM.
///
/// The library draws from its own generator, as for our own keys: no seed of a test may ever make a key that opens something.
fn fresh_pair() -> Result<(Vec<u8>, Secret), MintError> {
    let fail = |_| MintError::Internal("the library made no key".to_owned());
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(fail)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(fail)?;
    let private = pair.to_pkcs8v1().map_err(fail)?;
    let text = encode_string("PRIVATE KEY", LineEnding::LF, private.as_ref());
    let text = text.map_err(|_| MintError::Internal("the key is no text".to_owned()))?;
    Ok((public.as_ref().to_vec(), Secret::from(text)))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn unfit(error: CertificateError) -> MintError {
    MintError::Internal(error.to_string())
}

fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    for (to, from) in hash.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    hash
}
