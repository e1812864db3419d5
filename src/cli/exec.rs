//! `cambio exec -- CMD`: a command with credentials, for as long as it runs.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Exit, Failure, Talk,
    asking::{Asking, ENDING, summary, variable},
    harden::hide,
};
use crate::{
    chance::SystemChance,
    client::{
        Answer, Broker, ClientError, Environment, Errand, Issued, Keeper, Lease, Machine, Waiting,
        ambient,
        child::{self, Came, Signals},
        format::Variable,
        handover,
        keeper::{Pace, Runner},
    },
    clock::SystemClock,
};

mod held;
mod watch;

use held::{Held, Tended};
use watch::Watcher;
pub(super) use watch::{VERB, run as watch};

/// Run a command with credentials: renewed while it runs, ended when it ends
///
/// The command gets the credentials in variables, or in files that are replaced ahead of their end. It has our terminal and
/// streams, gets the signals that come to us, and its exit code is ours. When it ends, every lease is ended with it.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: the command's own, 128 and the number for one that a signal ended, 126 and 127 where it \
    can't be started. Before it starts: 1 refused, 2 usage or configuration, 3 not reachable."
)]
pub(super) struct Exec {
    #[command(flatten)]
    asking: Asking,

    /// A credential, again for more: target and scope, and for a token the variable that it goes into
    #[arg(long, value_name = "[NAME=]TARGET[:SCOPE]", conflicts_with_all = ["audience", "scope"])]
    get: Vec<String>,

    /// The variable that a token goes into
    #[arg(long, value_name = "NAME", default_value = "CAMBIO_TOKEN", value_parser = variable)]
    name: String,

    /// How the command gets them: variables can't be renewed
    #[arg(long, value_name = "HOW", default_value = "env")]
    hand: Hand,

    /// Keep from the command what hands out tokens of this job
    #[arg(long)]
    hide_platform: bool,

    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, last = true)]
    command: Vec<OsString>,
}

/// How a command gets its credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hand {
    /// In variables.
    Env,
    /// In files of a private folder, which are renewed.
    Files,
    /// The one AWS session among them by an endpoint on loopback, which SDKs ask again by themselves; everything else in files.
    Endpoint,
}

/// What is wanted, and for whom.
#[derive(Clone, Debug)]
struct Wanted {
    target: String,
    name: String,
    errand: Errand,
}

impl Wanted {
    /// As it was asked for: in every message. Without a target it is the one that the rule grants, whatever that is called.
    fn label(&self) -> String {
        match (&self.errand.audience, &self.errand.scope) {
            (Some(_), Some(scope)) => format!("`{}:{scope}`", self.target),
            (Some(_), None) => format!("`{}`", self.target),
            (None, _) => "the credential".to_owned(),
        }
    }
}

/// For how long a signal changes nothing while leases are ended. A signal for the whole group came to us as well as to the command,
/// and is with us only when the command is gone already: it asks for nothing more. Who wants us to give up asks later, or again.
const STUBBORN: Duration = Duration::from_secs(2);

/// Why the command is not started.
enum Stopped {
    Failed(Failure),
    Signal(Came),
}

/// A credential, and which token it was had with.
type Had = (Issued, [u8; 32]);

/// What there was before the command, to be ended whatever becomes of it.
#[derive(Default)]
struct Gained {
    had: Vec<Had>,
    /// Leases whose credential nobody could read.
    orphans: Vec<Lease>,
    /// Variables in which the subject token came.
    carriers: BTreeSet<OsString>,
}

pub(super) async fn run(exec: Exec, talk: &mut Talk) -> Result<Exit, Failure> {
    hide()?;
    // Who reads our words may have stopped reading: that must not keep a lease alive, or a signal from the command.
    talk.never_blocked();
    let tracker = TaskTracker::new();
    // Before anything is asked for: whoever stops us now leaves no lease behind.
    let mut signals = Signals::listen(&tracker)
        .map_err(|error| Failure::refused(format!("signals can't be handled: {error}")))?;
    let machine = Arc::new(Machine::of(Environment::of(std::env::vars_os())));
    let broker = exec.asking.broker(&machine)?;
    let wanted = exec.wanted(broker.clone())?;
    let mut gained = Gained::default();
    let acquired = exec.acquire(&wanted, &machine, &mut signals, &mut gained, talk).await;
    let Gained { had, orphans, carriers } = gained;
    if let Err(stopped) = acquired {
        let leases = had.iter().filter_map(|(issued, _)| issued.lease()).chain(orphans).collect();
        end_all(leases, Vec::new(), &broker, &tracker, &mut signals, talk).await;
        return match stopped {
            Stopped::Failed(failure) => Err(failure),
            Stopped::Signal(came) => Ok(Exit::Of(came.exit_code())),
        };
    }
    let (keepers, kept) = keepers(&wanted, had, &machine);
    let mut held = Held::of(kept, &tracker);
    let stop = CancellationToken::new();
    if exec.hand == Hand::Env {
        // Variables can't be renewed: the keepers only know what is to be ended.
        stop.cancel();
        if let Some(ends) = held.first_end() {
            talk.say(format_args!(
                "variables can't be renewed: a command that needs its credential after `{ends}` needs `--hand files`"
            ));
        }
    }
    let tasks: Vec<_> =
        keepers.into_iter().map(|keeper| tracker.spawn(keeper.keep(stop.clone()))).collect();
    // Before the command: it does not have our end of the socket.
    let watcher = Watcher::start();
    let exit = match exec.start(&mut held, &machine, &carriers, &stop).await {
        Ok(Ok(mut child)) => {
            let looked_after = match &watcher {
                Ok(watcher) => watcher.look_after(&child).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = looked_after {
                talk.say(format_args!(
                    "warning: nobody ends the command if `cambio` is killed: {error}"
                ));
            }
            match held.attend(&mut child, &mut signals, talk).await {
                Ok(status) => Ok(Exit::Of(child::exit_code(status))),
                Err(error) => Err(Failure::unreachable(format!(
                    "nobody tells how the command ended: {error}"
                ))),
            }
        }
        Ok(Err(error)) => {
            let name = exec.command.first().map(|name| name.to_string_lossy().into_owned());
            talk.say(format_args!("error: `{}`: {error}", name.unwrap_or_default()));
            Ok(Exit::Of(child::not_started(&error)))
        }
        Err(failure) => Err(failure.also("the command is not started")),
    };
    // The command is gone, or never was: nobody is to be looked after.
    drop(watcher);
    // First what is secret, then what takes time.
    held.close(talk);
    stop.cancel();
    end_all(orphans, tasks, &broker, &tracker, &mut signals, talk).await;
    held.tell_lost(talk);
    exit
}

impl Exec {
    fn wanted(&self, broker: Broker) -> Result<Vec<Wanted>, Failure> {
        let errand = self.asking.errand(broker)?;
        if self.get.is_empty() {
            let target = errand.audience.clone().unwrap_or_else(|| "cambio".to_owned());
            return Ok(vec![Wanted { target, name: self.name.clone(), errand }]);
        }
        let each = self.get.iter().map(|text| {
            let (name, target, scope) = asked(text);
            let (audience, scope) = (Some(target.to_owned()), scope.map(str::to_owned));
            Wanted {
                target: target.to_owned(),
                name: name.unwrap_or(&self.name).to_owned(),
                errand: Errand { audience, scope, ..errand.clone() },
            }
        });
        Ok(each.collect())
    }

    /// One after the other: what is had when this stops is in `gained`, to be ended.
    async fn acquire(
        &self,
        wanted: &[Wanted],
        machine: &Machine,
        signals: &mut Signals,
        gained: &mut Gained,
        talk: &mut Talk,
    ) -> Result<(), Stopped> {
        let stop = CancellationToken::new();
        let waiting = Waiting::begin(self.asking.patience(), &SystemChance).until(stop.clone());
        let mut waiting = waiting.telling(talk.voice());
        for one in wanted {
            let carriers = self.hide_platform.then_some(&mut gained.carriers);
            let (done, stopped) = {
                let mut attempt = pin!(acquire(one, machine, &mut waiting, &stop, carriers, talk));
                let mut stopped: Option<(Came, Instant)> = None;
                let done = loop {
                    tokio::select! {
                        done = &mut attempt => break Some(done),
                        came = signals.end() => match stopped {
                            // An exchange that is under way goes on to its answer, for as long as that may take: what it brings has
                            // to be ended.
                            None => {
                                stop.cancel();
                                stopped = Some((came, Instant::now()));
                            }
                            Some((_, since)) if since.elapsed() >= STUBBORN => break None,
                            Some(_) => {}
                        },
                    }
                };
                (done, stopped)
            };
            let lost = |why: &dyn std::fmt::Display| {
                let label = one.label();
                format!(
                    "warning: {label}: a credential may exist that nobody has, until it ends by itself: {why}"
                )
            };
            let unsure = match done {
                Some(Ok(one)) => {
                    gained.had.push(one);
                    None
                }
                Some(Err(mut error)) => {
                    gained.orphans.extend(error.lease.take());
                    if stopped.is_none() {
                        let failure = Failure::from(error).about(one.label());
                        return Err(Stopped::Failed(failure.also("the command is not started")));
                    }
                    error.unsure.then(|| lost(&error))
                }
                None => Some(lost(&"told to stop before the broker answered")),
            };
            if let Some((came, _)) = stopped {
                if let Some(words) = unsure {
                    talk.say(words);
                }
                return Err(Stopped::Signal(came));
            }
        }
        Ok(())
    }

    /// Starts the command with what is held. The inner error: it can't be started.
    async fn start(
        &self,
        held: &mut Held,
        machine: &Machine,
        carriers: &BTreeSet<OsString>,
        stop: &CancellationToken,
    ) -> Result<io::Result<Child>, Failure> {
        let variables = match self.hand {
            Hand::Env => held.in_variables()?,
            Hand::Files => held.in_files(&machine.environment)?,
            Hand::Endpoint => held.by_endpoint(&machine.environment, stop).await?,
        };
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Failure::usage("no command is named"));
        };
        let mut command = Command::new(program);
        command.args(arguments);
        for name in held.superseded() {
            command.env_remove(name);
        }
        if self.hide_platform {
            for name in handover::PLATFORM_TOKENS.into_iter().chain(self.asking.token_variable()) {
                command.env_remove(name);
            }
            for name in carriers {
                command.env_remove(name);
            }
        }
        for Variable { name, value, .. } in &variables {
            command.env(name, OsStr::from_bytes(value.reveal()));
        }
        // Ours to wait for, and not to kill: it may have something to clean up.
        Ok(command.kill_on_drop(false).spawn())
    }
}

/// `[NAME=]TARGET[:SCOPE]`. A scope has no `/`: what follows the colon of `https://…` is none.
fn asked(text: &str) -> (Option<&str>, &str, Option<&str>) {
    let named = text.split_once('=').filter(|(name, _)| variable(name).is_ok());
    let (name, rest) = match named {
        Some((name, rest)) => (Some(name), rest),
        None => (None, text),
    };
    match rest.rsplit_once(':') {
        Some((target, scope)) if !scope.contains('/') && !scope.is_empty() => {
            (name, target, Some(scope))
        }
        Some(_) | None => (name, rest, None),
    }
}

async fn acquire(
    wanted: &Wanted,
    machine: &Machine,
    waiting: &mut Waiting<'_>,
    stop: &CancellationToken,
    carriers: Option<&mut BTreeSet<OsString>>,
    talk: &mut Talk,
) -> Result<Had, ClientError> {
    let errand = &wanted.errand;
    let subject = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(ClientError::unreachable("told to stop")),
        subject = errand.subject(machine, waiting) => subject?,
    };
    if let Some(carriers) = carriers {
        // Whatever the platform calls it: GitLab's jobs choose the name.
        let token = subject.token.reveal();
        let all = machine.environment.all();
        let found = all.filter(|(_, value)| value.as_bytes().trim_ascii() == token);
        carriers.extend(found.map(|(name, _)| name.to_owned()));
    }
    if let Some((title, place)) = &subject.place {
        talk.say(format_args!("found the token of {title}: {place}"));
    }
    match errand.exchange(&subject, waiting, &SystemClock).await? {
        Answer::Issued(issued) => {
            talk.say(format_args!("{}: {}", wanted.label(), summary(&issued)));
            Ok((*issued, subject.fingerprint()))
        }
        Answer::Refused(refused) => {
            if let (false, Some(words)) =
                (refused.is_outage(), ambient::unverified_words(&subject.token))
            {
                talk.say(format_args!("{}: {words}", wanted.label()));
            }
            Err(errand.refused(refused, &subject))
        }
    }
}

fn keepers(wanted: &[Wanted], had: Vec<Had>, machine: &Arc<Machine>) -> (Vec<Keeper>, Vec<Tended>) {
    let pace = Pace::default();
    let each = wanted.iter().zip(had).map(|(one, had)| {
        let runner = Runner {
            errand: one.errand.clone(),
            machine: Arc::clone(machine),
            patience: pace.retry,
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance),
        };
        let (clock, chance) = (Arc::new(SystemClock), Arc::new(SystemChance));
        let (keeper, kept) = Keeper::new(Arc::new(runner), pace, clock, chance, Some(had));
        (keeper, Tended::of(one.target.clone(), one.label(), one.name.clone(), kept))
    });
    each.unzip()
}

/// Ends them all at once, and what `keepers` leave as it comes, and says which could not be.
async fn end_all(
    leases: Vec<Lease>,
    keepers: Vec<JoinHandle<Vec<Lease>>>,
    broker: &Broker,
    tracker: &TaskTracker,
    signals: &mut Signals,
    talk: &mut Talk,
) {
    let (words, mut said) = mpsc::unbounded_channel();
    let end = |lease: Lease, broker: Broker, words: mpsc::UnboundedSender<String>| async move {
        let mut waiting = Waiting::begin(ENDING, &SystemChance);
        if let Err(error) = lease.revoke(&broker, &mut waiting).await {
            let _ = words.send(format!("warning: {error}; it ends by itself in the end"));
        }
    };
    for lease in leases {
        tracker.spawn(end(lease, broker.clone(), words.clone()));
    }
    for keeper in keepers {
        let (tasks, broker, words) = (tracker.clone(), broker.clone(), words.clone());
        tracker.spawn(async move {
            for lease in keeper.await.unwrap_or_default() {
                tasks.spawn(end(lease, broker.clone(), words.clone()));
            }
        });
    }
    // What is left holds the others: when they are gone, so is everything that was to be ended.
    drop(words);
    let began = Instant::now();
    loop {
        tokio::select! {
            biased;
            text = said.recv() => match text {
                Some(text) => talk.say(text),
                None => return,
            },
            came = signals.end() => if began.elapsed() >= STUBBORN {
                talk.say(format_args!(
                    "warning: {} before every lease was ended: credentials may exist until they end by themselves",
                    came.name
                ));
                return;
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::asked;

    #[test]
    fn a_credential_is_asked_for_on_one_word() {
        assert_eq!(asked("aws/prod"), (None, "aws/prod", None));
        assert_eq!(asked("aws/prod:deploy"), (None, "aws/prod", Some("deploy")));
        assert_eq!(asked("T=jwt/a:read write"), (Some("T"), "jwt/a", Some("read write")));
        assert_eq!(asked("https://a.example"), (None, "https://a.example", None));
        assert_eq!(asked("https://a.example/?x=1"), (None, "https://a.example/?x=1", None));
    }
}
