//! What the configuration names on disk: there, of the right kind, and nobody else's to read or change.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use cambio::config::Config;

use super::{VALID, lines};

/// A directory in which `VALID` is at home.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for directory in ["state", "anchor", "policies"] {
            fs::create_dir(home.path(directory)).unwrap();
        }
        for (file, mode) in [
            ("blue.json", 0o644),
            ("kek", 0o600),
            ("policies/orders.yaml", 0o644),
            ("policies/platform.yaml", 0o644),
        ] {
            fs::write(home.path(file), "x").unwrap();
            home.mode(file, mode);
        }
        fs::write(home.path("cambio.yaml"), VALID).unwrap();
        home.mode("cambio.yaml", 0o644);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The same with `from` replaced.
    fn with(self, from: &str, to: &str) -> Self {
        fs::write(self.path("cambio.yaml"), super::with(from, to)).unwrap();
        self
    }

    /// What is said of it, with `~` for the directory.
    fn says(&self) -> String {
        let said = match Config::read(&self.path("cambio.yaml")) {
            Ok((_, warnings)) if warnings.is_empty() => "nothing".to_owned(),
            Ok((_, warnings)) => format!("warned: {}", lines(&warnings)),
            Err(problems) => lines(&problems),
        };
        said.replace(&self.0.path().display().to_string(), "~")
    }
}

#[test]
fn a_configuration_whose_files_are_all_there_is_good() {
    assert_eq!(Home::new().says(), "nothing");
}

#[test]
fn every_file_that_is_missing_is_told_at_once() {
    let home = Home::new();
    for file in ["blue.json", "kek", "policies/orders.yaml", "policies/platform.yaml"] {
        fs::remove_file(home.path(file)).unwrap();
    }
    for directory in ["state", "anchor", "policies"] {
        fs::remove_dir(home.path(directory)).unwrap();
    }
    insta::assert_snapshot!(home.says(), @r"
    ~/cambio.yaml:4:7: `data`: directory `~/state` does not exist
      hint: make it first: none is made here, so that a typo can't pass for a new one
    ~/cambio.yaml:13:29: `file`: file `~/blue.json` does not exist
      hint: relative paths start where the configuration file lies
    ~/cambio.yaml:26:24: `directory`: directory `~/policies` does not exist
      hint: make it first: none is made here, so that a typo can't pass for a new one
    ~/cambio.yaml:27:26: `path`: directory `~/state` does not exist
      hint: make it first: none is made here, so that a typo can't pass for a new one
    ~/cambio.yaml:28:62: `file`: directory `~/anchor` does not exist
      hint: make it first: none is made here, so that a typo can't pass for a new one
    ~/cambio.yaml:29:19: `key_file` names a file that does not exist
      hint: relative paths start where the configuration file lies
    ");
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    for mode in [0o640, 0o604, 0o620, 0o644, 0o610] {
        let home = Home::new();
        home.mode("kek", mode);
        assert_eq!(
            home.says(),
            format!(
                "~/cambio.yaml:29:19: `key_file` names a file of mode {mode:04o}, expected 0600 or 0400: it holds a \
                 secret\n  hint: chmod 0600 it, and replace the secret if others could read it"
            )
        );
    }
    let home = Home::new();
    home.mode("kek", 0o400);
    assert_eq!(home.says(), "nothing");
}

#[test]
fn a_tls_key_that_others_can_read_is_refused() {
    let home = Home::new().with("tls: none", "tls: { certificate_file: crt, key_file: key }");
    fs::write(home.path("crt"), "x").unwrap();
    fs::write(home.path("key"), "x").unwrap();
    home.mode("key", 0o644);
    insta::assert_snapshot!(home.says(), @r"
    ~/cambio.yaml:31:41: `key_file` names a file of mode 0644, expected 0600 or 0400: it holds a secret
      hint: chmod 0600 it, and replace the secret if others could read it
    ");
}

#[test]
fn an_empty_secret_is_refused() {
    let home = Home::new();
    fs::write(home.path("kek"), "").unwrap();
    insta::assert_snapshot!(home.says(), @r"
    ~/cambio.yaml:29:19: `key_file` names an empty file, expected a secret
      hint: write the secret into the file
    ");
}

#[test]
fn a_secret_pasted_in_place_of_its_path_is_not_repeated() {
    let home = Home::new().with("key_file: kek", "key_file: c0rrect-h0rse-battery");
    let said = home.says();
    assert!(!said.contains("c0rrect"), "{said}");
    insta::assert_snapshot!(said, @r"
    ~/cambio.yaml:29:19: `key_file` names a file that does not exist
      hint: relative paths start where the configuration file lies
    ");
}

#[test]
fn a_directory_where_a_file_belongs_is_refused_and_the_reverse() {
    let home = Home::new();
    fs::remove_file(home.path("blue.json")).unwrap();
    fs::create_dir(home.path("blue.json")).unwrap();
    fs::remove_dir(home.path("state")).unwrap();
    fs::write(home.path("state"), "x").unwrap();
    insta::assert_snapshot!(home.says(), @r"
    ~/cambio.yaml:4:7: `data`: `~/state` is not a directory
      hint: name a directory
    ~/cambio.yaml:13:29: `file`: file `~/blue.json` is not a file
      hint: name a file
    ~/cambio.yaml:27:26: `path`: `~/state` is not a directory
      hint: name a directory
    ");
}

#[test]
fn what_anyone_may_write_is_refused() {
    let home = Home::new();
    home.mode("policies", 0o777);
    home.mode("state", 0o1777);
    home.mode("blue.json", 0o646);
    home.mode("cambio.yaml", 0o666);
    insta::assert_snapshot!(home.says(), @r"
    ~/cambio.yaml:1:1: anyone may write to the configuration
      hint: chmod o-w it
    ~/cambio.yaml:4:7: `data`: anyone may write to directory `~/state`
      hint: chmod o-w it
    ~/cambio.yaml:13:29: `file`: anyone may write to `~/blue.json`
      hint: chmod o-w it
    ~/cambio.yaml:26:24: `directory`: anyone may write to directory `~/policies`
      hint: chmod o-w it
    ~/cambio.yaml:27:26: `path`: anyone may write to directory `~/state`
      hint: chmod o-w it
    ");
}

#[test]
fn a_configuration_that_its_group_may_write_to_is_told_of() {
    let home = Home::new();
    home.mode("cambio.yaml", 0o664);
    insta::assert_snapshot!(home.says(), @r"
    warned: ~/cambio.yaml:1:1: its group may write to the configuration
      hint: `cambio serve` refuses it so: chmod go-w it
    ");
}

/// What only warns where nothing is served is no configuration to serve by.
#[test]
fn k12_what_others_may_change_is_not_served_by() {
    let home = Home::new();
    let served = || match Config::read_to_serve(&home.path("cambio.yaml")) {
        Ok(_) => "nothing".to_owned(),
        Err(problems) => lines(&problems).replace(&home.0.path().display().to_string(), "~"),
    };
    assert_eq!(served(), "nothing");
    home.mode("cambio.yaml", 0o664);
    home.mode("blue.json", 0o664);
    insta::assert_snapshot!(served(), @r"
    ~/cambio.yaml:1:1: the configuration has mode 0664: its group may write to it
      hint: chmod go-w it
    ~/cambio.yaml:13:29: `file`: `~/blue.json` has mode 0664: its group may write to it
      hint: chmod go-w it
    ");
    home.mode("cambio.yaml", 0o644);
    home.mode("blue.json", 0o644);
    home.mode("", 0o777);
    insta::assert_snapshot!(served().lines().next().unwrap_or_default(), @"~/cambio.yaml:1:1: the configuration lies in a folder of mode 0777: anyone may put another in its place");
    insta::assert_snapshot!(home.says().lines().next().unwrap_or_default(), @"warned: ~/cambio.yaml:1:1: the configuration lies in a folder of mode 0777: anyone may put another in its place");
    // Where nobody replaces what is another's, they may.
    home.mode("", 0o1777);
    assert_eq!(served(), "nothing");
}

#[test]
fn k12_a_folder_of_store_or_anchor_that_its_group_may_write_to_is_not_served() {
    let home = Home::new();
    let served = || match Config::read_to_serve(&home.path("cambio.yaml")) {
        Ok(_) => "nothing".to_owned(),
        Err(problems) => lines(&problems).replace(&home.0.path().display().to_string(), "~"),
    };
    home.mode("state", 0o770);
    home.mode("anchor", 0o2775);
    insta::assert_snapshot!(served(), @r"
    ~/cambio.yaml:4:7: `data`: directory `~/state` has mode 0770: its group may write to it
      hint: chmod go-w it
    ~/cambio.yaml:27:26: `path`: directory `~/state` has mode 0770: its group may write to it
      hint: chmod go-w it
    ~/cambio.yaml:28:62: `file`: directory `~/anchor` has mode 2775: its group may write to it
      hint: chmod go-w it
    ");
    insta::assert_snapshot!(home.says().lines().next().unwrap_or_default(), @"warned: ~/cambio.yaml:4:7: `data`: directory `~/state` has mode 0770: its group may write to it");
    home.mode("state", 0o750);
    home.mode("anchor", 0o755);
    assert_eq!(served(), "nothing");
    assert_eq!(home.says(), "nothing");
}

/// As who may put another link in the place of ours, which leads to an old store of ours.
#[test]
fn k12_a_folder_that_a_link_of_another_user_leads_to_is_not_served() {
    if !rustix::process::geteuid().is_root() {
        let test = "k12_a_folder_that_a_link_of_another_user_leads_to_is_not_served";
        writeln!(io::stderr(), "\nskipped: only root can give a link away ({test})").unwrap();
        return;
    }
    let home = Home::new();
    fs::rename(home.path("anchor"), home.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(home.path("elsewhere"), home.path("anchor")).unwrap();
    assert!(Config::read_to_serve(&home.path("cambio.yaml")).is_ok());
    std::os::unix::fs::lchown(home.path("anchor"), Some(4711), None).unwrap();
    // Where nothing is served, it is most likely the folder of whom the broker runs as.
    assert_eq!(home.says(), "nothing");
    let problems = Config::read_to_serve(&home.path("cambio.yaml")).unwrap_err();
    let told = lines(&problems).replace(&home.0.path().display().to_string(), "~");
    insta::assert_snapshot!(told, @r"
    ~/cambio.yaml:28:62: `file`: directory `~/anchor` belongs to uid 4711, expected us or root
      hint: chown it to root, or to whom the broker runs as
    ");
    // By a name that ends as one of a folder, the kernel itself looks behind the link.
    for written in ["state", "state/", "state//", "state/.", "state/./"] {
        let home = Home::new().with("data: state\n", &format!("data: {written}\n"));
        fs::rename(home.path("state"), home.path("elsewhere")).unwrap();
        std::os::unix::fs::symlink(home.path("elsewhere"), home.path("state")).unwrap();
        assert!(Config::read_to_serve(&home.path("cambio.yaml")).is_ok(), "{written}");
        std::os::unix::fs::lchown(home.path("state"), Some(4711), None).unwrap();
        let told = lines(&Config::read_to_serve(&home.path("cambio.yaml")).unwrap_err());
        assert!(told.contains("`data`: ") && told.contains("belongs to uid 4711"), "{told}");
    }
}

/// Root runs it, perhaps: then who may write to the configuration could have any folder made, and any mode changed.
#[test]
fn k12_folders_are_made_and_closed_by_a_believable_configuration_alone() {
    let home = Home::new();
    let create = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cambio"));
        command.args(["serve", "--create-only", "--config"]).arg(home.path("cambio.yaml"));
        let done = command.env_clear().output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let mode = |name| fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o7777;
    fs::remove_dir(home.path("state")).unwrap();
    home.mode("anchor", 0o770);
    fs::write(home.path("anchor/note"), "x").unwrap();
    home.mode("cambio.yaml", 0o666);
    let (code, said) = create();
    assert!(code == Some(2) && said.contains("anyone may write to the configuration"), "{said}");
    assert!(!home.path("state").exists() && mode("anchor") == 0o770, "{said}");
    home.mode("cambio.yaml", 0o644);
    fs::remove_file(home.path("anchor/note")).unwrap();
    // A folder of another use, as far as can be told: it is refused, and not changed.
    let (code, said) = create();
    assert!(code == Some(2) && said.contains("has mode 0770: its group may write"), "{said}");
    assert_eq!((mode("state"), mode("anchor")), (0o700, 0o770), "{said}");
    // The broker's own ones, in a volume that was restored without its group.
    fs::write(home.path("anchor/note"), "x").unwrap();
    home.mode("state", 0o2770);
    let (_, said) = create();
    assert_eq!((mode("state"), mode("anchor")), (0o2750, 0o750), "{said}");
    for told in ["its mode was 2770, and is 2750", "its mode was 0770, and is 0750"] {
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn k12_a_secret_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        let test = "k12_a_secret_of_another_user_is_refused";
        writeln!(io::stderr(), "\nskipped: only root can give a file away ({test})").unwrap();
        return;
    }
    let home = Home::new();
    std::os::unix::fs::chown(home.path("kek"), Some(4711), None).unwrap();
    insta::assert_snapshot!(home.says(), @r"
    ~/cambio.yaml:29:19: `key_file` names a file of uid 4711, expected ours or root's: it holds a secret
      hint: chown it, and replace the secret if that user is not to know it
    ");
}

#[test]
fn a_platform_token_that_others_can_read_is_told_of() {
    let home = Home::new().with(
        "keys: { pinned: { file: blue.json } }",
        "keys: { discovered: { private: true, bearer_token_file: token } }",
    );
    fs::write(home.path("token"), "x").unwrap();
    home.mode("token", 0o644);
    insta::assert_snapshot!(home.says(), @r"
    warned: ~/cambio.yaml:13:61: `bearer_token_file` names a file of mode 0644: others can read the token
      hint: run as a user of your own; the platform then writes it with mode 0600
    ");
    home.mode("token", 0o600);
    assert_eq!(home.says(), "nothing");
}

#[test]
fn a_grantor_that_is_not_there_is_told_of() {
    let home = Home::new();
    fs::remove_file(home.path("policies/orders.yaml")).unwrap();
    insta::assert_snapshot!(home.says(), @r"
    warned: ~/cambio.yaml:20:18: `granted_by` names `orders.yaml`, which is not in the policy directory
      hint: nobody gets anything by it until it is there
    ");
}

#[test]
fn a_configuration_that_is_not_there_or_not_text_is_told_in_one_line() {
    let home = Home::new();
    fs::write(home.path("cambio.yaml"), b"\xff\xfe").unwrap();
    insta::assert_snapshot!(home.says(), @r"~/cambio.yaml:1:1: the configuration is not UTF-8");
    fs::remove_file(home.path("cambio.yaml")).unwrap();
    insta::assert_snapshot!(home.says(), @r"~/cambio.yaml:1:1: the configuration does not exist");
    fs::create_dir(home.path("cambio.yaml")).unwrap();
    insta::assert_snapshot!(home.says(), @r"~/cambio.yaml:1:1: the configuration can't be read: Is a directory (os error 21)");
}
