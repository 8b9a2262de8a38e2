//! Prices, budgets and labels of a process that keeps a history.

use super::{Failure, budgets::BudgetArgs, prices::PriceArgs, usage};
use crate::historian::Settings;

/// Labels that a history keeps.
const MAX_LABELS: usize = 16;

/// Prices, budgets and labels.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryDataArgs {
    #[command(flatten)]
    prices: PriceArgs,
    #[command(flatten)]
    budgets: BudgetArgs,
    /// Keys of labels that the history keeps of workloads, for `meridian report --by label:KEY`; at most 16. A workload
    /// has the label of its pods, or else that of their namespace. Labels of budgets are always kept.
    #[arg(
        id = "history_labels",
        long = "history-labels",
        env = "MERIDIAN_HISTORY_LABELS",
        value_name = "KEY",
        value_delimiter = ','
    )]
    labels: Vec<String>,
}

impl HistoryDataArgs {
    /// The settings of a history, whose folder is not set.
    pub(super) fn settings(self) -> Result<Settings, Failure> {
        let labels: Vec<String> = self.labels.into_iter().filter(|key| !key.is_empty()).collect();
        if labels.len() > MAX_LABELS {
            return Err(usage(format!("--history-labels: {} labels are more than {MAX_LABELS}", labels.len())));
        }
        Ok(Settings {
            prices: self.prices.table()?,
            prices_file: self.prices.path(),
            budgets: self.budgets.budgets()?,
            budgets_file: self.budgets.path(),
            labels,
            ..Settings::default()
        })
    }
}
