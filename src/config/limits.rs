//! `limits`: how much one caller, and all of them together, may ask of us.

use std::{num::NonZeroU32, time::Duration};

use super::reader::{Reader, number};
use crate::yaml::{Field, Fields, Node, Shape};

/// The limits, per replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Requests from one address.
    pub per_address: Rate,
    /// Exchanges of one workload.
    pub per_subject: Rate,
    /// Open connections on the public listener.
    pub connections: u32,
    /// Requests at work at once; more are told to come back.
    pub in_flight: u32,
    /// How long a request body may take to arrive.
    pub body_timeout: Duration,
}

/// So many a second, and so many more at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many a second, in the long run.
    pub per_second: NonZeroU32,
    /// How many at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// The rate of so many; zero counts as one.
    #[must_use]
    pub fn of(per_second: u32, burst: u32) -> Self {
        let some = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self { per_second: some(per_second), burst: some(burst) }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            per_address: Rate::of(20, 200),
            per_subject: Rate::of(5, 50),
            connections: 4_096,
            in_flight: 512,
            body_timeout: Duration::from_secs(10),
        }
    }
}

static RATE: Fields = Fields {
    what: "a rate",
    fields: &[
        Field::required(
            "per_second",
            "How many a second, in the long run",
            Shape::Integer(1, 1_000_000),
        ),
        Field::required("burst", "How many at once", Shape::Integer(1, 1_000_000)),
    ],
};

pub(super) static LIMITS: Fields = Fields {
    what: "the limits",
    fields: &[
        Field::optional(
            "per_address",
            "Requests from one address, per replica. Default: `{ per_second: 20, burst: 200 }`",
            Shape::Map(&RATE),
        ),
        Field::optional(
            "per_subject",
            "Exchanges of one workload, per replica. Default: `{ per_second: 5, burst: 50 }`",
            Shape::Map(&RATE),
        ),
        Field::optional(
            "connections",
            "Open connections on the public listener. Default: `4096`",
            Shape::Integer(1, 65_536),
        ),
        Field::optional(
            "in_flight",
            "Requests at work at once; more are told to come back. Default: `512`",
            Shape::Integer(1, 65_536),
        ),
        Field::optional(
            "body_timeout",
            "How long a request body may take to arrive. From `1s` to `1m`; default: `10s`",
            Shape::Duration,
        ),
    ],
};

pub(super) fn read(reader: &mut Reader<'_>) -> LimitsConfig {
    let map = reader.section("limits");
    let default = LimitsConfig::default();
    let rate = |key: &str, default: Rate| {
        let map = map.and_then(|map: &Node| map.find(key));
        Rate::of(
            number(map, "per_second", default.per_second.get()),
            number(map, "burst", default.burst.get()),
        )
    };
    LimitsConfig {
        per_address: rate("per_address", default.per_address),
        per_subject: rate("per_subject", default.per_subject),
        connections: number(map, "connections", default.connections),
        in_flight: number(map, "in_flight", default.in_flight),
        body_timeout: reader.duration(
            map,
            "body_timeout",
            default.body_timeout,
            Duration::from_secs(1)..=Duration::from_mins(1),
            "who sends a token slowly holds a connection",
        ),
    }
}
