//! Directory → documents → the set in force. The only part of `policy` that touches a disk.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{CaseResult, Context, PolicySet, Source, compile::GUARDRAILS};
use crate::{
    clock::Instant,
    owner,
    subject::{
        Claims,
        json::{Limits, parse_object},
    },
    yaml::Problem,
};

/// The most policy files of one directory.
const MOST_FILES: usize = 10_000;

/// Why a directory gives no policy set. The set in force stays in force.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The directory or a file can't be read: vanished is not empty.
    #[error("`{path}` can't be read: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The directory holds more than any directory of policies does.
    #[error("`{0}` holds more than {MOST_FILES} policy files")]
    TooMany(PathBuf),
    /// Files that must not load: all problems of all files.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
    /// Files that say of themselves that they are wrong.
    #[error("{}", lines(.0))]
    Cases(Vec<CaseResult>),
}

fn lines<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What a directory gave.
#[derive(Debug)]
pub struct Loaded {
    /// The set; its cases have passed.
    pub set: PolicySet,
    /// What is legal but unwise.
    pub warnings: Vec<Problem>,
    /// The Git commit that the directory has checked out, when it is in a work tree. Uncommitted edits are not seen.
    pub commit: Option<String>,
    /// The cases, all passed.
    pub cases: Vec<CaseResult>,
}

/// Whether files that others may change are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// No: they say who gets what (threat K12). Files and directories are judged by [`owner::believable`].
    Serve,
    /// Yes: a checkout may be so, where nothing is served.
    Look,
}

/// Loads the policies of `directory` (only `*.yaml`, sorted) against `context`, and runs their cases at `now`.
///
/// An empty directory is legal and denies everything; one that is not there is an error.
///
/// # Errors
/// A file that can't be read, problems, or cases that fail.
pub fn load(directory: &Path, context: &Context, now: Instant) -> Result<Loaded, LoadError> {
    load_guarded(directory, None, context, now, Trust::Look)
}

/// As [`load`], together with the files of a directory of guardrails.
///
/// Their names in the set begin with `guardrails/`, which no `granted_by` can say: a rule among them grants nothing.
///
/// # Errors
/// As [`load`], for both directories: guardrails that vanished are not guardrails that there never were. And, with
/// [`Trust::Serve`], others may change a file.
pub fn load_guarded(
    directory: &Path,
    guardrails: Option<&Path>,
    context: &Context,
    now: Instant,
    trust: Trust,
) -> Result<Loaded, LoadError> {
    let on_disk = |file: &str| match (file.strip_prefix(GUARDRAILS), guardrails) {
        (Some(name), Some(guardrails)) => guardrails.join(name).display().to_string(),
        _ => directory.join(file).display().to_string(),
    };
    let in_directory = |mut problem: Problem| {
        problem.file = on_disk(&problem.file);
        problem
    };
    let located = |problems: Vec<Problem>| problems.into_iter().map(in_directory).collect();
    let mut sources = sources(directory, trust)?;
    if let Some(guardrails) = guardrails {
        let named =
            |source: Source| Source { name: format!("{GUARDRAILS}{}", source.name), ..source };
        sources.extend(self::sources(guardrails, trust)?.into_iter().map(named));
        sources.sort_by(|left, right| left.name.cmp(&right.name));
    }
    let (set, warnings) = PolicySet::compile(&sources, context)
        .map_err(|problems| LoadError::Problems(located(problems)))?;
    let cases = set.run_cases(&tokens(directory, &set)?, now);
    if cases.iter().any(|case| !case.passed) {
        let failed = cases.into_iter().filter(|case| !case.passed);
        let located = |mut case: CaseResult| {
            case.file = on_disk(&case.file);
            case
        };
        return Err(LoadError::Cases(failed.map(located).collect()));
    }
    Ok(Loaded { set, warnings: located(warnings), commit: commit(directory), cases })
}

/// Reads the policy files of `directory`, without judging them.
///
/// # Errors
/// The directory or a file can't be read, or is not UTF-8; with [`Trust::Serve`], others may change it.
pub fn sources(directory: &Path, trust: Trust) -> Result<Vec<Source>, LoadError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| LoadError::Unreadable { path, error }
    };
    if trust == Trust::Serve {
        let about = fs::metadata(directory).map_err(unreadable(directory))?;
        let judged = owner::believable(directory, &about).map_err(io::Error::from);
        judged.map_err(unreadable(directory))?;
    }
    let read = match trust {
        Trust::Serve => owner::read_believable,
        Trust::Look => |path: &Path| fs::read_to_string(path),
    };
    let mut sources = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        // Hidden files are editors' drafts. `..data` of a Kubernetes volume is a directory and has no such ending.
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Passed over in silence, a guardrail that is called `.yml` would guard nothing.
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let is_meant = ["yaml", "yml"].iter().any(|known| ending.eq_ignore_ascii_case(known));
        if !name.starts_with('.') && is_meant && ending != "yaml" {
            let error = io::Error::other("the name of a policy file ends in `.yaml`");
            return Err(unreadable(&path)(error));
        }
        if name.starts_with('.') || path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        if sources.len() >= MOST_FILES {
            return Err(LoadError::TooMany(directory.to_owned()));
        }
        let text = read(&path).map_err(unreadable(&path))?;
        sources.push(Source { name: name.to_owned(), text });
    }
    sources.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(sources)
}

/// Reads the files of claims that the cases of `set` name. One that is not there fails its case, not the reading.
///
/// # Errors
/// A file is there and can't be read, or is no JSON object.
pub fn tokens(directory: &Path, set: &PolicySet) -> Result<BTreeMap<String, Claims>, LoadError> {
    let mut tokens = BTreeMap::new();
    for name in set.case_tokens() {
        let path = directory.join("tokens").join(name);
        let unreadable = |error| LoadError::Unreadable { path: path.clone(), error };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(error)),
        };
        let claims = parse_object(&text, &Limits::CLAIMS)
            .map_err(|error| unreadable(io::Error::other(error)))?;
        tokens.insert(name.to_owned(), claims);
    }
    Ok(tokens)
}

/// The commit that is checked out where `directory` is, read from the files of `.git`; no process is started.
fn commit(directory: &Path) -> Option<String> {
    let directory = fs::canonicalize(directory).ok()?;
    let dot_git = directory.ancestors().map(|path| path.join(".git")).find(|path| path.exists())?;
    let git = if dot_git.is_file() {
        let pointer = fs::read_to_string(&dot_git).ok()?;
        dot_git.parent()?.join(pointer.strip_prefix("gitdir:")?.trim())
    } else {
        dot_git
    };
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref: ") else { return object_id(&head) };
    // A linked work tree keeps its branches in the common directory.
    let common = fs::read_to_string(git.join("commondir"))
        .map_or(git.clone(), |common| git.join(common.trim()));
    if let Some(id) = fs::read_to_string(common.join(name)).ok().as_deref().and_then(object_id) {
        return Some(id);
    }
    let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
    packed.lines().find_map(|line| line.strip_suffix(name).and_then(object_id))
}

fn object_id(text: &str) -> Option<String> {
    let id = text.trim();
    let hexadecimal = id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hexadecimal && matches!(id.len(), 40 | 64)).then(|| id.to_owned())
}
