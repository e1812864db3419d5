//! The agent's file: what is refused and in which words, and what is shipped.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use cambio::config::{
    AgentConfig,
    agent::{EndpointConfig, ReadersConfig, TokenFrom},
};
use insta::assert_snapshot;

use super::{lines, shipped::is_what_we_generate};

const VALID: &str = r#"version: 1
broker: https://cambio.example.com
token: { file: token }
credentials:
  - name: deploy
    audience: aws/prod
    endpoint: { kind: aws }
  - name: orders
    audience: postgres/orders
    files: [{ path: pgpass, format: pgpass }]
    on_change: { command: [/bin/true] }
listen:
  aws: { address: "127.0.0.1:9980", token_file: authorization }
"#;

fn said_of(text: &str) -> String {
    match AgentConfig::parse("agent.yaml", text, Path::new("/etc/cambio")) {
        Ok((_, warnings)) if warnings.is_empty() => "nothing".to_owned(),
        Ok((_, warnings)) => format!("warned: {}", lines(&warnings)),
        Err(problems) => lines(&problems),
    }
}

/// What is said of [`VALID`] with its only `from` replaced.
fn said(from: &str, to: &str) -> String {
    assert_eq!(VALID.matches(from).count(), 1, "`{from}` must stand in VALID exactly once");
    said_of(&VALID.replacen(from, to, 1))
}

#[test]
fn a_small_file_is_read_and_its_defaults_are_the_careful_ones() {
    assert_eq!(said_of(VALID), "nothing");
    let (config, _) = AgentConfig::parse("agent.yaml", VALID, Path::new("/etc/cambio")).unwrap();
    assert!(config.revoke_on_exit);
    assert_eq!(config.operations, None);
    assert_eq!(config.token, TokenFrom::File("/etc/cambio/token".into()));
    let [deploy, orders] = &config.credentials[..] else { panic!("{config:?}") };
    assert_eq!(deploy.endpoint, Some(EndpointConfig::Aws));
    let file = &orders.files[0];
    assert_eq!(file.path, Path::new("/etc/cambio/pgpass"));
    assert_eq!((file.readers, file.trusted), (ReadersConfig::Owner, false));
}

#[test]
fn a_platform_is_one_that_we_know() {
    assert_snapshot!(said("{ file: token }", "{ platform: gihub }"), @r#"
    agent.yaml:3:20: `platform` is `gihub`, expected `forgejo`, `github`, `gitlab`, `buildkite`, `circleci`, `bitbucket`, `azure-devops`, `terraform`, `spacelift`, `semaphore`, `vercel`, `modal`, `jenkins`, `fly`, `spiffe`, `kubernetes`, `azure-app-service`, `aws`, `google` or `azure`
      hint: did you mean `github`?
    "#);
    assert_eq!(said("{ file: token }", "{ platform: github }"), "nothing");
}

#[test]
fn a_token_goes_over_tls_and_comes_from_one_place() {
    assert_snapshot!(said("https://cambio", "http://cambio"), @r#"
    agent.yaml:2:9: `broker`: `http://cambio.example.com` is neither https nor http on loopback
      hint: a token that is sent in the clear is anybody's
    "#);
    assert_snapshot!(said("example.com\n", "example.com?x=1\n"), @r#"
    agent.yaml:2:9: `broker` has a query or a fragment, expected the broker's issuer URL
      hint: such as `https://cambio.example.com`
    "#);
    assert_snapshot!(said("{ file: token }", "{ file: token, platform: github }"), @r#"
    agent.yaml:3:8: `token` names a file and a platform, expected one of them
      hint: two identities are two agents
    "#);
    assert_snapshot!(said("{ file: token }", "{ variable: TOKEN }"), @r#"
    agent.yaml:3:10: `variable` is not a key of the subject token
      hint: expected `file`, `platform` or `audience`
    "#);
}

#[test]
fn a_credential_is_served_on_loopback_and_nowhere_else() {
    assert_snapshot!(said("127.0.0.1:9980", "0.0.0.0:9980"), @r#"
    agent.yaml:13:19: `address` is `0.0.0.0:9980`, which can be reached from elsewhere
      hint: credentials are handed out on loopback alone, such as `127.0.0.1:9980`
    "#);
    assert_snapshot!(said("127.0.0.1:9980", "localhost:9980"), @r#"
    agent.yaml:13:19: `address` is `localhost:9980`, expected an address and a port
      hint: such as `127.0.0.1:9980`: no host names
    "#);
    assert_snapshot!(said("127.0.0.1:9980", "127.0.0.1:0"), @r#"
    agent.yaml:13:19: `address` has port 0, expected one that programs can be told
      hint: such as `127.0.0.1:9980`
    "#);
    let google = "{ kind: google, address: \"10.0.0.1:80\", service_account: a@b }";
    assert_snapshot!(said("{ kind: aws }", google), @r#"
    agent.yaml:7:40: `address` is `10.0.0.1:80`, which can be reached from elsewhere
      hint: credentials are handed out on loopback alone, such as `127.0.0.1:9980`
    "#);
    let same = google.replace("10.0.0.1:80", "127.0.0.1:9980");
    assert_snapshot!(said("{ kind: aws }", &same), @r#"
    agent.yaml:7:40: `address` has port 9980, as line 13 has
      hint: each listener needs a port of its own
    "#);
    let health = "authorization }\n  operations: 0.0.0.0:9980";
    assert_snapshot!(said("authorization }", health), @r#"
    agent.yaml:14:15: `operations` has port 9980, as line 13 has
      hint: each listener needs a port of its own
    "#);
    assert_eq!(said("authorization }", &health.replace(":9980", ":9982")), "nothing");
}

#[test]
fn what_is_kept_goes_somewhere_under_a_name_and_a_path_of_its_own() {
    assert_snapshot!(said("    endpoint: { kind: aws }\n", ""), @r#"
    agent.yaml:5:5: this credential goes nowhere: it has neither `files` nor an `endpoint`
      hint: say where it is wanted, or remove it
    "#);
    let listen = "listen:\n  aws: { address: \"127.0.0.1:9980\", token_file: authorization }\n";
    assert_snapshot!(said(listen, ""), @r#"
    agent.yaml:7:15: `endpoint` is of kind `aws`, and `listen.aws` is missing
      hint: say where SDKs ask: `listen: { aws: { address: "127.0.0.1:9980", token_file: … } }`
    "#);
    assert_snapshot!(said("name: orders", "name: deploy"), @r#"
    agent.yaml:8:11: `deploy` is the name of the credential in line 5 too
      hint: each credential needs a name of its own
    "#);
    assert_snapshot!(said("name: orders", "name: ../orders"), @r#"
    agent.yaml:8:11: `name` is `../orders`, expected lower-case letters, digits and `-`
      hint: it stands in paths, logs and metrics
    "#);
    let twice = "[{ path: pgpass, format: pgpass }, { path: pgpass, format: json }]";
    assert_snapshot!(said("[{ path: pgpass, format: pgpass }]", twice), @r#"
    agent.yaml:10:55: `path` is that of line 10 too
      hint: two credentials in one file overwrite each other
    "#);
    assert_snapshot!(said("format: pgpass", "format: git"), @r#"agent.yaml:10:37: `format` is `git`, expected `token`, `json`, `env`, `dotenv`, `aws-process`, `gcp-executable`, `kubernetes`, `pgpass` or `uri`"#);
    assert_snapshot!(said("format: pgpass", "format: json, variable: X"), @r#"
    agent.yaml:10:53: `variable` goes with the formats `env` and `dotenv`
      hint: remove it
    "#);
    assert_snapshot!(said("format: pgpass", "format: pgpass, group: 7"), @r#"
    agent.yaml:10:52: `group` stands beside `readers: owner`
      hint: write `readers: group`
    "#);
    assert_snapshot!(said("format: pgpass", "format: pgpass, mode: 0644"), @r#"
    agent.yaml:10:45: `mode` is not a key of a file of a credential
      hint: expected `path`, `format`, `variable`, `readers`, `group` or `trust_directory`
    "#);
}

#[test]
fn no_file_is_made_over_another_one_that_is_made_or_read() {
    let pgpass = "{ path: pgpass, format: pgpass }";
    let with = |second: &str| {
        said(
            pgpass,
            &format!("{{ path: pgpass, format: pgpass }}, {{ path: {second}, format: json }}"),
        )
    };
    assert_eq!(with("other"), "nothing");
    for same in ["sub/../pgpass", "./pgpass", "/etc/cambio/pgpass", "/etc//cambio/../cambio/pgpass"]
    {
        let told = with(same);
        assert!(told.contains(":10:55: `path` is that of line 10 too"), "{told}");
    }
    assert_snapshot!(with(".pgpass.cambio-new"), @r#"
    agent.yaml:10:55: `path` is that of line 10 too
      hint: that file is made as `.NAME.cambio-new` first: give this one another name
    "#);
    assert_snapshot!(said(pgpass, "{ path: .pgpass.cambio-new, format: json }, { path: pgpass, format: json }"), @r#"
    agent.yaml:10:65: `path` is made as `.NAME.cambio-new` first, and that is the file of line 10
      hint: two credentials in one file overwrite each other
    "#);
    assert_snapshot!(said("path: pgpass", "path: authorization"), @r#"
    agent.yaml:10:21: `path` is that of line 13 too
      hint: two credentials in one file overwrite each other
    "#);
    assert_snapshot!(said("path: pgpass", "path: x/../token"), @r#"
    agent.yaml:10:21: `path` is that of line 3 too
      hint: the agent reads it: a credential there would take its place
    "#);
    assert_snapshot!(said("token_file: authorization", "token_file: token"), @r#"
    agent.yaml:13:49: `token_file` is that of line 3 too
      hint: the agent reads it: a credential there would take its place
    "#);
    assert_snapshot!(said("path: pgpass", "path: /bin/true"), @r#"
    agent.yaml:10:21: `path` is that of line 11 too
      hint: the agent reads it: a credential there would take its place
    "#);
}

#[test]
fn the_user_that_stands_for_all_without_a_number_may_not_ask() {
    let google =
        "{ kind: google, address: \"127.0.0.1:80\", service_account: a@b, users: [1000, 65534] }";
    assert_snapshot!(said("{ kind: aws }", google), @r#"
    agent.yaml:7:92: `users` has 65534, which the kernel shows for every user that has no number in the agent's user namespace
      hint: run the program as a user of its own, and name that one
    "#);
    assert_eq!(said("{ kind: aws }", &google.replace("65534", "65533")), "nothing");
}

#[test]
fn a_command_is_a_list_and_no_shell() {
    assert_snapshot!(said("[/bin/true]", "/bin/true"), @r#"agent.yaml:11:27: `command` is `/bin/true`, expected a list"#);
    assert_snapshot!(said("[/bin/true]", "[systemctl, reload]"), @r#"
    agent.yaml:11:28: `command` begins with `systemctl`, expected a whole path
      hint: no `PATH` is searched, and no shell looks at it
    "#);
    assert_snapshot!(said("[/bin/true] }", "[/bin/true], deadline: 2d }"), @r#"
    agent.yaml:11:50: `deadline` is `2d`, expected from `1s` to `1h`
      hint: a command that hangs keeps the next one waiting
    "#);
}

#[test]
fn a_file_that_names_commands_is_nobody_elses_to_write() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("agent.yaml");
    fs::write(&file, VALID).unwrap();
    fs::write(home.path().join("token"), "x").unwrap();
    let token = fs::Permissions::from_mode(0o600);
    fs::set_permissions(home.path().join("token"), token).unwrap();
    assert!(AgentConfig::read(&file).is_ok());
    fs::write(&file, VALID.replacen("path: pgpass", "path: ./agent.yaml", 1)).unwrap();
    let problems = lines(&AgentConfig::read(&file).unwrap_err());
    assert!(problems.contains("`path` is that of the configuration itself too"), "{problems}");
    fs::write(&file, VALID).unwrap();
    // Nor its group's. The broker does not answer: whoever went on would fail for that.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_cambio"));
    let ended = agent.args(["agent", "--once", "--deadline", "1s", "--config"]).arg(&file).output();
    let ended = ended.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("its group may write to it"), "{said}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let problems = lines(&AgentConfig::read(&file).unwrap_err());
    assert!(problems.contains("anyone may write to the configuration"), "{problems}");
}

#[test]
fn the_agents_schema_and_settings_are_generated_from_what_we_read_with() {
    let schema = serde_json::to_string_pretty(&AgentConfig::schema()).unwrap();
    is_what_we_generate("deploy/agent.schema.json", &format!("{schema}\n"));
    is_what_we_generate("docs/agent-configuration.md", &AgentConfig::reference());
}

#[test]
fn the_agents_example_is_valid_and_nothing_is_said_of_it() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/agent.example.yaml");
    assert_eq!(said_of(&fs::read_to_string(example).unwrap()), "nothing");
}
