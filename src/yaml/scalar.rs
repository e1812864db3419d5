//! Plain scalars as the YAML 1.2 core schema reads them (YAML 1.2.2 section 10.3.2), lengths of time, dates.

use std::time::Duration;

use jiff::{civil::Date, tz::TimeZone};

use super::Value;
use crate::clock::Instant;

/// What the plain scalar `text` means. YAML 1.1's `yes`, `no`, `on`, `off`, `0777` and `1:30` have no special meaning.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Boolean(true),
        "false" | "False" | "FALSE" => return Value::Boolean(false),
        _ => {}
    }
    if let Some(integer) = integer(text) {
        return Value::Integer(integer, text.to_owned());
    }
    if is_float(text) {
        return Value::Float(text.to_owned());
    }
    Value::Text(text.to_owned())
}

/// `[-+]?[0-9]+`, `0o[0-7]+`, `0x[0-9a-fA-F]+`; what does not fit 128 bits becomes the greatest, which is refused later.
fn integer(text: &str) -> Option<i128> {
    let based = |digits: &str, radix: u32| {
        let all = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        all.then(|| i128::from_str_radix(digits, radix).unwrap_or(i128::MAX))
    };
    if let Some(digits) = text.strip_prefix("0o") {
        return based(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return based(digits, 16);
    }
    if let Some(digits) = text.strip_prefix('-') {
        return based(digits, 10).map(i128::saturating_neg);
    }
    based(text.strip_prefix('+').unwrap_or(text), 10)
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, `.inf`, `.nan`.
fn is_float(text: &str) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent_fits = exponent
        .is_none_or(|exponent| digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)));
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    exponent_fits && mantissa_fits
}

/// A length of time: a whole number and one of `s`, `m`, `h`, `d`. `None` for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds_each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(seconds_each).map(Duration::from_secs)
}

/// A day as `2027-01-31`: its first instant in UTC. `None` for anything else, and for days before 1970.
#[must_use]
pub fn parse_date(text: &str) -> Option<Instant> {
    if text.len() != 10 {
        return None;
    }
    let date: Date = text.parse().ok()?;
    let first = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    u64::try_from(first).ok().map(Instant::from_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_scalars_are_those_of_yaml_1_2() {
        assert_eq!(resolve("no"), Value::Text("no".into()));
        assert_eq!(resolve("on"), Value::Text("on".into()));
        assert_eq!(resolve("1:30"), Value::Text("1:30".into()));
        assert_eq!(resolve("0777"), Value::Integer(777, "0777".into()));
        assert_eq!(resolve("0o777"), Value::Integer(511, "0o777".into()));
        assert_eq!(resolve("0xff"), Value::Integer(255, "0xff".into()));
        assert_eq!(resolve("-7"), Value::Integer(-7, "-7".into()));
        assert_eq!(resolve("1e3"), Value::Float("1e3".into()));
        assert_eq!(resolve("."), Value::Text(".".into()));
        assert_eq!(resolve("-"), Value::Text("-".into()));
        assert_eq!(resolve("1.2.3"), Value::Text("1.2.3".into()));
        assert_eq!(resolve("e5"), Value::Text("e5".into()));
    }

    #[test]
    fn a_length_of_time_is_a_number_and_a_unit() {
        assert_eq!(parse_duration("15m"), Some(Duration::from_mins(15)));
        assert_eq!(parse_duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("1d"), Some(Duration::from_hours(24)));
        for wrong in
            ["", "m", "15", "-1m", "+1m", "1.5h", "1h30m", "15 m", "15M", "1w", "9999999999s"]
        {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!(parse_date("1970-01-02"), Some(Instant::from_seconds(86_400)));
        for wrong in ["2027-02-30", "2027-1-1", "20270101", "1969-12-31", "2027-01-01T00:00Z"] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }
}
