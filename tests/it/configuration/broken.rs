//! Broken configurations (threat row G27): each is told in clear lines, and nothing is served with it.

mod instance;
mod issuers;
mod targets;

use super::{VALID, said_of, with};

/// What is broken, by which change of the valid one, and the whole text that an operator reads.
#[derive(Clone, Copy)]
struct Broken {
    what: &'static str,
    from: &'static str,
    to: &'static str,
    says: &'static str,
}

/// Stands for the whole text.
const ALL: &str = VALID;

#[test]
fn g27_every_broken_configuration_is_told_in_clear_lines() {
    assert_eq!(said_of(VALID), "nothing");
    let broken = [instance::BROKEN, issuers::BROKEN, targets::BROKEN].concat();
    assert_eq!(broken.len(), 103);
    let mut wrong = Vec::new();
    for Broken { what, from, to, says } in broken {
        let said = said_of(&with(from, to));
        if said != says {
            wrong.push(format!("== {what}\n{said}\n-- expected\n{says}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Threat C17: each cluster is an issuer of its own, told apart by name and by URL, byte for byte and to the eye.
#[test]
fn c17_two_issuers_never_share_a_name_or_a_url() {
    assert_eq!(said_of(&with("  - name: blue", "  - name: blue-2")), "nothing");
    let shared = [
        ("  - name: blue", "  - name: github"),
        ("https://blue.example.com", "https://token.actions.githubusercontent.com"),
        ("https://blue.example.com", "https://token.actions.githubusercontent.com/"),
        ("https://blue.example.com", "https://TOKEN.actions.githubusercontent.com"),
    ];
    for (from, to) in shared {
        let said = said_of(&with(from, to));
        assert!(said.contains("on line 6") || said.contains("reads differently"), "{to}: {said}");
    }
}

/// Threat D17: what two parsers could read differently is refused when the configuration is read, ours and theirs.
#[test]
fn d17_an_issuer_that_two_parsers_could_read_differently_is_refused() {
    let paths = [
        "/./a",
        "/a/..",
        "/a/../b",
        "/%2e%2e/b",
        "/a%2fb",
        "//a",
        "/a//b",
        "?a",
        "?",
        "#",
        "#a",
        r"/a\\b",
        "/a b",
        r"/\ta",
    ];
    let hosts = [
        "http://blue.example.com",
        "HTTPS://blue.example.com",
        "https://",
        "https:///a",
        "https://a@blue.example.com",
        "https://a:b@blue.example.com",
        "https://bl\u{fc}e.example.com",
        "https://blu\u{435}.example.com",
        "https://Blue.example.com",
        "https://0x7f.1",
        "https://127.1",
        "https://blue.example.com:99999",
        "blue.example.com",
        "ftp://blue.example.com",
    ];
    let below = paths.iter().map(|path| format!("https://blue.example.com{path}"));
    for url in below.chain(hosts.map(str::to_owned)) {
        for (good, place) in [
            ("issuer: https://blue.example.com", "11:13"),
            ("issuer: https://cambio.example.com", "3:9"),
        ] {
            let said = said_of(&with(good, &format!("issuer: \"{url}\"")));
            assert!(said.starts_with(&format!("cambio.yaml:{place}: `issuer` ")), "{url}: {said}");
        }
    }
}
