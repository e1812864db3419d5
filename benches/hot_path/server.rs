//! The two servers, each in a process of its own, and what `/proc` tells of them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use cambio::{
    app::{self, Existing, Mode},
    config::Config,
    telemetry::{self, Format},
};

use super::bare;

/// What a process of this binary does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Bare,
    Broker,
    /// Makes the broker's store, and ends.
    Create,
}

impl Role {
    pub fn of(name: &str) -> Option<Self> {
        [Self::Bare, Self::Broker, Self::Create].into_iter().find(|role| role.name() == name)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Broker => "broker",
            Self::Create => "create",
        }
    }
}

/// How a server is started.
#[derive(Clone, Copy, Debug)]
pub enum Launch<'a> {
    /// As it is.
    Free,
    /// On processor 0.
    Pinned,
    /// Under `valgrind`, which writes to this file how many instructions it took.
    Counted(&'a Path),
}

/// Serves until standard input ends. Says on standard output where.
pub fn serve(role: Role, folder: &Path) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match role {
            Role::Bare => {
                let key = fs::read(folder.join("issuer.der")).expect("the issuer's key");
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
                println!("{}", listener.local_addr().expect("an address"));
                tokio::select! {
                    served = axum::serve(listener, bare::router(&key)) => served.expect("serve"),
                    () = input_ended() => {}
                }
            }
            Role::Broker => {
                let running = broker(folder, Existing::Required).await;
                println!("{}", running.public());
                tokio::select! {
                    reason = running.ended() => panic!("the ledger stopped: {reason}"),
                    () = input_ended() => running.drain().await,
                }
            }
            Role::Create => broker(folder, Existing::Created).await.drain().await,
        }
    });
}

async fn broker(folder: &Path, existing: Existing) -> app::Running {
    telemetry::start(Format::Json, "warn", None).expect("logging");
    let file = folder.join("cambio.yaml");
    let (config, _) = Config::read(&file).unwrap_or_else(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", problems.join("\n"))
    });
    let running = app::start(config, Some(file), Mode::Serve, existing).await;
    running.unwrap_or_else(|error| panic!("the broker does not start: {error}"))
}

async fn input_ended() {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    read.await.expect("a thread").expect("standard input");
}

/// Makes the store in `folder`.
pub fn create(folder: &Path) {
    let made = command(Role::Create, folder, Launch::Free).status().expect("start");
    assert!(made.success(), "the store was not made");
}

/// A server that runs.
pub struct Server {
    pub role: Role,
    pub address: SocketAddr,
    /// From the start of the process until it served.
    pub ready: Duration,
    /// How many good answers it gave.
    pub answered: u64,
    child: Child,
}

impl Server {
    pub fn start(role: Role, folder: &Path, launch: Launch<'_>) -> Self {
        let begun = Instant::now();
        let mut child = command(role, folder, launch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start");
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("where it serves");
        let address =
            line.trim().parse().unwrap_or_else(|_| panic!("the {} did not start", role.name()));
        Self { role, address, ready: begun.elapsed(), answered: 0, child }
    }

    /// User and system time since its start.
    pub fn cpu(&self) -> Duration {
        // Field 2 is the name in parentheses; 14 and 15 are the times, in ticks of 10 ms (proc(5)).
        let stat = self.proc("stat");
        let after_name = stat.rsplit_once(") ").expect("a name").1;
        let ticks: u64 = after_name
            .split(' ')
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// A line of `/proc/PID/status`, in MiB.
    pub fn memory(&self, line: &str) -> f64 {
        let status = self.proc("status");
        let kib = status.lines().find_map(|found| found.strip_prefix(line)).expect("a line");
        kib.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1_024.0
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("the server runs")
    }

    /// Ends it in good order.
    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.wait().expect("its end");
        assert!(ended.success(), "the {} ended with {ended}", self.role.name());
    }
}

fn command(role: Role, folder: &Path, launch: Launch<'_>) -> Command {
    let this = std::env::current_exe().expect("this program");
    let mut command = match launch {
        Launch::Free => Command::new(this),
        Launch::Pinned => {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(this);
            command
        }
        Launch::Counted(file) => {
            let mut command = Command::new("valgrind");
            command
                .args(["--quiet", "--tool=callgrind"])
                .arg(format!("--callgrind-out-file={}", file.display()))
                .arg(this);
            command
        }
    };
    command.arg(role.name()).arg(folder);
    command
}

/// Lets the process `id` run on `cpu` alone.
pub fn pin(id: u32, cpu: u32) {
    let pinned = Command::new("taskset")
        .args(["-a", "-p", "-c", &cpu.to_string(), &id.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(pinned.expect("taskset").success(), "not pinned");
}
