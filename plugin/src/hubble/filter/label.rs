//! Filters by label: Kubernetes selectors over Cilium's labels, `source:key=value`.
//!
//! A key in a selector may have a source before a colon; without one it matches the key of any source.

mod syntax;

pub use syntax::InvalidSelector;

use super::field::{EndCheck, FlowCheck};
use crate::proto::number;
use std::collections::BTreeSet;
use syntax::{InvalidValue, check_key, value_faults};

/// Matches the labels of an end.
pub(super) fn of_end(selectors: &[String]) -> Result<EndCheck, InvalidSelector> {
    let selectors = parse(selectors)?;
    Ok(Box::new(move |end| {
        let labels: Vec<&str> = end.iter().flat_map(|end| end.strings(number::endpoint::LABELS)).collect();
        selectors.iter().any(|selector| selector.matches(&labels))
    }))
}

/// Matches the labels of the observing node.
pub(super) fn of_node(selectors: &[String]) -> Result<FlowCheck, InvalidSelector> {
    let selectors = parse(selectors)?;
    Ok(Box::new(move |flow| {
        let labels: Vec<&str> = flow.node().message().strings(number::flow::NODE_LABELS).collect();
        selectors.iter().any(|selector| selector.matches(&labels))
    }))
}

fn parse(selectors: &[String]) -> Result<Vec<Selector>, InvalidSelector> {
    selectors.iter().map(|text| Selector::parse(text)).collect()
}

/// A selector; every requirement must hold.
struct Selector(Vec<Requirement>);

struct Requirement {
    /// `any` matches every source.
    source: String,
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl Selector {
    fn parse(text: &str) -> Result<Self, InvalidSelector> {
        let text = with_sources(text);
        Parser { tokens: scan(&text), position: 0 }.selector().map(Self)
    }

    fn matches(&self, labels: &[&str]) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &[&str]) -> bool {
        let value = self.find(labels);
        let number = |text: &str| text.parse::<i64>().ok();
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let wanted = self.values.first().and_then(|wanted| number(wanted));
                match (value.and_then(number), wanted) {
                    (Some(value), Some(wanted)) if self.operator == Operator::GreaterThan => value > wanted,
                    (Some(value), Some(wanted)) => value < wanted,
                    _ => false,
                }
            }
        }
    }

    /// The value of the first label with this key.
    fn find<'l>(&self, labels: &[&'l str]) -> Option<&'l str> {
        labels.iter().map(|label| Label::parse(label)).find(|label| self.is_of(label)).map(|label| label.value)
    }

    fn is_of(&self, label: &Label<'_>) -> bool {
        let source = self.source == "any" || self.source == label.source;
        if source && self.source == "cidr" {
            return is_in_cidr(label.key, &self.key);
        }
        source && self.key == label.key
    }
}

/// Whether one prefix contains another. Keys have dashes instead of colons.
fn is_in_cidr(inner: &str, outer: &str) -> bool {
    let network = |key: &str| key.replace('-', ":").parse::<ipnetwork::IpNetwork>().ok();
    match (network(inner), network(outer)) {
        (Some(inner), Some(outer)) => outer.prefix() <= inner.prefix() && outer.contains(inner.ip()),
        _ => false,
    }
}

/// `source:key=value`.
struct Label<'l> {
    source: &'l str,
    key: &'l str,
    value: &'l str,
}

impl<'l> Label<'l> {
    fn parse(text: &'l str) -> Self {
        let (source, rest) = if let Some(rest) = text.strip_prefix('$') {
            ("reserved", rest)
        } else if let Some((source, rest)) = text.split_once(':') {
            (source, rest)
        } else {
            text.strip_prefix("reserved.").map_or(("", text), |rest| ("reserved", rest))
        };
        let source = if source.is_empty() { "unspec" } else { source };
        let (key, value) = match rest.split_once('=') {
            Some(("", value)) if source == "reserved" => (value, ""),
            Some((key, value)) => (key, value),
            None => (rest, ""),
        };
        Self { source, key, value }
    }
}

/// The selector with keys as `source.key`, since Kubernetes' parser accepts no colons.
fn with_sources(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut chars = text.chars().peekable();
    while chars.peek().is_some() {
        while let Some(char) = chars.next_if(|char| char.is_whitespace() || *char == '!') {
            out.push(char);
        }
        if chars.peek().is_some() || !out.ends_with(',') {
            let mut key = String::new();
            while let Some(char) = chars.next_if(|char| !char.is_whitespace() && !matches!(char, '=' | '!' | ',')) {
                key.push(char);
            }
            let key = if key.contains(':') { key } else { format!("any:{key}") };
            out.push_str(&key.replacen(':', ".", 1));
        }
        let mut nesting = 0;
        for char in chars.by_ref() {
            match char {
                '(' => nesting += 1,
                ')' => nesting -= 1,
                _ => {}
            }
            out.push(char);
            if char == ',' && nesting == 0 {
                break;
            }
        }
    }
    out
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn symbol(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

/// Splits a selector into tokens with their texts; the last token is the end.
fn scan(text: &str) -> Vec<(Token, String)> {
    let is_special = |char: char| matches!(char, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let is_space = |char: char| matches!(char, ' ' | '\t' | '\r' | '\n');
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(is_space);
        // A zero byte ends the text, as in Kubernetes' parser.
        let Some(first) = rest.chars().next().filter(|char| *char != '\0') else { break };
        if is_special(first) {
            let run = rest.find(|char| !is_special(char)).unwrap_or(rest.len());
            // The longest symbol: extended by a character while it is still one.
            let mut len = 0;
            for end in 1..=run {
                if symbol(&rest[..end]).is_some() {
                    len = end;
                } else if len > 0 {
                    break;
                }
            }
            let token = symbol(&rest[..len]).unwrap_or(Token::Error);
            let text = match token {
                Token::Error => format!("error expected: keyword found '{}'", &rest[..run]),
                _ => rest[..len].to_owned(),
            };
            let taken = if token == Token::Error { run } else { len };
            tokens.push((token, text));
            rest = &rest[taken..];
        } else {
            let end = rest.find(|char| is_special(char) || is_space(char) || char == '\0').unwrap_or(rest.len());
            let word = &rest[..end];
            tokens.push((symbol(word).unwrap_or(Token::Identifier), word.to_owned()));
            rest = &rest[end..];
        }
    }
    tokens.push((Token::End, String::new()));
    tokens
}

struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

impl Parser {
    /// The next token where a value is expected: `in` and `notin` are plain names there.
    fn peek(&self) -> (Token, String) {
        let (token, text) = self.raw();
        (if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token }, text)
    }

    fn raw(&self) -> (Token, String) {
        // Past the last token, the end repeats.
        self.tokens.get(self.position).or(self.tokens.last()).cloned().unwrap_or((Token::End, String::new()))
    }

    fn take(&mut self) -> (Token, String) {
        let taken = self.peek();
        self.position += 1;
        taken
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, InvalidSelector> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self.requirement();
                    requirements.push(requirement.map_err(|error| InvalidSelector::Requirement(Box::new(error)))?);
                    match self.take() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.peek() {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, text) => return Err(InvalidSelector::found(&text, "identifier after ','")),
                        },
                        (_, text) => return Err(InvalidSelector::found(&text, "',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, text) => return Err(InvalidSelector::found(&text, "!, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, InvalidSelector> {
        let mut operator = None;
        let mut taken = self.take();
        if taken.0 == Token::Not {
            operator = Some(Operator::DoesNotExist);
            taken = self.take();
        }
        let (Token::Identifier, key) = taken else {
            return Err(InvalidSelector::found(&taken.1, "identifier"));
        };
        check_key(&key).map_err(|source| InvalidSelector::Key { key: key.clone(), source })?;
        if matches!(self.peek().0, Token::End | Token::Comma) {
            operator = operator.or(Some(Operator::Exists));
        }
        // After `!key` an operator is required only if more text follows.
        if let Some(operator) = operator {
            return requirement(&key, operator, BTreeSet::new());
        }
        let (token, text) = self.raw();
        self.position += 1;
        let (operator, many) = match token {
            Token::In => (Operator::In, true),
            Token::NotIn => (Operator::NotIn, true),
            Token::Equals | Token::DoubleEquals => (Operator::In, false),
            Token::NotEquals => (Operator::NotIn, false),
            Token::Greater => (Operator::GreaterThan, false),
            Token::Less => (Operator::LessThan, false),
            _ => return Err(InvalidSelector::found(&text, OPERATORS)),
        };
        let values = if many { self.values()? } else { BTreeSet::from([self.exact_value()?]) };
        requirement(&key, operator, values)
    }

    fn exact_value(&mut self) -> Result<String, InvalidSelector> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take() {
            (Token::Identifier, value) => Ok(value),
            (_, text) => Err(InvalidSelector::found(&text, "identifier")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, InvalidSelector> {
        let (token, text) = self.take();
        if token != Token::Open {
            return Err(InvalidSelector::NoValues { text });
        }
        let (token, text) = self.peek();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.list()?;
                // The text is that of the first value, as in Kubernetes' parser.
                if self.take().0 == Token::Close { Ok(values) } else { Err(InvalidSelector::found(&text, "')'")) }
            }
            Token::Close => {
                self.position += 1;
                Ok(BTreeSet::from([String::new()]))
            }
            _ => Err(InvalidSelector::found(&text, "',', ')' or identifier")),
        }
    }

    fn list(&mut self) -> Result<BTreeSet<String>, InvalidSelector> {
        let mut values = BTreeSet::new();
        loop {
            match self.take() {
                (Token::Identifier, value) => {
                    values.insert(value);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(InvalidSelector::found(&text, "',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return Err(InvalidSelector::found(&text, "',', or identifier")),
            }
        }
    }
}

/// A requirement with valid values.
fn requirement(key: &str, operator: Operator, values: BTreeSet<String>) -> Result<Requirement, InvalidSelector> {
    let mut invalid = Vec::new();
    for (index, value) in values.iter().enumerate() {
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
            invalid.push(InvalidValue::NoInteger { index, value: value.clone() });
        }
    }
    for (index, value) in values.iter().enumerate() {
        let faults = value_faults(value);
        if !faults.is_empty() {
            invalid.push(InvalidValue::Faults { index, key: key.to_owned(), value: value.clone(), faults });
        }
    }
    if !invalid.is_empty() {
        return Err(InvalidSelector::Values(invalid));
    }
    let (source, key) = key.split_once('.').unwrap_or(("any", key));
    let source = if source.is_empty() { "any" } else { source };
    Ok(Requirement { source: source.to_owned(), key: key.to_owned(), operator, values })
}
