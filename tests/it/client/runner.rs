//! `cambio exchange` as a job runs it: the binary, a runner's own variables, the real broker over its socket.

use std::{collections::BTreeMap, fs, path::Path, process::Output};

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{
    broker::parts,
    cambio,
    serving::{Serving, serve},
    site::{ORDERS, Site},
    stand_in::{Reply, StandIn},
};

/// A GitHub runner in front of a served broker: it hands out `tokens`, one for each request.
struct Runner {
    broker: Serving,
    desk: StandIn,
    url: String,
}

impl Runner {
    async fn start(tokens: usize) -> Self {
        let broker = serve(Site::new()).await;
        let token = || Reply::json(200, json!({ "value": broker.job().sign() }));
        let desk = StandIn::at_loopback((0..tokens).map(|_| token()).collect::<Vec<_>>()).await;
        let url = format!("http://{}", broker.running.public());
        Self { broker, desk, url }
    }

    /// Runs `cambio exchange` with these arguments as a step of the job.
    async fn step(&self, arguments: &[&str], more: &[(&str, &str)], stdin: &'static str) -> Output {
        let request = format!("{}/idtoken?api-version=2.0", self.desk.url);
        let mut variables: Vec<(String, String)> = [
            ("GITHUB_ACTIONS", "true"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", &request),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "hush-request-token"),
            ("CAMBIO_URL", &self.url),
            // Nothing but the command line sets a proxy.
            ("http_proxy", "http://127.0.0.1:1"),
            ("ALL_PROXY", "http://127.0.0.1:1"),
        ]
        .iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        variables.sort();
        let words = ["exchange", "--token-audience", "https://cambio.example"];
        let words: Vec<String> = words.iter().chain(arguments).map(|w| (*w).to_owned()).collect();
        // The desk and the broker live on this runtime: it must not wait for the child.
        tokio::task::spawn_blocking(move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let variables: Vec<(&str, &str)> =
                variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            cambio(&words, &variables, stdin)
        })
        .await
        .unwrap()
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_github_job_finds_its_token_and_leaves_with_a_credential() {
    let runner = Runner::start(2).await;
    let wants = ["--audience", ORDERS, "--scope", "read"];
    let done = runner.step(&wants, &[], "").await;
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{err}");
    let (_, claims) = parts(out.trim_end());
    assert_eq!((&claims["client_id"], &claims["aud"]), (&json!("orders/check"), &json!(ORDERS)));
    let asked = runner.desk.only();
    assert!(asked.line.ends_with("&audience=https%3A%2F%2Fcambio.example"), "{}", asked.line);
    assert_eq!(asked.header("authorization"), "bearer hush-request-token");
    assert!(
        err.starts_with(
            "found the token of GitHub Actions: `ACTIONS_ID_TOKEN_REQUEST_URL`\nissued a token for `"
        ),
        "{err}"
    );
    assert!(!err.contains("hush") && !err.contains(out.trim_end()), "{err}");

    // A role that no rule grants: refused, with the line to type and what the token says.
    let done = runner.step(&["--audience", ORDERS, "--scope", "admin"], &[], "").await;
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!((done.status.code(), out.as_str()), (Some(1), ""), "{err}");
    let id = err.split("cambio policy explain ").nth(1).unwrap().trim_end_matches("`\n");
    assert!(id.starts_with("ex_"), "{err}");
    assert!(
        err.contains("the token says: issued by `https://token.actions.githubusercontent.com`"),
        "{err}"
    );
    assert!(err.contains(&format!("(exchange `{id}`)")), "{err}");
    runner.broker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_for_later_steps_are_masked_before_they_are_set() {
    let runner = Runner::start(2).await;
    let folder = tempdir().unwrap();
    let file = folder.path().join("env");
    fs::write(&file, "BEFORE=1\n").unwrap();
    let variable = ("GITHUB_ENV", file.to_str().unwrap());
    let wants = ["--audience", ORDERS, "--scope", "read", "--github-env", "--name", "ORDERS_TOKEN"];
    let done = runner.step(&wants, &[variable], "").await;
    let err = text(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{err}");
    let set = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = set.lines().collect();
    let [before, begin, token, end] = lines[..] else { panic!("{set}") };
    assert_eq!((before, begin), ("BEFORE=1", format!("ORDERS_TOKEN<<{end}").as_str()));
    assert_eq!(text(&done.stdout), format!("::add-mask::{token}\n"));
    assert!(!err.contains(token));

    let never: Vec<&str> = wants.iter().copied().chain(["--mask", "never"]).collect();
    let done = runner.step(&never, &[variable], "").await;
    assert_eq!((done.status.code(), done.stdout.len()), (Some(0), 0), "{}", text(&done.stderr));

    let done = runner.step(&wants, &[], "").await;
    assert_eq!(
        text(&done.stderr).lines().last(),
        Some("error: `GITHUB_ENV` is not set: this is no step of a GitHub Actions job")
    );
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0));
    runner.broker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_programs_read_is_whole_and_alone_on_stdout() {
    let runner = Runner::start(4).await;
    let wants = ["--audience", ORDERS, "--scope", "read"];
    let with = |more: &[&'static str]| -> Vec<&'static str> {
        wants.iter().copied().chain(more.iter().copied()).collect()
    };
    let json = |bytes: &[u8]| -> Value { text(bytes).parse().unwrap() };

    let done = runner.step(&with(&["--format", "kubernetes"]), &[], "").await;
    let credential = json(&done.stdout);
    assert_eq!(credential["kind"], "ExecCredential");
    assert!(credential["status"]["token"].as_str().unwrap().split('.').count() == 3);

    // Google's libraries read both streams as one.
    let done = runner.step(&with(&["--format", "gcp-executable"]), &[], "").await;
    assert_eq!((done.status.code(), json(&done.stdout)["success"].clone()), (Some(0), json!(true)));
    assert_eq!(text(&done.stderr), "");
    let bad = ["--audience", "nowhere", "--format", "gcp-executable"];
    let done = runner.step(&bad, &[], "").await;
    assert_eq!((done.status.code(), text(&done.stderr)), (Some(1), String::new()));
    let failure = json(&done.stdout);
    assert_eq!((&failure["success"], &failure["code"]), (&json!(false), &json!("403")));
    assert!(failure["message"].as_str().unwrap().contains("cambio policy explain ex_"));

    let git = with(&["--format", "git", "--for", "git.example", "get"]);
    let done = runner.step(&git, &[], "protocol=https\nhost=git.example\n\n").await;
    let out = text(&done.stdout);
    let told: BTreeMap<&str, &str> = out.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(
        told.keys().copied().collect::<Vec<_>>(),
        ["password", "password_expiry_utc", "username"]
    );
    runner.broker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_helper_that_is_asked_about_another_server_asks_nobody_for_a_token() {
    let runner = Runner::start(1).await;
    let wants = ["--audience", ORDERS, "--for", "git.example"];
    let with = |more: &[&'static str]| -> Vec<&'static str> {
        wants.iter().copied().chain(more.iter().copied()).collect()
    };
    let git = with(&["--format", "git", "get"]);
    let done = runner.step(&git, &[], "protocol=https\nhost=evil.example\n\n").await;
    assert_eq!((done.status.code(), text(&done.stdout).as_str()), (Some(0), ""));
    let docker = with(&["--format", "docker", "get"]);
    let done = runner.step(&docker, &[], "evil.example").await;
    assert_eq!(
        (done.status.code(), text(&done.stdout).as_str()),
        (Some(1), "credentials not found in native keychain\n")
    );
    let done = runner.step(&with(&["--format", "docker", "list"]), &[], "").await;
    assert_eq!((done.status.code(), text(&done.stdout).as_str()), (Some(0), "{}\n"));
    assert_eq!(runner.desk.seen().len(), 0);
    runner.broker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_taken_from_where_the_command_line_says() {
    let runner = Runner::start(0).await;
    let folder = tempdir().unwrap();
    let file = folder.path().join("token");
    let fresh = || runner.broker.job().sign();
    let wants = ["--audience", ORDERS, "--scope", "read"];
    let run = async |more: &[&str], variables: &[(&str, &str)], stdin: String| {
        let words: Vec<&str> = wants.iter().chain(more).copied().collect();
        runner.step(&words, variables, Box::leak(stdin.into_boxed_str())).await
    };
    fs::write(&file, format!("{}\n", fresh())).unwrap();
    let from_file = run(&["--token-file", path(&file)], &[], String::new()).await;
    let from_stdin = run(&["--token-stdin"], &[], fresh()).await;
    let token = fresh();
    let from_variable =
        run(&["--token-variable", "MINE"], &[("MINE", &token)], String::new()).await;
    for done in [from_file, from_stdin, from_variable] {
        let err = text(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{err}");
        assert!(err.starts_with("issued a token"), "{err}");
    }
    runner.broker.drain().await;
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
