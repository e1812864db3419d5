//! `cambio policy`: write, check, test and explain trust policies.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failure, Talk,
    admin::{self, Reach},
    config, render, token,
};
use crate::{
    clock::{Clock as _, SystemClock},
    config::Config,
    grant::IssuerName,
    ledger::entry::hex,
    owner,
    policy::{
        CaseResult, Context, LoadError, PolicySet, Source, Wants, document, init,
        load::{self, Trust},
    },
    subject::Profile,
    yaml::{Place, Problem},
};

mod context;

/// Trust policies.
#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Write the rule that fits a token to stdout, ids and all
    Init(Init),
    /// Check the policies of a directory: all problems at once, with line and fix
    Check(Folder),
    /// Check them, and run their cases
    Test(Folder),
    /// Say why a token or a recorded exchange is permitted or denied, with the nearest miss
    Explain(Explain),
    /// Write the JSON Schema of a trust policy to stdout
    Schema,
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// A token, or its claims as JSON; `-` is stdin. Its signature is not looked at
    #[arg(long, value_name = "FILE")]
    token: PathBuf,

    /// The issuer's name in the configuration; without it, guessed from the claims
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,

    /// The target to grant
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,

    /// The role to grant
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,

    /// A configuration, to find the issuer's name in, and whether there is such a target and role
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Folder {
    /// The directory with the trust policies
    directory: PathBuf,

    /// A configuration: its issuers and targets are then all that rules may name
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A token, or its claims as JSON, in a file (`-` is stdin); or a recorded exchange `ex_…`
    #[arg(value_name = "FILE|EXCHANGE")]
    what: String,

    /// Judge the token by the policies of this directory, not by those of the running broker
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,

    /// The target asked for
    #[arg(long, value_name = "TARGET")]
    audience: Option<String>,

    /// The role asked for
    #[arg(long, value_name = "ROLE")]
    scope: Option<String>,

    /// The issuer's name, where plain claims are explained; without it, guessed from them
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,

    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(policy: Policy, talk: &mut Talk) -> Result<(), Failure> {
    match policy {
        Policy::Init(init) => write_rule(&init, talk),
        Policy::Check(folder) => check(&folder, talk),
        Policy::Test(folder) => test(&folder, talk),
        Policy::Explain(explain) if explain.policies.is_some() => explain_offline(explain, talk),
        Policy::Explain(explain) => explain_online(explain, talk).await,
        Policy::Schema => {
            talk.line(document::schema().trim_end());
            Ok(())
        }
    }
}

fn write_rule(init: &Init, talk: &mut Talk) -> Result<(), Failure> {
    let claims = token::read_unverified_claims(&init.token)?;
    let known = context::issuers(init.config.as_deref())?;
    let (issuer, preset) = known.of(&claims, init.issuer.as_deref())?;
    let profile = Profile::of(issuer, preset, claims.clone())
        .map_err(|error| Failure::usage(format!("claim `{}`: {error}", error.claim)))?;
    let text = init::init(&profile, &claims, init.target.as_deref(), init.role.as_deref());
    talk.line(text.trim_end());
    talk.say("The token's signature was not looked at. Read each line before you commit it.");
    if let (Some(file), Some(target)) = (&init.config, &init.target)
        && let Some(warning) = no_such_target(&config::load(file)?, target, init.role.as_deref())
    {
        talk.say(format_args!("warning: {warning}"));
    }
    Ok(())
}

/// Why `config` would refuse a rule that grants this; the rule is written all the same, for a target that is yet to come.
fn no_such_target(config: &Config, target: &str, role: Option<&str>) -> Option<String> {
    let listed = |names: Vec<String>| format!("`{}`", names.join("`, `"));
    let Some(found) = config.targets.iter().find(|it| it.name.to_string() == target) else {
        let names = config.targets.iter().map(|it| it.name.to_string()).collect();
        return Some(format!(
            "target `{target}` is not configured, expected one of {}",
            listed(names)
        ));
    };
    let role = role?;
    if found.roles.keys().any(|it| it.to_string() == role) {
        return None;
    }
    let names = found.roles.keys().map(ToString::to_string).collect();
    Some(format!(
        "role `{role}` is not one of target `{target}`, expected one of {}",
        listed(names)
    ))
}

/// What a directory holds, judged but for its cases.
struct Compiled {
    set: PolicySet,
    warnings: Vec<Problem>,
    files: usize,
}

fn compile(folder: &Folder) -> Result<Result<Compiled, Vec<Problem>>, Failure> {
    let sources = load::sources(&folder.directory, Trust::Look).map_err(unreadable)?;
    let context = context::of(folder.config.as_deref(), &sources)?;
    let mut compiled = compile_with(&folder.directory, &context, &sources);
    if let Ok(compiled) = &mut compiled {
        compiled.warnings.extend(not_ours(&folder.directory, &sources));
    }
    Ok(compiled)
}

/// What a broker would not serve, because others may change it; a checkout may be so. The first of them speaks for all.
fn not_ours(directory: &Path, sources: &[Source]) -> Option<Problem> {
    let files = sources.iter().map(|source| directory.join(&source.name));
    let mut judged = std::iter::once(directory.to_owned()).chain(files).filter_map(|path| {
        let about = fs::metadata(&path).ok()?;
        owner::believable(&path, &about).err().map(|why| (path, why))
    });
    let (path, why) = judged.next()?;
    let more = match judged.count() {
        0 => String::new(),
        more => format!(", and {more} more like it"),
    };
    let begin = Place { line: 1, column: 1 };
    let problem = Problem::at(&path.display().to_string(), begin, format!("it {why}{more}"));
    Some(problem.hint(format!("`cambio serve` refuses it so: {}", why.remedy())))
}

fn compile_with(
    directory: &Path,
    context: &Context,
    sources: &[Source],
) -> Result<Compiled, Vec<Problem>> {
    let located = |problems: Vec<Problem>| -> Vec<Problem> {
        let locate = |problem: Problem| {
            let file = directory.join(&problem.file).display().to_string();
            Problem { file, ..problem }
        };
        problems.into_iter().map(locate).collect()
    };
    match PolicySet::compile(sources, context) {
        Ok((set, warnings)) => {
            Ok(Compiled { set, warnings: located(warnings), files: sources.len() })
        }
        Err(problems) => Err(located(problems)),
    }
}

fn unreadable(error: LoadError) -> Failure {
    Failure::usage(error)
}

fn check(folder: &Folder, talk: &mut Talk) -> Result<(), Failure> {
    match compile(folder)? {
        Ok(compiled) => {
            let own = json!({
                "rules": compiled.set.rule_count(),
                "digest": hex(&compiled.set.digest()),
            });
            render::report(talk, &[], &compiled.warnings, own);
            note_context(folder, talk);
            talk.say(summary(&compiled));
            Ok(())
        }
        Err(problems) => Err(refused(folder, &problems, talk)),
    }
}

fn test(folder: &Folder, talk: &mut Talk) -> Result<(), Failure> {
    let compiled = match compile(folder)? {
        Ok(compiled) => compiled,
        Err(problems) => return Err(refused(folder, &problems, talk)),
    };
    let tokens = load::tokens(&folder.directory, &compiled.set).map_err(unreadable)?;
    let located = |result: CaseResult| {
        let file = folder.directory.join(&result.file).display().to_string();
        CaseResult { file, ..result }
    };
    let results = compiled.set.run_cases(&tokens, SystemClock.now());
    let results: Vec<CaseResult> = results.into_iter().map(located).collect();
    let failed = results.iter().filter(|result| !result.passed).count();
    if talk.json() {
        let cases: Value = results.iter().map(case_as_json).collect();
        talk.value(
            &json!({ "ok": failed == 0, "rules": compiled.set.rule_count(), "cases": cases }),
        );
    } else {
        for result in &results {
            talk.line(result);
        }
    }
    note_context(folder, talk);
    talk.say(format_args!(
        "{}, {}: {} passed, {failed} failed",
        summary(&compiled),
        render::count(results.len(), "case"),
        results.len().saturating_sub(failed),
    ));
    if results.is_empty() && compiled.set.rule_count() > 0 {
        talk.say("  hint: a rule without a case is only believed; `cambio policy init` writes one with it");
    }
    if failed > 0 {
        return Err(Failure::refused(format!("{} failed", render::count(failed, "case"))));
    }
    Ok(())
}

/// For `doctor`: what the policies of `config` are, judged as a broker would, cases included.
pub(super) fn examine(config: &Config) -> Result<String, Failure> {
    let targets = config.targets().map_err(Failure::usage)?;
    let context = Context {
        targets: Arc::new(targets),
        issuers: config.policy_context(),
        environment: config.environment.clone(),
    };
    let directory = &config.policies.directory;
    let guardrails = config.policies.guardrails.as_deref();
    let loaded =
        load::load_guarded(directory, guardrails, &context, SystemClock.now(), Trust::Look)
            .map_err(unreadable)?;
    let rules = render::count(loaded.set.rule_count(), "rule");
    let cases = render::count(loaded.cases.len(), "case");
    Ok(format!("`{}`: {rules}, {cases} passed", directory.display()))
}

fn refused(folder: &Folder, problems: &[Problem], talk: &mut Talk) -> Failure {
    render::report(talk, problems, &[], json!({}));
    note_context(folder, talk);
    let (count, name) = (render::count(problems.len(), "problem"), folder.directory.display());
    Failure::usage(format!("{count} in `{name}`: nothing of it would be loaded"))
}

fn note_context(folder: &Folder, talk: &mut Talk) {
    if folder.config.is_none() {
        talk.say(
            "Without `--config`, issuers are named as their providers, and targets and roles are taken as the rules name them; with it, by yours.",
        );
    }
}

fn summary(compiled: &Compiled) -> String {
    let rules = render::count(compiled.set.rule_count(), "rule");
    format!("{rules} in {}", render::count(compiled.files, "file"))
}

fn case_as_json(result: &CaseResult) -> Value {
    json!({
        "file": result.file,
        "line": result.place.line,
        "case": result.case,
        "passed": result.passed,
        "outcome": result.outcome.as_ref().ok(),
        "error": result.outcome.as_ref().err(),
    })
}

fn explain_offline(explain: Explain, talk: &mut Talk) -> Result<(), Failure> {
    let directory = explain.policies.unwrap_or_default();
    if explain.what.starts_with("ex_") {
        return Err(Failure::usage("a recorded exchange is explained by the running broker")
            .hint("leave out `--policies`"));
    }
    // The configuration is asked for only where there is one: policies can be tried on their own.
    let config = explain.reach.config.is_file().then_some(explain.reach.config);
    let claims = token::read_unverified_claims(Path::new(&explain.what))?;
    let (issuer, preset) =
        context::issuers(config.as_deref())?.of(&claims, explain.issuer.as_deref())?;
    let sources = load::sources(&directory, Trust::Look).map_err(unreadable)?;
    let context = context::of(config.as_deref(), &sources)?;
    let compiled = compile_with(&directory, &context, &sources).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let count = render::count(problems.len(), "problem");
        Failure::usage(format!("{count} in `{}`\n{}", directory.display(), lines.join("\n")))
    })?;
    let profile = Profile::of(issuer, preset, claims)
        .map_err(|error| Failure::usage(format!("claim `{}`: {error}", error.claim)))?;
    let wants = Wants {
        targets: explain.audience.into_iter().collect(),
        scope: explain.scope.into_iter().collect(),
        lifetime: None,
    };
    let explanation = compiled.set.explain(&profile, &wants, SystemClock.now());
    talk.say(
        "The claims were taken as they stand: nobody looked at a signature, an audience or an age.",
    );
    if talk.json() {
        talk.value(&serde_json::to_value(&explanation).unwrap_or_default());
    } else {
        talk.line(explanation.to_string().trim_end());
    }
    Ok(())
}

async fn explain_online(explain: Explain, talk: &mut Talk) -> Result<(), Failure> {
    let mut question = if explain.what.starts_with("ex_") {
        json!({ "exchange": explain.what })
    } else {
        let token = token::read(Path::new(&explain.what))?;
        let text = token.reveal_text().unwrap_or_default();
        if text.starts_with('{') {
            let claims = token::unverified_claims(text).map_err(Failure::usage)?;
            let name = explain.issuer.map(IssuerName::from);
            let name =
                name.map_or_else(|| context::guess(&claims).to_owned(), |name| name.to_string());
            json!({ "issuer": name, "claims": claims })
        } else {
            json!({ "token": text })
        }
    };
    if let Some(members) = question.as_object_mut() {
        members.insert("audience".to_owned(), explain.audience.into_iter().collect());
        members.insert("scope".to_owned(), explain.scope.into_iter().collect());
    }
    let answer = explain.reach.call("explain", question).await?;
    if talk.json() {
        talk.value(&answer);
    } else {
        talk.line(admin::explained(&answer));
    }
    Ok(())
}
