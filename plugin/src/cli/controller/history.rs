//! The settings of the history.

use super::super::{Failure, history_data_args::HistoryDataArgs, usage};
use crate::{archive::Limits, historian::Settings, history::Span};
use std::path::PathBuf;

/// The history that a controller keeps.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// Folder for the history: hours for 31 days, days for 13 months. Each replica needs its own. Without a folder, the
    /// controller keeps no history.
    #[arg(id = "history_dir", long = "history-dir", env = "MERIDIAN_HISTORY_DIR", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    history_dir: Option<PathBuf>,
    /// Maximum size of the history in megabytes (2²⁰ bytes). The oldest hours are removed first.
    #[arg(id = "history_megabytes", long = "history-megabytes", env = "MERIDIAN_HISTORY_MEGABYTES", value_name = "NUMBER", default_value_t = Limits::default().bytes >> 20)]
    history_megabytes: u64,
    /// Number of days to keep hours.
    #[arg(
        id = "history_hourly_days",
        long = "history-hourly-days",
        env = "MERIDIAN_HISTORY_HOURLY_DAYS",
        value_name = "NUMBER",
        default_value_t = 31
    )]
    history_hourly_days: u32,
    /// Number of days to keep days.
    #[arg(
        id = "history_daily_days",
        long = "history-daily-days",
        env = "MERIDIAN_HISTORY_DAILY_DAYS",
        value_name = "NUMBER",
        default_value_t = 396
    )]
    history_daily_days: u32,
    #[command(flatten)]
    kept: HistoryDataArgs,
}

impl HistoryArgs {
    pub(super) fn settings(self) -> Result<Settings, Failure> {
        let bytes = self.history_megabytes.checked_mul(1 << 20).filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or_else(|| usage("--history-megabytes: it is not a number of megabytes, from 1"))?;
        let days = |days: u32| u64::from(days) * u64::from(Span::DAY);
        let (hours, days) = (days(self.history_hourly_days), days(self.history_daily_days));
        Ok(Settings {
            dir: self.history_dir,
            limits: Limits { hours, days, bytes, ..Limits::default() },
            ..self.kept.settings()?
        })
    }
}
