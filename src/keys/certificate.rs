//! The two profiles of certificates that a CA key of ours signs: its own, and that of a client (RFC 5280). Bytes in, bytes out.
//!
//! What is to be signed and the signature are two steps, so that the first can be written down before the second is made.

use aws_lc_rs::digest;
use thiserror::Error;
use x509_cert::{
    attr::AttributeTypeAndValue,
    certificate::{Certificate, TbsCertificate, Version},
    der::{
        Decode as _, Encode as _,
        asn1::{
            Any, BitString, GeneralizedTime, Ia5String, ObjectIdentifier, OctetString, SetOfVec,
            UtcTime, Utf8StringRef,
        },
        pem::{LineEnding, encode_string},
    },
    ext::{
        AsExtension, Extension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            NameConstraints, SubjectAltName, SubjectKeyIdentifier,
            constraints::name::GeneralSubtree, name::GeneralName,
        },
    },
    name::{Name, RdnSequence, RelativeDistinguishedName},
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

use crate::clock::Instant;

/// The most characters of a common name (RFC 5280 appendix A.1, `ub-common-name`).
pub const LONGEST_COMMON_NAME: usize = 64;
/// Bytes of a serial number: 128 random bits (RFC 5280 section 4.1.2.2 allows 20 octets).
pub const SERIAL_BYTES: usize = 16;

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// Something can't be said in a certificate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("certificate: {0}")]
pub struct CertificateError(pub String);

impl From<x509_cert::der::Error> for CertificateError {
    fn from(error: x509_cert::der::Error) -> Self {
        Self(error.to_string())
    }
}

/// Who signs: a CA key's name and its public key, of which everything else follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// RFC 7638 thumbprint: its common name, so that no two keys share a name.
    pub kid: String,
    /// The uncompressed point on P-256.
    pub point: Vec<u8>,
}

/// A name of a client, beside its common name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AltName {
    /// RFC 5280 `uniformResourceIdentifier`; a SPIFFE ID is one.
    Uri(String),
    /// RFC 5280 `dNSName`.
    Dns(String),
}

/// Everything that will be true of a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Random.
    pub serial: [u8; SERIAL_BYTES],
    /// In whole seconds.
    pub not_before: Instant,
    /// In whole seconds; the certificate is good in this second, and no longer.
    pub not_after: Instant,
    /// Its only subject attribute, if any.
    pub common_name: Option<String>,
    /// Its subject alternative names.
    pub alt_names: Vec<AltName>,
    /// DER of its `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
}

/// The bytes to be signed of the certificate that `issuer` gives to `client`: a leaf that signs handshakes as a client, and is
/// good for nothing else.
///
/// # Errors
/// A name or a time can't be encoded.
pub fn client(client: &Client, issuer: &Issuer) -> Result<Vec<u8>, CertificateError> {
    let subject = match &client.common_name {
        Some(name) => named(name)?,
        None => RdnSequence::default(),
    };
    let mut body = Body::of(subject);
    body.push(&BasicConstraints { ca: false, path_len_constraint: None })?;
    body.push(&KeyUsage(KeyUsages::DigitalSignature.into()))?;
    body.push(&ExtendedKeyUsage(vec![CLIENT_AUTH]))?;
    body.push(&AuthorityKeyIdentifier {
        key_identifier: Some(key_identifier(&issuer.point)?),
        ..AuthorityKeyIdentifier::default()
    })?;
    let alt_names = client.alt_names.iter().map(general_name).collect::<Result<Vec<_>, _>>()?;
    if !alt_names.is_empty() {
        body.push(&SubjectAltName(alt_names))?;
    }
    let public_key = SubjectPublicKeyInfoOwned::from_der(&client.public_key)?;
    let validity = validity(client.not_before, client.not_after)?;
    to_be_signed(&client.serial, issuer, validity, public_key, body)
}

/// The bytes to be signed of the self-signed certificate of the CA key `issuer`.
///
/// It is good for signing certificates of clients: no intermediate (path length 0), nothing but client authentication, and no
/// address. So it can't speak for a server, even where somebody puts it among the roots of a machine by mistake.
///
/// # Errors
/// A time can't be encoded.
pub fn authority(
    issuer: &Issuer,
    serial: &[u8; SERIAL_BYTES],
    (not_before, not_after): (Instant, Instant),
) -> Result<Vec<u8>, CertificateError> {
    let subject = named(&issuer.kid)?;
    let mut body = Body::of(subject);
    body.push(&BasicConstraints { ca: true, path_len_constraint: Some(0) })?;
    body.push(&KeyUsage(KeyUsages::KeyCertSign.into()))?;
    body.push(&ExtendedKeyUsage(vec![CLIENT_AUTH]))?;
    body.push(&SubjectKeyIdentifier(key_identifier(&issuer.point)?))?;
    // RFC 5280 section 4.2.1.10: address and mask, both zero, are every address.
    let every = |bytes: usize| -> Result<GeneralSubtree, CertificateError> {
        let base = GeneralName::IpAddress(OctetString::new(vec![0; bytes])?);
        Ok(GeneralSubtree { base, minimum: 0, maximum: None })
    };
    body.push(&NameConstraints {
        permitted_subtrees: None,
        excluded_subtrees: Some(vec![every(8)?, every(32)?]),
    })?;
    let validity = validity(not_before, not_after)?;
    let public_key = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: EC_PUBLIC_KEY,
            parameters: Some(Any::encode_from(&P256)?),
        },
        subject_public_key: BitString::from_bytes(&issuer.point)?,
    };
    to_be_signed(serial, issuer, validity, public_key, body)
}

/// The certificate of `to_be_signed` and its signature (ECDSA with SHA-256, DER), as DER.
///
/// # Errors
/// The bytes are none that [`client`] or [`authority`] made.
pub fn assemble(to_be_signed: &[u8], signature: &[u8]) -> Result<Vec<u8>, CertificateError> {
    let certificate = Certificate {
        tbs_certificate: TbsCertificate::from_der(to_be_signed)?,
        signature_algorithm: ecdsa_with_sha256(),
        signature: BitString::from_bytes(signature)?,
    };
    Ok(certificate.to_der()?)
}

/// The text of a certificate (RFC 7468).
///
/// # Errors
/// It is longer than a text can be.
pub fn pem(certificate: &[u8]) -> Result<String, CertificateError> {
    encode_string("CERTIFICATE", LineEnding::LF, certificate)
        .map_err(|error| CertificateError(error.to_string()))
}

/// Of the certificate of a CA key: its public point, and its last second.
///
/// # Errors
/// It is no certificate.
pub fn read_authority(certificate: &[u8]) -> Result<(Vec<u8>, Instant), CertificateError> {
    let read = Certificate::from_der(certificate)?.tbs_certificate;
    let point = read.subject_public_key_info.subject_public_key.raw_bytes().to_vec();
    let end = read.validity.not_after.to_unix_duration().as_secs();
    Ok((point, Instant::from_seconds(end)))
}

/// How a serial number is written: hexadecimal, without leading zero bytes, as `openssl x509 -serial` does in upper case.
///
/// # Errors
/// It can't be encoded.
pub fn serial_text(serial: &[u8; SERIAL_BYTES]) -> Result<String, CertificateError> {
    let serial: SerialNumber = SerialNumber::new(serial)?;
    // DER puts a zero before a number whose first bit is set.
    let bytes: Vec<u8> = serial.as_bytes().iter().copied().skip_while(|byte| *byte == 0).collect();
    Ok(crate::ledger::entry::hex(&bytes))
}

fn to_be_signed(
    serial: &[u8; SERIAL_BYTES],
    issuer: &Issuer,
    validity: Validity,
    subject_public_key_info: SubjectPublicKeyInfoOwned,
    body: Body,
) -> Result<Vec<u8>, CertificateError> {
    let certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(serial)?,
        signature: ecdsa_with_sha256(),
        issuer: named(&issuer.kid)?,
        validity,
        subject: body.subject,
        subject_public_key_info,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(body.pushed),
    };
    Ok(certificate.to_der()?)
}

/// The subject, and extensions in the order in which they are pushed.
struct Body {
    subject: Name,
    pushed: Vec<Extension>,
}

impl Body {
    const fn of(subject: Name) -> Self {
        Self { subject, pushed: Vec::new() }
    }

    fn push(&mut self, extension: &impl AsExtension) -> Result<(), CertificateError> {
        let extension = extension.to_extension(&self.subject, &self.pushed)?;
        self.pushed.push(extension);
        Ok(())
    }
}

const fn ecdsa_with_sha256() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None }
}

/// A name of one attribute: built, not parsed, so that nothing in it can be a second one.
fn named(common_name: &str) -> Result<Name, CertificateError> {
    if common_name.is_empty() || common_name.chars().count() > LONGEST_COMMON_NAME {
        return Err(CertificateError(format!(
            "a common name has 1 to {LONGEST_COMMON_NAME} characters"
        )));
    }
    let value = Any::from(Utf8StringRef::new(common_name)?);
    let attribute = AttributeTypeAndValue { oid: COMMON_NAME, value };
    let attributes = SetOfVec::try_from(vec![attribute])?;
    Ok(RdnSequence(vec![RelativeDistinguishedName(attributes)]))
}

fn general_name(name: &AltName) -> Result<GeneralName, CertificateError> {
    Ok(match name {
        AltName::Uri(uri) => GeneralName::UniformResourceIdentifier(Ia5String::new(uri)?),
        AltName::Dns(name) => GeneralName::DnsName(Ia5String::new(name)?),
    })
}

/// RFC 7093 section 2, method 1: the leftmost 160 bits of the SHA-256 of the public key.
fn key_identifier(point: &[u8]) -> Result<OctetString, CertificateError> {
    let hash = digest::digest(&digest::SHA256, point);
    let left: Vec<u8> = hash.as_ref().iter().take(20).copied().collect();
    Ok(OctetString::new(left)?)
}

fn validity(not_before: Instant, not_after: Instant) -> Result<Validity, CertificateError> {
    Ok(Validity { not_before: time(not_before)?, not_after: time(not_after)? })
}

/// RFC 5280 section 4.1.2.5: `UTCTime` through 2049, `GeneralizedTime` from then on.
fn time(at: Instant) -> Result<Time, CertificateError> {
    let since = std::time::Duration::from_secs(at.seconds());
    match UtcTime::from_unix_duration(since) {
        Ok(time) => Ok(Time::UtcTime(time)),
        Err(_) => Ok(Time::GeneralTime(GeneralizedTime::from_unix_duration(since)?)),
    }
}
