//! What the documentation says is so: policies load, tests exist, settings are known, links lead somewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use cambio::{
    clock::Instant,
    config::Config,
    policy::{Context, PolicySet, Source, load},
    subject::provider,
    target::{Expiry, Role, Target, Targets},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        // `src/target` is ours, and no place where builds lie.
        let built = name == "target" && !path.ends_with("src/target");
        if path.is_dir() && !name.starts_with('.') && !built && name != "fuzz" {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The fenced blocks of a page in `language`.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let cut = |rest: &str| rest.split("\n```").next().unwrap_or_default().to_owned();
    page.split(&fence).skip(1).map(cut).collect()
}

/// Names of test functions, and of modules of tests.
fn tests_there_are() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in
        files(&root().join("src"), "rs").into_iter().chain(files(&root().join("tests"), "rs"))
    {
        let text = fs::read_to_string(file).unwrap();
        for after in text.split("fn ").skip(1) {
            names.insert(after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

/// `j06_an_unknown_crit_is_refused` → `J06`; some carry two.
fn ids_of(name: &str) -> Vec<String> {
    let parts = name.split('_').take_while(|part| {
        let mut letters = part.chars();
        letters.next().is_some_and(|first| "jdcxhkavb".contains(first))
            && part.len() == 3
            && letters.all(|digit| digit.is_ascii_digit())
    });
    parts.map(str::to_uppercase).collect()
}

#[test]
fn every_test_named_in_the_threats_page_exists_and_every_test_with_an_id_is_named() {
    let page = read("docs/threats.md");
    let there_are = tests_there_are();
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let named: BTreeSet<String> = cells
            .last()
            .into_iter()
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .map(str::to_owned)
            .collect();
        rows.insert(cells[0].to_owned(), named);
    }
    assert!(rows.len() > 100, "{} rows", rows.len());
    let named: BTreeSet<String> = rows.values().flatten().cloned().collect();
    let invented: Vec<&String> = named.difference(&there_are).collect();
    assert_eq!(invented, Vec::<&String>::new(), "named in docs/threats.md, and not there");
    let missing: Vec<String> = there_are
        .iter()
        .flat_map(|test| ids_of(test).into_iter().map(move |id| (id, test)))
        .filter(|(id, test)| rows.get(id).is_none_or(|named| !named.contains(*test)))
        .map(|(id, test)| format!("{id}: {test}"))
        .collect();
    assert_eq!(missing, Vec::<String>::new(), "there, and not in its row of docs/threats.md");
}

#[test]
fn the_readme_shows_the_two_commands_and_nothing_that_is_not_there() {
    let readme = read("README.md");
    let commands: Vec<String> = blocks(&readme, "sh");
    assert_eq!(commands[0], "cargo run --release -- dev");
    assert_eq!(commands[1], "tests/run");
    for page in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"] {
        let text = read(page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.starts_with("http") && !link.starts_with('#') {
                assert!(root().join(link).exists(), "{page} links to `{link}`");
            }
        }
    }
}

/// What `cambio dev` and the examples have: `jwt/orders` with its two roles.
fn context() -> Context {
    let role = |name: &str| (name.into(), Role::default());
    let target = Target {
        name: "jwt/orders".into(),
        kind: "jwt".to_owned(),
        aliases: BTreeSet::new(),
        environment: "dev".to_owned(),
        roles: [role("reader"), role("deployer")].into(),
        granted_by: ["readme.yaml", "github.yaml", "gitlab.yaml", "kubernetes.yaml"]
            .map(str::to_owned)
            .into(),
        expiry: Expiry::Exact {
            floor: std::time::Duration::from_secs(1),
            ceiling: std::time::Duration::from_secs(3_600),
        },
    };
    let issuers = ["github", "gitlab", "kubernetes"]
        .map(|name| (name.into(), provider::find(name).expect("a preset")));
    Context {
        targets: Arc::new(Targets::of([target]).expect("one target")),
        issuers: issuers.into(),
        environment: "dev".to_owned(),
    }
}

#[test]
fn the_policy_of_the_readme_loads_and_its_cases_hold() -> Result<(), Box<dyn Error>> {
    let text = blocks(&read("README.md"), "yaml").remove(0);
    let source = Source { name: "readme.yaml".to_owned(), text };
    let (set, _) = PolicySet::compile(&[source], &context()).map_err(|problems| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })?;
    let tokens = load::tokens(&root().join("trust-policies"), &set)?;
    let cases = set.run_cases(&tokens, Instant::from_seconds(1_800_000_000));
    assert_eq!(cases.len(), 2);
    for case in cases {
        assert!(case.passed, "{case}");
    }
    Ok(())
}

#[test]
fn the_shipped_policies_load_with_their_cases() -> Result<(), Box<dyn Error>> {
    let now = Instant::from_seconds(1_800_000_000);
    let loaded = load::load(&root().join("trust-policies"), &context(), now)?;
    assert!(loaded.cases.len() > 10, "{} cases", loaded.cases.len());
    Ok(())
}

#[test]
fn the_example_configuration_is_one() {
    let file = root().join("deploy/cambio.example.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let judged = Config::parse("cambio.example.yaml", &text, Path::new("deploy"));
    assert!(judged.is_ok(), "{judged:?}");
}

#[test]
fn every_dependency_is_named_with_its_reason() {
    let manifest = read("Cargo.toml");
    let page = read("docs/dependencies.md");
    let mut section = "";
    let mut missing = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split(" = ").next().unwrap_or_default();
        if ["[dependencies]", "[dev-dependencies]"].contains(&section)
            && line.contains(" = ")
            && !page.contains(&format!("`{name}`"))
        {
            missing.push(name.to_owned());
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "in Cargo.toml, and not in docs/dependencies.md");
}

#[test]
fn nothing_tells_where_it_was_written() {
    let words = [
        ["/work", "/main"].concat(),
        ["/root", "/.cargo"].concat(),
        ["BEGIN ", "PRIVATE KEY"].concat(),
    ];
    let mut faults = Vec::new();
    for extension in ["rs", "md", "yaml", "json", "toml", "py", "mjs"] {
        for file in files(&root(), extension) {
            let text = fs::read_to_string(&file).unwrap_or_default();
            if words.iter().any(|word| text.contains(word.as_str())) {
                faults.push(file.display().to_string());
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}
