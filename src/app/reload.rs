//! Reloading: everything that can change while serving, all of it or nothing.

use std::sync::Arc;

use tracing::{error, info, warn};

use crate::{
    app::{
        StartError, State,
        scene::{self, Adopted},
        targets,
    },
    config::Config,
    ledger::{Change, Commit, Committed, Event, Proposal, entry::hex},
};

impl State {
    /// Reads configuration, policies, pinned keys and certificates again. Says what is in force now.
    ///
    /// # Errors
    /// Something is wrong with them, all of it told at once; everything stays as it was, and readiness says so.
    pub async fn reload(&self) -> Result<String, String> {
        let _turn = self.reloading.lock().await;
        match self.try_reload().await {
            Ok(told) => {
                self.trouble.store(None);
                info!("reloaded: {told}");
                Ok(told)
            }
            Err(trouble) => {
                self.metrics.reload_failed();
                error!("the reload failed, what was in force stays in force: {trouble}");
                self.trouble.store(Some(Arc::new(format!("the reload failed: {trouble}"))));
                Err(trouble)
            }
        }
    }

    async fn try_reload(&self) -> Result<String, String> {
        let config = Arc::new(self.read_config()?);
        let now = self.means.clock.now();
        let adopted = scene::policies_for(&config, self.means.mode, now).map_err(text)?;
        let makers = targets::makers(&config, &self.means).await.map_err(text)?;
        let scene = scene::scene(&config, &self.means, Arc::clone(&adopted.set), makers.minters)
            .map_err(text)?;
        // Before anything changes: a certificate that can't serve must not leave half a reload behind.
        if let Some(tls) = &self.tls {
            tls.reload().map_err(text)?;
        }
        // The entry first: a policy set that is in force is in the ledger.
        self.put_in_force(&adopted).await.map_err(text)?;
        self.exchange.scene.store(Arc::new(scene));
        self.ending.reaper().adopt(makers.revokers);
        self.config.store(config);
        let (rules, digest) = (adopted.set.rule_count(), hex(&adopted.set.digest()));
        Ok(format!("{rules} rules, policy set {digest}"))
    }

    /// The configuration on disk, as far as it can change while serving.
    fn read_config(&self) -> Result<Config, String> {
        let Some(file) = &self.config_file else {
            return Ok(Config::clone(&self.config.load()));
        };
        let (config, warnings) = Config::read_to_serve(file)
            .map_err(|problems| lines(problems.iter().map(ToString::to_string)))?;
        for warning in warnings {
            warn!("{warning}");
        }
        let running = self.config.load();
        let fixed = [
            ("environment", config.environment == running.environment),
            ("issuer", config.issuer == running.issuer),
            // What was opened, bound or counted at start: a reload that passed over it in silence would say what is not so.
            ("data", config.data == running.data),
            ("store", config.store == running.store),
            ("ledger", config.ledger == running.ledger),
            ("keys.protector", config.keys.protector == running.keys.protector),
            ("listen", config.listen == running.listen),
            ("tls", config.tls == running.tls),
            ("limits", config.limits == running.limits),
            ("log", config.log == running.log),
            // The schedule of our keys is derived from these: a longer lifetime would outlive its key's publication.
            ("what the rotation of our keys is derived from", config.terms() == running.terms()),
        ];
        let changed: Vec<&str> =
            fixed.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
        if changed.is_empty() {
            return Ok(config);
        }
        Err(format!("changed and fixed until a restart: {}", changed.join(", ")))
    }

    /// Records a policy set with its sources, before it decides anything. Recording the one that is in force already is no change.
    ///
    /// # Errors
    /// It could not be recorded.
    pub(in crate::app) async fn put_in_force(&self, adopted: &Adopted) -> Result<(), StartError> {
        let digest = adopted.set.digest();
        for warning in &adopted.warnings {
            warn!("{warning}");
        }
        let failed = |error: String| StartError::Ledger(error);
        let rules = adopted.set.rule_count();
        let newest = self.reader.active_policy().map_err(|error| failed(error.to_string()))?;
        if newest != Some(digest) {
            let sources = scene::sources_json(&adopted.set);
            let event = Event::Policy {
                digest,
                rules: u64::try_from(rules).unwrap_or(u64::MAX),
                commit: adopted.commit.clone(),
            };
            let change = Some(Change::PolicySet { digest, sources });
            let proposal = Proposal { change, ..Proposal::of(event) };
            match self.writer.commit(proposal).await {
                Ok(Committed::Durable(_)) => {}
                Ok(other) => return Err(failed(format!("unexpected outcome {other:?}"))),
                // Issuing is held until `ledger fork`: the process serves its powers and its readiness until then.
                Err(_) if self.writer.is_held().is_some() => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        self.metrics.reloaded(rules);
        Ok(())
    }
}

impl State {
    /// Records the policy set in force, if it is not the one that the ledger knows.
    ///
    /// # Errors
    /// It could not be recorded.
    pub(in crate::app) async fn record_set_in_force(&self) -> Result<(), StartError> {
        let _turn = self.reloading.lock().await;
        let set = Arc::clone(&self.exchange.scene.load().policies);
        self.put_in_force(&Adopted { set, commit: None, warnings: Vec::new() }).await
    }
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join("\n")
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
