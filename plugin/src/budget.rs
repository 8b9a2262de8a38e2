//! Budgets, budgets.yaml: the dollars that a namespace, or the workloads with a label, may cost in a calendar month.
//! Pure.

use crate::{
    cost::{AmountError, Money},
    yaml,
};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::{collections::HashSet, fmt, path::Path};

type Error = yaml::Error<InvalidBudgets>;
type Refusal = yaml::Refusal<InvalidBudgets>;

/// Budgets of a file. Each is a series of three metrics.
const MAX_BUDGETS: usize = 1000;
/// Characters of a name.
const MAX_NAME: usize = 253;

/// The workloads of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of a namespace.
    Namespace(String),
    /// Those whose pods have a label.
    Label {
        /// The label's key.
        key: String,
        /// The label's value.
        value: String,
    },
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Label { key, value } => write!(f, "label {key}={value}"),
        }
    }
}

/// A budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The name in metrics and reports.
    pub name: String,
    /// The workloads.
    pub scope: Scope,
    /// The limit of a calendar month.
    pub limit: Money,
}

/// The budgets of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets(Vec<Budget>);

/// The reason for which a line of a budget file is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBudgets {
    /// The text is not YAML of this form.
    #[error(transparent)]
    Yaml(#[from] yaml::Invalid),
    /// There are more budgets than one file may have.
    #[error("{count} budgets are too many (at most {MAX_BUDGETS})")]
    TooMany {
        /// The number of budgets.
        count: usize,
    },
    /// A budget has no workloads, or two sorts of them.
    #[error("a budget needs `namespace: NAME` or `label: KEY=VALUE`, one of them")]
    Scope,
    /// A text is not a label.
    #[error("`{0}` is not a label like team=payments")]
    Label(String),
    /// A text is not a name.
    #[error("`{0}` is not a name of one line")]
    Name(String),
    /// Two budgets have one name.
    #[error("two budgets have the name {0}")]
    SameName(String),
    /// The limit is not an amount.
    #[error(transparent)]
    Amount(#[from] AmountError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(deserialize_with = "yaml::list")]
    budgets: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    namespace: Option<String>,
    label: Option<String>,
    usd_per_month: String,
}

impl Budgets {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file can't be read, or has no valid budgets.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(path, &yaml::read(path)?)
    }

    /// Checks a text; `path` is what errors name.
    ///
    /// # Errors
    /// The text has no valid budgets.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, Error> {
        let refused = |refusal: Refusal| refusal.of_file(path);
        let File { budgets } = yaml::parse(text, "the key `budgets`").map_err(|refusal| refused(refusal.widen()))?;
        if budgets.len() > MAX_BUDGETS {
            return Err(refused(Refusal::new(1, InvalidBudgets::TooMany { count: budgets.len() })));
        }
        let (mut all, mut names) = (Vec::new(), HashSet::new());
        for Spanned { value, referenced, .. } in budgets {
            let budget = value.budget().and_then(|budget| {
                let is_new = names.insert(budget.name.clone());
                if is_new { Ok(budget) } else { Err(InvalidBudgets::SameName(budget.name)) }
            });
            all.push(budget.map_err(|reason| refused(Refusal::new(referenced.line(), reason)))?);
        }
        Ok(Self(all))
    }

    /// The budgets in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Budget> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys of labels: a history must keep them.
    pub fn label_keys(&self) -> impl Iterator<Item = &str> {
        self.iter().filter_map(|budget| match &budget.scope {
            Scope::Label { key, .. } => Some(key.as_str()),
            Scope::Namespace(_) => None,
        })
    }
}

impl Entry {
    fn budget(self) -> Result<Budget, InvalidBudgets> {
        let scope = match (self.namespace, self.label) {
            (Some(name), None) => Scope::Namespace(named(name)?),
            (None, Some(label)) => match label.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    Scope::Label { key: named(key.to_owned())?, value: named(value.to_owned())? }
                }
                _ => return Err(InvalidBudgets::Label(short(&label))),
            },
            _ => return Err(InvalidBudgets::Scope),
        };
        let default = match &scope {
            Scope::Namespace(name) => name.clone(),
            Scope::Label { key, value } => format!("{key}={value}"),
        };
        let name = self.name.map_or(Ok(default), named)?;
        Ok(Budget { name, scope, limit: Money::parse(&self.usd_per_month)? })
    }
}

fn named(name: String) -> Result<String, InvalidBudgets> {
    let is_name = !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    if is_name { Ok(name) } else { Err(InvalidBudgets::Name(short(&name))) }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Budgets, String> {
        Budgets::parse(Path::new("budgets.yaml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn budgets_are_of_namespaces_and_labels() {
        let budgets = parse(
            "budgets:\n- {namespace: shop, usd_per_month: \"500\"}\n- {name: pay, label: team=payments, usd_per_month: \"0.5\"}\n",
        );
        let budgets = budgets.unwrap();
        let found: Vec<(&str, String, String)> = budgets
            .iter()
            .map(|budget| (budget.name.as_str(), budget.scope.to_string(), budget.limit.exact()))
            .collect();
        let expected = [("shop", "namespace shop", "500"), ("pay", "label team=payments", "0.5")];
        assert_eq!(found, expected.map(|(name, scope, limit)| (name, scope.to_owned(), limit.to_owned())));
        assert_eq!(budgets.label_keys().collect::<Vec<_>>(), ["team"]);
    }

    #[test]
    fn a_bad_budget_is_refused_with_its_line() {
        for (line, reason) in [
            ("{usd_per_month: \"1\"}", "a budget needs `namespace: NAME` or"),
            ("{namespace: a, label: b=c, usd_per_month: \"1\"}", "a budget needs `namespace: NAME` or"),
            ("{label: team, usd_per_month: \"1\"}", "`team` is not a label"),
            ("{label: =x, usd_per_month: \"1\"}", "`=x` is not a label"),
            ("{namespace: \"\", usd_per_month: \"1\"}", "`` is not a name"),
            ("{name: \"a\\e\", namespace: b, usd_per_month: \"1\"}", "`a` is not a name"),
            ("{namespace: first, usd_per_month: \"1\"}", "two budgets have the name first"),
            ("{namespace: a, usd_per_month: \"1,000\"}", "`1,000` is not an amount"),
            ("{namespace: a, usd_per_month: \"-1\"}", "`-1` is not an amount"),
            ("{namespace: a, usd_per_month: \"9999999999999\"}", "`9999999999999` is not an amount"),
            ("{namespace: a, usd: \"1\"}", "unknown field"),
        ] {
            let error =
                parse(&format!("budgets:\n- {{namespace: first, usd_per_month: \"1\"}}\n- {line}\n")).unwrap_err();
            assert!(error.starts_with("budgets.yaml:3: ") && error.contains(reason), "{error}");
        }
        assert!(parse("").unwrap_err().starts_with("budgets.yaml:1: the file is empty"));
        let many = "- {namespace: a, usd_per_month: \"1\"}\n".repeat(MAX_BUDGETS + 1);
        assert!(parse(&format!("budgets:\n{many}")).unwrap_err().contains("1001 budgets are too many"));
    }
}
