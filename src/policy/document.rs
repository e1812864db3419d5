//! The file format, exactly as people write it. The shapes here are also the published JSON Schema.

use std::time::Duration;

use crate::{
    clock::Instant,
    yaml::{self, Field, Fields, Node, Place, Problem, Shape, parse_date},
};

/// The keys of a condition's map that are operators; any other key names a member of a compound claim.
pub(in crate::policy) const OPERATORS: &[&str] = &["glob", "any", "all", "none", "not"];

static GLOB: Shape = Shape::Map(&Fields {
    what: "a pattern",
    fields: &[Field::required(
        "glob",
        "segments between `/`, `:` and `@`; `*` is exactly one non-empty segment; the whole value must fit",
        Shape::Text,
    )],
});

static ITEM: Shape =
    Shape::Either(&[Shape::Text, Shape::Number, Shape::Boolean, Shape::Named("pattern", &GLOB)]);

static ITEMS: Shape = Shape::List(&Shape::Named("item", &ITEM), 1);

static SCALAR: Shape = Shape::Either(&[Shape::Named("item", &ITEM), Shape::Named("items", &ITEMS)]);

static NEGATION: Shape = Shape::Map(&Fields {
    what: "a condition",
    fields: &[Field::required(
        "not",
        "the claim is there, and is none of these",
        Shape::Named("scalar", &SCALAR),
    )],
});

static FACT: Shape =
    Shape::Either(&[Shape::Named("scalar", &SCALAR), Shape::Named("negation", &NEGATION)]);

static CONDITION: Shape = Shape::Either(&[
    Shape::Text,
    Shape::Number,
    Shape::Boolean,
    Shape::Named("items", &ITEMS),
    Shape::Named("pattern", &GLOB),
    Shape::Map(&Fields {
        what: "a condition",
        fields: &[Field::required(
            "any",
            "the claim is a list, and some element of it is one of these",
            Shape::Named("items", &ITEMS),
        )],
    }),
    Shape::Map(&Fields {
        what: "a condition",
        fields: &[Field::required(
            "all",
            "the claim is a list, and has each of these",
            Shape::Named("items", &ITEMS),
        )],
    }),
    Shape::Map(&Fields {
        what: "a condition",
        fields: &[Field::required(
            "none",
            "the claim is a list that is not empty, and has none of these",
            Shape::Named("items", &ITEMS),
        )],
    }),
    Shape::Named("negation", &NEGATION),
    Shape::Table { value: &Shape::Named("condition", &CONDITION), reserved: OPERATORS, least: 1 },
]);

static WHEN: Shape =
    Shape::Table { value: &Shape::Named("condition", &CONDITION), reserved: &[], least: 1 };

static GRANT: Shape = Shape::Map(&Fields {
    what: "a grant",
    fields: &[
        Field::required("target", "a target of the configuration, by its name", Shape::Name),
        Field::required("role", "a role of the target", Shape::Text),
        Field::required("lifetime", "the longest that the credential may live", Shape::Duration),
        Field::optional(
            "subject",
            "the `sub` of the issued token, in place of the workload's stable id",
            Shape::Text,
        ),
    ],
});

static RULE: Shape = Shape::Map(&Fields {
    what: "a rule",
    fields: &[
        Field::required("id", "names the rule in its file", Shape::Name),
        Field::optional("description", "what the rule is for", Shape::Text),
        Field::required("issuer", "an issuer of the configuration, by its name", Shape::Name),
        Field::required(
            "when",
            "conditions on claims; every one must hold, and a missing claim never does",
            WHEN_SHAPE,
        ),
        Field::required(
            "grants",
            "what is granted",
            Shape::List(&Shape::Named("grant", &GRANT), 1),
        ),
        Field::optional(
            "replay",
            "whether one token may buy the same target and role again; default by provider",
            Shape::Choice(&[
                ("once", "once per token, target and role"),
                ("reusable", "as often as the token verifies"),
            ]),
        ),
        Field::optional(
            "mode",
            "default `enforce`",
            Shape::Choice(&[
                ("enforce", "the rule grants"),
                ("shadow", "the rule is recorded where it fits, and grants nothing"),
            ]),
        ),
        Field::optional("owner", "who answers for the rule", Shape::Text),
        Field::optional(
            "bounded_by_subject",
            "whether the credential also ends with the subject token; default `false`",
            Shape::Boolean,
        ),
        Field::optional(
            "allow_organization",
            "that the rule is meant for every workload of the pinned organization",
            Shape::True,
        ),
    ],
});

const WHEN_SHAPE: Shape = Shape::Named("when", &WHEN);

static WANTS: Shape = Shape::Map(&Fields {
    what: "a request",
    fields: &[
        Field::optional("target", "the `audience` or `resource` asked for", Shape::Text),
        Field::optional("scope", "the scopes asked for", Shape::List(&Shape::Text, 1)),
        Field::optional("lifetime", "the lifetime asked for", Shape::Duration),
    ],
});

static CASE: Shape = Shape::Map(&Fields {
    what: "a case",
    fields: &[
        Field::optional("permit", "the rule of this file that must permit", Shape::Name),
        Field::optional("deny", "that no rule may permit", Shape::True),
        Field::optional("token", "a file of claims under `tokens/`", Shape::Text),
        Field::optional(
            "claims",
            "the claims themselves",
            Shape::Table { value: &Shape::Any, reserved: &[], least: 1 },
        ),
        Field::optional(
            "issuer",
            "whose token it is; default the rule's, the token folder's, or the only one of this file",
            Shape::Name,
        ),
        Field::optional(
            "wants",
            "what is asked for; default nothing in particular",
            Shape::Named("wants", &WANTS),
        ),
        Field::optional(
            "now",
            "the day of the request, for guardrails whose exceptions expire",
            Shape::Date,
        ),
    ],
});

static GUARDRAIL: Shape = Shape::Map(&Fields {
    what: "a guardrail",
    fields: &[
        Field::required("id", "names the guardrail", Shape::Name),
        Field::optional("description", "what the guardrail is for", Shape::Text),
        Field::required(
            "for",
            "the permits it stands over, by `target`, `role`, `kind`, `environment`, `issuer`, `provider`; `{}` is all",
            Shape::Table { value: &Shape::Named("fact", &FACT), reserved: &[], least: 0 },
        ),
        Field::required("when", "conditions that must hold beside those of the rule", WHEN_SHAPE),
        Field::optional(
            "exceptions",
            "rules it does not stand over, until their day",
            Shape::List(&Shape::Named("exception", &EXCEPTION), 1),
        ),
        Field::optional("owner", "who answers for the guardrail", Shape::Text),
    ],
});

static EXCEPTION: Shape = Shape::Map(&Fields {
    what: "an exception",
    fields: &[
        Field::required("rule", "the rule: `file/rule`, the file without `.yaml`", Shape::Name),
        Field::required("owner", "who answers for the exception", Shape::Text),
        Field::required(
            "expires",
            "from the first instant of this day in UTC the guardrail applies",
            Shape::Date,
        ),
    ],
});

/// What a trust policy or a guardrail file may say.
pub static DOCUMENT: Shape = Shape::Map(&Fields {
    what: "a trust policy",
    fields: &[
        Field::required("version", "version of this format", Shape::Constant(1)),
        Field::optional("rules", "who gets what", Shape::List(&Shape::Named("rule", &RULE), 0)),
        Field::optional(
            "cases",
            "tokens and what must come of them; run at load and by `cambio policy test`",
            Shape::List(&Shape::Named("case", &CASE), 1),
        ),
        Field::optional(
            "guardrails",
            "conditions over every permit, in files of their own",
            Shape::List(&Shape::Named("guardrail", &GUARDRAIL), 1),
        ),
    ],
});

/// The JSON Schema of [`DOCUMENT`], as `trust-policies/schema.json` holds it.
#[must_use]
pub fn schema() -> String {
    let schema = yaml::schema("Cambio trust policy", &DOCUMENT);
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

/// Something and where it stands.
#[derive(Clone, Debug)]
pub(in crate::policy) struct At<T> {
    pub(in crate::policy) value: T,
    pub(in crate::policy) place: Place,
}

/// One file.
#[derive(Debug, Default)]
pub(in crate::policy) struct Document {
    pub(in crate::policy) file: String,
    pub(in crate::policy) rules: Vec<RuleText>,
    pub(in crate::policy) cases: Vec<CaseText>,
    pub(in crate::policy) guardrails: Vec<GuardrailText>,
}

/// A `when` or a `for`: claims and what is wanted of them.
pub(in crate::policy) type Lines = Vec<(At<String>, Node)>;

#[derive(Debug)]
pub(in crate::policy) struct RuleText {
    pub(in crate::policy) id: At<String>,
    pub(in crate::policy) issuer: At<String>,
    pub(in crate::policy) when: Lines,
    pub(in crate::policy) when_place: Place,
    pub(in crate::policy) grants: Vec<GrantText>,
    pub(in crate::policy) replay: Option<String>,
    pub(in crate::policy) shadow: bool,
    pub(in crate::policy) owner: Option<String>,
    pub(in crate::policy) bounded_by_subject: bool,
    pub(in crate::policy) allow_organization: Option<Place>,
}

#[derive(Debug)]
pub(in crate::policy) struct GrantText {
    pub(in crate::policy) target: At<String>,
    pub(in crate::policy) role: At<String>,
    pub(in crate::policy) lifetime: At<Duration>,
    pub(in crate::policy) subject: Option<At<String>>,
}

#[derive(Clone, Debug)]
pub(in crate::policy) struct CaseText {
    pub(in crate::policy) place: Place,
    pub(in crate::policy) permit: Option<At<String>>,
    pub(in crate::policy) deny: bool,
    pub(in crate::policy) token: Option<At<String>>,
    pub(in crate::policy) claims: Option<Node>,
    pub(in crate::policy) issuer: Option<At<String>>,
    pub(in crate::policy) target: Option<String>,
    pub(in crate::policy) scope: Vec<String>,
    pub(in crate::policy) lifetime: Option<Duration>,
    pub(in crate::policy) now: Option<Instant>,
}

#[derive(Debug)]
pub(in crate::policy) struct GuardrailText {
    pub(in crate::policy) id: At<String>,
    pub(in crate::policy) over: Lines,
    pub(in crate::policy) when: Lines,
    pub(in crate::policy) exceptions: Vec<ExceptionText>,
}

#[derive(Debug)]
pub(in crate::policy) struct ExceptionText {
    pub(in crate::policy) rule: At<String>,
    pub(in crate::policy) owner: String,
    pub(in crate::policy) expires: Instant,
}

/// Reads one file.
///
/// # Errors
/// Every problem of its YAML, or of its shape.
pub(in crate::policy) fn read(file: &str, text: &str) -> Result<Document, Vec<Problem>> {
    let document = yaml::read(file, text, &DOCUMENT)?;
    let root = &document.root;
    let list = |key: &str| root.find(key).map_or(&[][..], Node::elements);
    let mut problems = Vec::new();
    if let Some(guardrails) = root.key_place("guardrails") {
        if root.find("rules").is_some() || root.find("cases").is_some() {
            let message =
                "found `guardrails` beside `rules` or `cases`, expected a file of their own";
            problems.push(
                Problem::at(file, guardrails, message).hint(
                    "a guardrail that a team can edit together with its rules guards nothing",
                ),
            );
        }
    } else if root.find("rules").is_none() {
        let message = "found neither `rules` nor `guardrails`";
        problems
            .push(Problem::at(file, root.place, message).hint("an empty policy says `rules: []`"));
    }
    if problems.is_empty() {
        return Ok(Document {
            file: file.to_owned(),
            rules: list("rules").iter().map(rule).collect(),
            cases: list("cases").iter().map(case).collect(),
            guardrails: list("guardrails").iter().map(guardrail).collect(),
        });
    }
    Err(problems)
}

fn text(node: &Node, key: &str) -> Option<At<String>> {
    let found = node.find(key)?;
    Some(At { value: found.text()?.to_owned(), place: found.place })
}

/// After the shape was checked, a required key is there; the empty text of one that is not fits nothing.
fn required(node: &Node, key: &str) -> At<String> {
    text(node, key).unwrap_or(At { value: String::new(), place: node.place })
}

fn lines(node: &Node, key: &str) -> Lines {
    let entries = node.find(key).map_or(&[][..], Node::entries);
    let line = |(name, place, node): &(String, Place, Node)| {
        (At { value: name.clone(), place: *place }, node.clone())
    };
    entries.iter().map(line).collect()
}

fn rule(node: &Node) -> RuleText {
    let word = |key| text(node, key).map(|found| found.value);
    RuleText {
        id: required(node, "id"),
        issuer: required(node, "issuer"),
        when: lines(node, "when"),
        when_place: node.key_place("when").unwrap_or(node.place),
        grants: node.find("grants").map_or(&[][..], Node::elements).iter().map(grant).collect(),
        replay: word("replay"),
        shadow: word("mode").as_deref() == Some("shadow"),
        owner: word("owner"),
        bounded_by_subject: node.find("bounded_by_subject").and_then(Node::boolean) == Some(true),
        allow_organization: node.key_place("allow_organization"),
    }
}

fn grant(node: &Node) -> GrantText {
    let lifetime = node.find("lifetime");
    GrantText {
        target: required(node, "target"),
        role: required(node, "role"),
        lifetime: At {
            value: lifetime.and_then(Node::duration).unwrap_or_default(),
            place: lifetime.map_or(node.place, |node| node.place),
        },
        subject: text(node, "subject"),
    }
}

fn case(node: &Node) -> CaseText {
    let wants = node.find("wants");
    let scope = wants.and_then(|wants| wants.find("scope")).map_or(&[][..], Node::elements);
    CaseText {
        place: node.place,
        permit: text(node, "permit"),
        deny: node.find("deny").is_some(),
        token: text(node, "token"),
        claims: node.find("claims").cloned(),
        issuer: text(node, "issuer"),
        target: wants.and_then(|wants| text(wants, "target")).map(|target| target.value),
        scope: scope.iter().filter_map(Node::text).map(ToOwned::to_owned).collect(),
        lifetime: wants.and_then(|wants| wants.find("lifetime")).and_then(Node::duration),
        now: text(node, "now").and_then(|day| parse_date(&day.value)),
    }
}

fn guardrail(node: &Node) -> GuardrailText {
    let exceptions = node.find("exceptions").map_or(&[][..], Node::elements);
    GuardrailText {
        id: required(node, "id"),
        over: lines(node, "for"),
        when: lines(node, "when"),
        exceptions: exceptions.iter().map(exception).collect(),
    }
}

fn exception(node: &Node) -> ExceptionText {
    ExceptionText {
        rule: required(node, "rule"),
        owner: required(node, "owner").value,
        // An exception whose day can't be read is over: the guardrail applies.
        expires: parse_date(&required(node, "expires").value).unwrap_or_default(),
    }
}
