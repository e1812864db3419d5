//! Twenty dangerous policies and more, refused at load with whole texts.

use super::shared::{ORDERS, context, lines, policy, problems, rule, source};
use cambio::policy::PolicySet;
use insta::assert_snapshot;

fn github(when: &str) -> String {
    problems(&policy(&rule("a", "github", when, ORDERS, "")))
}

fn granting(grants: &str) -> String {
    problems(&policy(&rule("a", "github", "{ repository_id: \"1\" }", grants, "")))
}

#[test]
fn c01_a_rule_without_a_tenant_is_refused() {
    assert_snapshot!(github("{ environment: production }"), @r"
    p.yaml:5:5: rule `a` is pinned to no tenant: strangers of issuer `github` could fit it
      hint: add an equality on `repository_id`, or `repository_owner_id`; `cambio policy init` writes the rule that fits a token
    ");
    assert_snapshot!(github("{ repository: acme/site, ref: refs/heads/main }"), @r"
    p.yaml:5:5: rule `a` is pinned to no tenant: strangers of issuer `github` could fit it
      hint: add an equality on `repository_id`, or `repository_owner_id`; `cambio policy init` writes the rule that fits a token
    ");
    assert_snapshot!(github("{ repository_owner_id: \"9919\" }"), @r"
    p.yaml:5:5: rule `a` admits every workload of the pinned organization
      hint: add an equality on `repository_id`, or say `allow_organization: true`
    ");
    assert_snapshot!(github("{ repository_id: { not: \"1\" } }"), @r"
    p.yaml:5:5: rule `a` is pinned to no tenant: strangers of issuer `github` could fit it
      hint: add an equality on `repository_id`, or `repository_owner_id`; `cambio policy init` writes the rule that fits a token
    ");
    assert_snapshot!(github("{ aud: cambio }"), @r"
    p.yaml:5:13: claim `aud` is checked before any policy, and says nothing about the workload
      hint: remove the line
    ");
    assert_snapshot!(github("{}"), @"p.yaml:5:11: `when` has 0 keys, expected at least 1");
    assert_snapshot!(
        problems(&policy(&rule("a", "kubernetes", "{ namespace: payments }", ORDERS, ""))), @r"
    p.yaml:5:5: rule `a` is pinned to no tenant: strangers of issuer `kubernetes` could fit it
      hint: add an equality on `service_account_uid`, or `namespace` and `service_account`; `cambio policy init` writes the rule that fits a token
    ");
    assert_snapshot!(problems(&policy(&rule("a", "gitlab", "{ project_path: acme/site }", ORDERS, ""))), @r"
    p.yaml:5:5: rule `a` is pinned to no tenant: strangers of issuer `gitlab` could fit it
      hint: add an equality on `project_id`, or `namespace_id`; `cambio policy init` writes the rule that fits a token
    ");
}

#[test]
fn c02_patterns_that_admit_strangers_are_refused() {
    for when in [
        "{ repository_id: \"1\", ref: { glob: \"*\" } }",
        "{ repository_id: \"1\", ref: { glob: \"refs/heads/rel*\" } }",
        "{ repository_id: \"1\", ref: { glob: \"refs/**\" } }",
        "{ repository_id: \"1\", repository: { glob: \"*/site\" } }",
        "{ repository_id: \"1\", repository: \"acme/*\" }",
        "{ repository_id: { glob: \"1/*\" } }",
    ] {
        assert_ne!(github(when), "none", "{when}");
    }
    assert_snapshot!(github("{ repository_id: \"1\", ref: { glob: \"*\" } }"), @"p.yaml:5:46: pattern `*` of `ref` fits every value, expected at least one literal segment");
    assert_snapshot!(github("{ repository_id: \"1\", repository: { glob: \"acme*\" } }"), @"p.yaml:5:53: pattern `acme*` of `repository` has `*` beside other characters in one segment, which would admit strangers with a similar name");
    assert_snapshot!(github("{ repository_id: \"1\", repository: { glob: \"*/site\" } }"), @"p.yaml:5:53: pattern `*/site` of `repository` begins with `*`, which would admit every owner");
    assert_snapshot!(github("{ repository_id: \"1\", ref: { glob: \"refs/**\" } }"), @"p.yaml:5:46: pattern `refs/**` of `ref` has `**`, expected `*` for exactly one segment");
    assert_snapshot!(github("{ repository_id: \"1\", repository: \"acme/*\" }"), @r"
    p.yaml:5:45: value of `repository` is `acme/*`, in which a star means nothing
      hint: a pattern is written `{ glob: … }`
    ");
    assert_snapshot!(github("{ repository_id: { glob: \"1/*\" } }"), @"p.yaml:5:28: value of `repository_id` is the pattern `1/*`, expected a text of digits");
}

#[test]
fn c05_sub_alone_and_patterns_on_sub_are_refused() {
    assert_snapshot!(github("{ sub: \"repo:acme/site:ref:refs/heads/main\" }"), @r"
    p.yaml:5:5: rule `a` rests on `sub` alone, whose shape the workload's admins can choose
      hint: add an equality on `repository_id`, or `repository_owner_id`; `cambio policy init` writes the rule that fits a token
    ");
    assert_snapshot!(github("{ repository_id: \"1\", sub: { glob: \"repo:acme/*:ref:refs/heads/main\" } }"), @r"
    p.yaml:5:46: pattern on `sub`, whose shape repository admins can choose
      hint: name the claims that `sub` is made of
    ");
    assert_snapshot!(github("{ repository_id: \"1\", /sub: { glob: \"repo:acme/*:ref:refs/heads/main\" } }"), @r"
    p.yaml:5:47: pattern on `sub`, whose shape repository admins can choose
      hint: name the claims that `sub` is made of
    ");
}

#[test]
fn c10_a_value_of_another_type_is_refused() {
    assert_snapshot!(github("{ repository_id: \"1\", ref_protected: true }"), @r#"
    p.yaml:5:48: value of `ref_protected` is the boolean `true`, expected the text `"true"` or `"false"`
      hint: put it in quotes: "true"
    "#);
    assert_snapshot!(github("{ repository_id: 1296269 }"), @r#"
    p.yaml:5:28: value of `repository_id` is the number `1296269`, expected a text of digits
      hint: put it in quotes: "1296269"
    "#);
    assert_snapshot!(github("{ repository_id: \"acme/site\" }"), @"p.yaml:5:28: value of `repository_id` is `acme/site`, expected a text of digits");
    assert_snapshot!(github("{ repository_id: \"1\", ref: { any: [main] } }"), @r"
    p.yaml:5:38: claim `ref` is no list
      hint: write the value, a list of values, or `{ not: … }`
    ");
    assert_snapshot!(github("{ repository_id: \"1\", ref: { name: main } }"), @r"
    p.yaml:5:38: claim `ref` has no members
      hint: write the value, a list of values, or `{ glob: … }`
    ");
    assert_snapshot!(github("{ repository_id: \"1\", job_workflow: deploy }"), @r"
    p.yaml:5:47: claim `job_workflow` is an object, expected conditions on its members
      hint: write `{ member: value }`
    ");
    assert_snapshot!(
        problems(&policy(&rule("a", "gitlab", "{ project_id: \"1\", groups_direct: acme }", ORDERS, ""))), @r"
    p.yaml:5:45: claim `groups_direct` is a list, which no single value equals
      hint: write `{ any: […] }`, `{ all: […] }` or `{ none: […] }`
    ");
}

#[test]
fn c19_regular_expressions_are_refused() {
    assert_snapshot!(github("{ repository_id: \"1\", ref: \"^refs/heads/main\" }"), @"p.yaml:5:38: value of `ref` is `^refs/heads/main`, a regular expression: values are compared as they are");
    assert_snapshot!(github("{ repository_id: \"1\", ref: \"refs/heads/.*\" }"), @r"
    p.yaml:5:38: value of `ref` is `refs/heads/.*`, in which a star means nothing
      hint: a pattern is written `{ glob: … }`
    ");
    assert_snapshot!(github("{ repository_id: \"1\", ref: { glob: \"refs/(heads|tags)/*\" } }"), @"p.yaml:5:46: pattern `refs/(heads|tags)/*` of `ref` has `(`, which means nothing here: a pattern is no regular expression and no template");
}

#[test]
fn c20_templates_are_refused() {
    assert_snapshot!(github("{ repository_id: \"1\", environment: \"{{ repository }}\" }"), @"p.yaml:5:46: value of `environment` has `{{`: nothing is ever expanded");
    assert_snapshot!(github("{ repository_id: \"1\", environment: \"a\\nb\" }"), @"p.yaml:5:46: value of `environment` has a line break or another control character");
    assert_snapshot!(
        granting("[{ target: jwt/orders, role: deployer, lifetime: 15m, subject: \"${sub}\" }]"), @"p.yaml:6:76: `subject` has `${`: nothing is ever expanded");
}

#[test]
fn unknown_names_are_refused_with_what_was_meant() {
    assert_snapshot!(github("{ repositry: acme/site }"), @r"
    p.yaml:5:13: claim `repositry` is not one that `github` sends
      hint: did you mean `repository`? `repository_id` survives renames
    ");
    assert_snapshot!(github("{ repository_id: \"1\", colour: red }"), @r"
    p.yaml:5:33: claim `colour` is not one that `github` sends
      hint: a claim that the preset `github` does not know is named by JSON Pointer: `/colour`
    ");
    assert_snapshot!(github("{ repository_id: \"1\", /a//b: red }"), @r"
    p.yaml:5:33: `/a//b` is no JSON Pointer
      hint: RFC 6901: `/` before each name, `~1` for `/` and `~0` for `~` in one
    ");
    assert_snapshot!(github("{ repository_id: \"1\", /repository_id: \"2\" }"), @r"
    p.yaml:5:13: `repository_id` and `/repository_id` name one claim
      hint: put both into one condition
    ");
    assert_snapshot!(problems(&policy(&rule("a", "githbu", "{ repository_id: \"1\" }", ORDERS, ""))), @r"
    p.yaml:4:13: issuer `githbu` is not one of the configuration
      hint: did you mean `github`?
    ");
    assert_snapshot!(granting("[{ target: jwt/order, role: deployer, lifetime: 15m }]"), @r"
    p.yaml:6:24: target `jwt/order` is not one of the configuration
      hint: did you mean `jwt/orders`?
    ");
    assert_snapshot!(granting("[{ target: jwt/orders, role: admin, lifetime: 15m }]"), @r"
    p.yaml:6:42: role `admin` is not one of target `jwt/orders`
      hint: roles are `deployer`, `reader`
    ");
}

#[test]
fn a_grant_that_is_not_this_files_to_give_is_refused() {
    assert_snapshot!(granting("[{ target: jwt/closed, role: all, lifetime: 15m }]"), @r"
    p.yaml:6:24: target `jwt/closed` may not be granted by `p.yaml`
      hint: whoever runs the broker can list `p.yaml` under `granted_by` of the target
    ");
    assert_snapshot!(granting("[{ target: jwt/dev, role: all, lifetime: 15m }]"), @"p.yaml:6:24: target `jwt/dev` belongs to environment `dev`, this broker to `prod`");
    assert_snapshot!(granting("[{ target: jwt/greedy, role: all, lifetime: 15m }]"), @"p.yaml:6:42: role `all` of `jwt/greedy` maps claim `sub`, which only the broker may set");
    assert_snapshot!(granting("[{ target: jwt/orders, role: reader, lifetime: 15m }, { target: jwt/orders, role: reader, lifetime: 5m }]"), @"p.yaml:6:77: rule grants role `reader` of `jwt/orders` twice");
    assert_snapshot!(granting("[]"), @"p.yaml:6:13: `grants` has 0 elements, expected at least 1");
    let text = policy(&rule("a", "github", "{ repository_id: \"1\" }", ORDERS, ""));
    let problems = PolicySet::compile(&[source("other.yaml", &text)], &context()).unwrap_err();
    assert_snapshot!(lines(&problems), @r"
    other.yaml:6:24: target `jwt/orders` may not be granted by `other.yaml`
      hint: whoever runs the broker can list `other.yaml` under `granted_by` of the target
    ");
}

#[test]
fn honest_expiry_a_lifetime_that_the_target_cannot_keep_is_refused() {
    assert_snapshot!(granting("[{ target: jwt/orders, role: reader, lifetime: 2h }]"), @"p.yaml:6:60: lifetime is 7200 s, expected what target `jwt/orders` can keep: between 60 s and 3600 s");
    assert_snapshot!(granting("[{ target: jwt/orders, role: reader, lifetime: 30s }]"), @"p.yaml:6:60: lifetime is 30 s, expected what target `jwt/orders` can keep: between 60 s and 3600 s");
    assert_snapshot!(granting("[{ target: fixed/hour, role: all, lifetime: 15m }]"), @"p.yaml:6:57: lifetime is 900 s, expected what target `fixed/hour` can keep: exactly 3600 s, which no one can change");
    assert_snapshot!(granting("[{ target: jwt/orders, role: reader, lifetime: 0m }]"), @"p.yaml:6:60: `lifetime` is `0m`, expected a length of time such as `90s`, `15m`, `1h` or `1d`");
}

#[test]
fn a_rule_id_that_comes_twice_or_leaves_its_file_is_refused() {
    let a = rule("a", "github", "{ repository_id: \"1\" }", ORDERS, "");
    let slash = rule("b/c", "github", "{ repository_id: \"1\" }", ORDERS, "");
    assert_snapshot!(problems(&policy(&format!("{a}{a}{slash}"))), @r"
    p.yaml:7:9: rule id `a` stands here a second time, first in line 3
    p.yaml:11:9: rule id `b/c` has a `/`, expected letters, digits, `-`, `_` and `.`
    ");
}

/// Two files may grant one target; whose workload a `sub` names must not be for either to choose.
#[test]
fn c17_a_fixed_subject_that_reads_as_a_workload_is_refused() {
    let fixed = |subject: &str| {
        granting(&format!(
            "[{{ target: jwt/orders, role: deployer, lifetime: 15m, subject: \"{subject}\" }}]"
        ))
    };
    assert_snapshot!(fixed("github:repository_id:1296269"), @r"
    p.yaml:6:76: `subject` is `github:repository_id:1296269`, which reads as a workload of issuer `github`
      hint: leave it out, and it is the workload's own; or begin it otherwise
    ");
    assert_ne!(fixed("kubernetes:namespace:shop:service_account:api"), "none");
    assert_eq!(fixed("team:payments"), "none");
    assert_eq!(fixed("github"), "none");
}

#[test]
fn a_guardrail_over_what_is_not_there_is_refused() {
    let over = |over: &str| {
        problems(&format!(
            "version: 1\nguardrails:\n  - {{ id: g, for: {over}, when: {{ ref_protected: \"true\" }} }}\n"
        ))
    };
    assert_snapshot!(over("{ target: jwt/order }"), @r"
    p.yaml:3:29: target `jwt/order` is not one of the configuration
      hint: did you mean `jwt/orders`?
    ");
    assert_snapshot!(over("{ role: [deployer, writter] }"), @r"
    p.yaml:3:27: role `writter` is not one of the configuration
      hint: did you mean `writer`?
    ");
    assert_snapshot!(over("{ issuer: gihub }"), @r"
    p.yaml:3:29: issuer `gihub` is not one of the configuration
      hint: did you mean `github`?
    ");
    assert_snapshot!(over("{ provider: githb }"), @r"
    p.yaml:3:31: provider `githb` is not one of the configuration
      hint: did you mean `github`?
    ");
    assert_snapshot!(over("{ kind: 7 }"), @r#"
    p.yaml:3:27: value of `kind` is the number `7`, expected a text
      hint: put it in quotes: "7"
    "#);
    for fine in [
        "{ target: jwt/orders, role: deployer }",
        "{ provider: { not: aws } }",
        "{ environment: stage }",
    ] {
        assert_eq!(over(fine), "none", "{fine}");
    }
}

#[test]
fn guardrails_stand_in_files_of_their_own() {
    let guardrails = "guardrails:\n  - { id: g, for: {}, when: { ref_protected: \"true\" } }\n";
    let rules = policy(&rule("a", "github", "{ repository_id: \"1\" }", ORDERS, ""));
    assert_snapshot!(problems(&format!("{rules}{guardrails}")), @r"
    p.yaml:7:1: found `guardrails` beside `rules` or `cases`, expected a file of their own
      hint: a guardrail that a team can edit together with its rules guards nothing
    ");
    assert_snapshot!(problems("version: 1\n"), @r"
    p.yaml:1:1: found neither `rules` nor `guardrails`
      hint: an empty policy says `rules: []`
    ");
    assert_snapshot!(problems(&guardrails.replace("guardrails", "version: 1\nguardrails").replace("for: {}", "for: { taget: x }").replace("ref_protected", "ref_protectd")), @r"
    p.yaml:3:21: `taget` is nothing that a guardrail's `for` knows
      hint: did you mean `target`?
    p.yaml:3:41: claim `ref_protectd` is not one that `gitlab` sends
      hint: did you mean `ref_protected`?
    ");
    assert_snapshot!(problems("version: 1\nguardrails:\n  - { id: g, for: {}, when: { ref: x }, exceptions: [{ rule: p/none, owner: me, expires: 2027-13-01 }] }\n"), @"p.yaml:3:90: `expires` is `2027-13-01`, expected a day such as `2027-01-31`");
}

#[test]
fn all_problems_of_all_files_come_at_once() {
    let first = policy(&rule("a", "github", "{ repositry: x }", ORDERS, "    ownr: me\n"));
    let second = policy(&rule("a", "github", "{ environment: x }", ORDERS, ""));
    let third = "version: 1\nrules: []\ncases: [{ permit: x }]\n";
    let sources = [source("r.yaml", third), source("q.yaml", &second), source("p.yaml", &first)];
    assert_snapshot!(lines(&PolicySet::compile(&sources, &context()).unwrap_err()), @r"
    p.yaml:7:5: `ownr` is not a key of a rule
      hint: did you mean `owner`?
    q.yaml:5:5: rule `a` is pinned to no tenant: strangers of issuer `github` could fit it
      hint: add an equality on `repository_id`, or `repository_owner_id`; `cambio policy init` writes the rule that fits a token
    r.yaml:3:19: rule `x` is not one of this file
      hint: there are no rules yet
    ");
}
