//! `cambio leases`: what must end, and ending it at once.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    Failure, Talk,
    admin::{Reach, Why},
    block::claim,
    render,
};

/// Leases: credentials that the broker ends.
#[derive(Debug, Subcommand)]
pub(super) enum Leases {
    /// List the leases whose credential may still be good
    List(List),
    /// Show one lease, and who stands behind it
    Show(Show),
    /// End leases at their targets now
    Revoke(Revoke),
}

/// What leases must have in common; what is not named fits all.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only those of this exchange: `ex_…`
    #[arg(long, value_name = "EXCHANGE")]
    exchange: Option<String>,

    /// Only those at this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,

    /// Only by tokens of this issuer
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,

    /// Only granted by this rule: `file/rule`
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,

    /// Only for subjects with this claim, in any letter case; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    claim: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    which: Which,

    /// Only those in this state: `opened`, `active`, `unknown`, `revoking`, `irrevocable`, `revoked`, `void`
    #[arg(long, value_name = "STATE")]
    state: Option<String>,

    /// Those that have ended, too
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The lease: `ls_…`
    id: String,

    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true,
    args = ["id", "exchange", "target", "issuer", "rule", "claim"])]
pub(super) struct Revoke {
    /// The lease: `ls_…`
    id: Option<String>,

    #[command(flatten)]
    which: Which,

    /// Set the block that matches first, so that nothing new can be had meanwhile
    #[arg(long)]
    block: bool,

    #[command(flatten)]
    why: Why,

    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(leases: Leases, talk: &mut Talk) -> Result<(), Failure> {
    match leases {
        Leases::List(list) => {
            let mut wanted = list.which.members()?;
            wanted.insert("state".to_owned(), json!(list.state));
            wanted.insert("all".to_owned(), list.all.into());
            let answer = list.reach.call("leases/list", Value::Object(wanted)).await?;
            render::answer(talk, &answer);
            Ok(())
        }
        Leases::Show(Show { id, reach }) => {
            let answer = reach.call("leases/show", json!({ "id": id })).await?;
            render::answer(talk, &answer);
            Ok(())
        }
        Leases::Revoke(asked) => revoke(asked, talk).await,
    }
}

async fn revoke(asked: Revoke, talk: &mut Talk) -> Result<(), Failure> {
    let mut wanted = asked.which.members()?;
    let block = asked.which.block()?;
    let offered = asked.which.block_line();
    wanted.insert("id".to_owned(), json!(asked.id));
    if asked.block {
        let block = block.ok_or_else(|| {
            Failure::usage(
                "`--block` needs `--issuer`, `--rule` or `--claim`: a block denies by them",
            )
        })?;
        let why = Why { reason: asked.why.reason.clone() };
        let set = asked.reach.change("blocks/set", why, block).await?;
        talk.say(format!("Block {} holds.", set.get("id").and_then(Value::as_str).unwrap_or("?")));
    }
    let answer = asked.reach.change("leases/revoke", asked.why, Value::Object(wanted)).await?;
    render::answer(talk, &answer);
    if let Some(line) = offered.filter(|_| !asked.block) {
        talk.say(format!("Nothing keeps it from coming back. To deny it from now on:\n  {line}"));
    }
    match answer.get("pending").and_then(Value::as_u64) {
        Some(0) => Ok(()),
        pending => {
            let pending = pending.unwrap_or_default();
            let words = format!(
                "{pending} could not be ended yet: they are recorded as revoked, and tried until they are gone"
            );
            Err(Failure::unreachable(&words)
                .hint("`cambio leases list --state revoking` tells what is left"))
        }
    }
}

impl Which {
    fn members(&self) -> Result<Map<String, Value>, Failure> {
        let claims: Map<String, Value> =
            self.claim.iter().map(|text| claim(text)).collect::<Result<_, _>>()?;
        let members = json!({
            "exchange": self.exchange,
            "target": self.target,
            "issuer": self.issuer,
            "rule": self.rule,
            "claims": claims,
        });
        Ok(members.as_object().cloned().unwrap_or_default())
    }

    /// What a block can deny by, if anything of that is named.
    fn block(&self) -> Result<Option<Value>, Failure> {
        let mut members = self.members()?;
        members.retain(|name, _| ["issuer", "rule", "claims"].contains(&name.as_str()));
        let named = self.issuer.is_some() || self.rule.is_some() || !self.claim.is_empty();
        Ok(named.then_some(Value::Object(members)))
    }

    /// The command that sets the same block.
    fn block_line(&self) -> Option<String> {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let issuer = self.issuer.iter().map(|name| format!(" --issuer {}", quoted(name)));
        let rule = self.rule.iter().map(|name| format!(" --rule {}", quoted(name)));
        let claims = self.claim.iter().map(|text| format!(" --claim {}", quoted(text)));
        let arguments: String = issuer.chain(rule).chain(claims).collect();
        (!arguments.is_empty()).then(|| format!("cambio block set{arguments} --reason …"))
    }
}
