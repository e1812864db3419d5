//! `cambio exec` as a job runs it: what the command is given and what it is not, how it ends, and that its leases end with it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::tempdir;

use super::{exchange::granted, runner::text};
use crate::support::{
    cambio,
    stand_in::{Reply, StandIn},
};

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const DATABASE: &str = "urn:cambio:token-type:database";

fn ended() -> Reply {
    Reply::json(200, json!({}))
}

fn login(user: &str) -> Reply {
    let login = json!({
        "kind": "postgres",
        "user": user,
        "password": "hush-password",
        "host": "db.example",
        "port": 5432,
        "database": "orders",
        "sslmode": "verify-full",
        "expires_at": "2099-01-15T08:15:00Z",
    });
    granted(&login.to_string(), DATABASE)
}

/// Runs `cambio exec OPTIONS -- sh -c SCRIPT`, with a token in a variable.
async fn run(broker: &StandIn, options: &[&str], script: &str, more: &[(&str, &str)]) -> Output {
    let words = ["exec", "--broker", &broker.url, "--token-variable", "MINE"];
    let command = ["--", "/bin/sh", "-c", script];
    let words: Vec<String> =
        words.iter().chain(options).chain(&command).map(|word| (*word).to_owned()).collect();
    let base = [("MINE", "e30.e30.hush-token"), ("PATH", "/usr/bin:/bin")];
    let variables: Vec<(String, String)> = base
        .iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    tokio::task::spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        cambio(&words, &variables, "")
    })
    .await
    .unwrap()
}

/// Begins `cambio exec -- sh -c SCRIPT`, to be talked to while it runs.
fn begin(broker: &StandIn, script: &str, stdin: Stdio) -> Child {
    Command::new(env!("CARGO_BIN_EXE_cambio"))
        .args(["exec", "--broker", &broker.url, "--token-variable", "MINE", "--"])
        .args(["/bin/sh", "-c", script])
        .env_clear()
        .envs([("MINE", "e30.e30.hush"), ("PATH", "/usr/bin:/bin")])
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn lines(broker: &StandIn) -> Vec<String> {
    broker.seen().into_iter().map(|seen| seen.line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_gets_its_variables_and_its_lease_ends_with_it() {
    let broker = StandIn::at_loopback([login("cambio_1"), ended()]).await;
    let script = "echo $PGUSER $PGPASSWORD $PGHOST $PGHOSTADDR $PGSERVICE; exit 7";
    let others = [("PGPASSWORD", "other"), ("PGHOSTADDR", "10.0.0.1"), ("PGSERVICE", "other")];
    let done = run(&broker, &["--audience", "postgres/orders"], script, &others).await;
    let err = text(&done.stderr);
    assert_eq!(text(&done.stdout), "cambio_1 hush-password db.example\n", "{err}");
    assert_eq!(done.status.code(), Some(7), "{err}");
    assert!(err.contains("variables can't be renewed: "), "{err}");
    assert!(!err.contains("hush"), "{err}");
    assert_eq!(lines(&broker), ["POST /token", "POST /revoke"]);
    assert_eq!(broker.seen()[1].body, "token=hush-lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_private_while_the_command_runs_and_gone_when_it_has_ended() {
    let broker =
        StandIn::at_loopback([login("cambio_1"), granted("a.b.c", JWT), ended(), ended()]).await;
    let script = r#"
        stat -c %a "$PGPASSFILE" "$PGSERVICEFILE" "$ORDERS_FILE" "$(dirname "$PGPASSFILE")"
        echo "$PGSERVICE"; cat "$PGPASSFILE" "$PGSERVICEFILE" "$ORDERS_FILE"; echo
        echo "$ORDERS_FILE" >&2
    "#;
    let options =
        ["--hand", "files", "--get", "postgres/orders:read", "--get", "ORDERS=jwt/orders"];
    let done = run(&broker, &options, script, &[]).await;
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(
        out,
        "600\n600\n600\n700\npostgres/orders\n\
         db.example:5432:orders:cambio_1:hush-password\n\
         [postgres/orders]\nhost=db.example\nport=5432\ndbname=orders\nuser=cambio_1\nsslmode=verify-full\n\
         a.b.c\n",
        "{err}"
    );
    assert!(!err.contains("hush"), "{err}");
    let place = Path::new(err.lines().last().unwrap());
    assert!(place.is_absolute() && !place.parent().unwrap().exists(), "{err}");
    let seen = lines(&broker);
    assert_eq!(seen, ["POST /token", "POST /token", "POST /revoke", "POST /revoke"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_started_leaves_no_lease_behind() {
    let broker = StandIn::at_loopback([
        granted("a.b.c", JWT),
        ended(),
        granted("a.b.c", JWT),
        ended(),
        // The second of two is refused: the first is ended, and nothing runs.
        granted("a.b.c", JWT),
        Reply::json(400, json!({ "error": "invalid_grant", "exchange_id": "ex_2" })),
        ended(),
        // Two that would have the same variable.
        granted("a.b.c", JWT),
        granted("a.b.c", JWT),
        ended(),
        ended(),
    ])
    .await;
    let folder = tempdir().unwrap();
    let (missing, closed) = (folder.path().join("missing"), folder.path().join("closed"));
    fs::write(&closed, "#!/bin/sh\n").unwrap();
    let mut codes = Vec::new();
    for command in [&missing, &closed] {
        let words: Vec<String> =
            ["exec", "--broker", &broker.url, "--token-variable", "MINE", "--"]
                .iter()
                .map(|word| (*word).to_owned())
                .chain([command.to_str().unwrap().to_owned()])
                .collect();
        let done = tokio::task::spawn_blocking(move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            cambio(&words, &[("MINE", "e30.e30.hush")], "")
        });
        codes.push(done.await.unwrap().status.code());
    }
    assert_eq!(codes, [Some(127), Some(126)]);
    let two = ["--get", "jwt/a", "--get", "jwt/b:read"];
    let mut told = Vec::new();
    for expected in [1, 2] {
        let done = run(&broker, &two, "echo ran", &[]).await;
        assert_eq!((done.status.code(), text(&done.stdout).as_str()), (Some(expected), ""));
        told.push(text(&done.stderr));
    }
    let revoked = lines(&broker).iter().filter(|line| *line == "POST /revoke").count();
    assert_eq!(revoked, 5);
    // Which of the two, and what follows.
    let refused = "error: `jwt/b:read`: refused: `invalid_grant`: without a description (exchange `ex_2`); the command is not started\n";
    assert!(told[0].contains(refused), "{}", told[0]);
    assert!(told[0].contains("`jwt/a`: issued a token"), "{}", told[0]);
    assert!(told[1].contains("; the command is not started"), "{}", told[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_reaches_the_command_and_its_end_is_ours() {
    let broker =
        StandIn::at_loopback([granted("a.b.c", JWT), ended(), granted("a.b.c", JWT), ended()])
            .await;
    // One that cleans up, and one that the signal ends.
    let mut codes = Vec::new();
    for script in [
        "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done",
        "echo ready; exec sleep 60",
    ] {
        let mut child = begin(&broker, script, Stdio::null());
        let told = tokio::task::spawn_blocking(move || {
            let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
            assert_eq!(out.next().unwrap().unwrap(), "ready");
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            (child.wait().unwrap().code(), out.map(Result::unwrap).collect::<Vec<_>>())
        });
        codes.push(told.await.unwrap());
    }
    assert_eq!(codes, [(Some(9), vec!["got".to_owned()]), (Some(143), vec![])]);
    assert_eq!(lines(&broker), ["POST /token", "POST /revoke"].repeat(2));
}

/// As a runner does in the end, or a machine that has no memory left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_asked_to_end_when_we_are_killed() {
    let broker = StandIn::at_loopback([granted("a.b.c", JWT), granted("a.b.c", JWT)]).await;
    let mut told = Vec::new();
    for script in [
        "trap 'echo got; exit 9' TERM; sleep 1; echo ready; for i in $(seq 400); do sleep 0.05; done; echo late",
        // Asked once, it may take its time.
        "trap 'echo got' TERM; sleep 1; echo ready; sleep 1 & wait; wait; echo late",
    ] {
        let mut child = begin(&broker, script, Stdio::null());
        let lines = tokio::task::spawn_blocking(move || {
            let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
            assert_eq!(out.next().unwrap().unwrap(), "ready");
            child.kill().unwrap();
            child.wait().unwrap();
            // Until nobody has the other end any more.
            out.map(Result::unwrap).collect::<Vec<_>>()
        });
        told.push(lines.await.unwrap());
    }
    assert_eq!(told, [vec!["got".to_owned()], vec!["got".to_owned(), "late".to_owned()]]);
}

/// In a container nobody may be there to collect it, and it was born with what the shell opened for us: a lock, a pipe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_after_a_command_is_gone_before_we_are() {
    use rustix::process::{Pid, Signal, kill_process};
    let broker = StandIn::at_loopback([granted("a.b.c", JWT), ended()]).await;
    let mut child = begin(&broker, "echo ready; read line; exit 7", Stdio::piped());
    let told = tokio::task::spawn_blocking(move || {
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(out.next().unwrap().unwrap(), "ready");
        let (watcher, status) = watcher_of(child.id());
        // One that can't end by itself: else it would be a race.
        let pid = Pid::from_raw(watcher).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        drop(child.stdin.take());
        let code = child.wait().unwrap().code();
        let left = Path::new(&format!("/proc/{watcher}")).exists();
        if left {
            kill_process(pid, Signal::KILL).unwrap();
        }
        (code, left, status)
    });
    let (code, left, status) = told.await.unwrap();
    assert_eq!((code, left), (Some(7), false));
    assert!(status.contains("Threads:\t1\n"), "it needs no runtime: {status}");
}

/// Who looks after the command of `exec`, and its `status` of proc(5) once it is called as we are.
fn watcher_of(exec: u32) -> (i32, String) {
    let parent = format!("PPid:\t{exec}\n");
    for _ in 0..200 {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = process.file_name().to_string_lossy().parse() else { continue };
            // It may be gone meanwhile.
            let read = |name| fs::read_to_string(process.path().join(name)).unwrap_or_default();
            let (line, status) = (read("cmdline"), read("status"));
            if line == "cambio\0exec-watch\0"
                && status.contains(&parent)
                && status.starts_with("Name:\tcambio\n")
            {
                return (pid, status);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("nobody called `cambio` looks after the command of {exec}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hands_out_tokens_can_be_kept_from_the_command() {
    let broker = StandIn::at_loopback([granted("a.b.c", JWT), ended()]).await;
    let more = [("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "hush-request")];
    let script = "env | grep -c -e hush-token -e hush-request; true";
    let done = run(&broker, &["--hide-platform"], script, &more).await;
    assert_eq!(text(&done.stdout), "0\n", "{}", text(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_variable_that_the_token_came_in_is_kept_from_the_command_whatever_its_name() {
    let broker = StandIn::at_loopback([granted("a.b.c", JWT), ended()]).await;
    // The same token under a name that no list has.
    let more = [("ANY_ID_TOKEN", "e30.e30.hush-token"), ("OTHER", "kept")];
    let script = "env | grep -c -e hush-token -e kept; true";
    let done = run(&broker, &["--hide-platform"], script, &more).await;
    assert_eq!(text(&done.stdout), "1\n", "{}", text(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_credential_can_not_be_read_is_ended() {
    let mac = json!({
        "access_token": "hush",
        "issued_token_type": JWT,
        "token_type": "mac",
        "lease": { "id": "ls_1", "token": "hush-lease" },
    });
    let port = json!({ "kind": "mysql", "user": "u", "password": "hush", "port": 70_000 });
    let broker = StandIn::at_loopback([
        Reply::json(200, mac),
        ended(),
        granted(&port.to_string(), DATABASE),
        ended(),
    ])
    .await;
    for _ in 0..2 {
        let done = run(&broker, &[], "echo ran", &[]).await;
        let err = text(&done.stderr);
        assert_eq!((done.status.code(), text(&done.stdout).as_str()), (Some(3), ""), "{err}");
        assert!(err.contains("its lease `ls_1` is ended") && !err.contains("hush"), "{err}");
    }
    assert_eq!(lines(&broker), ["POST /token", "POST /revoke"].repeat(2));
    assert_eq!(broker.seen()[3].body, "token=hush-lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_for_the_whole_group_leaves_no_lease_behind() {
    let rounds = 12;
    let replies = (0..rounds).flat_map(|_| [granted("a.b.c", JWT), ended()]);
    let broker = StandIn::at_loopback(replies.collect::<Vec<_>>()).await;
    for _ in 0..rounds {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cambio"))
            .args(["exec", "--broker", &broker.url, "--token-variable", "MINE", "--"])
            .args(["/bin/sh", "-c", "echo ready; exec sleep 60"])
            .env_clear()
            .envs([("MINE", "e30.e30.hush"), ("PATH", "/usr/bin:/bin")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let told = tokio::task::spawn_blocking(move || {
            let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
            assert_eq!(out.next().unwrap().unwrap(), "ready");
            let group = rustix::process::Pid::from_child(&child);
            for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
                rustix::process::kill_process_group(group, signal).unwrap();
            }
            let done = child.wait_with_output().unwrap();
            (done.status.code(), text(&done.stderr))
        });
        let (code, err) = told.await.unwrap();
        assert!(matches!(code, Some(143 | 129)), "{code:?} {err}");
        assert!(!err.contains("warning"), "{err}");
    }
    assert_eq!(lines(&broker), ["POST /token", "POST /revoke"].repeat(rounds));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_the_target_does_not_confirm_is_told_and_changes_no_exit_code() {
    let pending =
        Reply::json(503, json!({ "error_description": "the target does not answer yet" }))
            .header("retry-after", "60");
    let broker = StandIn::at_loopback([granted("a.b.c", JWT), pending]).await;
    let done = run(&broker, &[], "exit 0", &[]).await;
    let err = text(&done.stderr).replace(&broker.url, "BROKER");
    assert_eq!(done.status.code(), Some(0), "{err}");
    assert!(
        err.ends_with(
            "warning: lease `ls_1` is not known to be ended: `BROKER` answered 503 Service Unavailable: \
             the target does not answer yet; it ends by itself in the end\n"
        ),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_a_format_can_not_carry_is_ended_at_once() {
    let broker = StandIn::at_loopback([granted("a.b.c", JWT), ended()]).await;
    let url = broker.url.clone();
    let done = tokio::task::spawn_blocking(move || {
        let words =
            ["exchange", "--broker", &url, "--token-variable", "MINE", "--format", "pgpass"];
        cambio(&words, &[("MINE", "e30.e30.hush")], "")
    });
    let done = done.await.unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(text(&done.stderr).ends_with("\n  hint: its lease `ls_1` is ended\n"));
    assert_eq!(lines(&broker), ["POST /token", "POST /revoke"]);
    let value: Result<Value, _> = text(&done.stdout).parse();
    assert!(value.is_err(), "nothing of it is written");
}

/// Nobody listens there. A minute of silence looks like a command that hangs.
#[test]
fn that_a_broker_is_tried_again_is_said_once_on_stderr_and_not_to_google_s_libraries() {
    let asked = ["--broker", "http://127.0.0.1:1", "--token-variable", "MINE", "--deadline", "2s"];
    let run = |verb: &str, more: &[&str]| {
        let words: Vec<&str> = [verb].iter().chain(&asked).chain(more).copied().collect();
        let done = cambio(&words, &[("MINE", "e30.e30.hush-token")], "");
        assert_eq!(done.status.code(), Some(3));
        (text(&done.stdout), text(&done.stderr))
    };
    for (verb, more) in [("exchange", &[][..]), ("exec", &["--", "true"])] {
        let (out, err) = run(verb, more);
        let again: Vec<&str> = err.lines().filter(|line| line.contains("trying again")).collect();
        let [line] = again.as_slice() else { panic!("{err}") };
        assert!(line.starts_with("no answer from `http://127.0.0.1:1`: "), "{err}");
        assert!(line.ends_with(": trying again, for 2s at most"), "{err}");
        assert_eq!(out, "");
    }
    let (out, err) = run("exchange", &["--format", "gcp-executable"]);
    assert!(out.starts_with('{') && err.is_empty(), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_without_a_target_is_called_by_no_other_name() {
    let broker = StandIn::at_loopback([granted("a.b.c", JWT), ended()]).await;
    let done = run(&broker, &[], "true", &[]).await;
    let err = text(&done.stderr);
    assert!(err.starts_with("the credential: issued a token"), "{err}");
    let broker = StandIn::at_loopback([granted("a.b.c", JWT), ended()]).await;
    let done = run(&broker, &["--audience", "jwt/orders", "--scope", "read"], "true", &[]).await;
    let err = text(&done.stderr);
    assert!(err.starts_with("`jwt/orders:read`: issued a token"), "{err}");
}
