//! A leaf, read back: strictly, and into names and values that people can read.

use minicbor::{Decoder, data::Type};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    clock::Instant,
    id::{BlockId, ExchangeId, LeaseId},
    ledger::{
        Hash,
        entry::{Kind, VERSION, hex},
    },
};

/// A leaf, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it tells.
    pub kind: Kind,
    /// Its place.
    pub index: u64,
    /// Ledger time.
    pub time: Instant,
    /// Which run of the broker wrote it.
    pub boot: [u8; 16],
    /// How many entries that run wrote before.
    pub counter: u64,
    /// Which version of the broker wrote it.
    pub broker: String,
    /// The commitment to its facts, where it has facts.
    pub commitment: Option<Hash>,
    /// Its fields by name; ids in their text form, hashes in hexadecimal, instants in milliseconds.
    pub body: Map<String, Value>,
}

/// A leaf that we would not have written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not a leaf: {0}")]
pub struct EntryError(String);

impl From<minicbor::decode::Error> for EntryError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self(error.to_string())
    }
}

impl Entry {
    /// Reads a leaf. Unknown fields of the body are shown by number; an unknown version or kind is refused.
    ///
    /// # Errors
    /// The bytes are not what [`super::Draft::leaf`] writes.
    pub fn decode(leaf: &[u8]) -> Result<Self, EntryError> {
        let mut from = Decoder::new(leaf);
        let fields = from.map()?.ok_or_else(|| EntryError("found a map without length".into()))?;
        expect_key(&mut from, 0)?;
        let version = from.u64()?;
        if version != VERSION {
            return Err(EntryError(format!("found version {version}, expected {VERSION}")));
        }
        expect_key(&mut from, 1)?;
        let code = from.u8()?;
        let kind = Kind::of_code(code)
            .ok_or_else(|| EntryError(format!("found the unknown kind {code}")))?;
        expect_key(&mut from, 2)?;
        let index = from.u64()?;
        expect_key(&mut from, 3)?;
        let time = Instant::from_milliseconds(from.u64()?);
        expect_key(&mut from, 4)?;
        let boot = fixed(from.bytes()?)?;
        expect_key(&mut from, 5)?;
        let counter = from.u64()?;
        expect_key(&mut from, 6)?;
        let broker = from.str()?.to_owned();
        let commitment = match fields {
            8 => None,
            9 => {
                expect_key(&mut from, 7)?;
                Some(fixed(from.bytes()?)?)
            }
            other => return Err(EntryError(format!("found {other} fields, expected 8 or 9"))),
        };
        expect_key(&mut from, 8)?;
        let body = decode_body(&mut from, kind)?;
        if from.position() != leaf.len() {
            return Err(EntryError("found bytes after the end".into()));
        }
        Ok(Self { kind, index, time, boot, counter, broker, commitment, body })
    }
}

fn expect_key(from: &mut Decoder<'_>, key: u8) -> Result<(), EntryError> {
    match from.u8()? {
        found if found == key => Ok(()),
        found => Err(EntryError(format!("found key {found}, expected {key}"))),
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], EntryError> {
    bytes.try_into().map_err(|_| EntryError(format!("found {} bytes, expected {N}", bytes.len())))
}

fn decode_body(from: &mut Decoder<'_>, kind: Kind) -> Result<Map<String, Value>, EntryError> {
    let count = from.map()?.ok_or_else(|| EntryError("found a map without length".into()))?;
    let mut body = Map::new();
    let mut least = 0_u8;
    for _ in 0..count {
        let key = from.u8()?;
        if key < least {
            return Err(EntryError(format!("found key {key} out of order")));
        }
        least = key.saturating_add(1);
        let name = kind.fields().get(usize::from(key)).copied();
        let value = decode_value(from, name.unwrap_or_default(), 0)?;
        body.insert(name.map_or_else(|| format!("field_{key}"), str::to_owned), value);
    }
    Ok(body)
}

fn decode_value(from: &mut Decoder<'_>, name: &str, depth: u8) -> Result<Value, EntryError> {
    let kind = from.datatype()?;
    if matches!(kind, Type::U8 | Type::U16 | Type::U32 | Type::U64) {
        return Ok(Value::from(from.u64()?));
    }
    if kind == Type::String {
        return Ok(Value::from(from.str()?));
    }
    if kind == Type::Bytes {
        return Ok(Value::from(shown_bytes(name, from.bytes()?)));
    }
    if kind == Type::Array && depth < 2 {
        let count = from.array()?.unwrap_or(0);
        let items = (0..count).map(|_| decode_value(from, name, depth.saturating_add(1)));
        return items.collect::<Result<Vec<_>, _>>().map(Value::from);
    }
    Err(EntryError(format!("found a value of type {kind}")))
}

fn shown_bytes(name: &str, bytes: &[u8]) -> String {
    match (name, <[u8; 16]>::try_from(bytes)) {
        ("exchange_id", Ok(id)) => ExchangeId::from_bytes(id).to_string(),
        ("lease", Ok(id)) => LeaseId::from_bytes(id).to_string(),
        ("block", Ok(id)) => BlockId::from_bytes(id).to_string(),
        _ => hex(bytes),
    }
}
