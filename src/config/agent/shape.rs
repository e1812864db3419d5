//! What the agent's file may say.

use super::super::log;
use crate::{
    client::Format,
    yaml::{Field, Fields, Shape},
};

pub(super) static SHAPE: Shape = Shape::Map(&AGENT);

pub(super) static AGENT: Fields = Fields {
    what: "the agent's configuration",
    fields: &[
        Field::required("version", "The version of this format: `1`", Shape::Constant(1)),
        Field::required(
            "broker",
            "The broker's issuer URL: https, or http on loopback",
            Shape::Text,
        ),
        Field::optional(
            "ca_file",
            "Root certificates (PEM) to trust besides the machine's",
            Shape::Text,
        ),
        Field::optional("proxy", "An HTTP proxy for https", Shape::Text),
        Field::optional(
            "token",
            "Where the subject token comes from. Default: the platform that is found",
            Shape::Map(&TOKEN),
        ),
        Field::required("credentials", "What is kept", Shape::List(&Shape::Map(&CREDENTIAL), 1)),
        Field::optional("listen", "Where the agent is asked", Shape::Map(&LISTEN)),
        Field::optional(
            "revoke_on_exit",
            "Whether leases are ended when the agent ends. Default: `true`",
            Shape::Boolean,
        ),
        Field::optional("log", "How much we tell, on stderr", Shape::Map(&log::LINES)),
    ],
};

static TOKEN: Fields = Fields {
    what: "the subject token",
    fields: &[
        Field::optional(
            "file",
            "The file that holds it, read at each exchange: the kubelet and others replace it in time",
            Shape::Text,
        ),
        Field::optional(
            "platform",
            "The platform that is asked for it, as `cambio exchange --platform` names it",
            Shape::Choice(PLATFORM_NAMES),
        ),
        Field::optional(
            "audience",
            "Whom it shall be for. Default: the broker's issuer URL",
            Shape::Text,
        ),
    ],
};

/// [`crate::client::ambient::PLATFORMS`] by name, with what people call them; a test compares.
const PLATFORM_NAMES: &[(&str, &str)] = &[
    ("forgejo", "Forgejo Actions"),
    ("github", "GitHub Actions"),
    ("gitlab", "GitLab CI"),
    ("buildkite", "Buildkite"),
    ("circleci", "CircleCI"),
    ("bitbucket", "Bitbucket Pipelines"),
    ("azure-devops", "Azure DevOps"),
    ("terraform", "HCP Terraform"),
    ("spacelift", "Spacelift"),
    ("semaphore", "Semaphore"),
    ("vercel", "Vercel"),
    ("modal", "Modal"),
    ("jenkins", "Jenkins"),
    ("fly", "Fly.io"),
    ("spiffe", "a SPIFFE workload"),
    ("kubernetes", "Kubernetes"),
    ("azure-app-service", "Azure App Service, Functions or Container Apps"),
    ("aws", "AWS"),
    ("google", "Google Cloud"),
    ("azure", "an Azure virtual machine"),
];

static LISTEN: Fields = Fields {
    what: "the agent's listeners",
    fields: &[
        Field::optional("aws", "Where AWS SDKs ask for their credentials", Shape::Map(&AWS_LISTEN)),
        Field::optional(
            "operations",
            "Health and metrics, nothing secret: address and port. Default: not served",
            Shape::Text,
        ),
    ],
};

const READERS: Shape = Shape::Choice(&[
    ("owner", "the agent's own user: mode 0600"),
    ("group", "a group besides: mode 0640"),
]);
const READERS_DOC: &str = "Who may read it. Default: `owner`";
const GROUP_DOC: &str = "The group, as a number, where `readers` is `group`. Default: the one that a new file there has";
const TRUST_DOC: &str = "Whether a directory will do that everybody may write to, because only trusted programs can reach it: an \
     `emptyDir` of a pod. Default: `false`";
const GROUP: Shape = Shape::Integer(0, 4_294_967_294);

static AWS_LISTEN: Fields = Fields {
    what: "the endpoint of AWS SDKs",
    fields: &[
        Field::required("address", "Address and port, on loopback", Shape::Text),
        Field::required(
            "token_file",
            "Where the agent writes what SDKs must show, at each start: `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`",
            Shape::Text,
        ),
        Field::optional("readers", READERS_DOC, READERS),
        Field::optional("group", GROUP_DOC, GROUP),
        Field::optional("trust_directory", TRUST_DOC, Shape::Boolean),
    ],
};

static CREDENTIAL: Fields = Fields {
    what: "a credential",
    fields: &[
        Field::required("name", "Its name here: in paths, logs and metrics", Shape::Text),
        Field::required("audience", "The target: its name or an alias", Shape::Text),
        Field::optional("scope", "The role of the target, and scopes", Shape::Text),
        Field::optional("lifetime", "A shorter lifetime than the rule's", Shape::Duration),
        Field::optional(
            "files",
            "The files that it is written to",
            Shape::List(&Shape::Map(&FILE), 1),
        ),
        Field::optional(
            "endpoint",
            "The endpoint that serves it",
            Shape::Tagged { tag: "kind", cases: &[("aws", &AWS), ("google", &GOOGLE)] },
        ),
        Field::optional("on_change", "What runs after it changed", Shape::Map(&ON_CHANGE)),
    ],
};

static FILE: Fields = Fields {
    what: "a file of a credential",
    fields: &[
        Field::required("path", "Where. The directory must exist", Shape::Text),
        Field::required("format", "As what", Shape::Choice(FORMATS)),
        Field::optional(
            "variable",
            "`env`, `dotenv`: the variable that a token goes into. Default: `CAMBIO_TOKEN`",
            Shape::Text,
        ),
        Field::optional("readers", READERS_DOC, READERS),
        Field::optional("group", GROUP_DOC, GROUP),
        Field::optional("trust_directory", TRUST_DOC, Shape::Boolean),
    ],
};

static AWS: Fields = Fields {
    what: "an endpoint for AWS SDKs",
    fields: &[Field::required(
        "kind",
        "`aws`: container credentials, at `listen.aws`",
        Shape::Choice(&[("aws", "container credentials")]),
    )],
};

static GOOGLE: Fields = Fields {
    what: "an endpoint for Google's libraries",
    fields: &[
        Field::required(
            "kind",
            "`google`: a metadata server, for `GCE_METADATA_HOST`",
            Shape::Choice(&[("google", "a metadata server")]),
        ),
        Field::required("address", "Address and port, on loopback, its own", Shape::Text),
        Field::required("service_account", "The service account's address", Shape::Text),
        Field::optional("project", "The project that libraries shall find", Shape::Text),
        Field::optional(
            "users",
            "The users, as numbers, whose programs may ask. Default: the agent's own user",
            Shape::List(&Shape::Integer(0, 4_294_967_294), 1),
        ),
    ],
};

static ON_CHANGE: Fields = Fields {
    what: "a command",
    fields: &[
        Field::required(
            "command",
            "The program, by its whole path, and its arguments. No shell looks at them",
            Shape::List(&Shape::Text, 1),
        ),
        Field::optional(
            "deadline",
            "How long it may take; then it is killed. Default: `30s`",
            Shape::Duration,
        ),
    ],
};

/// What can lie in a file. Credential helpers answer a question, so they can't.
const FORMATS: &[(&str, &str)] = &[
    ("token", "the token as it is"),
    ("json", "the broker's whole answer"),
    ("env", "`export NAME='value'` for a shell"),
    ("dotenv", "`NAME=value`"),
    ("aws-process", "what a `credential_process` answers"),
    ("gcp-executable", "for Google's `credential_source.file`"),
    ("kubernetes", "an `ExecCredential`"),
    ("pgpass", "a line of `~/.pgpass`"),
    ("uri", "a connection URI"),
];

pub(super) fn format(word: &str) -> Option<Format> {
    FORMATS.iter().find(|(name, _)| *name == word)?;
    Format::ALL.into_iter().find(|format| format.as_str() == word)
}

#[cfg(test)]
mod tests {
    use super::PLATFORM_NAMES;
    use crate::client::ambient::PLATFORMS;

    #[test]
    fn a_platform_that_is_named_is_one_that_can_be_asked() {
        let all: Vec<_> = PLATFORMS.iter().map(|one| (one.name, one.title)).collect();
        assert_eq!(PLATFORM_NAMES, all);
    }
}
