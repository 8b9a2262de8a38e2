//! Requests that may be answered, and those that come near: forged headers, foreign hosts, tokens that differ by a
//! letter, and token files that are empty or gone.

use super::*;
use std::{fs, net::Ipv4Addr, path::PathBuf};

const TOKEN: &str = "ZmFyIGF3YXkgYW5k+/==";
const HERE: [&str; 5] = ["127.0.0.1:9981", "localhost:9981", "LOCALHOST", "[::1]:9981", "127.8.9.10"];

struct TokenFile(PathBuf);

impl TokenFile {
    fn new(name: &str, token: &str) -> Self {
        let path = std::env::temp_dir().join(format!("meridian-access-{name}-{}", std::process::id()));
        fs::write(&path, token).unwrap();
        Self(path)
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = fs::remove_file(&self.0);
    }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn from(address: &str) -> Remote {
    Remote(address.parse().unwrap())
}

#[test]
fn this_machine_needs_no_token_and_others_are_refused_whatever_they_say() {
    let access = Access::default();
    for remote in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
        for host in HERE {
            assert_eq!(access.check(from(remote), &headers(&[("host", host)])), Ok(()), "{remote} {host}");
        }
    }
    for remote in ["10.0.0.7", "169.254.1.1", "fe80::1", "::ffff:10.0.0.7", "0.0.0.0", "::"] {
        let forged = headers(&[
            ("host", "127.0.0.1:9981"),
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1;host=localhost"),
            ("x-real-ip", "127.0.0.1"),
            ("authorization", "Bearer "),
            ("authorization", ""),
        ]);
        assert_eq!(access.check(from(remote), &forged), Err(Denial::Elsewhere), "{remote}");
    }
}

#[test]
fn a_name_that_a_foreign_site_makes_resolve_to_loopback_reads_nothing() {
    let access = Access::default();
    let here = Remote(Ipv4Addr::LOCALHOST.into());
    let foreign = [
        "evil.example:9981",
        "localhost.evil.example",
        "127.0.0.1.evil.example:9981",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "127.0.0.1, evil.example",
        "127.1",
        "2130706433",
        "0x7f000001:9981",
        "0.0.0.0:9981",
        "10.0.0.7:9981",
        "[::ffff:10.0.0.7]",
        "",
        "[::1",
        "[]",
    ];
    for host in foreign {
        assert_eq!(access.check(here, &headers(&[("host", host)])), Err(Denial::Host), "{host}");
    }
    // None, or two of which each reader would take another.
    assert_eq!(access.check(here, &HeaderMap::new()), Err(Denial::Host));
    let two = headers(&[("host", "127.0.0.1"), ("host", "evil.example")]);
    assert_eq!(access.check(here, &two), Err(Denial::Host));
}

#[test]
fn the_token_lets_in_as_a_bearer_s_and_as_a_password_and_nothing_near_it_does() {
    let kept = TokenFile::new("near", &format!("{TOKEN}\n"));
    let access = Access::with_token(&kept.0).unwrap();
    let far = from("10.0.0.7");
    let with = |value: &str| access.check(far, &headers(&[("host", "meridian"), ("authorization", value)]));
    // `anyone:TOKEN` and `:TOKEN`.
    let passwords = ["YW55b25lOlptRnlJR0YzWVhrZ1lXNWsrLz09", "OlptRnlJR0YzWVhrZ1lXNWsrLz09"];
    for good in [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN}")]
        .into_iter()
        .chain(passwords.map(|pair| format!("Basic {pair}")))
    {
        assert_eq!(with(&good), Ok(()), "{good}");
    }
    let near = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        TOKEN.to_owned(),
        format!("Bearer {}", &TOKEN[..TOKEN.len() - 1]),
        format!("Bearer {TOKEN}x"),
        format!("Bearer {}", TOKEN.to_lowercase()),
        format!("Bearer {TOKEN} {TOKEN}"),
        format!("Token {TOKEN}"),
        format!("Basic {TOKEN}"),
        // `TOKEN` without a name, `TOKEN:`, and no base64.
        "Basic Wm1GeUlHRjNZWGtnWVc1aysvPT0=".to_owned(),
        "Basic Wm1GeUlHRjNZWGtnWVc1aysvPT06".to_owned(),
        "Basic ????".to_owned(),
        format!("Bearer {}", "x".repeat(10_000)),
    ];
    for bad in near {
        assert_eq!(with(&bad), Err(Denial::Token), "{bad}");
    }
    let twice = headers(&[("authorization", "Bearer wrong"), ("authorization", &format!("Bearer {TOKEN}"))]);
    assert_eq!(access.check(far, &twice), Err(Denial::Token));
    let unreadable = headers(&[("authorization", "Bearer \u{e9}")]);
    assert_eq!(access.check(far, &unreadable), Err(Denial::Token));
    // This machine goes on as before, also through a proxy's name with the token.
    assert_eq!(access.check(from("::1"), &headers(&[("host", "localhost")])), Ok(()));
    assert_eq!(access.check(from("::1"), &headers(&[("host", "evil.example")])), Err(Denial::Token));
}

#[test]
fn a_new_token_counts_at_once_and_an_empty_or_missing_file_lets_nobody_in() {
    let kept = TokenFile::new("new", TOKEN);
    let access = Access::with_token(&kept.0).unwrap();
    let with = |token: &str| access.check(from("10.0.0.7"), &headers(&[("authorization", &format!("Bearer {token}"))]));
    fs::write(&kept.0, "another-token-of-today").unwrap();
    assert_eq!((with(TOKEN), with("another-token-of-today")), (Err(Denial::Token), Ok(())));
    for short in ["", "\n", "short", "               "] {
        fs::write(&kept.0, short).unwrap();
        assert_eq!(with(short.trim()), Err(Denial::Token), "{short:?}");
        assert!(matches!(Access::with_token(&kept.0), Err(TokenError::Short(_))), "{short:?}");
    }
    fs::remove_file(&kept.0).unwrap();
    assert_eq!(with(TOKEN), Err(Denial::Token));
    assert!(matches!(Access::with_token(&kept.0), Err(TokenError::Unreadable { .. })));
    assert!(Access::with_token(Path::new("/dev/zero")).is_err());
}
