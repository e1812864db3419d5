//! `cambio dev` as a newcomer runs it: the binary, its output, the lines that it prints.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The binary, in a folder of its own that is also its temporary folder: what it leaves is seen.
fn cambio(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cambio"));
    command.current_dir(folder).env("TMPDIR", folder).stdin(Stdio::null());
    command
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn dev_once_shows_three_exchanges_and_a_refusal_and_leaves_nothing() -> Outcome {
    let folder = tempfile::tempdir()?;
    let output = cambio(folder.path()).args(["dev", "--once", "--json"]).output()?;
    let told = String::from_utf8(output.stderr)?;
    assert_eq!((output.status.code(), told.as_str()), (Some(0), ""));
    let seen: Value = String::from_utf8(output.stdout)?.parse()?;
    assert_eq!(seen["as_expected"], true);
    let visits = seen["visits"].as_array().ok_or("no visits")?;
    let rules: Vec<&Value> = visits.iter().map(|visit| &visit["outcome"]["rule"]).collect();
    let expected = ["shop/deploy-production", "shop/nightly-report", "shop/checkout-pod"];
    assert_eq!(rules[..3], expected);
    assert_eq!(visits[3]["outcome"]["error"], "invalid_request");
    let explanation = visits[3]["outcome"]["explanation"].as_str().ok_or("no explanation")?;
    assert!(
        explanation.contains(
            "all held but `event_name`: wanted `push` or `workflow_dispatch`, got `pull_request`"
        ),
        "{explanation}"
    );
    assert_eq!(left_in(folder.path()), Vec::<String>::new());
    Ok(())
}

#[test]
fn dev_with_a_folder_goes_on_with_its_ledger() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut indexes = Vec::new();
    for _ in 0..2 {
        let output =
            cambio(folder.path()).args(["dev", "--once", "--json", "--data", "kept"]).output()?;
        let told = String::from_utf8(output.stderr)?;
        assert_eq!((output.status.code(), told.as_str()), (Some(0), ""));
        let seen: Value = String::from_utf8(output.stdout)?.parse()?;
        indexes.push(seen["visits"][0]["outcome"]["ledger"]["index"].as_u64().ok_or("no index")?);
    }
    assert!(indexes[1] > indexes[0] + 3, "{indexes:?}");
    let verified = cambio(folder.path())
        .args(["ledger", "verify", "--store", "kept/state/cambio.db"])
        .output()?;
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stderr));
    Ok(())
}

/// A running `cambio dev` and what it has said so far. Ended with SIGTERM, so that it cleans up.
struct Dev {
    child: Child,
    said: String,
}

impl Dev {
    fn start(folder: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = cambio(folder);
        let mut child = command.arg("dev").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut out = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut said = String::new();
        // The last line of the tour.
        while !said.contains("cambio ledger verify") {
            if out.read_line(&mut said)? == 0 {
                child.wait()?;
                return Err(said.into());
            }
        }
        child.stdout = Some(out.into_inner());
        Ok(Self { child, said })
    }

    fn end(mut self) -> Result<(Option<i32>, String), Box<dyn std::error::Error>> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let mut rest = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            out.read_to_string(&mut rest)?;
        }
        Ok((self.child.wait()?.code(), rest))
    }
}

/// A test that failed leaves no process behind.
impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_lines_that_dev_prints_work_as_pasted() -> Outcome {
    let folder = tempfile::tempdir()?;
    let dev = Dev::start(folder.path())?;
    let pasted: Vec<String> = dev
        .said
        .split("   again:\n")
        .skip(1)
        .map(|rest| rest.lines().take_while(|line| line.starts_with("     ")).collect::<Vec<_>>())
        .map(|lines| lines.join("\n"))
        .collect();
    assert_eq!(pasted.len(), 4);
    for (line, expected) in pasted.iter().zip(["Bearer", "Bearer", "Bearer", "invalid_request"]) {
        let output = Command::new("sh").args(["-c", line]).output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "is `curl` there? {told}");
        let answer: Value = String::from_utf8(output.stdout)?.parse()?;
        let found = answer.get("token_type").or_else(|| answer.get("error"));
        assert_eq!(found, Some(&expected.into()), "{line}\n{answer}");
    }
    // And the one for the client.
    let client = dev.said.lines().find(|line| line.contains(" exec ")).ok_or("no such line")?;
    let output = Command::new("sh").args(["-c", client]).current_dir(folder.path()).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let token = String::from_utf8(output.stdout)?;
    assert!(output.status.success() && token.split('.').count() == 3, "{client}\n{told}");
    assert!(told.contains("found the token of GitHub Actions"), "{told}");
    for line in dev
        .said
        .lines()
        .filter_map(|line| line.split_once("cambio ").filter(|_| line.contains(" --s")))
    {
        let output = cambio(folder.path()).args(line.1.split(' ')).output()?;
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(dev.end()?.0, Some(0));
    assert_eq!(left_in(folder.path()), Vec::<String>::new());
    Ok(())
}

/// A `kill -9` right after the tour: what stays on the disk opens nothing.
#[test]
fn k01_no_private_key_or_token_is_on_the_disk_while_dev_runs() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut dev = Dev::start(folder.path())?;
    dev.child.kill()?;
    dev.child.wait()?;
    let stage = folder.path().join(left_in(folder.path()).first().ok_or("nothing is left")?);
    assert!(!stage.join("kek").exists());
    let mut files = 0;
    let mut folders = vec![stage];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                files += 1;
                let bytes = std::fs::read(&path)?;
                let text = String::from_utf8_lossy(&bytes);
                // A compact JWS of anybody, or a private JWK.
                for secret in
                    ["eyJ0eXAiOi", "eyJhbGciOiJSUzI1NiIs", "eyJhbGciOiJFUzI1NiIs", "\"d\":\""]
                {
                    assert!(!text.contains(secret), "{} holds `{secret}`", path.display());
                }
            }
        }
    }
    assert!(files >= 2, "found {files} files");
    Ok(())
}
