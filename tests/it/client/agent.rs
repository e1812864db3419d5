//! What the agent does with a credential: files that come and go with it, a command that is bounded, a board that tells.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cambio::{
    client::{
        ClientError, Format, Kept,
        agent::{Board, OnChange, Ward, board::Counters, command},
        endpoint::Served,
        files::{Destination, Readers},
        format::Style,
        keeper::Trouble,
    },
    clock::{Instant, ManualClock},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::exchange::issued;
use crate::support::token::NOW;

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

struct Stage {
    home: tempfile::TempDir,
    keep: watch::Sender<Arc<Kept>>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    tending: JoinHandle<()>,
}

async fn kept(token: &str, generation: u64) -> Arc<Kept> {
    let issued = issued(token, JWT).await;
    let newest = Some((issued.asked_at, issued.ends));
    Arc::new(Kept { issued: Some(Arc::new(issued)), trouble: None, generation, newest })
}

fn trouble() -> Trouble {
    let what = ClientError::unreachable("no answer from `BROKER`\u{1b}[31m").hint("does it run?");
    Trouble { since: Instant::from_seconds(NOW), what, failures: 3 }
}

/// A ward with a file `token`, and a command that adds a line to `runs`.
fn tended() -> Stage {
    tended_with(|home| shell(&format!("cat {}/token >> {}/runs", home.display(), home.display())))
}

/// The same with this command.
fn tended_with(command: impl FnOnce(&Path) -> OnChange) -> Stage {
    let home = tempfile::tempdir().unwrap();
    let (keep, receiver) = watch::channel(Arc::new(Kept::default()));
    let counters = Arc::new(Counters::default());
    let destination = Destination {
        path: home.path().join("token"),
        format: Format::Token,
        style: Style::default(),
        readers: Readers::Owner,
        trusted: false,
    };
    let ward = Ward {
        name: "orders".to_owned(),
        files: vec![destination],
        on_change: Some(command(home.path())),
        kept: receiver,
        counters: Arc::clone(&counters),
    };
    let stop = CancellationToken::new();
    let tending = tokio::spawn(ward.tend(stop.clone()));
    Stage { home, keep, counters, stop, tending }
}

fn shell(script: &str) -> OnChange {
    OnChange {
        program: "/bin/sh".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        deadline: Duration::from_secs(20),
        environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
    }
}

/// Waits until the file says so; the test's own time limit is the only one.
async fn until(path: &Path, wanted: Option<&str>) {
    for _ in 0..1_000 {
        if fs::read_to_string(path).ok().as_deref() == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("`{}` never was {wanted:?}: {:?}", path.display(), fs::read_to_string(path));
}

impl Stage {
    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    async fn until_counted(&self, line: &str) {
        for _ in 0..1_000 {
            if self.metrics().await.contains(line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never counted: {line}{}", self.metrics().await);
    }

    async fn metrics(&self) -> String {
        board(&self.keep, &self.counters, "/metrics").await.1
    }
}

/// What the board answers to `path`, a minute before the end of a credential that was made at [`NOW`].
async fn board(
    keep: &watch::Sender<Arc<Kept>>,
    counters: &Arc<Counters>,
    path: &str,
) -> (u16, String) {
    let board = Board {
        entries: vec![Served { name: "orders".to_owned(), kept: keep.subscribe() }],
        counters: Arc::clone(counters),
        clock: Arc::new(ManualClock::at(Instant::from_milliseconds((NOW + 840) * 1_000 + 900))),
    };
    let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
    let answer = board.router().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn files_and_command_follow_the_credential_and_go_when_it_is_over() {
    let stage = tended();
    let (token, runs) = (stage.file("token"), stage.file("runs"));
    stage.keep.send_replace(kept("a.b.one", 1).await);
    until(&runs, Some("a.b.one\n")).await;
    until(&token, Some("a.b.one\n")).await;
    // Trouble alone changes nothing: the last good one stays.
    let before = Arc::clone(&stage.keep.borrow());
    stage.keep.send_replace(Arc::new(Kept { trouble: Some(trouble()), ..(*before).clone() }));
    stage
        .until_counted(
            "cambio_agent_failures_total{credential=\"orders\",reason=\"unreachable\"} 3\n",
        )
        .await;
    until(&token, Some("a.b.one\n")).await;
    stage.keep.send_replace(kept("a.b.two", 2).await);
    until(&runs, Some("a.b.one\na.b.two\n")).await;
    // Its true end.
    let over = Kept {
        trouble: Some(trouble()),
        generation: 2,
        newest: stage.keep.borrow().newest,
        ..Kept::default()
    };
    stage.keep.send_replace(Arc::new(over));
    until(&token, None).await;
    // When the last one came is known all the same.
    let (metrics, at) = (stage.metrics().await, NOW);
    for line in [
        format!(
            "cambio_agent_credential_obtained_timestamp_seconds{{credential=\"orders\"}} {at}.9\n"
        ),
        "cambio_agent_credential_expiry_seconds{credential=\"orders\"} 0.0\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    stage.keep.send_replace(kept("a.b.three", 3).await);
    until(&runs, Some("a.b.one\na.b.two\na.b.three\n")).await;
    let metrics = stage.metrics().await;
    for line in [
        "cambio_agent_renewals_total{credential=\"orders\"} 3\n",
        "cambio_agent_failures_total{credential=\"orders\",reason=\"unreachable\"} 6\n",
        "cambio_agent_credential_expiry_seconds{credential=\"orders\"} 60.0\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    stage.stop.cancel();
    stage.tending.await.unwrap();
    assert!(!token.exists(), "nobody would renew it any more");
}

#[tokio::test]
async fn a_file_that_can_not_be_written_is_told_and_tried_again() {
    let stage = tended();
    fs::create_dir(stage.file("token")).unwrap();
    stage.keep.send_replace(kept("a.b.one", 1).await);
    stage.until_counted("cambio_agent_file_failures_total{credential=\"orders\"} 1\n").await;
    assert!(!stage.file("runs").exists(), "the command waits for the files");
    // Who could not write it down is not ready, and says which file it is.
    let (status, body) = board(&stage.keep, &stage.counters, "/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let one = &body["credentials"][0];
    assert_eq!((status, &one["ok"], &one["trouble"]), (503, &json!(false), &Value::Null));
    assert_eq!(one["unwritten"], json!([stage.file("token")]));
    fs::remove_dir(stage.file("token")).unwrap();
    until(&stage.file("runs"), Some("a.b.one\n")).await;
    let (status, body) = board(&stage.keep, &stage.counters, "/readyz").await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn a_command_that_hangs_keeps_no_file_and_runs_once_more_for_all_that_came_meanwhile() {
    let stage = tended_with(|home| {
        let home = home.display();
        // Holds on until `go` is there; says at its beginning and at its end what the file holds.
        shell(&format!(
            "echo began >> {home}/runs; until [ -e {home}/go ]; do sleep 0.02; done; cat {home}/token >> {home}/runs"
        ))
    });
    let (token, runs) = (stage.file("token"), stage.file("runs"));
    stage.keep.send_replace(kept("a.b.one", 1).await);
    until(&runs, Some("began\n")).await;
    for (text, generation) in [("a.b.two", 2), ("a.b.three", 3)] {
        stage.keep.send_replace(kept(text, generation).await);
        until(&token, Some(&format!("{text}\n"))).await;
    }
    // Its end comes while the command hangs, and it goes all the same.
    let over = Kept { issued: None, trouble: Some(trouble()), generation: 3, newest: None };
    stage.keep.send_replace(Arc::new(over));
    until(&token, None).await;
    stage.keep.send_replace(kept("a.b.four", 4).await);
    until(&token, Some("a.b.four\n")).await;
    assert_eq!(fs::read_to_string(&runs).unwrap(), "began\n", "one at a time");
    fs::write(stage.file("go"), "").unwrap();
    until(&runs, Some("began\na.b.four\nbegan\na.b.four\n")).await;
    stage.stop.cancel();
    stage.tending.await.unwrap();
}

#[tokio::test]
async fn a_command_is_given_its_words_and_its_credential_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let mut command = shell(
        "printf '%s|' \"$@\" > \"$0\"; env | cut -d= -f1 | grep -vE '^(PWD|SHLVL|_)$' | sort | tr '\\n' ' ' >> \"$0\"",
    );
    let words = [out.to_str().unwrap(), "$(id)", "a b", "; rm -rf /"];
    command.arguments.extend(words.map(str::to_owned));
    command.run("orders").await.unwrap();
    assert_eq!(fs::read_to_string(out).unwrap(), "$(id)|a b|; rm -rf /|CAMBIO_CREDENTIAL PATH ");
    assert_eq!(
        shell("exit 3").run("orders").await,
        Err("`/bin/sh` ended with exit status: 3".to_owned())
    );
    let nothing = OnChange { program: "/nothing/here".to_owned(), ..shell("") };
    assert!(nothing.run("orders").await.unwrap_err().contains("No such file"));
}

#[test]
fn a_command_that_can_not_be_run_is_told_before_anything_starts() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("reload");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    command::look("orders", "/bin/sh").unwrap();
    for (program, why) in [
        ("/nothing/here", "No such file"),
        (home.path().to_str().unwrap(), "is no file"),
        (file.to_str().unwrap(), "Permission denied"),
    ] {
        let error = command::look("orders", program).unwrap_err();
        let begins = format!("`on_change` of `orders`: `{program}`: {why}");
        assert!(error.message.starts_with(&begins), "{error}");
        assert_eq!(error.fault, cambio::client::Fault::Usage);
    }
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_what_it_started() {
    let home = tempfile::tempdir().unwrap();
    let pid = home.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", pid.display());
    let command = OnChange { deadline: Duration::from_secs(1), ..shell(&script) };
    let error = command.run("orders").await.unwrap_err();
    assert_eq!(error, "`/bin/sh` did not end in 1 s, and was killed");
    let started = fs::read_to_string(pid).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", started.trim()));
    for _ in 0..500 {
        // Gone, or dead and not yet waited for by whoever inherits it.
        match fs::read_to_string(&stat) {
            Err(_) => return,
            Ok(text) if text.contains(") Z ") => return,
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("the grandchild lives");
}

#[tokio::test]
async fn the_board_is_ready_when_everything_is_good_and_says_what_is_not() {
    let (keep, _receiver) = watch::channel(Arc::new(Kept::default()));
    let counters = Arc::new(Counters::default());
    let read = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let (status, body) = board(&keep, &counters, "/readyz").await;
    let none =
        json!({ "name": "orders", "ok": false, "until": null, "unwritten": [], "trouble": null });
    assert_eq!((status, read(body)), (503, json!({ "ready": false, "credentials": [none] })));
    let good = kept("a.b.hush", 1).await;
    keep.send_replace(Arc::new(Kept { trouble: Some(trouble()), ..(*good).clone() }));
    let (status, body) = board(&keep, &counters, "/readyz").await;
    assert!(!body.contains("hush"));
    let trouble = json!({
        "since": "2027-01-15T08:00:00Z", "failures": 3, "reason": "no answer from `BROKER` [31m; does it run?",
    });
    let one = json!({
        "name": "orders", "ok": true, "until": "2027-01-15T08:15:00.9Z", "unwritten": [],
        "trouble": trouble,
    });
    assert_eq!((status, read(body)), (200, json!({ "ready": true, "credentials": [one] })));
    assert_eq!(board(&keep, &counters, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(board(&keep, &counters, "/").await.0, 404);
    let metrics = board(&keep, &counters, "/metrics").await.1;
    assert!(metrics.ends_with("# EOF\n") && !metrics.contains("hush"), "{metrics}");
}
