//! `cambio exec -- CMD`: a command with credentials, for as long as it runs.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio::process::{Child, Command};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Exit, Failure, Talk,
    asking::{Asking, ENDING, summary, variable},
    harden::hide,
};
use crate::{
    chance::SystemChance,
    client::{
        Answer, Broker, Environment, Errand, Issued, Keeper, Lease, Machine, Waiting, ambient,
        child::{self, Came, Signals},
        format::Variable,
        handover,
        keeper::{Pace, Runner},
    },
    clock::SystemClock,
};

mod held;

use held::{Held, Tended};

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
    /// AWS sessions by an endpoint on loopback, which SDKs ask again by themselves; everything else in files.
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
    /// As it was asked for.
    fn label(&self) -> String {
        match &self.errand.scope {
            Some(scope) => format!("{}:{scope}", self.target),
            None => self.target.clone(),
        }
    }
}

/// How long an exchange that is under way may go on when we are to stop: what it brings has to be ended.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// Why the command is not started.
enum Stopped {
    Failed(Failure),
    Signal(Came),
}

/// A credential, and which token it was had with.
type Had = (Issued, [u8; 32]);

pub(super) async fn run(exec: Exec, talk: &mut Talk) -> Result<Exit, Failure> {
    hide()?;
    let tracker = TaskTracker::new();
    // Before anything is asked for: whoever stops us now leaves no lease behind.
    let mut signals = Signals::listen(&tracker)
        .map_err(|error| Failure::refused(format!("signals can't be handled: {error}")))?;
    let machine = Arc::new(Machine::of(Environment::of(std::env::vars_os())));
    let broker = exec.asking.broker(&machine)?;
    let wanted = exec.wanted(broker.clone())?;
    let mut had = Vec::new();
    let acquired = exec.acquire(&wanted, &machine, &mut signals, &mut had, talk).await;
    if let Err(stopped) = acquired {
        let leases = had.iter().filter_map(|(issued, _)| issued.lease()).collect();
        end_all(leases, &broker, &tracker, &mut signals, talk).await;
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
    let exit = match exec.start(&mut held, &machine, &stop).await {
        Ok(Ok(mut child)) => match held.attend(&mut child, &mut signals, talk).await {
            Ok(status) => Ok(Exit::Of(child::exit_code(status))),
            Err(error) => {
                Err(Failure::unreachable(format!("nobody tells how the command ended: {error}")))
            }
        },
        Ok(Err(error)) => {
            let name = exec.command.first().map(|name| name.to_string_lossy().into_owned());
            talk.say(format_args!("error: `{}`: {error}", name.unwrap_or_default()));
            Ok(Exit::Of(child::not_started(&error)))
        }
        Err(failure) => Err(failure.also("the command is not started")),
    };
    // First what is secret, then what takes time.
    held.close(talk);
    stop.cancel();
    let mut leases = Vec::new();
    for task in tasks {
        leases.extend(task.await.unwrap_or_default());
    }
    end_all(leases, &broker, &tracker, &mut signals, talk).await;
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

    /// One after the other: what is had when this stops is in `had`, to be ended.
    async fn acquire(
        &self,
        wanted: &[Wanted],
        machine: &Machine,
        signals: &mut Signals,
        had: &mut Vec<Had>,
        talk: &mut Talk,
    ) -> Result<(), Stopped> {
        let mut waiting = Waiting::begin(self.asking.patience(), &SystemChance);
        for one in wanted {
            let mut attempt = pin!(acquire(one, machine, &mut waiting, talk));
            let done = tokio::select! {
                done = &mut attempt => done,
                came = signals.end() => {
                    if let Ok(Ok(late)) = tokio::time::timeout(LAST_ANSWER, attempt).await {
                        had.push(late);
                    }
                    return Err(Stopped::Signal(came));
                }
            };
            had.push(done.map_err(|failure| {
                let (of, not) = (one.label(), "the command is not started");
                Stopped::Failed(failure.about(format_args!("`{of}`")).also(not))
            })?);
        }
        Ok(())
    }

    /// Starts the command with what is held. The inner error: it can't be started.
    async fn start(
        &self,
        held: &mut Held,
        machine: &Machine,
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
    talk: &mut Talk,
) -> Result<Had, Failure> {
    let errand = &wanted.errand;
    let subject = errand.subject(machine, waiting).await?;
    if let Some((title, place)) = &subject.place {
        talk.say(format_args!("found the token of {title}: {place}"));
    }
    match errand.exchange(&subject, waiting, &SystemClock).await? {
        Answer::Issued(issued) => {
            talk.say(format_args!("`{}`: {}", wanted.label(), summary(&issued)));
            Ok((*issued, subject.fingerprint()))
        }
        Answer::Refused(refused) => {
            if let (false, Some(words)) =
                (refused.is_outage(), ambient::unverified_words(&subject.token))
            {
                talk.say(format_args!("`{}`: {words}", wanted.label()));
            }
            Err(refused.of(errand.audience.as_deref()).into())
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

/// Ends them all at once, and says which could not be.
async fn end_all(
    leases: Vec<Lease>,
    broker: &Broker,
    tracker: &TaskTracker,
    signals: &mut Signals,
    talk: &mut Talk,
) {
    let tasks: Vec<_> = leases
        .into_iter()
        .map(|lease| {
            let broker = broker.clone();
            tracker.spawn(async move {
                let mut waiting = Waiting::begin(ENDING, &SystemChance);
                lease.revoke(&broker, &mut waiting).await
            })
        })
        .collect();
    for task in tasks {
        tokio::select! {
            done = task => if let Ok(Err(error)) = done {
                talk.say(format_args!("warning: {error}; it ends by itself in the end"));
            },
            came = signals.end() => {
                talk.say(format_args!("warning: {} before every lease was ended; they end by themselves", came.name));
                return;
            }
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
