//! The instance itself: top of the file, policies, store, ledger, keys, listeners, and the YAML.

use super::{ALL, Broken};

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "an unknown key is told with the nearest known one",
        from: r"    audience: https://cambio.example.com
  - name: blue",
        to: r"    audiance: https://cambio.example.com
  - name: blue",
        says: r"cambio.yaml:6:5: `audience` is missing in an issuer
  hint: audience: The one `aud` that a token must carry. There is no safe default; our own issuer URL is a good choice
cambio.yaml:8:5: `audiance` is not a key of an issuer
  hint: did you mean `audience`?",
    },
    Broken {
        what: "a section that nobody knows",
        from: "tls: none",
        to: r"tls: none
secrets: {}",
        says: r"cambio.yaml:32:1: `secrets` is not a key of the configuration
  hint: expected `version`, `environment`, `issuer`, `data`, `issuers`, `targets`, `policies`, `store`, `ledger`, `keys`, `listen`, `tls`, `limits` or `log`",
    },
    Broken {
        what: "a missing version",
        from: r"version: 1
",
        to: "",
        says: r"cambio.yaml:1:1: `version` is missing in the configuration
  hint: version: The version of this format: `1`",
    },
    Broken {
        what: "a version of the future",
        from: r"version: 1
",
        to: r"version: 2
",
        says: "cambio.yaml:1:10: `version` is `2`, expected `1`",
    },
    Broken {
        what: "a missing environment",
        from: r"environment: prod
issuer",
        to: "issuer",
        says: r"cambio.yaml:1:1: `environment` is missing in the configuration
  hint: environment: What keys, key-encryption context and targets of this instance belong to: `prod`, `dev` …",
    },
    Broken {
        what: "an environment that can't stand in a key context",
        from: r"environment: prod
issuer",
        to: r"environment: Prod/EU
issuer",
        says: r"cambio.yaml:2:14: `environment` is `Prod/EU`, expected lower-case letters, digits and `-`
  hint: such as `prod`",
    },
    Broken {
        what: "a missing audience: there is no safe default",
        from: r"    audience: https://orders.example.com
",
        to: "",
        says: r"cambio.yaml:15:5: `audience` is missing in a target of kind `jwt`
  hint: audience: The `aud` of its tokens: an absolute URI or a name, and never our own issuer URL",
    },
    Broken {
        what: "our issuer over plain http",
        from: r"issuer: https://cambio.example.com
data",
        to: r"issuer: http://cambio.example.com
data",
        says: r"cambio.yaml:3:9: `issuer` does not begin with `https://`
  hint: plain http and loopback exist in `cambio dev` alone",
    },
    Broken {
        what: "our issuer on plain loopback outside `dev`",
        from: r"issuer: https://cambio.example.com
data",
        to: r"issuer: http://127.0.0.1:8080
data",
        says: r"cambio.yaml:3:9: `issuer` does not begin with `https://`
  hint: plain http and loopback exist in `cambio dev` alone",
    },
    Broken {
        what: "our issuer with a final slash",
        from: r"issuer: https://cambio.example.com
data",
        to: r"issuer: https://cambio.example.com/
data",
        says: r"cambio.yaml:3:9: `issuer` ends in `/`
  hint: remove it: our paths begin with one",
    },
    Broken {
        what: "guardrails among the policies",
        from: "policies: { directory: policies }",
        to: "policies: { directory: policies, guardrails: policies }",
        says: r"cambio.yaml:26:46: `guardrails` is the directory of the trust policies
  hint: a guardrail that a team can edit guards nothing: use a directory apart",
    },
    Broken {
        what: "a store that this build does not have",
        from: "store: { sqlite: { path: state/cambio.db } }",
        to: "store: { postgres: { url_file: pg } }",
        says: r"cambio.yaml:27:10: store `postgres` is not in this build
  hint: it takes feature `postgres`, which this version does not have yet; it has `sqlite`",
    },
    Broken {
        what: "an origin with a scheme",
        from: "origin: cambio.example.com/prod",
        to: "origin: https://cambio.example.com/prod",
        says: r"cambio.yaml:28:19: `origin` is `https://cambio.example.com/prod`, expected a name without a scheme
  hint: a URL without its scheme is customary: `cambio.example.com/prod`",
    },
    Broken {
        what: "an origin with a space",
        from: "origin: cambio.example.com/prod",
        to: "origin: cambio prod",
        says: r"cambio.yaml:28:19: `origin` is `cambio prod`, expected visible ASCII without spaces and `+`
  hint: a URL without its scheme is customary: `cambio.example.com/prod`",
    },
    Broken {
        what: "a ledger that says nothing of anchors",
        from: ", anchors: [{ file: anchor/note }]",
        to: "",
        says: r"cambio.yaml:28:9: `anchors` is missing in the ledger
  hint: anchors: Where checkpoints go that we can't rewrite, or the word `none`: then nobody can show that the log was cut",
    },
    Broken {
        what: "an empty list of anchors is not the word `none`",
        from: "[{ file: anchor/note }]",
        to: "[]",
        says: "cambio.yaml:28:53: `anchors` has 0 elements, expected at least 1",
    },
    Broken {
        what: "an anchor that is named twice",
        from: "[{ file: anchor/note }]",
        to: "[{ file: anchor/note }, { file: anchor/note }]",
        says: r"cambio.yaml:28:77: this anchor is named twice
  hint: one file is one witness",
    },
    Broken {
        what: "an anchor that this build does not have",
        from: "[{ file: anchor/note }]",
        to: "[{ witness: https://witness.example.com }]",
        says: r"cambio.yaml:28:56: anchor `witness` is not in this build
  hint: it takes feature `witness`, which this version does not have yet; it has `file`",
    },
    Broken {
        what: "checkpoints once an hour",
        from: "anchors: [{ file: anchor/note }]",
        to: "anchors: [{ file: anchor/note }], checkpoint_every: 1h",
        says: r"cambio.yaml:28:96: `checkpoint_every` is `1h`, expected from `1s` to `1m`
  hint: what is not yet in a checkpoint is not yet anchored",
    },
    Broken {
        what: "no key-encryption key",
        from: "keys: { key_file: kek }",
        to: "keys: {}",
        says: r"cambio.yaml:29:7: `keys` has neither `key_file` nor `passphrase_file`
  hint: a key file: `cambio keys kek > FILE`, mode 0600",
    },
    Broken {
        what: "two key-encryption keys",
        from: "keys: { key_file: kek }",
        to: "keys: { key_file: kek, passphrase_file: pass }",
        says: r"cambio.yaml:29:7: `keys` has both `key_file` and `passphrase_file`, expected one of them
  hint: remove the one that the key ring was not closed with",
    },
    Broken {
        what: "a passphrase in the file itself, which is not repeated",
        from: "keys: { key_file: kek }",
        to: "keys: { passphrase: correct-horse-battery }",
        says: r"cambio.yaml:29:9: `passphrase` is not a key of the signing keys
  hint: did you mean `passphrase_file`?",
    },
    Broken {
        what: "a secret where its file belongs, which is not repeated",
        from: "keys: { key_file: kek }",
        to: "keys: { key_file: 4711471147114711 }",
        says: r"cambio.yaml:29:19: `key_file` is a number, expected a text
  hint: put it in quotes",
    },
    Broken {
        what: "a key protector that this build does not have",
        from: "keys: { key_file: kek }",
        to: "keys: { aws_kms: { key: alias/cambio } }",
        says: r"cambio.yaml:29:9: key protector `aws_kms` is not in this build
  hint: it takes feature `aws_kms`, which this version does not have yet; it has `key_file` and `passphrase_file`",
    },
    Broken {
        what: "a key that signs for less time than its successor is announced",
        from: "keys: { key_file: kek }",
        to: "keys: { key_file: kek, sign_for: 12h }",
        says: r"cambio.yaml:29:34: a key signs for `12h`, expected more than the `1d` for which its successor is announced
  hint: raise `sign_for`, or lower `verifier_cache` if no verifier caches for so long",
    },
    Broken {
        what: "a host name to listen on",
        from: "127.0.0.1:8443",
        to: "cambio.example.com:8443",
        says: r"cambio.yaml:30:19: `public` is `cambio.example.com:8443`, expected an address and a port
  hint: such as `0.0.0.0:8443` or `[::]:8443`: no host names",
    },
    Broken {
        what: "an address without a port",
        from: "127.0.0.1:8443",
        to: "127.0.0.1",
        says: r"cambio.yaml:30:19: `public` is `127.0.0.1`, expected an address and a port
  hint: such as `0.0.0.0:8443` or `[::]:8443`: no host names",
    },
    Broken {
        what: "two listeners on one port",
        from: r#"listen: { public: "127.0.0.1:8443" }"#,
        to: r#"listen: { public: "127.0.0.1:8443", operations: "127.0.0.1:8443" }"#,
        says: r"cambio.yaml:30:49: `operations` has the port of `public`, 8443
  hint: metrics are not for callers: give them a port of their own",
    },
    Broken {
        what: "a proxy that is everybody",
        from: r#"listen: { public: "127.0.0.1:8443" }"#,
        to: r#"listen: { public: "127.0.0.1:8443", proxies: [0.0.0.0/0] }"#,
        says: r"cambio.yaml:30:47: `proxies` names `0.0.0.0/0`: everybody is no proxy
  hint: such as `10.0.0.7` or `10.0.0.0/8`",
    },
    Broken {
        what: "a proxy network with host bits",
        from: r#"listen: { public: "127.0.0.1:8443" }"#,
        to: r#"listen: { public: "127.0.0.1:8443", proxies: [10.0.0.1/8] }"#,
        says: r"cambio.yaml:30:47: `proxies` names `10.0.0.1/8`: bits after the prefix are set
  hint: such as `10.0.0.7` or `10.0.0.0/8`",
    },
    Broken {
        what: "a proxy by name",
        from: r#"listen: { public: "127.0.0.1:8443" }"#,
        to: r#"listen: { public: "127.0.0.1:8443", proxies: [proxy.example.com] }"#,
        says: r"cambio.yaml:30:47: `proxies` names `proxy.example.com`: expected an address or a network
  hint: such as `10.0.0.7` or `10.0.0.0/8`",
    },
    Broken {
        what: "a socket path that the kernel would cut",
        from: r#"listen: { public: "127.0.0.1:8443" }"#,
        to: r#"listen: { public: "127.0.0.1:8443", admin_socket: ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss }"#,
        says: r"cambio.yaml:30:51: the path of `admin_socket` has 132 bytes, expected at most 107
  hint: choose a shorter one, such as below /run",
    },
    Broken {
        what: "silence about TLS",
        from: r"tls: none
",
        to: "",
        says: r"cambio.yaml:1:1: `tls` is missing in the configuration
  hint: tls: Certificate and key of the public listener, or the word `none`: then a proxy speaks TLS for us",
    },
    Broken {
        what: "TLS switched off with a boolean",
        from: "tls: none",
        to: "tls: false",
        says: "cambio.yaml:31:6: `tls` is `false`, expected `none` or a map",
    },
    Broken {
        what: "a certificate without a key",
        from: "tls: none",
        to: "tls: { certificate_file: tls.crt }",
        says: r"cambio.yaml:31:6: `key_file` is missing in the TLS files
  hint: key_file: Its private key (PEM), in a file of mode 0600 or 0400",
    },
    Broken {
        what: "a rate of nothing",
        from: "tls: none",
        to: r"tls: none
limits: { per_address: { per_second: 0, burst: 1 } }",
        says: "cambio.yaml:32:38: `per_second` is `0`, expected a number from 1 to 1000000",
    },
    Broken {
        what: "a log level that is misspelt",
        from: "tls: none",
        to: r"tls: none
log: { level: wran }",
        says: r"cambio.yaml:32:15: `level` is `wran`, expected `error`, `warn`, `info` or `debug`
  hint: did you mean `warn`?",
    },
    Broken {
        what: "a key twice",
        from: "tls: none",
        to: r"tls: none
tls: none",
        says: r"cambio.yaml:32:1: key `tls` stands here a second time, first in line 31
  hint: tools disagree on which one counts: keep one",
    },
    Broken {
        what: "an anchor and an alias of YAML",
        from: "tls: none",
        to: r"tls: &a none
log: *a",
        says: r"cambio.yaml:31:6: found an anchor or an alias (`&…`, `*…`), expected a value
  hint: write the value out: each line says what it means where it stands
cambio.yaml:32:6: found an anchor or an alias (`&…`, `*…`), expected a value
  hint: write the value out: each line says what it means where it stands",
    },
    Broken {
        what: "a second document",
        from: "tls: none",
        to: r"tls: none
---
version: 1",
        says: r"cambio.yaml:32:1: found a second document, expected one
  hint: a second document would be read by some tools and not by others: use two files",
    },
    Broken {
        what: "an empty file",
        from: ALL,
        to: "",
        says: "cambio.yaml:1:1: file is empty, expected a document",
    },
    Broken {
        what: "no YAML",
        from: ALL,
        to: r"version: [1
",
        says: "cambio.yaml:2:1: not YAML: while parsing a flow sequence, expected ',' or ']'",
    },
];
