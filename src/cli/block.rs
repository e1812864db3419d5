//! `cambio block`: durable denies, checked in the commit.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    Failure, Talk,
    admin::{Reach, Why},
    render,
};
use crate::{
    clock::{Clock as _, Instant, SystemClock},
    yaml,
};

/// Blocks: durable, recorded denies that need no file and hold within the second.
#[derive(Debug, Subcommand)]
pub(super) enum Block {
    /// Deny what matches everything that is named
    Set(Set),
    /// List the blocks that hold
    List(List),
    /// End a block
    Lift(Lift),
}

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true, args = ["issuer", "rule", "claim"])]
pub(super) struct Set {
    /// Only tokens of this issuer
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,

    /// Only grants by this rule: `file/rule`
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,

    /// Only subjects with this claim, in any letter case; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    claim: Vec<String>,

    /// Until when: an RFC 3339 instant, or a duration from now such as `12h`; else until it is lifted
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,

    #[command(flatten)]
    why: Why,

    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(super) struct Lift {
    /// The block: `bl_…`
    id: String,

    #[command(flatten)]
    why: Why,

    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(block: Block, talk: &mut Talk) -> Result<(), Failure> {
    match block {
        Block::Set(set) => {
            let claims: Map<String, Value> =
                set.claim.iter().map(|text| claim(text)).collect::<Result<_, _>>()?;
            let now = SystemClock.now();
            let until = set.until.as_deref().map(|text| until(text, now)).transpose()?;
            let wanted = json!({
                "issuer": set.issuer,
                "rule": set.rule,
                "claims": claims,
                "until": until.map(Instant::milliseconds),
            });
            let answer = set.reach.change("blocks/set", set.why, wanted).await?;
            render::answer(talk, &answer);
            talk.say("The block holds from now on; what was issued before it ends on its own.");
        }
        Block::List(List { reach }) => {
            let mut answer = reach.call("blocks/list", json!({})).await?;
            if !talk.json() {
                ends_in_words(&mut answer);
            }
            render::answer(talk, &answer);
        }
        Block::Lift(lift) => {
            let wanted = json!({ "id": lift.id });
            let answer = lift.reach.change("blocks/lift", lift.why, wanted).await?;
            render::answer(talk, &answer);
        }
    }
    Ok(())
}

/// Milliseconds since 1970 are for machines.
fn ends_in_words(answer: &mut Value) {
    let blocks = answer.get_mut("blocks").and_then(Value::as_array_mut);
    for block in blocks.into_iter().flatten() {
        if let Some(until) = block.pointer_mut("/block/until")
            && let Some(milliseconds) = until.as_u64()
        {
            *until = Instant::from_milliseconds(milliseconds).to_string().into();
        }
    }
}

/// `name=text`, or `name:=json` for a claim that is no string.
pub(super) fn claim(text: &str) -> Result<(String, Value), Failure> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("`{text}`: expected `NAME=VALUE`")))?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => {
            let parsed = value
                .parse()
                .map_err(|_| Failure::usage(format!("`{text}`: found no JSON behind `:=`")))?;
            (name, parsed)
        }
        None => (name, Value::String(value.to_owned())),
    };
    if name.is_empty() {
        return Err(Failure::usage(format!("`{text}`: the claim has no name")));
    }
    Ok((name.to_owned(), value))
}

/// An instant that is still to come.
fn until(text: &str, now: Instant) -> Result<Instant, Failure> {
    let instant = match yaml::parse_duration(text) {
        Some(duration) => Some(now.plus(duration)),
        None => text
            .parse::<jiff::Timestamp>()
            .ok()
            .and_then(|timestamp| u64::try_from(timestamp.as_millisecond()).ok())
            .map(Instant::from_milliseconds),
    };
    let instant = instant.ok_or_else(|| {
        Failure::usage(format!(
            "`--until {text}`: expected a duration such as `12h`, or an instant"
        ))
        .hint("an instant is written `2027-01-31T12:00:00Z`")
    })?;
    if instant <= now {
        return Err(Failure::usage(format!("`--until {text}` is over already")));
    }
    Ok(instant)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_claim_is_text_unless_it_says_json() {
        assert_eq!(claim("run_id=7"), Ok(("run_id".to_owned(), json!("7"))));
        assert_eq!(claim("runner_id:=7"), Ok(("runner_id".to_owned(), json!(7))));
        assert_eq!(claim("sub=a=b"), Ok(("sub".to_owned(), json!("a=b"))));
        for bad in ["run_id", "=7", ":=7", "runner_id:=seven"] {
            assert!(claim(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_block_ends_in_the_future_or_not_at_all() {
        let now = Instant::from_seconds(1_800_000_000);
        assert_eq!(until("12h", now), Ok(now.plus(Duration::from_hours(12))));
        assert_eq!(until("2027-01-15T08:00:01Z", now), Ok(Instant::from_seconds(1_800_000_001)));
        for bad in ["2027-01-15T08:00:00Z", "tomorrow", "1999-01-01T00:00:00Z"] {
            assert!(until(bad, now).is_err(), "{bad}");
        }
    }
}
