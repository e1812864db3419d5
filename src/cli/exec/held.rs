//! What a running command holds: the newest credentials, in variables or in files, and what is said about them.

use std::{
    collections::BTreeMap, io, net::Ipv4Addr, pin::pin, process::ExitStatus, sync::Arc,
    time::Duration,
};

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
        handover::{self, Part},
    },
    clock::{Instant, SystemClock},
    secret::Secret,
};

/// One credential, as it is kept.
#[derive(Debug)]
pub(super) struct Tended {
    target: String,
    /// What it is called in every message: the target and its scope, as it was asked for.
    label: String,
    name: String,
    kept: watch::Receiver<Arc<Kept>>,
    now: Option<Arc<Issued>>,
    before: Option<Arc<Issued>>,
    /// The last one that the command's files hold.
    placed: Option<Arc<Issued>>,
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
            placed: None,
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
            // What the files never held, nobody is in the middle of logging in with.
            self.before.clone_from(&self.placed);
        }
        self.now.clone_from(&kept.issued);
        kept
    }

    /// What there is to say, once each: that it can't be renewed, that it is over, that all is well again.
    fn words(&mut self, kept: &Kept) -> Option<String> {
        let target = &self.label;
        let Some(trouble) = &kept.trouble else {
            let (troubled, _) = std::mem::take(&mut self.told);
            return troubled.then(|| format!("{target} is renewed again"));
        };
        let why = match &trouble.what.hint {
            Some(hint) => format!("{}\n  hint: {hint}", trouble.what),
            None => trouble.what.to_string(),
        };
        match (&kept.issued, self.told) {
            (Some(issued), (false, _)) => {
                self.told.0 = true;
                let ends = issued.ends.map(|ends| format!(" until `{ends}`")).unwrap_or_default();
                Some(format!("warning: {target} can't be renewed, and is good{ends}: {why}"))
            }
            (None, (_, false)) => {
                self.told = (true, true);
                let since = trouble.since;
                let ended = kept.ends_at().map(|at| format!(" since `{at}`")).unwrap_or_default();
                Some(format!(
                    "error: {target} is over{ended}, and could not be renewed since `{since}`: {why}"
                ))
            }
            (Some(_) | None, _) => None,
        }
    }
}

fn is_aws(credential: &Credential) -> bool {
    matches!(credential, Credential::Aws(_))
}

/// What the files hold of it, as long as it is good.
fn still_good(one: &Tended) -> Option<Arc<Issued>> {
    let good = |issued: &&Arc<Issued>| issued.left(&SystemClock).is_none_or(|left| !left.is_zero());
    one.placed.as_ref().filter(good).cloned()
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
    /// Why the files are not what they should be, as it was told.
    behind: Option<String>,
}

/// How long after the files could not be brought up to date it is tried again: a volume that is full, a credential that has no file.
const AGAIN: Duration = Duration::from_secs(5);

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
            behind: None,
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
        let files = handover::files(&self.parts_in_files())?;
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
        for own in ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        {
            if variables.iter().any(|other| other.name == own) {
                return Err(Failure::usage(format!(
                    "`{own}` is the endpoint's: no token can have a name that leads to it"
                )));
            }
        }
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

    /// The places of those that go into files.
    fn in_files_at(&self) -> Vec<usize> {
        let goes = |one: &Tended| !(self.by_endpoint && one.is_aws());
        let each = self.tended.iter().enumerate();
        each.filter(|(_, one)| goes(one)).map(|(place, _)| place).collect()
    }

    fn parts_in_files(&self) -> Vec<Part<'_>> {
        let (at, parts) = (self.in_files_at(), self.parts());
        at.into_iter().filter_map(|place| parts.get(place).copied()).collect()
    }

    /// Writes what changed, and removes what is over: a program that finds no file knows more than one that is refused. Each for
    /// itself: what is wrong with one credential, or one file, keeps no other from being renewed. The error is the first of them.
    fn write(&mut self) -> Result<(), ClientError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let at = self.in_files_at();
        let last: Vec<Option<Arc<Issued>>> =
            at.iter().map(|place| self.tended.get(*place).and_then(still_good)).collect();
        let last: Vec<Option<&Issued>> = last.iter().map(Option::as_deref).collect();
        let parts = self.parts_in_files();
        let (files, unfit) = handover::files_of_each(&parts, &last);
        // What may stay where a new one can't be written.
        let old: Vec<Part<'_>> = parts
            .iter()
            .zip(&last)
            .map(|(part, last)| Part { now: *last, before: None, ..*part })
            .collect();
        let old = handover::files_of_each(&old, &[]).0;
        let mut wrong = unfit.first().map(|(_, error)| error.clone());
        let mut late = false;
        for file in &files {
            if self.written.get(&file.file) == Some(&file.content) {
                continue;
            }
            // A name goes with its password: without the one, not the other.
            let put = if late && file.variable == "PGSERVICEFILE" {
                continue;
            } else {
                folder.put(&file.file, &file.content)
            };
            match put {
                Ok(()) => {
                    self.written.insert(file.file.clone(), file.content.clone());
                }
                Err(error) => {
                    late = true;
                    wrong.get_or_insert(error);
                    if !old.iter().any(|old| old.file == file.file)
                        && folder.remove(&file.file).is_ok()
                    {
                        self.written.remove(&file.file);
                    }
                }
            }
        }
        let gone = |name: &String| !files.iter().any(|file| file.file == *name);
        let gone: Vec<String> = self.written.keys().filter(|name| gone(name)).cloned().collect();
        for name in gone {
            match folder.remove(&name) {
                Ok(()) => {
                    self.written.remove(&name);
                }
                Err(error) => {
                    wrong.get_or_insert(error);
                }
            }
        }
        let unfit: Vec<usize> = unfit.into_iter().map(|(place, _)| place).collect();
        for (turn, place) in at.into_iter().enumerate() {
            if late || unfit.contains(&turn) {
                continue;
            }
            if let Some(one) = self.tended.get_mut(place) {
                one.placed.clone_from(&one.now);
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// The same, and says it when what is wrong is another thing than before.
    fn bring_up_to_date(&mut self, talk: &mut Talk) {
        let words = self.write().err().map(|error| error.to_string());
        if words != self.behind {
            match &words {
                Some(why) => {
                    talk.say(format_args!("error: the command's files are not up to date: {why}"));
                }
                None => talk.say("the command's files are up to date again"),
            }
            self.behind = words;
        }
    }

    /// How long until the files have to be looked at although nothing new came.
    fn until_again(&self) -> Option<Duration> {
        self.behind.as_ref()?;
        let ends = self.tended.iter().filter_map(|one| one.placed.as_ref()?.left(&SystemClock));
        let ends = ends.filter(|left| !left.is_zero()).min();
        Some(ends.map_or(AGAIN, |ends| ends.min(AGAIN)))
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
            let again = self.until_again();
            tokio::select! {
                status = &mut ended => return status,
                Some(place) = self.changed.recv() => self.refresh(place, talk),
                () = tokio::time::sleep(again.unwrap_or(AGAIN)), if again.is_some() => {
                    self.bring_up_to_date(talk);
                }
            }
        }
    }

    fn refresh(&mut self, place: usize, talk: &mut Talk) {
        let Some(one) = self.tended.get_mut(place) else { return };
        let kept = one.look();
        if let Some(words) = one.words(&kept) {
            talk.say(words);
        }
        self.bring_up_to_date(talk);
    }

    /// Says where the last answer was lost: what it brought has no other end than its own.
    pub(super) fn tell_lost(&self, talk: &mut Talk) {
        for one in &self.tended {
            let kept = one.kept.borrow();
            if let Some(trouble) = kept.trouble.as_ref().filter(|trouble| trouble.what.unsure) {
                talk.say(format_args!(
                    "warning: {}: a credential may exist that nobody has, until it ends by itself: {}",
                    one.label, trouble.what
                ));
            }
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
        let mut tended = Tended::of(target, "`postgres/orders:readonly`".to_owned(), name, kept);
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
