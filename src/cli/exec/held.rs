//! What a running command holds: the newest credentials, in variables or in files, and what is said about them.

use std::{collections::BTreeMap, io, net::Ipv4Addr, pin::pin, process::ExitStatus, sync::Arc};

use tokio::{
    process::Child,
    sync::{mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Failure, Talk};
use crate::{
    chance::SystemChance,
    client::{
        ClientError, Credential, Environment, Issued, Kept,
        child::{self, Signals},
        endpoint::{self, Desk, Served, Whom, aws},
        folder::Folder,
        format::Variable,
        handover::{self, Handed, Part},
    },
    clock::{Instant, SystemClock},
    secret::Secret,
};

/// One credential, as it is kept.
#[derive(Debug)]
pub(super) struct Tended {
    target: String,
    /// The target and its scope, as it was asked for: in every message.
    label: String,
    name: String,
    kept: watch::Receiver<Arc<Kept>>,
    now: Option<Arc<Issued>>,
    before: Option<Arc<Issued>>,
    generation: u64,
    /// Whether its trouble is told, and its end.
    told: (bool, bool),
}

impl Tended {
    pub(super) fn of(
        target: String,
        label: String,
        name: String,
        kept: watch::Receiver<Arc<Kept>>,
    ) -> Self {
        let mut tended = Self {
            target,
            label,
            name,
            kept,
            now: None,
            before: None,
            generation: 0,
            told: (false, false),
        };
        tended.look();
        tended
    }

    fn is_aws(&self) -> bool {
        self.now.as_ref().is_some_and(|issued| is_aws(&issued.credential))
    }

    /// Takes over what is kept now.
    fn look(&mut self) -> Arc<Kept> {
        let kept = Arc::clone(&self.kept.borrow_and_update());
        if kept.generation != self.generation {
            self.generation = kept.generation;
            self.before = self.now.take();
        }
        self.now.clone_from(&kept.issued);
        kept
    }

    /// What there is to say, once each: that it can't be renewed, that it is over, that all is well again.
    fn words(&mut self, kept: &Kept) -> Option<String> {
        let target = &self.label;
        let Some(trouble) = &kept.trouble else {
            let (troubled, _) = std::mem::take(&mut self.told);
            return troubled.then(|| format!("`{target}` is renewed again"));
        };
        let why = match &trouble.what.hint {
            Some(hint) => format!("{}\n  hint: {hint}", trouble.what),
            None => trouble.what.to_string(),
        };
        match (&kept.issued, self.told) {
            (Some(issued), (false, _)) => {
                self.told.0 = true;
                let ends = issued.ends.map(|ends| format!(" until `{ends}`")).unwrap_or_default();
                Some(format!("warning: `{target}` can't be renewed, and is good{ends}: {why}"))
            }
            (None, (_, false)) => {
                self.told = (true, true);
                let since = trouble.since;
                let ended = kept.ends_at().map(|at| format!(" since `{at}`")).unwrap_or_default();
                Some(format!(
                    "error: `{target}` is over{ended}, and could not be renewed since `{since}`: {why}"
                ))
            }
            (Some(_) | None, _) => None,
        }
    }
}

fn is_aws(credential: &Credential) -> bool {
    matches!(credential, Credential::Aws(_))
}

/// The name of the session at the endpoint.
const SESSION: &str = "session";
/// The file with the endpoint's token.
const TOKEN: &str = "endpoint-token";

/// All of them.
#[derive(Debug)]
pub(super) struct Held {
    tended: Vec<Tended>,
    changed: mpsc::UnboundedReceiver<usize>,
    tracker: TaskTracker,
    folder: Option<Folder>,
    by_endpoint: bool,
    written: BTreeMap<String, Secret>,
}

impl Held {
    pub(super) fn of(tended: Vec<Tended>, tracker: &TaskTracker) -> Self {
        let (sender, changed) = mpsc::unbounded_channel();
        for (place, one) in tended.iter().enumerate() {
            let (mut kept, sender) = (one.kept.clone(), sender.clone());
            tracker.spawn(async move {
                while kept.changed().await.is_ok() && sender.send(place).is_ok() {}
            });
        }
        Self {
            tended,
            changed,
            tracker: tracker.clone(),
            folder: None,
            by_endpoint: false,
            written: BTreeMap::new(),
        }
    }

    /// When the first of them ends.
    pub(super) fn first_end(&self) -> Option<Instant> {
        self.tended.iter().filter_map(|one| one.now.as_ref()?.expires_at).min()
    }

    /// Variables that the command must not inherit.
    pub(super) fn superseded(&self) -> Vec<String> {
        self.parts().iter().flat_map(handover::superseded).collect()
    }

    /// All of it in variables.
    pub(super) fn in_variables(&self) -> Result<Vec<Variable>, Failure> {
        Ok(handover::environment(&self.parts())?)
    }

    /// All of it in files; the variables tell where.
    pub(super) fn in_files(&mut self, environment: &Environment) -> Result<Vec<Variable>, Failure> {
        let mut variables = handover::beside_files(&self.parts());
        let files = self.files()?;
        let folder = Folder::make(environment, &SystemChance)?;
        for file in files {
            let path = folder.path(&file.file).to_string_lossy().into_owned();
            variables.push(Variable {
                name: file.variable,
                value: Secret::from(path),
                hidden: false,
            });
        }
        self.folder = Some(folder);
        self.write()?;
        Ok(variables)
    }

    /// An AWS session by an endpoint on loopback, everything else in files.
    pub(super) async fn by_endpoint(
        &mut self,
        environment: &Environment,
        stop: &CancellationToken,
    ) -> Result<Vec<Variable>, Failure> {
        let mut sessions = self.tended.iter().filter(|one| one.is_aws());
        let (Some(session), None) = (sessions.next(), sessions.next()) else {
            return Err(Failure::usage("`--hand endpoint` is for one AWS session")
                .hint("`--hand files` is for all kinds of credentials"));
        };
        let served = Served { name: SESSION.to_owned(), kept: session.kept.clone() };
        self.by_endpoint = true;
        let mut variables = self.in_files(environment)?;
        let token = aws::draw_token(&SystemChance)?;
        let listener = endpoint::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let at = listener.local_addr().map_err(Failure::unreachable)?;
        let mut tell = |name: &str, value: String| {
            variables.push(Variable {
                name: name.to_owned(),
                value: Secret::from(value),
                hidden: false,
            });
        };
        if let Some(folder) = &self.folder {
            folder.put(TOKEN, &token)?;
            let path = folder.path(TOKEN).to_string_lossy().into_owned();
            tell("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path);
        }
        tell("AWS_CONTAINER_CREDENTIALS_FULL_URI", aws::url(at, SESSION));
        let router = aws::router(Desk { at, clock: Arc::new(SystemClock) }, token, [served]);
        self.tracker.spawn(endpoint::serve(listener, router, Whom::Anybody, stop.clone()));
        Ok(variables)
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let each = self.tended.iter().map(|one| Part {
            target: &one.target,
            name: &one.name,
            now: one.now.as_deref(),
            before: one.before.as_deref(),
        });
        each.collect()
    }

    fn files(&self) -> Result<Vec<Handed>, ClientError> {
        let mut parts = self.parts();
        if self.by_endpoint {
            parts.retain(|part| !part.now.is_some_and(|now| is_aws(&now.credential)));
        }
        handover::files(&parts)
    }

    /// Writes what changed, and removes what is over: a program that finds no file knows more than one that is refused.
    fn write(&mut self) -> Result<(), ClientError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let files = self.files()?;
        for file in &files {
            if self.written.get(&file.file) != Some(&file.content) {
                folder.put(&file.file, &file.content)?;
            }
        }
        for name in self.written.keys() {
            if !files.iter().any(|file| file.file == *name) {
                folder.remove(name)?;
            }
        }
        self.written = files.into_iter().map(|file| (file.file, file.content)).collect();
        Ok(())
    }

    /// Until the command ends: hands on signals, and hands over what is renewed.
    pub(super) async fn attend(
        &mut self,
        child: &mut Child,
        signals: &mut Signals,
        talk: &mut Talk,
    ) -> io::Result<ExitStatus> {
        let mut ended = pin!(child::wait(child, signals));
        loop {
            tokio::select! {
                status = &mut ended => return status,
                Some(place) = self.changed.recv() => self.refresh(place, talk),
            }
        }
    }

    fn refresh(&mut self, place: usize, talk: &mut Talk) {
        let Some(one) = self.tended.get_mut(place) else { return };
        let kept = one.look();
        if let Some(words) = one.words(&kept) {
            talk.say(words);
        }
        if let Err(error) = self.write() {
            talk.say(format_args!("error: the command's files are not up to date: {error}"));
        }
    }

    /// Removes everything that is secret.
    pub(super) fn close(&mut self, talk: &mut Talk) {
        self.written.clear();
        if let Some(Err(error)) = self.folder.take().map(Folder::close) {
            talk.say(format_args!("error: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::keeper::Trouble;

    #[test]
    fn an_end_is_told_with_its_own_time_and_with_that_of_the_trouble() {
        let at = Instant::from_seconds;
        let (keep, kept) = watch::channel(Arc::new(Kept::default()));
        let (target, name) = ("postgres/orders".to_owned(), "CAMBIO_TOKEN".to_owned());
        let mut tended = Tended::of(target, "postgres/orders:readonly".to_owned(), name, kept);
        keep.send_replace(Arc::new(Kept {
            trouble: Some(Trouble {
                since: at(1_800_000_600),
                what: ClientError::unreachable("nobody is there").hint("wait"),
                failures: 3,
            }),
            generation: 1,
            newest: Some((at(1_800_000_000), Some(at(1_800_000_900)))),
            ..Kept::default()
        }));
        let now = tended.look();
        assert_eq!(
            tended.words(&now).as_deref(),
            Some(
                "error: `postgres/orders:readonly` is over since `2027-01-15T08:15:00Z`, and could not be renewed since \
                 `2027-01-15T08:10:00Z`: nobody is there\n  hint: wait"
            )
        );
        assert_eq!(tended.words(&now), None, "once");
    }
}
