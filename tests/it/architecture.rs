//! Who may know whom, how long a file may be, what may never lie in the tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    path::{Path, PathBuf},
};

/// Arrows point one way (style section 3.2). What is not named here may not be known.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("chance", &[]),
    ("secret", &[]),
    ("id", &["chance", "clock"]),
    // Leaves that read what comes from outside: bounded JSON, bounded HTTP.
    ("json", &[]),
    ("web", &[]),
    // Who else may read or change a file.
    ("owner", &[]),
    ("grant", &[]),
    // What runs in a job knows nothing of the server.
    ("client", &["chance", "clock", "json", "secret", "web"]),
    ("yaml", &["clock"]),
    ("target", &["grant"]),
    ("holder", &[]),
    // `chance`: an API server is never asked the same question twice, so that it keeps no answer for us.
    ("subject", &["chance", "clock", "grant", "json", "secret", "web"]),
    // `owner`: whoever may change a policy decides who gets what.
    ("policy", &["clock", "grant", "owner", "subject", "target", "yaml"]),
    ("lease", &["chance", "clock", "grant", "id", "ledger"]),
    ("ledger", &["chance", "clock", "grant", "id", "policy", "secret", "subject"]),
    ("protector", &["owner", "secret"]),
    ("keys", &["chance", "clock", "grant", "ledger", "protector", "secret", "subject"]),
    (
        "mint",
        &[
            "chance",
            "clock",
            "grant",
            "holder",
            "id",
            "json",
            "keys",
            "lease",
            "ledger",
            "owner",
            // `telemetry` for `Plain`: what a server says is fit for a line before anybody else has it.
            "secret",
            "subject",
            "target",
            "telemetry",
            "web",
        ],
    ),
    ("refusal", &["grant", "ledger", "mint", "policy", "subject"]),
    ("exchange", &["clock", "grant", "id", "ledger", "mint", "policy", "refusal", "subject"]),
    (
        "edge",
        &[
            "chance",
            "clock",
            "exchange",
            // What a caller of the AWS front narrows its session by.
            "grant",
            "id",
            "json",
            "ledger",
            "mint",
            "owner",
            "policy",
            "refusal",
            "secret",
            "subject",
            "telemetry",
        ],
    ),
    ("telemetry", &["clock", "grant"]),
    ("store", &["clock", "grant", "id", "keys", "ledger"]),
    // `mint` for what a server would make of an operator's statements and names: judged when the file is.
    // `client` and `web` for the agent's file: the formats of its files, and URLs that a token may be sent to.
    (
        "config",
        &[
            "client", "clock", "grant", "json", "holder", "keys", "mint", "owner", "policy",
            "subject", "target", "web", "yaml",
        ],
    ),
    ("sandbox", &["chance", "clock", "secret", "subject"]),
];

/// Composition may name everybody: that is its only work.
const COMPOSES: &[&str] = &["app", "cli", "lib", "main"];

#[test]
fn no_module_reaches_against_the_flow() -> Result<(), Box<dyn Error>> {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_KNOW.iter().map(|(name, known)| (*name, known.iter().copied().collect())).collect();
    let mut faults = BTreeSet::new();
    for file in rust_files(&root().join("src"))? {
        let module = module_of(&file);
        if COMPOSES.contains(&module.as_str()) {
            continue;
        }
        let Some(known) = allowed.get(module.as_str()) else {
            faults.insert(format!("`{module}` has no line in MAY_KNOW"));
            continue;
        };
        for other in mentioned(&without_tests(&fs::read_to_string(&file)?)) {
            if other != module && !known.contains(other.as_str()) {
                faults.insert(format!("`{module}` must not know `{other}` ({})", short(&file)));
            }
        }
    }
    assert_eq!(faults, BTreeSet::new());
    Ok(())
}

#[test]
fn policy_does_no_io_but_in_its_loader() -> Result<(), Box<dyn Error>> {
    let mut faults = Vec::new();
    for file in rust_files(&root().join("src/policy"))? {
        let text = without_tests(&fs::read_to_string(&file)?);
        let loader = file.ends_with("load.rs");
        for word in ["tokio::", "reqwest", "axum", "rusqlite", "SystemTime", "Clock"] {
            if text.contains(word) {
                faults.push(format!("{} mentions `{word}`", short(&file)));
            }
        }
        if !loader && text.contains("std::fs") {
            faults.push(format!("{} reads files", short(&file)));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_file_is_one_thought() -> Result<(), Box<dyn Error>> {
    let mut faults = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for file in rust_files(&root().join(folder))? {
            let lines = fs::read_to_string(&file)?.lines().count();
            if lines > 600 {
                faults.push(format!("{} has {lines} lines, expected at most 600", short(&file)));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    Ok(())
}

/// Every place that opens a secret, counted: a new one is seen in review.
#[test]
fn secrets_are_revealed_only_where_they_are_used() -> Result<(), Box<dyn Error>> {
    let may_reveal = [
        "src/secret.rs",
        "src/subject.rs",
        "src/edge/",
        "src/mint/",
        "src/protector/",
        "src/store/",
        "src/keys/",
        "src/ledger/",
        "src/subject/key_source/",
        "src/cli/",
        // Sends the subject token, and writes the credential as it is asked for.
        "src/client/",
        "src/sandbox/",
        "src/app",
    ];
    let mut faults = Vec::new();
    for file in rust_files(&root().join("src"))? {
        let name = short(&file);
        let text = without_tests(&fs::read_to_string(&file)?);
        if text.contains(".reveal") && !may_reveal.iter().any(|place| name.starts_with(place)) {
            faults.push(format!("{name} reveals a secret"));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    Ok(())
}

#[test]
fn no_private_key_lies_in_the_tree() -> Result<(), Box<dyn Error>> {
    let jwks = root().join("jwks");
    let mut faults = Vec::new();
    if jwks.is_dir() {
        for file in files_below(&jwks)? {
            if file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let set: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
            let keys =
                set.get("keys").and_then(|keys| keys.as_array()).cloned().unwrap_or_default();
            for key in keys {
                for member in ["d", "p", "q", "dp", "dq", "qi", "k", "oth"] {
                    if key.get(member).is_some() {
                        faults.push(format!("{} has `{member}`", short(&file)));
                    }
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    Ok(())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn short(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            // `src/target` is ours, and no place where builds lie.
            let built = name == "target" && !path.ends_with("src/target");
            if !built && !["corpus", "node_modules"].contains(&name) {
                found.extend(files_below(&path)?);
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = files_below(folder)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    Ok(files)
}

/// The stage that a file belongs to: `src/policy/load.rs` → `policy`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap_or(file);
    let first = inside.components().next().map(|part| part.as_os_str().to_string_lossy());
    first.unwrap_or_default().trim_end_matches(".rs").to_owned()
}

/// Unit tests stand last in a file and may borrow from anywhere.
fn without_tests(text: &str) -> String {
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// Every module that `text` names through `crate::`, in code and not in comments.
fn mentioned(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let mut depth = 0_u32;
            let mut word = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' => {}
                    _ if depth == 0 => word.push(letter),
                    _ => {}
                }
                if letter == ',' && depth == 0 {
                    push_module(&mut found, &std::mem::take(&mut word));
                }
            }
            push_module(&mut found, &word);
        } else {
            push_module(&mut found, after);
        }
    }
    found
}

fn push_module(found: &mut BTreeSet<String>, path: &str) {
    let name: String = path
        .trim()
        .chars()
        .take_while(|letter| letter.is_ascii_lowercase() || *letter == '_')
        .collect();
    if !name.is_empty() {
        found.insert(name);
    }
}
