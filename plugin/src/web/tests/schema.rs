//! Checks JSON against the schemas of a description of OpenAPI, as far as ours uses them.

use regex::Regex;
use serde_json::Value;

/// A description.
pub(super) struct Schemas(Value);

impl Schemas {
    pub(super) fn read(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap())
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = String> {
        self.0["paths"].as_object().unwrap().keys().cloned()
    }

    pub(super) fn check(&self, path: &str, value: &Value) {
        assert_eq!(self.fault(path, value), None, "{path}");
    }

    /// The first fault in the answer of a path.
    pub(super) fn fault(&self, path: &str, value: &Value) -> Option<String> {
        let schema = &self.0["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path} has no schema");
        self.find(schema, value, String::new())
    }

    fn find(&self, schema: &Value, value: &Value, at: String) -> Option<String> {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.strip_prefix("#/components/schemas/").unwrap();
            let named = self.0["components"]["schemas"].get(name).unwrap_or_else(|| panic!("no schema {name}"));
            return self.find(named, value, at);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let faults: Vec<_> = choices.iter().map(|choice| self.find(choice, value, at.clone())).collect();
            return if faults.iter().any(Option::is_none) { None } else { faults.into_iter().flatten().last() };
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            other => panic!("{at}: a schema of no type: {other}"),
        };
        if !types.contains(&kind(value)) {
            return Some(format!("{at} is {}", kind(value)));
        }
        if let Some(all) = schema["enum"].as_array()
            && !all.contains(value)
        {
            return Some(format!("{at} is {value}"));
        }
        match value {
            Value::Object(_) => self.in_object(schema, value, &at),
            Value::Array(items) => {
                let limit = schema["maxItems"].as_u64().unwrap_or(u64::MAX);
                let too_long = (items.len() as u64 > limit).then(|| format!("{at} has {} items", items.len()));
                let mut all = items.iter().enumerate();
                too_long.or_else(|| all.find_map(|(n, item)| self.find(&schema["items"], item, format!("{at}[{n}]"))))
            }
            Value::String(text) => {
                let pattern = schema["pattern"].as_str().map(|pattern| Regex::new(pattern).unwrap());
                pattern.is_some_and(|pattern| !pattern.is_match(text)).then(|| format!("{at} is {text}"))
            }
            Value::Number(number) => {
                let is_low = schema["minimum"].as_i64().is_some_and(|least| number.as_i64().is_some_and(|n| n < least));
                is_low.then(|| format!("{at} is {number}"))
            }
            _ => None,
        }
    }

    fn in_object(&self, schema: &Value, value: &Value, at: &str) -> Option<String> {
        let object = value.as_object()?;
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(name) = required.into_iter().find(|name| !object.contains_key(*name)) {
            return Some(format!("{at} lacks {name}"));
        }
        object.iter().find_map(|(name, value)| {
            let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (known @ Value::Object(_), _) => self.find(known, value, at),
                (_, others @ Value::Object(_)) => self.find(others, value, at),
                _ => Some(format!("{at} is not described")),
            }
        })
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
