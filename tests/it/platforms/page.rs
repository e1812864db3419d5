//! `docs/issuers.md`: its table is what the presets say, and its rules work.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use cambio::{
    client::ambient::PLATFORMS,
    policy::{PolicySet, Source},
    subject::{
        Preset, Profile,
        provider::{self, Audience},
    },
    target::{Expiry, Role, Target, Targets},
};

use super::{context, fixtures, object, permits, platforms, shown};

const BEGIN: &str = "<!-- facts: generated from the presets; CAMBIO_BLESS=1 cargo test --test it platforms::page -->\n";
const END: &str = "<!-- end of facts -->\n";

fn page() -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/issuers.md");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

#[test]
fn the_facts_of_the_page_are_those_of_the_presets() {
    let (path, text) = page();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let generated = format!("{before}{BEGIN}{}{END}{after}", facts());
    if std::env::var_os("CAMBIO_BLESS").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(text == generated, "`{}` is stale: run with CAMBIO_BLESS=1", path.display());
}

/// Every platform has a section, whose rule loads as it stands, admits the platform's token and no stranger's.
#[test]
fn every_rule_of_the_page_works() {
    let (_, text) = page();
    for preset in platforms() {
        let name = preset.name;
        let section = text.split(&format!("\n### `{name}`")).nth(1);
        let section = section.unwrap_or_else(|| panic!("no section on `{name}`"));
        let section = section.split("\n### ").next().unwrap();
        let rule = section.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
        let rule = rule.unwrap_or_else(|| panic!("no rule for `{name}`"));
        let text = format!("version: 1\nrules:\n{rule}");
        let source = Source { name: "p.yaml".to_owned(), text: text.clone() };
        let context = context(&[name], |name| provider::find(name).unwrap());
        let (set, warnings) = PolicySet::compile(&[source], &context)
            .unwrap_or_else(|problems| panic!("{name}: {}\n{text}", shown(&problems)));
        // Their ids are others after each reinstallation, so the page goes by names there, and loading says what that means.
        let by_name = ["kubernetes", "modal"].contains(&name);
        assert_eq!(warnings.is_empty(), !by_name, "{name}: {}", shown(&warnings));

        let fixture = fixtures::of(name);
        let profile = |claims| Profile::of(name.into(), preset, object(claims)).unwrap();
        assert!(permits(&set, &profile(fixture.claims())), "{name}\n{text}");
        let mut stranger = fixture.claims();
        for (claim, value) in object((fixture.stranger)()) {
            stranger[claim] = value;
        }
        assert!(!permits(&set, &profile(stranger)), "{name}\n{text}");
    }
}

/// From one cloud into another, and what a pattern needs: rules beside the platforms' own.
#[test]
fn the_other_rules_of_the_page_load_without_a_word() {
    let (_, text) = page();
    let bridge = text.split("\n## From one cloud into another").nth(1).unwrap();
    let bridge = blocks(bridge).nth(1).unwrap();
    let pattern = text.split("\n### `spiffe`").nth(1).unwrap();
    let pattern = format!("version: 1\nrules:\n{}", blocks(pattern).nth(1).unwrap());
    let role = |name: &str| BTreeMap::from([(name.into(), Role::default())]);
    let target = |name: &str, role| Target {
        name: name.into(),
        kind: "any".to_owned(),
        aliases: BTreeSet::new(),
        environment: "prod".to_owned(),
        roles: role,
        granted_by: BTreeSet::from(["bridge.yaml".to_owned()]),
        expiry: Expiry::Exact { floor: Duration::from_secs(1), ceiling: Duration::from_hours(1) },
    };
    let targets = [
        target("google/prod", role("deploy")),
        target("aws/prod", role("deploy")),
        target("jwt/orders", role("deployer")),
    ];
    let mut context = context(&["aws", "google", "spiffe"], |name| provider::find(name).unwrap());
    context.targets = Arc::new(Targets::of(targets).unwrap());
    for text in [bridge, &pattern] {
        let source = Source { name: "bridge.yaml".to_owned(), text: text.to_owned() };
        let (_, warnings) = PolicySet::compile(&[source], &context)
            .unwrap_or_else(|problems| panic!("{}\n{text}", shown(&problems)));
        assert_eq!(shown(&warnings), "", "{text}");
    }
}

/// The first platform whose signs hold decides, so the order of the client's table is what it does.
#[test]
fn the_table_of_the_client_has_its_platforms_in_their_order() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/client.md");
    let text = fs::read_to_string(&path).unwrap();
    let rows = text.split("| `--platform` |").nth(1).unwrap().lines().skip(2);
    let told: Vec<&str> = rows
        .map_while(|row| row.strip_prefix("| `"))
        .filter_map(|row| row.split('`').next())
        .collect();
    let all: Vec<&str> = PLATFORMS.iter().map(|platform| platform.name).collect();
    assert_eq!(told, all);
}

/// The YAML blocks of `text`.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

fn facts() -> String {
    let mut table = "| provider | `iss` | `aud` | a rule pins | our `sub` | replay | lifetime, age | signed with | only if named |\n\
                     |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for preset in provider::ALL {
        let platform = preset.platform;
        let algorithms: Vec<&str> =
            platform.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
        let age = platform.maximum_age.map_or_else(|| "–".to_owned(), length);
        let cells = [
            format!("`{}`", preset.name),
            issuers(preset),
            audience(preset),
            pins(preset),
            joined(preset.stable_ids, ", else "),
            format!("{:?}", preset.replay).to_lowercase(),
            format!("{}, {age}", length(platform.maximum_lifetime)),
            algorithms.join(", "),
            dangerous(preset),
        ];
        table.extend(["| ", &cells.join(" | "), " |\n"]);
    }
    table
}

fn issuers(preset: &Preset) -> String {
    let platform = preset.platform;
    let mut urls: Vec<String> = platform.urls.iter().map(|shape| template(shape.url)).collect();
    if urls.is_empty() {
        urls.extend(platform.default_url.map(|url| format!("`{url}`")));
        urls.push("the installation's own".to_owned());
    }
    urls.join(" or ")
}

fn audience(preset: &Preset) -> String {
    let all = |shapes: &[&str]| shapes.iter().map(|shape| template(shape)).collect::<Vec<_>>();
    match preset.platform.audience {
        Audience::Chosen { unasked: [] } => "chosen".to_owned(),
        Audience::Chosen { unasked } => format!("chosen; never {}", all(unasked).join(", ")),
        Audience::Fixed(shapes) => format!("always {}", all(shapes).join(" or ")),
    }
}

fn pins(preset: &Preset) -> String {
    let whole = |set: &&&[&str]| set.iter().all(|claim| preset.organizations.contains(claim));
    let narrow: Vec<&[&str]> = preset.pins.iter().filter(|set| !whole(set)).copied().collect();
    let mut pins = joined(&narrow, ", or ");
    let shared: Vec<&[&str]> = preset.pins.iter().filter(whole).copied().collect();
    if !shared.is_empty() {
        pins.extend(["; ", &joined(&shared, ", or "), " alone with `allow_organization`"]);
    }
    pins
}

fn joined(sets: &[&[&str]], between: &str) -> String {
    let each = sets
        .iter()
        .map(|set| set.iter().map(|claim| format!("`{claim}`")).collect::<Vec<_>>().join(" and "));
    each.collect::<Vec<_>>().join(between)
}

fn dangerous(preset: &Preset) -> String {
    let each = preset.dangerous.iter().map(|(claim, values)| {
        let few: Vec<String> = values.iter().take(4).map(|value| format!("`{value}`")).collect();
        let more = if values.len() > 4 { " …" } else { "" };
        format!("`{claim}` {}{more}", few.join(", "))
    });
    let all = each.collect::<Vec<_>>().join("; ");
    if all.is_empty() { "–".to_owned() } else { all }
}

/// `https://…/{uuid:tid}/` → `` `https://…/<tid>/` ``.
fn template(text: &str) -> String {
    let mut shown = String::new();
    for part in text.replace("**", "…").split('}') {
        let (literal, place) = part.split_once('{').unwrap_or((part, ""));
        let name = place.split_once(':').map_or(place, |(_, claim)| claim);
        shown.push_str(literal);
        if !name.is_empty() {
            shown.extend(["<", name, ">"]);
        }
    }
    format!("`{shown}`")
}

fn length(duration: std::time::Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        seconds => format!("{}m", seconds / 60),
    }
}
