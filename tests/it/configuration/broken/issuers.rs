//! What is broken in `issuers`.

use super::Broken;

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "d17 an issuer with a password, which is not repeated",
        from: "issuer: https://blue.example.com",
        to: "issuer: https://admin:hunter2@blue.example.com",
        says: r"cambio.yaml:11:13: `issuer` has userinfo, an escape or a character outside printable ASCII
  hint: write it exactly as the tokens do: https, host, path",
    },
    Broken {
        what: "d17 an issuer with a dot segment",
        from: "issuer: https://blue.example.com",
        to: "issuer: https://blue.example.com/a/../b",
        says: r"cambio.yaml:11:13: `issuer` has an empty or a dot segment in its path
  hint: write it exactly as the tokens do: https, host, path",
    },
    Broken {
        what: "d17 an issuer with an escaped slash",
        from: "issuer: https://blue.example.com",
        to: "issuer: https://blue.example.com%2fevil",
        says: r"cambio.yaml:11:13: `issuer` has userinfo, an escape or a character outside printable ASCII
  hint: write it exactly as the tokens do: https, host, path",
    },
    Broken {
        what: "d17 an issuer with a query",
        from: "issuer: https://blue.example.com",
        to: "issuer: https://blue.example.com?tenant=a",
        says: r"cambio.yaml:11:13: `issuer` has a query or a fragment (OIDC Discovery section 3)
  hint: write it exactly as the tokens do: https, host, path",
    },
    Broken {
        what: "d17 an issuer with a fragment",
        from: "issuer: https://blue.example.com",
        to: r#"issuer: "https://blue.example.com#a""#,
        says: r"cambio.yaml:11:13: `issuer` has a query or a fragment (OIDC Discovery section 3)
  hint: write it exactly as the tokens do: https, host, path",
    },
    Broken {
        what: "d17 an issuer in letters that look alike",
        from: "issuer: https://blue.example.com",
        to: "issuer: https://bluе.example.com",
        says: r"cambio.yaml:11:13: `issuer` has userinfo, an escape or a character outside printable ASCII
  hint: write it exactly as the tokens do: https, host, path",
    },
    Broken {
        what: "an issuer that is our own",
        from: "issuer: https://blue.example.com",
        to: "issuer: https://cambio.example.com",
        says: r"cambio.yaml:11:13: issuer `https://cambio.example.com` is our own
  hint: our own tokens are subject tokens under `provider: cambio` alone, and by explicit rules",
    },
    Broken {
        what: "c17 two issuers with one name",
        from: "  - name: blue",
        to: "  - name: github",
        says: r"cambio.yaml:9:11: issuer name `github` is already taken on line 6
  hint: the name is part of every `sub`: two issuers with one name would be each other",
    },
    Broken {
        what: "c17 two issuers with one URL",
        from: "issuer: https://blue.example.com",
        to: "issuer: https://token.actions.githubusercontent.com",
        says: r"cambio.yaml:11:13: issuer `https://token.actions.githubusercontent.com` is already `github`, on line 6
  hint: give each issuer a URL of its own (a cluster: kube-apiserver `--service-account-issuer`)",
    },
    Broken {
        what: "c17 two issuers whose URLs differ by a final slash",
        from: "issuer: https://blue.example.com",
        to: "issuer: https://token.actions.githubusercontent.com/",
        says: r"cambio.yaml:11:13: issuer `https://token.actions.githubusercontent.com/` differs from `https://token.actions.githubusercontent.com` on line 6 only by case or a final `/`
  hint: give each issuer a URL of its own (a cluster: kube-apiserver `--service-account-issuer`)",
    },
    Broken {
        what: "an issuer name that would split `sub`",
        from: "  - name: blue",
        to: "  - name: Blue.East",
        says: r"cambio.yaml:9:11: issuer name `Blue.East` has other characters than lower-case letters, digits and `-`
  hint: it becomes the first part of `sub`, before a `:`",
    },
    Broken {
        what: "a provider that is misspelt",
        from: "    provider: github",
        to: "    provider: githb",
        says: r"cambio.yaml:7:15: `provider` is `githb`, expected `github`, `gitlab`, `kubernetes`, `aws`, `azure`, `google`, `spiffe`, `azure_devops`, `bitbucket`, `buddy`, `buildkite`, `circleci`, `codefresh`, `fly`, `forgejo`, `modal`, `semaphore`, `spacelift`, `terraform`, `vercel`, `cambio` or `generic`
  hint: did you mean `github`?",
    },
    Broken {
        what: "an issuer that is none of its provider's",
        from: "    provider: github",
        to: "    provider: buildkite\n    issuer: https://agent.buildkite.example",
        says: r"cambio.yaml:8:13: issuer `https://agent.buildkite.example` is none of provider `buildkite`: it has another shape
  hint: expected `https://agent.buildkite.com`, exactly as the tokens have it",
    },
    Broken {
        what: "a provider that has no issuer of its own",
        from: r"    issuer: https://blue.example.com
",
        to: "",
        says: r"cambio.yaml:9:5: `issuer` is missing in an issuer of provider `kubernetes`
  hint: write the exact `iss` of its tokens",
    },
    Broken {
        what: "an audience that every pod's token has",
        from: r"    audience: https://cambio.example.com
    keys",
        to: r"    audience: https://kubernetes.default.svc
    keys",
        says: r"cambio.yaml:12:15: `audience` is `https://kubernetes.default.svc`: tokens with it are made for somebody else
  hint: choose an audience that only callers of ours ask for, such as our own issuer URL",
    },
    Broken {
        what: "an audience that is the cluster's own",
        from: r"    audience: https://cambio.example.com
    keys",
        to: r"    audience: https://blue.example.com
    keys",
        says: r"cambio.yaml:12:15: `audience` is `https://blue.example.com`: tokens with it are made for somebody else
  hint: choose an audience that only callers of ours ask for, such as our own issuer URL",
    },
    Broken {
        what: "an audience that GitHub gives by default",
        from: r"    audience: https://cambio.example.com
  - name: blue",
        to: r"    audience: https://github.com/acme
  - name: blue",
        says: r"cambio.yaml:8:15: `audience` is `https://github.com/acme`: tokens with it are made for somebody else
  hint: choose an audience that only callers of ours ask for, such as our own issuer URL",
    },
    Broken {
        what: "a list of audiences",
        from: r"    audience: https://cambio.example.com
    keys",
        to: r"    audience: [a, b]
    keys",
        says: "cambio.yaml:12:15: `audience` is a list, expected a text",
    },
    Broken {
        what: "keys from nowhere",
        from: "keys: { pinned: { file: blue.json } }",
        to: "keys: {}",
        says: r"cambio.yaml:13:11: `keys` has neither `discovered` nor `pinned`
  hint: leave `keys` out for plain discovery",
    },
    Broken {
        what: "keys from two places",
        from: "keys: { pinned: { file: blue.json } }",
        to: "keys: { pinned: { file: blue.json }, discovered: {} }",
        says: r"cambio.yaml:13:11: `keys` has both `discovered` and `pinned`, expected one of them
  hint: pinned keys are for issuers out of reach",
    },
    Broken {
        what: "a key set over plain http",
        from: "keys: { pinned: { file: blue.json } }",
        to: "keys: { discovered: { jwks_uri: http://blue.example.com/keys } }",
        says: r"cambio.yaml:13:37: `jwks_uri` does not begin with `https://`
  hint: https, host, path: no userinfo, no query",
    },
    Broken {
        what: "a key set's origin with a path",
        from: "keys: { pinned: { file: blue.json } }",
        to: "keys: { discovered: { jwks_origin: https://keys.example.com/a } }",
        says: r"cambio.yaml:13:40: `jwks_origin` is `https://keys.example.com/a`, expected no path
  hint: scheme, host and port alone",
    },
    Broken {
        what: "an origin for a discovery that is not asked",
        from: "keys: { pinned: { file: blue.json } }",
        to: "keys: { discovered: { jwks_uri: https://blue.example.com/keys, jwks_origin: https://keys.example.com } }",
        says: r"cambio.yaml:13:81: `jwks_origin` is `https://keys.example.com/` beside a `jwks_uri`
  hint: remove it: with a `jwks_uri`, discovery is not asked",
    },
    Broken {
        what: "keys that are believed for a month",
        from: "keys: { pinned: { file: blue.json } }",
        to: "keys: { discovered: { stale_after: 30d } }",
        says: r"cambio.yaml:13:40: `stale_after` is `30d`, expected from `5m` to `1d`
  hint: a withdrawn key of the issuer verifies here for as long as it can't be reached",
    },
    Broken {
        what: "`none` as an algorithm",
        from: "keys: { pinned: { file: blue.json } }",
        to: "algorithms: [none]",
        says: r"cambio.yaml:13:18: algorithm `none` is never accepted
  hint: whoever can verify with it can sign with it: use what the issuer's public keys are for",
    },
    Broken {
        what: "HMAC as an algorithm",
        from: "keys: { pinned: { file: blue.json } }",
        to: "algorithms: [RS256, HS256]",
        says: r"cambio.yaml:13:25: algorithm `HS256` is never accepted
  hint: whoever can verify with it can sign with it: use what the issuer's public keys are for",
    },
    Broken {
        what: "no algorithm at all",
        from: "keys: { pinned: { file: blue.json } }",
        to: "algorithms: []",
        says: "cambio.yaml:13:17: `algorithms` has 0 elements, expected at least 1",
    },
    Broken {
        what: "a leeway beyond the memory of spent tokens",
        from: "keys: { pinned: { file: blue.json } }",
        to: "leeway: 61s",
        says: r"cambio.yaml:13:13: `leeway` is `61s`, expected from `1s` to `1m`
  hint: spent tokens are remembered for `1m` past their end, so no clock may be off by more",
    },
    Broken {
        what: "a length of time without a unit",
        from: "keys: { pinned: { file: blue.json } }",
        to: "leeway: 30",
        says: "cambio.yaml:13:13: `leeway` is `30`, expected a length of time such as `90s`, `15m`, `1h` or `1d`",
    },
    Broken {
        what: "a subject token that lives for a week",
        from: "keys: { pinned: { file: blue.json } }",
        to: "maximum_lifetime: 7d",
        says: r"cambio.yaml:13:23: `maximum_lifetime` is `7d`, expected from `1s` to `2d`
  hint: a subject token that lives for days is a password",
    },
    Broken {
        what: "a long lifetime without a maximum age",
        from: "keys: { pinned: { file: blue.json } }",
        to: "maximum_lifetime: 3h",
        says: r"cambio.yaml:13:23: `maximum_lifetime` is `3h` without a `maximum_age`
  hint: say with `maximum_age` how old a token may be when it is used",
    },
    Broken {
        what: "a maximum age beyond the lifetime",
        from: "keys: { pinned: { file: blue.json } }",
        to: "maximum_age: 2h",
        says: r"cambio.yaml:13:18: `maximum_age` is `2h`, expected at most the `maximum_lifetime` of `1h`
  hint: a token is dead before it is so old",
    },
    Broken {
        what: "an empty list of issuers, and a section that nobody knows",
        from: r"issuers:
  - name: github
    provider: github
    audience: https://cambio.example.com
  - name: blue",
        to: r"issuers: []
more:
  - name: blue",
        says: r"cambio.yaml:5:10: `issuers` has 0 elements, expected at least 1
cambio.yaml:6:1: `more` is not a key of the configuration
  hint: expected `version`, `environment`, `issuer`, `data`, `issuers`, `targets`, `policies`, `store`, `ledger`, `keys`, `listen`, `tls`, `limits` or `log`",
    },
    Broken {
        what: "c16 a token review of an issuer that has no API server",
        from: "provider: github",
        to: "provider: github\n    token_review: { api_server: https://k8s.example.com, ca_file: ca.crt, token_file: token }",
        says: r"cambio.yaml:8:19: `token_review` in an issuer of provider `github`
  hint: only the API server of a `kubernetes` issuer can be asked about its tokens",
    },
    Broken {
        what: "d07 an API server without TLS",
        from: "keys: { pinned: { file: blue.json } }",
        to: "token_review: { api_server: http://127.0.0.1:8001, ca_file: ca.crt, token_file: token }",
        says: r"cambio.yaml:13:33: `api_server` does not begin with `https://`
  hint: https, host, path: no userinfo, no query",
    },
    Broken {
        what: "d07 an API server whose certificate anybody may vouch for",
        from: "keys: { pinned: { file: blue.json } }",
        to: "token_review: { api_server: https://k8s.example.com, token_file: token }",
        says: r"cambio.yaml:13:19: `ca_file` is missing in a token review
  hint: ca_file: The cluster's CA (PEM): it alone vouches for the API server. In a pod `/var/run/secrets/kubernetes.io/serviceaccount/ca.crt`",
    },
    Broken {
        what: "v03 an API server that is waited for without end",
        from: "keys: { pinned: { file: blue.json } }",
        to: "token_review: { api_server: https://k8s.example.com, ca_file: ca.crt, token_file: token, timeout: 1m }",
        says: r"cambio.yaml:13:103: `timeout` is `1m`, expected from `1s` to `10s`
  hint: an exchange waits for it, and its place is taken meanwhile",
    },
    Broken {
        what: "a setting of a token review that there is not",
        from: "keys: { pinned: { file: blue.json } }",
        to: "token_review: { api_server: https://k8s.example.com, ca_file: ca.crt, token_file: token, cache: 5m }",
        says: r"cambio.yaml:13:94: `cache` is not a key of a token review
  hint: expected `api_server`, `ca_file`, `token_file`, `timeout` or `max_in_flight`",
    },
];
