//! What is broken in `targets`.

use super::Broken;

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "a target kind that is misspelt",
        from: r"    kind: jwt
",
        to: r"    kind: jtw
",
        says: r"cambio.yaml:16:11: `kind` is `jtw`, expected `jwt`, `cambio`, `postgres`, `mysql`, `redis`, `x509`, `google`, `azure`, `github`, `aws` or `rds`
  hint: did you mean `jwt`?",
    },
    Broken {
        what: "a target kind that this build does not have",
        from: r"    kind: jwt
",
        to: r"    kind: ssh
",
        says: r"cambio.yaml:16:11: target kind `ssh` is not in this build
  hint: it takes feature `ssh`, which this version does not have yet; it has `jwt`, `cambio`, `postgres`, `mysql`, `redis`, `x509`, `google`, `azure`, `github` and `aws`",
    },
    Broken {
        what: "a target of another environment",
        from: r"    environment: prod
    roles: { read",
        to: r"    environment: dev
    roles: { read",
        says: r"cambio.yaml:18:18: target of environment `dev` in an instance of `prod`
  hint: run one instance for each environment",
    },
    Broken {
        what: "a target whose audience is our own",
        from: r"    audience: https://orders.example.com
",
        to: r"    audience: https://cambio.example.com/
",
        says: r"cambio.yaml:17:15: `audience` is our own issuer URL
  hint: use a target of kind `cambio` for our own API
cambio.yaml:24:14: role `introspect:https://orders.example.com`: no target of kind `jwt` has this audience
  hint: write `introspect:` and the `audience` of a target, byte for byte",
    },
    Broken {
        what: "an alias that is another target's name",
        from: "    granted_by: [platform.yaml]",
        to: r"    granted_by: [platform.yaml]
    aliases: [https://orders.example.com]",
        says: r"cambio.yaml:26:15: `https://orders.example.com` already names a target on line 17
  hint: a request must resolve to exactly one target",
    },
    Broken {
        what: "an alias that is the name of a role in AWS",
        from: "    granted_by: [platform.yaml]",
        to: r"    granted_by: [platform.yaml]
    aliases: [arn:aws:iam::123456789012:role/deploy]",
        says: r"cambio.yaml:26:15: `arn:aws:iam::123456789012:role/deploy` names a role in AWS, expected a name of this target
  hint: leave it out: the roles of a target of kind `aws` are found by their ARN",
    },
    Broken {
        what: "two targets with one name",
        from: "  - name: cambio",
        to: "  - name: jwt/orders",
        says: r"cambio.yaml:21:11: `jwt/orders` already names a target on line 15
  hint: a request must resolve to exactly one target",
    },
    Broken {
        what: "an alias that is no URI",
        from: "    granted_by: [orders.yaml]",
        to: r"    granted_by: [orders.yaml]
    aliases: [orders]",
        says: r"cambio.yaml:21:15: alias `orders` is no absolute URI without a fragment
  hint: RFC 8707 section 2: `https://…` or `urn:…`",
    },
    Broken {
        what: "a target without roles",
        from: "{ read: { scope: [orders.read] } }",
        to: "{}",
        says: "cambio.yaml:19:12: `roles` has 0 keys, expected at least 1",
    },
    Broken {
        what: "a role that can't be asked for",
        from: "{ read: { scope: [orders.read] } }",
        to: "{ read all: {} }",
        says: r"cambio.yaml:19:14: role `read all` can't be asked for as a `scope`
  hint: visible ASCII without spaces, quotes and backslashes (RFC 6749 section 3.3)",
    },
    Broken {
        what: "a scope with a space",
        from: "{ read: { scope: [orders.read] } }",
        to: "{ read: { scope: [orders read] } }",
        says: r"cambio.yaml:19:30: `orders read` is no scope
  hint: visible ASCII without spaces, quotes and backslashes (RFC 6749 section 3.3)",
    },
    Broken {
        what: "a mapped claim that would be `sub`",
        from: "{ read: { scope: [orders.read] } }",
        to: "{ read: { claims: { sub: repository } } }",
        says: r"cambio.yaml:19:32: claim `sub` can't be mapped
  hint: registered claims and cloud tags are set by Cambio alone: choose another name",
    },
    Broken {
        what: "a mapped claim that AWS reads as tags",
        from: "{ read: { scope: [orders.read] } }",
        to: r#"{ read: { claims: { "https://aws.amazon.com/tags": repository } } }"#,
        says: r"cambio.yaml:19:32: claim `https://aws.amazon.com/tags` can't be mapped
  hint: registered claims and cloud tags are set by Cambio alone: choose another name",
    },
    Broken {
        what: "a role of our own API that does not exist",
        from: "admin: {}",
        to: "admn: {}",
        says: r"cambio.yaml:24:59: `admn` is no role of kind `cambio`
  hint: did you mean `admin`?",
    },
    Broken {
        what: "introspection of an audience that is not ours to issue",
        from: "introspect:https://orders.example.com",
        to: "introspect:https://other.example.com",
        says: r"cambio.yaml:24:14: role `introspect:https://other.example.com`: no target of kind `jwt` has this audience
  hint: write `introspect:` and the `audience` of a target, byte for byte",
    },
    Broken {
        what: "a scope in a role of our own API",
        from: "admin: {}",
        to: "admin: { scope: [everything] }",
        says: r"cambio.yaml:24:68: `scope` in a role of kind `cambio`
  hint: leave it out: our own API reads the role's name alone",
    },
    Broken {
        what: "a pattern in granted_by",
        from: "    granted_by: [orders.yaml]",
        to: r#"    granted_by: ["*.yaml"]"#,
        says: r"cambio.yaml:20:18: `granted_by` names `*.yaml`, expected a file name such as `orders.yaml`
  hint: name each file of the policy directory by itself: no path, no pattern",
    },
    Broken {
        what: "a path in granted_by",
        from: "    granted_by: [orders.yaml]",
        to: "    granted_by: [../orders.yaml]",
        says: r"cambio.yaml:20:18: `granted_by` names `../orders.yaml`, expected a file name such as `orders.yaml`
  hint: name each file of the policy directory by itself: no path, no pattern",
    },
    Broken {
        what: "a ceiling above a day",
        from: "    granted_by: [orders.yaml]",
        to: r"    granted_by: [orders.yaml]
    ceiling: 25h",
        says: r"cambio.yaml:21:14: `ceiling` is `25h`, expected from `1s` to `1d`
  hint: what lives longer than a day is a stored secret",
    },
    Broken {
        what: "a floor above the ceiling",
        from: "    granted_by: [orders.yaml]",
        to: r"    granted_by: [orders.yaml]
    ceiling: 5m
    floor: 10m",
        says: r"cambio.yaml:22:12: `floor` is `10m`, above the `ceiling` of `5m`
  hint: no lifetime is left: lower the floor or raise the ceiling",
    },
    Broken {
        what: "an algorithm that we do not sign with",
        from: "    granted_by: [orders.yaml]",
        to: r"    granted_by: [orders.yaml]
    algorithm: PS256",
        says: r"cambio.yaml:21:16: `algorithm` is `PS256`, expected `ES256`, `RS256` or `EdDSA`
  hint: did you mean `ES256`?",
    },
    Broken {
        what: "the audience of a cloud",
        from: "    audience: https://orders.example.com",
        to: "    audience: sts.amazonaws.com",
        says: r"cambio.yaml:17:15: `audience` is `sts.amazonaws.com`, by which AWS takes a token for a login
  hint: use a target of kind `aws`; where a program must have the token itself, let the cloud's side trust an audience of its own
cambio.yaml:24:14: role `introspect:https://orders.example.com`: no target of kind `jwt` has this audience
  hint: write `introspect:` and the `audience` of a target, byte for byte",
    },
    Broken {
        what: "the role of our assertions as a claim",
        from: "{ scope: [orders.read] }",
        to: "{ claims: { role: repository } }",
        says: r"cambio.yaml:19:32: claim `role` can't be mapped
  hint: registered claims and cloud tags are set by Cambio alone: choose another name",
    },
];
