//! `meridian whatif`: the traffic of a service as it would have been with a preference, or with other endpoints.

use super::{
    Failure,
    history_args::{self, RangeArgs, ServerArgs},
    print, usage,
};
use crate::{
    advice::{Change, OutputFormat},
    historian::second,
    statement,
};

/// The change, and the server that has the history.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Service and preference: NAMESPACE/NAME=PreferSameZone, =PreferClose or =none.
    #[arg(value_name = "SERVICE=VALUE")]
    change: String,
    /// Number of endpoints by zone: ZONE=NUMBER, several with commas.
    #[arg(long, value_name = "ZONE=NUMBER", default_value = "")]
    endpoints: String,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    range: RangeArgs,
    /// Output format: table or json.
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: String,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    // Bad questions are refused before a server is asked.
    statement::StatementRequest::parse(&args.range.texts([]), second()).map_err(history_args::bad_range)?;
    Change::parse(&args.change, &args.endpoints).map_err(usage)?;
    if !matches!(OutputFormat::of_name(&args.output), Some(OutputFormat::Table | OutputFormat::Json)) {
        return Err(usage("--output: it is neither table nor json"));
    }
    let others = [("change", &args.change), ("endpoints", &args.endpoints), ("output", &args.output)];
    print(&args.server.answer("/api/v1/whatif", &args.range.texts(others))?)
}
