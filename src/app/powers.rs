//! The administrative powers, behind the Unix socket. What changes something is in the ledger before it takes effect.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{
    app::{State, scene},
    clock::Instant,
    edge::{
        Health, Power, PowerError, Powers,
        admin::{About, BlockRequest, ExplainRequest},
    },
    grant::{IssuerName, TargetName},
    id::{BlockId, ExchangeId},
    keys::{KeyRecord, KeysError},
    ledger::{
        Block, Change, Commit, Committed, Event, Operator, Proposal, anchor, entry::Entry,
        entry::hex, facts::Facts, reader::StoredEntry, receipt, show,
    },
    policy::{PolicySet, Wants},
    protector::file::PassphraseFile,
    secret::Secret,
    subject::{Preset, Profile, UnverifiedToken},
};

type Done = Result<Value, PowerError>;

#[async_trait]
impl Powers for State {
    async fn exercise(&self, power: Power, by: &Operator) -> Done {
        match power {
            Power::Status => Ok(self.status()),
            Power::Reload => {
                self.note_admin("reload", by).await?;
                let told = self.reload().await.map_err(PowerError::Conflict)?;
                Ok(json!({ "reloaded": told }))
            }
            Power::ListKeys => Ok(self.list_keys()),
            Power::RotateKeys { target } => self.rotate(target, by).await,
            Power::WithdrawKey { kid, force } => self.withdraw(&kid, force, by).await,
            Power::ExportKeys { passphrase } => self.export(passphrase, by).await,
            Power::ListBlocks => self.list_blocks(),
            Power::SetBlock(request) => self.set_block(request, by).await,
            Power::LiftBlock { id } => self.lift_block(&id, by).await,
            Power::ListLeases(request) => self.list_leases(request),
            Power::ShowLease { id } => self.show_lease(&id),
            Power::RevokeLeases(request) => self.revoke_leases(request, by).await,
            Power::Explain(request) => self.explain(request).await,
            Power::ShowEntry { entry } => self.show(&entry),
            Power::ProveEntry { entry } => self.prove(&entry),
            Power::Fork => self.fork(by).await,
            Power::Checkpoint => Ok(json!({
                "checkpoint": self.reader.newest_checkpoint().map_err(failed)?.map(|kept| kept.note),
            })),
        }
    }
}

impl State {
    fn status(&self) -> Value {
        let head = self.writer.head();
        let checks = self.checks(self.means.clock.now());
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": checks.iter().all(|check| check.ok || !check.required),
            "checks": checks,
            "ledger": { "origin": self.reader.origin(), "size": head.size, "root": hex(&head.root) },
            "policy": hex(&self.exchange.scene.load().policies.digest()),
        })
    }

    fn list_keys(&self) -> Value {
        let keys: Vec<Value> = self.rotator.keyring().records().iter().map(key).collect();
        json!({ "epoch": self.rotator.keyring().epoch(), "keys": keys })
    }

    async fn rotate(&self, target: Option<String>, by: &Operator) -> Done {
        if let Some(target) = target {
            self.note_admin(&format!("rotate CA of {target}"), by).await?;
            let name = TargetName::from(target);
            let kid = self.rotator.rotate_authority_now(&name, false).await.map_err(keys)?;
            return Ok(json!({ "promoted": [{ "target": name, "kid": kid }] }));
        }
        self.note_admin("rotate keys", by).await?;
        let mut promoted = Vec::new();
        for algorithm in self.rotator.keyring().schedule().algorithms() {
            let kid = self.rotator.rotate_now(*algorithm, false).await.map_err(keys)?;
            promoted.push(json!({ "algorithm": algorithm.as_str(), "kid": kid }));
        }
        Ok(json!({ "promoted": promoted }))
    }

    async fn withdraw(&self, kid: &str, force: bool, by: &Operator) -> Done {
        self.note_admin(&format!("withdraw key {kid}"), by).await?;
        let done = self.rotator.withdraw(kid, force).await.map_err(keys)?;
        let signed: Vec<Value> = done
            .signed
            .iter()
            .map(|token| {
                json!({
                    "exchange_id": token.exchange_id, "credential": token.credential,
                    "subject": token.subject, "target": token.target,
                    "expires_at": token.expires_at.to_string(),
                })
            })
            .collect();
        Ok(json!({ "withdrawn": kid, "successor": done.successor, "signed": signed }))
    }

    async fn export(&self, passphrase: Secret, by: &Operator) -> Done {
        let protector = PassphraseFile::of(passphrase)
            .map_err(|error| PowerError::BadRequest(error.to_string()))?;
        self.note_admin("export keys", by).await?;
        let sealed = self.rotator.export(&protector).await.map_err(keys)?;
        Ok(json!({ "jwe": sealed }))
    }

    fn list_blocks(&self) -> Done {
        let blocks = self.reader.blocks().map_err(failed)?;
        let list: Vec<Value> = blocks
            .into_iter()
            .map(|(id, block)| json!({ "id": id.to_string(), "block": block }))
            .collect();
        Ok(json!({ "blocks": list }))
    }

    async fn set_block(&self, request: BlockRequest, by: &Operator) -> Done {
        let block = Block {
            issuer: request.issuer.map(Into::into),
            rule: request.rule.map(Into::into),
            claims: request.claims,
            until: request.until,
        };
        let now = self.means.clock.now();
        self.must_apply(&block, now).map_err(PowerError::BadRequest)?;
        let id = BlockId::make(now, &*self.means.chance).map_err(failed)?;
        let event = Event::Blocked { id, step: "set", by: by.clone() };
        let change = Change::BlockSet { id, block };
        self.commit_change(event, change).await?;
        Ok(json!({ "id": id.to_string() }))
    }

    /// A block is set in haste, and believed. One that could never apply, because of a typo, is refused; so is one that names
    /// nothing, which would deny everybody.
    pub(super) fn must_apply(&self, block: &Block, now: Instant) -> Result<(), String> {
        if block.issuer.is_none() && block.rule.is_none() && block.claims.is_empty() {
            return Err("found nothing to block, expected `issuer`, `rule` or `claims`".to_owned());
        }
        if block.until.is_some_and(|until| Instant::from_milliseconds(until) <= now) {
            return Err("`until` is over already".to_owned());
        }
        let (config, scene) = (self.config.load(), self.exchange.scene.load());
        let issuers = config.policy_context();
        if let Some(issuer) = block.issuer.as_ref().filter(|issuer| !issuers.contains_key(issuer)) {
            return Err(format!("no issuer `{issuer}` is configured"));
        }
        if let Some(rule) = block.rule.as_ref().filter(|rule| !scene.policies.has_rule(rule)) {
            return Err(format!("no rule `{rule}` is in force"));
        }
        let known = |claim: &str| claim.starts_with('/') || Preset::is_registered(claim);
        let sent = |claim: &str| issuers.values().any(|preset| preset.claim(claim).is_some());
        match block.claims.keys().find(|claim| !known(claim) && !sent(claim)) {
            Some(claim) => Err(format!(
                "claim `{claim}` is not one that a configured issuer is known to send; if it is right, write `/{claim}`"
            )),
            None => Ok(()),
        }
    }

    async fn lift_block(&self, id: &str, by: &Operator) -> Done {
        let id: BlockId = id.parse().map_err(bad)?;
        let known = self.reader.blocks().map_err(failed)?;
        if !known.iter().any(|(standing, _)| *standing == id) {
            return Err(PowerError::NotFound(format!("no block `{id}` stands")));
        }
        let event = Event::Blocked { id, step: "lifted", by: by.clone() };
        self.commit_change(event, Change::BlockLifted { id }).await?;
        Ok(json!({ "lifted": id.to_string() }))
    }

    async fn explain(&self, request: ExplainRequest) -> Done {
        let asked = Wants { targets: request.audience, scope: request.scope, lifetime: None };
        let current = Arc::clone(&self.exchange.scene.load().policies);
        let now = self.means.clock.now();
        match request.about {
            About::Exchange(id) => {
                // Nobody waits for the entry of a refusal, and its caller may ask at once.
                self.writer.settle().await;
                self.explain_exchange(&id)
            }
            About::Token(token) => {
                let token = token.reveal_text().unwrap_or_default().to_owned();
                let verifier = Arc::clone(&self.exchange.scene.load().verifier);
                match verifier.verify(&UnverifiedToken::new(token)).await {
                    // Told as an exchange would go: policy first, then the issuer's word where it is asked.
                    Ok(subject) => {
                        let mut told = told(&current, subject.profile(), &asked, now, None);
                        if let Err(rejection) = subject.confirm().await
                            && let Some(Value::String(text)) = told.get_mut("text")
                        {
                            *text = format!(
                                "refused as `{}`: {rejection}\n\n{text}",
                                rejection.label()
                            );
                        }
                        Ok(told)
                    }
                    Err(rejection) => {
                        Ok(json!({ "text": format!("the token does not verify: {rejection}") }))
                    }
                }
            }
            About::Claims { issuer, claims } => {
                let config = self.config.load();
                let preset =
                    config.policy_context().get(&IssuerName::from(issuer.as_str())).copied();
                let preset = preset.ok_or_else(|| {
                    PowerError::NotFound(format!("no issuer `{issuer}` is configured"))
                })?;
                let profile = Profile::of(issuer.into(), preset, claims).map_err(bad)?;
                Ok(told(&current, &profile, &asked, now, None))
            }
        }
    }

    /// A recorded exchange is explained by what was known and in force then: its facts, and its policy set by digest.
    fn explain_exchange(&self, id: &str) -> Done {
        let id: ExchangeId = id.parse().map_err(bad)?;
        let Some(stored) = self.reader.find(id).map_err(failed)? else {
            return self.explain_stranger(id);
        };
        let entry = Entry::decode(&stored.leaf).map_err(failed)?;
        let Some(kept) = &stored.facts else {
            return Err(PowerError::NotFound(format!(
                "the facts of `{id}` were erased; entry {} stands",
                stored.index
            )));
        };
        let facts = Facts::read(&kept.json)
            .ok_or_else(|| PowerError::Failed(format!("the facts of `{id}` can't be read")))?;
        let config = self.config.load();
        let preset = config.policy_context().get(&IssuerName::from(facts.issuer.as_str())).copied();
        let preset = preset.ok_or_else(|| {
            PowerError::NotFound(format!("issuer `{}` is not configured any more", facts.issuer))
        })?;
        let digest = policy_of(&entry).unwrap_or_default();
        let set = scene::stored(&config, &*self.reader, &digest).map_err(PowerError::Failed)?;
        let profile = Profile::recorded(facts.issuer.clone().into(), preset, facts.claims.clone())
            .map_err(failed)?;
        let now = Instant::from_milliseconds(facts.now);
        let asked = facts.wants.clone();
        let ended = self.refused_later(id, &entry)?;
        let (entry, facts) =
            ended.as_ref().map_or((&entry, &facts), |(entry, facts)| (entry, facts));
        Ok(told(&set, &profile, &asked, now, Some((entry, facts))))
    }

    /// What was permitted and recorded may still be refused: by its target. That is how it ended.
    fn refused_later(
        &self,
        id: ExchangeId,
        first: &Entry,
    ) -> Result<Option<(Entry, Facts)>, PowerError> {
        for stored in self.reader.history(id).map_err(failed)? {
            let entry = Entry::decode(&stored.leaf).map_err(failed)?;
            if entry.index == first.index || !entry.body.contains_key("reason") {
                continue;
            }
            if let Some(facts) = stored.facts.and_then(|kept| Facts::read(&kept.json)) {
                return Ok(Some((entry, facts)));
            }
        }
        Ok(None)
    }

    fn explain_stranger(&self, id: ExchangeId) -> Done {
        let stranger = self.rollup.recent(id).ok_or_else(|| {
            PowerError::NotFound(format!(
                "`{id}` is in no entry, and not among the newest refusals of strangers"
            ))
        })?;
        Ok(json!({
            "exchange_id": id.to_string(), "reason": stranger.reason, "detail": stranger.detail,
            "text": format!("refused as `{}` at {}: {}", stranger.reason, stranger.at, stranger.detail),
        }))
    }

    fn stored(&self, entry: &str) -> Result<StoredEntry, PowerError> {
        let found = match entry.parse::<u64>() {
            Ok(index) => self.reader.entry(index).map_err(failed)?,
            Err(_) => self.reader.find(entry.parse().map_err(bad)?).map_err(failed)?,
        };
        found.ok_or_else(|| PowerError::NotFound(format!("there is no entry `{entry}`")))
    }

    fn show(&self, entry: &str) -> Done {
        show::object(&self.stored(entry)?, true).map(Value::Object).map_err(failed)
    }

    fn prove(&self, entry: &str) -> Done {
        let stored = self.stored(entry)?;
        let proof = receipt::prove(&*self.reader, stored.index).map_err(|error| match error {
            receipt::ProveError::NotYet(_) => PowerError::Conflict(error.to_string()),
            receipt::ProveError::Read(_) | receipt::ProveError::Checkpoint(_) => failed(error),
        })?;
        Ok(json!({ "index": stored.index, "leaf": hex(&stored.hash), "proof": proof }))
    }

    async fn fork(&self, by: &Operator) -> Done {
        let Err(forks) = anchor::check_head(&*self.reader, &self.anchors).await else {
            return Err(PowerError::Conflict("the head agrees with every anchor".to_owned()));
        };
        let anchored: Vec<_> = forks.iter().filter_map(anchor::Fork::anchored).collect();
        if anchored.len() < forks.len() {
            let unknown = forks.iter().filter(|fork| fork.anchored().is_none());
            let unknown: Vec<String> = unknown.map(ToString::to_string).collect();
            return Err(PowerError::Conflict(unknown.join("; ")));
        }
        self.writer.fork(&anchored, by).await.map_err(failed)?;
        // While issuing was held, nothing could be recorded: the set that decides from now on is in the ledger too.
        self.record_set_in_force().await.map_err(failed)?;
        // What the lost history withdrew stands again: the operator has to look.
        let kids: Vec<String> =
            self.rotator.keyring().records().iter().map(|key| key.kid.clone()).collect();
        Ok(json!({ "acknowledged": anchored.len(), "keys": kids }))
    }

    async fn note_admin(&self, action: &str, by: &Operator) -> Result<(), PowerError> {
        let event = Event::Admin { action: action.to_owned(), by: by.clone() };
        self.writer.commit(Proposal::of(event)).await.map_err(failed)?;
        Ok(())
    }

    async fn commit_change(&self, event: Event, change: Change) -> Result<(), PowerError> {
        let proposal = Proposal { change: Some(change), ..Proposal::of(event) };
        match self.writer.commit(proposal).await.map_err(failed)? {
            Committed::Durable(_) => Ok(()),
            other @ (Committed::AlreadySpent(_)
            | Committed::Blocked(..)
            | Committed::NoRoom(..)
            | Committed::Overtaken(_)
            | Committed::Stale { .. }) => {
                Err(PowerError::Failed(format!("unexpected outcome {other:?}")))
            }
        }
    }
}

fn told(
    set: &PolicySet,
    profile: &Profile,
    wants: &Wants,
    now: Instant,
    recorded: Option<(&Entry, &Facts)>,
) -> Value {
    let explanation = set.explain(profile, wants, now);
    let mut text = explanation.to_string();
    let recorded = recorded.map(|(entry, facts)| {
        let reason = entry.body.get("reason").and_then(Value::as_str);
        // What policy says is not the whole story: a spent token, a block or an actor refuse what it permits.
        if let Some(reason) = reason {
            let detail = facts.detail.as_deref().unwrap_or(match reason {
                "already_spent" => {
                    "its token was presented before, and the rule wants a fresh one for each exchange"
                }
                "blocked" => "a block matches: see `cambio block list`",
                _ => "see the entries of this token",
            });
            text = format!("refused as `{reason}`: {detail}\n\n{text}");
        }
        json!({
            "index": entry.index, "kind": entry.kind.as_str(), "reason": reason, "source": facts.source,
            "detail": facts.detail,
        })
    });
    json!({ "text": text, "explanation": explanation, "recorded": recorded })
}

fn policy_of(entry: &Entry) -> Option<[u8; 32]> {
    let text = entry.body.get("policy").and_then(Value::as_str)?;
    let mut digest = [0_u8; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        let from = at.checked_mul(2)?;
        *byte = u8::from_str_radix(text.get(from..from.checked_add(2)?)?, 16).ok()?;
    }
    Some(digest)
}

fn key(record: &KeyRecord) -> Value {
    let at = |instant: Option<Instant>| instant.map(|instant| instant.to_string());
    json!({
        "kid": record.kid, "algorithm": record.purpose.label(record.algorithm), "phase": record.phase,
        "prepared_at": record.prepared_at.to_string(), "promoted_at": at(record.promoted_at),
        "retired_at": at(record.retired_at),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn keys(error: KeysError) -> PowerError {
    let text = error.to_string();
    match error {
        KeysError::NoSuchKey(_) | KeysError::NoAuthority(_) => PowerError::NotFound(text),
        KeysError::NotAnnounced { .. } | KeysError::Phase { .. } | KeysError::Contended(_) => {
            PowerError::Conflict(text)
        }
        KeysError::Schedule(_)
        | KeysError::Protect(_)
        | KeysError::Journal(_)
        | KeysError::RolledBack { .. }
        | KeysError::Unsound(_)
        | KeysError::Key { .. }
        | KeysError::NoKey(_)
        | KeysError::Export(_)
        | KeysError::OtherExport { .. } => PowerError::Failed(text),
    }
}

fn bad(error: impl fmt::Display) -> PowerError {
    PowerError::BadRequest(error.to_string())
}

fn failed(error: impl fmt::Display) -> PowerError {
    PowerError::Failed(error.to_string())
}
