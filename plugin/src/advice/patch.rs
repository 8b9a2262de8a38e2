//! Changes as `kubectl` takes them, or as a part of another program's configuration. Nothing is ever applied here.

use serde_json::{Value, json};

/// The kinds of patch that the API server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// JSON merge patch.
    Merge,
    /// Strategic merge patch.
    Strategic,
}

impl Merge {
    /// The name that `kubectl patch --type` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Strategic => "strategic",
        }
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patch {
    /// Of an object in the cluster.
    Object {
        /// service, deployment …
        resource: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The kind of patch.
        merge: Merge,
        /// The patch.
        body: Value,
    },
    /// Of a program's configuration.
    Configuration {
        /// The program.
        of: String,
        /// The part to set.
        text: String,
    },
}

impl Patch {
    /// A patch of an object. `None` if a name is none that Kubernetes gives: it would be read by a shell.
    pub(super) fn object(
        resource: &'static str,
        (namespace, name): (&str, &str),
        merge: Merge,
        body: Value,
    ) -> Option<Self> {
        let is_good = is_name(namespace) && is_name(name);
        is_good.then(|| Self::Object { resource, namespace: namespace.into(), name: name.into(), merge, body })
    }

    pub(super) fn configuration(of: &str, text: impl Into<String>) -> Self {
        Self::Configuration { of: of.to_owned(), text: text.into() }
    }

    /// The lines to run, or to set; those that are not for a shell are comments.
    pub fn shell(&self) -> String {
        match self {
            Self::Object { resource, namespace, name, merge, body } => {
                let body = body.to_string().replace('\'', "'\\''");
                format!("kubectl -n {namespace} patch {resource} {name} --type={} -p '{body}'\n", merge.name())
            }
            Self::Configuration { of, text } => {
                let lines: String = text.lines().map(|line| format!("#   {line}\n")).collect();
                format!("# in the configuration of {of}:\n{lines}")
            }
        }
    }

    /// The patch as JSON.
    pub fn json(&self) -> Value {
        match self {
            Self::Object { resource, namespace, name, merge, body } => json!({
                "command": self.shell().trim_end(),
                "resource": resource, "namespace": namespace, "name": name, "type": merge.name(), "body": body,
            }),
            Self::Configuration { of, text } => json!({ "configuration_of": of, "text": text }),
        }
    }
}

/// Whether a text is a name of an object: lower-case letters, digits, hyphens and points.
pub(super) fn is_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    (1..=253).contains(&bytes.len())
        && bytes.iter().all(|byte| is_inner(*byte))
        && is_end(bytes.first())
        && is_end(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_reaches_a_shell_that_kubernetes_would_not_give() {
        let patch = |namespace, name| Patch::object("service", (namespace, name), Merge::Merge, json!({}));
        for bad in ["", "a b", "$(id)", "a'b", "-f", "a;", "a\nb", "A", "a.", &"a".repeat(254)] {
            assert!(patch("shop", bad).is_none() && patch(bad, "cart").is_none(), "{bad}");
        }
        let body = json!({"metadata": {"annotations": {"a": "it's"}}});
        let good = Patch::object("service", ("shop", "cart-1"), Merge::Merge, body).unwrap();
        assert_eq!(
            good.shell(),
            "kubectl -n shop patch service cart-1 --type=merge -p '{\"metadata\":{\"annotations\":{\"a\":\"it'\\''s\"}}}'\n"
        );
    }
}
