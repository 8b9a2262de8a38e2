//! Filters by HTTP, which match only flows of layer 7.

use super::{
    field::{FlowCheck, SizedCheck, record},
    go::{self, Regexps},
    invalid::InvalidFilter,
};
use crate::{
    flows::Encoded,
    proto::{
        flow::HttpHeader,
        number::{http, httpheader, layer7},
        wire::Message,
    },
};

fn http(flow: &Encoded) -> Option<Message<'_>> {
    record(flow, layer7::HTTP)
}

/// A code of three digits, or the first digits and a `+`.
pub(super) fn status_code(codes: &[String]) -> Result<FlowCheck, InvalidFilter> {
    let (mut full, mut prefixes) = (Vec::new(), Vec::new());
    for code in codes {
        let digits = code.strip_suffix('+').unwrap_or(code);
        let good = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.starts_with(['1', '2', '3', '4', '5']);
        match (code.ends_with('+'), digits.len()) {
            (false, 3) if good => full.push(code.clone()),
            (true, 1 | 2) if good => prefixes.push(digits.to_owned()),
            _ => return Err(InvalidFilter::of("http status code")(InvalidFilter::StatusCode(code.clone()))),
        }
    }
    Ok(Box::new(move |flow| {
        let Some(code) = http(flow).map(|http| http.varint(http::CODE) as u32).filter(|code| *code != 0) else {
            return false;
        };
        let code = format!("{code:03}");
        full.contains(&code) || prefixes.iter().any(|prefix| code.starts_with(prefix))
    }))
}

pub(super) fn method(methods: &[String]) -> FlowCheck {
    let methods: Vec<String> = methods.iter().map(|method| method.to_lowercase()).collect();
    Box::new(move |flow| {
        let has = http(flow).map_or("", |http| http.string(http::METHOD));
        !has.is_empty() && methods.contains(&has.to_lowercase())
    })
}

fn regexps(patterns: &[String], field: &'static str) -> Result<Regexps, InvalidFilter> {
    go::regexps(patterns).map_err(|error| InvalidFilter::of(field)(InvalidFilter::Http(error)))
}

pub(super) fn url(patterns: &[String]) -> Result<SizedCheck, InvalidFilter> {
    let patterns = regexps(patterns, "http url")?;
    let bytes = patterns.bytes();
    let check = Box::new(move |flow: &Encoded| {
        let has = http(flow).map_or("", |http| http.string(http::URL));
        !has.is_empty() && patterns.is_match(has)
    });
    Ok(SizedCheck { check, bytes })
}

pub(super) fn path(patterns: &[String]) -> Result<SizedCheck, InvalidFilter> {
    let patterns = regexps(patterns, "http path")?;
    let bytes = patterns.bytes();
    let check = Box::new(move |flow: &Encoded| {
        let path = http(flow).and_then(|http| path_of(http.string(http::URL)));
        path.is_some_and(|path| patterns.is_match(&path))
    });
    Ok(SizedCheck { check, bytes })
}

pub(super) fn header(headers: &[HttpHeader]) -> FlowCheck {
    let headers = headers.to_vec();
    Box::new(move |flow| {
        http(flow).is_some_and(|http| {
            http.messages(http::HEADERS).any(|has| {
                let has = (has.string(httpheader::KEY), has.string(httpheader::VALUE));
                headers.iter().any(|header| has == (&header.key, &header.value))
            })
        })
    })
}

/// The unescaped path of a URL or of an absolute path; `None` if the text is neither.
fn path_of(url: &str) -> Option<String> {
    if url.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return None;
    }
    let rest = match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => {
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            is_authority(authority).then_some(rest)?
        }
        _ if url.starts_with('/') => url,
        _ => return None,
    };
    let path = rest.split('?').next().unwrap_or_default();
    unescape(path)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '+' | '-' | '.'))
}

/// A host, with an optional user before it and an optional port after it.
fn is_authority(text: &str) -> bool {
    let host = text.rsplit('@').next().unwrap_or_default();
    let port = host.rsplit(']').next().and_then(|rest| rest.split_once(':')).map_or("", |(_, port)| port);
    let is_of_host =
        |char: char| char.is_ascii_alphanumeric() || !char.is_ascii() || "-_.~!$&'()*+,;=:[]<>\"".contains(char);
    host.chars().all(is_of_host) && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn unescape(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_url_is_without_host_and_query() {
        let path = |url: &str| path_of(url).unwrap_or_else(|| "none".into());
        assert_eq!(path("http://a.b:80/x/y?z=/q"), "/x/y");
        assert_eq!(path("/x%2fy"), "/x/y");
        assert_eq!(path("https://a?q"), "");
        assert_eq!(path("http://me@a:80/x"), "/x");
        for bad in ["http://a b/x", "http://a:b/x", "http://a{b}/x"] {
            assert_eq!(path(bad), "none", "{bad}");
        }
        assert_eq!(path("x/y"), "none");
        assert_eq!(path("/x%2"), "none");
    }
}
